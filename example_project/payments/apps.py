"""The app's configuration."""

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    """Customers, their invoices, and what was collected."""

    name = "payments"

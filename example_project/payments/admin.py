"""Customers, invoices and payments in the admin, next to the held locks."""

from django.contrib import admin

from payments.models import Customer, Invoice, Payment


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """List the customers."""

    list_display = ("name",)


@admin.register(Invoice)
class InvoiceAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """List the invoices and their status."""

    list_display = ("number", "customer", "amount", "status")
    list_filter = ("status",)


@admin.register(Payment)
class PaymentAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """List the payments and the process that took each."""

    list_display = ("invoice", "amount", "collected_at", "worker")

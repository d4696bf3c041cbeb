"""The URLs of a site that measures its locks, and shows the numbers by django-prometheus's view.

A site calls instrument() in the ready() of its app. All tests share theirs, so it is done here.
"""

from django.http import HttpRequest, HttpResponse
from django.urls import path
from django_prometheus.exports import ExportToDjangoView

from django_distlock import distributed_lock
from django_distlock.telemetry import prometheus

prometheus.instrument()


@distributed_lock("<customer_id>collectPayment", timeout=60)
def collect_payment(request: HttpRequest, customer_id: int) -> HttpResponse:
    """Hold the customer's lock for a moment."""
    return HttpResponse(customer_id)


urlpatterns = [
    path("<int:customer_id>/collect/", collect_payment),
    path("metrics", ExportToDjangoView),
]

"""The list of customers, and collecting what they owe: with the lock and without."""

from django.contrib import messages
from django.contrib.admin.views.decorators import staff_member_required
from django.db.models import Count, Prefetch
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from django_distlock import distributed_lock
from payments import collecting
from payments.models import Customer, Invoice


@require_safe
def customers(request: HttpRequest) -> HttpResponse:
    """List the customers, their invoices, and how often each was collected."""
    invoices = Invoice.objects.annotate(times_collected=Count("payments"))
    return render(
        request,
        "payments/customers.html",
        {"customers": Customer.objects.prefetch_related(Prefetch("invoices", invoices))},
    )


# Permissions are checked outside the lock: otherwise a stranger could hold a customer's lock.
@require_POST
@staff_member_required
@distributed_lock("<int:customer_id>collectPayment")
def collect(request: HttpRequest, customer_id: int) -> HttpResponse:
    """Collect what a customer owes. Answer 409 if another request already does.

    The payments are one transaction, whose commit checks the lock: no lease is passed on.
    """
    return _collect(request, customer_id)


@require_POST
@staff_member_required
def collect_without_lock(request: HttpRequest, customer_id: int) -> HttpResponse:
    """Collect what a customer owes, and hope that nobody else is at it."""
    return _collect(request, customer_id)


@require_POST
@staff_member_required
def reset(request: HttpRequest, customer_id: int | None = None) -> HttpResponse:
    """Make a customer's invoices open again, or everybody's."""
    customers = Customer.objects.all()
    if customer_id is not None:
        customers = customers.filter(pk=customer_id)
    collecting.reset(customers)
    return _answer(request, "Invoices", "open again")


def _collect(request: HttpRequest, customer_id: int) -> HttpResponse:
    customer = get_object_or_404(Customer, pk=customer_id)
    collected = collecting.collect_payment(customer)
    return _answer(request, customer.name, "collected" if collected else "already collected")


def _answer(request: HttpRequest, subject: str, result: str) -> HttpResponse:
    if request.get_preferred_type(["text/html", "application/json"]) == "application/json":
        return JsonResponse({"result": result})
    messages.info(request, f"{subject}: {result}.")
    return redirect("payments:customers")

"""Views under the lock, in all the ways that they are written."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.db import connection, transaction
from django.dispatch import Signal
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from rest_framework.decorators import api_view
from rest_framework.response import Response
from rest_framework.views import APIView

from django_distlock import distributed_lock, release_lock
from tests.app.models import Counter


@distributed_lock("<str:customer_id>collectPayment")
def collect(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Collect a payment, and answer whether it was in a transaction."""
    return JsonResponse({"atomic": connection.in_atomic_block, "customer": customer_id})


has_read = Signal()


@distributed_lock("<str:customer_id>collectPayment")
def read_and_write(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Read, say so, and write."""
    number = Counter.objects.count()
    has_read.send(sender=None)
    Counter.objects.create(value=number)
    return HttpResponse("written")


@distributed_lock("<str:customer_id>collectPayment", timeout=60)
def wait_read_and_write(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Do the same when it is free."""
    Counter.objects.create(value=Counter.objects.count())
    return HttpResponse("written")


@csrf_exempt
@distributed_lock("<str:customer_id>collectPayment")
@transaction.non_atomic_requests
def collect_not_atomic(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Collect with decorators above and below the lock, the one below asking for no transaction."""
    return JsonResponse({"atomic": connection.in_atomic_block})


@transaction.non_atomic_requests
@distributed_lock("<str:customer_id>collectPayment")
def collect_not_atomic_above(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Collect with the exemption above the lock."""
    return JsonResponse({"atomic": connection.in_atomic_block})


@distributed_lock("<str:customer_id>:outer")
@distributed_lock("<str:customer_id>collectPayment")
def collect_twice_locked(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Collect under two locks."""
    return JsonResponse({"atomic": connection.in_atomic_block})


class CollectOnMethod(View):
    """One method is locked."""

    @distributed_lock("<str:customer_id>collectPayment")
    def get(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Collect."""
        return JsonResponse({"atomic": connection.in_atomic_block})


@method_decorator(distributed_lock("<str:customer_id>collectPayment"), name="dispatch")
class CollectOnDispatch(View):
    """Every method is locked."""

    def get(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Collect."""
        return JsonResponse({"atomic": connection.in_atomic_block})


@distributed_lock(
    lambda request, customer_id: f"{customer_id}collectPayment",
    on_conflict=lambda request, customer_id: HttpResponse(f"{customer_id} is busy", status=202),
)
def collect_or_202(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Collect, or answer in the site's own way."""
    return HttpResponse("collected")


class CollectOr202(View):
    """The same on a method."""

    @distributed_lock(
        "<str:customer_id>collectPayment",
        on_conflict=lambda request, customer_id: HttpResponse(f"{customer_id} is busy", status=202),
    )
    def get(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Collect."""
        return HttpResponse("collected")


@distributed_lock("<str:customer_id>collectPayment")
def charge(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Help a view whose caller would ignore a 409."""
    return HttpResponse("charged")


def collect_by_helper(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Collect through a locked helper."""
    charge(request, customer_id)
    return HttpResponse("collected")


@distributed_lock("<str:customer_id>collectPayment", http=True)
def charge_http(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Help a view that returns what this returns."""
    return HttpResponse("charged")


def collect_by_http_helper(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Collect through a locked helper that answers for its caller."""
    return charge_http(request, customer_id)


@distributed_lock("<str:customer_id>collectPayment", http=False)
def collect_raising(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Collect, and raise when contended."""
    return JsonResponse({"atomic": connection.in_atomic_block})


@distributed_lock("<str:customer_id>collectPayment")
def collect_and_release(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Release early."""
    release_lock(f"{customer_id}collectPayment")
    return HttpResponse("collected")


class WritingFirst(View):
    """Something is written before the method that is locked."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Write, and go on."""
        Counter.objects.create(value=13)
        return super().dispatch(request, *args, **kwargs)

    @distributed_lock("<str:customer_id>collectPayment")
    def get(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Collect."""
        return HttpResponse("collected")


@login_required
@distributed_lock("<str:customer_id>collectPayment")
def collect_below_login(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Collect for a user who is logged in: strangers don't get to the lock."""
    return JsonResponse({"atomic": connection.in_atomic_block})


@distributed_lock("<str:customer_id>collectPayment")
@login_required
def collect_above_login(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Collect with the check inside the lock."""
    return JsonResponse({"atomic": connection.in_atomic_block})


class RESTOnMethod(APIView):  # type: ignore[misc]
    """A view of Django REST framework's with a locked method."""

    @distributed_lock("<str:customer_id>collectPayment")
    def get(self, request: Any, customer_id: str) -> Response:
        """Collect."""
        return Response({"atomic": connection.in_atomic_block})


@method_decorator(distributed_lock("<str:customer_id>collectPayment"), name="dispatch")
class RESTOnDispatch(APIView):  # type: ignore[misc]
    """The same, locked as a whole."""

    def get(self, request: Any, customer_id: str) -> Response:
        """Collect."""
        return Response({"atomic": connection.in_atomic_block})


@distributed_lock("<str:customer_id>collectPayment")
@api_view(["GET"])  # type: ignore[untyped-decorator]
def rest_function(request: Any, customer_id: str) -> Response:
    """Collect by Django REST framework's function view."""
    return Response({"atomic": connection.in_atomic_block})


async def collect_async(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Do what Django refuses under ATOMIC_REQUESTS."""
    raise NotImplementedError


def increment_in_block(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Read and write under a lock that is acquired and released inside Django's transaction."""
    with distributed_lock(f"{customer_id}collectPayment", timeout=30):
        return _increment()


@distributed_lock("<str:customer_id>collectPayment", timeout=30)
def increment(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Read, and write back one more."""
    return _increment()


class IncrementOnMethod(View):
    """The same on a method, inside Django's transaction."""

    @distributed_lock("<str:customer_id>collectPayment", timeout=30)
    def get(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Read, and write back one more."""
        return _increment()


def increment_unlocked(request: HttpRequest, customer_id: str) -> HttpResponse:
    """The same without the lock."""
    return _increment()


def _increment(**kwargs: Any) -> HttpResponse:
    counter = Counter.objects.get()
    has_read.send(sender=None)
    Counter.objects.update(value=counter.value + 1)
    return HttpResponse(counter.value + 1)


@distributed_lock("<str:customer_id>collectPayment")
def collect_and_fail(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Write, then fail."""
    Counter.objects.create(value=13)
    raise ZeroDivisionError

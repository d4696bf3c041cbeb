"""Under ATOMIC_REQUESTS the lock is outside the view's transaction."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.core.handlers.base import BaseHandler
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.test import Client, RequestFactory
from django.urls import resolve
from django.utils.decorators import method_decorator
from django.views import View
from model_bakery import baker

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockError,
    LockLost,
    acquire_lock,
    distributed_lock,
    lock_backends,
)
from django_distlock.backends.database import DatabaseBackend
from django_distlock.records import Claim, Released
from tests.app.models import Counter
from tests.app.views import charge_http, has_read
from tests.support.concurrency import until
from tests.support.databases import isolated, on_each_server
from tests.support.holders import due_now, take_away
from tests.support.leases import internals
from tests.support.moved_clock import MovedClock
from tests.support.scripted_store import ScriptedBackend
from tests.support.visits import SOON, atomic_requests, visit

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture(autouse=True)
def default_is_atomic() -> Iterator[None]:
    """Make Django open a transaction on the default database for each request."""
    with atomic_requests("default"):
        yield


@pytest.mark.parametrize(
    ("path", "atomic"),
    [
        ("collect", True),
        ("dispatch", True),
        ("method", True),
        ("twice-locked", True),
        ("raising", True),
        ("below-login", True),
        ("above-login", True),
        ("rest-method", True),
        ("rest-dispatch", True),
        ("rest-function", True),
        ("not-atomic", False),
        ("not-atomic-above", False),
    ],
)
def test_view_has_its_transaction_unless_it_is_exempt(
    client: Client, path: str, atomic: bool
) -> None:
    """Whether non_atomic_requests and other decorators are above or below the lock."""
    client.force_login(baker.make(User))
    assert client.get(f"/{path}/1234/").json()["atomic"] is atomic


@pytest.mark.parametrize(
    "path",
    ["collect", "dispatch", "twice-locked", "above-login", "rest-dispatch", "rest-function"],
)
def test_transaction_is_committed_when_the_lock_is_released(
    client: Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """And not begun yet when it is acquired."""
    atomic_at: list[bool] = []
    for action in ("acquire", "release"):
        original = getattr(type(lock_backends["default"]), action)

        def spy(self: Any, *arguments: Any, original: Any = original) -> Any:
            atomic_at.append(connections["default"].in_atomic_block)
            return original(self, *arguments)

        monkeypatch.setattr(type(lock_backends["default"]), action, spy)
    client.force_login(baker.make(User))
    assert client.get(f"/{path}/1234/").status_code == 200
    assert set(atomic_at) == {False}
    assert len(atomic_at) == (4 if path == "twice-locked" else 2)


def test_django_opens_no_transaction_around_a_locked_view() -> None:
    """It would be outside the lock."""
    view = resolve("/collect/1234/").func
    assert BaseHandler().make_view_atomic(view) is view


def test_async_view_keeps_djangos_own_error(client: Client) -> None:
    """A coroutine can't run in a transaction."""
    with pytest.raises(RuntimeError, match="You cannot use ATOMIC_REQUESTS with async views"):
        client.get("/async/1234/")


@pytest.mark.needs("postgresql", "mariadb")
@pytest.mark.parametrize(
    ("exempt", "atomic"),
    [
        (set(), {"default", "postgresql", "mariadb"}),
        ({"mariadb"}, {"default", "postgresql"}),
        ({"default", "mariadb"}, {"postgresql"}),
    ],
)
def test_each_database_has_its_transaction_unless_it_is_exempt(
    exempt: set[str], atomic: set[str]
) -> None:
    """Several may have ATOMIC_REQUESTS, and each has its own exemption."""
    seen: set[str] = set()

    @distributed_lock("report", http=True)
    def view(request: HttpRequest) -> HttpResponse:
        seen.update(alias for alias in connections if connections[alias].in_atomic_block)
        return HttpResponse("seen")

    for alias in exempt:
        view = transaction.non_atomic_requests(using=alias)(view)
    with atomic_requests("postgresql", "mariadb"):
        assert visit(view).status_code == 200
    assert seen == atomic


@on_each_server
def test_contended_method_rolls_the_requests_writes_back(
    client: Client, settings: Any, alias: str
) -> None:
    """Django's transaction is outside the lock; the answer is still 409."""
    settings.DISTLOCK = {"default": settings.DISTLOCK[alias]}
    assert client.get("/writing-first/1234/").status_code == 200
    assert Counter.objects.count() == 1
    assert acquire_lock("1234collectPayment")
    assert client.get("/writing-first/1234/").status_code == 409
    assert Counter.objects.count() == 1
    with mock.patch.object(DatabaseBackend, "acquire", side_effect=LockBackendUnavailable("down")):
        assert client.get("/writing-first/1234/").status_code == 503
    assert Counter.objects.count() == 1


@pytest.mark.parametrize("path", ["rest-method", "rest-dispatch", "rest-function"])
def test_contended_rest_view_answers_409(client: Client, path: str) -> None:
    """Like any Django view."""
    assert acquire_lock("1234collectPayment")
    response = client.get(f"/{path}/1234/")
    assert response.status_code == 409
    assert response["Retry-After"] in SOON


@on_each_server
@pytest.mark.usefixtures("stopped_clock")  # else the lock is asked for once more before the answer
def test_method_whose_lock_is_lost_before_djangos_commit_is_rolled_back(
    settings: Any, alias: str
) -> None:
    """With a server error, since the method has already returned its answer."""
    settings.DISTLOCK = {"default": settings.DISTLOCK[alias]}
    client = Client(raise_request_exception=False)

    def lose(store: DatabaseBackend, lease: Lease, using: str) -> bool:
        return False

    with mock.patch.object(DatabaseBackend, "guard", lose):
        assert client.get("/writing-first/1234/").status_code == 500
    assert not Counter.objects.exists()


def test_failing_view_is_rolled_back_and_released() -> None:
    """As without a lock."""
    client = Client(raise_request_exception=False)
    assert client.get("/fail/1234/").status_code == 500
    assert not Counter.objects.exists()
    assert acquire_lock("1234collectPayment")


def test_view_whose_lease_expired_before_the_commit_is_rolled_back(
    client: Client, acquired: list[Lease], moved_clock: MovedClock
) -> None:
    """503, and what it wrote is gone: a successor may be at work."""

    def outlast_the_lease(**kwargs: Any) -> None:
        moved_clock.expire(acquired[-1])

    has_read.connect(outlast_the_lease)
    try:
        response = client.get("/read-and-write/1234/")
    finally:
        has_read.disconnect(outlast_the_lease)
    assert response.status_code == 503
    assert not Counter.objects.exists()


@on_each_server
def test_locked_method_is_released_after_the_commit_of_djangos_transaction(
    client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch, alias: str
) -> None:
    """That transaction is outside the lock; here data and lock are in different databases."""
    settings.DISTLOCK = {"default": settings.DISTLOCK[alias]}
    released_in_transaction: list[bool] = []
    release = DatabaseBackend.release

    def spy(store: DatabaseBackend, lease: Claim, keep: float) -> Released:
        released_in_transaction.append(connections["default"].in_atomic_block)
        return release(store, lease, keep)

    monkeypatch.setattr(DatabaseBackend, "release", spy)
    for _ in range(2):
        assert client.get("/method/1234/").status_code == 200
    assert released_in_transaction == [False, False]


@on_each_server
def test_view_whose_lease_is_lost_is_rolled_back_and_503(
    alias: str, lost: dict[Lease, str]
) -> None:
    """The background renewal finds the loss; the view's own answer doesn't count."""

    @distributed_lock("1234collectPayment", backend=alias, http=True)
    def collect(request: HttpRequest) -> HttpResponse:
        Counter.objects.create(value=13)
        with suppress(LockLost):
            with distributed_lock("1234collectPayment", backend=alias, reentrant=True) as lease:
                take_away(lease)
                due_now([lease])
                until(lambda: internals(lease).lost)
        return HttpResponse("collected")

    assert visit(collect).status_code == 503
    assert not Counter.objects.exists()
    assert len(lost) == 1


def test_view_that_no_url_led_to_is_answered_if_it_says_so(scripted: ScriptedBackend) -> None:
    """With http=True. Django would have opened no transaction there."""
    response = charge_http(RequestFactory().get("/"), customer_id="1234")
    assert response.status_code == 200
    assert scripted.calls == ["acquire", "release"]


@pytest.mark.needs("postgresql")
def test_method_that_is_locked_after_a_query_is_refused_in_an_older_snapshot() -> None:
    """Such as that for `request.user`. A lock on `dispatch` comes before the transaction."""
    lock = distributed_lock("1234collectPayment", backend="postgresql")

    class Reading(View):
        def dispatch(self, request: HttpRequest) -> HttpResponseBase:
            Counter.objects.using("postgresql").count()
            return super().dispatch(request)

        def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse("collected")

    @method_decorator(lock, name="get")
    class LockedMethod(Reading): ...

    @method_decorator(lock, name="dispatch")
    class LockedDispatch(Reading): ...

    with isolated("postgresql", "repeatable read"), atomic_requests("postgresql"):
        with pytest.raises(LockError, match="REPEATABLE READ or stricter"):
            visit(LockedMethod.as_view())
        assert visit(LockedDispatch.as_view()).status_code == 200

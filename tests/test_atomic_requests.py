"""Under ATOMIC_REQUESTS the lock is outside the view's transaction."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.handlers.base import BaseHandler
from django.db import connections
from django.test import Client, RequestFactory
from django.urls import resolve

from django_distlock import acquire_lock
from django_distlock.backends.base import Claim
from django_distlock.backends.database import DatabaseBackend
from django_distlock.handler import lock_backends
from django_distlock.leases import Lease
from tests.app.models import Counter
from tests.app.views import charge_http
from tests.conftest import SERVERS, ScriptedBackend

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture(autouse=True)
def atomic_requests() -> Iterator[None]:
    """Let Django open a transaction for each request."""
    connections.settings["default"]["ATOMIC_REQUESTS"] = True
    yield
    connections.settings["default"]["ATOMIC_REQUESTS"] = False


@pytest.mark.parametrize(
    ("path", "atomic"),
    [
        ("collect", True),
        ("dispatch", True),
        ("method", True),
        ("twice-locked", True),
        ("raising", True),
        ("not-atomic", False),
        ("not-atomic-above", False),
    ],
)
def test_view_has_its_transaction_unless_it_is_exempt(
    client: Client, path: str, atomic: bool
) -> None:
    """Whether non_atomic_requests stands above or below the lock."""
    assert client.get(f"/{path}/1234/").json()["atomic"] is atomic


@pytest.mark.parametrize("path", ["collect", "dispatch", "twice-locked"])
def test_transaction_is_committed_when_the_lock_is_released(
    client: Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """And not yet begun when it is acquired."""
    atomic_at: list[bool] = []
    for action in ("acquire", "release"):
        original = getattr(type(lock_backends["default"]), action)

        def spy(self: Any, *arguments: Any, original: Any = original) -> Any:
            atomic_at.append(connections["default"].in_atomic_block)
            return original(self, *arguments)

        monkeypatch.setattr(type(lock_backends["default"]), action, spy)
    assert client.get(f"/{path}/1234/").status_code == 200
    assert set(atomic_at) == {False}
    assert len(atomic_at) == (4 if path == "twice-locked" else 2)


def test_django_opens_no_transaction_around_a_locked_view() -> None:
    """Every alias seems exempt; what is really exempt is what the user named."""
    view = resolve("/collect/1234/").func
    assert BaseHandler().make_view_atomic(view) is view
    exempt = vars(resolve("/not-atomic/1234/").func)["_non_atomic_requests"]
    assert (set(exempt), "another alias" in exempt) == ({"default"}, True)


def test_failing_view_is_rolled_back_and_released() -> None:
    """As without the lock."""
    client = Client(raise_request_exception=False)
    assert client.get("/fail/1234/").status_code == 500
    assert not Counter.objects.exists()
    assert acquire_lock("1234collectPayment")


def test_view_whose_lease_expired_before_the_commit_is_rolled_back(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, and what it wrote is gone: a successor may be at work."""
    Counter.objects.create(value=1)
    monkeypatch.setattr(Lease, "held", property(lambda lease: False))
    response = client.get("/increment/1234/")
    assert response.status_code == 503
    assert Counter.objects.get().value == 1


@pytest.mark.parametrize("alias", SERVERS)
def test_locked_method_is_released_after_the_commit_of_djangos_transaction(
    client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch, alias: str
) -> None:
    """Which is outside the lock then; here the data and the lock have different databases."""
    settings.DISTLOCK = {"default": settings.DISTLOCK[alias]}
    released_in_transaction: list[bool] = []
    release = DatabaseBackend.release

    def spy(store: DatabaseBackend, lease: Claim) -> bool:
        released_in_transaction.append(connections["default"].in_atomic_block)
        return release(store, lease)

    monkeypatch.setattr(DatabaseBackend, "release", spy)
    for _ in range(2):
        assert client.get("/method/1234/").status_code == 200
    assert released_in_transaction == [False, False]


def test_view_that_no_url_led_to_is_answered_if_it_says_so(scripted: ScriptedBackend) -> None:
    """By http=True; there is no transaction that Django would have opened."""
    response = charge_http(RequestFactory().get("/"), customer_id="1234")
    assert response.status_code == 200
    assert scripted.calls == ["acquire", "release"]

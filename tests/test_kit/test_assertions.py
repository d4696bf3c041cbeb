"""`assert_locked`, and the assertions of LockTestMixin."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from django_distlock import LockBackendUnavailable, acquire_lock, distributed_lock, lock_backends
from django_distlock.test import assert_locked
from tests.support.concurrency import elsewhere

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("in_memory", "new_orders")]
LOCK = "1234collectPayment"

charge = mock.Mock()
"""The API of a payment service."""


@distributed_lock("<int:customer_id>collectPayment")
def collect(request: HttpRequest, customer_id: int) -> HttpResponse:
    """Collect a payment."""
    charge(customer_id)
    return HttpResponse()


@distributed_lock("<int:customer_id>collectPayment")
async def acollect(request: HttpRequest, customer_id: int) -> HttpResponse:
    """Collect a payment, in sync code and in async."""
    charge(customer_id)
    await sync_to_async(charge)(customer_id)
    return HttpResponse()


urlpatterns = [
    path("collect/<int:customer_id>", collect),
    path("acollect/<int:customer_id>", acollect),
]


def why_not(semaphore: str = LOCK, backend: str = "default") -> str:
    """Return the message of a failed assert_locked()."""
    with pytest.raises(AssertionError) as raised:
        assert_locked(semaphore, backend)
    return str(raised.value)


@override_settings(ROOT_URLCONF=__name__)
def test_code_under_the_lock_holds_it_in_views_of_all_kinds() -> None:
    """As the side_effect of the payment service's API."""

    def check(customer_id: int) -> None:
        assert_locked(LOCK)
        checked.append(customer_id)

    checked: list[int] = []
    charge.side_effect = check
    assert Client().get("/collect/1234").status_code == 200
    assert Client().get("/acollect/1234").status_code == 200
    assert asyncio.run(AsyncClient().get("/acollect/1234")).status_code == 200
    assert asyncio.run(AsyncClient().get("/collect/1234")).status_code == 200
    assert checked == [1234] * 6
    assert why_not() == (
        f"This thread or task does not hold {LOCK!r}. It holds no lock. Nobody holds it."
    )


def test_another_holder_and_what_is_held_instead_are_named() -> None:
    """By another thread; locks of two stores are held here."""
    other = elsewhere(lambda: acquire_lock(LOCK, label="worker 7"))
    assert other is not None
    with distributed_lock("5678collectPayment"), distributed_lock(LOCK, backend="other"):
        assert_locked(LOCK, "other")
        message = why_not()
        assert "It holds '5678collectPayment', '1234collectPayment' (other). Its hol" in message
        assert message.endswith(f"Its holder is {other.holder}.")
        assert "worker 7 (" in message


def test_a_lease_that_was_lost_or_expired_is_not_held() -> None:
    """Whether its holder has noticed or not."""
    with pytest.raises(Exception, match="lost"), distributed_lock(LOCK) as lease:
        assert lease.token is not None
        lock_backends["default"].force_release(LOCK, lease.token)
        assert why_not() == f"The lease on {LOCK!r} was taken away in its store. Nobody holds it."
        successor = elsewhere(lambda: acquire_lock(LOCK))
        assert successor is not None
        assert why_not().endswith(f"was taken away in its store. Its holder is {successor.holder}.")
        successor.release()
        with pytest.raises(Exception, match="lost"):
            lease.renew()
        assert why_not().startswith(f"The lease on {LOCK!r} was lost: its store no longer has it")
    with pytest.raises(Exception, match="lost"), distributed_lock(LOCK, ttl=0.01, renew=False):
        while lease_is_held(LOCK):
            pass
        assert why_not().startswith(f"The lease on {LOCK!r} expired")


def lease_is_held(semaphore: str) -> bool:
    """Tell whether assert_locked() passes."""
    try:
        assert_locked(semaphore)
    except AssertionError:
        return False
    return True


def test_own_records_count_if_the_store_can_not_be_asked(scripted: ScriptedBackend) -> None:
    """It can't list its locks, or is down."""
    with distributed_lock(LOCK):
        assert_locked(LOCK)
    assert why_not().endswith("Its holder isn't known: ScriptedBackend can't list its locks.")
    for error in (LockBackendUnavailable("down."), DatabaseError("broken")):
        find = mock.Mock(side_effect=error)
        with mock.patch.object(type(lock_backends["other"]), "find", find):
            with distributed_lock(LOCK, backend="other"):
                assert_locked(LOCK, "other")
            assert why_not(backend="other").endswith(f"known: {str(error).rstrip('.')}.")

"""How the core uses a store's mixins and answers."""

from __future__ import annotations

import asyncio
from itertools import repeat
from typing import TYPE_CHECKING, Any

import pytest
from django.db import transaction
from django.test import override_settings

from django_distlock import (
    InvalidLockBackend,
    LockBackendUnavailable,
    LockLost,
    aacquire_lock,
    lock_backends,
)
from django_distlock.backends.base import AsyncStore
from django_distlock.backends.operations import ListingStore
from django_distlock.concurrency.background import background
from django_distlock.concurrency.process_queue import recent_handovers
from django_distlock.records import REFUSED, Claim, Grant, Refusal, Released, Renewal
from tests.app.backends import MinimalBackend
from tests.support.concurrency import run
from tests.support.databases import committed
from tests.support.holders import acquire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.scripted_store import ScriptedBackend

pytestmark = pytest.mark.once


class UnfinishedBackend(ListingStore):
    """A store that somebody is still writing."""

    def acquire(self, *arguments: Any) -> Refusal:
        """Grant nothing."""
        return REFUSED

    def held(self, *arguments: Any) -> Any:
        """List nothing."""


class PollingBackend(AsyncStore, MinimalBackend):
    """A store for async code, without a queue."""

    async def aacquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str, *, deadline: float
    ) -> Grant | Refusal:
        return self.acquire(semaphore, owner, ttl, holder)

    async def arenew(self, leases: Sequence[Claim], *, deadline: float) -> dict[str, Renewal]:
        return self.renew(leases)

    async def arelease(self, lease: Claim, keep: float = 0, *, deadline: float) -> Released:
        return self.release(lease, keep)


def configured(backend: type) -> override_settings:
    return override_settings(
        DISTLOCK={"default": {"BACKEND": f"{__name__}.{backend.__qualname__}"}}
    )


def test_store_that_lacks_a_method_is_refused_by_its_name() -> None:
    """When it is configured, not when the method is called."""
    with configured(UnfinishedBackend), pytest.raises(InvalidLockBackend) as caught:
        lock_backends["default"]
    assert str(caught.value) == (
        f"DISTLOCK['default']: BACKEND '{__name__}.UnfinishedBackend' is abstract: it has no "
        "force_release, release, renew."
    )


def test_task_polls_an_async_store_without_a_queue() -> None:
    """As a thread polls a store without one."""

    async def release_while_another_waits() -> None:
        lease = await aacquire_lock("polled")
        assert lease is not None
        waiting = asyncio.create_task(aacquire_lock("polled", timeout=30))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert await lease.arelease()
        successor = await waiting
        assert successor is not None
        assert await successor.arelease()

    with configured(PollingBackend):
        run(release_while_another_waits())


def test_lease_that_a_renewal_leaves_out_is_not_lost(
    scripted: ScriptedBackend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An omission is a store's mistake, which is logged as a warning."""
    lease = acquire("default")
    monkeypatch.setattr(scripted, "renew", lambda leases: {})
    lease.due = 0
    background("default").renewals.renew_due()
    with pytest.raises(LockBackendUnavailable, match="answer left it out"):
        lease.renew()
    assert lease.held
    assert "its store's answer left it out" in caplog.text
    lease.release()


@committed
def test_lease_without_a_token_that_a_renewal_leaves_out_is_not_taken_back(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another owner may have had the lock in between."""
    monkeypatch.setattr(scripted, "tokens", repeat(None))
    monkeypatch.setattr(scripted, "renew", lambda leases: {})
    with pytest.raises(LockLost, match="since an earlier block"), transaction.atomic():
        acquire("default").release()
        acquire("default")


@pytest.mark.parametrize("released", [Released.FREED, Released.HANDED_OVER])
def test_lock_that_a_release_handed_over_is_remembered(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, released: Released
) -> None:
    """Another owner probably holds it now: the next waiter joins the queue before it tries."""
    lease = acquire("default")
    monkeypatch.setattr(scripted, "release", lambda *arguments: released)
    assert lease.release()
    assert recent_handovers.pop("default", "1234collectPayment") is (
        released is Released.HANDED_OVER
    )


def test_answer_to_a_release_is_true_if_the_owner_held_the_lock() -> None:
    """So callers can use it as a boolean."""
    assert [bool(each) for each in Released] == [False, True, True]

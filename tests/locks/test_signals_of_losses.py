"""The signal and the log line about a lease that was lost."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from django.db import transaction

from django_distlock import Lease, LockLost, distributed_lock, release_lock, signals
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.holders import acquire, brief, expired, take_away

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend
from tests.support.signals import Told, lose

pytestmark = committed


# Lost


@on_each_database
def test_loss_is_told_once_whoever_notices(
    alias: str, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """The background first, here; then who asks, who releases, and who leaves the block."""
    with pytest.raises(LockLost), distributed_lock("1234collectPayment", backend=alias) as lease:
        lose(lease)
        assert told.lost.wait(60)
        with pytest.raises(LockLost):
            lease.check()
        with pytest.raises(LockLost):
            lease.renew()
        assert lease.release() is False
        assert release_lock(lease) is False
    assert told.about(lease) == ["acquired", "lost"]
    assert told.all[-1][1] == {
        "signal": signals.lock_lost,
        "sender": Lease,
        "lease": lease,
        "reason": told.all[-1][1]["reason"],
    }
    [line] = [record for record in caplog.records if "was lost" in record.message]
    assert line.levelno == logging.WARNING
    assert line.name == "django_distlock"
    for word in ("'1234collectPayment'", lease.holder, told.all[-1][1]["reason"]):
        assert word in line.message


@on_each_database
@pytest.mark.parametrize("how", ["check", "renew", "release", "leave"])
def test_loss_is_told_by_whatever_notices_it_first(alias: str, told: Told, how: str) -> None:
    """Without a background that could, here; and not again when the others notice."""
    with (
        pytest.raises(LockLost),
        distributed_lock("1234collectPayment", backend=alias, renew=False) as lease,
    ):
        take_away(lease)
        if how == "check":
            lease.mark_lost()
        with suppress(LockLost):
            if how != "leave":
                getattr(lease, how)()
        assert told.about(lease) == ["acquired"] + ["lost"] * (how != "leave")
    assert told.about(lease) == ["acquired", "lost"]


@on_each_database
def test_expiry_is_told_by_the_background(alias: str, told: Told) -> None:
    """With the reason, as soon as its time has passed."""
    lease = brief(alias, max_hold=0.1)
    assert told.lost.wait(60)
    assert told.about(lease) == ["acquired", "lost"]
    assert told.all[-1][1]["reason"] == "its max_hold has passed"
    assert lease.release() is False


@on_each_server
def test_loss_before_a_commit_is_told_once(alias: str, told: Told) -> None:
    """The guard notices, then the block."""
    with pytest.raises(LockLost), distributed_lock("1234collectPayment", backend=alias) as lease:
        with transaction.atomic(using=alias):
            take_away(lease)
    assert told.about(lease) == ["acquired", "lost"]


def test_release_is_not_told_of_what_expired_here(scripted: ScriptedBackend, told: Told) -> None:
    """Its successor's grant is told, and its own loss."""
    lease = expired("default")
    scripted.owner = ""
    successor = acquire("default")
    assert lease.release() is False
    assert told.about(lease) == ["acquired", "lost"]
    assert told.about(successor) == ["acquired"]

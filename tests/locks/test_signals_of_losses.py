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
from tests.support.leases import internals

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend
from tests.support.signals import SentSignals, lose

pytestmark = committed


# Lost


@on_each_database
def test_lost_is_sent_once(
    alias: str, signals_sent: SentSignals, caplog: pytest.LogCaptureFixture
) -> None:
    """By the background here; then check(), release() and the end of the block notice, too."""
    with pytest.raises(LockLost), distributed_lock("1234collectPayment", backend=alias) as lease:
        lose(lease)
        assert signals_sent.lost.wait(60)
        with pytest.raises(LockLost):
            lease.check()
        with pytest.raises(LockLost):
            lease.renew()
        assert lease.release() is False
        assert release_lock(lease) is False
    assert signals_sent.about(lease) == ["acquired", "lost"]
    assert signals_sent.all[-1][1] == {
        "signal": signals.lock_lost,
        "sender": Lease,
        "lease": lease,
        "reason": signals_sent.all[-1][1]["reason"],
        "held_for": lease.held_for,
        "template": "",
    }
    [line] = [record for record in caplog.records if "was lost" in record.message]
    assert line.levelno == logging.WARNING
    assert line.name == "django_distlock.leases"
    for word in ("'1234collectPayment'", lease.holder, signals_sent.all[-1][1]["reason"]):
        assert word in line.message


@on_each_database
@pytest.mark.parametrize("how", ["check", "renew", "release", "leave"])
def test_lost_is_sent_by_the_first_to_notice(
    alias: str, signals_sent: SentSignals, how: str
) -> None:
    """By other code than the background here; not again when others notice."""
    with (
        pytest.raises(LockLost),
        distributed_lock("1234collectPayment", backend=alias, renew=False) as lease,
    ):
        take_away(lease)
        if how == "check":
            internals(lease).mark_lost()
        with suppress(LockLost):
            if how != "leave":
                getattr(lease, how)()
        assert signals_sent.about(lease) == ["acquired"] + ["lost"] * (how != "leave")
    assert signals_sent.about(lease) == ["acquired", "lost"]


@on_each_database
def test_background_sends_lost_at_expiry(alias: str, signals_sent: SentSignals) -> None:
    """With the reason, as soon as the ttl has passed."""
    lease = brief(alias, max_hold=0.1)
    assert signals_sent.lost.wait(60)
    assert signals_sent.about(lease) == ["acquired", "lost"]
    assert signals_sent.all[-1][1]["reason"] == "its max_hold has passed"
    assert lease.release() is False


@on_each_server
def test_loss_before_a_commit_sends_lost_once(alias: str, signals_sent: SentSignals) -> None:
    """The guard notices, then the block."""
    with pytest.raises(LockLost), distributed_lock("1234collectPayment", backend=alias) as lease:
        with transaction.atomic(using=alias):
            take_away(lease)
    assert signals_sent.about(lease) == ["acquired", "lost"]


def test_released_is_not_sent_for_an_expired_lease(
    scripted: ScriptedBackend, signals_sent: SentSignals
) -> None:
    """The successor's grant and the own loss are sent."""
    lease = expired("default")
    scripted.owner = ""
    successor = acquire("default")
    assert lease.release() is False
    assert signals_sent.about(lease) == ["acquired", "lost"]
    assert signals_sent.about(successor) == ["acquired"]

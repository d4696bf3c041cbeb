"""The signals about locks that are released inside a transaction."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

import pytest
from django.db import transaction

from django_distlock import distributed_lock
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.holders import acquire, free_for_others, renew_now, take_away
from tests.support.leases import internals

if TYPE_CHECKING:
    from tests.support.signals import SentSignals


pytestmark = committed


@on_each_database
@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("acquired", ["before", "inside"])
@pytest.mark.parametrize("depth", [1, 2])
def test_released_is_sent_when_the_transaction_has_ended(
    alias: str, signals_sent: SentSignals, failing: bool, acquired: str, depth: int
) -> None:
    """However it ends, and however deeply nested the release was; on SQLite, too."""
    lease = acquire(alias) if acquired == "before" else None
    with suppress(ZeroDivisionError), transaction.atomic(using=alias):
        with transaction.atomic(using=alias) if depth == 2 else nullcontext():
            given = lease or acquire(alias)
            assert given.release()
        assert signals_sent.names == ["acquired"]
        if failing:
            raise ZeroDivisionError
    assert signals_sent.about(given) == signals_sent.names == ["acquired", "released"]


@on_each_database
def test_release_that_an_inner_rollback_undid_is_sent_once(
    alias: str, signals_sent: SentSignals
) -> None:
    """When the outer transaction has ended, and the release is repeated."""
    with transaction.atomic(using=alias):
        lease = acquire(alias)
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            lease.release()
            raise ZeroDivisionError
        assert signals_sent.names == ["acquired"]
    assert signals_sent.names == ["acquired", "released"]
    assert free_for_others(alias)


@on_each_server
def test_acquiring_again_in_a_transaction_sends_each_signal_once(
    alias: str, signals_sent: SentSignals
) -> None:
    """Nobody else held it in between, so in between it was neither released nor acquired."""
    leases = []
    with transaction.atomic(using=alias):
        for _ in range(3):
            with distributed_lock("1234collectPayment", backend=alias) as lease:
                leases.append(lease)
    for each in leases:
        renew_now(each)  # which has no effect any more
    assert signals_sent.names == ["acquired", "released"]
    assert [internals(each).released for each in leases] == [True] * 3


@on_each_server
@pytest.mark.parametrize("failing", [False, True])
def test_deferred_release_of_a_lost_lease_sends_lost(
    alias: str, signals_sent: SentSignals, failing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The transaction is another database's, so its commit can't be refused."""
    with suppress(ZeroDivisionError), transaction.atomic():
        lease = acquire(alias)
        lease.release()
        take_away(lease)
        if failing:
            raise ZeroDivisionError
    assert signals_sent.names == ["acquired", "force_released", "lost"]
    assert "an operator took it away" in caplog.text
    assert not lease.released

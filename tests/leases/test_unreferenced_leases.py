"""Leases whose last reference is dropped before they are released."""

from __future__ import annotations

import gc
import math
import warnings
from typing import TYPE_CHECKING

import pytest
from django.db import transaction

from django_distlock import (
    distributed_lock,
)
from django_distlock.concurrency.background import background
from tests.support.concurrency import elsewhere
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire, take_away
from tests.support.leaving_views import (
    about_leases,
    names,
)

if TYPE_CHECKING:
    from tests.support.moved_clock import MovedClock

pytestmark = committed


@on_each_database
def test_unreferenced_lease_is_warned_of(alias: str) -> None:
    """It is not released, since its work may be unfinished; nor is it renewed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        elsewhere(lambda: bool(acquire(alias)))
        gc.collect()
    [warning] = about_leases(caught)
    assert warning.category is ResourceWarning
    assert "The lease on '1234collectPayment' was never released. It ends in" in str(
        warning.message
    )
    assert names(alias) == ["1234collectPayment"]
    renewals = background(alias).renewals
    assert renewals.next_due() == math.inf
    assert len(renewals) == 0


@on_each_database
@pytest.mark.parametrize("ending", ["released", "lost", "expired", "deferred"])
def test_lease_that_has_ended_is_not_warned_of(
    alias: str, ending: str, moved_clock: MovedClock
) -> None:
    """Nobody needs it any more."""

    def end() -> None:
        with (
            transaction.atomic(using=alias) if ending == "deferred" else distributed_lock("report")
        ):
            lease = acquire(alias, renew=False)
            if ending in ("released", "deferred"):
                lease.release()
        if ending == "lost":
            take_away(lease)
            lease.mark_lost()
        if ending == "expired":
            moved_clock.expire(lease)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        elsewhere(end)
        gc.collect()
    assert about_leases(caught) == []

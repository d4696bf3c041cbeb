"""The tokens of a lock server that was started again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from django_distlock.server.limits import Limits
from django_distlock.server.restart import restored_table
from django_distlock.server.saved_state import SavedState

if TYPE_CHECKING:
    from django_distlock.server.table import LockTable

HOUR = 3_600_000_000
"""Microseconds."""


def restart(saved: SavedState | None) -> LockTable:
    """Return the table of a server that finds this state."""
    return restored_table(saved, Limits(), 0, print, Path("locks.json"))


@pytest.mark.parametrize("was_there", [True, False])
def test_server_after_a_crash_knows_that_no_earlier_token_is_beyond_its_clock(
    was_there: bool,
) -> None:
    """It saves that at its start, so a clock that is set back later makes no token smaller.

    The last token of a server that crashed is not in its file, which was written at its start.
    """
    crashed = SavedState(60, 7, None, 0, [], 0) if was_there else None
    earlier = time.time_ns() // 1000
    restarted = restart(crashed)
    assert restarted.last_token >= earlier
    saved = SavedState(60, restarted.last_token, [], 0, [], 0)
    slower = restart(saved)
    slower.microseconds = lambda: earlier - HOUR
    granted = slower.acquire("1234collectPayment", "owner", 60, "holder")
    assert granted is not None
    assert granted.token > earlier


def test_saved_token_counts_where_the_clock_was_set_back() -> None:
    """An orderly stop saves the last token."""
    last = time.time_ns() // 1000 + HOUR
    granted = restart(SavedState(60, last, [], 0, [], 0)).acquire("semaphore", "owner", 60, "")
    assert granted is not None
    assert granted.token == last + 1

"""The table that a lock server starts with, and for how long that may lack leases in force."""

import time
from collections.abc import Callable
from pathlib import Path

from django_distlock import clocks

from .limits import Limits
from .locks import EXPIRED
from .pauses import MAX_PAUSES
from .saved_state import SavedState
from .table import LockTable


def restored_table(
    saved: SavedState | None,
    limits: Limits,
    grace: float,
    write_line: Callable[[str], object],
    path: Path,
) -> LockTable:
    """Return the earlier server's table, which grants nothing for `grace` seconds.

    Its next token is beyond the clock, since an earlier server that crashed may have granted all
    tokens until now. That is saved at the start, so that it holds when the clock is set back later.
    """
    now = time.time_ns() // 1000
    table = LockTable(
        grants_from=clocks.monotonic() + grace if grace else EXPIRED,
        last_token=max(now, saved.last_token if saved else 0),
        max_locks=limits.max_locks,
        max_waiters=limits.max_waiters,
        max_all_waiters=limits.max_all_waiters,
        max_pauses=MAX_PAUSES,
    )
    if saved is not None and saved.pauses:
        table.load_pauses(saved.pauses, saved.elapsed)
        write_line(f"Pauses of the earlier server in {path}: {len(saved.pauses)}.")
    if saved is not None and saved.locks is not None:
        table.load(saved.locks, saved.elapsed)
        write_line(f"Locks of the earlier server in {path}: {len(table)}.")
    return table


def grace_after(
    saved: SavedState | None, longest: float, write_line: Callable[[str], object], path: Path
) -> float:
    """Return for how many seconds leases may be in force that were not saved, and say why."""
    if saved is None:
        grace, why = longest, "There is no table"
    elif saved.locks is None:
        grace, why = longest, "The earlier server saved no table"
    else:
        grace = max(0.0, saved.grace - saved.elapsed)
        why = "The earlier server had only the leases reclaimed so far when it saved its table"
    if grace:
        write_line(
            f"{why} in {path}: nothing is granted for {grace:.10g} seconds, in which holders "
            "reclaim their locks. If no others can be in force, --no-grace grants at once."
        )
    return grace

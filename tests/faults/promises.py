"""What a store can't promise under which fault, written down before the runs.

A fault of the machine that is not here breaks nothing. Nothing ever excuses the release of somebody
else's lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.faults.checker import Fault, Waiver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.faults.nemesis import Performed

UNSERVED = frozenset({Fault.NOT_SERVED, Fault.REFUSED_FREE})
"""Nobody gets a free lock: waiting is long, never unsafe."""


class Limit(NamedTuple):
    """What a fault may break, and until how many seconds after its end."""

    breaks: frozenset[Fault]
    after: float
    reason: str


DATABASES = ("postgresql", "mariadb", "sqlite")

LIMITS: dict[tuple[str, str], Limit] = {}


def waivers(store: str, performed: Iterable[Performed]) -> list[Waiver]:
    """Return what is waived in a run, for the faults that it had."""
    found = []
    for fault, began, ended in performed:
        if limit := LIMITS.get((store, fault)):
            found.append(Waiver(limit.breaks, began, ended + limit.after, limit.reason))
    return found

"""What a store can't promise under which fault, written down before the runs.

A fault of the machine that is not here breaks nothing. Nothing ever excuses the release of somebody
else's lease.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from tests.faults.checker import Fault, Waiver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.faults.nemesis import Performed

LATE = frozenset({Fault.NOT_SERVED})
"""A waiter gets a free lock late."""
UNSERVED = LATE | {Fault.REFUSED_FREE}
"""A free lock is refused, too."""
OUTLIVED = UNSERVED | {Fault.AFTER_EXPIRY}
"""A lease lasts longer than its ttl, if nobody has taken the lock since."""
ENDED_EARLY = LATE | {Fault.OVERLAP, Fault.LOST_EARLY}
"""A lease ends before its ttl. A fence, or a guarded commit, still loses no update."""

TTL = 2.0
"""The longest ttl in a run, in seconds."""
PAUSE = 4.0
"""Seconds in which waiters have noticed that a store or a process answers again."""


class Limit(NamedTuple):
    """What a fault may break, and until how many seconds after its end."""

    breaks: frozenset[Fault]
    after: float
    reason: str


DOWN = Limit(LATE, PAUSE, "Nothing is granted while the store doesn't answer.")
STOPPED = Limit(LATE, PAUSE, "A waiter that is stopped takes nothing.")
FORWARD = Limit(ENDED_EARLY, TTL, "The store's clock ends leases, and it has stepped forward.")
BACK = Limit(OUTLIVED, 5 + TTL, "The store's clock ends leases, and it has stepped back by 5 s.")
BACK_FAR = Limit(
    OUTLIVED | ENDED_EARLY, TTL, "The store's clock has stepped back by minutes, and then forward."
)
ROWS = Limit(UNSERVED, PAUSE, "A lock whose row a transaction has locked counts as held.")
FORGOTTEN = Limit(ENDED_EARLY, TTL, "The server has lost locks that were held.")
GRACE = Limit(LATE, TTL + PAUSE, "A lock server that lost its table grants nothing for max_ttl.")

EVERYWHERE: dict[str, Limit] = {"worker_stopped": STOPPED}

SERVERS = {
    "network_blackhole": DOWN,
    "connections_reset": DOWN,
    "connections_ended": DOWN,
    "connections_used_up": DOWN,
    "replies_delayed": DOWN,
    "replies_dropped": DOWN,
    "server_killed": DOWN,
    "server_paused": DOWN,
    "disk_full": DOWN,
}
DATABASES = {
    **SERVERS,
    "clock_forward": FORWARD,
    "clock_back": BACK,
    "clock_back_far": BACK_FAR,
    "rows_locked": ROWS,
    "deadlocks": ROWS,
}
REDIS = {
    **SERVERS,
    "clock_forward": FORWARD,
    "clock_back": BACK,
    "clock_back_far": BACK_FAR,
    "out_of_memory": DOWN,
    "flushed": FORGOTTEN,
}

LIMITS: dict[str, dict[str, Limit]] = {
    "postgresql": EVERYWHERE | DATABASES,
    "mariadb": EVERYWHERE | DATABASES,
    "sqlite": EVERYWHERE
    | {
        "clock_forward": FORWARD,
        "clock_back": BACK,
        "clock_back_far": BACK_FAR,
        "writer_held": DOWN,
        "disk_full": DOWN,
    },
    "redis": EVERYWHERE | REDIS,
    "redis_everysec": EVERYWHERE | REDIS | {"server_killed": FORGOTTEN},
    "redis_memory": EVERYWHERE | REDIS | {"server_killed": FORGOTTEN},
    "redis_replica": EVERYWHERE | SERVERS | {"failover": DOWN, "failover_lagging": FORGOTTEN},
    "redis_cluster": EVERYWHERE
    | REDIS
    | {"slot_moved": DOWN, "failover": DOWN, "failover_forced": FORGOTTEN},
    "lock_server": EVERYWHERE
    | SERVERS
    | {"server_killed": GRACE, "disk_full": GRACE, "server_restarted": DOWN},
    "memcached": EVERYWHERE | SERVERS | {"server_killed": FORGOTTEN, "flushed": FORGOTTEN},
}
"""By store and fault of the machine."""
ALWAYS = {
    "memcached": Limit(OUTLIVED, 0, "Its clock shows whole seconds: a lease ends up to 2 s late."),
}
"""What a store can't promise even where nothing fails."""


def waivers(store: str, performed: Iterable[Performed]) -> list[Waiver]:
    """Return what is waived in a run, for the faults that it had."""
    found = []
    if always := ALWAYS.get(store):
        found.append(Waiver(always.breaks, -math.inf, math.inf, always.reason))
    for fault, began, ended in performed:
        if limit := LIMITS[store].get(fault):
            found.append(Waiver(limit.breaks, began, ended + limit.after, limit.reason))
    return found

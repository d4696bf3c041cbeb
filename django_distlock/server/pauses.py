"""The pauses of a table: for a while, nothing is granted whose semaphore begins with a prefix."""

import math
from typing import Any, Final, NamedTuple

from .errors import Refused

MAX_PAUSES: Final = 100
"""Pauses of a lock server: each attempt for a free lock looks at all of them."""


class PauseSnapshot(NamedTuple):
    """A pause at one moment: to be listed, or saved."""

    prefix: str
    since: int
    """Microseconds since the epoch, by the wall clock."""
    remaining: float
    """Seconds until it ends; infinite if it lasts until it is resumed."""
    reason: str
    by: str

    def as_list(self) -> list[Any]:
        """Return the members for JSON, which has no infinite number: None stands for it."""
        remaining = None if self.remaining == math.inf else round(self.remaining, 6)
        return [self.prefix, self.since, remaining, self.reason, self.by]


class TablePause(NamedTuple):
    """A pause in force, if its end is yet to come."""

    prefix: str
    since: int
    ends: float
    """By the monotonic clock."""
    reason: str
    by: str

    def snapshot(self, now: float) -> PauseSnapshot:
        """Return the pause as it is now."""
        return PauseSnapshot(self.prefix, self.since, self.ends - now, self.reason, self.by)


class Pauses:
    """All pauses of a table, by prefix."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._by_prefix: dict[str, TablePause] = {}

    def __bool__(self) -> bool:
        return bool(self._by_prefix)

    @property
    def next_end(self) -> float:
        """When the next one ends; infinite if none does."""
        return min((pause.ends for pause in self._by_prefix.values()), default=math.inf)

    def add(self, pause: TablePause) -> None:
        """Add a pause, in place of an earlier one of the same prefix. Refused if there is no room.

        Pauses that have ended are in the way, unless drop_ended() was called.
        """
        if pause.prefix not in self._by_prefix and len(self._by_prefix) >= self._most:
            raise Refused(f"There are {len(self._by_prefix)} pauses already: resume one first.")
        self._by_prefix[pause.prefix] = pause

    def remove(self, prefix: str) -> bool:
        """End the pause of this prefix; return whether there was one."""
        return self._by_prefix.pop(prefix, None) is not None

    def clear(self) -> None:
        """End all pauses."""
        self._by_prefix.clear()

    def drop_ended(self, now: float) -> bool:
        """Remove the pauses that have ended; return whether there were any."""
        ended = [pause.prefix for pause in list(self._by_prefix.values()) if pause.ends <= now]
        for prefix in ended:
            self.remove(prefix)
        return bool(ended)

    def covering(self, semaphore: str, now: float) -> TablePause | None:
        """Return the pause in force for this semaphore; of several, the one that ends last."""
        found = None
        for pause in list(self._by_prefix.values()):
            if (
                pause.ends > now
                and semaphore.startswith(pause.prefix)
                and (found is None or pause.ends > found.ends)
            ):
                found = pause
        return found

    def snapshots(self, now: float) -> list[PauseSnapshot]:
        """Return the pauses in force, in the order of their prefixes."""
        pauses = sorted(self._by_prefix.values())
        return [pause.snapshot(now) for pause in pauses if pause.ends > now]

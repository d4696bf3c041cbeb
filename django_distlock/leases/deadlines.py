"""When a lease ends, and when it is due for renewal."""

import math
from datetime import datetime
from typing import Final

from django_distlock import clocks
from django_distlock.records import Renewal

PERIOD: Final = 1 / 3
"""Part of its ttl after which a lease is renewed."""
RETRY: Final = 1 / 7
"""Part of that period after which a failed renewal is tried again."""
SHORTEST_RETRY: Final = 0.005
LONGEST_RETRY: Final = 5.0
"""Seconds between two tries, at least and at most, whatever the ttl."""

CONFIRMED: Final = 0.1
"""Seconds for which a commit may rely on the store's last answer, at most."""

SHORTEST_TTL: Final = 0.001
"""Seconds to ask a store for when `max_hold` leaves no time: there is no ttl of 0."""


class Deadlines:
    """The deadlines of a lease, by the local monotonic clock.

    They are counted from before a request was sent, so that they never come later than the store's.
    """

    __slots__ = (
        "_confirmed_at",
        "_deadline",
        "_ended_at",
        "_granted_at",
        "_max_hold_until",
        "_min_hold_until",
        "_period",
        "due",
        "expires_at",
        "ttl",
    )

    due: float
    """When the lease is due for renewal in the background, or has ended."""
    ttl: float | None
    expires_at: datetime | None

    def __init__(
        self,
        ttl: float | None,
        min_hold: float,
        max_hold: float,
        sent: float,
        expires_at: datetime | None,
    ) -> None:
        self.ttl = ttl
        self.expires_at = expires_at
        self._granted_at = now = clocks.monotonic()
        self._ended_at = math.inf
        self._max_hold_until = sent + max_hold
        self._min_hold_until = min_hold and now + min_hold
        seconds = math.inf if ttl is None else ttl
        self._confirmed_at = sent
        self._deadline = sent + seconds
        self._period = seconds * PERIOD
        self.due = self._next_due(sent + self._period)

    @property
    def remaining(self) -> float:
        """See Lease.remaining."""
        return max(0.0, self._deadline - clocks.monotonic())

    @property
    def held_for(self) -> float:
        """See Lease.held_for."""
        return min(clocks.monotonic(), self._ended_at, self._deadline) - self._granted_at

    @property
    def min_hold_left(self) -> float:
        """Seconds for which nobody may get the semaphore after a release now."""
        return max(0.0, self._min_hold_until - clocks.monotonic()) if self._min_hold_until else 0.0

    @property
    def is_urgent(self) -> bool:
        """Whether it would end before the next renewal is due."""
        return self.remaining < self._period

    def is_confirmed(self) -> bool:
        """Tell whether the store confirmed the lease a moment ago, counted from the request."""
        return clocks.monotonic() - self._confirmed_at < min(CONFIRMED, self._period)

    def forget_confirmation(self) -> None:
        """Let no commit rely on the store's last answer."""
        self._confirmed_at = -math.inf

    def expire(self) -> None:
        """Let it end now, by the local clock."""
        self._deadline = self.due = clocks.monotonic()

    def ttl_from(self, now: float) -> float | None:
        """Return the ttl for a renewal then: within `max_hold`."""
        left = self._max_hold_until - now
        return self.ttl if left >= (self.ttl or 0) else max(left, SHORTEST_TTL)

    def ttl_within_max_hold(self, ttl: float | None) -> float | None:
        """Return another ttl, or what `max_hold` leaves of it."""
        left = self._max_hold_until - clocks.monotonic()
        return ttl if left >= (math.inf if ttl is None else ttl) else max(left, SHORTEST_TTL)

    def extend(self, renewal: Renewal, sent: float) -> None:
        """Apply the store's answer to a renewal that was sent then.

        An answer that comes after the end is too late: `held` may have been read as False already.
        """
        if not renewal.renewed or not self.remaining:
            return
        self.expires_at = renewal.expires_at
        self._confirmed_at = sent
        seconds = math.inf if self.ttl is None else self.ttl
        self._deadline = max(self._deadline, min(sent + seconds, self._max_hold_until))
        self.due = self._next_due(sent + self._period)

    def retry(self, now: float) -> None:
        """Schedule another renewal attempt."""
        pause = min(max(self._period * RETRY, SHORTEST_RETRY), LONGEST_RETRY)
        self.due = self._next_due(now + pause)

    def _next_due(self, at: float) -> float:
        """Return that time, or the end if that is sooner or can't be put off."""
        return self._deadline if self._is_final() else min(at, self._deadline)

    def _is_final(self) -> bool:
        return self._deadline >= self._max_hold_until

    def is_nearly_due(self, now: float) -> bool:
        """Tell whether to renew it now if others are renewed anyway."""
        return now < self._deadline and not self._is_final() and now >= self.due - self._period / 2

    def continue_from(self, earlier: "Deadlines") -> None:
        """Apply the limits of the earlier lease that this one continues."""
        self._granted_at = earlier._granted_at
        self._max_hold_until = min(self._max_hold_until, earlier._max_hold_until)
        self._min_hold_until = max(self._min_hold_until, earlier._min_hold_until)
        self._deadline = min(self._deadline, self._max_hold_until)
        self.due = self._next_due(self.due)

    def describe_end(self) -> str:
        """Return why the lease has expired, for people."""
        return f"its {'max_hold' if self._is_final() else f'ttl of {self.ttl} seconds'} has passed"

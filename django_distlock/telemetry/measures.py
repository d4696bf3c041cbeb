"""The measures of locks: counters and histograms, by template and by store.

All exporters share this table, so that one dashboard fits each of them.
"""

from enum import Enum
from typing import Final, NamedTuple


class Kind(Enum):
    """How the recorded numbers are kept."""

    COUNTER = "counter"
    """They are added up."""
    HISTOGRAM = "histogram"
    """They are counted by buckets."""


class Measure(NamedTuple):
    """One thing that is measured."""

    name: str
    kind: Kind
    unit: str
    """As OpenTelemetry writes it: `s`, or what is counted in braces."""
    description: str
    buckets: tuple[float, ...] = ()
    """The upper bounds of a histogram's buckets."""

    @property
    def prometheus_name(self) -> str:
        """Its name in Prometheus, by the rules that OpenTelemetry's exporter follows, too."""
        ending = "seconds" if self.kind is Kind.HISTOGRAM else "total"
        return f"{self.name.replace('.', '_')}_{ending}"


LABELS: Final = ("template", "backend")
"""The labels of each measure. The template is empty if it isn't known."""

BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    *(10.0, 30.0, 60.0, 300.0),
)
"""Seconds: from one round trip to a store nearby to the length of a long job."""

ATTEMPTS: Final = Measure(
    "distlock.attempts",
    Kind.COUNTER,
    "{attempt}",
    "Calls that asked for a lock, and were granted or refused it.",
)
CONTENDED: Final = Measure(
    "distlock.contended",
    Kind.COUNTER,
    "{attempt}",
    "Attempts that were refused: another holder had the lock until the timeout, or it is paused.",
)
UNAVAILABLE: Final = Measure(
    "distlock.unavailable",
    Kind.COUNTER,
    "{attempt}",
    "Attempts that failed: the store could not be reached, or did not answer in time.",
)
LOST: Final = Measure(
    "distlock.lost",
    Kind.COUNTER,
    "{lease}",
    "Leases that ended before their holder released them.",
)
FORCE_RELEASED: Final = Measure(
    "distlock.force_released",
    Kind.COUNTER,
    "{lease}",
    "Locks that an operator released by force, in this process.",
)
WAIT: Final = Measure(
    "distlock.wait",
    Kind.HISTOGRAM,
    "s",
    "Time from the call until the lock was granted or refused.",
    BUCKETS,
)
HOLD: Final = Measure(
    "distlock.hold",
    Kind.HISTOGRAM,
    "s",
    "Time from the grant until the lock was released or lost.",
    BUCKETS,
)

MEASURES: Final = (ATTEMPTS, CONTENDED, UNAVAILABLE, LOST, FORCE_RELEASED, WAIT, HOLD)

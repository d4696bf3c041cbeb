"""The order in which two locks were taken, and the report of orders that contradict each other."""

import math
import re
from typing import Final, NamedTuple

from django_distlock.leases.state import LeaseState
from django_distlock.locks.acquisition import Acquisition

from .source_lines import SourceLine

VARYING: Final = re.compile(
    r"<[^<>]*>|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\b[0-9a-f]{32}\b|\d+", re.IGNORECASE
)
"""What differs between locks of one class: placeholders of templates, UUIDs and digits."""
BLANK: Final = "<…>"
ADVICE: Final = "Take the locks in one order everywhere."


class LockClass(NamedTuple):
    """Locks that code takes for the same purpose, such as each customer's."""

    backend: str
    name: str
    semaphore: str = ""
    """That of one lock, to compare locks of one class."""

    @classmethod
    def of(cls, lock: LeaseState | Acquisition) -> "LockClass":
        """Return the class of a lock that is held or asked for."""
        template = lock.template
        if template.endswith("()"):  # the name of a callable
            return cls(lock.backend, template)
        return cls(lock.backend, VARYING.sub(BLANK, template or lock.semaphore))

    def __str__(self) -> str:
        name = self.semaphore or self.name
        return name if self.backend == "default" else f"{name} ({self.backend})"


class Pair(NamedTuple):
    """Two locks, the first of which was held when the second was asked for."""

    first: LockClass
    then: LockClass

    @classmethod
    def of(cls, held: LeaseState, asked: Acquisition) -> "Pair":
        """Return the classes of the two; within one class, the locks themselves."""
        first, then = LockClass.of(held), LockClass.of(asked)
        if first == then:
            first = first._replace(semaphore=held.semaphore)
            then = then._replace(semaphore=asked.semaphore)
        return cls(first, then)


class TakenOrder(NamedTuple):
    """An occasion on which two locks were taken in this order."""

    pair: Pair
    first: str
    """The semaphore that was held."""
    then: str
    """The one that was asked for."""
    first_line: SourceLine | None
    then_line: SourceLine
    timeout: float
    """Seconds to wait for the second one."""
    test: str

    @classmethod
    def of(
        cls,
        held: LeaseState,
        asked: Acquisition,
        line_of_held: SourceLine | None,
        line_of_asked: SourceLine,
        timeout: float,
        test: str,
    ) -> "TakenOrder":
        """Return the order of a lock that is held, and one that is asked for."""
        pair = Pair.of(held, asked)
        return cls(
            pair, held.semaphore, asked.semaphore, line_of_held, line_of_asked, timeout, test
        )

    def adds_to(self, known: "TakenOrder | None") -> bool:
        """Tell whether it says more than what is known of this pair: that one may have to wait."""
        return known is None or bool(self.timeout and not known.timeout)

    def describe(self) -> list[str]:
        """Return lines of a report."""
        earlier = self.first_line or "an earlier block of the transaction, or before the test"
        wait = "None" if self.timeout == math.inf else f"{self.timeout:g}"
        return [
            f"  {self.pair.first}, then {self.pair.then}, in {self.test}:",
            f"    {self.first!r} at {earlier}",
            f"    {self.then!r} at {self.then_line} (timeout={wait})",
        ]


def describe_cycle(orders: list[TakenOrder]) -> str:
    """Return the report of orders that contradict each other."""
    many = "two locks are taken in opposite orders"
    if len(orders) > 2:
        many = f"{len(orders)} locks are taken in orders that form a circle"
    places = [line for order in orders for line in order.describe()]
    end = [_consequence([order.timeout for order in orders]), ADVICE]
    return "\n".join([f"Possible deadlock: {many}.", *places, *(f"  {line}" for line in end)])


def _consequence(waits: list[float]) -> str:
    if not any(waits):
        return (
            "None of them waits (timeout=0): run at the same time, they refuse each other, and "
            "perhaps none gets all its locks."
        )
    if not all(waits):
        return "Run at the same time, one waits for a lock until the other one is refused."
    longest = "forever" if min(waits) == math.inf else f"until a timeout, of {min(waits):g} s"
    return f"Run at the same time, they wait for each other: {longest}."

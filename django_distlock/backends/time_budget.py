"""How long a call to a store may take: the option `store_timeout`."""

from typing import Self

from django_distlock import clocks
from django_distlock.arguments import validate_seconds
from django_distlock.exceptions import InvalidLockBackend


def validate_store_timeout(alias: str, seconds: float) -> float:
    """Return how many seconds a store has to answer, or raise InvalidLockBackend."""
    try:
        return validate_seconds("store_timeout", seconds, 0.01, 60)
    except (TypeError, ValueError) as error:
        raise InvalidLockBackend(f"DISTLOCK[{alias!r}]: {error}") from error


class Budget:
    """The seconds that a call to the store has; the calls of a `with` block share them.

    A nested block has its own: a signal's receiver may use the store during another call.
    """

    __slots__ = ("_deadlines", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadlines: list[float] = []

    def __enter__(self) -> Self:
        self._deadlines.append(clocks.monotonic() + self.seconds)
        return self

    def __exit__(self, *exception: object) -> None:
        self._deadlines.pop()

    def deadline(self) -> float:
        """Return when they are over, by the local monotonic clock."""
        return self._deadlines[-1] if self._deadlines else clocks.monotonic() + self.seconds

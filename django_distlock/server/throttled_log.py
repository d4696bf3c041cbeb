"""A log that a flood of unauthenticated clients can't fill."""

import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Final

from django_distlock import clocks

INTERVAL: Final = 1.0
"""The shortest time between two lines of one kind, in seconds."""


class ThrottledLog:
    """Writes at most one line a second of each kind; the next one says how many were left out."""

    def __init__(
        self, logger: logging.Logger, monotonic: Callable[[], float] = clocks.monotonic
    ) -> None:
        self._logger = logger
        self._monotonic = monotonic
        self._next: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()

    def write(self, kind: str, text: str, *arguments: object, failed: bool = False) -> None:
        """Write a warning, unless one of this kind was written within the last second.

        If something `failed`, it is an error with the traceback.
        """
        now = self._monotonic()
        if now < self._next.get(kind, -math.inf):
            self._left_out[kind] += 1
            return
        self._next[kind] = now + INTERVAL
        if left_out := self._left_out.pop(kind, 0):
            text, arguments = (
                f"{text} (%d more lines like this were left out)",
                (*arguments, left_out),
            )
        level = logging.ERROR if failed else logging.WARNING
        self._logger.log(level, text, *arguments, exc_info=failed)

"""The limits of a lock server."""

from dataclasses import dataclass, fields
from typing import Final

from .protocol import MAX_FRAME

HIGHEST: Final = 100_000_000
"""The highest value of a limit: three years, in seconds."""

LEAST_FRAME: Final = 500
"""Bytes."""


@dataclass(frozen=True)
class Limits:
    """All limits; times in seconds."""

    max_ttl: float = 300
    max_frame: int = MAX_FRAME
    max_connections: int = 2_000
    max_locks: int = 1_000_000
    max_waiters: int = 10_000
    max_all_waiters: int = 20_000
    idle: float = 120
    handshake: float = 5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value <= HIGHEST:
                raise ValueError(
                    f"{field.name} is {value!r}, but must be more than 0, and at most {HIGHEST}."
                )
        if self.max_frame < LEAST_FRAME:
            raise ValueError(
                f"max_frame is {self.max_frame}, but must be at least {LEAST_FRAME}: a handshake "
                "is as long."
            )

"""A wall clock that a run moves, for processes under libfaketime. Their monotonic clock is true."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from tests.faults.environment import Fault

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
"""Where Debian's package `libfaketime` has it."""
REST = 3600.0
"""Seconds of a step that ends all leases, between two runs."""


def is_installed() -> bool:
    """Return whether clocks can be moved on this machine."""
    return bool(LIBRARIES)


class MovedClock:
    """The wall clock of the processes that have `variables` in their environment."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.ahead = 0.0
        """Seconds by which it is ahead of the true one."""
        file.write_text("+0\n")
        file.chmod(0o644)

    @property
    def variables(self) -> dict[str, str]:
        """Return the environment of such a process."""
        return {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
        }

    def command(self, command: list[str]) -> list[str]:
        """Return a command that has this clock."""
        return ["env", *(f"{name}={value}" for name, value in self.variables.items()), *command]

    def step(self, seconds: float) -> None:
        """Move it, at once and for good: its next step counts from here."""
        self.ahead += seconds
        other = self.file.with_suffix(".new")
        other.write_text(f"{self.ahead:+.3f}\n")
        other.chmod(0o644)
        other.replace(self.file)

    @contextmanager
    def steps_forward(self, random: Random) -> Iterator[None]:
        """Step forward: to step back at the end would be another fault."""
        self.step(random.choice((3, 30, 600)))
        yield

    @contextmanager
    def steps_back(self, random: Random) -> Iterator[None]:
        """Step back: leases that nobody releases last longer by that much."""
        self.step(-random.choice((0.5, 2, 5)))
        yield

    @contextmanager
    def is_far_back(self, random: Random) -> Iterator[None]:
        """Step back by minutes, and forward again."""
        seconds = random.uniform(60, 300)
        self.step(-seconds)
        yield
        self.step(seconds)

    @property
    def faults(self) -> dict[str, Fault]:
        """Return its faults, by the names that promises.py has."""
        return {
            "clock_forward": self.steps_forward,
            "clock_back": self.steps_back,
            "clock_back_far": self.is_far_back,
        }

"""A wall clock that a run moves, for processes that are started with it. No other clock moves."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from tests.faults.environment import Fault
    from tests.support.servers import Server

SOURCE = Path(__file__).with_name("wall_clock.c")
REST = 3600.0
"""Seconds of a step that ends all leases, between two runs."""


def is_installed() -> bool:
    """Return whether clocks can be moved on this machine."""
    return shutil.which("gcc") is not None


@cache
def _build() -> tuple[Path, TemporaryDirectory[str]]:
    """Compile the library, once in this process, into a directory that ends with it."""
    directory = TemporaryDirectory(prefix="distlock-clock-")
    Path(directory.name).chmod(0o755)  # a server's account reads it
    library = Path(directory.name, "wall_clock.so")
    command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True)
    return library, directory


def follow(file: str) -> None:
    """Have this process, which was started with a moved clock, show the one in this file."""
    if ctypes.CDLL(None).follow_wall_clock(file.encode()):
        raise FileNotFoundError(file)


class MovedClock:
    """The wall clock of the processes that have `variables` in their environment."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.ahead = 0.0
        """Seconds by which it is ahead of the true one."""
        file.write_bytes(bytes(8))
        file.chmod(0o644)

    @property
    def variables(self) -> dict[str, str]:
        """Return the environment of such a process."""
        library, _ = _build()
        return {"LD_PRELOAD": str(library), "DISTLOCK_WALL_CLOCK": str(self.file)}

    def command(self, command: list[str]) -> list[str]:
        """Return a command that has this clock."""
        return ["env", *(f"{name}={value}" for name, value in self.variables.items()), *command]

    def govern(self, server: Server) -> Server:
        """Return the server, which has not been started: it will have this clock."""
        parts = server.executor.command_parts
        assert isinstance(parts, list)
        parts[:] = self.command(parts)
        return server

    def step(self, seconds: float) -> None:
        """Move it, at once and for good: its next step counts from here."""
        self.ahead += seconds
        with self.file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", round(self.ahead * 1_000_000)))

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

"""Simulated machines with their clocks, and the processes that run on them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from .scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .event_loop import EventLoop
    from .scheduler import SimulatedThread
    from .sockets import Socket

EPOCH = 1_800_000_000.0
"""What right wall clocks show at the beginning of a universe."""


class Machine:
    """A machine: its monotonic clock counts from its own start, and its wall clock may be wrong."""

    def __init__(self, name: str, up_since: float, wall_error: float) -> None:
        self.name = name
        self.wall_error = wall_error
        """Seconds that its wall clock is ahead."""
        self.is_up = True
        self.boots = 1
        self._up_since = up_since

    def monotonic(self) -> float:
        """Return the seconds since it was started."""
        return Scheduler.current.now + self._up_since

    def wall_clock(self) -> float:
        """Return the seconds since the epoch, as it sees them."""
        return EPOCH + Scheduler.current.now + self.wall_error

    def fail(self) -> None:
        """Lose the power: nobody is told."""
        self.is_up = False

    def boot(self) -> None:
        """Start again: the monotonic clock begins anew."""
        self.is_up = True
        self.boots += 1
        self._up_since = 20.0 - Scheduler.current.now


class Process:
    """A process: threads and perhaps an event loop, which all stop when it is paused or killed."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.machine = machine
        self.is_alive = True
        self.paused_until = 0.0
        self.threads: list[SimulatedThread] = []
        self.loop: EventLoop | None = None
        self.sockets: list[Socket] = []
        self._scheduler = Scheduler.current

    def run(self, call: Callable[[], object]) -> None:
        """Run code of it now, or when its pause ends; never if it was killed."""
        scheduler = self._scheduler
        if not self.is_alive:
            return
        if scheduler.now < self.paused_until:
            scheduler.call_at(self.paused_until, lambda: self.run(call))
            return
        earlier, scheduler.process = scheduler.process, self
        call()
        scheduler.process = earlier

    @contextmanager
    def as_running(self) -> Iterator[None]:
        """Let the code of the block see this process's clocks, even if it is paused."""
        scheduler = self._scheduler
        earlier, scheduler.process = scheduler.process, self
        try:
            yield
        finally:
            scheduler.process = earlier

    def pause(self, seconds: float) -> None:
        """Stop it, as SIGSTOP does, for so many seconds."""
        self.paused_until = max(self.paused_until, self._scheduler.now + seconds)

    def kill(self) -> None:
        """Kill it, as kill -9 does: its system closes the sockets."""
        self.is_alive = False
        for socket in self.sockets:
            socket.close()

    def lose_power(self) -> None:
        """Stop for ever, together with its machine."""
        self.is_alive = False
        for socket in self.sockets:
            socket.vanish()

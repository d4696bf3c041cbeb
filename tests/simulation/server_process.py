"""The real lock server in a universe: started, stopped in order, killed, cut off from power."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django_distlock.server.addresses import Address
from django_distlock.server.running import Server, ServerConfig
from django_distlock.server.saved_state import StateFile

from .disk import Disk, DiskPath, PowerFailure
from .event_loop import EventLoop
from .installation import PORT, SECRET
from .machines import Machine, Process
from .scheduler import Scheduler
from .sockets import ListeningSocket

if TYPE_CHECKING:
    import asyncio

    from django_distlock.server.limits import Limits

    from .network import Network
    from .recording import Recorder

STATE_FILE: Final = "locks.json"
LONGEST_DOWNTIME: Final = 3.0
"""Seconds from the end of one process until the next one starts, at most."""


class BootId:
    """Takes the place of saved_state.BOOT_ID."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def read_text(self) -> str:
        """Return another text after each start of the machine."""
        return f"boot {self._machine.boots}\n"


class ServerProcess:
    """The lock server, with one process after the other on one machine."""

    def __init__(self, network: Network, recorder: Recorder, limits: Limits) -> None:
        self.machine = Machine("server", up_since=5_000.0, wall_error=0.0)
        self.disk = Disk(self.machine)
        self.loops: list[EventLoop] = []
        self.process: Process | None = None
        self._network = network
        self._recorder = recorder
        self._limits = limits
        self._latest_time = 0.0
        """The latest time that the server's wall clock has shown."""
        self._has_crashed = False

    async def bind(self, address: Address) -> list[Any]:
        """Take the place of sockets.bind()."""
        assert self.process is not None
        return [ListeningSocket(self._network, self.process)]

    def start(self, *, no_grace: bool = False) -> None:
        """Start it, unless it runs."""
        if self.process is not None:
            return
        if not self.machine.is_up:
            self.machine.boot()
        self._recorder.note("The server starts.")
        if self._has_crashed and self.machine.wall_clock() < self._latest_time:
            self._recorder.excuse_tokens()
        self.process = process = Process("server", self.machine)
        loop = EventLoop(process)
        loop.on_power_failure = self.lose_power
        self.loops.append(loop)
        config = ServerConfig(
            address=Address("127.0.0.1", PORT),
            secret=SECRET.encode(),
            limits=self._limits,
            state=StateFile(DiskPath(self.disk, STATE_FILE)),  # type: ignore[arg-type]
            no_grace=no_grace,
        )
        running = loop.start(Server(config, self._recorder.note).run(), "server")
        running.add_done_callback(partial(self._ended, process))

    def _ended(self, process: Process, running: asyncio.Task[None]) -> None:
        """Note how it ended."""
        if Scheduler.current.is_over or running.cancelled():
            return
        error = running.exception()
        if error is not None and not isinstance(error, PowerFailure):
            self._recorder.problems.append(f"The server failed: {error!r}")
        if self.process is process and error is None:
            process.kill()
            self._gone(crashed=False)

    def set_wall_clock(self, seconds: float) -> None:
        """Set the machine's wall clock by so many seconds."""
        self._latest_time = max(self._latest_time, self.machine.wall_clock())
        self.machine.wall_error += seconds
        self._recorder.note(f"The server's wall clock is set by {seconds:.1f} s.")

    def _gone(self, *, crashed: bool) -> None:
        """Let a supervisor start it again."""
        self.process = None
        self._has_crashed = crashed
        self._latest_time = max(self._latest_time, self.machine.wall_clock())
        scheduler = Scheduler.current
        scheduler.call_later(LONGEST_DOWNTIME * scheduler.random.random(), self.start)

    def stop(self) -> None:
        """Let it stop in order."""
        loop = None if self.process is None else self.process.loop
        if loop is not None and signal.SIGTERM in loop.signal_handlers:
            self._recorder.note("The server is asked to stop.")
            loop.receive_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process: its system goes on."""
        if self.process is not None:
            self._recorder.note("The server is killed.")
            self.process.kill()
            self._gone(crashed=True)

    def lose_power(self) -> None:
        """Let the machine lose its power, and all that is not on the disk."""
        self._recorder.note("The server loses its power.")
        self._recorder.excuse_late_ends()
        self.machine.fail()
        if self.process is not None:
            self.process.lose_power()
            self._gone(crashed=True)
        self.disk.lose_power()

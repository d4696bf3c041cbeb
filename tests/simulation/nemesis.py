"""What goes wrong in a universe, and when: drawn from its seed before it begins."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from .network import Direction
from .scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from .universe import Universe

LONGEST_WALL_STEP: Final = 600.0
"""Seconds by which the server's wall clock is set, at most."""
DISK_OPERATIONS: Final = 8
"""How many operations on the disk a save takes."""


class Nemesis:
    """Causes faults. The promise holds in spite of all of them."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._scheduler = Scheduler.current
        self._random = self._scheduler.random
        self._longest_ttl = max(universe.habits.ttls)

    def plan(self, number: int, end: float) -> None:
        """Schedule so many faults until then."""
        for _ in range(number):
            fault = self._random.choice(FAULTS)
            self._scheduler.call_at(end * self._random.random(), partial(fault, self))

    def _note(self, event: str) -> None:
        self._universe.recorder.note(event)

    def kill_server(self) -> None:
        """Kill the server; it is started again."""
        self._universe.server.kill()

    def cut_power_of_server(self) -> None:
        """Let the server's machine lose its power, perhaps while it saves its state."""
        server = self._universe.server
        if self._random.random() < 0.5:
            server.disk.fails_after = self._random.randrange(DISK_OPERATIONS)
            server.stop()
        elif server.process is not None:
            server.lose_power()

    def stop_server(self) -> None:
        """Stop the server in order, and set its wall clock meanwhile."""
        server = self._universe.server
        server.stop()
        server.set_wall_clock(LONGEST_WALL_STEP * self._random.uniform(-1, 1))

    def pause_server(self) -> None:
        """Pause the server."""
        if (process := self._universe.server.process) is not None:
            self._note("The server is paused.")
            process.pause(self._seconds())

    def kill_client(self) -> None:
        """Kill a client; another process takes its place."""
        self._universe.pick_client().kill()
        self._universe.start_client()

    def pause_client(self) -> None:
        """Pause a client, perhaps for longer than its leases last."""
        client = self._universe.pick_client()
        self._note(f"{client.name} is paused.")
        client.process.pause(seconds := self._seconds())
        self._universe.recorder.excuse_waiting(seconds)

    def partition(self) -> None:
        """Keep a client's messages back, in one direction or both."""
        client, seconds = self._universe.pick_client(), self._seconds()
        directions = self._random.choice([[Direction.IN], [Direction.OUT], [*Direction]])
        self._note(f"{client.name} is cut off for {seconds:.1f} s: {directions}")
        self._universe.network.partition(client.name, directions, seconds)
        self._universe.recorder.excuse_waiting(seconds)

    def cut_connections(self) -> None:
        """Cut a client's connections."""
        client, silently = self._universe.pick_client(), self._random.random() < 0.5
        self._note(f"{client.name}'s connections are cut{' silently' * silently}.")
        self._universe.network.cut(client.name, silently=silently)

    def slow_down(self) -> None:
        """Let all messages take longer for a while."""
        network, seconds = self._universe.network, self._seconds()
        network.extra_delay = self._random.choice([0.05, 0.5, 3.0])
        self._note(f"Messages take up to {network.extra_delay} s longer for {seconds:.1f} s.")

        def end() -> None:
            network.extra_delay = 0.0

        self._scheduler.call_later(seconds, end)

    def cancel_task(self) -> None:
        """Cancel a task of a client."""
        self._universe.pick_client().cancel_a_task()

    def _seconds(self) -> float:
        """Return how long a fault lasts: sometimes longer than any lease."""
        return self._random.choice([0.3, 1.0, 2.5, 1.5 * self._longest_ttl]) * (
            0.5 + self._random.random()
        )


FAULTS: Final[list[Callable[[Nemesis], None]]] = [
    Nemesis.kill_server,
    Nemesis.cut_power_of_server,
    Nemesis.stop_server,
    Nemesis.pause_server,
    Nemesis.kill_client,
    Nemesis.pause_client,
    Nemesis.partition,
    Nemesis.cut_connections,
    Nemesis.slow_down,
    Nemesis.cancel_task,
]

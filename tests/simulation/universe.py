"""A universe: everything that happens in it follows from its seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from django_distlock.backends.server import connections as server_connections
from django_distlock.server import restart, running, saved_state
from django_distlock.server.limits import Limits
from tests.faults.checker import judge
from tests.faults.holds import Bounds

from . import threads
from .disk import os_module
from .installation import PROCESSES, Replacement, forget_processes, replaced
from .machines import Process
from .mutants import NOT_MUTATED, Mutant
from .nemesis import Nemesis
from .network import Network
from .recording import PATIENT, Recorder
from .scheduler import Scheduler, SimulatedThread
from .server_process import BootId, ServerProcess
from .sockets import of_descriptor, socket_module
from .workers import Client, Habits

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_distlock.server.table import LockTable

SEMAPHORES: Final = ("1234collectPayment", "5678collectPayment", "9012collectPayment")
QUIET: Final = 40.0
"""Seconds after the last fault in which everything has to be in order again."""
LOOK_EVERY: Final = 0.9
"""Seconds between two looks at the server's table."""
PROMPT: Final = 0.6
"""Seconds in which a waiter gets a free lock where nothing is wrong."""


def assert_offers_are_wanted(table: LockTable) -> None:
    """Fail if a lock is offered to somebody who doesn't wait for it."""
    for lock in table.locks.values():
        assert not lock.offered or lock.owner in (lock.queue or {}), lock.semaphore


def assert_unused(table: LockTable) -> None:
    """Fail if something is left in the table."""
    assert not table.save(), f"leases are left: {table.save()}"
    assert not len(table.waiters), f"{len(table.waiters)} waiters are left"


@dataclass
class Result:
    """What came of a universe."""

    seed: int
    problems: list[str]
    seconds: float
    """How long it lasted, in its own time."""
    locks: int
    grants: int
    events: list[tuple[float, str]]
    segments: list[Any] = field(repr=False)

    def digest(self) -> str:
        """Return what differs if anything that was sent, or happened, differs."""
        return sha256(repr((self.segments, self.events, self.problems)).encode()).hexdigest()

    def trace(self) -> str:
        """Return all that happened, for people."""
        sent = [
            (at, f"{client} {direction.name} {segment.kind.name} {segment.data!r}")
            for at, client, direction, segment in self.segments
        ]
        return "\n".join(f"{at:11.6f} {what}" for at, what in sorted(sent + self.events))


class Universe:
    """The server, its clients, the network between them, and what goes wrong."""

    def __init__(self, seed: int, mutant: Mutant = NOT_MUTATED) -> None:
        self.seed = seed
        self._scheduler = Scheduler.current = Scheduler(seed)
        random = self._scheduler.random
        self.recorder = Recorder()
        self.is_calm = random.random() < 0.25
        ttls = [(1.5, 3.0), (2.0, 6.0), (4.0, 9.0)][random.randrange(3)]
        self.lasts = random.uniform(20.0, 60.0)
        self.habits = Habits(
            semaphores=SEMAPHORES[: random.randint(1, 3)],
            ttls=ttls,
            uses=random.randint(1, 3),
            longest_hold=random.choice([0.5, 2.0, 8.0]),
            longest_rest=random.choice([0.5, 6.0, 12.0]),
            ends_at=self.lasts,
        )
        self.network = Network(
            random.choice([0.0002, 0.002, 0.02]),
            slow_share=0.0 if self.is_calm else random.choice([0, 0.02]),
            hiccups=0.0 if self.is_calm else 0.02,
        )
        limits = Limits(max_ttl=max(ttls) + random.choice([0.0, 3.0]))
        self.server = ServerProcess(self.network, self.recorder, limits)
        self.clients: list[Client] = []
        self._mutant = mutant
        if not self.is_calm:
            self.network.lost_replies = random.choice([0.0, 0.03])

    def run(self) -> Result:
        """Let it happen."""
        with replaced(self._replacements()):
            try:
                self._happen()
            finally:
                self._end()
        return self._result()

    def _replacements(self) -> list[Replacement]:
        """Return the names whose replacements belong to this universe."""
        return [
            (server_connections, "socket", socket_module(self.network)),
            (restart, "LockTable", self._new_table),
            (running, "bind", self.server.bind),
            (saved_state, "os", os_module(self.server.disk)),
            (saved_state, "BOOT_ID", BootId(self.server.machine)),
            *self._mutant.replacements,
        ]

    def _new_table(self, **options: Any) -> LockTable:
        """Return the table of a server that starts."""
        self.recorder.table = table = self._mutant.table(
            **options, monotonic=threads.monotonic, microseconds=threads.microseconds
        )
        return table

    def _happen(self) -> None:
        scheduler, random = self._scheduler, self._scheduler.random
        self.server.start(no_grace=True)
        scheduler.run_until(0.01)
        for _ in range(random.choice([2, 2, 3, 4])):
            self.start_client()
        nemesis = Nemesis(self)
        if not self.is_calm:
            nemesis.plan(random.randint(1, 6), self.lasts)
        while scheduler.now < self.lasts:
            scheduler.run_until(scheduler.now + LOOK_EVERY)
            self._look_at_table(assert_offers_are_wanted)
        scheduler.run_until(self.lasts + QUIET)
        if not self.network.has_forgotten:
            self._look_at_table(assert_unused)
        self._look_for_failures()

    def _look_at_table(self, check: Callable[[LockTable], None]) -> None:
        """Note if something is wrong with the server's table, unless it can't be asked."""
        process, table = self.server.process, self.recorder.table
        if process is None or table is None or process.paused_until > self._scheduler.now:
            return
        with process.as_running():
            try:
                check(table)
            except AssertionError as error:
                self.recorder.problems.append(
                    f"{self._scheduler.now:.3f}: {check.__name__} {error}"
                )

    def start_client(self) -> None:
        """Start another client process."""
        if len(self.clients) < PROCESSES:
            workers = self._scheduler.random.choice([1, 1, 2, 3])
            self.clients.append(Client(len(self.clients), workers, self.habits, self.recorder))

    def pick_client(self) -> Client:
        """Return a client that lives."""
        return self._scheduler.random.choice(
            [each for each in self.clients if each.process.is_alive]
        )

    def _look_for_failures(self) -> None:
        loops = [each.process.loop for each in self.clients if each.process.loop is not None]
        for loop in [*self.server.loops, *loops]:
            self.recorder.problems += [f"asyncio: {failure}" for failure in loop.failures]

    def _end(self) -> None:
        """Free everything, without anything happening any more."""
        scheduler = self._scheduler
        scheduler.now += 1_000_000  # no lease is held any more
        threads_left: list[SimulatedThread] = []
        for client in self.clients:
            threads_left += client.process.threads
        with Process("the end", self.server.machine).as_running():
            scheduler.end(threads_left)
            for loop in self.server.loops:
                loop.discard()
            for client in self.clients:
                if client.process.loop is not None:
                    client.process.loop.discard()
            forget_processes()
        of_descriptor.clear()

    def _result(self) -> Result:
        recorder = self.recorder
        counters = {name: register.value for name, register in recorder.registers.items()}
        bounds = Bounds(service=PROMPT if self.is_calm else PATIENT)
        violations = judge(
            recorder.operations, counters=counters, bounds=bounds, waivers=recorder.waivers
        )
        grants = sum(
            each.operation == "acquire" and each.outcome == "ok" for each in recorder.operations
        )
        return Result(
            seed=self.seed,
            problems=recorder.problems + [str(each) for each in violations],
            seconds=self.lasts + QUIET,
            locks=len(self.habits.semaphores),
            grants=grants,
            events=recorder.events,
            segments=self.network.segments,
        )

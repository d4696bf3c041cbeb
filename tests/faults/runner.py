"""Run a store under faults: start workers, carry out the plan, read what they wrote, judge it."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import psutil

from tests.faults.checker import Violation, judge
from tests.faults.clocks import MovedClock
from tests.faults.history import now, read_histories
from tests.faults.holds import Bounds
from tests.faults.nemesis import LONGEST, Performed, carry_out, draw_plan
from tests.faults.nursery import moves_clocks_of_clients
from tests.faults.promises import waivers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random

    from tests.faults.environment import Environment, Fault
    from tests.faults.nursery import Nursery

GRACE = 5.0
"""Seconds for the workers' last turns, after which they are killed."""
BOUNDS = Bounds(service=2, reach=LONGEST + 4)
"""What is without a reply for longer has failed: a store's calls end within 2 seconds."""
RECORD = "run.json"


@dataclass(frozen=True)
class Scale:
    """How large a run is."""

    seconds: float = 30
    workers: int = 6
    actors: int = 3
    semaphores: int = 4
    pace: float = 0.0
    """Seconds between two turns of an actor, on the average."""
    calm: float = 1.0
    """How much longer than usual it is between faults."""
    burst: int = 1
    """How often an actor tries for a lock that is held, one try after the other, at most."""
    late: float = 0.1
    """The share of increments that outlast their lease, unless that is renewed."""
    ttls: tuple[float, ...] = ()
    """Instead of the store's."""
    faults: tuple[str, ...] | None = None
    """Only these, rather than all that the store can have."""

    def chosen(self, faults: dict[str, Fault]) -> dict[str, Fault]:
        """Return those of the faults that a run has."""
        return {
            name: fault
            for name, fault in faults.items()
            if self.faults is None or name in self.faults
        }


@dataclass
class Result:
    """What came of a run."""

    store: str
    seed: int
    operations: dict[str, int] = field(default_factory=dict)
    """How many there were, by kind and outcome."""
    performed: list[Performed] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Return the number of operations."""
        return sum(self.operations.values())

    @property
    def is_good(self) -> bool:
        """Return whether nothing was broken but what is waived, and no worker failed."""
        return not (self.violations or self.errors)


class Run:
    """One plan, and the workers that live through it."""

    def __init__(
        self, environment: Environment, nursery: Nursery, seed: int, scale: Scale, folder: Path
    ) -> None:
        self._environment = environment
        self._nursery = nursery
        self._scale = scale
        self._folder = folder
        self._seed = seed
        self._began = now() + 0.2
        self._until = self._began + scale.seconds
        self._numbers = count()
        self._workers: dict[int, psutil.Process] = {}
        self._clocks: dict[int, MovedClock] = {}

    def perform(self) -> list[Performed]:
        """Run it; return the faults that there have been."""
        worker_faults: dict[str, Fault] = {
            "worker_killed": self._kill,
            "worker_stopped": self._stop,
        }
        if moves_clocks_of_clients(self._environment):
            worker_faults["worker_clock"] = self._move_clock
        faults: dict[str, Fault] = {**self._environment.faults, **worker_faults}
        lanes = {
            "servers": self._scale.chosen(self._environment.faults),
            "workers": self._scale.chosen(worker_faults),
        }
        plans = [
            draw_plan(self._seed, lane, its, self._scale.seconds, self._scale.calm)
            for lane, its in lanes.items()
        ]
        try:
            for place in range(self._scale.workers):
                self._start(place)
            performed = carry_out(plans, faults, self._began)
        finally:
            self._end()
        return performed

    def _start(self, place: int) -> None:
        work = work_of(self._environment, self._scale, self._folder, self._seed)
        aliases = sorted(self._environment.settings()["DISTLOCK"])
        backend = aliases[place % len(aliases)]
        options = self._environment.settings()["DISTLOCK"][backend].get("OPTIONS", {})
        name = f"w{next(self._numbers)}"
        if moves_clocks_of_clients(self._environment):
            self._clocks[place] = MovedClock(self._folder / f"{name}.clock")
            work["clock"] = str(self._clocks[place].file)
        work |= {
            "name": name,
            "backend": backend,
            "using": options.get("using", work["using"]),
            "style": "async" if place // len(aliases) % 2 else "sync",
            "until": self._until,
        }
        self._workers[place] = self._nursery.start("run", work)

    @contextmanager
    def _kill(self, random: Random) -> Iterator[None]:
        """Kill a worker; another one takes its place."""
        place = random.randrange(self._scale.workers)
        with suppress(psutil.NoSuchProcess):  # it has failed: check() tells why
            self._workers[place].kill()
        yield
        self._start(place)

    @contextmanager
    def _stop(self, random: Random) -> Iterator[None]:
        """Stop a worker for longer than its leases last."""
        worker = self._workers[random.randrange(self._scale.workers)]
        with suppress(psutil.NoSuchProcess):
            worker.suspend()
        try:
            yield
            time.sleep(max(self._environment.ttls) if random.random() < 0.5 else 0)
        finally:
            with suppress(psutil.NoSuchProcess):
                worker.resume()

    @contextmanager
    def _move_clock(self, random: Random) -> Iterator[None]:
        """Move a worker's wall clock by up to an hour; its monotonic clock is right."""
        self._clocks[random.randrange(self._scale.workers)].step(random.uniform(-3600, 3600))
        yield

    def _end(self) -> None:
        """Wait for the last turns; kill workers that take too long."""
        workers = [*self._workers.values()]
        _, alive = psutil.wait_procs(workers, max(0, self._until - now()) + GRACE)
        for worker in alive:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        psutil.wait_procs(alive, GRACE)


def work_of(environment: Environment, scale: Scale, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Return what all processes of a run are told. See workload.Work."""
    return {
        "name": "registers",
        "seed": seed,
        "directory": str(folder),
        "backend": "tested",
        "using": "default",
        "style": "sync",
        "actors": scale.actors,
        "semaphores": scale.semaphores,
        "registers": environment.registers,
        "ttls": scale.ttls or environment.ttls,
        "pace": scale.pace,
        "burst": scale.burst,
        "late": scale.late,
        "probes_stale": environment.probes_stale,
        "until": 0,
        "clock": "",
    }


def run(
    environment: Environment, nursery: Nursery, seed: int, scale: Scale, folder: Path
) -> Result:
    """Run a store under the faults of a seed; keep all that happened in the folder."""
    folder.mkdir(parents=True)
    environment.rest()
    before = read_registers(environment, nursery, scale, folder)
    performed = Run(environment, nursery, seed, scale, folder).perform()
    after = read_registers(environment, nursery, scale, folder)
    record = {
        "store": environment.store,
        "seed": seed,
        "performed": performed,
        "counters": {name: after[name] - before[name] for name in after},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2))
    return check(folder)


def read_registers(
    environment: Environment, nursery: Nursery, scale: Scale, folder: Path
) -> dict[str, int]:
    """Return the value of each semaphore's register."""
    nursery.finish("report", work_of(environment, scale, folder))
    values: dict[str, int] = json.loads((folder / "registers.json").read_text())
    return values


def check(folder: Path) -> Result:
    """Judge what a run has left in the folder."""
    record = json.loads((folder / RECORD).read_text())
    performed = [Performed(*each) for each in record["performed"]]
    history = read_histories(sorted(folder.glob("*.jsonl")))
    result = Result(record["store"], record["seed"], performed=performed)
    for operation in history:
        kind = f"{operation.operation} {operation.outcome}"
        result.operations[kind] = result.operations.get(kind, 0) + 1
    result.violations = judge(
        history,
        counters=record["counters"],
        bounds=BOUNDS,
        waivers=waivers(record["store"], performed),
    )
    result.errors = [path.read_text() for path in sorted(folder.glob("*.error"))]
    return result

"""How many updates a register loses while holders of its lock are paused for longer than the lease.

This is the test that showed etcd's locks unsafe (Jepsen: etcd 3.4.3). Workers increment a register
in PostgreSQL: under a lock with a ttl of two seconds, they read it, and write one more. In each
twentieth increment, the worker is stopped with SIGSTOP between the two, for five seconds.

Each library is used as in its README, and renews its locks if it can. If a register loses an update
though its writes are fenced or guarded by this package, the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from django.db import connection, connections
from rich.console import Console

from benchmarks import every_store
from benchmarks.blocks import BLOCKS, TTL, losses
from benchmarks.contenders import MUTEX, OURS, PGLOCK, REDIS_LOCK, REDIS_PY
from benchmarks.crews import Crew, Shared
from benchmarks.every_store import LOCK_SERVER, POSTGRESQL, REDIS
from benchmarks.report import machine
from benchmarks.report.sheets import Sheet
from benchmarks.report.tables import as_table

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE = 5
THINKING = 0.01
"""Seconds from each read to the write, without a pause."""
PAUSED = 20
"""A worker is paused in each increment of this number."""
CREWS = 5
APPS = ("pgactivity", "pglock", "db_mutex")

HEADINGS = ("lost", "written", "refused", "told late", "pauses", "wait, s")
NOTES = """lost: updates that a paused worker overwrote; written: those that reached the register;
refused: not written, as the lock was lost; told late: written, and the loss told afterwards;
wait, s: the longest that a worker waited for the lock"""

console = Console(width=104)


class Contender(NamedTuple):
    """A library, where it keeps its locks, and what protects the write."""

    library: str
    store: str
    protection: str = ""

    @property
    def name(self) -> str:
        """Return the name of its register and its lock, of characters that a template keeps."""
        return "_".join(filter(None, self)).replace(" ", "-")


CONTENDERS = (
    Contender(REDIS_PY, REDIS),
    Contender(REDIS_LOCK, REDIS),
    Contender(PGLOCK, POSTGRESQL),
    Contender(MUTEX, POSTGRESQL),
    *(
        Contender(OURS, store, protection)
        for store in (POSTGRESQL, REDIS, LOCK_SERVER)
        for protection in ("", "fenced", "guarded")
    ),
)


class Result(NamedTuple):
    """What a worker did; or all of them."""

    written: int = 0
    """Increments that reached the register."""
    refused: int = 0
    """Increments that did not: the worker learned before that it had lost the lock."""
    late: int = 0
    """Written ones whose worker learned afterwards that it had lost the lock."""
    pauses: int = 0
    waited: float = 0
    """The longest wait for the lock, in seconds."""

    @classmethod
    def of(cls, results: list[Result]) -> Result:
        """Add up several ones."""
        written, refused, late, pauses, waited = zip(*results, strict=True)
        return cls(sum(written), sum(refused), sum(late), sum(pauses), max(waited))


def main() -> None:
    """Run the test, print a table, and fail if a protected register lost an update."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4, help="of each; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=25, help="default: %(default)s")
    parser.add_argument("--libraries", nargs="+", choices=BLOCKS, default=list(BLOCKS))
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    contenders = [each for each in CONTENDERS if each.library in options.libraries]
    stores = (POSTGRESQL, REDIS, LOCK_SERVER)
    with every_store.started(stores, *APPS, DB_MUTEX_TTL_SECONDS=TTL):
        # Not before Django is set up.
        from benchmarks.register import Register

        with connection.schema_editor() as editor:
            editor.create_model(Register)
        Register.objects.bulk_create(Register(name=each.name) for each in contenders)
        about = machine.about(stores, "tox run -e benchmark -- pauses")
        results = run_all(contenders, options.workers, options.seconds)
        numbers = dict(Register.objects.values_list("name", "number"))
    lost = {each: result.written - numbers[each.name] for each, result in results.items()}
    title = (
        f"{options.workers} workers for {options.seconds:g} s, paused for {PAUSE} s; ttl {TTL} s"
    )
    sheet = as_sheet(results, lost, title)
    console.print(as_table(sheet), NOTES)
    if options.output:
        saved = {"about": about, "sheet": sheet._asdict()}
        options.output.write_text(f"{json.dumps(saved, indent=1)}\n", "utf-8")
    if any(number for contender, number in lost.items() if contender.protection):
        raise SystemExit("a protected register lost an update")


def run_all(contenders: list[Contender], workers: int, seconds: float) -> dict[Contender, Result]:
    """Let several crews take the contenders one by one: most of it is waiting."""
    crews: SimpleQueue[Crew] = SimpleQueue()

    def run(contender: Contender) -> Result:
        crew = crews.get()
        try:
            return Result.of(crew.run(seconds + 2 * PAUSE, work, contender, workers, seconds))
        finally:
            crews.put(crew)

    number = min(CREWS, len(contenders))
    with ExitStack() as stack, ThreadPoolExecutor(number) as threads:
        for crew in [stack.enter_context(Crew(workers)) for _ in range(number)]:
            crews.put(crew)
        return dict(zip(contenders, threads.map(run, contenders), strict=True))


def work(shared: Shared, contender: Contender, workers: int, seconds: float) -> Result:
    """Increment the contender's register again and again, paused now and then."""
    logging.disable()  # this package logs each loss
    threading.excepthook = ignore_loss
    results = [Result()]
    shared.ready.wait(60)
    number = PAUSED * shared.number // workers  # not all are paused in their first
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number += 1
        results.append(increment(contender, paused=number % PAUSED == 0))
    connections.close_all()
    return Result.of(results)


def increment(contender: Contender, *, paused: bool) -> Result:
    """Increment the contender's register once, under its lock."""
    written, waited, asked = 0, 0.0, time.monotonic()
    try:
        with BLOCKS[contender.library](contender.name, contender.store) as lease:
            waited = time.monotonic() - asked
            write(contender, lease, pause if paused else think)
            written = 1
    except losses():
        return Result(written, 1 - written, written, paused, waited)
    return Result(written, pauses=paused, waited=waited)


def write(contender: Contender, lease: object, between: Callable[[], None]) -> None:
    """Increment the contender's register; call `between` when it is read, but not yet written."""
    from benchmarks.register import WRITES

    WRITES[contender.protection](contender.name, lease, between)


def think() -> None:
    """Take a moment between reading and writing."""
    time.sleep(THINKING)


def pause() -> None:
    """Be stopped, with all threads of this process, and continue after a while."""
    script = f"kill -STOP $PPID; sleep {PAUSE}; kill -CONT $PPID"
    subprocess.run(["sh", "-c", script], check=True)


def ignore_loss(arguments: threading.ExceptHookArgs) -> None:
    """Ignore that python-redis-lock's thread lost the lock: the release says so, too."""
    if not isinstance(arguments.exc_value, losses()):
        threading.__excepthook__(arguments)


def as_sheet(results: dict[Contender, Result], lost: dict[Contender, int], title: str) -> Sheet:
    """Lay out what became of each contender's updates."""
    rows = []
    for contender, result in results.items():
        *counts, waited = result
        cells = (lost[contender], *counts)
        name = ", ".join(filter(None, contender))
        rows.append([name, *map(str, cells), f"{waited:.1f}"])
    return Sheet("pauses", title, ["", *HEADINGS], rows)


if __name__ == "__main__":
    main()

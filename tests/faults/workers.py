"""`python -m tests.faults.workers`: sets Django up once, and forks workers from then on.

Each line on standard input is the work of one process; its id is the answer. Tables are created by
such a process, too, so that this one has no connection and no thread when it forks.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

if TYPE_CHECKING:
    from tests.faults.history import HistoryFile
    from tests.faults.workload import Work


def main() -> None:
    """Fork a process for each line."""
    django.setup()
    import_module("tests.faults.workload")
    import_module("tests.faults.registers")
    if len(sys.argv) > 1:
        import_module(f"tests.faults.mutants.{sys.argv[1]}").apply()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # which leaves no zombies
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            be_child(json.loads(line))
        print(pid, flush=True)


def be_child(order: dict[str, Any]) -> None:
    """Do the work, and end without Python's clean-up; leave a file if that fails."""
    from tests.faults.clocks import follow
    from tests.faults.workload import Work

    status = 1
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    task = TASKS[order.pop("task")]
    work = Work(**order)
    place = Path(work.directory, work.name)
    if work.clock:
        follow(work.clock)
    log = os.open(place.with_suffix(".log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 2)
    try:
        task(work)
        status = 0
    except BaseException:  # noqa: BLE001 - the runner reads it
        place.with_suffix(".error").write_text(traceback.format_exc())
    finally:
        os._exit(status)


def prepare(work: Work) -> None:
    """Create the tables and the registers."""
    from django.core.management import call_command

    from tests.faults.registers import create

    call_command("migrate", database=work.using, verbosity=0)
    create(work)


def report(work: Work) -> None:
    """Write the registers' values into a file."""
    from tests.faults.registers import values

    Path(work.directory, f"{work.name}.json").write_text(json.dumps(values(work)))


def run(work: Work) -> None:
    """Run the actors, each in a thread or task."""
    from django_distlock.backends.sync_driver import run_sync
    from tests.faults.calls import AsyncCalls, Calls, SyncCalls
    from tests.faults.renewals import record_renewals
    from tests.faults.workload import Actor

    released = record_renewals(work.backend, history_of(work, f"{work.name}.renewals"))

    def actor(number: int, calls: Calls) -> Actor:
        name = f"{work.name}.{number}"
        return Actor(name, work, calls, history_of(work, name), released)

    if work.style == "async":

        async def run_all() -> None:
            actors = [actor(number, AsyncCalls()) for number in range(work.actors)]
            await asyncio.gather(*(each.run() for each in actors))

        asyncio.run(run_all())
        return
    errors: list[BaseException] = []

    def run_one(number: int) -> None:
        try:
            run_sync(actor(number, SyncCalls()).run())
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run_one, args=[number]) for number in range(work.actors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


def history_of(work: Work, name: str) -> HistoryFile:
    """Return a file for an actor's history."""
    from tests.faults.history import HistoryFile

    return HistoryFile(Path(work.directory, f"{name}.jsonl"), name)


TASKS = {"prepare": prepare, "report": report, "run": run}


if __name__ == "__main__":
    main()

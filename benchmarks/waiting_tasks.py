"""How a contended lock is handed over among the tasks of one process, which hold it for 1 ms.

If two were ever inside at once, the exit status is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from asgiref.sync import sync_to_async
from django.db import connections
from rich.console import Console

from benchmarks import stores
from benchmarks.contenders import OURS
from benchmarks.waiting import HELD, Turn, as_table, summarize

console = Console()


class Inside:
    """The number of tasks inside the lock."""

    task: int | None = None


def main() -> None:
    """Measure, print a table, and fail if two were inside at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=stores.STORES, default=stores.REDIS)
    parser.add_argument("--durable", action="store_true", help="PostgreSQL commits to the disk")
    parser.add_argument("--tasks", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=3, help="a round's; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    stores.add_redis_options(parser)
    options = parser.parse_args()
    with stores.store(options):
        console.print(stores.describe(options.store))
        rounds = asyncio.run(measure(options.tasks, options.seconds, options.rounds))
    figures = {OURS: [summarize(turns, options.seconds) for turns in rounds]}
    title = f"{options.tasks} tasks for {options.seconds:g} s, {HELD * 1000:g} ms held"
    console.print(as_table(figures, title))
    overlaps = sum(turn.overlaps for turns in rounds for turn in turns)
    console.print(f"two inside at once: {overlaps or 'never'}")
    if overlaps:
        raise SystemExit("two were inside at once")


async def measure(
    tasks: int, seconds: float, rounds: int, backend: str = "default"
) -> list[list[Turn]]:
    """Return each task's measurements in each round, after a short one to warm up."""
    seen = []
    for number in range(rounds + 1):
        end = time.perf_counter() + (seconds if number else 0.5)
        inside = Inside()
        turns = (contend(task, f"round {number}", backend, end, inside) for task in range(tasks))
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + seconds + 60):
            seen.append(await asyncio.gather(*turns))
    await sync_to_async(connections.close_all)()
    return seen[1:]


async def contend(task: int, semaphore: str, backend: str, end: float, inside: Inside) -> Turn:
    """Acquire, hold and release the lock, again and again."""
    from django_distlock import aacquire_lock

    waits: list[float] = []
    grants = overlaps = 0
    while (asked := time.perf_counter()) < end:
        lease = await aacquire_lock(semaphore, timeout=None, backend=backend)
        assert lease
        granted = time.perf_counter()
        waits.append(min(granted, end) - asked)
        grants += granted < end
        overlaps += await hold(task, inside)
        await lease.arelease()
    return Turn(waits, grants, overlaps)


async def hold(task: int, inside: Inside) -> bool:
    """Be inside for a moment; return whether another task was."""
    alone = inside.task is None
    inside.task = task
    await asyncio.sleep(HELD)
    alone = alone and inside.task == task
    inside.task = None
    return not alone


if __name__ == "__main__":
    main()

"""What waiting tasks cost the others of their event loop.

Everything runs in one process and one event loop. The view is called by Django's ASGI handler, so
its latency includes all that Django does for a request; it needs no lock.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
import time
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from rich.console import Console
from rich.table import Table

from benchmarks import databases
from benchmarks.pair import Spread

ALONE, BESIDE = "no task waits", "tasks wait for one lock"
REQUESTS = 200

console = Console()


async def unrelated(request: HttpRequest) -> HttpResponse:
    """Answer at once."""
    return HttpResponse("here")


urlpatterns = [path("unrelated/", unrelated)]


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=databases.DATABASES, default="postgresql")
    parser.add_argument("--rounds", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--waiters", type=int, default=200, help="default: %(default)s")
    options = parser.parse_args()
    with databases.database(options.database):
        console.print(databases.describe())
        with override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"]):
            latencies, threads = asyncio.run(measure_latency(options.rounds, options.waiters))
        title = f"latency of another view, µs, beside {options.waiters} waiting tasks"
        console.print(compare(title, latencies, ALONE, BESIDE))
        console.print(f"threads that {options.waiters} waiting tasks added: {threads}")


async def measure_latency(rounds: int, waiters: int) -> tuple[dict[str, list[float]], int]:
    """Return the view's median latency in each round, without waiting tasks and beside them.

    And the number of additional threads.
    """
    from django_distlock import aacquire_lock

    lease = await aacquire_lock("held", ttl=3600)
    assert lease
    latencies: dict[str, list[float]] = {ALONE: [], BESIDE: []}
    added = 0
    for number in range(rounds + 1):
        for name in list(latencies)[:: -1 if number % 2 else 1]:
            before = threading.active_count()
            waiting = [
                asyncio.create_task(aacquire_lock("held", timeout=None))
                for _ in range(waiters if name == BESIDE else 0)
            ]
            await asyncio.sleep(0.5)  # until each has tried, and waits
            if number:
                added = max(added, threading.active_count() - before)
            latencies[name].append(await median_latency())
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
    await lease.arelease()
    await sync_to_async(connections.close_all)()
    return {name: values[1:] for name, values in latencies.items()}, added


async def median_latency() -> float:
    """Return the seconds that the view takes to answer."""
    handler = ASGIHandler()
    seconds = []
    for _ in range(REQUESTS):
        started = time.perf_counter()
        await request(handler)
        seconds.append(time.perf_counter() - started)
        await asyncio.sleep(0.002)  # as many rounds as the loop needs for the other tasks
    return statistics.median(seconds)


async def request(handler: ASGIHandler) -> None:
    """Call the view as a server does."""
    sent: list[Any] = []
    asked = asyncio.Event()

    async def receive() -> Any:
        if asked.is_set():
            await asyncio.Event().wait()
        asked.set()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/unrelated/",
        "headers": [],
        "query_string": b"",
    }
    await handler(scope, receive, send)
    assert sent[0]["status"] == 200


def compare(title: str, times: dict[str, list[float]], base: str, other: str) -> Table:
    """Lay out both, and the ratio within each round."""
    table = Table("", "median", "quartiles", "", title=title)
    for name in (base, other):
        table.add_row(name, *Spread.of(times[name]).cells(1e6, 0))
    ratios = [mine / its for mine, its in zip(times[other], times[base], strict=True)]
    table.add_row("ratio", *Spread.of(ratios).cells(1, 2))
    return table


if __name__ == "__main__":
    main()

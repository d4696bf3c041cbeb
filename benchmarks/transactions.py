"""The cost of a lock around a transaction: the guard of its commit, and a whole locked view.

As in `pair`, the kinds of call take turns, and differences are taken within a round.
"""

from __future__ import annotations

import argparse
import time
from threading import Event, Thread
from typing import TYPE_CHECKING
from unittest import mock

from django.conf import settings
from django.core.handlers.base import BaseHandler
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import path
from rich.console import Console

from benchmarks import databases
from benchmarks.pair import Spread, make_update, measure, ratios, spreads, times

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rich.table import Table

BARE_VIEW = "a bare view"
LOCKED_VIEW = "a locked view"
GUARDED = "lock, transaction"
UNGUARDED = "the same, commit not guarded"
COMPARED = [(LOCKED_VIEW, BARE_VIEW), (GUARDED, UNGUARDED)]
TRIES = 200

console = Console()


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=databases.DATABASES, default="postgresql")
    parser.add_argument("--rounds", type=int, default=30, help="default: %(default)s")
    parser.add_argument(
        "--apart", action="store_true", help="SQLite: keep the locks in a file of their own"
    )
    options = parser.parse_args()
    lock_options = {"using": "locks"} if options.apart else {}
    with databases.database(options.database, **lock_options):
        console.print(databases.describe())
        connections.settings["default"]["ATOMIC_REQUESTS"] = True
        update = make_update()
        batches = measure(make_kinds(update), options.rounds)
        console.print(times(batches), ratios(batches, COMPARED), differences(batches))
        if options.database != "sqlite" or options.apart:  # else it locks the file
            console.print(tries(update))


def make_kinds(update: Callable[[], None]) -> dict[str, Callable[[], None]]:
    """Return what to measure by its name: each updates one row in a transaction."""
    from django_distlock import distributed_lock
    from django_distlock.backends.database import DatabaseBackend

    def view(request: HttpRequest) -> HttpResponse:
        update()
        return HttpResponse()

    def visit(name: str) -> Callable[[], None]:
        request = RequestFactory().get(f"/{name}/")

        def send() -> None:
            assert handler.get_response(request).status_code == 200

        return send

    def locked_transaction(patched: Callable[[], AbstractContextManager[object]]) -> None:
        with patched(), distributed_lock("benchmark"), transaction.atomic():
            update()

    def unguarded() -> AbstractContextManager[object]:
        return mock.patch.object(DatabaseBackend, "guard", return_none)

    # Replaced by itself, so that both pay for the patch.
    def guarded() -> AbstractContextManager[object]:
        return mock.patch.object(DatabaseBackend, "guard", DatabaseBackend.guard)

    settings.ROOT_URLCONF = (
        path("bare/", view),
        path("locked/", distributed_lock("benchmark")(view)),
    )
    handler = BaseHandler()
    handler.load_middleware()
    return {
        BARE_VIEW: visit("bare"),
        LOCKED_VIEW: visit("locked"),
        GUARDED: lambda: locked_transaction(guarded),
        UNGUARDED: lambda: locked_transaction(unguarded),
    }


def return_none(*arguments: object) -> None:
    """Return None instead of guarding."""


def differences(batches: dict[str, list[float]]) -> Table:
    """Lay out how much longer one kind of call takes than the other."""
    table = spreads("microseconds more")
    for name, other in COMPARED:
        pairs = zip(batches[name], batches[other], strict=True)
        spread = Spread.of([one - another for one, another in pairs])
        table.add_row(f"{name} - {other}", *spread.cells(1_000_000, 0))
    return table


def tries(update: Callable[[], None]) -> Table:
    """Try to acquire a lock that another thread released in a transaction that is still open."""
    from django_distlock import acquire_lock

    held, over = Event(), Event()

    def hold() -> None:
        with transaction.atomic():
            update()
            lease = acquire_lock("held")
            assert lease
            assert lease.release()
            held.set()
            over.wait()
        connections.close_all()

    thread = Thread(target=hold)
    thread.start()
    held.wait()
    seconds = []
    for _ in range(TRIES):
        started = time.perf_counter()
        assert acquire_lock("held") is None
        seconds.append(time.perf_counter() - started)
    over.set()
    thread.join()
    table = spreads("microseconds of a try while another's transaction holds the lock")
    table.add_row("refused", *Spread.of(seconds).cells(1_000_000, 0))
    table.add_row("the slowest", f"{max(seconds) * 1_000_000:.0f}", "", "")
    return table


if __name__ == "__main__":
    main()

"""What the test kit costs each test: locks in memory, and the guarded end of an atomic block.

See benchmarks.pair for how it is measured. Data and locks are in the memory of this process.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import django
from django.conf import settings
from rich.console import Console

from benchmarks.pair import measure, ratios, times

if TYPE_CHECKING:
    from collections.abc import Callable

LOCK = "acquire + release"
SETTINGS = "override_settings(DISTLOCK=…)"
EMPTY = "override_locks()"
USED = "the same, with a lock"
ATOMIC = "atomic() in a TestCase, unguarded"
GUARDED = "the same, guarded"
RATIOS = [(EMPTY, SETTINGS), (EMPTY, LOCK), (USED, LOCK), (GUARDED, ATOMIC)]

console = Console()


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="default: %(default)s")
    options = parser.parse_args()
    settings.configure(
        DATABASES={
            alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
            for alias in ("default", "unguarded")
        },
        DISTLOCK={"default": {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}},
        INSTALLED_APPS=["django_distlock"],
        USE_TZ=True,
    )
    django.setup()
    measure_in_testcase(options.rounds)


def measure_in_testcase(rounds: int) -> None:
    """Measure inside the transaction of a TestCase."""
    from django.test import TestCase

    class Case(TestCase):
        databases = {"default", "unguarded"}

        def runTest(self) -> None:  # noqa: N802
            batches = measure(make_kinds(), rounds)
            console.print(times(batches), ratios(batches, RATIOS))

    Case.setUpClass()
    Case().debug()
    Case.tearDownClass()


def make_kinds() -> dict[str, Callable[[], None]]:
    """Return what to measure by its name."""
    from django.db import connections, transaction
    from django.test import override_settings

    from django_distlock import acquire_lock
    from django_distlock.test import override_locks

    def lock() -> None:
        lease = acquire_lock("benchmark")
        assert lease
        assert lease.release()

    def override(*, used: bool) -> None:
        with override_locks():
            if used:
                lock()

    def override_setting() -> None:
        with override_settings(DISTLOCK=settings.DISTLOCK):
            pass

    def atomic(using: str) -> None:
        with transaction.atomic(using=using):
            pass

    lock()  # from now on, connections are guarded
    for name in ("savepoint_commit", "savepoint_rollback"):
        del vars(connections["unguarded"])[name]
    return {
        LOCK: lock,
        SETTINGS: override_setting,
        EMPTY: lambda: override(used=False),
        USED: lambda: override(used=True),
        ATOMIC: lambda: atomic("unguarded"),
        GUARDED: lambda: atomic("default"),
    }


if __name__ == "__main__":
    main()

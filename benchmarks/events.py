"""The cost of recording events: acquire and release in a store with "events": True and without.

See benchmarks.pair for how it is measured. The events are written to a SQLite file meanwhile.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management import call_command
from rich.console import Console

from benchmarks import stores
from benchmarks.pair import measure, ratios, times

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = "django_distlock.backends.memory.MemoryBackend"
REDIS = "django_distlock.backends.redis.RedisBackend"
KINDS = {"memory": (MEMORY, {}), "redis": (REDIS, {"cache": "default"})}

console = Console()


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    stores.add_redis_options(parser)
    parser.add_argument("--rounds", type=int, default=60, help="default: %(default)s")
    options = parser.parse_args()
    others = dict(configured())
    with tempfile.TemporaryDirectory() as folder, stores.redis(options, others):
        settings.DATABASES["default"]["NAME"] = str(Path(folder, "events.sqlite3"))
        call_command("migrate", verbosity=0)
        console.print(stores.describe(stores.REDIS))
        pairs: dict[str, Callable[[], None]] = {alias: partial(pair, alias) for alias in others}
        batches = measure(pairs, options.rounds)
        compared = [(f"{name}, events", name) for name in KINDS]
        console.print(times(batches), ratios(batches, compared))
        written()


def configured() -> list[tuple[str, dict[str, Any]]]:
    """Return the stores: each kind with events and without."""
    return [
        (f"{name}{ending}", {"BACKEND": path, "OPTIONS": {**known, "events": bool(ending)}})
        for name, (path, known) in KINDS.items()
        for ending in ("", ", events")
    ]


def pair(alias: str) -> None:
    """Acquire an uncontended lock, and release it."""
    from django_distlock import acquire_lock

    lease = acquire_lock("benchmark", backend=alias)
    assert lease
    assert lease.release()


def written() -> None:
    """Write the rest, and tell how many events there are."""
    from django_distlock.events.writing import writer
    from django_distlock.models import LockEvent

    writer.finish(60)
    console.print(f"{LockEvent.objects.count():,} events were written.")


if __name__ == "__main__":
    main()

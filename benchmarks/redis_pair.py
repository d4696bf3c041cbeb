"""The cost of a lock in Redis: acquire and release against two bare commands and other libraries.

See benchmarks.pair for how it is measured.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks import stores
from benchmarks.contenders import BARE, CONTENDERS, OURS, POTTERY, REDIS_LOCK, REDIS_PY, SHERLOCK
from benchmarks.pair import measure, ratios, times

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.contenders import Acquire

COMPARED = (OURS, BARE, REDIS_PY, REDIS_LOCK, POTTERY, SHERLOCK)

console = Console()


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    stores.add_redis_options(parser)
    parser.add_argument("--rounds", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--libraries", choices=COMPARED, nargs="+", default=COMPARED)
    options = parser.parse_args()
    with stores.redis(options):
        console.print(stores.describe(stores.REDIS))
        pairs: dict[str, Callable[[], None]] = {
            name: partial(pair, CONTENDERS[name]()) for name in options.libraries
        }
        batches = measure(pairs, options.rounds)
    base, *others = batches
    console.print(times(batches), ratios(batches, [(base, other) for other in others]))


def pair(acquire: Acquire) -> None:
    """Acquire an uncontended lock, and release it."""
    release = acquire("benchmark", wait=False)
    release()


if __name__ == "__main__":
    main()

"""Acquire and release in a database whose table of locks is nearly empty, and full."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.contenders import BARE, CONTENDERS, OURS
from benchmarks.every_store import DATABASES
from benchmarks.floors import floor
from benchmarks.released_locks import fill

from .pairs import pair
from .turns import Effort, Kind, figures, repeat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.report.figures import Figure

ROWS = "rows"
SIZES = (10, 1_000, 100_000, 1_000_000)


def measure(stores: Sequence[str], effort: Effort) -> list[Figure]:
    """Measure the pair among ever more rows of released locks, and the bare calls in turns."""
    floors = {store: floor(store) for store in stores if store in DATABASES}
    found = []
    rows = 0
    for size in [size for size in SIZES if size <= effort.most]:
        batches = {}
        for store, bare in floors.items():
            fill(DATABASES[store], rows + 1, size)
            case = f"{size:,} rows"
            batches[Kind(store, OURS, case)] = repeat(partial(pair, CONTENDERS[store]()))
            batches[Kind(store, BARE, case)] = repeat(bare.pair)
        rows = size
        found += figures(ROWS, batches, max(2, effort.rounds // 2))
    return found

"""The renewal of all leases of a process, in one turn of its background thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from unittest import mock

from benchmarks.contenders import OURS
from benchmarks.crews import Crew
from benchmarks.report.figures import Figure

from .contention import MILLISECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.crews import Shared

    from .turns import Effort

RENEWALS = "renewals"
SIZES = (10, 100, 1_000, 10_000)
LASTING = 3600
TIMES = 6
PATIENCE = 120


def measure(stores: Sequence[str], effort: Effort) -> list[Figure]:
    """Measure how long it takes to renew more and more leases.

    In a process that is killed at the end: it would take long to release them all.
    """
    sizes = [size for size in SIZES if size <= effort.most // 100]
    found = []
    with Crew(1) as crew:
        for store in stores:
            ((_, *measured),) = crew.run(PATIENCE, renew_more, store, sizes)
            for size, values in measured:
                found.append(
                    Figure(RENEWALS, store, OURS, f"{size:,} leases", MILLISECONDS, values)
                )
    return found


def renew_more(shared: Shared, store: str, sizes: list[int]) -> list[tuple[int, list[float]]]:
    """Acquire more and more leases; return how long each renewal of all took."""
    from django_distlock import acquire_lock, clocks
    from django_distlock.concurrency.renewal import Renewals
    from django_distlock.leases.owned_lease import OwnedLease

    renewals, now, passed = Renewals(store), clocks.monotonic, 0.0
    leases: list[OwnedLease] = []

    def add() -> None:
        name = f"{len(leases)}collectPayment"
        lease = acquire_lock(name, ttl=LASTING, renew=False, backend=store)
        assert isinstance(lease, OwnedLease)
        leases.append(lease)
        renewals.add(lease)

    def renew_all() -> float:
        nonlocal passed
        passed += LASTING / 2
        started = time.perf_counter()
        renewals.renew_due()
        taken = time.perf_counter() - started
        assert all(lease.remaining > LASTING * 0.9 for lease in leases)
        return 1000 * taken

    found = []
    with mock.patch.object(clocks, "monotonic", lambda: now() + passed):  # noqa: PT008
        for size in (sizes[0], *sizes):  # the first time to warm up
            while len(leases) < size:
                add()
            found.append((size, [renew_all() for _ in range(TIMES)]))
    return found

"""Uncontended acquire and release, and a refused try, of every store and library."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async
from django.db import connections

from benchmarks.contenders import BARE, CONTENDERS, OURS, PEERS, take
from benchmarks.floors import floor

from .turns import Effort, Kind, arepeat, figures, repeat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.contenders import Acquire
    from benchmarks.report.figures import Figure

PAIR, REFUSAL = "pair", "refused try"
SYNC, ASYNC = "sync", "async"
FREE = "free"


def measure(stores: Sequence[str], effort: Effort) -> list[Figure]:
    """Measure the pair in sync and async code, then the refused try."""
    peers = [name for name, store in PEERS.items() if store in stores]
    contenders = {name: CONTENDERS[name]() for name in (*stores, *peers)}
    floors = {store: floor(store) for store in stores}
    loop = asyncio.new_event_loop()
    pairs, refusals = {}, {}
    for store in stores:
        pairs[Kind(store, BARE, SYNC)] = repeat(floors[store].pair)
        refusals[Kind(store, BARE, SYNC)] = repeat(floors[store].refusal)
        for name in (store, *(name for name in peers if PEERS[name] == store)):
            kind = Kind(store, OURS if name == store else name, SYNC)
            pairs[kind] = repeat(partial(pair, contenders[name]))
            refusals[kind] = repeat(partial(be_refused, contenders[name], held(name)))
            if name == store:
                pairs[Kind(store, OURS, ASYNC)] = arepeat(partial(apair, store), loop)
    with ThreadPoolExecutor(1) as other:
        found = figures(PAIR, pairs, effort.rounds)
        releases = [
            # By another thread, whose connections are its own.
            other.submit(take_one, name).result()
            for name in contenders
        ]
        found += figures(REFUSAL, refusals, effort.rounds)
        for release in releases:
            other.submit(release).result()
        other.submit(connections.close_all).result()
    loop.run_until_complete(sync_to_async(connections.close_all)())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    return found


def pair(acquire: Acquire) -> None:
    """Acquire a lock that is free, and release it."""
    take(acquire, FREE, wait=False)()


async def apair(store: str) -> None:
    """Acquire a lock that is free, and release it, in async code."""
    from django_distlock import aacquire_lock

    lease = await aacquire_lock(FREE, backend=store)
    assert lease
    await lease.arelease()


def take_one(name: str) -> Callable[[], object]:
    """Acquire the lock that others are refused."""
    return take(CONTENDERS[name](), held(name), wait=False)


def held(name: str) -> str:
    """Return the semaphore that somebody else holds: some libraries use the same keys."""
    return f"held:{name}"


def be_refused(acquire: Acquire, semaphore: str) -> None:
    """Try to acquire a lock that somebody else holds."""
    assert acquire(semaphore, wait=False) is None

"""Threads in which the calls of async code wait for the store, so that its event loop needn't."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

from .handler import lock_backends
from .transactions import transactions_anywhere

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_cleaning: set[asyncio.Task[None]] = set()
_executors: dict[str, ThreadPoolExecutor] = {}
# A child has none of its parent's threads.
os.register_at_fork(after_in_child=_executors.clear)


def twin_of(sync: Callable[..., Any]) -> Callable[[F], F]:
    """Give the async function the documentation of the sync one."""

    def document(twin: F) -> F:
        twin.__doc__ = sync.__doc__
        return twin

    return document


async def in_thread(
    backend: str, call: Callable[[], T], undo: Callable[[T], object] | None = None
) -> T:
    """Call what asks this store, in a thread. If the task is cancelled meanwhile, `undo` it.

    It is one of the store's own, so that it needn't wait for other sync code, nor the other way
    around. But what may be part of a transaction, or is asked on the caller's connection, belongs
    in the thread that asgiref has for the caller's sync code.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        if outcome.set_running_or_notify_cancel():
            try:
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised by result()
                outcome.set_exception(error)

    if lock_backends[backend].caller() is not None or transactions_anywhere():
        run = sync_to_async(work)
    else:

        def work_and_close() -> None:
            try:
                work()
            finally:
                connections.close_all()  # which receivers of signals may have opened

        run = sync_to_async(work_and_close, thread_sensitive=False, executor=_executor(backend))
    try:
        await run()
    except asyncio.CancelledError:
        if not outcome.cancel():  # it has begun
            cleaning = asyncio.create_task(_clean(backend, outcome, undo))
            _cleaning.add(cleaning)
            cleaning.add_done_callback(_cleaning.discard)
            await asyncio.shield(cleaning)
        raise
    return outcome.result()


async def _clean(backend: str, outcome: Future[T], undo: Callable[[T], object] | None) -> None:
    """Wait for the end of a call that nobody wants any more, and undo what came of it."""
    try:
        result = await asyncio.wrap_future(outcome)
    except Exception:  # noqa: BLE001 - nothing came of it
        return
    if undo is not None:
        await in_thread(backend, lambda: undo(result))


def _executor(backend: str) -> ThreadPoolExecutor:
    found = _executors.get(backend)
    if found is None:
        size = lock_backends[backend].threads
        name = f"django_distlock {backend} async"
        found = _executors.setdefault(backend, ThreadPoolExecutor(size, thread_name_prefix=name))
    return found

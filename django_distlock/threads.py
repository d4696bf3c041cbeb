"""Threads in which the calls of async code wait for the store, so that its event loop needn't."""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

from .borders import Task, continue_in_task
from .handler import lock_backends
from .transactions import transactions_anywhere

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("django_distlock")

_detached: set[Task] = set()
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
    """Call what asks this store, in a thread.

    It is one of the store's own, so that it needn't wait for other sync code, nor the other way
    around. But what may be part of a transaction, or is asked on the caller's connection, belongs
    in the thread that asgiref has for the caller's sync code.

    If the task is cancelled meanwhile, what came of the call is undone; if nothing can `undo` it,
    it is done all the same. The task ends after that, or when it is cancelled again.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        if outcome.set_running_or_notify_cancel():
            try:
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised by result()
                outcome.set_exception(error)

    try:
        if lock_backends[backend].caller() is not None or transactions_anywhere():
            await sync_to_async(work)()
        else:
            await _in_own_thread(backend, work)
    except asyncio.CancelledError:
        never_begun = outcome.cancel()
        if undo is None or not never_begun:
            await asyncio.shield(detach(_finish(backend, call, undo, outcome)))
        raise
    return outcome.result()


def detach(work: Coroutine[Any, Any, object]) -> Task:
    """Let another task go on with what this one does, whether or not that is waited for."""
    task = continue_in_task(work)
    _detached.add(task)
    task.add_done_callback(_detached.discard)
    return task


async def _in_own_thread(backend: str, work: Callable[[], None]) -> None:
    def work_and_close() -> None:
        try:
            work()
        finally:
            connections.close_all()  # which receivers of signals may have opened

    executor = _executors.get(backend)
    if executor is None:
        size = lock_backends[backend].threads
        name = f"django_distlock {backend} async"
        executor = ThreadPoolExecutor(size, thread_name_prefix=name)
        executor = _executors.setdefault(backend, executor)
    await sync_to_async(work_and_close, thread_sensitive=False, executor=executor)()


async def _finish(
    backend: str, call: Callable[[], T], undo: Callable[[T], object] | None, outcome: Future[T]
) -> None:
    """See to what a task that was cancelled began, or must not leave undone."""
    try:
        if outcome.cancelled():
            await in_thread(backend, call)
        else:
            result = await asyncio.wrap_future(outcome)
            if undo is not None:
                await in_thread(backend, lambda: undo(result))
    except Exception:
        logger.exception("A task was cancelled; what it asked a lock's store for failed.")

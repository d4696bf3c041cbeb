"""Threads in which the calls of async code wait for the store, so that its event loop needn't."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from asgiref.sync import sync_to_async
from django.db import connections

from django_distlock.backends.base import TransactionalStore
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.runtime import sync_thread

from .callers import continue_in_task, current_caller
from .sync_transactions import has_open_transaction

T = TypeVar("T")

logger = logging.getLogger("django_distlock")

_detached: set[asyncio.Task[Any]] = set()
executors: dict[str, ThreadPoolExecutor] = {}
"""The threads of each store that async code has asked so, by its alias."""
_own_threads: WeakSet[threading.Thread] = WeakSet()
# A child has none of its parent's threads.
os.register_at_fork(after_in_child=executors.clear)


async def in_thread(
    backend: str, call: Callable[[], T], undo: Callable[[T], object] | None = None
) -> T:
    """Call what asks this store, in a thread.

    It is one of the store's own, so that it needn't wait for other sync code, nor the other way
    around. But what may be part of the caller's transaction, or is asked on his connection, belongs
    in the thread that asgiref has for his sync code.

    If the task is cancelled meanwhile, what came of the call is undone; if nothing can `undo` it,
    it is done all the same. The task ends after that, or when it is cancelled again.
    """
    work = Work(call, undo)
    try:
        await _do(backend, work)
    except asyncio.CancelledError:
        await _cancel(backend, work)
        raise
    except RuntimeError as error:
        if work.outcome.cancel():  # or it would be done later, when a thread can be started
            raise LockBackendUnavailable(
                f"DISTLOCK[{backend!r}]: a thread is needed, but {error}"
            ) from error
        raise
    try:
        return work.outcome.result()
    finally:
        vars(work).clear()  # an error has it in its traceback's frames: no cycle is left


def detach(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Let another task go on with what this one does, whether or not that is waited for."""
    task = continue_in_task(work)
    task.add_done_callback(_detached.discard)
    _detached.add(task)
    return task


class Work(Generic[T]):
    """A call in a thread, for a task that may be cancelled meanwhile."""

    def __init__(self, call: Callable[[], T], undo: Callable[[T], object] | None) -> None:
        self.call = call
        self.undo = undo
        self.outcome: Future[T] = Future()
        self._unsettled = [True]

    def do(self) -> None:
        """Call, and undo it if it has been disowned by then."""
        if not self.outcome.set_running_or_notify_cancel():
            return
        try:
            result = self.call()
            if not self.settle() and self.undo is not None:
                self.undo(result)
        except BaseException as error:  # noqa: BLE001 - raised by outcome.result()
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)

    def do_in_own_thread(self) -> None:
        """Do it, and close what receivers of signals may have opened."""
        try:
            self.do()
        finally:
            connections.close_all()

    def settle(self) -> bool:
        """Say that the outcome is wanted, or that it isn't; False if the opposite has been said."""
        try:
            return self._unsettled.pop()
        except IndexError:
            return False


async def _do(backend: str, work: Work[Any]) -> None:
    current_caller()  # or else the thread could not tell this task from the one that created it
    store = lock_backends[backend]
    on_caller = isinstance(store, TransactionalStore) and store.caller() is not None
    if on_caller or await has_open_transaction():
        await sync_to_async(work.do)()
        return
    executor: ThreadPoolExecutor | None = _executor(backend)
    found = sync_thread()
    if found is None or found.thread in _own_threads:
        executor = None  # a receiver of signals is called, and one of these threads waits for it
    await sync_to_async(work.do_in_own_thread, thread_sensitive=False, executor=executor)()


async def _cancel(backend: str, work: Work[T]) -> None:
    """See to what the work comes to, for a task that is cancelled."""
    call, undo = work.call, work.undo
    try:
        if work.outcome.cancel():  # it has not begun
            if undo is None:
                await asyncio.shield(detach(in_thread(backend, call)))
        elif work.settle() or undo is None:  # it is under way
            await asyncio.shield(asyncio.wrap_future(work.outcome))
        else:
            result = work.outcome.result()
            await asyncio.shield(detach(in_thread(backend, lambda: undo(result))))
    except Exception:
        logger.exception("A task was cancelled; what it asked a lock's store for failed.")


def _executor(backend: str) -> ThreadPoolExecutor:
    found = executors.get(backend)
    if found is None:
        size = lock_backends[backend].threads
        name = f"django_distlock {backend} async"
        made = ThreadPoolExecutor(size, name, lambda: _own_threads.add(threading.current_thread()))
        found = executors.setdefault(backend, made)
    return found

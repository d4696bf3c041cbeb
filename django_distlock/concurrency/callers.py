"""For whom code works: for a thread or a task, on both sides of the borders between sync and async.

asgiref knows who is on the other side of a border, but tells nobody: a context variable goes along,
but a task hands it to its children, too. So three of its methods are wrapped: the call of what
sync_to_async() returns, what runs in its thread, and what runs in the task of an async_to_sync().
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary, ref

from asgiref.sync import AsyncToSync, SyncToAsync

from django_distlock.transactions import note_what_is_left_open

T = TypeVar("T")
Task = asyncio.Task[Any]


class Worker:
    """A thread or a task of this process, with all that works for it on the other side."""

    __slots__ = ("__weakref__", "pid", "registry", "task")

    def __init__(self, task: Task | None) -> None:
        self.pid = os.getpid()
        self.task = None if task is None else ref(task)
        self.registry: Any = None

    def has_ended(self) -> bool:
        """Tell whether it is a task that is done."""
        if self.task is None:
            return False
        task = self.task()
        return task is None or task.done()


class _Thread(threading.local):
    """What this thread is, and for whom it works at the moment."""

    own: Worker | None = None
    served: Worker | None = None


_thread = _Thread()
_of_tasks: WeakKeyDictionary[Task, Worker] = WeakKeyDictionary()
# Weakly, since a task's children have it in their contexts as long as they live.
_caller: ContextVar[ref[Worker]] = ContextVar("django_distlock_caller")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if there is one."""
    # asyncio.get_running_loop() would raise, which takes longer than all else here.
    return asyncio._get_running_loop()


def running_task() -> Task | None:
    """Return the task that runs in this thread, if there is one."""
    loop = running_loop()
    return None if loop is None else asyncio.current_task(loop)


def current_worker() -> Worker:
    """Return for whom this code works: on the other side of a border, for who crossed it."""
    task = running_task()
    if task is None:
        worker = _thread.served or _thread.own
        if worker is None or worker.pid != os.getpid():
            worker = _thread.own = Worker(None)
    else:
        worker = _of_tasks.get(task)
        if worker is None or worker.pid != os.getpid():
            worker = _of_tasks[task] = Worker(task)
    return worker


def sync_thread() -> tuple[int | None, bool]:
    """Return the thread in which asgiref would run the caller's sync code, if it is there yet.

    And whether that waits for the caller, having called async_to_sync() itself.
    """
    waiting = getattr(AsyncToSync.executors, "current", None)
    context = SyncToAsync.thread_sensitive_context.get(None)
    if waiting is None and context is None:
        waiting = AsyncToSync.loop_thread_executors.get(asyncio.get_running_loop())
    if waiting is not None:
        return waiting._work_thread.ident, True
    executor: Any = SyncToAsync.single_thread_executor
    if context is not None:
        executor = SyncToAsync.context_to_thread_executor.get(context)
    return next((thread.ident for thread in getattr(executor, "_threads", ())), None), False


def continue_in_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Return a new task that works for the same thread or task as this one."""
    return asyncio.get_running_loop().create_task(_run_for(current_worker(), work))


async def _run_for(worker: Worker, work: Coroutine[Any, Any, T]) -> T:
    _of_tasks[cast("Task", running_task())] = worker
    return await work


_call = SyncToAsync.__call__
_handle_in_thread = SyncToAsync.thread_handler
_wrap_in_task = AsyncToSync.main_wrap


async def _call_from(self: SyncToAsync[Any, Any], *args: Any, **kwargs: Any) -> Any:
    """Call a thread, with a note of who does."""
    note = partial(_caller.set, ref(current_worker()))
    context = getattr(self, "context", None)  # if somebody else's is given
    note() if context is None else context.run(note)
    return await _call(self, *args, **kwargs)


def _serve(call: Callable[[], T]) -> T:
    """Call, in the thread and the context for it."""
    before, _thread.served = _thread.served, _caller.get()()
    try:
        return call()
    finally:
        _thread.served = before
        note_what_is_left_open()


def _handle_serving(self: SyncToAsync[Any, Any], *args: Any, **kwargs: Any) -> Any:
    """Let asgiref handle in the thread what it is about to call there, its last argument."""
    *others, call = args
    handle: Any = _handle_in_thread
    return handle(self, *others, partial(_serve, call), **kwargs)


def _wrap_for_caller(
    self: AsyncToSync[Any, Any], *args: Any, **kwargs: Any
) -> Coroutine[Any, Any, None]:
    """Return what asgiref is about to await in a task; it asks for that in the calling thread."""
    return _run_for(current_worker(), _wrap_in_task(self, *args, **kwargs))


SyncToAsync.__call__ = _call_from  # type: ignore[method-assign]
SyncToAsync.thread_handler = _handle_serving  # type: ignore[method-assign]
AsyncToSync.main_wrap = _wrap_for_caller  # type: ignore[method-assign]

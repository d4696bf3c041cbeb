"""Whose work it is that runs: a task's or a thread's, on both sides of the borders between the two.

A context variable goes along over both, but a task hands it to its children, too, and so does who
copies a context for a thread. Who is on the other side of a border is known to asgiref alone, so
two of its methods are wrapped: the one that runs in the thread of a sync_to_async(), and the one
that runs in the task of an async_to_sync().
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary, ref

from asgiref.sync import AsyncToSync, SyncToAsync

T = TypeVar("T")
Task = asyncio.Task[Any]
Party = tuple[int, int | ref[Task]]
"""A process, and its thread or task for which the work is done."""

_thread = threading.local()
_callers: WeakKeyDictionary[Task, Party] = WeakKeyDictionary()


def running_task() -> Task | None:
    """Return the task that runs in this thread, if there is one."""
    # Not by current_task() alone: without a loop it raises, which takes longer than all else here.
    loop = asyncio._get_running_loop()
    return None if loop is None else asyncio.current_task(loop)


def current_party() -> Party:
    """Return for whom this work is done: on the other side of a border, for who crossed it."""
    task = running_task()
    if task is not None:
        return _callers.get(task) or (os.getpid(), ref(task))
    party: Party | None = getattr(_thread, "party", None)
    pid = os.getpid()
    if party is not None and party[0] == pid:
        return party
    return pid, threading.get_ident()


def has_ended(party: Party) -> bool:
    """Tell whether it is a task that is done."""
    _, worker = party
    if isinstance(worker, int):
        return False
    task = worker()
    return task is None or task.done()


def continue_in_task(work: Coroutine[Any, Any, object]) -> Task:
    """Return a new task that works for the same thread or task as this one."""
    task = asyncio.get_running_loop().create_task(work)
    _callers[task] = current_party()
    return task


def _work_for(party: Party, handle: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    before = getattr(_thread, "party", None)
    _thread.party = party
    try:
        return handle(*args, **kwargs)
    finally:
        _thread.party = before


async def _run_for(party: Party, wrap: Callable[[], Coroutine[Any, Any, None]]) -> None:
    _callers[cast("Task", running_task())] = party
    await wrap()


_handle_in_thread = SyncToAsync.thread_handler
_wrap_in_task = AsyncToSync.main_wrap


def _thread_handler(self: SyncToAsync[Any, Any]) -> Callable[..., Any]:
    """Return what asgiref is about to call in the thread; it asks for that in the task."""
    return partial(_work_for, current_party(), _handle_in_thread, self)


def _main_wrap(self: AsyncToSync[Any, Any], *args: Any) -> Coroutine[Any, Any, None]:
    """Return what asgiref is about to await in a task; it asks for that in the thread."""
    return _run_for(current_party(), partial(_wrap_in_task, self, *args))


SyncToAsync.thread_handler = property(_thread_handler)  # type: ignore[assignment, method-assign]
AsyncToSync.main_wrap = _main_wrap  # type: ignore[assignment, method-assign]

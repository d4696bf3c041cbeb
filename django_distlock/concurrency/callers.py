"""Track which thread or task owns a lease across sync_to_async() and async_to_sync().

Every task is a caller of its own, and so is every thread. Sync code that a task calls by
sync_to_async() runs for that task, and async code that a thread calls by async_to_sync() for that
thread, or for the task that this runs for.

A context variable names the caller. By itself it proves nothing: asyncio copies it to child tasks,
too, and asyncio.to_thread() to threads. So the other side of a crossing is asked: the task whether
it waits for the call that this thread carries out, or the thread whether it waits for this task.
"""

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, TypeVar, cast
from weakref import WeakKeyDictionary, ref

from django_distlock.runtime import (
    SyncCall,
    Task,
    awaits,
    call_around,
    calls_of_async_to_sync,
    is_async_to_sync,
    running_task,
    stack_of,
    sync_call,
    waiting_thread,
)

T = TypeVar("T")

PAUSES: Final = [0.0001 * 2**number for number in range(10)]
"""Seconds, 0.1 in all, to give a task that has called a thread the time to wait for it."""


class Caller:
    """A thread or a task of this process, on both sides of each crossing."""

    __slots__ = ("__weakref__", "pid", "registry", "task", "tasks", "thread")

    def __init__(self, task: Task | None = None, thread: threading.Thread | None = None) -> None:
        self.pid = os.getpid()
        self.task = None if task is None else ref(task)
        self.thread = None if thread is None else ref(thread)
        self.tasks: set[ref[Task]] = set()
        """All tasks that run for it. Any thread adds one; a WeakSet could not be copied then."""
        self.registry: Any = None

    def has_ended(self) -> bool:
        """Tell whether it is a task that is done."""
        if self.task is None:
            return False
        task = self.task()
        return task is None or task.done()

    def may_wait(self) -> bool:
        """Tell whether it may wait for code, though none of its tasks is seen to wait.

        A thread does so in async_to_sync(). The main thread of a server does not: what it acquired
        before it started the event loop isn't owned by the tasks in there.
        """
        if self.thread is None:
            return not self.has_ended()
        thread = self.thread()
        if thread is None:
            return False
        return thread is waiting_thread() or bool(calls_of_async_to_sync(stack_of(thread)))

    def may_be(self, thread: threading.Thread | None) -> bool:
        """Tell whether it is this thread. If that is None, it may be any, or a task."""
        return thread is None or (self.thread is not None and self.thread() is thread)

    def awaits(self, call: SyncCall) -> bool | None:
        """Tell whether a task that runs for it waits for this call of sync_to_async().

        None: that is not known.
        """
        tasks = [task for task_ref in list(self.tasks) if (task := task_ref())]
        found = [awaits(task, call) for task in tasks]
        return True if True in found else None if None in found or not found else False


class Unclaimed:
    """Names a caller that is not known yet. The first task or thread that may be it claims it.

    If the thread is known, no other one may claim it.
    """

    __slots__ = ("_claimed", "_may_be", "_thread", "_unclaimed")

    def __init__(
        self, caller: Caller, *may_be: type[object], thread: threading.Thread | None = None
    ) -> None:
        self._may_be = may_be
        self._thread = None if thread is None else ref(thread)
        self._claimed = ref(caller)
        self._unclaimed: Caller | None = caller

    def __call__(self) -> Caller | None:
        """Return the caller, which ends with the task or thread that has claimed it."""
        return self._unclaimed or self._claimed()

    def claim_for_task(self, task: Task) -> Caller | None:
        """Return the caller, unless it is a thread, or has been claimed."""
        caller = self._unclaimed
        if caller is None or asyncio.Task not in self._may_be or caller.pid != os.getpid():
            return None
        caller.task, self._unclaimed = ref(task), None
        return caller

    def claim_for_thread(self, thread: threading.Thread) -> Caller | None:
        """Return the caller, unless it is a task or another thread, or has been claimed."""
        caller = self._unclaimed
        if caller is None or threading.Thread not in self._may_be or caller.pid != os.getpid():
            return None
        if self._thread is not None and self._thread() is not thread:
            return None
        caller.thread, self._unclaimed = ref(thread), None
        return caller


class ThisThread(threading.local):
    """The caller that this thread is for code that no task calls."""

    caller: Caller | None = None


this_thread = ThisThread()
_of_tasks: WeakKeyDictionary[Task, Caller] = WeakKeyDictionary()
_of_calls: WeakKeyDictionary[partial[Any], Caller] = WeakKeyDictionary()
# Weakly, since a task's children have it in their contexts as long as they live.
_named: ContextVar[Callable[[], Caller | None]] = ContextVar("django_distlock_caller")


def _no_caller() -> None:
    return


def current_caller() -> Caller:
    """Return the thread or task that this code runs for."""
    task = running_task()
    if task is not None:
        return _caller_of(task)
    caller = _named.get(_no_caller)()
    if caller is None or caller is not this_thread.caller or caller.pid != os.getpid():
        call = sync_call(inspect.currentframe())
        caller = _caller_of_thread() if call is None else _caller_in(call)
    return caller


def _caller_of_thread() -> Caller:
    """Return this thread, as a caller."""
    own = this_thread.caller
    if own is None or own.pid != os.getpid():
        named, thread = _named.get(_no_caller), threading.current_thread()
        claimed = named.claim_for_thread(thread) if isinstance(named, Unclaimed) else None
        own = this_thread.caller = claimed or Caller(thread=thread)
    _named.set(ref(own))
    return own


def _caller_in(call: SyncCall) -> Caller:
    """Return the caller of this call of sync_to_async(), which a thread carries out.

    It stays the caller until the end of the call. The task may end before, by a cancellation, as
    when a client has closed its connection.
    """
    if not isinstance(call.work, partial):
        return _find_caller_in(call)
    caller = _of_calls.get(call.work)
    if caller is None or caller.pid != os.getpid():
        caller = _of_calls[call.work] = _find_caller_in(call)
    return caller


def _find_caller_in(call: SyncCall) -> Caller:
    named = _named_caller()
    is_named = named is not None and named.awaits(call)
    if named is not None and is_named:
        return named
    task = waiting_task(call)
    if task is not None:
        return _caller_of(task)
    if named is None or is_named is False or not named.may_wait():
        named = Caller()
        _named.set(Unclaimed(named, asyncio.Task))
    return named


def _caller_of(task: Task) -> Caller:
    """Return the caller that the task is, or runs for. The current context is a copy of its own."""
    caller = _of_tasks.get(task)
    if caller is None or caller.pid != os.getpid():
        caller = _caller_by_async_to_sync(task) if is_async_to_sync(task) else _new_caller(task)
        set_caller(task, caller)
    return caller


def _new_caller(task: Task) -> Caller:
    named = _named.get(_no_caller)
    claimed = named.claim_for_task(task) if isinstance(named, Unclaimed) else None
    caller = claimed or Caller(task)
    _named.set(ref(caller))
    return caller


def _caller_by_async_to_sync(task: Task) -> Caller:
    """Return the caller of the async_to_sync() that waits for the task."""
    named, (waiting, call) = _named_caller(), call_around(task)
    if call is None:
        if named is None or named.has_ended() or not named.may_be(waiting):
            named = Caller(thread=waiting)
            either = (asyncio.Task, threading.Thread) if waiting is None else (threading.Thread,)
            _named.set(Unclaimed(named, *either, thread=waiting))
        return named
    return _caller_in(call)


def waiting_task(call: SyncCall) -> Task | None:
    """Return the task that waits for this call of sync_to_async(), or None if it can't be told."""
    if call.loop is None:
        return None
    running = asyncio.current_task(call.loop)
    found = next((task for task in asyncio.all_tasks(call.loop) if awaits(task, call)), None)
    if found is None and running is not None:
        # It may be the task that called: this thread can be faster than it.
        for pause in PAUSES:
            if asyncio.current_task(call.loop) is not running:
                break
            time.sleep(pause)
        found = running if awaits(running, call) else None
    return found


def _named_caller() -> Caller | None:
    """Return the caller that the context names, unless that is one of the process that forked."""
    caller = _named.get(_no_caller)()
    return caller if caller is not None and caller.pid == os.getpid() else None


def set_caller(task: Task, caller: Caller) -> None:
    """Record that the task runs for this caller, which may be itself."""
    _of_tasks[task] = caller
    caller.tasks.add(ref(task, caller.tasks.discard))


def continue_in_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Return a new task that runs for the same caller as this code."""
    return asyncio.get_running_loop().create_task(_run_for(current_caller(), work))


async def _run_for(caller: Caller, work: Coroutine[Any, Any, T]) -> T:
    set_caller(cast("Task", running_task()), caller)
    return await work

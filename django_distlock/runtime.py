"""What the process, its server and the versions of libraries allow.

This module alone reads what asyncio, asgiref and Django don't document. Their next release may drop
any of it, so each function says what is done without it.
"""

import asyncio
import sys
import threading
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import Any, Final, NamedTuple

import asgiref.sync
from asgiref.sync import AsyncToSync, SyncToAsync
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import StreamingHttpResponse

Task = asyncio.Task[Any]

_SYNC_TO_ASYNC: Final = SyncToAsync.__call__.__code__
_ASYNC_TO_SYNC: Final = AsyncToSync.__call__.__code__

MARK: Final = "task_context"
"""What asgiref calls the list that it makes for each call of sync_to_async()."""
WORK: Final = "args"  # after the function that runs it in the context
AWAITABLE: Final = "awaitable"
"""The same for the coroutine of each call of async_to_sync()."""
WAITING_FOR_FUTURE: Final = "FutureIter"
"""The type of what asyncio's tasks wait in for a future."""


def read_private(owner: object, name: str, default: Any = None) -> Any:
    """Return an undocumented attribute, or the default where there is none."""
    return getattr(owner, name, default)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if there is one."""
    try:
        # Not asyncio.get_running_loop(): raising takes longer than the rest of a sync call.
        return asyncio._get_running_loop()
    except AttributeError:
        with suppress(RuntimeError):
            return asyncio.get_running_loop()
    return None


def running_task() -> Task | None:
    """Return the task that runs in this thread, if there is one."""
    return None if (loop := running_loop()) is None else asyncio.current_task(loop)


# asgiref


class SyncThread(NamedTuple):
    """The thread in which asgiref runs the thread-sensitive sync code of a task."""

    thread: threading.Thread | None
    """None: asgiref has not started it yet."""
    is_waiting: bool
    """Whether it waits in async_to_sync() for the task."""


def sync_thread() -> SyncThread | None:
    """Return the thread that asgiref runs the running task's sync code in.

    None means that it can't be known here: then ask in that thread, by sync_to_async().
    """
    waiting = waiting_thread()
    if waiting is not None:
        return SyncThread(waiting, is_waiting=True)
    context_variable = read_private(SyncToAsync, "thread_sensitive_context")
    executor = read_private(SyncToAsync, "single_thread_executor")
    of_loops = read_private(AsyncToSync, "loop_thread_executors")
    if context_variable is None or executor is None or of_loops is None:
        return None
    context = context_variable.get(None)
    if context is not None:
        of_contexts = read_private(SyncToAsync, "context_to_thread_executor")
        if of_contexts is None:
            return None
        executor = of_contexts.get(context)
    elif (loop := running_loop()) in of_loops:
        waiting = read_private(of_loops[loop], "_work_thread")
        return waiting and SyncThread(waiting, is_waiting=True)
    if executor is None:
        return SyncThread(None, is_waiting=False)
    threads = read_private(executor, "_threads")
    return None if threads is None else SyncThread(next(iter(threads), None), is_waiting=False)


def waiting_thread() -> threading.Thread | None:
    """Return the thread that waits in async_to_sync() for this code; None: none, or not known."""
    executors = read_private(AsyncToSync, "executors")
    return read_private(read_private(executors, "current"), "_work_thread")  # type: ignore[no-any-return]


class SyncCall(NamedTuple):
    """One call of sync_to_async(), seen from the thread that carries it out."""

    loop: asyncio.AbstractEventLoop | None = None
    mark: object = None
    """A list that asgiref makes for each call. None: not known."""
    work: object = None
    """The partial function that it makes for each call."""


def sync_call(stack: FrameType | None) -> SyncCall | None:
    """Return the call of sync_to_async() that this stack is in, if any."""
    if stack is None:
        return SyncCall()  # where Python has no frames to look at
    found = False
    while stack is not None:
        if stack.f_globals is vars(asgiref.sync) and stack.f_code is not _ASYNC_TO_SYNC:
            if {"loop", MARK} <= {*stack.f_code.co_varnames}:
                names = stack.f_locals
                return SyncCall(names["loop"], names[MARK], next(iter(names.get(WORK, ())), None))
            found = True
        stack = stack.f_back
    return SyncCall() if found else None


def stack_of(thread: threading.Thread) -> FrameType | None:
    """Return the innermost frame of another thread, or None where that can't be known."""
    return read_private(sys, "_current_frames", dict)().get(thread.ident)  # type: ignore[no-any-return]


def awaits(task: Task, call: SyncCall) -> bool | None:
    """Tell whether the task waits for this call of sync_to_async(). None: not known.

    As when it waits for it in an async generator, into which nobody can look.
    """
    awaited: Any = task.get_coro()
    while (code := getattr(awaited, "cr_code", None)) is not _SYNC_TO_ASYNC:
        if type(awaited).__name__ == WAITING_FOR_FUTURE:
            return False
        awaited = getattr(awaited, "gi_yieldfrom" if code is None else "cr_await", None)
        if awaited is None:
            return None
    mark = _local(awaited.cr_frame, MARK)
    return None if mark is None or call.mark is None else mark is call.mark


def calls_of_async_to_sync(stack: FrameType | None) -> list[FrameType]:
    """Return the calls of async_to_sync() on this stack, the innermost first."""
    found = []
    while stack is not None:
        if stack.f_code is _ASYNC_TO_SYNC:
            found.append(stack)
        stack = stack.f_back
    return found


def call_around(task: Task) -> tuple[threading.Thread | None, SyncCall | None]:
    """Return the thread that waits in async_to_sync() for the task, and which call it carries out.

    (None, None) where that can't be seen, unless the task is the running one.
    """
    root: Any = task.get_coro()
    stacks = read_private(sys, "_current_frames", dict)()
    for thread in threading.enumerate():
        for frame in calls_of_async_to_sync(stacks.get(thread.ident)):
            awaited = _local(frame, AWAITABLE)
            # In an event loop of its own, the task's root is a coroutine around that.
            if awaited is not None and awaited in (root, _local(root.cr_frame, AWAITABLE)):
                return thread, frame.f_back and sync_call(frame.f_back)
    waiting = waiting_thread() if task is running_task() else None
    return waiting, None if waiting is None else sync_call(stack_of(waiting))


def _local(frame: FrameType | None, name: str) -> Any:
    return None if frame is None else frame.f_locals.get(name)


def is_async_to_sync(task: Task) -> bool:
    """Tell whether async_to_sync() made this task, for the thread that waits for it."""
    code = getattr(task.get_coro(), "cr_code", None)
    # A task may also be nothing but a call of sync_to_async().
    return (
        code is not None
        and code.co_filename == _ASYNC_TO_SYNC.co_filename
        and code is not _SYNC_TO_ASYNC
    )


def current_asgi_request() -> object | None:
    """Return what Django keeps for as long as it handles this request, if that is by ASGI.

    None where that can't be known: leases then end with the task or thread, not with the request.
    """
    variable = read_private(SyncToAsync, "thread_sensitive_context")
    return None if variable is None else variable.get(None)


# Django


def is_in_testcase(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether a TestCase has the connection in a transaction that it will roll back.

    Where Django doesn't say so, an atomic block inside that transaction hides it.
    """
    blocks = read_private(connection, "atomic_blocks")
    marks = [None] if blocks is None else [read_private(each, "_from_testcase") for each in blocks]
    if None in marks:
        return connection.in_atomic_block and may_be_durable(connection)
    return any(marks)


def may_be_durable(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether Django allows a durable block: not inside another one but a TestCase's own."""
    try:
        with transaction.atomic(using=connection.alias, savepoint=False, durable=True):
            return connection is connections[connection.alias]
    except RuntimeError:
        return False


def is_closed_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the connection was closed inside an atomic block, which ends its transaction.

    Where Django doesn't say so, the database is asked whether it can be reached. One that can't
    commit any more, after an error, counts as closed then.
    """
    closed: bool | None = read_private(connection, "closed_in_transaction")
    return connection.needs_rollback and not connection.is_usable() if closed is None else closed


def commits_on_exit(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the outermost atomic block commits at its end: it began with autocommit on.

    Where Django doesn't say so, the setting counts, and set_autocommit() isn't seen.
    """
    default = connection.settings_dict["AUTOCOMMIT"]
    return bool(read_private(connection, "commit_on_exit", default))


def is_in_savepoint(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether an atomic block inside the outermost one may roll back by itself.

    Where Django doesn't say so, one may.
    """
    return bool(read_private(connection, "savepoint_ids", default=True))


def call_first_on_commit(connection: BaseDatabaseWrapper, callback: Callable[[], object]) -> bool:
    """Call this before everything given to on_commit(), whichever savepoint is rolled back.

    False where Django doesn't allow it. Then call on_commit(), and again for each savepoint that
    is rolled back; errors of others may come first.
    """
    callbacks: list[Any] | None = read_private(connection, "run_on_commit")
    if callbacks is None:
        return False
    callbacks.insert(0, (set(), callback, False))
    return True


def transaction_key(connection: BaseDatabaseWrapper) -> object:
    """Return a key of the open transaction, which the next one doesn't have: its outermost block.

    Where Django doesn't say so, the connection: what is known of one transaction is then believed
    of the next, too.
    """
    return next(iter(read_private(connection, "atomic_blocks", ())), connection)


def streamed_content(response: StreamingHttpResponse) -> Iterable[Any] | AsyncIterable[Any]:
    """Return the content as the view gave it, so that its own aclose() can be called.

    Where Django doesn't say so, it is wrapped in a generator, which closes it some time later.
    """
    content: Iterable[Any] | AsyncIterable[Any] | None = read_private(response, "_iterator")
    return response.streaming_content if content is None else content


def atomic_exemptions(view: Callable[..., Any]) -> set[str] | None:
    """Return the databases that non_atomic_requests() exempts the view from ATOMIC_REQUESTS for.

    None where Django doesn't say so. Then it opens its transaction around a locked view, and the
    release waits for the end of that.
    """
    exempt: set[str] | None = read_private(view, "_non_atomic_requests")
    if exempt is None and read_private(_exempt, "_non_atomic_requests") is not None:
        return set()
    return exempt


@transaction.non_atomic_requests
def _exempt() -> None:
    """Show where Django keeps a view's exemptions."""


def set_atomic_exemptions(view: Callable[..., Any], exempt: set[str]) -> None:
    """Exempt the view from ATOMIC_REQUESTS for these databases."""
    vars(view)["_non_atomic_requests"] = exempt

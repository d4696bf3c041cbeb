"""A call is made while its lock is held, in sync code and in async.

Both are written out: a coroutine shared by both would call the user's sync function, but can't pass
on its StopIteration (PEP 479). What neither has to wait for is in Call.
"""

import inspect
from contextlib import suppress
from typing import Any

from asgiref.sync import sync_to_async

from django_distlock.exceptions import LockLost
from django_distlock.leases.block_release import (
    arelease_block,
    end_interrupted_block,
    release_block,
)
from django_distlock.leases.commit_guard import guard
from django_distlock.leases.owned_lease import OwnedLease
from django_distlock.leases.registry import current_registry
from django_distlock.locks.api import aacquire, acquire
from django_distlock.locks.undo import aundo, undo
from django_distlock.transactions import undoable_transactions

from .atomic_requests import request_transactions
from .calls import Call
from .decorable import refuse_lazy_result
from .streaming import release_when_closed


def run(call: Call) -> Any:
    """Call the function while holding its lock, or answer why not."""
    acquisition = None
    try:
        semaphore = call.semaphore()
        call.read_body()
        acquisition = call.locked.new_acquisition(semaphore)
        lease = acquire(acquisition)
    except BaseException as error:
        if acquisition is not None:
            undo(acquisition)
        if not call.answers_refusal(error):
            raise
        return call.refusal(error)
    if lease is None:
        call.log_skipped(acquisition)
        if on_conflict := call.locked.on_conflict:
            return refuse_coroutine(call.conflict(on_conflict), on_conflict)
        if not call.responds():
            raise acquisition.contention()
        return call.contended(acquisition)
    try:
        return _hold(call, lease)
    except LockLost as error:
        if not call.answers_loss(error, lease):
            raise
        return call.refusal(error)


def refuse_coroutine(answer: Any, on_conflict: object) -> Any:
    """Return the answer; TypeError if nobody would await it."""
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError(
            f"on_conflict, {on_conflict!r}, is async, but the locked function is not: give a sync "
            "function."
        )
    return answer


async def arun(call: Call) -> Any:
    """See run(). An answer is made in a thread, since it may need the database."""
    acquisition = None
    try:
        semaphore = await call.asemaphore()
        await call.aread_body()
        acquisition = call.locked.new_acquisition(semaphore)
        lease = await aacquire(acquisition)
    except BaseException as error:
        if acquisition is not None:
            await aundo(acquisition, error)
        if not call.answers_refusal(error):
            raise
        return await sync_to_async(call.refusal)(error)
    if lease is None:
        call.log_skipped(acquisition)
        if on_conflict := call.locked.on_conflict:
            answer = call.conflict(on_conflict)
            return await answer if inspect.isawaitable(answer) else answer
        if not call.responds():
            raise acquisition.contention()
        return await sync_to_async(call.contended)(acquisition)
    try:
        return await _ahold(call, lease)
    except LockLost as error:
        if not call.answers_loss(error, lease):
            raise
        return await sync_to_async(call.refusal)(error)


def _hold(call: Call, lease: OwnedLease) -> Any:
    """Call the function under the lock, and release it.

    If the view's response is the answer, a loss of the lock that comes too late to undo anything
    does not replace it.
    """
    entry = current_registry().enter_block(lease)
    try:
        try:
            result = _call_in_transactions(call, lease)
        except BaseException:
            entry.exit()
            release_block(lease, failed=True)
            raise
        entry.exit()
        if not release_when_closed(result, lease):
            answered = call.answers and not undoable_transactions()
            release_block(lease, failed=False, answered=answered)
        return result
    except BaseException:
        entry.exit()
        end_interrupted_block(entry)
        raise


async def _ahold(call: Call, lease: OwnedLease) -> Any:
    """See _hold(). Django opens no transaction around an async view: its work is kept."""
    entry = current_registry().enter_block(lease)
    try:
        try:
            result = await call()
            refuse_lazy_result(result, call.locked.function)
            if call.request and not lease.released:
                with suppress(LockLost):
                    await lease.acheck()  # logs a loss, and sends its signal
        except BaseException:
            entry.exit()
            await arelease_block(lease, failed=True)
            raise
        entry.exit()
        if not release_when_closed(result, lease):
            await arelease_block(lease, failed=False, answered=call.answers)
        return result
    except BaseException:
        entry.exit()
        end_interrupted_block(entry)
        raise


def _call_in_transactions(call: Call, lease: OwnedLease) -> Any:
    """Call the function, inside the transactions that ATOMIC_REQUESTS asks for."""
    function = call.locked.function
    with request_transactions(call.request, function) as opened:
        result = call()
        refuse_lazy_result(result, function)
        if call.request and not lease.released:
            _check(lease, opened=opened)
    return result


def _check(lease: OwnedLease, *, opened: bool) -> None:
    """Report a loss of the lease; raise LockLost if there are transactions left to roll back.

    Django commits its own transactions when it is too late to answer 503. So the question that is
    asked before a commit is asked here, too, unless the store has confirmed the lease just now.
    """
    transactions = undoable_transactions()
    try:
        lease.check()
    except LockLost:
        if opened or transactions:
            raise
    if transactions and not opened and not lease.is_confirmed():
        for connection in transactions:
            if not connection.needs_rollback:
                guard(lease, connection)

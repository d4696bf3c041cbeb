"""Find out whether the sync code of a task has a transaction open.

Then a call to a store belongs in the thread of that sync code: a release waits for the end of the
transaction. It must not go there if the transaction is another task's, whose sync code may be
waiting in that thread for this very lock.
"""

import threading
from weakref import WeakSet

from asgiref.sync import sync_to_async

from django_distlock.runtime import stack_of, sync_call, sync_thread
from django_distlock.transactions import open_in_thread

_left_open: WeakSet[object] = WeakSet()
"""Transactions that were open in a thread between two sync calls: a task keeps them open."""


async def has_open_transaction() -> bool:
    """Tell whether a transaction is open that this task's sync code, or its caller, began.

    Where that can't be seen from here, this waits until the thread can be asked.
    """
    if not open_in_thread():
        return False
    found = sync_thread()
    if found is None:
        return await _ask_in_thread()
    opened = open_in_thread(found.thread.ident) if found.thread is not None else []
    if found.thread is None or not opened:
        return False
    if found.is_waiting:
        return True
    frame = stack_of(found.thread)
    if frame is None or sync_call(frame) is None:
        return await _ask_in_thread()
    # The thread is busy, perhaps with the transaction of another task.
    return any(each in _left_open for each in opened)


async def _ask_in_thread() -> bool:
    return await sync_to_async(_find_left_open)()


def _find_left_open() -> bool:
    """Tell whether a transaction is open in this thread, which has just begun a sync call."""
    opened = open_in_thread(threading.get_ident())
    _left_open.update(opened)
    return bool(opened)

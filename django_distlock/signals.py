"""What happens to locks, for receivers of this process.

Each is sent in the thread that notices, `lock_lost` often by the one that renews leases: a receiver
that takes long holds that up. What a receiver raises is logged, and breaks nothing. The `sender` is
the class Lease.
"""

import threading
from typing import Any

from django.dispatch import Signal


class ReentrantSignal(Signal):
    """A signal that may be sent while this thread is about to send it.

    A handler of the process's signals may release a lock, and so may the garbage collector: the
    thread would wait for Django's own `lock`, which it has itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lock: Any = threading.RLock()


lock_acquired = ReentrantSignal()
"""`lease`: it has just been granted."""

lock_contended = ReentrantSignal()
"""`semaphore`, `backend`: somebody else held it until the timeout."""

lock_released = ReentrantSignal()
"""`lease`: its holder has given it back; if that waited for transactions, they have ended."""

lock_lost = ReentrantSignal()
"""`lease`, `reason`: it turned out not to be ours any more. Sent once for each lease."""

lock_force_released = ReentrantSignal()
"""`semaphore`, `backend`, `token`: an operator took it from its holder, in this process."""

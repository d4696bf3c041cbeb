"""Signals for receivers in this process; the `sender` is the class Lease or that of the store.

Each signal is sent in the thread that notices the event. For `lock_lost` that is often the thread
that renews all leases, so a slow receiver delays renewals. An error in a receiver is logged, and
affects nothing else.
"""

import threading
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal


class ReentrantSignal(Signal):
    """A signal that can be sent while the same thread is sending it.

    A handler of an operating-system signal, or the garbage collector, may release a lock at any
    point. The thread would wait for Django's `lock`, which it holds itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lock: Any = threading.RLock()
        self.recorders: tuple[Callable[..., object], ...] = ()
        """Called before the receivers, in an event loop, too. They neither wait nor raise."""

    @property
    def is_heard(self) -> bool:
        """Whether anything would be called."""
        return bool(self.receivers or self.recorders)

    def record(self, recorder: Callable[..., object]) -> None:
        """Call the recorder from now on, too."""
        self.recorders = (*self.recorders, recorder)

    def stop_recording(self, recorder: Callable[..., object]) -> None:
        """Stop calling the recorder."""
        self.recorders = tuple(each for each in self.recorders if each != recorder)

    def send_robust(self, sender: Any, **named: Any) -> list[tuple[Any, Any]]:
        for record in self.recorders:
            record(**named)
        return super().send_robust(sender, **named)

    async def asend_robust(self, sender: Any, **named: Any) -> list[tuple[Any, Any]]:
        for record in self.recorders:
            record(**named)
        return await super().asend_robust(sender, **named)


lock_acquired = ReentrantSignal()
"""`lease`, which was granted; `waited`, the seconds from the call until the grant; `template`.

`template`, here and below, is what a decorated function's semaphore was made by: the text of
`@distributed_lock("…")`, or the name of its callable. It is empty for other acquisitions.
"""

lock_contended = ReentrantSignal()
"""`semaphore`, `backend`, `template`: another holder had it until the timeout, or it is paused.

`waited`: the seconds from the call until then. `holder`, `reason`: what the store told with its
last refusal; None or an empty text if it told nothing. `refused`: the one that asked, for people.
"""

lock_released = ReentrantSignal()
"""`lease`, `template`: its holder released it; `held_for`, the seconds from the grant until then.

A deferred release sends it after the transactions' end.
"""

lock_lost = ReentrantSignal()
"""`lease`, `reason`, `held_for`, `template`: the lease was lost. Sent once for each lease."""

lock_force_released = ReentrantSignal()
"""`semaphore`, `backend`, `token`: an operator released the lock by force, in this process.

`by`: the operator, for people; empty if it isn't known.
"""

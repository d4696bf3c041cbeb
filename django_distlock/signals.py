"""Signals for receivers in this process; the `sender` is the class Lease or that of the store.

Each signal is sent in the thread that notices the event. For `lock_lost` that is often the thread
that renews all leases, so a slow receiver delays renewals. An error in a receiver is logged, and
affects nothing else.
"""

import threading
from typing import TYPE_CHECKING, Any

from django.dispatch import Signal

if TYPE_CHECKING:
    from collections.abc import Callable


class ReentrantSignal(Signal):
    """A signal that can be sent while the same thread is sending it.

    A handler of an operating-system signal, or the garbage collector, may release a lock at any
    point. The thread would wait for Django's `lock`, which it holds itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lock: Any = threading.RLock()
        self.recorder: Callable[..., object] | None = None
        """Called before the receivers, in an event loop, too. It neither waits nor raises."""

    @property
    def is_heard(self) -> bool:
        """Whether anything would be called."""
        return bool(self.receivers) or self.recorder is not None

    def send_robust(self, sender: Any, **named: Any) -> list[tuple[Any, Any]]:
        if self.recorder is not None:
            self.recorder(**named)
        return super().send_robust(sender, **named)

    async def asend_robust(self, sender: Any, **named: Any) -> list[tuple[Any, Any]]:
        if self.recorder is not None:
            self.recorder(**named)
        return await super().asend_robust(sender, **named)


lock_acquired = ReentrantSignal()
"""`lease`, which was granted; `waited`, the seconds from the call until the grant."""

lock_contended = ReentrantSignal()
"""`semaphore`, `backend`: another holder had the lock until the timeout, or it is paused.

`waited`: the seconds from the call until then. `holder`, `reason`: what the store told with its
last refusal; None or an empty text if it told nothing. `refused`: the one that asked, for people.
"""

lock_released = ReentrantSignal()
"""`lease`, which its holder released; `held_for`, the seconds from the grant until then.

A deferred release sends it after the transactions' end.
"""

lock_lost = ReentrantSignal()
"""`lease`, `reason`, `held_for`: the lease was lost. Sent once for each lease."""

lock_force_released = ReentrantSignal()
"""`semaphore`, `backend`, `token`: an operator released the lock by force, in this process.

`by`: who did, for people; empty if it isn't known.
"""

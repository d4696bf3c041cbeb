"""Signals about the locks of this process: see docs/reference/signals.md."""

import threading
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal

__all__ = [
    "lock_acquired",
    "lock_contended",
    "lock_force_released",
    "lock_lost",
    "lock_released",
    "lock_unavailable",
]


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
"""A lock was granted. Arguments: `lease`, `waited`, `template`."""

lock_contended = ReentrantSignal()
"""An acquisition was refused, after its timeout if it has one.

Arguments: `semaphore`, `backend`, `waited`, `holder`, `reason`, `refused`, `template`.
"""

lock_unavailable = ReentrantSignal()
"""An acquisition failed with LockBackendUnavailable: the store gave no answer, or not in time.

Arguments: `semaphore`, `backend`, `waited`, `error`, `template`.
"""

lock_released = ReentrantSignal()
"""A release was carried out. Arguments: `lease`, `held_for`, `template`."""

lock_lost = ReentrantSignal()
"""A lease was lost. Arguments: `lease`, `reason`, `held_for`, `template`."""

lock_force_released = ReentrantSignal()
"""An operator released a lock by force. Arguments: `semaphore`, `backend`, `token`, `by`."""

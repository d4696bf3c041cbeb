"""One thread of a process, for what must not be done where its occasion arises."""

import logging
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from django.db import connections

logger = logging.getLogger("django_distlock")

IDLE: Final = 10.0
"""Seconds after which the thread ends if no work is expected."""


class Background:
    """A queue of work, and a daemon thread that is there as long as some is expected.

    Where threads can't run, as in uWSGI without --enable-threads, the work is not done.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, as a forked child does: the parent's thread isn't here."""
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._expected: set[object] = set()
        # Reentrant: what is collected in between may leave a locked block that was abandoned.
        self._changing = threading.RLock()
        self.thread: threading.Thread | None = None

    def expect(self, occasion: object) -> None:
        """See to it that the thread is there until the occasion is `over`."""
        with self._changing:
            self._expected.add(occasion)
            if self.thread is None:
                thread = threading.Thread(target=self._run, name="django_distlock", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads, or the interpreter is about to end
                    logger.exception(
                        "Locks that lose their transaction unnoticed end by themselves."
                    )
                else:
                    self.thread = thread

    def over(self, occasion: object) -> None:
        """Expect no more work from this occasion. Safe in a finalizer."""
        self._expected.discard(occasion)

    def do(self, work: Callable[[], None]) -> None:
        """Let the thread do it. Safe in a finalizer: no lock is waited for, no thread started."""
        self._work.put(work)

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=IDLE)
            except Empty:
                with self._changing:
                    if not self._expected:
                        self.thread = None
                        return
                continue
            for step in (work, connections.close_all):
                try:
                    step()
                except Exception:
                    logger.exception("What was left to the background failed.")


background = Background()
os.register_at_fork(after_in_child=background.reset)

"""The loggers: one for each room; of lines that are alike, each writes one a second.

When a store goes down, each of a thousand leases has the same to say at once. The first line is
written at once; after a second, one more says how many others there were, and about which locks.
"""

import atexit
import logging
import os
import threading
from collections import defaultdict
from contextlib import suppress
from functools import partial
from typing import Final

from django_distlock import clocks
from django_distlock.threads import NoThread, start_daemon

INTERVAL: Final = 1.0
"""The shortest time between two lines of one kind, in seconds."""
MOST_REASONS: Final = 5
"""How many reasons make kinds of their own: some never have the same text twice."""
MOST_NAMES: Final = 10
"""How many locks a line names whose own lines were left out."""

Kind = tuple[int, str, str]


def room_logger(room: str) -> logging.Logger:
    """Return the logger `django_distlock.ROOM`, whose lines of one kind are limited."""
    logger = logging.getLogger(f"django_distlock.{room}")
    if not any(isinstance(each, RepeatFilter) for each in logger.filters):
        logger.addFilter(RepeatFilter(logger))
    return logger


class Window:
    """The second after a line, in which lines of its kind are left out."""

    def __init__(self) -> None:
        self.end = clocks.monotonic() + INTERVAL
        self.last: logging.LogRecord | None = None
        self.timer: threading.Timer | None = None
        self._left_out = 0
        self._semaphores: dict[str, None] = {}

    def leave_out(self, record: logging.LogRecord) -> None:
        """Count a line instead of writing it."""
        self.last = record
        self._left_out += 1
        semaphore = getattr(record, "semaphore", None)
        if semaphore is not None and len(self._semaphores) < MOST_NAMES:
            self._semaphores[semaphore] = None

    def complete(self, record: logging.LogRecord) -> None:
        """Make this line tell of those that were left out, of which it may be the last."""
        left_out = self._left_out - (record is self.last)
        vars(record)["left_out"] = left_out
        if not left_out:
            return
        own = getattr(record, "semaphore", None)
        names = ", ".join(repr(each) for each in self._semaphores if each != own)
        text = record.msg if record.args else str(record.msg).replace("%", "%%")
        arguments = record.args if isinstance(record.args, tuple) else ()
        record.msg = f"{text} (%d more lines like this were left out%s)"
        record.args = (*arguments, left_out, names and f": {names}")


class RepeatFilter(logging.Filter):
    """Leaves out a line if one of its kind was written less than a second ago.

    Warnings and errors are of one kind if they have the same text but for its arguments, and the
    same `reason`; other lines, if they have the same text.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger
        self.forget()
        _filters.append(self)

    def cancel(self) -> None:
        """Cancel the threads that would write what was left out."""
        for window in list(self._windows.values()):
            if window.timer is not None:
                window.timer.cancel()

    def forget(self) -> None:
        """Forget all lines."""
        # Reentrant: the garbage collector may run here, and release a lock.
        self._changing = threading.RLock()
        self._windows: dict[Kind, Window] = {}
        self._reasons: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
        self._reviewed_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to write the line now."""
        if hasattr(record, "left_out"):
            return True  # it was left out, and is written by end()
        with self._changing:
            self._review()
            kind = self._kind(record)
            window = self._windows.get(kind)
            if window is not None and clocks.monotonic() < window.end:
                window.leave_out(record)
                if window.timer is None:
                    self._start_timer(kind, window)
                return False
            self._windows[kind] = Window()
            if window is not None and window.last is not None:
                window.complete(record)  # no thread could do it
            return True

    def _start_timer(self, kind: Kind, window: Window) -> None:
        timer = window.timer = threading.Timer(INTERVAL, partial(self.end, kind, window))
        timer.name = f"{self._logger.name} repeats"
        with suppress(NoThread):
            start_daemon(timer)

    def _kind(self, record: logging.LogRecord) -> Kind:
        if record.levelno < logging.WARNING:
            return record.levelno, record.getMessage(), ""
        text, reason = str(record.msg), str(getattr(record, "reason", ""))
        reasons = self._reasons[record.levelno, text]
        if len(reasons) < MOST_REASONS:
            reasons.add(reason)
        return record.levelno, text, reason if reason in reasons else ""

    def _review(self) -> None:
        """Forget the windows that ended long ago, in which nothing was left out."""
        now = clocks.monotonic()
        if not self._reviewed_at <= now < self._reviewed_at + INTERVAL:
            self._reviewed_at = now
            self._reasons.clear()
            for kind, window in list(self._windows.items()):
                if window.last is None and now >= window.end:
                    del self._windows[kind]

    def end(self, kind: Kind, window: Window) -> None:
        """Write the last line that was left out in the window, if any; begin another window."""
        with self._changing:
            record, window_is_open = window.last, self._windows.get(kind) is window
            if record is None or not window_is_open:
                return
            self._windows[kind] = Window()
            window.complete(record)
        self._logger.handle(record)

    def end_all(self) -> None:
        """Write what was left out so far."""
        for kind, window in list(self._windows.items()):
            self.end(kind, window)


_filters: list[RepeatFilter] = []


def clear_repeats() -> None:
    """Forget all lines."""
    for each in _filters:
        each.cancel()
        each.forget()


def _forget_all() -> None:
    """Forget the parent's lines in a forked child.

    Its threads are not there, and one of them may have locked its timer.
    """
    for each in _filters:
        each.forget()


def end_repeats() -> None:
    """Write what was left out so far: the process ends."""
    for each in _filters:
        each.end_all()


atexit.register(end_repeats)
os.register_at_fork(after_in_child=_forget_all)

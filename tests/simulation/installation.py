"""Which names of the package are replaced while universes run, and by what.

What is not in these lists runs as it does in production.
"""

from __future__ import annotations

import gc
import logging
import os
import warnings
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from django.test import override_settings

from django_distlock import clocks, conf, lock_backends, logs
from django_distlock.backends import listening
from django_distlock.backends.server.servers import shared_servers
from django_distlock.backends.sockets import calls, connections, pools
from django_distlock.concurrency import background, callers, process_queue, wakeups
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.leases import request
from django_distlock.leases.process_exit import unreferenced_leases
from django_distlock.locks import waiting
from django_distlock.server import (
    connection,
    restart,
    running,
    saved_state,
    service,
    transitions,
)

from . import threads
from .machines import Machine, Process
from .scheduler import Scheduler
from .sockets import readiness

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PORT: Final = 7433
SECRET: Final = "known to all simulated processes"
PROCESSES: Final = 24
"""How many client processes a universe may have: each has an alias in DISTLOCK of its own."""

Replacement = tuple[object, str, Any]


class ClosedPath:
    """Takes the place of PathLock: a universe runs one server at a time."""

    def __init__(self, path: object) -> None:
        self.path = path

    def close(self) -> None:
        """Do nothing."""


def _uniform(low: float, high: float) -> float:
    return Scheduler.current.random.uniform(low, high)


REPLACED: Final[list[Replacement]] = [
    # Clocks and chance
    (clocks, "monotonic", threads.monotonic),
    *(
        (module, "time", threads.TIME)
        for module in (connection, restart, saved_state, service, transitions)
    ),
    (os, "urandom", threads.urandom),
    (waiting, "random", SimpleNamespace(uniform=_uniform)),
    # Threads
    *(
        (module, "threading", threads.THREADING)
        for module in (background, callers, conf, listening, process_queue, request, wakeups)
    ),
    (callers, "this_thread", threads.CallerOfThread()),
    (calls, "concurrent", threads.CONCURRENT),
    (pools, "ThreadPoolExecutor", threads.Executor),
    # Sockets
    (connections, "readiness", readiness),
    # The holder, as people see it: the real process would differ each time.
    (request, "describe_process", lambda pid: threads.running_process().name),
    # It would leave lines out, and start a real timer to tell how many.
    (logs.RepeatFilter, "filter", lambda self, record: True),
    # The server's requests to its system
    (running, "allow_files", lambda number: None),
    (running, "notify_systemd", lambda state: None),
    (running, "PathLock", ClosedPath),
]
"""For all universes. See Universe for those that differ."""


@contextmanager
def replaced(replacements: Sequence[Replacement]) -> Iterator[None]:
    """Replace these names for the time of the block."""
    earlier = [(owner, name, getattr(owner, name)) for owner, name, _ in replacements]
    try:
        for owner, name, value in replacements:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in earlier:
            setattr(owner, name, value)


def alias_of(number: int) -> str:
    """Return the alias in DISTLOCK of a client process."""
    return f"client{number}"


def forget_processes() -> None:
    """Forget what the package knows of its process: the next universe has other ones."""
    lock_backends.reset()
    process_queue.queues.clear()
    process_queue.recent_handovers.clear()
    background.backgrounds.clear()
    listening.listeners.clear()
    shared_servers.clear()
    unreferenced_leases.clear()
    pools.connecting_threads.cache_clear()


class ErrorLog(logging.Handler):
    """Collects what the package logs as an error: there is nothing to log in a universe."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line, unless it says that the server can't be reached: it often can't."""
        if Scheduler.current.is_over:
            return
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, LockBackendUnavailable):
            self.lines.append(self.format(record))


@contextmanager
def installed() -> Iterator[ErrorLog]:
    """Replace what all universes replace, in this real process."""
    options = {"secret": SECRET}
    aliases = {
        alias_of(number): {
            "BACKEND": "django_distlock.backends.server.ServerBackend",
            # Each has an address of its own, and with it connections and threads of its own.
            "OPTIONS": options | {"address": f"127.0.0.{number + 1}:{PORT}"},
        }
        for number in range(PROCESSES)
    }
    logger, log = logging.getLogger("django_distlock"), ErrorLog()
    level, propagates = logger.level, logger.propagate
    collects = gc.isenabled()
    Scheduler.current = Scheduler("the beginning")
    with (
        warnings.catch_warnings(),
        replaced(REPLACED),
        override_settings(DISTLOCK=aliases),
    ):
        # Of leases and connections that are left when a universe ends.
        warnings.simplefilter("ignore", ResourceWarning)
        logger.addHandler(log)
        logger.setLevel(logging.ERROR)
        logger.propagate = False
        gc.freeze()  # what is there already is not looked at again
        gc.disable()
        try:
            yield log
        finally:
            forget_processes()
            _discard_last_universe()
            gc.unfreeze()
            if collects:
                gc.enable()
            logger.setLevel(level)
            logger.propagate = propagates
            logger.removeHandler(log)
    forget_processes()


def _discard_last_universe() -> None:
    """Let what is left of universes be collected, when no lease is held any more."""
    Scheduler.current = scheduler = Scheduler("the end")
    scheduler.now = 1e9
    with Process("the end", Machine("the end", 0, 0)).as_running():
        gc.collect()

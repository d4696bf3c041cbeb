"""Daemon threads, where there may be no room for another thread."""

import sys
import threading
from typing import Any

from django_distlock.exceptions import LockBackendUnavailable


class NoThread(LockBackendUnavailable):
    """No thread can be started: there are too many, or the interpreter is shutting down."""


def lacks_threads() -> bool:
    """Tell whether uWSGI runs this process without --enable-threads: new threads never run."""
    options: dict[str, Any] = getattr(sys.modules.get("uwsgi"), "opt", {})
    return bool(options) and not {"threads", "enable-threads"} & options.keys()


def start_daemon(thread: threading.Thread) -> None:
    """Start it as a daemon thread; raise NoThread if it can't run."""
    if lacks_threads():
        raise NoThread(f"A thread is needed, but uWSGI lacks --enable-threads: {thread.name}")
    thread.daemon = True
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThread(f"A thread is needed, but {error}: {thread.name}") from error

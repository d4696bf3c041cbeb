"""Threads that a store has in the background, which may be more than there can be."""

import threading
from collections.abc import Callable

from django_distlock.exceptions import LockBackendUnavailable


class NoThread(LockBackendUnavailable):
    """No thread can be started: there are too many, or the interpreter is about to end."""


def start_daemon(target: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemon thread; NoThread if there can be none."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThread(f"A thread is needed, but {error}: {name}") from error
    return thread

"""What one acquisition asks for, and in whose name."""

import os
import socket
import threading
from functools import cache
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.arguments import LONGEST_LABEL, validate_label
from django_distlock.records import Owner
from django_distlock.runtime import running_task


def new_owner() -> Owner:
    """Return an id that nobody can guess, 128 random bits, for one acquisition."""
    return Owner(os.urandom(16).hex())


def describe_holder(label: str = "") -> str:
    """Return who is asking, for people: the label, host, process, and thread or task."""
    asking = running_task()
    name = threading.current_thread().name if asking is None else asking.get_name()
    holder = f"{_process(os.getpid())} {name[:LONGEST_LABEL]}"
    if label := validate_label(label):
        holder = f"{label} ({holder})"
    # Not every store can keep a NUL or a lone surrogate.
    return holder if holder.isprintable() else holder.encode("unicode_escape").decode()


@cache
def _process(pid: int) -> str:
    return f"{socket.gethostname()} pid {pid}"


class Request(NamedTuple):
    """What one acquisition asks a store for, and what is to become of the lease."""

    backend: str
    semaphore: str
    owner: Owner
    ttl: float | None
    holder: str
    renewed: bool
    caller: BaseDatabaseWrapper | None
    min_hold: float
    max_hold: float

    @property
    def token(self) -> None:
        """Say that it isn't known whether anything was granted."""
        return

    @property
    def remaining(self) -> float:
        """Say the same."""
        return 0

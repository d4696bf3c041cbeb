"""The request of one acquisition, and the description of its holder."""

import os
import socket
import threading
from dataclasses import dataclass
from functools import cache

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.arguments import LONGEST_LABEL, printable, validate_label
from django_distlock.records import Owner
from django_distlock.runtime import running_task


def new_owner() -> Owner:
    """Return an id that nobody can guess, 128 random bits, for one acquisition."""
    return Owner(os.urandom(16).hex())


def describe_holder(label: str = "") -> str:
    """Describe the holder for people: the label, host, process, and thread or task."""
    task = running_task()
    name = threading.current_thread().name if task is None else task.get_name()
    holder = f"{describe_process(os.getpid())} {name[:LONGEST_LABEL]}"
    if label := validate_label(label):
        holder = f"{label} ({holder})"
    return printable(holder)  # not every store can keep a NUL or a lone surrogate


@cache
def describe_process(pid: int) -> str:
    """Describe this host and the process."""
    return f"{socket.gethostname()} pid {pid}"


@dataclass(slots=True)
class Request:
    """The request of one acquisition to a store, and the terms of its lease."""

    backend: str
    semaphore: str
    owner: Owner
    began: float
    """When the acquisition began, by the local monotonic clock."""
    ttl: float | None
    holder: str
    min_hold: float
    max_hold: float
    renewed: bool
    """Whether the lease is renewed in the background."""
    template: str
    """What a decorated function's semaphore was made by; empty for other acquisitions."""
    connection: BaseDatabaseWrapper | None
    """That of the caller, if the acquisition is made on it."""

    @property
    def token(self) -> None:
        """None: nothing is granted yet. A request is a claim, too, to undo a lost reply."""
        return

    @property
    def remaining(self) -> float:
        """0: see token."""
        return 0

"""A panel for django-debug-toolbar: the locks of a request."""

import inspect
from collections import OrderedDict
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

from django.db.models import TextChoices
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from django_distlock.clocks import monotonic
from django_distlock.lease import Lease
from django_distlock.locks.acquisition import Acquisition, before_acquisitions
from django_distlock.signals import lock_acquired, lock_contended, lock_lost, lock_released

try:
    from debug_toolbar.panels import Panel
    from debug_toolbar.store import MemoryStore
    from debug_toolbar.utils import get_stack_trace, render_stacktrace
except ImportError as error:
    raise ImportError(
        "LocksPanel needs django-debug-toolbar 6.0 or later: pip install django-debug-toolbar"
    ) from error

__all__ = ["LocksPanel"]

PACKAGE: Final = Path(__file__).parent.parent
CALLERS_OF_VIEWS: Final = {"asgiref", "concurrent", "django", "ninja", "rest_framework"}
"""Packages whose code calls a locked view: none of that is the site's."""
MOST_HELD: Final = 500
"""How many held locks are remembered, since some never end."""


class Outcome(TextChoices):
    """How an acquisition ended, so far."""

    HELD = "held", _("still held")
    RELEASED = "released", _("released")
    RELEASED_LATER = "released_later", _("released after the response")
    CONTENDED = "contended", _("contended")
    LOST = "lost", _("lost")
    LOST_LATER = "lost_later", _("lost after the response")


class Place(NamedTuple):
    """Where a lock was acquired."""

    where: str
    """The file and line in the site's code; empty where the lock is a view's."""
    stack: str
    """As HTML."""


@dataclass(slots=True)
class ShownLock:
    """One acquisition and its outcome. Times are in milliseconds."""

    semaphore: str
    template: str
    backend: str
    outcome: str
    waited: float
    where: str
    stack: str
    granted_at: float = 0
    """By the local monotonic clock, in seconds."""
    held: float | None = None
    token: int | None = None
    holder: str = ""
    """The one that had the lock when it was refused."""
    reason: str = ""


current_panel: ContextVar["LocksPanel | None"] = ContextVar("current_panel", default=None)
"""The panel of the request that this thread or task works for, also across sync_to_async()."""
current_place: ContextVar[Place] = ContextVar("current_place")
"""Where the current acquisition began: a thread that carries it out has another stack."""
held_locks: Final[OrderedDict[tuple[str, str, int | None], tuple["LocksPanel", ShownLock]]] = (
    OrderedDict()
)
"""The locks that panels show as held, by backend, semaphore and token.

Any thread may notice how one ends, also after the response.
"""


class LocksPanel(Panel):
    """A panel that shows the locks that a request acquired, waited for, was refused or lost."""

    is_async = True
    title = _("Locks")
    nav_icon: Any = "django_distlock/lock.svg"
    template = "distlock/debug_toolbar.html"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.locks: list[ShownLock] = []
        self.is_complete = False
        """Whether the response has been made."""

    @classmethod
    def ready(cls) -> None:
        """Listen to this process's locks; panels record those of their requests."""
        if record_acquisition not in lock_acquired.recorders:
            before_acquisitions.append(record_place)
            lock_acquired.record(record_acquisition)
            lock_contended.record(record_contention)
            lock_released.record(record_release)
            lock_lost.record(record_loss)

    def enable_instrumentation(self) -> None:
        """Record what this thread or task does from now on."""
        current_panel.set(self)

    def disable_instrumentation(self) -> None:
        """Record nothing more."""
        current_panel.set(None)

    @property
    def nav_subtitle(self) -> str:
        """The number of acquisitions, and how long they waited."""
        stats = self.get_stats()
        count = len(stats.get("locks", ()))
        return ngettext(
            "%(count)d lock, %(waited)d ms waited",
            "%(count)d locks, %(waited)d ms waited",
            count,
        ) % {"count": count, "waited": round(stats.get("waited", 0))}

    @property
    def content(self) -> str:
        """The panel's HTML, in the language of the page that shows it."""
        stats = self.get_stats()
        locks = [{**lock, "outcome": Outcome(lock["outcome"])} for lock in stats.get("locks", ())]
        return render_to_string(self.template, {**stats, "locks": locks})

    def generate_stats(self, request: HttpRequest, response: HttpResponse) -> None:
        """Store what was recorded, for this response and the history."""
        view = place_of_view(request)
        for lock in self.locks:
            lock.where = lock.where or view
        self.is_complete = True
        self.store_locks()

    def generate_server_timing(self, request: HttpRequest, response: HttpResponse) -> None:
        """Tell the browser's own tools how long the request waited."""
        stats = self.get_stats()
        self.record_server_timing("waited", "Waited for locks", stats["waited"])

    def store_locks(self) -> None:
        """Store the locks as they are now."""
        now = monotonic()
        for lock in self.locks:
            if lock.outcome == Outcome.HELD:
                lock.held = milliseconds(now - lock.granted_at)
        waited = sum(lock.waited for lock in self.locks)
        self.record_stats({"locks": [asdict(lock) for lock in self.locks], "waited": waited})

    def end(self, lock: ShownLock, outcome: Outcome, later: Outcome, held_for: float) -> None:
        """Record how a lock ended.

        After the response, only a store in memory is updated: a release must not wait for a
        database.
        """
        lock.outcome = later if self.is_complete else outcome
        lock.held = milliseconds(held_for)
        store = self.toolbar.store
        is_in_memory = isinstance(store, type) and issubclass(store, MemoryStore)
        if self.is_complete and is_in_memory:
            with suppress(RuntimeError):  # another thread changes the store
                if store.exists(self.toolbar.request_id):
                    self.store_locks()


def recording_panel() -> "LocksPanel | None":
    """Return the current panel until its response is made: a task may outlast its request."""
    panel = current_panel.get()
    return None if panel is None or panel.is_complete else panel


def record_place(_: Acquisition) -> None:
    """Record where an acquisition begins: see before_acquisitions."""
    if recording_panel() is not None:
        current_place.set(Place(place_of_caller(), stack_of_caller()))


def record_acquisition(lease: Lease, waited: float, template: str, **_: Any) -> None:
    """See lock_acquired."""
    if panel := recording_panel():
        lock = add_lock(panel, Outcome.HELD, lease.semaphore, lease.backend, template, waited)
        lock.token, lock.granted_at = lease.token, monotonic()
        held_locks[key_of(lease)] = panel, lock
        while len(held_locks) > MOST_HELD:
            held_locks.popitem(last=False)


def record_contention(
    semaphore: str,
    backend: str,
    template: str,
    waited: float,
    holder: str | None,
    reason: str,
    **_: Any,
) -> None:
    """See lock_contended."""
    if panel := recording_panel():
        lock = add_lock(panel, Outcome.CONTENDED, semaphore, backend, template, waited)
        lock.holder, lock.reason = holder or "", reason


def record_release(lease: Lease, held_for: float, **_: Any) -> None:
    """See lock_released."""
    panel, lock = held_locks.pop(key_of(lease), (None, None))
    if panel and lock:
        panel.end(lock, Outcome.RELEASED, Outcome.RELEASED_LATER, held_for)


def record_loss(lease: Lease, held_for: float, reason: str, **_: Any) -> None:
    """See lock_lost."""
    panel, lock = held_locks.pop(key_of(lease), (None, None))
    if panel and lock:
        lock.reason = reason
        panel.end(lock, Outcome.LOST, Outcome.LOST_LATER, held_for)


def add_lock(
    panel: LocksPanel,
    outcome: Outcome,
    semaphore: str,
    backend: str,
    template: str,
    waited: float,
) -> ShownLock:
    """Add an acquisition to those of the request."""
    place = current_place.get(Place("", ""))
    lock = ShownLock(semaphore, template, backend, outcome, milliseconds(waited), *place)
    panel.locks.append(lock)
    return lock


def key_of(lease: Lease) -> tuple[str, str, int | None]:
    """Return what the lease has in common with one that continues it in a transaction."""
    return lease.backend, lease.semaphore, lease.token


def milliseconds(seconds: float) -> float:
    """Return the seconds in milliseconds, to the microsecond."""
    return round(seconds * 1000, 3)


def place_of_caller() -> str:
    """Return the file and line that called this package; empty for a call of a locked view."""
    frame = inspect.currentframe()
    while frame is not None and package_of(frame) in {"django_distlock", "contextlib"}:
        frame = frame.f_back
    if frame is None or package_of(frame) in CALLERS_OF_VIEWS:
        return ""
    return describe_place(frame.f_code.co_filename, frame.f_lineno)


def package_of(frame: FrameType) -> str:
    """Return the name of the package whose code the frame runs."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def stack_of_caller() -> str:
    """Return the toolbar's HTML for the stack, without the frames of this package."""
    with suppress(Exception):  # a lock doesn't depend on it
        stack = get_stack_trace()
        return render_stacktrace([each for each in stack if PACKAGE not in Path(each[0]).parents])
    return ""


def place_of_view(request: HttpRequest) -> str:
    """Return the file and line of the view that Django called, if that can be told."""
    if match := request.resolver_match:
        view = getattr(match.func, "view_class", inspect.unwrap(match.func))
        with suppress(OSError, TypeError):  # its source isn't known
            return describe_place(inspect.getfile(view), inspect.getsourcelines(view)[1])
    return ""


def describe_place(file: str, line: int) -> str:
    """Return the end of the path, and the line."""
    return f"{'/'.join(Path(file).parts[-2:])}:{line}"

"""Report lost leases to Sentry, and keep semaphores out of what it makes of the log."""

import re
from collections.abc import Iterator
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from django_distlock.lease import Lease
from django_distlock.leases.outcomes import LOSS
from django_distlock.leases.request import Request
from django_distlock.signals import lock_acquired, lock_lost, lock_released

try:
    import sentry_sdk
    from sentry_sdk.integrations import Integration
    from sentry_sdk.integrations.logging import (
        ignore_logger_for_sentry_logs,
        unignore_logger_for_sentry_logs,
    )
    from sentry_sdk.scope import Scope, add_global_event_processor, use_isolation_scope, use_scope
    from sentry_sdk.utils import capture_internal_exceptions
except ImportError as error:
    raise ImportError(
        "DistlockIntegration needs sentry-sdk 2.60 or later: pip install 'sentry-sdk>=2.60'"
    ) from error

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

__all__ = ["DistlockIntegration"]

PACKAGE: Final = "django_distlock."
"""What the names of its modules and of its loggers begin with."""
HIDDEN: Final = "<semaphore>"
QUOTED: Final = re.compile(r"(?<!\w)(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")")
"""A text in quotes, as log lines show semaphores."""
NO_STACK: Final[Any] = {"values": []}
"""Otherwise Sentry may add the stack of the thread that noticed something, with its variables."""

scopes_of_leases: Final[WeakKeyDictionary[Lease, tuple[Scope, Scope]]] = WeakKeyDictionary()
"""Sentry's isolation scope and current scope in which each lease was acquired.

They know its request or job. The thread that notices a loss is often another one.
"""


class DistlockIntegration(Integration):
    """Report each lost lease to Sentry as an error, grouped by the template of its semaphore.

    A semaphore may contain a customer's id. Unless `semaphores` is True, Sentry gets none: neither
    in these errors, nor in lock errors, nor in the package's log lines, which then are no Sentry
    Logs.
    """

    identifier = "django_distlock"

    def __init__(self, *, semaphores: bool = False) -> None:
        self.semaphores = semaphores
        change = unignore_logger_for_sentry_logs if semaphores else ignore_logger_for_sentry_logs
        change(f"{PACKAGE}*")

    @staticmethod
    def setup_once() -> None:
        """Listen to the leases of this process, and to Sentry's events."""
        lock_acquired.record(remember_scopes)
        lock_released.record(forget_scopes)
        lock_lost.record(report_loss)
        add_global_event_processor(process)


def active_integration() -> DistlockIntegration | None:
    """Return the integration of the current client; None if it has none."""
    return sentry_sdk.get_client().get_integration(DistlockIntegration)


def remember_scopes(lease: Lease, **_: Any) -> None:
    """See lock_acquired."""
    if active_integration():
        scopes_of_leases[lease] = sentry_sdk.get_isolation_scope(), sentry_sdk.get_current_scope()


def forget_scopes(lease: Lease, **_: Any) -> None:
    """See lock_released."""
    scopes_of_leases.pop(lease, None)


def report_loss(lease: Lease, reason: str, held_for: float, template: str, **_: Any) -> None:
    """See lock_lost. The event belongs to the request or job that acquired the lease."""
    integration = active_integration()
    if integration is None:
        return
    with capture_internal_exceptions():
        details: dict[str, object] = {
            "template": template,
            "backend": lease.backend,
            "grant": lease.token,  # Sentry hides what is called a token
            "holder": lease.holder,
            "held_for": held_for,
            "reason": reason,
        }
        if integration.semaphores:
            details["semaphore"] = lease.semaphore
        event: Event = {
            "level": "error",
            "message": f"A lease on {template} was lost" if template else "A lease was lost",
            "fingerprint": ["django_distlock.lock_lost", template],
            "tags": {"distlock.template": template, "distlock.backend": lease.backend},
            "contexts": {"distlock": details},
            "threads": NO_STACK,
        }
        here = sentry_sdk.get_isolation_scope(), sentry_sdk.get_current_scope()
        isolation, current = scopes_of_leases.pop(lease, here)
        with use_isolation_scope(isolation), use_scope(current):
            sentry_sdk.capture_event(event)


def process(event: "Event", hint: "Hint") -> "Event | None":
    """Drop the log line of a loss, which has an event already; hide semaphores."""
    integration = active_integration()
    if integration is None:
        return event
    line = hint.get("log_record")
    if line is not None and str(line.msg).startswith(LOSS):
        return None
    if not integration.semaphores:
        hide_in_breadcrumbs(event)
        hide_in_event(event, {*semaphores_of(hint)} - {""})
    return event


def hide_in_breadcrumbs(event: Any) -> None:
    """Hide the semaphores of the package's log lines in an event's breadcrumbs."""
    found = event.get("breadcrumbs")
    for crumb in found.get("values", ()) if isinstance(found, dict) else ():
        if str(crumb.get("category")).startswith(PACKAGE):
            crumb.update(hidden(crumb, {crumb.get("data", {}).get("semaphore", "")}, QUOTED))


def hide_in_event(event: Any, semaphores: set[str]) -> None:
    """Hide semaphores in a log line of the package, and these in errors and their frames.

    The frames of this package lose their variables: among them are a call's arguments.
    """
    quoted = re.compile("|".join(re.escape(repr(each)) for each in semaphores) or "(?!)")
    in_line = quoted
    if str(event.get("logger")).startswith(PACKAGE):
        in_line = QUOTED
        event.get("logentry", {}).pop("params", None)
        if "exception" not in event:
            event["threads"] = NO_STACK
    for frame in frames_of(event):
        if str(frame.get("module")).startswith(PACKAGE):
            frame.pop("vars", None)
    for part, pattern in (
        *(("logentry", in_line), ("extra", in_line)),
        *(("exception", quoted), ("threads", quoted)),
    ):
        if part in event:
            event[part] = hidden(event[part], semaphores, pattern)


def frames_of(event: Any) -> Iterator[dict[str, Any]]:
    """Yield the frames of an event's errors and threads."""
    for part in ("exception", "threads"):
        for each in event.get(part, {}).get("values", ()):
            yield from (each.get("stacktrace") or {}).get("frames", ())


def semaphores_of(hint: "Hint") -> Iterator[str]:
    """Yield the semaphores that the log line or the errors of an event are about."""
    if semaphore := getattr(hint.get("log_record"), "semaphore", ""):
        yield semaphore
    for error in errors_of((hint.get("exc_info") or (None, None))[1]):
        for lock in (error, getattr(error, "lease", None)):
            if semaphore := getattr(lock, "semaphore", ""):
                yield semaphore
        yield from semaphores_in_frames(error)


def errors_of(error: BaseException | None) -> list[BaseException]:
    """Return the error, the errors that led to it, and those of groups."""
    found: list[BaseException] = []
    left = [error]
    while left:
        each = left.pop()
        if each is not None and not any(each is one for one in found):
            found.append(each)
            left += [each.__cause__, each.__context__]
            left += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return found


def semaphores_in_frames(error: BaseException) -> Iterator[str]:
    """Yield the semaphores that the frames of this package know: not every error has its own."""
    for frame, _ in walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).startswith(PACKAGE):
            for name, value in frame.f_locals.items():
                if name == "semaphore" and isinstance(value, str):
                    yield value
                elif issubclass(type(value), Lease | Request):
                    yield getattr(value, "semaphore", "")


def hidden(value: Any, semaphores: set[str], quoted: re.Pattern[str]) -> Any:
    """Return the value without these semaphores, and without what is quoted like this."""
    if isinstance(value, dict):
        return {key: hidden(each, semaphores, quoted) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [hidden(each, semaphores, quoted) for each in value]
    if not isinstance(value, str):
        return value
    return HIDDEN if value in semaphores else quoted.sub(HIDDEN, value)

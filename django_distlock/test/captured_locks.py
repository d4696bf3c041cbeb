"""`captured_locks`: what happened to locks during a test, in order."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from django_distlock.lease import Lease
from django_distlock.records import EventKind
from django_distlock.signals import (
    lock_acquired,
    lock_contended,
    lock_force_released,
    lock_lost,
    lock_released,
)

from .watching import Watcher


@dataclass(frozen=True, slots=True, repr=False)
class CapturedEvent:
    """Something that happened to a lock."""

    kind: str
    """`acquired`, `contended`, `released`, `lost` or `force_released`."""
    semaphore: str
    """The name of the lock."""
    backend: str
    """The alias of its store in `DISTLOCK`."""
    template: str = ""
    """The template of a decorated function's semaphore; empty for other acquisitions."""
    token: int | None = None
    """The fencing token; None if there is none."""
    holder: str = ""
    """The holder; for `contended`, the one that had the lock."""
    waited: float | None = None
    """Seconds from the call until the grant or the refusal; None for other kinds."""
    held_for: float | None = None
    """Seconds from the grant until the release or the loss; None for other kinds."""
    reason: str = ""
    """Why it was lost; or why it was refused although nobody held it."""
    by: str = ""
    """The operator of a forced release."""

    def __repr__(self) -> str:
        shown = [f"{self.kind} {self.semaphore!r}"]
        for field in fields(self)[2:]:
            value = getattr(self, field.name)
            if value != field.default and (field.name, value) != ("backend", "default"):
                text = f"{value:.3f}" if isinstance(value, float) else repr(value)
                shown.append(f"{field.name}={text}")
        return f"<{' '.join(shown)}>"


class CapturedLocks(list[CapturedEvent]):
    """A list of what happened to locks in any thread or task, in order."""

    @property
    def kinds(self) -> list[str]:
        """The kind of each event."""
        return [event.kind for event in self]

    def of(self, semaphore: str, *, backend: str | None = None) -> "CapturedLocks":
        """Return what happened to this lock, in all stores or in the one that `backend` names."""
        return CapturedLocks(
            event
            for event in self
            if event.semaphore == semaphore and backend in (None, event.backend)
        )


class captured_locks(Watcher):  # noqa: N801 - used like a function, as override_settings is
    """Capture what happens to locks in a block, or in a decorated test.

    It yields a `CapturedLocks`, which grows with each event of any thread or task. As a decorator,
    it passes the list as the argument that `kwarg_name` names, or sets the attribute `attr_name` of
    a `TestCase`. The list keeps no lease alive.
    """

    def __init__(self, attr_name: str | None = None, kwarg_name: str | None = None) -> None:
        super().__init__(attr_name, kwarg_name)
        self._events = CapturedLocks()

    def enable(self) -> CapturedLocks:
        self._events = CapturedLocks()
        for signal, recorder in self._recorders():
            signal.record(recorder)
        return self._events

    def finish(self) -> str:
        for signal, recorder in self._recorders():
            signal.stop_recording(recorder)
        return ""

    def __enter__(self) -> CapturedLocks:  # type: ignore[override] # the base's is of its subclass
        return self.enable()

    async def __aenter__(self) -> CapturedLocks:
        return self.enable()

    def _recorders(self) -> Iterable[tuple[Any, Any]]:
        return (
            (lock_acquired, self._acquired),
            (lock_contended, self._contended),
            (lock_released, self._released),
            (lock_lost, self._lost),
            (lock_force_released, self._force_released),
        )

    def _acquired(self, lease: Lease, waited: float, **_: Any) -> None:
        self._add(EventKind.ACQUIRED, lease, waited=waited)

    def _contended(
        self,
        semaphore: str,
        backend: str,
        template: str,
        waited: float,
        holder: str | None,
        reason: str,
        **_: Any,
    ) -> None:
        kind = EventKind.CONTENDED.value
        self._events.append(
            CapturedEvent(
                kind,
                semaphore,
                backend,
                template,
                holder=holder or "",
                waited=waited,
                reason=reason,
            )
        )

    def _released(self, lease: Lease, held_for: float, **_: Any) -> None:
        self._add(EventKind.RELEASED, lease, held_for=held_for)

    def _lost(self, lease: Lease, held_for: float, reason: str, **_: Any) -> None:
        self._add(EventKind.LOST, lease, held_for=held_for, reason=reason)

    def _force_released(
        self, semaphore: str, backend: str, token: int | None, by: str, **_: Any
    ) -> None:
        kind = EventKind.FORCE_RELEASED.value
        self._events.append(CapturedEvent(kind, semaphore, backend, token=token, by=by))

    def _add(self, kind: EventKind, lease: Lease, **more: Any) -> None:
        self._events.append(
            CapturedEvent(
                kind.value,
                lease.semaphore,
                lease.backend,
                lease.template,
                lease.token,
                lease.holder,
                **more,
            )
        )

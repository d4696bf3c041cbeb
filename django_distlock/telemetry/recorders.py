"""Recorders of the signals about locks, and how they turn them into measurements."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.conf import settings

from django_distlock import signals
from django_distlock.conf import lock_backends
from django_distlock.lease import Lease
from django_distlock.logs import room_logger

from .measures import FORCE_RELEASED, LOST, MEASURES, UNAVAILABLE, Measure

logger = room_logger("telemetry")

TemplateOf = Callable[[str], str]
"""Return a template for the semaphore of acquire_lock() or of a block."""
Record = Callable[[float], object]
"""Add to a counter, or record the value of a histogram."""


class _Thread(threading.local):
    """The state of recording in this thread."""

    is_recording = False

    def __init__(self) -> None:
        self.postponed: list[Callable[[], None]] = []


_thread = _Thread()


def in_turn(record: Callable[..., None]) -> Callable[..., None]:
    """Return a recorder that can be interrupted by itself, and whose errors are logged.

    A finalizer or a handler of an operating-system signal may release a lock while this thread is
    in an exporter, which holds locks that are not reentrant. So the inner call waits for the outer.
    """

    def record_in_turn(**arguments: Any) -> None:
        if _thread.is_recording:
            _thread.postponed.append(lambda: record(**arguments))
            return
        _thread.is_recording = True
        try:
            record(**arguments)
            for record_postponed in [*_thread.postponed]:
                record_postponed()
        except Exception as error:
            logger.warning(
                "Telemetry can't be recorded: %s",
                error,
                exc_info=True,
                extra={"reason": str(error)},
            )
        finally:
            # An exporter that acquires locks itself would go on postponing: drop the rest.
            _thread.postponed.clear()
            _thread.is_recording = False

    return record_in_turn


@contextmanager
def postponing() -> Iterator[None]:
    """Record what happens in this thread during the block after it."""
    _thread.is_recording = True
    try:
        yield
    finally:
        _thread.is_recording = False
    in_turn(lambda: None)()


class LockTelemetry:
    """Recorders of the signals about locks, which are switched on and off together."""

    def __init__(self, template_of: TemplateOf | None) -> None:
        self._template_of = template_of
        self._recorders = {
            signals.lock_acquired: in_turn(self.record_acquisition),
            signals.lock_contended: in_turn(self.record_contention),
            signals.lock_unavailable: in_turn(self.record_outage),
            signals.lock_released: in_turn(self.record_release),
            signals.lock_lost: in_turn(self.record_loss),
            signals.lock_force_released: in_turn(self.record_forced_release),
        }

    def start(self) -> None:
        """Record from now on."""
        for signal, recorder in self._recorders.items():
            signal.record(recorder)

    def stop(self) -> None:
        """Stop recording."""
        for signal, recorder in self._recorders.items():
            signal.stop_recording(recorder)

    def find_template(self, template: str, semaphore: str) -> str:
        """Return the template, or the one that the site gives for the semaphore."""
        if template or self._template_of is None:
            return template
        try:
            return self._template_of(semaphore) or ""
        except Exception as error:
            logger.warning(
                "A semaphore's template can't be found: %s",
                error,
                exc_info=True,
                extra={"reason": str(error)},
            )
            return ""

    def record_acquisition(self, lease: Lease, waited: float, template: str, **_: Any) -> None:
        """See lock_acquired."""
        raise NotImplementedError

    def record_contention(
        self, semaphore: str, backend: str, waited: float, template: str, **_: Any
    ) -> None:
        """See lock_contended."""
        raise NotImplementedError

    def record_outage(self, semaphore: str, backend: str, template: str, **_: Any) -> None:
        """See lock_unavailable."""

    def record_release(self, lease: Lease, held_for: float, template: str, **_: Any) -> None:
        """See lock_released."""
        raise NotImplementedError

    def record_loss(
        self, lease: Lease, reason: str, held_for: float, template: str, **_: Any
    ) -> None:
        """See lock_lost."""
        raise NotImplementedError

    def record_forced_release(self, semaphore: str, backend: str, **_: Any) -> None:
        """See lock_force_released."""


class Series(NamedTuple):
    """Where the numbers of one template and store are recorded."""

    attempts: Record
    contended: Record
    unavailable: Record
    lost: Record
    force_released: Record
    wait: Record
    hold: Record


class LockMetrics(LockTelemetry):
    """Turns signals into metrics.

    `bind(measure, template, backend)` returns what records a number of that measure and labels. It
    is called once for each: a counter should begin at 0 then, so that its first step is seen.
    """

    def __init__(
        self,
        bind: Callable[[Measure, str, str], Record],
        template_of: TemplateOf | None = None,
    ) -> None:
        super().__init__(template_of)
        self._bind = bind
        self._series: dict[tuple[str, str], Series] = {}
        if settings.configured:
            for alias in lock_backends:
                self._begin(alias)

    def _begin(self, backend: str) -> None:
        """Begin at 0 what an alert is to see the first of, though no template is known."""
        for measure in (UNAVAILABLE, LOST, FORCE_RELEASED):
            self._bind(measure, "", backend)

    def record_acquisition(self, lease: Lease, waited: float, template: str, **_: Any) -> None:
        """See lock_acquired."""
        series = self._series_of(template, lease.semaphore, lease.backend)
        series.attempts(1)
        series.wait(waited)

    def record_contention(
        self, semaphore: str, backend: str, waited: float, template: str, **_: Any
    ) -> None:
        """See lock_contended."""
        series = self._series_of(template, semaphore, backend)
        series.attempts(1)
        series.contended(1)
        series.wait(waited)

    def record_outage(self, semaphore: str, backend: str, template: str, **_: Any) -> None:
        """See lock_unavailable."""
        self._series_of(template, semaphore, backend).unavailable(1)

    def record_release(self, lease: Lease, held_for: float, template: str, **_: Any) -> None:
        """See lock_released."""
        self._series_of(template, lease.semaphore, lease.backend).hold(held_for)

    def record_loss(
        self, lease: Lease, reason: str, held_for: float, template: str, **_: Any
    ) -> None:
        """See lock_lost."""
        series = self._series_of(template, lease.semaphore, lease.backend)
        series.lost(1)
        series.hold(held_for)

    def record_forced_release(self, semaphore: str, backend: str, **_: Any) -> None:
        """See lock_force_released."""
        self._series_of("", semaphore, backend).force_released(1)

    def _series_of(self, template: str, semaphore: str, backend: str) -> Series:
        labels = self.find_template(template, semaphore), backend
        found = self._series.get(labels)
        if found is None:
            self._begin(backend)
            found = Series(*(self._bind(measure, *labels) for measure in MEASURES))
            self._series[labels] = found
        return found

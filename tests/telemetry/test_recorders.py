"""The recorders that turn signals into measurements, with an exporter that writes a list."""

from __future__ import annotations

import logging
import signal
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from django.conf import settings

from django_distlock import (
    LockBackendUnavailable,
    distributed_lock,
    lock_backends,
    release_lock,
    skip,
)
from django_distlock.signals import lock_acquired
from django_distlock.telemetry.measures import (
    ATTEMPTS,
    FORCE_RELEASED,
    LOST,
    MEASURES,
    UNAVAILABLE,
)
from django_distlock.telemetry.recorders import LockMetrics
from tests.support.concurrency import elsewhere
from tests.support.holders import acquire, renew_now, take_away

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_distlock.telemetry.measures import Measure
    from django_distlock.telemetry.recorders import Record
    from tests.support.scripted_store import ScriptedBackend

pytestmark = pytest.mark.once

TEMPLATE = "<customer_id>collectPayment"


class Recorded(list[tuple[str, str, str]]):
    """The measures that were recorded, with their labels; and their values."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def bind(self, measure: Measure, template: str, backend: str) -> Record:
        """Return what records a number."""
        return partial(self.add, measure.name.removeprefix("distlock."), template, backend)

    def add(self, name: str, template: str, backend: str, value: float) -> None:
        """Record a number."""
        self.append((name, template, backend))
        self.values.append(value)

    @property
    def names(self) -> list[str]:
        """Return the names alone."""
        return [name for name, *_ in self]


@contextmanager
def recorded(template_of: Callable[[str], str] | None = None) -> Iterator[Recorded]:
    """Record in the block."""
    records = Recorded()
    metrics = LockMetrics(records.bind, template_of)
    metrics.start()
    try:
        yield records
    finally:
        metrics.stop()


def bind_without_space(measure: Measure, template: str, backend: str) -> Record:
    """Fail when the first lock is measured."""
    if measure is ATTEMPTS:
        raise OSError("no space left")
    return lambda value: None


def test_grant_and_release() -> None:
    """An attempt with its wait, then the hold."""
    with recorded() as records:
        lease = acquire("memory")
        lease.release()
    labels = "", "memory"
    assert records == [("attempts", *labels), ("wait", *labels), ("hold", *labels)]
    assert records.values == [1, lease.waited, lease.held_for]


def test_refused_call_has_its_template() -> None:
    """The counters and histograms of a decorated function are those of its template."""

    @distributed_lock(TEMPLATE, backend="memory", on_conflict=skip)
    def collect(customer_id: int) -> None:
        elsewhere(lambda: collect(customer_id))

    with recorded() as records:
        collect(1234)
    assert records.names == ["attempts", "wait", "attempts", "contended", "wait", "hold"]
    assert {(template, backend) for _, template, backend in records} == {(TEMPLATE, "memory")}


def test_outage_is_no_refusal(scripted: ScriptedBackend) -> None:
    """It has a counter of its own, with the template of the function."""
    scripted.answer("acquire", LockBackendUnavailable("down"))

    @distributed_lock(TEMPLATE)
    def collect(customer_id: int) -> None:
        pytest.fail("it was not granted")

    with recorded() as records, pytest.raises(LockBackendUnavailable):
        collect(1234)
    assert records == [("unavailable", TEMPLATE, "default")]


def test_loss_after_a_forced_release() -> None:
    """The operator's act is counted where it was done, the loss where it is noticed."""
    with recorded() as records:
        lease = acquire("memory")
        take_away(lease)
        renew_now(lease)
    assert records.names == ["attempts", "wait", "force_released", "lost", "hold"]


@pytest.mark.parametrize("configured", [True, False])
def test_first_outage_loss_and_forced_release_are_seen(
    configured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their counters begin at 0, if need be with the first lock: settings may come later."""
    monkeypatch.setattr(type(settings), "configured", configured)
    bound = []

    def bind(measure: Measure, template: str, backend: str) -> Record:
        bound.append((measure, template, backend))
        return lambda value: None

    metrics = LockMetrics(bind, lambda semaphore: "job")
    first = UNAVAILABLE, LOST, FORCE_RELEASED
    begun = {(measure, "", alias) for measure in first for alias in lock_backends}
    assert set(bound) == (begun if configured else set())
    metrics.record_contention("1234collectPayment", "memory", 0, "")
    assert {(measure, "", "memory") for measure in first} < {*bound}


def test_nothing_is_recorded_after_the_end() -> None:
    """stop() removes the recorders."""
    with recorded() as records:
        pass
    acquire("memory").release()
    assert records == []


def test_site_names_templates_of_other_semaphores() -> None:
    """Decorated functions keep theirs."""
    with recorded(lambda semaphore: semaphore.lstrip("0123456789")) as records:
        acquire("memory").release()
    assert {template for _, template, _ in records} == {"collectPayment"}


def test_error_in_template_of_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The lock is measured without a template."""

    def fail(semaphore: str) -> str:
        raise LookupError("no such template")

    with recorded(fail) as records:
        acquire("memory").release()
    assert records.names == ["attempts", "wait", "hold"]
    assert {template for _, template, _ in records} == {""}
    assert caplog.messages[0] == "A semaphore's template can't be found: no such template"


def test_error_in_an_exporter_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The lock is acquired and released all the same."""

    metrics = LockMetrics(bind_without_space)
    metrics.start()
    try:
        assert acquire("memory").release()
    finally:
        metrics.stop()
    assert caplog.record_tuples[0] == (
        "django_distlock.telemetry",
        logging.WARNING,
        "Telemetry can't be recorded: no space left",
    )


def test_handler_of_a_signal_may_release_during_a_measurement() -> None:
    """Exporters hold locks that aren't reentrant: the release is recorded after the acquisition."""
    acquire("memory", "another")
    inside = []

    def release(*_: object) -> None:
        inside.append(release_lock("another", backend="memory"))

    def bind(measure: Measure, template: str, backend: str) -> Record:
        def record(value: float) -> None:
            records.append(f"{measure.name} begins")
            if not inside:
                signal.raise_signal(signal.SIGUSR1)
            records.append(f"{measure.name} ends")

        return record

    records: list[str] = []
    metrics = LockMetrics(bind)
    earlier = lock_acquired.recorders
    previous = signal.signal(signal.SIGUSR1, release)
    metrics.start()
    try:
        assert acquire("memory").release()
    finally:
        metrics.stop()
        signal.signal(signal.SIGUSR1, previous)
    assert inside == [True]
    measured = ["distlock.attempts", "distlock.wait", "distlock.hold", "distlock.hold"]
    assert records == [f"{name} {edge}" for name in measured for edge in ("begins", "ends")]
    assert lock_acquired.recorders == earlier


def test_exporter_may_acquire_locks() -> None:
    """Its own are recorded once, rather than without an end."""
    records: list[str] = []

    def bind(measure: Measure, template: str, backend: str) -> Record:
        def record(value: float) -> None:
            records.append(measure.name)
            acquire("memory", "the exporter's").release()

        return record

    metrics = LockMetrics(bind)
    metrics.start()
    try:
        lease = acquire("memory")
        assert Counter(records) == {"distlock.attempts": 3, "distlock.wait": 3, "distlock.hold": 2}
    finally:
        metrics.stop()
    lease.release()


def test_prometheus_names() -> None:
    """As OpenTelemetry's exporter makes them, too."""
    assert [measure.prometheus_name for measure in MEASURES] == [
        "distlock_attempts_total",
        "distlock_contended_total",
        "distlock_unavailable_total",
        "distlock_lost_total",
        "distlock_force_released_total",
        "distlock_wait_seconds",
        "distlock_hold_seconds",
    ]

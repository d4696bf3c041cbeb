"""Spans of OpenTelemetry: what leaves none open, what switches them on, and what may go wrong."""

from __future__ import annotations

import gc
import logging
import os
import weakref
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import NoOpTracerProvider

from django_distlock.concurrency.background import background
from django_distlock.telemetry.opentelemetry import instrument, uninstrument
from tests.support.concurrency import elsewhere
from tests.support.holders import acquire
from tests.telemetry.traces import Traces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Tracer

pytestmark = pytest.mark.once


# Leases and processes that end otherwise


@pytest.mark.filterwarnings("ignore:The lease on:ResourceWarning")
def test_leases_are_not_kept(traces: Traces) -> None:
    """One that nothing references is not renewed any more; its span was never begun."""
    dropped = elsewhere(lambda: weakref.ref(acquire("memory", "dropped")))
    gc.collect()
    assert dropped() is None
    assert len(background("memory").renewals) == 0
    assert traces.names == []


def test_forked_child_makes_no_span_of_its_parents_leases(traces: Traces) -> None:
    """Its own leases have theirs."""
    with traces.site.start_as_current_span("request") as request:
        lease = acquire("memory", "the parent's")
    if not (pid := os.fork()):
        try:
            lease.release()
            acquire("memory").release()
            os._exit(len(traces.spans))
        finally:
            os._exit(100)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert traces.names == []
    lease.release()
    assert traces.names == ["distlock.hold"]
    assert traces.are_below(request)


# Switching it on and off


def test_second_call_replaces_the_first(traces: Traces) -> None:
    """So it does no harm."""
    instrument(tracer_provider=traces.provider)
    acquire("memory").release()
    assert traces.names == ["distlock.hold"]


def test_lease_of_before(traces: Traces) -> None:
    """Its span begins at the grant."""
    uninstrument()
    lease = acquire("memory")
    instrument(tracer_provider=traces.provider)
    lease.release()
    [span] = traces.spans
    assert span.start_time
    assert span.end_time
    assert span.end_time - span.start_time == int(lease.held_for * 1e9)


def test_switched_off(traces: Traces) -> None:
    """Nothing is recorded any more, not even of a lease of before."""
    lease = acquire("memory")
    uninstrument()
    uninstrument()
    lease.release()
    assert traces.names == []


# Errors


class BrokenExporter(SpanExporter):
    """An exporter that fails."""

    def export(self, spans: Sequence[ReadableSpan]) -> Any:
        """Fail."""
        raise OSError("no space left")


class BrokenProvider(NoOpTracerProvider):
    """A provider of tracers that fail."""

    def get_tracer(self, *arguments: Any, **others: Any) -> Tracer:
        """Return a tracer that fails."""
        tracer = super().get_tracer("broken")
        vars(tracer)["start_span"] = lambda *arguments, **others: 1 / 0
        return tracer


@pytest.mark.parametrize("broken", ["exporter", "tracer"])
def test_errors_affect_no_lock(broken: str, caplog: pytest.LogCaptureFixture) -> None:
    """They are logged, by the SDK or by this package."""
    caplog.set_level(logging.WARNING)
    provider: Any = BrokenProvider()
    if broken == "exporter":
        provider = Traces().provider
        provider.add_span_processor(SimpleSpanProcessor(BrokenExporter()))
    instrument(tracer_provider=provider)
    try:
        assert acquire("memory").release()
    finally:
        uninstrument()
    assert caplog.messages

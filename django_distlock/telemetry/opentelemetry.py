"""Metrics and traces of locks by OpenTelemetry: `pip install "django-distlock[opentelemetry]"`.

Only the API is needed here. Until the site sets up the SDK, nothing is recorded.
"""

from functools import partial
from importlib.metadata import version
from typing import Any, Final

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise ImportError(
        'This needs OpenTelemetry: pip install "django-distlock[opentelemetry]".'
    ) from error

from .measures import MEASURES, Kind, Measure
from .recorders import LockMetrics, LockTelemetry, Record, TemplateOf
from .spans import LockSpans

__all__ = ["DistlockInstrumentor", "instrument", "uninstrument"]

SCOPE: Final = "django_distlock"
"""The instrumentation scope of all spans and metrics."""

_running: list[LockTelemetry] = []


def instrument(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    semaphores: bool = False,
    template_of: TemplateOf | None = None,
) -> None:
    """Record metrics and spans of this process's locks. Another call replaces the earlier one.

    - `tracer_provider`, `meter_provider`: where spans and metrics go. By default, to the global
      providers, even if these are set later.
    - `semaphores`: whether spans have the semaphore, which may contain a customer's id.
    - `template_of`: a function that returns the template for a semaphore of `acquire_lock()` or of
      a block. It is called for each event, so it should be quick.
    """
    meter = metrics.get_meter(SCOPE, version("django-distlock"), meter_provider)
    tracer = trace.get_tracer(SCOPE, version("django-distlock"), tracer_provider)
    uninstrument()
    _running.append(LockMetrics(Instruments(meter).bind, template_of))
    _running.append(LockSpans(tracer, semaphores, template_of))
    for each in _running:
        each.start()


def uninstrument() -> None:
    """Stop recording. Locks that are held now get no span for holding them."""
    while _running:
        _running.pop().stop()


class Instruments:
    """The instruments of OpenTelemetry, one for each measure."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._counters: dict[str, metrics.Counter] = {}
        self._histograms: dict[str, metrics.Histogram] = {}
        for name, kind, unit, description, buckets in MEASURES:
            if kind is Kind.COUNTER:
                self._counters[name] = meter.create_counter(name, unit, description)
            else:
                self._histograms[name] = meter.create_histogram(
                    name, unit, description, explicit_bucket_boundaries_advisory=buckets
                )

    def bind(self, measure: Measure, template: str, backend: str) -> Record:
        """Return what records a number of this measure with these labels."""
        attributes = {"template": template, "backend": backend}
        if measure.kind is Kind.HISTOGRAM:
            return partial(self._histograms[measure.name].record, attributes=attributes)
        counter = self._counters[measure.name]
        counter.add(0, attributes)
        return partial(counter.add, attributes=attributes)


class DistlockInstrumentor:
    """The entry point for the command `opentelemetry-instrument`, which calls it at the start."""

    def instrument(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        **_: Any,
    ) -> None:
        """See `instrument()`."""
        instrument(tracer_provider=tracer_provider, meter_provider=meter_provider)

    def uninstrument(self, **_: Any) -> None:
        """See `uninstrument()`."""
        uninstrument()

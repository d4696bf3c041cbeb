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
    """Record metrics and spans of this process's locks from now on.

    Without providers, those that are set globally are used, even if that is done later. Another
    call replaces the earlier one.

    With `semaphores`, spans have the semaphore, which may hold a customer's id. `template_of` names
    the template of a semaphore that was not made by a decorator's template; it is called for each
    event, so it should be quick.
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
    """What `opentelemetry-instrument` finds by an entry point, and calls before Django starts.

    It has the methods of BaseInstrumentor, without its package.
    """

    def instrument(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        **_: Any,
    ) -> None:
        """See instrument()."""
        instrument(tracer_provider=tracer_provider, meter_provider=meter_provider)

    def uninstrument(self, **_: Any) -> None:
        """See uninstrument()."""
        uninstrument()

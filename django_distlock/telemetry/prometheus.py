"""Metrics of locks for Prometheus: `pip install "django-distlock[prometheus]"`."""

from collections.abc import Iterable, Iterator
from typing import Final

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        'This needs prometheus_client: pip install "django-distlock[prometheus]".'
    ) from error

from .measures import LABELS, MEASURES, Kind, Measure
from .recorders import LockMetrics, Record, TemplateOf, postponing

__all__ = ["instrument", "uninstrument"]

_running: Final[list["LockCollector"]] = []


def instrument(
    *, registry: CollectorRegistry = REGISTRY, template_of: TemplateOf | None = None
) -> None:
    """Measure this process's locks. Another call replaces the earlier one.

    - `registry`: where the metrics are registered. With `PROMETHEUS_MULTIPROC_DIR`, the numbers go
      into its files, whatever the registry.
    - `template_of`: a function that returns the template for a semaphore of `acquire_lock()` or of
      a block. It is called for each event, so it should be quick. Each template has series of its
      own, so it should return few.
    """
    uninstrument()
    collector = LockCollector(registry, template_of)
    collector.start()
    _running.append(collector)


def uninstrument() -> None:
    """Stop measuring, and remove the metrics from their registry."""
    while _running:
        _running.pop().stop()


class LockCollector(Collector):
    """The metrics of locks in a registry."""

    def __init__(self, registry: CollectorRegistry, template_of: TemplateOf | None) -> None:
        self._registry = registry
        self._metrics = {measure.name: _metric(measure) for measure in MEASURES}
        self._recorders = LockMetrics(self.bind, template_of)

    def start(self) -> None:
        """Register the metrics, and record."""
        self._registry.register(self)
        self._recorders.start()

    def stop(self) -> None:
        """Stop recording, and unregister the metrics."""
        self._recorders.stop()
        self._registry.unregister(self)

    def bind(self, measure: Measure, template: str, backend: str) -> Record:
        """Return what records a number of this measure with these labels, from 0 on."""
        metric = self._metrics[measure.name].labels(template, backend)
        return metric.inc if isinstance(metric, Counter) else metric.observe

    def describe(self) -> Iterator[Metric]:
        """Tell the registry the names, so that it refuses another metric with one of them."""
        for metric in self._metrics.values():
            yield from metric.describe()

    def collect(self) -> Iterable[Metric]:
        """Return the numbers. Meanwhile this thread holds locks that a recorder needs."""
        with postponing():
            return [found for metric in self._metrics.values() for found in metric.collect()]


def _metric(measure: Measure) -> Counter | Histogram:
    """Return the metric of the measure, which is in no registry by itself."""
    name, description = measure.prometheus_name, measure.description
    if measure.kind is Kind.COUNTER:
        return Counter(name, description, LABELS, registry=None)
    return Histogram(name, description, LABELS, registry=None, buckets=measure.buckets)

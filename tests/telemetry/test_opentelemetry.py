"""The metrics of OpenTelemetry, its exporter for Prometheus, and opentelemetry-instrument."""

from __future__ import annotations

import sys
import tomllib
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader

from django_distlock import acquire_lock, distributed_lock, skip
from django_distlock.signals import lock_acquired, lock_contended, lock_lost, lock_released
from django_distlock.telemetry import opentelemetry
from django_distlock.telemetry.measures import BUCKETS, MEASURES, Kind
from django_distlock.telemetry.opentelemetry import instrument, uninstrument
from tests.support.holders import acquire, renew_now, take_away
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.metrics.export import Metric, MetricReader

pytestmark = pytest.mark.once

TEMPLATE = "<customer_id>collectPayment"


@distributed_lock(TEMPLATE, backend="memory", on_conflict=skip)
def collect(customer_id: int) -> bool:
    """Collect, while others are refused."""
    return acquire_lock(f"{customer_id}collectPayment", backend="memory") is None


@contextmanager
def measuring(reader: MetricReader) -> Iterator[None]:
    """Measure locks in the block."""
    instrument(meter_provider=MeterProvider([reader], shutdown_on_exit=False))
    try:
        yield
    finally:
        uninstrument()


def metrics_in(reader: InMemoryMetricReader) -> dict[str, Metric]:
    """Return the metrics by name."""
    data = reader.get_metrics_data()
    assert data is not None
    [of_resource] = data.resource_metrics
    [of_scope] = of_resource.scope_metrics
    assert of_scope.scope.name == "django_distlock"
    return {metric.name: metric for metric in of_scope.metrics}


def test_metrics_are_those_of_the_table() -> None:
    """With their units, descriptions and buckets."""
    reader = InMemoryMetricReader()
    with measuring(reader):
        assert collect(1234)
        lease = acquire("memory")
        take_away(lease)
        renew_now(lease)
    found = metrics_in(reader)
    assert {*found} == {measure.name for measure in MEASURES}
    for measure in MEASURES:
        metric = found[measure.name]
        assert (metric.unit, metric.description) == (measure.unit, measure.description)
        assert isinstance(metric.data, Histogram) is (measure.kind is Kind.HISTOGRAM)
        if isinstance(metric.data, Histogram):
            assert {tuple(point.explicit_bounds) for point in metric.data.data_points} == {BUCKETS}


def test_numbers_by_template_and_backend() -> None:
    """Counters begin at 0, so that the first loss is a step that an alert sees."""
    reader = InMemoryMetricReader()
    with measuring(reader):
        assert collect(1234)
        assert collect(1235)
        lease = acquire("memory")
        take_away(lease)
        renew_now(lease)
    numbers = {
        (name.removeprefix("distlock."), *sorted((point.attributes or {}).items())): getattr(
            point, "count" if isinstance(metric.data, Histogram) else "value"
        )
        for name, metric in metrics_in(reader).items()
        for point in metric.data.data_points
        if (point.attributes or {})["backend"] == "memory"
    }
    decorated, other = (
        (("backend", "memory"), ("template", template)) for template in (TEMPLATE, "")
    )
    assert numbers == {
        ("attempts", *decorated): 2,
        ("attempts", *other): 3,
        ("contended", *decorated): 0,
        ("contended", *other): 2,
        ("unavailable", *decorated): 0,
        ("unavailable", *other): 0,
        ("lost", *decorated): 0,
        ("lost", *other): 1,
        ("force_released", *decorated): 0,
        ("force_released", *other): 1,
        ("wait", *decorated): 2,
        ("wait", *other): 3,
        ("hold", *decorated): 2,
        ("hold", *other): 1,
    }


def test_names_in_opentelemetrys_exporter_for_prometheus() -> None:
    """They are those of telemetry.prometheus, so one dashboard fits both."""
    exporter = pytest.importorskip("opentelemetry.exporter.prometheus")
    prometheus_client = pytest.importorskip("prometheus_client")
    registry = prometheus_client.CollectorRegistry()
    reader = exporter.PrometheusMetricReader(disable_target_info=True, registry=registry)
    with measuring(reader):
        assert collect(1234)
    names = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in registry.collect()
    }
    assert names == {measure.prometheus_name for measure in MEASURES}
    labels = {"template": TEMPLATE, "backend": "memory"}
    sample = next(
        sample
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "distlock_attempts_total" and labels.items() <= sample.labels.items()
    )
    assert sample.value == 1


def test_opentelemetry_instrument_finds_the_package() -> None:
    """It loads the class of the entry point, and calls instrument() with arguments of its own."""
    distro = pytest.importorskip("opentelemetry.instrumentation.distro")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [(name, path)] = project["entry-points"]["opentelemetry_instrumentor"].items()
    entry_point = EntryPoint(name, path, "opentelemetry_instrumentor")
    recorded = (lock_acquired, lock_contended, lock_released, lock_lost)
    earlier = [len(signal.recorders) for signal in recorded]
    distro.DefaultDistro().load_instrumentor(entry_point, skip_dep_check=True)
    try:
        for signal, before in zip(recorded, earlier, strict=True):
            assert len(signal.recorders) == before + 2  # metrics, and traces
    finally:
        entry_point.load()().uninstrument()
    assert [len(signal.recorders) for signal in recorded] == earlier


def test_without_opentelemetry_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an ImportError, when the site asks for it."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, opentelemetry.__name__)
    with pytest.raises(ImportError, match=r'pip install "django-distlock\[opentelemetry\]"'):
        import_module(opentelemetry.__name__)

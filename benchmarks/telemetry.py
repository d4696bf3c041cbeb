"""The cost of telemetry: acquire and release, measured and traced in several ways, and not at all.

See benchmarks.pair for how it is measured. Spans are made and then dropped; metrics are read by
nobody meanwhile. A recorder by itself is what anything else costs that records the signals.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmarks import stores
from benchmarks.pair import measure, ratios, times

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_distlock.signals import ReentrantSignal

    Recorders = dict[ReentrantSignal, tuple[Callable[..., object], ...]]

MEMORY = {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}
STORES = {"memory": "memory", "Redis": "default"}
WITHOUT = "without"

console = Console()


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    stores.add_redis_options(parser)
    parser.add_argument("--rounds", type=int, default=60, help="default: %(default)s")
    options = parser.parse_args()
    with stores.redis(options, {"memory": MEMORY}):
        console.print(stores.describe(stores.REDIS))
        recorders = {
            WITHOUT: {},
            "1 recorder": recorders_alone(1),
            "2 recorders": recorders_alone(2),
            **made_by_opentelemetry(),
            "Prometheus": made_by_prometheus(),
        }
        pairs: dict[str, Callable[[], None]] = {
            f"{store}, {kind}": partial(pair, alias, of_kind)
            for store, alias in STORES.items()
            for kind, of_kind in recorders.items()
        }
        batches = measure(pairs, options.rounds)
        compared = [
            (f"{store}, {kind}", f"{store}, {WITHOUT}")
            for store in STORES
            for kind in recorders
            if kind != WITHOUT
        ]
        console.print(times(batches), ratios(batches, compared))


def pair(alias: str, recorders: Recorders) -> None:
    """Acquire an uncontended lock and release it, with these recorders."""
    from django_distlock import acquire_lock

    for signal in recorded():
        signal.recorders = recorders.get(signal, ())
    lease = acquire_lock("benchmark", backend=alias)
    assert lease
    assert lease.release()


def recorded() -> tuple[ReentrantSignal, ...]:
    """Return the signals of an uncontended lock."""
    from django_distlock.signals import lock_acquired, lock_released

    return lock_acquired, lock_released


def recorders_alone(number: int) -> Recorders:
    """Return so many recorders that do nothing."""

    def record(**arguments: Any) -> None:
        pass

    return dict.fromkeys(recorded(), number * (record,))


def switched_on(instrument: Callable[[], None], uninstrument: Callable[[], None]) -> Recorders:
    """Return the recorders that are made when telemetry is switched on."""
    instrument()
    recorders = {signal: signal.recorders for signal in recorded()}
    uninstrument()
    return recorders


def made_by_opentelemetry() -> dict[str, Recorders]:
    """Return the recorders of OpenTelemetry, for metrics, traces, and both."""
    from opentelemetry.metrics import NoOpMeterProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
    from opentelemetry.trace import NoOpTracerProvider

    from django_distlock.telemetry.opentelemetry import instrument, uninstrument

    def recorders(tracers: Any, meters: Any) -> Recorders:
        use = partial(instrument, tracer_provider=tracers, meter_provider=meters)
        return switched_on(use, uninstrument)

    def meters() -> MeterProvider:
        return MeterProvider([InMemoryMetricReader()])

    return {
        "OpenTelemetry without the SDK": recorders(NoOpTracerProvider(), NoOpMeterProvider()),
        "OpenTelemetry's metrics": recorders(NoOpTracerProvider(), meters()),
        "its traces": recorders(TracerProvider(), NoOpMeterProvider()),
        "its traces, not sampled": recorders(TracerProvider(ALWAYS_OFF), NoOpMeterProvider()),
        "its metrics and traces": recorders(TracerProvider(), meters()),
    }


def made_by_prometheus() -> Recorders:
    """Return the recorders of prometheus_client's metrics."""
    from prometheus_client import CollectorRegistry

    from django_distlock.telemetry.prometheus import instrument, uninstrument

    return switched_on(partial(instrument, registry=CollectorRegistry()), uninstrument)


if __name__ == "__main__":
    main()

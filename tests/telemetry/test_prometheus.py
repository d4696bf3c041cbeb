"""Metrics of locks in the registries of prometheus_client."""

from __future__ import annotations

import asyncio
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import reload
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from django_distlock import InvalidLockBackend, distributed_lock, skip
from django_distlock.conf import LockBackendHandler
from tests.support.concurrency import elsewhere
from tests.support.holders import acquire, renew_now, take_away
from tests.support.ports import HOST
from tests.support.processes import forked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.test import RequestFactory

prometheus_client = pytest.importorskip("prometheus_client")
pytestmark = pytest.mark.once

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest  # noqa: E402

from django_distlock.telemetry import prometheus  # noqa: E402

TEMPLATE = "<customer_id>collectPayment"


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    """Measure locks in a registry of the test's own."""
    registry = CollectorRegistry()
    prometheus.instrument(registry=registry)
    yield registry
    prometheus.uninstrument()


@distributed_lock(TEMPLATE, backend="memory", on_conflict=skip)
def collect(customer_id: int, then: Callable[[], object] = lambda: None) -> None:
    """Hold the lock, and do something else meanwhile."""
    then()


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """Return the samples but those of buckets and of the time of creation, by name and template."""
    return {
        f"{sample.name} {sample.labels['template']}".strip(): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.labels["backend"] == "memory"
        and not sample.name.endswith(("_bucket", "_created"))
    }


def value(registry: CollectorRegistry, name: str, template: str = TEMPLATE) -> float | None:
    """Return one sample of the store in memory."""
    return registry.get_sample_value(name, {"template": template, "backend": "memory"})


def test_first_call_begins_all_series_of_its_template(registry: CollectorRegistry) -> None:
    """Prometheus sees no increase in a counter that appears with its first loss."""
    collect(1234)
    found = samples(registry)
    assert found.pop(f"distlock_wait_seconds_sum {TEMPLATE}") < 60
    assert found.pop(f"distlock_hold_seconds_sum {TEMPLATE}") < 60
    assert found == {
        "distlock_unavailable_total": 0,
        "distlock_lost_total": 0,
        "distlock_force_released_total": 0,
        f"distlock_attempts_total {TEMPLATE}": 1,
        f"distlock_contended_total {TEMPLATE}": 0,
        f"distlock_unavailable_total {TEMPLATE}": 0,
        f"distlock_lost_total {TEMPLATE}": 0,
        f"distlock_force_released_total {TEMPLATE}": 0,
        f"distlock_wait_seconds_count {TEMPLATE}": 1,
        f"distlock_hold_seconds_count {TEMPLATE}": 1,
    }


def test_refusals_and_losses_are_counted(registry: CollectorRegistry) -> None:
    """A refusal is an attempt, and a lost lease was held for a time."""

    def lose() -> None:
        lease = acquire("memory", "report")
        take_away(lease)
        renew_now(lease)

    collect(1234, lambda: elsewhere(lambda: collect(1234, lose)))
    collect(1234, lose)
    assert value(registry, "distlock_attempts_total") == 3
    assert value(registry, "distlock_contended_total") == 1
    assert value(registry, "distlock_hold_seconds_count") == 2
    assert value(registry, "distlock_lost_total", "") == 1
    assert value(registry, "distlock_force_released_total", "") == 1
    assert value(registry, "distlock_hold_seconds_count", "") == 1


def test_exposition_has_no_semaphore_and_no_secret(registry: CollectorRegistry) -> None:
    """Only the text of the template, escaped as Prometheus asks for."""

    @distributed_lock('"<customer_id>"\\', backend="memory")
    def quote(customer_id: int) -> str:
        lease = acquire("memory", "1234 in a block")
        lease.release()
        return lease.owner

    owner = quote(1234)
    text = generate_latest(registry).decode()
    assert r'distlock_attempts_total{backend="memory",template="\"<customer_id>\"\\"} 1.0' in text
    assert "1234" not in text
    assert owner not in text


def test_site_names_other_templates() -> None:
    """For locks that no decorator acquires."""
    registry = CollectorRegistry()
    prometheus.instrument(registry=registry, template_of=lambda semaphore: semaphore.strip("1234"))
    try:
        acquire("memory").release()
        assert value(registry, "distlock_attempts_total", "collectPayment") == 1
    finally:
        prometheus.uninstrument()


def test_second_call_replaces_the_first(registry: CollectorRegistry) -> None:
    """Nothing is counted twice, and no name is registered twice."""
    collect(1234)
    prometheus.instrument(registry=registry)
    collect(1234)
    assert value(registry, "distlock_attempts_total") == 1


def test_nothing_is_left_in_the_registry_at_the_end(registry: CollectorRegistry) -> None:
    """Calling it once more does no harm."""
    prometheus.uninstrument()
    prometheus.uninstrument()
    collect(1234)
    assert not samples(registry)


def test_another_metric_of_the_name_is_refused(registry: CollectorRegistry) -> None:
    """As with the metrics that prometheus_client registers itself."""
    with pytest.raises(ValueError, match="distlock_attempts"):
        prometheus_client.Counter("distlock_attempts", "Mine", registry=registry)


def test_wrong_settings_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once they are right, the same call works."""
    registry = CollectorRegistry()
    with monkeypatch.context() as patch, pytest.raises(InvalidLockBackend):
        wrong = LockBackendHandler({7: None})  # type: ignore[dict-item]
        patch.setattr("django_distlock.telemetry.recorders.lock_backends", wrong)
        prometheus.instrument(registry=registry)
    prometheus.instrument(registry=registry)
    assert value(registry, "distlock_lost_total", "") == 0
    prometheus.uninstrument()


def test_threads_and_tasks(registry: CollectorRegistry) -> None:
    """None is missing."""
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(collect, range(200)))

    async def collect_all() -> None:
        await asyncio.gather(*(collect_soon(number) for number in range(200)))

    @distributed_lock(TEMPLATE, backend="memory")
    async def collect_soon(customer_id: int) -> None:
        await asyncio.sleep(0)

    asyncio.run(collect_all())
    assert value(registry, "distlock_attempts_total") == 400
    assert value(registry, "distlock_hold_seconds_count") == 400


def test_forked_process_counts_on_its_own(registry: CollectorRegistry) -> None:
    """As all metrics of prometheus_client do without PROMETHEUS_MULTIPROC_DIR."""
    collect(1234)

    def work() -> None:
        collect(1234)
        assert value(registry, "distlock_attempts_total") == 2

    with forked(work):
        pass
    assert value(registry, "distlock_attempts_total") == 1


class InterruptedLock:
    """A lock of prometheus_client, which isn't reentrant. While it is held, a handler runs once."""

    handle: Callable[[], object] | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        assert self._lock.acquire(timeout=1)
        handle, InterruptedLock.handle = InterruptedLock.handle, None
        if handle:
            handle()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


def test_handler_of_a_signal_may_use_locks_during_a_scrape() -> None:
    """A scrape holds locks that recorders need; what they have to record waits for its end."""
    registry = CollectorRegistry()
    with mock.patch("prometheus_client.values.Lock", InterruptedLock):
        prometheus.instrument(registry=registry)
        try:
            collect(1234)
            with mock.patch.object(InterruptedLock, "handle", partial(collect, 5678)):
                generate_latest(registry)
            assert value(registry, "distlock_attempts_total") == 2
        finally:
            prometheus.uninstrument()


def test_server_of_prometheus_client(registry: CollectorRegistry) -> None:
    """It serves the registry from a thread, also one metric alone."""
    collect(1234)
    server, thread = prometheus_client.start_http_server(0, HOST, registry)
    try:
        url = f"http://{HOST}:{server.server_port}/metrics"
        everything = urllib.request.urlopen(url).read().decode()
        chosen = urllib.request.urlopen(f"{url}?name[]=distlock_lost_total").read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert (
        f'distlock_wait_seconds_count{{backend="memory",template="{TEMPLATE}"}} 1.0' in everything
    )
    assert "distlock_lost_total{" in chosen
    assert "distlock_wait" not in chosen


def test_view_of_django_prometheus(rf: RequestFactory) -> None:
    """It shows the default registry."""
    exports = pytest.importorskip("django_prometheus.exports")
    prometheus.instrument()
    try:
        collect(1234)
        text = exports.ExportToDjangoView(rf.get("/metrics")).content.decode()
        assert value(REGISTRY, "distlock_attempts_total") == 1
    finally:
        prometheus.uninstrument()
    assert f'distlock_attempts_total{{backend="memory",template="{TEMPLATE}"}} 1.0' in text


def test_missing_library_is_named() -> None:
    """With the command that installs it."""
    with mock.patch.dict(sys.modules, {"prometheus_client": None}):
        with pytest.raises(ImportError, match=r"pip install \"django-distlock\[prometheus\]\""):
            reload(prometheus)

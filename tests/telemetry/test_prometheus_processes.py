"""Metrics of locks in the processes of a real server: any worker answers for all of them."""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.support.databases import committed
from tests.support.web_servers import HOST, Site

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("django_prometheus")
parser = pytest.importorskip("prometheus_client.parser")
pytestmark = [committed, pytest.mark.once]

LABELS = {"template": "<customer_id>collectPayment", "backend": "default"}
REQUESTS = 60


def scrape(site: Site) -> dict[str, float]:
    """Return the metrics of the view's lock but the buckets, by name."""
    with urllib.request.urlopen(f"http://{HOST}:{site.port}/metrics") as answer:
        text = answer.read().decode()
    return {
        sample.name: sample.value
        for metric in parser.text_string_to_metric_families(text)
        for sample in metric.samples
        if sample.labels == LABELS
    }


def test_workers_of_gunicorn_add_up(tmp_path: Path) -> None:
    """They write into files; this is prometheus_client's mode for several processes."""
    files = tmp_path / "files"
    files.mkdir()
    with Site(
        "sync",
        tmp_path,
        "--preload",
        DISTLOCK_TEST_SERVED="default",
        DISTLOCK_TEST_URLCONF="tests.support.measured_site",
        PROMETHEUS_MULTIPROC_DIR=str(files),
    ) as site:
        assert site.load("/1234/collect/", REQUESTS, Connection="close") == {200: REQUESTS}
        found = scrape(site)
        counting = [*files.glob("counter_*.db")]
    assert len(counting) == 2
    assert found.pop("distlock_wait_seconds_sum") > 0
    assert found.pop("distlock_hold_seconds_sum") > 0
    assert found == {
        "distlock_attempts_total": REQUESTS,
        "distlock_contended_total": 0,
        "distlock_unavailable_total": 0,
        "distlock_lost_total": 0,
        "distlock_force_released_total": 0,
        "distlock_wait_seconds_count": REQUESTS,
        "distlock_hold_seconds_count": REQUESTS,
    }

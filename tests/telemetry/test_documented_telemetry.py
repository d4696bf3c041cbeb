"""docs/reference/metrics.md has every metric, span, attribute and argument, and no others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from inspect import signature
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("prometheus_client")

from django_distlock import acquire_lock
from django_distlock.telemetry import prometheus, spans
from django_distlock.telemetry.measures import BUCKETS, LABELS, MEASURES
from django_distlock.telemetry.opentelemetry import instrument
from tests.support.documentation import DOCUMENTS, rows, section
from tests.support.holders import acquire, take_away
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from tests.telemetry.traces import Traces

pytestmark = pytest.mark.once

PAGE = "reference/metrics.md"
HOW_TO = "integrations/opentelemetry.md"
TEXT = (DOCUMENTS / PAGE).read_text("utf-8")
WORKER = f"""
import os
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django_distlock"],
    DISTLOCK={{"default": {{"BACKEND": "django_distlock.backends.memory.MemoryBackend"}}}},
)
django.setup()
from django_distlock import distributed_lock
from tests.support.documentation import example

page = example("{HOW_TO}", "Set up")
page.ShopConfig.ready(None)
if pid := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
page.post_fork(None, None)
distributed_lock("<customer_id>collectPayment")(lambda customer_id: None)(1234)
"""


def named_rows(heading: str) -> list[list[str]]:
    """Return the rows that begin with a name in code, without its marks."""
    named = [row for row in rows(section(PAGE, heading)) if row[0].startswith("`")]
    return [[cell.replace("`", "") for cell in row] for row in named]


def test_metrics() -> None:
    """All are in the tables, as they are."""
    found = named_rows("Metrics")
    size = len(MEASURES)
    assert found[:size] == [
        [each.name, each.kind.value, each.unit, each.description] for each in MEASURES
    ]
    assert found[size : 2 * size] == [[each.name, each.prometheus_name] for each in MEASURES]
    assert {row[0] for row in found[2 * size :]} == {*LABELS}


def test_spans_and_attributes(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that are made, and no others."""
    monkeypatch.setattr(spans, "SHORTEST_WAIT", 0)
    instrument(tracer_provider=traces.provider, semaphores=True)
    acquire("memory").release()
    lease = acquire("memory")
    assert acquire_lock("1234collectPayment", backend="memory") is None
    take_away(lease)
    assert not lease.release()
    found: defaultdict[str, set[str]] = defaultdict(set)
    for span in traces.spans:
        for name in span.attributes or {}:
            found[name].add(span.name.removeprefix("distlock."))
    documented = {name: cells for name, *cells in named_rows("Spans")}
    assert {*documented} == {*traces.names, *found}
    assert {name: {*documented[name][0].split(", ")} for name in found} == found
    outcomes = {(span.attributes or {})["distlock.outcome"] for span in traces.spans}
    assert {*re.findall(r"\w+", documented["distlock.outcome"][1])} == {*outcomes, "or"}


def test_shortest_wait() -> None:
    """The page says from when on a wait has a span."""
    assert f"took {1000 * spans.SHORTEST_WAIT:.0f} ms or longer" in TEXT


def arguments(heading: str) -> set[str]:
    """Return the arguments in the section's table."""
    return {row[0] for row in named_rows(heading)}


def test_arguments() -> None:
    """Both ways."""
    assert arguments("OpenTelemetry") == {*signature(instrument).parameters}
    assert arguments("Prometheus") == {*signature(prometheus.instrument).parameters}


def test_buckets() -> None:
    """A threshold of an alert has to be one of them."""
    [shown] = re.findall(r"buckets of the histograms, in seconds: ([\d.,\s]+)\. ", TEXT)
    assert tuple(map(float, shown.split(","))) == BUCKETS


def test_worker_that_is_forked() -> None:
    """It records spans and metrics: instrument() came before the SDK was set up."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WORKER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert '"name": "distlock.hold <customer_id>collectPayment"' in done.stdout
    decoder, texts = json.JSONDecoder(), done.stdout
    printed = []
    while texts := texts.lstrip():
        found, end = decoder.raw_decode(texts)
        printed.append(found)
        texts = texts[end:]
    names = {
        metric["name"]
        for each in printed
        for of_resource in each.get("resource_metrics", [])
        for of_scope in of_resource["scope_metrics"]
        for metric in of_scope["metrics"]
    }
    assert names == {measure.name for measure in MEASURES}

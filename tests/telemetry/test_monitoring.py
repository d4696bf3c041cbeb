"""The dashboard and the alert rules in docs/monitoring/ fit the metrics that the code exports."""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest

for library in ("prometheus_client", "promql_parser", "yaml"):
    pytest.importorskip(library)
pytestmark = pytest.mark.once

from prometheus_client import REGISTRY, CollectorRegistry  # noqa: E402

from django_distlock.telemetry import prometheus  # noqa: E402
from django_distlock.telemetry.measures import BUCKETS, LABELS, MEASURES  # noqa: E402
from tests.support.documentation import DOCUMENTS, anchors, example, prose  # noqa: E402
from tests.support.holders import acquire  # noqa: E402
from tests.support.monitoring import (  # noqa: E402
    ALERT_TESTS,
    DASHBOARD,
    GUIDE,
    GUIDE_TEXT,
    PANELS,
    RULES,
    VARIABLES,
    dashboard_expressions,
    names_in,
    panel_targets,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

UNUSED = {"distlock_wait_seconds_count", "distlock_hold_seconds_count"}
"""What the dashboard leaves out: the last bucket, `+Inf`, has the same number."""
OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that aren't the package's."""
PAGE = "https://django-distlock.readthedocs.io/en/stable/how-to/monitor.html"

each_rule = pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])


@pytest.fixture
def exported() -> Iterator[list[Any]]:
    """Return the samples of one template and store."""
    registry = CollectorRegistry()
    prometheus.instrument(registry=registry)
    acquire("memory").release()
    yield [
        sample
        for metric in registry.collect()
        for sample in metric.samples
        if sample.labels["backend"] == "memory"
    ]
    prometheus.uninstrument()


def names(samples: list[Any]) -> set[str]:
    """Return their names, without the times at which they were created."""
    return {each.name for each in samples if not each.name.endswith("_created")}


def test_dashboard_shows_every_metric_and_no_other(exported: list[Any]) -> None:
    """A metric that is renamed in the code or in the dashboard alone leaves a panel empty."""
    used = set[str]().union(*(names_in(each).metrics for each in dashboard_expressions()))
    assert used == names(exported) - UNUSED


def test_alerts_watch_every_measure_and_no_other(exported: list[Any]) -> None:
    """Each by one of its samples."""
    used = set[str]().union(*(names_in(rule["expr"]).metrics for rule in RULES))
    assert used <= names(exported)
    for measure in MEASURES:
        assert any(name.startswith(measure.prometheus_name) for name in used)


def test_labels_are_those_of_the_metrics() -> None:
    """Each is used, and no other: a misspelt one would match nothing, or merge everything."""
    expressions = [*dashboard_expressions(), *(rule["expr"] for rule in RULES)]
    used = set[str]().union(*(names_in(each).labels for each in expressions))
    assert used - OF_PROMETHEUS == set(LABELS)


def test_documented_number_of_series(exported: list[Any]) -> None:
    """It is what an operator plans with."""
    created = [each for each in exported if each.name.endswith("_created")]
    assert f"{len(exported)} for each, or {len(exported) - len(created)} without" in GUIDE_TEXT


def test_texts_name_labels_that_their_expression_keeps() -> None:
    """Grafana and Prometheus write nothing in place of another one."""
    for _, target in panel_targets():
        named = re.findall(r"{{(\w+)}}", target["legendFormat"])
        assert set(named) <= names_in(target["expr"]).kept
    for rule in RULES:
        named = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
        assert set(named) <= names_in(rule["expr"]).kept


def test_panels_can_be_read() -> None:
    """Each has a place of its own, a title and a description."""
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [cells_of(panel) for panel in DASHBOARD["panels"]]
    assert not any(one & another for one, another in combinations(cells, 2))
    assert max(x for taken in cells for x, _ in taken) < 24
    assert all(panel["title"] and panel["description"] for panel in PANELS)


def cells_of(panel: dict[str, Any]) -> set[tuple[int, int]]:
    """Return the cells of Grafana's grid that the panel takes."""
    place = panel["gridPos"]
    rows = range(place["y"], place["y"] + place["h"])
    return {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in rows}


def test_variables_choose_the_data_source_and_the_locks() -> None:
    """So the file can be imported anywhere, and every panel is filtered."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert VARIABLES["datasource"]["query"] == source["type"]
    for panel, target in panel_targets():
        assert panel["datasource"] == target["datasource"] == source
        assert "$backend" in target["expr"]
        assert "$template" in target["expr"] or "distlock_force_released" in target["expr"]
        used = set(re.findall(r"\$(?!__)(\w+)", target["expr"]))
        assert used <= {*VARIABLES}


@each_rule
def test_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    """In a section of the page that has its name; the table there has its severity."""
    assert {"summary", "description", "runbook_url"} == {*rule["annotations"]}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert page == PAGE
    assert anchor == rule["alert"].lower()
    assert anchor in anchors(prose(GUIDE))
    assert f"| [{rule['alert']}](#{anchor}) | {rule['labels']['severity']} |" in GUIDE_TEXT
    assert f"\n| {rule['alert']} | " in (DOCUMENTS / "how-to" / "on-call.md").read_text("utf-8")


@each_rule
def test_alert_has_a_unit_test(rule: dict[str, Any]) -> None:
    """`promtool test rules` runs it, which isn't part of this suite: it is too large to install."""
    assert f'"{rule["alert"]}"' in str(ALERT_TESTS)


@each_rule
def test_threshold_of_a_quantile_is_the_bound_of_a_bucket(rule: dict[str, Any]) -> None:
    """Prometheus guesses between two bounds."""
    if "histogram_quantile" in rule["expr"]:
        threshold = float(rule["expr"].rpartition(">")[2])
        assert threshold in BUCKETS[:-1]


def test_page_shows_how_to_measure_locks() -> None:
    """By the code of an app."""
    documented = example("how-to/monitor.md", "Export metrics")
    config = documented.ShopConfig("shop", prometheus)
    try:
        config.ready()
        acquire("memory").release()
        labels = {"template": "", "backend": "memory"}
        assert REGISTRY.get_sample_value("distlock_attempts_total", labels) == 1
    finally:
        prometheus.uninstrument()
    assert documented.urlpatterns

"""The dashboard and the alert rules of docs/monitoring/, and what their expressions refer to."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import promql_parser
import yaml

from tests.support.documentation import DOCUMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

MONITORING = DOCUMENTS / "monitoring"
GUIDE = DOCUMENTS / "how-to" / "monitor.md"
GUIDE_TEXT = GUIDE.read_text("utf-8")
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))
ALERT_TESTS: dict[str, Any] = yaml.safe_load((MONITORING / "alerts_test.yml").read_text("utf-8"))
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS: list[dict[str, Any]] = [each for each in DASHBOARD["panels"] if each["type"] != "row"]
VARIABLES: dict[str, dict[str, Any]] = {
    each["name"]: each for each in DASHBOARD["templating"]["list"]
}
LABEL_VALUES = re.compile(r"label_values\((.*), (\w+)\)")


class Named(NamedTuple):
    """The names in an expression."""

    metrics: set[str]
    labels: set[str]
    kept: set[str]
    """The labels that the result has, if the outermost aggregation names them."""


def names_in(expression: str) -> Named:
    """Parse the expression, and return the names in it."""
    metrics: set[str] = set()
    labels: set[str] = set()
    kept: list[list[str]] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql_parser.VectorSelector):
            metrics.add(node.name or "")
            labels.update(matcher.name for matcher in node.matchers.matchers)
        elif isinstance(node, promql_parser.AggregateExpr):
            kept.append(node.modifier.labels if node.modifier else [])
            labels.update(kept[-1])

    promql_parser.walk(promql_parser.parse(without_variables(expression)), visit)
    return Named(metrics, labels, set(kept[0]) if kept else set())


def without_variables(expression: str) -> str:
    """Return what Grafana might send to Prometheus."""
    return re.sub(r"\$__(rate_interval|range)\b", "5m", expression)


def panel_targets() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each query of the dashboard, after its panel."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel, target


def dashboard_expressions() -> list[str]:
    """Return the expressions of the panels, and those of the variables."""
    selectors = [
        LABEL_VALUES.fullmatch(variable["definition"])[1]  # type: ignore[index]
        for variable in VARIABLES.values()
        if variable["type"] == "query"
    ]
    return [target["expr"] for _, target in panel_targets()] + selectors

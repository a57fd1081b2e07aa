"""The Grafana dashboard against the metrics that the code defines, and the manual's table."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from diet_ray.telemetry import METRICS, Counter, Duration, Metric
from tests.cluster.composed import ROOT, named

FILE = ROOT / "cluster/components/dashboard/diet_ray.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
OURS = re.compile(r"\bray_diet_ray_\w+")
COLUMNS = 24  # of Grafana's grid

PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


def named_as(metric: Metric) -> str:
    """What an expression calls it."""
    return metric.exported + ("_bucket" if isinstance(metric, Duration) else "")


BY_NAME = {named_as(metric): metric for metric in METRICS}


def test_every_metric_is_shown_and_nothing_else() -> None:
    shown = {name for expression in EXPRESSIONS for name in OURS.findall(expression)}
    assert shown == set(BY_NAME)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_fits_its_metric(expression: str) -> None:
    """One metric, of the chosen runs; by labels that it has; histograms by their quantiles, since
    Ray's sums are approximate."""
    (name,) = OURS.findall(expression)
    metric = BY_NAME[name]
    assert expression.count(f'{name}{{run=~"$run"}}') == 1
    labels = {*metric.labels, *(["le"] if isinstance(metric, Duration) else [])}
    (by,) = re.findall(r"\bby \(([\w, ]+)\)", expression)
    assert "run" in by.split(", ")
    assert set(by.split(", ")) <= labels
    assert ("histogram_quantile(" in expression) == isinstance(metric, Duration)
    # each process is a series: counts add up, of gauges one holds
    added = isinstance(metric, Counter | Duration)
    assert re.findall(r"\b(sum|max) by", expression) == ["sum" if added else "max"]
    assert expression.count("(") == expression.count(")")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_legend_names_labels_that_are_left(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        left = re.findall(r"\bby \(([\w, ]+)\)", target["expr"])[0].split(", ")
        used = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
        assert set(used) == set(left) - {"le"}


def test_panels_lie_side_by_side() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in PANELS)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < COLUMNS
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_variables_are_defined() -> None:
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD)))
    assert used == defined
    (run,) = (v for v in DASHBOARD["templating"]["list"] if v["name"] == "run")
    assert set(OURS.findall(run["query"])) <= set(BY_NAME)


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_an_overlay_provides_it_where_grafana_looks(overlay: str) -> None:
    folder = ROOT / "cluster/overlays" / overlay
    provided = named(folder, "ConfigMap", "diet-ray-dashboard")
    assert provided["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert provided["data"] == {FILE.name: FILE.read_text()}


def test_the_manual_lists_every_metric_with_its_labels() -> None:
    manual = (ROOT / "cluster/README.md").read_text()
    rows = re.findall(r"^\| `(ray_diet_ray_\w+)` \| ([\w`, ]+) \|", manual, re.MULTILINE)
    stated = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert len(rows) == len(stated)
    assert stated == {metric.exported: metric.labels for metric in METRICS}

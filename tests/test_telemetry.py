"""Metrics: nothing without Ray, cheap with it, and those of a real run as Prometheus sees them."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from diet_ray import log_lines, telemetry, whereabouts
from diet_ray.telemetry import METRICS, Counter, Duration, Gauge
from tests.recorded import Recorded
from tests.watched_run import SMALL

ROOT = Path(__file__).parents[1]
SAMPLE = re.compile(r"^(?P<name>\w+)\{(?P<labels>.*)\} (?P<value>\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')

Samples = dict[str, list[tuple[dict[str, str], float]]]


@pytest.fixture
def gauge(recorded: Recorded) -> Gauge:
    """One of the test's own."""
    return Gauge("diet_ray_test_ratio", "of a test", ("run", "phase"))


@pytest.fixture(autouse=True)
def _somewhere() -> Iterator[None]:
    with whereabouts.at(run="mine", stage=None):
        yield


def test_names_are_prometheus_names_with_units() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"diet_ray_[a-z_]+", metric.name)
        assert isinstance(metric, Counter) == metric.name.endswith("_total")
        if isinstance(metric, Duration):
            assert metric.name.endswith("_seconds")
        assert metric.meaning.endswith(".")
        assert "run" in metric.labels


def test_without_ray_nothing_happens_and_ray_is_not_loaded() -> None:
    code = (
        "import sys\n"
        "from diet_ray import telemetry as t\n"
        "t.ROWS_SCORED.add(3)\n"
        "t.OUTER_STEP.set(1)\n"
        "with t.PULL.timed(): pass\n"
        "import threading\n"
        "print('ray' in sys.modules, threading.active_count())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "False 1\n"


def test_labels_say_where_and_are_empty_where_that_is_not_known(
    recorded: Recorded, gauge: Gauge
) -> None:
    telemetry.ROWS_SCORED.add(3)
    with whereabouts.at(stage=2):
        telemetry.ROWS_SCORED.add(4)
    gauge.set(0.5, phase="scan")
    assert recorded.given == {
        telemetry.ROWS_SCORED.name: [
            (3.0, {"run": "mine", "stage": ""}),
            (4.0, {"run": "mine", "stage": "2"}),
        ],
        gauge.name: [(0.5, {"run": "mine", "phase": "scan"})],
    }


def test_a_counter_takes_nothing_where_there_is_nothing(recorded: Recorded) -> None:
    telemetry.SHARDS_LEFT_OUT.add(0)  # Ray refuses it
    assert recorded.values(telemetry.SHARDS_LEFT_OUT) == []


def test_a_block_is_timed_unless_it_raises(recorded: Recorded) -> None:
    with telemetry.PULL.timed():
        time.sleep(0.01)
    with pytest.raises(ValueError, match="lost"), telemetry.PULL.timed():
        raise ValueError("lost")
    ((seconds, tags),) = recorded.given[telemetry.PULL.name]
    assert seconds >= 0.01
    assert tags == {"run": "mine"}


def test_a_gauge_is_repeated_until_it_is_forgotten(recorded: Recorded, gauge: Gauge) -> None:
    """Ray exports a value for a short time only; it is repeated where it was set."""
    gauge.set(0.25, phase="scan")
    gauge.set(0.5, phase="scan")
    gauge.set(1.0, phase="reference")
    recorded.given.clear()
    with whereabouts.at(run="another"):
        gauge.repeat()
    scan, reference = ({"run": "mine", "phase": name} for name in ("scan", "reference"))
    assert recorded.given == {gauge.name: [(0.5, scan), (1.0, reference)]}

    recorded.given.clear()
    gauge.forget(phase="scan")
    gauge.forget(phase="never set")
    gauge.repeat()
    assert recorded.given == {gauge.name: [(1.0, reference)]}


def test_a_gauge_does_not_outlive_its_ray(
    recorded: Recorded, gauge: Gauge, monkeypatch: pytest.MonkeyPatch
) -> None:
    gauge.set(0.5, phase="scan")
    with monkeypatch.context() as gone:
        gone.setattr(telemetry.Metric, "_rays", lambda _: None)
        gauge.repeat()
    recorded.given.clear()
    gauge.repeat()
    assert recorded.values(gauge) == []


def samples(folder: Path, run: str) -> Samples:
    """Every sample of our metrics in the scrapes, in their order: labels and value, by name."""
    found: Samples = {}
    for file in sorted(folder.glob("*.prom")):
        for match in SAMPLE.finditer(file.read_text()):
            labels = dict(LABEL.findall(match["labels"]))
            if match["name"].startswith("ray_diet_ray_"):
                assert labels["run"] == run
                found.setdefault(match["name"], []).append((labels, float(match["value"])))
    return found


def total(found: Samples, name: str) -> float:
    """Of a counter over all processes, when all was done."""
    last = {labels["WorkerId"]: value for labels, value in found[name]}
    return sum(last.values())


def values(found: Samples, name: str) -> list[float]:
    return [value for _, value in found[name]]


@pytest.mark.slow  # a run of its own, with Ray's dashboard agent
@pytest.mark.timeout(560)
def test_a_run_is_seen_by_prometheus_and_in_its_lines(tmp_path: Path) -> None:
    """The real endpoint of a real Ray, read while a small distillation runs."""
    scrapes = tmp_path / "scrapes"
    scrapes.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_metrics_report_interval_ms": "1000"}
    environment[log_lines.VARIABLE] = "json"
    began = time.time()
    done = subprocess.run(
        [sys.executable, "tests/watched_run.py", tmp_path / "out", "watched", scrapes],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["run"] for line in lines} == {"watched"}
    assert {line.get("stage") for line in lines} == {None, 1}

    found = samples(scrapes, "watched")
    seen = {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}
    # which have no value on a local disk, in a run that nothing disturbs
    silent = {telemetry.SHARDS_LEFT_OUT, telemetry.RETRIES, telemetry.STORE_CALLS}
    assert seen == {metric.exported for metric in METRICS if metric not in silent}
    for metric in set(METRICS) - silent:
        series = metric.exported + ("_count" if isinstance(metric, Duration) else "")
        assert all(set(metric.labels) <= labels.keys() for labels, _ in found[series])

    block_rows = SMALL["logs.synthetic.rows"] // 6  # of six days one is historical
    assert total(found, telemetry.ROWS_SCORED.exported) == block_rows
    assert {labels["stage"] for labels, _ in found[telemetry.ROWS_SCORED.exported]} == {"1"}
    assert total(found, telemetry.READ_BYTES.exported) > 0
    assert set(values(found, telemetry.QUARANTINED_ROWS.exported)) == {0}

    steps = values(found, telemetry.OUTER_STEP.exported)
    assert steps == sorted(steps)
    assert 1 <= steps[-1] <= SMALL["distill.outer_steps"]
    assert all(0 < loss < 10 for loss in values(found, telemetry.OUTER_LOSS.exported))
    norms = values(found, telemetry.GRADIENT_NORM.exported)
    assert all(norm > 0 and math.isfinite(norm) for norm in norms)
    for latency in (telemetry.PULL, telemetry.PUSH):
        calls = total(found, f"{latency.exported}_count")
        assert 1 <= calls <= SMALL["distill.outer_steps"] * 2  # by two shards a step

    phases = {labels["phase"] for labels, _ in found[telemetry.PHASE_DONE.exported]}
    assert {"Scan of historical-# (el2n)", "Stage #: meta-gradients"} <= phases
    assert all(0 <= share <= 1 for share in values(found, telemetry.PHASE_DONE.exported))
    assert max(values(found, telemetry.PHASE_RATE.exported)) > 0
    durable = values(found, telemetry.LAST_DURABLE.exported)
    assert durable == sorted(durable)
    assert began < durable[0] <= durable[-1] < time.time()

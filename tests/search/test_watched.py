"""Curves of a sweep, read back from TensorBoard's files and from an MLflow store."""

from __future__ import annotations

import shutil
import struct
from collections import defaultdict
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from diet_ray.search.sweep import sweep
from tests.search.prepared import SPACE, config_at

mlflow = pytest.importorskip("mlflow")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Name to steps and values: TFRecord frames of a length, its checksum, data, its checksum."""
    found = defaultdict(list)
    for path in folder.glob("events.out.tfevents.*"):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            for value in event.summary.value:
                found[value.tag].append((event.step, value.simple_value))
            at += length + 16
    return found


def test_every_round_is_a_point_and_every_pass(distilled_set: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    config = config_at(
        tmp_path / "out",
        {"dcn": SPACE["dcn"]},
        search={"distilled": distilled_set, "stop": "median", "trials": 2, "mlflow": store},
        evaluation={"cotrain": {"seeds": 2, "steps": 9}},  # 144 rows: twice all 60, and some
        name="a study",
    )
    lines = sweep(config).lines
    folders = sorted((tmp_path / "out" / "search" / "tensorboard").iterdir())
    assert len(folders) == 2
    last = []
    for folder in folders:
        assert folder.name.startswith("dcn-")
        curves = scalars(folder)
        assert set(curves) == {"score", "validation_auc", "validation_logloss", "loss"}
        assert [step for step, _ in curves["score"]] == [1, 2]
        assert [step for step, _ in curves["loss"]] == [1, 2, 1, 2]  # of either seed
        last.append(curves["score"][-1][1])
    assert sorted(last) == pytest.approx(sorted(line.score or 0 for line in lines), abs=1e-6)

    mlflow.set_tracking_uri(store)
    runs = mlflow.search_runs(experiment_names=["a study"])
    assert sorted(runs["metrics.score"]) == pytest.approx(sorted(last), abs=1e-6)
    shutil.rmtree(tmp_path / "out")

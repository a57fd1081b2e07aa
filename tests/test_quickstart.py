"""The whole main job at small size, every path of it on S3 (a real server on loopback)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from diet_ray import storage
from diet_ray.evaluation.check import METHODS
from diet_ray.memory.artifact import load_distilled

ROOT = Path(__file__).parents[1]

SMALL = {
    "logs.synthetic.rows": 9_000,
    "logs.synthetic.users": 200,
    "logs.synthetic.items": 150,
    "logs.fragment_rows": 1_000,
    "logs.row_group_rows": 500,
    "distill.outer_steps": 4,
    "distill.commit_every": 2,
    "evaluation.seeds": 1,
}


def distil(config: str, output: str) -> str:
    """Run the job as a user does; returns what it printed."""
    overrides = [f"--set={key}={value}" for key, value in {**SMALL, "output": output}.items()]
    done = subprocess.run(
        [sys.executable, "jobs/distill.py", "--config", config, *overrides],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(560)
def test_the_whole_quickstart_on_s3(s3_folder: str) -> None:
    config = storage.join(s3_folder, "configs/quickstart.yaml")
    storage.write_bytes(config, (ROOT / "configs/quickstart.yaml").read_bytes())
    output = storage.join(s3_folder, "run")

    printed = distil(config, output)

    dataset = load_distilled(storage.join(output, "distilled/stage=3"))
    assert len(dataset) == round(0.015 * 4_500)
    assert dataset.embeddings.shape == (len(dataset), len(dataset.description.fields), 8)
    summary = json.loads(storage.read_bytes(storage.join(output, "summary.json")))
    lines = {(line["candidate"], line["method"]) for line in summary["check"]}
    assert lines == {(c, m) for c in ("dcn", "wukong", "mean") for m in METHODS}
    assert all(0 < line["auc"] < 1 and line["seeds"] == 1 for line in summary["check"])
    assert f"{len(dataset)} rows" in printed
    assert not storage.exists(storage.join(output, "work"))

    fs, path = storage.filesystem(storage.join(output, "distilled/stage=3/rows-00000.parquet"))
    before = fs.get_file_info(path).mtime_ns
    started = time.monotonic()
    assert "published already" in distil(config, output)
    assert fs.get_file_info(path).mtime_ns == before
    assert time.monotonic() - started < 60
    assert pq.read_table(path, filesystem=fs).num_rows == len(dataset)

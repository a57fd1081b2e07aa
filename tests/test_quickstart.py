"""The whole quickstart at small size, every path of it on S3 (a real server on loopback)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from diet_ray import storage
from diet_ray.config.fitting import LARGEST_RATIO
from diet_ray.memory.dataset import load_distilled

ROOT = Path(__file__).parents[1]

SMALL = {
    "logs.synthetic.rows": 9_000,
    "logs.synthetic.users": 200,
    "logs.synthetic.items": 150,
    "logs.fragment_rows": 1_000,
    "logs.row_group_rows": 500,
    "logs.intervals.historical": "[2024-01-02, 2024-01-03]",
    "distill.outer_steps": 4,
    "distill.commit_every": 2,
    "evaluation.seeds": 1,
    "evaluation.cotrain.steps": 10,
    "search.trials": 3,
    "search.verify": 2,
}
HISTORICAL_ROWS = 3_000


def run_job(job: str, config: str, output: str) -> str:
    """Run a job as a user does; returns what it printed."""
    overrides = [f"--set={key}={value}" for key, value in {**SMALL, "output": output}.items()]
    done = subprocess.run(
        [sys.executable, f"jobs/{job}.py", "--config", config, *overrides],
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

    printed = run_job("distill", config, output)

    dataset = load_distilled(storage.join(output, "distilled/stage=2"))
    assert len(dataset) == round(LARGEST_RATIO * HISTORICAL_ROWS)
    assert len(dataset.embeddings) == len(dataset)
    summary = json.loads(storage.read_bytes(storage.join(output, "summary.json")))
    assert summary["check"] == []
    assert summary["configuration"]["memory"]["ratio"] == LARGEST_RATIO
    assert f"{len(dataset)} rows" in printed
    assert "memory.ratio: " in printed
    assert not storage.exists(storage.join(output, "work"))

    fs, path = storage.filesystem(storage.join(output, "distilled/stage=2/rows-00000.parquet"))
    before = fs.get_file_info(path).mtime_ns
    assert "published already" in run_job("distill", config, output)
    assert fs.get_file_info(path).mtime_ns == before
    assert pq.read_table(path, filesystem=fs).num_rows == len(dataset)

    printed = run_job("sweep", config, output)
    lines = storage.read_json(storage.join(output, "search/leaderboard.json"))["lines"]
    assert len(lines) == SMALL["search.trials"]
    assert all(0 < line["score"] < 1 for line in lines)
    verified = storage.read_json(storage.join(output, "search/verify.json"))
    assert len(verified["lines"]) == SMALL["search.verify"]
    assert verified["sentence"] in printed

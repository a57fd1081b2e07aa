"""The whole quickstart at small size, every path of it on S3 (a real server on loopback)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from diet_ray import storage
from diet_ray.config.fitting import LARGEST_RATIO
from diet_ray.memory.dataset import load_distilled
from tests.fault_proxy import FaultProxy, fault_proxy

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
SEED = 2  # the first 300 requests meet all of the faults

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

PHASES = (
    ("preparation", r"checking and staging the log: \d"),
    ("reference", r"Reference model on historical-1"),
    ("stage 1", r"Stage 1: 300 new rows"),
    ("stage 2", r"Stage 2: 300 new rows"),
    ("report", r"Test block, mean over tasks"),
)
# Of all requests that reach the store in a phase; docs/object_storage.md tells what they are.
MOST = {
    "start and plan": 60,
    "preparation": 200,
    "reference": 50,
    "stage 1": 110,
    "stage 2": 110,
    "report": 30,
}
FAULTS = {
    "slow_down": 0.05,
    "reset_before": 0.005,
    "reset_after": 0.005,
    "truncate": 0.01,
    "stall": 0.005,
}


def command(job: str, config: str, output: str) -> list[str]:
    overrides = [f"--set={key}={value}" for key, value in {**SMALL, "output": output}.items()]
    return [sys.executable, f"jobs/{job}.py", "--config", config, *overrides]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local"}


def run_job(job: str, config: str, output: str) -> str:
    """Run a job as a user does; returns what it printed."""
    done = subprocess.run(
        command(job, config, output),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def places(s3_folder: str) -> tuple[str, str]:
    """The quickstart's configuration on S3, and an output there."""
    config = storage.join(s3_folder, "configs/quickstart.yaml")
    storage.write_bytes(config, (ROOT / "configs/quickstart.yaml").read_bytes())
    return config, storage.join(s3_folder, "run")


@pytest.mark.timeout(280)
def test_the_quickstart_distils_on_s3(places: tuple[str, str]) -> None:
    config, output = places
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
    nothing_secret(output, printed, files=20)


@pytest.mark.slow
@pytest.mark.timeout(560)
@pytest.mark.parametrize("store", ["google", "azure"])
def test_the_quickstart_on_other_stores(request: pytest.FixtureRequest, store: str) -> None:
    config, output = "configs/quickstart.yaml", request.getfixturevalue(f"{store}_folder")
    run_job("distill", config, output)
    assert "published already" in run_job("distill", config, output)
    dataset = load_distilled(storage.join(output, "distilled/stage=2"))
    assert len(dataset) == round(LARGEST_RATIO * HISTORICAL_ROWS)
    run_job("sweep", config, output)
    lines = storage.read_json(storage.join(output, "search/leaderboard.json"))["lines"]
    assert len(lines) == SMALL["search.trials"]


@pytest.mark.slow
@pytest.mark.timeout(560)
def test_the_whole_quickstart_on_s3(places: tuple[str, str]) -> None:
    config, output = places
    run_job("distill", config, output)
    fs, path = storage.filesystem(storage.join(output, "distilled/stage=2/rows-00000.parquet"))
    before = fs.get_file_info(path).mtime_ns
    assert "published already" in run_job("distill", config, output)
    assert fs.get_file_info(path).mtime_ns == before
    assert pq.read_table(path, filesystem=fs).num_rows == round(LARGEST_RATIO * HISTORICAL_ROWS)

    printed = run_job("sweep", config, output)
    lines = storage.read_json(storage.join(output, "search/leaderboard.json"))["lines"]
    assert len(lines) == SMALL["search.trials"]
    assert all(0 < line["score"] < 1 for line in lines)
    verified = storage.read_json(storage.join(output, "search/verify.json"))
    assert len(verified["lines"]) == SMALL["search.verify"]
    assert verified["sentence"] in printed
    nothing_secret(output, printed, files=30)


def nothing_secret(output: str, printed: str, files: int) -> None:
    """Neither in what a run wrote, more than so many files, nor in what it said."""
    secrets = [os.environ[name].encode() for name in CREDENTIALS]
    written = files_below(output)
    assert len(written) > files
    for name, content in {**written, "printed": printed.encode()}.items():
        assert not [secret for secret in secrets if secret in content], f"{name} holds a secret"


def files_below(uri: str) -> dict[str, bytes]:
    """Name -> content of all files below a folder."""
    fs, path = storage.filesystem(uri)
    infos = fs.get_file_info(pafs.FileSelector(path, recursive=True))
    names = [info.path.removeprefix(path) for info in infos if info.is_file]
    return {name: storage.read_bytes(uri + name) for name in names}


@dataclass
class Distilled:
    """A distillation through a proxy: seconds, requests by phase, files of the set."""

    seconds: float
    requests: dict[str, Counter[str]]
    files: dict[str, bytes]


def distil(proxy: FaultProxy, output: str) -> Distilled:
    """Run the job through a proxy; a phase begins with a line of its log."""
    started, phase = time.monotonic(), "start and plan"
    requests: dict[str, Counter[str]] = {name: Counter() for name in MOST}
    arguments = command("distill", "configs/quickstart.yaml", output)
    env = {**environment(), "AWS_ENDPOINT_URL": proxy.url, "PYTHONUNBUFFERED": "1"}
    printed, before = [], Counter(proxy.requests)
    out, both = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(arguments, cwd=ROOT, env=env, stdout=out, stderr=both, text=True) as job:
        assert job.stdout is not None
        for line in job.stdout:
            printed.append(line)
            found = Counter(proxy.requests)
            requests[phase] = requests[phase] + (found - before)
            before = found
            phase = next((p for p, begins in PHASES if re.search(begins, line)), phase)
    requests[phase] = requests[phase] + (Counter(proxy.requests) - before)
    assert job.returncode == 0, "".join(printed)
    files = files_below(storage.join(output, "distilled"))
    return Distilled(time.monotonic() - started, requests, files)


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_a_distillation_through_faults_ends_with_the_same_bytes(
    s3_endpoint: str, s3_folder: str
) -> None:
    with fault_proxy(s3_endpoint) as proxy:
        calm = distil(proxy, storage.join(s3_folder, "calm"))
    with fault_proxy(s3_endpoint, FAULTS, SEED) as proxy:
        faulty = distil(proxy, storage.join(s3_folder, "faulty"))
    print(f"without faults {calm.seconds:.0f} s, with {faulty.seconds:.0f} s: {proxy.faults}")
    for phase, requests in calm.requests.items():
        print(f"{phase}: {requests.total()} requests, {dict(requests)}")
    assert calm.files.keys() == faulty.files.keys()
    differ = [name for name, content in calm.files.items() if faulty.files[name] != content]
    assert differ == []
    assert proxy.faults.keys() == FAULTS.keys()
    counted = {
        phase: requests.total() - requests["lease"] for phase, requests in calm.requests.items()
    }
    assert {phase: n for phase, n in counted.items() if n > MOST[phase]} == {}

"""The very commands of the manifests, as processes: nodes join, jobs finish, a worker is lost."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from diet_ray.memory.dataset import load_distilled
from diet_ray.storage import read_json
from tests.cluster.composed import (
    ROOT,
    Manifest,
    cluster_specs,
    groups,
    named,
    ray_container,
    run_config,
)
from tests.cluster.ray_processes import RayProcesses, wait_until

CPU, GPU, KIND = (ROOT / "cluster/overlays" / name for name in ("cpu", "gpu", "kind"))
JOB_SECONDS = 600  # far more than a job takes alone on two cores

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[RayProcesses]:
    with RayProcesses() as processes:
        yield processes


def shape(overlay: Path) -> Manifest:
    return cluster_specs(overlay)[0][1]


def group(overlay: Path, name: str) -> Manifest:
    (found,) = (g for g in groups(shape(overlay)) if g["groupName"] == name)
    return found


def probe_paths(one: Manifest) -> set[str]:
    kinds = ("startupProbe", "readinessProbe", "livenessProbe")
    return {ray_container(one)[kind]["httpGet"]["path"] for kind in kinds}


@pytest.mark.timeout(300)
def test_a_node_of_every_group_joins_with_its_resources_and_labels(cluster: RayProcesses) -> None:
    head = shape(CPU)["headGroupSpec"]
    cluster.start_head(head)
    every = {g["groupName"]: g for g in (*groups(shape(CPU)), group(GPU, "gpu"))}
    for name, one in every.items():
        cluster.start_worker(one, name)
    wait_until(lambda: len(cluster.nodes()) == len(every) + 1, "all nodes")

    found = cluster.nodes()
    assert "CPU" not in found["head"]["resources_total"]
    asked = {"memory": (1, 0), "scan": (4, 0), "spot": (4, 0), "gpu": (8, 1)}
    has = {name: node["resources_total"] for name, node in found.items() if name != "head"}
    assert {name: (r["CPU"], r.get("GPU", 0)) for name, r in has.items()} == asked
    for name, one in every.items():
        assert one["labels"].items() <= found[name]["labels"].items()
        assert all(cluster.answers(path, cluster.agent_ports[name]) for path in probe_paths(one))
    assert all(cluster.answers(path) for path in probe_paths(head))


@pytest.mark.timeout(120)
def test_nobody_gets_in_without_the_token(cluster: RayProcesses) -> None:
    cluster.start_head(shape(KIND)["headGroupSpec"])
    assert cluster.status("/api/jobs/") == 401
    assert cluster.status("/api/jobs/", token="a guess") == 403
    assert cluster.status("/api/jobs/", token=cluster.token) == 200


def entrypoint(job: str, config: Path) -> list[str]:
    """Of the overlay for kind, with the configuration's file where this test has it."""
    words = shlex.split(named(KIND, "RayJob", job)["spec"]["entrypoint"])
    return [*words[:-1], str(config)]


def written(config: Path, **resources: Any) -> Path:
    """The overlay's configuration with its output beside the file, and these `resources`."""
    tree = run_config(KIND).model_dump(mode="json", exclude_unset=True)
    tree["output"] = str(config.parent / "run")
    tree["resources"] |= resources
    config.write_text(yaml.safe_dump(tree))
    return config


def finished(submission: subprocess.Popen[str]) -> str:
    """What the submitter printed, of a job that succeeded."""
    printed, _ = submission.communicate(timeout=JOB_SECONDS)
    assert submission.returncode == 0, printed
    return printed


UPLOAD_BYTES = 8 << 20


@pytest.mark.timeout(900)
def test_a_job_is_stopped_and_submitted_again_and_finishes(
    cluster: RayProcesses, tmp_path: Path
) -> None:
    config = written(tmp_path / "run.yaml")
    cluster.start_head(shape(KIND)["headGroupSpec"])
    for number in range(2):
        cluster.start_worker(group(KIND, "scan"), f"scan-{number}")
    upload = "--working-dir", str(ROOT)  # as the README submits

    first = cluster.submit(entrypoint("distill", config), "--submission-id", "first", *upload)
    durable = "run/work/stage=1/**/step=*.json"
    wait_until(lambda: any(tmp_path.glob(durable)), "a durable step", JOB_SECONDS)
    stopping = cluster.job("stop", "first")
    told, _ = stopping.communicate(timeout=60)
    assert stopping.returncode == 0, told
    printed, _ = first.communicate(timeout=60)
    assert "stopping (SIGTERM)" in printed
    assert "'first' was stopped" in cluster.job("status", "first").communicate(timeout=60)[0]
    stages = len(run_config(KIND).raw_logs.intervals.historical)
    distilled = f"{tmp_path}/run/distilled/stage={stages}"
    assert not Path(distilled, "_manifest.json").exists()

    second = cluster.submit(entrypoint("distill", config), "--submission-id", "second", *upload)
    printed = finished(second)
    assert "blocks are published" in printed
    assert Path(distilled, "_manifest.json").exists()
    assert any(distilled in line for line in printed.splitlines()[-12:])
    assert len(load_distilled(distilled)) > 0
    logs, _ = cluster.job("logs", "second").communicate(timeout=60)
    assert distilled in logs

    (copied,) = cluster.folder.glob("**/working_dir_files/_ray_pkg_*/")
    files = [path for path in copied.rglob("*") if path.is_file()]
    assert copied / "jobs/distill.py" in files
    assert sum(path.stat().st_size for path in files) < UPLOAD_BYTES


@pytest.mark.timeout(300)
def test_a_job_that_is_refused_fails_with_the_reason(cluster: RayProcesses, tmp_path: Path) -> None:
    config = written(tmp_path / "run.yaml")
    cluster.start_head(shape(KIND)["headGroupSpec"])
    cluster.start_worker(group(KIND, "scan"), "scan")
    refused = cluster.submit([*entrypoint("distill", config), "--set", "memory.ratio=2"])
    printed, _ = refused.communicate(timeout=120)
    assert refused.returncode != 0
    assert "memory.ratio" in printed
    assert "failed" in printed


@pytest.mark.timeout(1500)
def test_both_jobs_finish_though_a_worker_is_lost(cluster: RayProcesses, tmp_path: Path) -> None:
    servers = group(CPU, "memory")
    config = written(tmp_path / "run.yaml", memory_server_labels=servers["labels"])
    cluster.start_head(shape(KIND)["headGroupSpec"])
    cluster.start_worker(servers, "memory")
    scan = group(KIND, "scan")
    workers = [f"scan-{number}" for number in range(scan["maxReplicas"])]
    for name in workers:
        cluster.start_worker(scan, name)

    submission = cluster.submit(entrypoint("distill", config))
    wait_until(lambda: bool(cluster.nodes_of("MetaWorker")), "meta-workers", JOB_SECONDS)
    wait_until(lambda: bool(cluster.nodes_of("MemoryServer")), "a memory server")
    assert cluster.nodes_of("MemoryServer") == {"memory"}
    lost = min(cluster.nodes_of("MetaWorker") & set(workers))
    cluster.kill(lost)
    printed = finished(submission)
    assert "succeeded" in printed

    stages = len(run_config(KIND).raw_logs.intervals.historical)
    distilled = tmp_path / f"run/distilled/stage={stages}"
    assert len(load_distilled(str(distilled))) > 0
    wait_until(lambda: lost not in cluster.nodes(), "the loss of a node seen")

    finished(cluster.submit(entrypoint("sweep", config)))
    lines = read_json(str(tmp_path / "run/search/leaderboard.json"))["lines"]
    assert len(lines) == run_config(KIND).search.trials

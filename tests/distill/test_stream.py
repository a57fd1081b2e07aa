"""Whole streams: the same bytes from any number of actors, and through any death."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from diet_ray import documents, storage
from diet_ray.config import RunConfig
from diet_ray.distill import stream
from diet_ray.distill.context import stage_uri
from diet_ray.distill.stream import check_artifact, distill_stream, published_stages
from diet_ray.memory import artifact
from diet_ray.memory.coordinator import MemoryCoordinator
from diet_ray.memory.files import ArtifactError
from diet_ray.runtime import plain_errors
from diet_ray.training.reference import reference_uri
from diet_ray.training.stream import train_reference
from tests.distill.prepared import STAGES, Prepared, run_config
from tests.networks import small_network

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120
FILES = 3 + 5 + 2 * STAGES
"""Of rows, 8 in each, and every stage's manifest and validation sample."""


def bytes_of(output: Path) -> dict[str, bytes]:
    """Every file of every stage, manifests and validation samples included."""
    distilled = output / "distilled"
    files = [path for path in sorted(distilled.rglob("*")) if path.is_file()]
    return {str(path.relative_to(distilled)): path.read_bytes() for path in files}


def assert_undisturbed(output: Path, undisturbed: Prepared) -> None:
    found, expected = bytes_of(output), bytes_of(undisturbed.folder)
    assert len(expected) == FILES
    assert list(found) == list(expected)
    for name, content in expected.items():
        assert found[name] == content, name
    assert not (output / "work").exists()


def durable(output: Path, stage: int, step: int) -> Path:
    """What appears when an outer step of a stage is durable."""
    return output / "work" / f"stage={stage}" / "memory" / f"step={step:06d}.json"


class Killer(threading.Thread):
    """SIGKILLs a named actor's process as soon as a file appears."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(daemon=True)
        self._name, self._path = name, path
        self.killed: int | None = None

    def run(self) -> None:
        pid = self._await(self._pid)
        self._await(self._path.exists)
        os.kill(pid, signal.SIGKILL)
        self.killed = pid

    def _pid(self) -> int | None:
        try:
            actor = ray.get_actor(self._name)
            return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
        except (ValueError, ray.exceptions.RayActorError):
            return None

    @staticmethod
    def _await(ask: Callable[[], int | None]) -> int:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            answer = ask()
            if answer:
                return answer
            time.sleep(0.01)
        raise TimeoutError


@pytest.mark.slow
def test_three_workers_and_two_servers_from_scratch(undisturbed: Prepared, tmp_path: Path) -> None:
    config = undisturbed.config(tmp_path, resources={"meta_workers": 3, "memory_servers": 2})
    distill_stream(config, undisturbed.blocks)
    assert_undisturbed(tmp_path, undisturbed)


def test_a_killed_worker_and_a_killed_server(
    undisturbed: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="diet_ray")
    resources = {"meta_workers": 2, "memory_servers": 2}
    # the undisturbed run's scores are found in its ledger where the directions are the same bits
    config = undisturbed.config(tmp_path, "scores", resources=resources)
    killers = [
        Killer("meta-worker-0", durable(tmp_path, stage=1, step=2)),
        Killer("memory-server-2-0", durable(tmp_path, stage=2, step=2)),
    ]
    for killer in killers:
        killer.start()
    distill_stream(config, undisturbed.blocks)
    assert all(killer.killed for killer in killers)
    assert "Stage 2: a memory server was lost; going on from step" in caplog.text
    assert "Stage 1: a memory server was lost" not in caplog.text
    assert_undisturbed(tmp_path, undisturbed)


def test_a_killed_driver_goes_on_where_it_was(
    undisturbed: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = undisturbed.config(tmp_path, "scores")
    command = [
        sys.executable,
        str(Path(__file__).with_name("killed_driver.py")),
        config.model_dump_json(),
        undisturbed.blocks.uri,
        str(durable(tmp_path, stage=2, step=2)),
        ray.get_runtime_context().gcs_address,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=200, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert published_stages(config, undisturbed.blocks) == 1
    caplog.set_level(logging.DEBUG, logger="diet_ray")
    more = run_config(tmp_path, resources={"meta_workers": 2, "memory_servers": 2})
    distill_stream(more, undisturbed.blocks)
    steps = [record.args[0] for record in caplog.records if record.msg.startswith("step %d")]  # type: ignore[index]
    assert steps == list(range(steps[0], 8))
    assert steps[0] in (2, 4, 6), "it went on from the last durable step"
    assert_undisturbed(tmp_path, undisturbed)


@pytest.mark.slow
def test_proxies_by_turns_on_an_ensemble(prepared: Prepared, tmp_path: Path) -> None:
    """One shared reference of two members, two proxy networks; one worker, then two."""
    members = [small_network(name).model_dump() for name in ("dcn", "wukong")]
    ensemble = {"name": "ensemble", "parameters": {"networks": members}}
    inner = {"networks": members, "start": "fresh"}
    for workers in (1, 2):
        small = run_config(
            tmp_path / str(workers),
            distill={"rounds": 1, "inner": inner},
            resources={"meta_workers": workers},
        ).model_dump()
        small["reference"] |= {"network": ensemble, "folder": str(tmp_path / "reference")}
        config = RunConfig.model_validate(small)
        train_reference(config, prepared.blocks)
        distill_stream(config, prepared.blocks)
        assert not (tmp_path / str(workers) / "reference" / "t=1").exists()
    one, two = (bytes_of(tmp_path / str(workers)) for workers in (1, 2))
    assert len(one) == FILES
    assert one == two


SMALLEST_FILE = 600
"""Bytes; every durable step of a server takes more."""


def limit_files(_: object) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALLEST_FILE, hard))


def test_a_disk_that_fills_in_the_middle_of_a_stage(
    undisturbed: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names file and remedy; with room again, a rerun goes on to the same bytes."""
    config = undisturbed.config(tmp_path, "scores")
    make_durable = MemoryCoordinator.make_durable

    def on_a_filling_disk(memory: MemoryCoordinator) -> None:
        if memory.step == 4:
            ray.get([server.__ray_call__.remote(limit_files) for server in memory.client.servers])
        make_durable(memory)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryCoordinator, "make_durable", on_a_filling_disk)
        message = r"changes-000004-.*: larger than files may be; .* set another output"
        with pytest.raises(storage.StorageError, match=message), plain_errors():
            distill_stream(config, undisturbed.blocks)
    assert durable(tmp_path, stage=1, step=2).exists()
    assert not list(tmp_path.rglob("*.partial-*"))
    distill_stream(config, undisturbed.blocks)
    assert_undisturbed(tmp_path, undisturbed)


def test_what_is_published_is_not_computed_again(
    undisturbed: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_workers(config: RunConfig) -> None:
        raise AssertionError("workers were started")

    monkeypatch.setattr(stream, "MetaWorkers", no_workers)
    config = run_config(undisturbed.folder, resources={"meta_workers": 7})
    assert distill_stream(config, undisturbed.blocks) == stage_uri(config, STAGES)


def test_an_artifact_of_another_configuration_is_refused(undisturbed: Prepared) -> None:
    config = run_config(undisturbed.folder, distill={"inner": {"learning_rate": 0.5}})
    with pytest.raises(ArtifactError, match=r"stage=1: made with another distill than"):
        distill_stream(config, undisturbed.blocks)
    other = replace(undisturbed.blocks, fingerprint="another log")
    with pytest.raises(ArtifactError, match="made with another blocks than"):
        distill_stream(run_config(undisturbed.folder), other)


def test_an_artifact_of_another_reference_is_refused(undisturbed: Prepared, tmp_path: Path) -> None:
    config = undisturbed.config(tmp_path, "distilled")
    path = storage.join(reference_uri(config, 2), "reference.json")
    documents.write_sealed(path, {**documents.read_sealed(path), "identity": "f" * 64})
    check_artifact(config, undisturbed.blocks, stage_uri(config, 1))
    message = "stage=2: belongs to reference [0-9a-f]{12}, this run's phi_2 is ffffffffffff; set"
    with pytest.raises(ArtifactError, match=message):
        distill_stream(config, undisturbed.blocks)


def test_an_artifact_of_another_schema_is_refused(undisturbed: Prepared) -> None:
    other = replace(undisturbed.blocks, tasks=("bought", "task_1"))
    config = run_config(undisturbed.folder)
    with pytest.raises(ArtifactError, match=r"tasks .* \(3 and 2\), the blocks have"):
        check_artifact(config, other, stage_uri(config, 1))


def test_stages_are_counted_up_to_the_first_gap(undisturbed: Prepared, tmp_path: Path) -> None:
    config = undisturbed.config(tmp_path, "distilled")
    assert published_stages(config, undisturbed.blocks) == 2
    (tmp_path / "distilled" / "stage=1" / "_manifest.json").unlink()
    assert published_stages(config, undisturbed.blocks) == 0
    assert artifact.published(stage_uri(config, 2))


@pytest.mark.parametrize("name", ["rows-00000.parquet", "_ranking.safetensors"])
def test_a_rerun_reports_no_damaged_set_as_done(
    undisturbed: Prepared, tmp_path: Path, name: str
) -> None:
    config = undisturbed.config(tmp_path, "distilled")
    path = Path(stage_uri(config, STAGES), name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    folder = stage_uri(config, STAGES)
    message = rf"{name}: its content is not what .*; remove the folder {folder} and distil it again"
    with pytest.raises(ArtifactError, match=message):
        distill_stream(config, undisturbed.blocks)


@pytest.mark.parametrize("advised", [False, True])
def test_a_stage_that_lacks_a_file_is_distilled_again(
    undisturbed: Prepared, tmp_path: Path, advised: bool
) -> None:
    """By itself, or once its folder is removed as a refusal advises."""
    config = undisturbed.config(tmp_path, "distilled", "scores")
    folder = Path(stage_uri(config, STAGES))
    if advised:
        shutil.rmtree(folder)
    else:
        (folder / "rows-00000.parquet").unlink()
    assert published_stages(config, undisturbed.blocks) == STAGES - 1
    distill_stream(config, undisturbed.blocks)
    assert_undisturbed(tmp_path, undisturbed)

"""The reference over the stream: trained, continued after a kill, refused to other settings."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diet_ray import storage
from diet_ray.config import ConfigError, NetworkConfig, RunConfig
from diet_ray.errors import DivergedError
from diet_ray.logs.blocks import Block, Blocks, Rows, iterate_batches, open_blocks, read_block
from diet_ray.training import stream
from diet_ray.training.metrics import measure
from diet_ray.training.model import predict
from diet_ray.training.reference import (
    CheckpointError,
    load_reference,
    published_stages,
    reference_identity,
    reference_uri,
)
from diet_ray.training.stream import check_device, train_reference
from tests.made import made_blocks, small_config
from tests.training.references import STAGES, copy_of, tensors

pytestmark = pytest.mark.usefixtures("ray_session")


def test_learns_above_chance(blocks: Blocks, tmp_path: Path) -> None:
    config = small_config(str(tmp_path), reference={"batch_size": 8})
    train_reference(config, blocks)
    rows = read_block(blocks, blocks.block("subsequent"))
    logits = predict(load_reference(reference_uri(config, STAGES)).recommender, rows.ids)
    assert measure(logits, rows.labels, blocks.tasks).auc > 0.65


def test_a_network_of_ones_own_can_be_the_reference(blocks: Blocks, tmp_path: Path) -> None:
    config = small_config(str(tmp_path), reference={"batch_size": 8})
    own = NetworkConfig(name="tests.models.own_network:Plain")
    settings = config.reference.model_copy(update={"network": own})
    config = config.model_copy(update={"reference": settings})
    train_reference(config, blocks)
    validation = read_block(blocks, blocks.block("validation"))
    reference = load_reference(reference_uri(config, STAGES))
    assert type(reference.dense.interaction).__name__ == "Plain"
    logits = predict(reference.recommender, validation.ids)
    assert measure(logits, validation.labels, blocks.tasks).auc > 0.6


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_continued_run_gives_the_same_bytes(
    blocks: Blocks, trained: RunConfig, tmp_path: Path, left: int
) -> None:
    config = copy_of(trained, tmp_path, left)
    assert published_stages(config, blocks) == left
    train_reference(config, blocks)
    assert tensors(config) == tensors(trained)


def test_tensors_without_their_description_do_not_count(
    blocks: Blocks, trained: RunConfig, tmp_path: Path
) -> None:
    config = copy_of(trained, tmp_path, 2)
    Path(reference_uri(config, 2), "reference.json").unlink()
    Path(reference_uri(config, 2), "model.safetensors").write_bytes(b"half a file")
    assert published_stages(config, blocks) == 1
    train_reference(config, blocks)
    assert tensors(config) == tensors(trained)


def test_what_is_published_is_not_trained_again(
    blocks: Blocks, trained: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diet_ray.training.stream.TorchTrainer", None)
    train_reference(trained, blocks)


def often(output: str, minutes: float) -> RunConfig:
    return small_config(output, resources={"reference_checkpoint_minutes": minutes})


def train_and_die(output: str, minutes: float, blocks_uri: str, batches: int) -> None:
    """Run in a process of its own, which kills itself after some batches of the second block."""
    import os  # noqa: PLC0415

    read = stream.iterate_batches

    def dying(blocks: Blocks, block: object, *rest: int) -> object:
        for number, batch in enumerate(read(blocks, block, *rest)):  # type: ignore[arg-type]
            if block == blocks.historical[1] and number == batches:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    stream.iterate_batches = dying  # type: ignore[assignment]
    train_reference(often(output, minutes), open_blocks(blocks_uri))


def killed_run(tmp_path: Path, minutes: float, blocks: Blocks, batches: int) -> RunConfig:
    """A run that died in the second block."""
    call = f"train_and_die({str(tmp_path)!r}, {minutes}, {blocks.uri!r}, {batches})"
    program = f"from tests.training.test_stream import *; {call}"
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, check=False, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    config = often(str(tmp_path), minutes)
    assert published_stages(config, blocks) == 1
    return config


@pytest.mark.parametrize(
    ("minutes", "taken_up"),
    [(60, 0), (1e-9, 5)],  # never, within so short a block; after every batch
)
def test_a_killed_run_continues_to_the_same_bytes(
    blocks: Blocks,
    trained: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    minutes: float,
    taken_up: int,
) -> None:
    config = killed_run(tmp_path, minutes, blocks, batches=5)
    skipped = []

    def spied(blocks: Blocks, block: Block, batch_size: int, rows: int) -> Iterator[Rows]:
        skipped.append(rows)
        return iterate_batches(blocks, block, batch_size, rows)

    monkeypatch.setattr(stream, "iterate_batches", spied)
    train_reference(config, blocks)
    assert skipped == [taken_up * config.reference.batch_size, 0]
    assert tensors(config) == tensors(trained)
    assert not list(tmp_path.rglob("partway*"))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 6}, "seed"),
        ({"threads": 2}, "threads"),
        ({"reference": {"learning_rate": 0.02}}, "reference"),
        ({"models": {"embedding_std": 0.02}}, "models"),
    ],
)
def test_another_configuration_is_refused_by_key(
    blocks: Blocks, trained: RunConfig, changes: dict[str, object], key: str
) -> None:
    other = small_config(trained.output, **changes)
    with pytest.raises(CheckpointError, match=rf"t=1/reference.json: made from another {key} than"):
        train_reference(other, blocks)


def test_other_blocks_are_refused(trained: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="made from another blocks"):
        train_reference(trained, made_blocks(str(tmp_path), rows=60, seed=1))


def test_a_shared_folder_is_taken_and_completed(
    blocks: Blocks, trained: RunConfig, tmp_path: Path
) -> None:
    shared = copy_of(trained, tmp_path / "first", 2).place("reference")
    config = small_config(str(tmp_path / "second"), reference={"folder": shared})
    assert published_stages(config, blocks) == 2
    train_reference(config, blocks)
    assert tensors(config) == tensors(trained)
    assert Path(shared, f"t={STAGES}", "reference.json").exists()
    assert not list((tmp_path / "second").rglob("reference.json"))
    published = [f"{uri}/t=1/reference.json" for uri in (shared, trained.place("reference"))]
    first, whole = map(storage.read_json, published)
    assert first == whole, "what a phi_t was made from does not say where it lies"


def test_a_shared_folder_of_other_settings_is_refused(
    blocks: Blocks, trained: RunConfig, tmp_path: Path
) -> None:
    shared = {"folder": trained.place("reference"), "learning_rate": 0.02}
    other = small_config(str(tmp_path), reference=shared)
    message = "made from another reference than .*; set another reference.folder, or remove"
    with pytest.raises(CheckpointError, match=message):
        train_reference(other, blocks)


def test_what_a_refusal_advises_works(blocks: Blocks, trained: RunConfig, tmp_path: Path) -> None:
    config = copy_of(trained, tmp_path, STAGES)
    shutil.rmtree(reference_uri(config, 2))
    train_reference(config, blocks)
    assert tensors(config) == tensors(trained)


def test_missing_tensors_are_trained_again(
    blocks: Blocks, trained: RunConfig, tmp_path: Path
) -> None:
    config = copy_of(trained, tmp_path, STAGES)
    path = Path(reference_uri(config, 2), "model.safetensors")
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"{path}: no such file; remove the folder"):
        load_reference(reference_uri(config, 2))
    train_reference(config, blocks)
    assert tensors(config) == tensors(trained)


def test_a_gpu_that_is_not_there_is_told(
    blocks: Blocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = small_config(str(tmp_path), resources={"reference_gpu": True})
    message = r"resources\.reference_gpu true: .* has no GPU; set it to false, or reference_workers"
    with pytest.raises(ConfigError, match=message):
        train_reference(config, blocks)
    elsewhere = {"reference_gpu": True, "reference_workers": 1}
    check_device(small_config(str(tmp_path), resources=elsewhere))


def test_two_workers_train_the_same_bytes(tmp_path: Path) -> None:
    """About half a minute, nearly all of it the start of the worker group."""
    blocks = made_blocks(str(tmp_path / "blocks"), rows=131, historical=2)
    found = []
    for workers in (0, 2):
        config = small_config(
            str(tmp_path / f"{workers}"), resources={"reference_workers": workers}
        )
        train_reference(config, blocks)
        found.append([reference_identity(reference_uri(config, stage)) for stage in (1, 2)])
    assert found[0] == found[1]


@pytest.mark.parametrize("workers", [3, (1, 3)])
def test_more_workers_than_shards_are_refused(
    workers: int | tuple[int, int], blocks: Blocks, tmp_path: Path
) -> None:
    config = small_config(str(tmp_path), resources={"reference_workers": workers})
    message = "reference_workers 3 exceeds reference.logical_shards 2"
    with pytest.raises(ConfigError, match=message):
        train_reference(config, blocks)


def test_a_reference_that_diverges_stops_by_name(blocks: Blocks, tmp_path: Path) -> None:
    config = small_config(str(tmp_path), reference={"learning_rate": 1e9})
    message = r"diverged on historical-1, within \d+ rows.*lower reference.learning_rate \(1e\+09\)"
    with pytest.raises(DivergedError, match=message):
        train_reference(config, blocks)
    assert published_stages(config, blocks) == 0

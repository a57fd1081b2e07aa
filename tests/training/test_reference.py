"""The reference over the stream: published, continued after a kill, refused where it differs."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from diet_ray import documents, storage
from diet_ray.config import ConfigError, NetworkConfig, RunConfig
from diet_ray.errors import DivergedError
from diet_ray.logs.blocks import Block, Blocks, Rows, iterate_batches, open_blocks, read_block
from diet_ray.training import reference as reference_module
from diet_ray.training.metrics import measure
from diet_ray.training.model import predict
from diet_ray.training.reference import (
    FORMAT,
    CheckpointError,
    ReferenceFacts,
    check_device,
    describe_reference,
    load_reference,
    published_stages,
    reference_identity,
    reference_uri,
    train_reference,
)
from tests.made import made_blocks, small_config

STAGES = 3


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Blocks:
    return made_blocks(str(tmp_path_factory.mktemp("blocks")), rows=400, historical=STAGES)


@pytest.fixture(scope="module")
def trained(blocks: Blocks, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run whose reference nobody disturbed; only to be read."""
    config = small_config(str(tmp_path_factory.mktemp("trained")))
    train_reference(config, blocks)
    return config


def copy_of(trained: RunConfig, folder: Path, stages: int) -> RunConfig:
    """The same run elsewhere, with its first `stages` checkpoints only."""
    config = small_config(str(folder))
    for stage in range(1, stages + 1):
        for name in ("model.safetensors", "reference.json"):
            place = storage.join(reference_uri(trained, stage), name)
            storage.write_bytes(
                storage.join(reference_uri(config, stage), name), storage.read_bytes(place)
            )
    return config


def tensors(config: RunConfig) -> list[bytes]:
    return [
        storage.read_bytes(storage.join(reference_uri(config, stage), "model.safetensors"))
        for stage in range(1, STAGES + 1)
    ]


def test_every_stage_is_published(blocks: Blocks, trained: RunConfig) -> None:
    assert published_stages(trained, blocks) == STAGES
    for stage, block in enumerate(blocks.historical, start=1):
        reference = load_reference(reference_uri(trained, stage))
        assert reference.stage == stage
        assert (reference.fields, reference.tasks) == (blocks.fields, blocks.tasks)
        assert reference.table.sizes == list(block.vocabulary_sizes.values())
        assert not any(p.requires_grad for p in reference.dense.parameters())
    identities = {load_reference(reference_uri(trained, s)).identity for s in (1, 2, 3)}
    assert len(identities) == STAGES


def test_id_zero_stays_the_zero_vector(trained: RunConfig) -> None:
    for vectors in load_reference(reference_uri(trained, STAGES)).table.by_field().values():
        assert vectors[0].abs().max() == 0


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
    monkeypatch.setattr("diet_ray.training.reference.TorchTrainer", None)
    train_reference(trained, blocks)


def often(output: str, minutes: float) -> RunConfig:
    return small_config(output, resources={"reference_checkpoint_minutes": minutes})


def train_and_die(output: str, minutes: float, blocks_uri: str, batches: int) -> None:
    """Run in a process of its own, which kills itself after some batches of the second block."""
    import os  # noqa: PLC0415

    from diet_ray.training import reference  # noqa: PLC0415

    read = reference.iterate_batches

    def dying(blocks: Blocks, block: object, *rest: int) -> object:
        for number, batch in enumerate(read(blocks, block, *rest)):  # type: ignore[arg-type]
            if block == blocks.historical[1] and number == batches:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    reference.iterate_batches = dying  # type: ignore[assignment]
    train_reference(often(output, minutes), open_blocks(blocks_uri))


def killed_run(tmp_path: Path, minutes: float, blocks: Blocks, batches: int) -> RunConfig:
    """A run that died in the second block."""
    call = f"train_and_die({str(tmp_path)!r}, {minutes}, {blocks.uri!r}, {batches})"
    program = f"from tests.training.test_reference import *; {call}"
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

    monkeypatch.setattr(reference_module, "iterate_batches", spied)
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


def test_what_does_not_determine_the_result_may_change(blocks: Blocks, trained: RunConfig) -> None:
    other = small_config(trained.output, name="other", memory={"ratio": 0.5}, resources={})
    assert published_stages(other, blocks) == STAGES


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


def flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def anothers(path: Path, trained: RunConfig) -> None:
    path.write_bytes(Path(reference_uri(trained, 2), "model.safetensors").read_bytes())


def not_numbers(path: Path) -> None:
    arrays = storage.read_tensors(str(path))
    storage.write_tensors(str(path), {name: 0 * a + np.nan for name, a in arrays.items()})


@pytest.mark.parametrize("damage", ["cut", "header", "weight", "another stage's", "not numbers"])
def test_tensors_that_are_not_the_published_ones_are_refused(
    trained: RunConfig, tmp_path: Path, damage: str
) -> None:
    uri = reference_uri(copy_of(trained, tmp_path, 1), 1)
    path = Path(uri, "model.safetensors")
    spoil = {
        "cut": lambda: path.write_bytes(path.read_bytes()[:-100]),
        "header": lambda: flipped(path, 20),
        "weight": lambda: flipped(path, -5),
        "another stage's": lambda: anothers(path, trained),
        "not numbers": lambda: not_numbers(path),
    }
    spoil[damage]()
    message = rf"model\.safetensors: damaged tensors, or another.*; remove the folder {uri} and run"
    with pytest.raises(storage.StorageError, match=message):
        load_reference(uri)


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


def republished(uri: str, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Other tensors under a description that states their SHA-256."""
    path, description = (storage.join(uri, n) for n in ("model.safetensors", "reference.json"))
    arrays = storage.read_tensors(path)
    change(arrays)
    identity = storage.write_tensors(path, arrays)
    documents.write_sealed(
        description, {**documents.read_sealed(description), "identity": identity}
    )


def test_a_missing_tensor_is_named(trained: RunConfig, tmp_path: Path) -> None:
    uri = reference_uri(copy_of(trained, tmp_path, 1), 1)
    republished(uri, lambda arrays: arrays.pop("embedding.field_1"))
    with pytest.raises(CheckpointError, match=r"no tensor embedding\.field_1"):
        load_reference(uri)


@pytest.mark.parametrize("kind", ["embedding", "dense"])
def test_a_tensor_of_another_shape_is_named(trained: RunConfig, tmp_path: Path, kind: str) -> None:
    uri = reference_uri(copy_of(trained, tmp_path, 1), 1)
    path = storage.join(uri, "model.safetensors")
    name = next(n for n in storage.read_tensors(path) if n.startswith(kind))
    republished(uri, lambda arrays: arrays.update({name: np.zeros((3, 99), np.float32)}))
    with pytest.raises(CheckpointError, match=rf"{name} has shape \(3, 99\), reference\.json says"):
        load_reference(uri)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ([], r"holds \[\] instead of keys"),
        (None, "holds None instead of keys"),
        ({"fields": 3}, "fields: 3: Input should be a valid tuple"),
        ({"identity": None}, "identity: None: Input should be a valid string"),
        ({"models": {"embedding_dim": 10**8}}, "models.embedding_dim: 100000000: Input should be"),
        (
            {"models": {"embedding_dim": 4}},
            "models: {'embedding_dim': 4}: Value error, states no mm",
        ),
        ({"made_from": {}}, "made_from: {}: Value error, states no seed"),
        ({"more": 1}, "more: unknown"),
    ],
)
def test_a_description_that_is_none_is_told_by_its_field(
    blocks: Blocks, trained: RunConfig, tmp_path: Path, change: object, told: str
) -> None:
    config = copy_of(trained, tmp_path, 1)
    path = storage.join(reference_uri(config, 1), "reference.json")
    if isinstance(change, dict):
        documents.write_sealed(path, {**documents.read_sealed(path), **change})
    else:
        storage.write_json(path, change)
    reads = (
        lambda: load_reference(reference_uri(config, 1)),
        lambda: published_stages(config, blocks),
    )
    for read in reads:
        with pytest.raises(
            storage.StorageError, match=rf"reference\.json: {told}.*; remove the fo"
        ):
            read()


@pytest.mark.parametrize("key", sorted(ReferenceFacts.__dataclass_fields__.keys() - {"seed"}))
def test_a_description_that_lacks_a_field_is_told(
    trained: RunConfig, tmp_path: Path, key: str
) -> None:
    uri = reference_uri(copy_of(trained, tmp_path, 1), 1)
    path = storage.join(uri, "reference.json")
    whole = documents.read_sealed(path)
    documents.write_sealed(path, {name: whole[name] for name in whole if name != key})
    with pytest.raises(storage.StorageError, match=rf"reference\.json: {key}: Field required"):
        describe_reference(uri)


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


def test_another_format_is_refused(blocks: Blocks, trained: RunConfig, tmp_path: Path) -> None:
    uri = reference_uri(copy_of(trained, tmp_path, 1), 1)
    path = storage.join(uri, "reference.json")
    documents.write_sealed(path, {**documents.read_sealed(path), "format": 99})
    message = rf"{path}: format 99 is not {FORMAT}; remove the reference folder to train it again"
    for read in (load_reference, describe_reference, reference_identity):
        with pytest.raises(CheckpointError, match=message):
            read(uri)
    with pytest.raises(CheckpointError, match=message):
        published_stages(small_config(str(tmp_path)), blocks)


def test_the_identity_is_that_of_the_tensors(trained: RunConfig, tmp_path: Path) -> None:
    uri = reference_uri(copy_of(trained, tmp_path, 1), 1)
    content = Path(uri, "model.safetensors").read_bytes()
    assert reference_identity(uri) == hashlib.sha256(content).hexdigest()
    assert reference_identity(uri) == load_reference(uri).identity


def test_the_facts_are_those_of_the_whole_and_need_no_tensors(
    trained: RunConfig, tmp_path: Path
) -> None:
    whole = load_reference(reference_uri(trained, 2))
    uri = reference_uri(copy_of(trained, tmp_path, 2), 2)
    Path(uri, "model.safetensors").unlink()
    facts = describe_reference(uri)
    assert vars(facts).items() <= vars(whole).items()
    assert facts.standard_deviation == whole.table.standard_deviation()
    assert (facts.stage, facts.network) == (2, trained.reference.network)


def test_an_absent_reference_is_named(tmp_path: Path) -> None:
    uri = str(tmp_path / "t=1")
    for read in (load_reference, describe_reference, reference_identity):
        with pytest.raises(CheckpointError, match=rf"{uri}/reference\.json: no such file; train"):
            read(uri)


@pytest.mark.usefixtures("ray_session")
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

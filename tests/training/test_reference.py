"""What is published of the reference: read as it was written, refused where it differs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diet_ray import documents, storage, tensor_files
from diet_ray.config import RunConfig
from diet_ray.logs.blocks import Blocks
from diet_ray.training.reference import (
    FORMAT,
    CheckpointError,
    ReferenceFacts,
    describe_reference,
    load_reference,
    published_stages,
    reference_identity,
    reference_uri,
)
from tests.made import small_config
from tests.training.references import STAGES, copy_of


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


def test_what_does_not_determine_the_result_may_change(blocks: Blocks, trained: RunConfig) -> None:
    other = small_config(trained.output, name="other", memory={"ratio": 0.5}, resources={})
    assert published_stages(other, blocks) == STAGES


def flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def anothers(path: Path, trained: RunConfig) -> None:
    path.write_bytes(Path(reference_uri(trained, 2), "model.safetensors").read_bytes())


def not_numbers(path: Path) -> None:
    arrays = tensor_files.read(str(path))
    tensor_files.write(str(path), {name: 0 * a + np.nan for name, a in arrays.items()})


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


def republished(uri: str, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Other tensors under a description that states their SHA-256."""
    path, description = (storage.join(uri, n) for n in ("model.safetensors", "reference.json"))
    arrays = tensor_files.read(path)
    change(arrays)
    identity = tensor_files.write(path, arrays)
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
    name = next(n for n in tensor_files.read(path) if n.startswith(kind))
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
        ({"fields": []}, "fields: .*at least 1 item"),
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

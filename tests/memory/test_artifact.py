"""The distilled set on disk: whole or absent, and readable without any code of ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import ray.data
import torch
from safetensors.numpy import load_file
from torch.utils.data import DataLoader

from diet_ray import load_distilled, storage
from diet_ray.logs.blocks import Rows
from diet_ray.memory import artifact
from diet_ray.memory.artifact import ArtifactError, Description, RankingData
from diet_ray.memory.rows import SyntheticRows

ROWS, FIELDS, DIM, TASKS = 23, 3, 4, 2
TENSORS = {"embedding": (FIELDS, DIM), "label": (TASKS,), "anchor": (FIELDS,)}
COLUMNS = [*TENSORS, "source_stage", "source_row"]
SAMPLE = "_ranking.safetensors"

DESCRIPTION = Description(
    stage=3,
    rows=ROWS,
    fields=("user", "item", "tab"),
    tasks=("click", "like"),
    embedding_dim=DIM,
    reference="0123456789abcdef",
    made_from={"seed": 7, "memory": {"ratio": 0.015}},
)


def synthetic_rows(count: int = ROWS) -> SyntheticRows:
    draw = np.random.default_rng(2)
    return SyntheticRows(
        embeddings=draw.normal(size=(count, FIELDS, DIM)).astype(np.float32),
        labels=draw.normal(size=(count, TASKS)).astype(np.float32),
        stages=draw.integers(1, 4, count).astype(np.int32),
        source_rows=draw.integers(0, 2**40, count),
        anchors=draw.integers(1, 100, (count, FIELDS)).astype(np.int32),
    )


def validation_sample(count: int = 15) -> RankingData:
    """Of a block of 1,000 rows, which holds more ids than the set."""
    draw = np.random.default_rng(3)
    ids = draw.integers(0, 130, (count, FIELDS))
    labels = draw.integers(0, 2, (count, TASKS)).astype(np.float32)
    taught = draw.normal(size=(count, TASKS)).astype(np.float32)
    rows = Rows(np.arange(count) + 4_000, ids, labels)
    return RankingData(synthetic_rows().labels - 1, rows, taught, of=1_000, full_rows=2_000)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A published stage of three files, and a sample of the validation block."""
    monkeypatch.setattr(artifact, "ROWS_PER_FILE", 9)
    uri = str(tmp_path / "distilled" / "stage=3")
    artifact.publish(uri, synthetic_rows(), DESCRIPTION, validation_sample())
    return uri


def assert_equal(found: SyntheticRows, expected: SyntheticRows) -> None:
    for name, array in vars(expected).items():
        other = getattr(found, name)
        assert other.dtype == array.dtype, name
        assert other.shape == array.shape, name
        assert other.tobytes() == array.tobytes(), name


def test_what_is_published_is_read(stage: str) -> None:
    assert artifact.published(stage)
    assert_equal(artifact.read(stage), synthetic_rows())
    assert artifact.describe(stage) == DESCRIPTION
    assert sorted(artifact.checksums(stage)) == [f"rows-0000{n}.parquet" for n in range(3)]


def test_the_manifest_states_schema_and_versions(stage: str) -> None:
    manifest = storage.read_json(storage.join(stage, "_manifest.json"))
    assert sorted(manifest["schema"]) == sorted(COLUMNS)
    assert "fixed_shape_tensor" in manifest["schema"]["embedding"]
    assert set(manifest["versions"]) == {"diet_ray", "torch", "ray", "pyarrow", "numpy"}
    assert manifest["versions"]["pyarrow"] == pa.__version__


def test_a_sample_is_read_with_the_ids_that_the_set_has(stage: str) -> None:
    rows, sample = synthetic_rows(), validation_sample()
    expected = [
        [number if number in rows.anchors[:, field] else 0 for field, number in enumerate(row)]
        for row in sample.rows.ids.tolist()
    ]
    assert 0 < np.count_nonzero(expected) < np.count_nonzero(sample.rows.ids)
    # in the file itself: the set tells nothing of ids that it does not hold
    held = load_file(f"{stage}/{SAMPLE}")
    assert held["ids"].tolist() == expected
    assert np.array_equal(held["labels"], sample.rows.labels)
    assert np.array_equal(held["taught"], sample.taught)
    kinds = {name: array.dtype for name, array in held.items()}
    floats = {"row_taught": np.float32, "taught": np.float32}
    assert kinds == {"ids": np.int32, "labels": np.uint8, **floats}

    found = artifact.read_ranking_data(stage)
    assert (found.of, found.full_rows) == (1_000, 2_000)
    assert artifact.full_rows(stage) == 2_000
    assert found.rows.row_ids.tolist() == list(range(len(sample.rows)))
    assert (found.rows.ids.dtype, found.rows.labels.dtype) == (np.int64, np.float32)
    assert found.rows.ids.tolist() == expected
    assert np.array_equal(found.rows.labels, sample.rows.labels)
    assert found.taught.dtype == np.float32
    assert np.array_equal(found.taught, sample.taught)
    assert found.row_taught.dtype == np.float32
    assert np.array_equal(found.row_taught, sample.row_taught)


def test_the_sample_has_a_checksum_of_its_own(stage: str) -> None:
    before = artifact.checksums(stage), artifact.ranking_checksum(stage)
    assert before[1] == hashlib.sha256((Path(stage) / SAMPLE).read_bytes()).hexdigest()
    sample = validation_sample()
    taught_otherwise = replace(sample, taught=sample.taught + 1)
    found = {before[1]}
    rows_otherwise = replace(sample, row_taught=sample.row_taught + 1)
    for other in (validation_sample(14), taught_otherwise, rows_otherwise):
        artifact.publish(stage, synthetic_rows(), DESCRIPTION, other)
        assert artifact.checksums(stage) == before[0]
        found.add(artifact.ranking_checksum(stage))
    assert len(found) == 4


def test_a_stage_without_a_sample_cannot_judge(stage: str) -> None:
    artifact.publish(stage, synthetic_rows(), DESCRIPTION)
    assert_equal(artifact.read(stage), synthetic_rows())
    assert artifact.ranking_checksum(stage) is None
    assert artifact.full_rows(stage) is None
    told = r"stage=3/_manifest\.json: the set holds no validation sample.*name a stage that jobs/"
    with pytest.raises(ArtifactError, match=told):
        artifact.read_ranking_data(stage)


def test_the_same_rows_give_the_same_bytes(stage: str, tmp_path: Path) -> None:
    again = str(tmp_path / "again")
    artifact.publish(again, synthetic_rows(), DESCRIPTION, validation_sample())
    for name in ["_manifest.json", SAMPLE, *artifact.checksums(stage)]:
        assert (Path(stage) / name).read_bytes() == (Path(again) / name).read_bytes()


def columns_of(found: pa.Table) -> dict[str, np.ndarray]:
    return {
        **{name: found[name].combine_chunks().to_numpy_ndarray() for name in TENSORS},
        **{name: found[name].to_numpy() for name in COLUMNS[len(TENSORS) :]},
    }


def assert_columns(found: dict[str, np.ndarray]) -> None:
    rows = synthetic_rows()
    arrays = (rows.embeddings, rows.labels, rows.anchors, rows.stages, rows.source_rows)
    for name, array in zip(COLUMNS, arrays, strict=True):
        # foreign readers see a tensor as a flat list
        assert (np.asarray(found[name]).reshape(array.shape) == array).all(), name


def test_pyarrow_reads_file_folder_and_dataset(stage: str) -> None:
    assert_columns(columns_of(pq.read_table(stage)))
    assert_columns(columns_of(pads.dataset(stage).to_table()))
    parts = [pq.read_table(f"{stage}/rows-0000{n}.parquet") for n in range(3)]
    assert_columns(columns_of(pa.concat_tables(parts)))
    for name, shape in TENSORS.items():
        assert parts[0].schema.field(name).type.shape == list(shape)


def publish_stage_4(stage: str) -> None:
    """Five rows beside `stage`."""
    other, described = stage.replace("stage=3", "stage=4"), replace(DESCRIPTION, stage=4)
    artifact.publish(other, synthetic_rows(5), described, validation_sample())


def test_pyarrow_reads_all_stages_together(stage: str) -> None:
    publish_stage_4(stage)
    table = pads.dataset(str(Path(stage).parent), partitioning="hive").to_table()
    assert sorted(table["stage"].to_pylist()) == [3] * ROWS + [4] * 5


def test_pandas_reads_it(stage: str) -> None:
    frame = pd.read_parquet(stage)
    assert_columns({name: np.stack(list(frame[name])) for name in COLUMNS})


def test_duckdb_reads_it(stage: str) -> None:
    result = duckdb.sql(f"select * from read_parquet('{stage}/*.parquet')")
    columns = zip(*result.fetchall(), strict=True)
    assert_columns(dict(zip(result.columns, columns, strict=True)))


def test_duckdb_reads_all_stages_together(stage: str) -> None:
    publish_stage_4(stage)
    found = duckdb.sql(f"select stage from read_parquet('{Path(stage).parent}/**/*.parquet')")
    assert sorted(found.fetchall()) == [(3,)] * ROWS + [(4,)] * 5


@pytest.mark.usefixtures("ray_session")
def test_ray_data_reads_it(stage: str) -> None:
    batch = ray.data.read_parquet(stage).take_batch(ROWS, batch_format="numpy")
    order = np.argsort(batch["source_row"])
    rows = synthetic_rows()
    expected = rows.take(np.argsort(rows.source_rows))
    assert batch["embedding"].shape == (ROWS, FIELDS, DIM)
    assert (batch["embedding"][order] == expected.embeddings).all()
    assert (batch["label"][order] == expected.labels).all()
    assert (batch["source_stage"][order] == expected.stages).all()


@pytest.mark.usefixtures("ray_session")
def test_ray_data_reads_all_stages_together(stage: str) -> None:
    publish_stage_4(stage)
    rows = ray.data.read_parquet(str(Path(stage).parent)).take_all()
    assert sorted(int(row["stage"]) for row in rows) == [3] * ROWS + [4] * 5


def test_a_torch_data_loader_takes_it(stage: str) -> None:
    dataset, rows = load_distilled(stage), synthetic_rows()
    assert len(dataset) == ROWS
    assert dataset.description == DESCRIPTION
    batches = list(DataLoader(dataset, batch_size=10))
    assert [batch[0].shape for batch in batches] == [(10, 3, 4), (10, 3, 4), (3, 3, 4)]
    for column, array in zip(
        zip(*batches, strict=True), (rows.embeddings, rows.labels), strict=True
    ):
        assert torch.cat(column).equal(torch.from_numpy(array))


def test_a_set_prints_as_what_it_is(stage: str) -> None:
    known = [
        "Distilled set, stage 3: 23 rows of 3 fields of width 4.",
        "Fields: user, item, tab.",
        "Tasks: click, like.",
    ]
    with_sample = [
        "Rows: 1.15% of the 2,000 that a full training visits.",
        "Judges: 15 of the 1,000 rows of the validation block.",
    ]
    assert repr(load_distilled(stage)) == "\n".join([*known, *with_sample])
    artifact.publish(stage, synthetic_rows(), DESCRIPTION)
    assert repr(load_distilled(stage)) == "\n".join(known)


def test_a_stage_without_manifest_is_not_there(stage: str) -> None:
    (Path(stage) / "_manifest.json").unlink()
    assert not artifact.published(stage)
    with pytest.raises(ArtifactError, match=r"_manifest\.json: no such file; name a published"):
        load_distilled(stage)


def test_the_manifest_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, original = str(tmp_path / "stage=1"), storage.write_parquet
    monkeypatch.setattr(artifact, "ROWS_PER_FILE", 9)

    def watched(path: str, table: pa.Table) -> str:
        assert not artifact.published(uri)
        return original(path, table)

    monkeypatch.setattr(storage, "write_parquet", watched)
    artifact.publish(uri, synthetic_rows(), DESCRIPTION, validation_sample())
    assert artifact.published(uri)


def test_files_of_an_interrupted_attempt_do_not_stay(stage: str) -> None:
    """A reader of the folder would take them for rows of the stage."""
    (Path(stage) / "_manifest.json").unlink()
    artifact.publish(stage, synthetic_rows(4), replace(DESCRIPTION, rows=4))
    assert len(pq.read_table(stage)) == 4
    assert not (Path(stage) / SAMPLE).exists()


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = [lambda p: p.unlink(), lambda p: p.write_bytes(b"PAR1"), change_a_byte]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(stage: str, damage: Callable[[Path], None]) -> None:
    damage(Path(stage) / "rows-00002.parquet")
    with pytest.raises(ArtifactError, match=r"stage=3/rows-00002\.parquet.*distil it again"):
        artifact.read(stage)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_sample_is_named(stage: str, damage: Callable[[Path], None]) -> None:
    damage(Path(stage) / SAMPLE)
    told = r"stage=3/_ranking\.safetensors: its content is not .* distil it again"
    with pytest.raises(ArtifactError, match=told):
        artifact.read_ranking_data(stage)
    assert_equal(artifact.read(stage), synthetic_rows())  # which needs no sample


def test_another_format_is_refused(stage: str) -> None:
    path = Path(stage) / "_manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "format": 3}))
    with pytest.raises(ArtifactError, match="format 3 is not 6; distil again"):
        artifact.describe(stage)


@pytest.mark.parametrize(("fields", "width"), [(2, DIM), (FIELDS, 2 * DIM)])
def test_networks_of_another_shape_are_refused(stage: str, fields: int, width: int) -> None:
    names = DESCRIPTION.fields[:fields]
    told = rf"stage=3: its rows have 3 fields of width 4, .* take {fields} fields of width {width};"
    with pytest.raises(ArtifactError, match=told):
        artifact.check_fits(stage, names, width)
    artifact.check_fits(stage, DESCRIPTION.fields, DIM)


def test_nothing_is_pickled(stage: str) -> None:
    files = [path for path in Path(stage).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".parquet", ".safetensors"}
    for path in Path(stage).rglob("*.parquet"):
        schema = pq.read_schema(path)
        assert not any(pa.types.is_binary(field.type) for field in schema)
        assert all(b"pickle" not in value for value in (schema.metadata or {}).values())

"""The distilled set on disk: whole or absent, and readable without any code of ours."""

from __future__ import annotations

import json
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
from torch.utils.data import DataLoader

from diet_ray import load_distilled, storage
from diet_ray.memory import artifact
from diet_ray.memory.artifact import ArtifactError, Description
from diet_ray.memory.rows import SyntheticRows

ROWS, FIELDS, DIM, TASKS = 23, 3, 4, 2
TENSORS = {"embedding": (FIELDS, DIM), "label": (TASKS,), "anchor": (FIELDS,)}
COLUMNS = [*TENSORS, "source_stage", "source_row", "weight"]

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
        weights=draw.random(count).astype(np.float32),
        anchors=draw.integers(1, 100, (count, FIELDS)).astype(np.int32),
    )


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A published stage of three files."""
    monkeypatch.setattr(artifact, "ROWS_PER_FILE", 9)
    uri = str(tmp_path / "distilled" / "stage=3")
    artifact.publish(uri, synthetic_rows(), DESCRIPTION)
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


def test_the_same_rows_give_the_same_bytes(stage: str, tmp_path: Path) -> None:
    again = str(tmp_path / "again")
    artifact.publish(again, synthetic_rows(), DESCRIPTION)
    for name in ["_manifest.json", *artifact.checksums(stage)]:
        assert (Path(stage) / name).read_bytes() == (Path(again) / name).read_bytes()


def columns_of(found: pa.Table) -> dict[str, np.ndarray]:
    return {
        **{name: found[name].combine_chunks().to_numpy_ndarray() for name in TENSORS},
        **{name: found[name].to_numpy() for name in COLUMNS[len(TENSORS) :]},
    }


def assert_columns(found: dict[str, np.ndarray]) -> None:
    rows = synthetic_rows()
    lineage = (rows.anchors, rows.stages, rows.source_rows)
    arrays = (rows.embeddings, rows.labels, *lineage, rows.weights)
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


def test_pyarrow_reads_all_stages_together(stage: str) -> None:
    artifact.publish(
        stage.replace("stage=3", "stage=4"), synthetic_rows(5), replace(DESCRIPTION, stage=4)
    )
    table = pads.dataset(str(Path(stage).parent), partitioning="hive").to_table()
    assert sorted(table["stage"].to_pylist()) == [3] * ROWS + [4] * 5


def test_pandas_reads_it(stage: str) -> None:
    frame = pd.read_parquet(stage)
    assert_columns({name: np.stack(list(frame[name])) for name in COLUMNS})


def test_duckdb_reads_it(stage: str) -> None:
    result = duckdb.sql(f"select * from read_parquet('{stage}/*.parquet')")
    columns = zip(*result.fetchall(), strict=True)
    assert_columns(dict(zip(result.columns, columns, strict=True)))


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


def test_a_torch_data_loader_takes_it(stage: str) -> None:
    dataset, rows = load_distilled(stage), synthetic_rows()
    assert len(dataset) == ROWS
    assert dataset.description == DESCRIPTION
    batches = list(DataLoader(dataset, batch_size=10))
    assert [batch[0].shape for batch in batches] == [(10, 3, 4), (10, 3, 4), (3, 3, 4)]
    for column, array in zip(
        zip(*batches, strict=True), (rows.embeddings, rows.labels, rows.weights), strict=True
    ):
        assert torch.cat(column).equal(torch.from_numpy(array))


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
    artifact.publish(uri, synthetic_rows(), DESCRIPTION)
    assert artifact.published(uri)


def test_files_of_an_interrupted_attempt_do_not_stay(stage: str) -> None:
    """A reader of the folder would take them for rows of the stage."""
    (Path(stage) / "_manifest.json").unlink()
    artifact.publish(stage, synthetic_rows(4), replace(DESCRIPTION, rows=4))
    assert len(pq.read_table(stage)) == 4


def test_a_changed_byte_is_found_and_its_file_named(stage: str) -> None:
    path = Path(stage) / "rows-00001.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"stage=3/rows-00001\.parquet: its content is not"):
        artifact.read(stage)


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"PAR1")])
def test_a_missing_or_truncated_file_is_named(stage: str, damage: object) -> None:
    damage(Path(stage) / "rows-00002.parquet")  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=r"rows-00002\.parquet.*distil it again"):
        artifact.read(stage)


def test_another_format_is_refused(stage: str) -> None:
    path = Path(stage) / "_manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(ArtifactError, match="format 2 is not 1; distil again"):
        artifact.describe(stage)


@pytest.mark.parametrize(("fields", "width"), [(2, DIM), (FIELDS, 2 * DIM)])
def test_networks_of_another_shape_are_refused(stage: str, fields: int, width: int) -> None:
    names = DESCRIPTION.fields[:fields]
    told = rf"stage=3: its rows have 3 fields of width 4, .* take {fields} fields of width {width};"
    with pytest.raises(ArtifactError, match=told):
        artifact.check_fits(stage, names, width)
    artifact.check_fits(stage, DESCRIPTION.fields, DIM)


def test_nothing_is_pickled(stage: str) -> None:
    assert {p.suffix for p in Path(stage).iterdir()} == {".json", ".parquet"}
    for path in Path(stage).glob("*.parquet"):
        schema = pq.read_schema(path)
        assert not any(pa.types.is_binary(field.type) for field in schema)
        assert all(b"pickle" not in value for value in (schema.metadata or {}).values())

"""A published set as embeddings and labels, wherever it lies; its plain form."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data
import torch
from torch.utils.data import DataLoader

from diet_ray import documents, storage
from diet_ray.logs.blocks import Rows
from diet_ray.memory import artifact, dataset
from diet_ray.memory.artifact import Description, RankingData
from diet_ray.memory.dataset import export, load_distilled
from diet_ray.memory.files import ArtifactError, RowFiles
from diet_ray.memory.rows import SyntheticRows
from diet_ray.training.reference import load_reference
from diet_ray.training.stream import train_reference
from tests.made import FIRST_IDS, made_blocks, small_config
from tests.sets import publish_set, random_rows

ROWS, PER_FILE = 23, 9
FIELDS = ("field_0", "field_1", "field_2")
TASKS = ("task_0", "task_1")
WIDTH = small_config("anywhere").models.embedding_dim


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """phi_1 and phi_2, and a set of the second: `distilled/stage=2`."""
    folder = tmp_path_factory.mktemp("run")
    config = small_config(str(folder))
    train_reference(config, made_blocks(str(folder / "blocks"), historical=2))
    publish_set(str(folder / "distilled/stage=2"), synthetic_rows(), described(folder), None, 9)
    return folder


@pytest.fixture
def moved(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    shutil.copytree(run, tmp_path / "moved")
    return tmp_path / "moved"


def synthetic_rows() -> SyntheticRows:
    rows = random_rows(ROWS, (len(FIELDS), WIDTH, len(TASKS)))
    return replace(rows, anchors=rows.anchors % FIRST_IDS)


def described(folder: Path) -> Description:
    reference = str(folder / "reference/t=2")
    return Description(
        stage=2,
        rows=ROWS,
        fields=FIELDS,
        tasks=TASKS,
        embedding_dim=WIDTH,
        reference=load_reference(reference).identity,
        reference_uri=reference,
        made_from={"memory": {"ratio": 0.015}},
    )


def embeddings_by_hand(run: Path) -> np.ndarray:
    """The table's vectors, one id after the other, and the deltas of the rows that have one."""
    rows = synthetic_rows()
    vectors = load_reference(str(run / "reference/t=2")).table.by_field()
    found = np.stack(
        [
            np.stack([vectors[name][row[f]].detach().numpy() for f, name in enumerate(FIELDS)])
            for row in rows.anchors.tolist()
        ]
    )
    found[np.flatnonzero(rows.moved)] += rows.deltas
    return found


def test_a_set_is_its_table_and_its_deltas(run: Path) -> None:
    found, rows = load_distilled(str(run / "distilled/stage=2")), synthetic_rows()
    assert len(found) == ROWS
    assert found.description == described(run)
    assert np.array_equal(found.embeddings.numpy(), embeddings_by_hand(run))
    assert np.array_equal(found.labels.numpy(), rows.labels)
    assert found.ids.dtype == torch.int64
    assert np.array_equal(found.ids.numpy(), rows.anchors)
    embedding, label = found[3]
    assert torch.equal(embedding, found.embeddings[3])
    assert torch.equal(label, found.labels[3])


def test_a_torch_data_loader_takes_it(run: Path) -> None:
    found = load_distilled(str(run / "distilled/stage=2"))
    batches = list(DataLoader(found, batch_size=10))
    assert [tuple(batch[0].shape) for batch in batches] == [(n, 3, WIDTH) for n in (10, 10, 3)]
    for column, whole in zip(
        zip(*batches, strict=True), (found.embeddings, found.labels), strict=True
    ):
        assert torch.equal(torch.cat(column), whole)


def test_a_set_prints_as_what_it_is(moved: Path) -> None:
    uri = str(moved / "distilled/stage=2")
    known = [
        f"Distilled set, stage 2: {ROWS} rows of 3 fields of width {WIDTH}.",
        "Fields: field_0, field_1, field_2.",
        "Tasks: task_0, task_1.",
    ]
    assert repr(load_distilled(uri)) == "\n".join(known)
    labels = np.zeros((5, len(TASKS)), dtype=np.float32)
    judged = Rows(np.arange(5), synthetic_rows().anchors[:5].astype(np.int64), labels)
    ranking = RankingData(judged, labels, of=1_000, full_rows=2_000)
    publish_set(uri, synthetic_rows(), described(moved), ranking)
    with_sample = [
        "Rows: 1.15% of the 2,000 that a full training visits.",
        "Judges: 5 of the 1,000 rows of the validation block.",
    ]
    assert repr(load_distilled(uri)) == "\n".join([*known, *with_sample])


def test_a_set_finds_its_reference_where_both_were_moved(run: Path, moved: Path) -> None:
    """Even if another lies where it was."""
    found = load_distilled(str(moved / "distilled/stage=2"))
    assert found.description.reference_uri == str(moved / "reference/t=2")
    assert np.array_equal(found.embeddings.numpy(), embeddings_by_hand(run))


def test_a_set_that_was_moved_alone_is_told_its_reference(moved: Path) -> None:
    uri, reference = str(moved / "elsewhere"), str(moved / "reference/t=2")
    shutil.move(moved / "distilled/stage=2", uri)
    told = "need the reference model of their run: .* name the folder where it lies now, such as "
    with pytest.raises(ArtifactError, match=told):
        load_distilled(uri)
    found = load_distilled(uri, reference)
    assert np.array_equal(found.embeddings.numpy(), embeddings_by_hand(moved))


def test_another_reference_is_refused(run: Path) -> None:
    uri, other = str(run / "distilled/stage=2"), str(run / "reference/t=1")
    identity = described(run).reference[:12]
    told = f"belongs to reference {identity}, {other} holds [0-9a-f]+; name the folder of the run"
    with pytest.raises(ArtifactError, match=told):
        load_distilled(uri, other)
    with pytest.raises(ArtifactError, match=told):
        export(uri, str(run / "plain"), other)
    assert not (run / "plain").exists()


def test_a_folder_without_a_set_is_told(tmp_path: Path) -> None:
    for call in (load_distilled, lambda uri: export(uri, str(tmp_path / "plain"))):
        with pytest.raises(ArtifactError, match=r"_manifest\.json: no such file; name a published"):
            call(str(tmp_path))


@pytest.fixture(scope="module")
def plain(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set's plain form."""
    folder = tmp_path_factory.mktemp("plain")
    export(str(run / "distilled/stage=2"), str(folder))
    return folder


def assert_plain(found: dict[str, list], run: Path) -> None:
    """The columns of the plain form; to most readers a tensor is a flat list."""
    loaded, rows = load_distilled(str(run / "distilled/stage=2")), synthetic_rows()
    anchors = {f"anchor_{name}": rows.anchors[:, f] for f, name in enumerate(FIELDS)}
    lineage = {"source_stage": rows.stages, "source_row": rows.source_rows}
    expected = {
        "embedding": loaded.embeddings.numpy().reshape(ROWS, -1),
        "label": loaded.labels.numpy(),
        **anchors,
        **lineage,
    }
    assert list(found) == list(expected)
    for name, array in expected.items():
        values = np.array([np.ravel(value) for value in found[name]])
        assert np.array_equal(values.reshape(array.shape), array), name


def test_pyarrow_and_pandas_read_the_plain_form(plain: Path, run: Path) -> None:
    parts = [pq.read_table(path) for path in sorted(plain.glob("*.parquet"))]
    assert [len(part) for part in parts] == [9, 9, 5]
    table = pa.concat_tables(parts)
    assert table["embedding"].combine_chunks().to_numpy_ndarray().shape == (ROWS, 3, WIDTH)
    assert_plain({name: table[name].to_pylist() for name in table.column_names}, run)
    frame = pd.read_parquet(plain)
    assert_plain({name: list(frame[name]) for name in frame.columns}, run)


def test_duckdb_reads_the_plain_form(plain: Path, run: Path) -> None:
    result = duckdb.sql(f"select * from read_parquet('{plain}/*.parquet')")
    columns = zip(*result.fetchall(), strict=True)
    assert_plain(dict(zip(result.columns, columns, strict=True)), run)


@pytest.mark.usefixtures("ray_session")
def test_ray_data_reads_the_plain_form(plain: Path, run: Path) -> None:
    found = ray.data.read_parquet(str(plain)).take_all()
    place = {row: at for at, row in enumerate(synthetic_rows().source_rows.tolist())}
    found.sort(key=lambda row: place[row["source_row"]])
    assert found[0]["embedding"].shape == (3, WIDTH)
    assert_plain({name: [row[name] for row in found] for name in found[0]}, run)


def test_the_plain_form_says_what_it_is(plain: Path, run: Path) -> None:
    assert (plain / "_summary.txt").read_text() == artifact.summary(str(run / "distilled/stage=2"))


def test_one_file_at_a_time_is_in_memory(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is written before the next is read."""
    done: list[str] = []
    read, write = RowFiles.read, storage.write_parquet

    def watched_read(files: RowFiles, number: int, *rest: object) -> pa.Table:
        done.append(f"read {number}")
        return read(files, number, *rest)

    def watched_write(uri: str, table: pa.Table) -> str:
        done.append(f"write {len(table)} rows")
        return write(uri, table)

    monkeypatch.setattr(RowFiles, "read", watched_read)
    monkeypatch.setattr(dataset.storage, "write_parquet", watched_write)
    export(str(run / "distilled/stage=2"), str(tmp_path / "plain"))
    counts = [9, 9, 5]
    expected = [[f"read {n}", f"write {count} rows"] for n, count in enumerate(counts)]
    assert done == [line for pair in expected for line in pair]


def test_a_folder_that_holds_rows_is_not_written_to(moved: Path, tmp_path: Path) -> None:
    """The set's own, or another export's: rows of both would be read."""
    uri, plain = str(moved / "distilled/stage=2"), str(tmp_path / "plain")
    export(uri, plain)
    before = artifact.checksums(uri)
    for target in (uri, plain):
        told = f"{target}: holds Parquet files already.*name another folder, or remove them"
        with pytest.raises(ArtifactError, match=told):
            export(uri, target)
    assert artifact.checksums(uri) == before
    assert len(load_distilled(uri)) == ROWS


def test_an_old_format_is_refused(moved: Path) -> None:
    stage = str(moved / "distilled/stage=2")
    path = storage.join(stage, "_manifest.json")
    documents.write_sealed(path, {**documents.read_sealed(path), "format": 6})
    with pytest.raises(ArtifactError, match=re.escape("format 6 is not 7; distil again")):
        load_distilled(stage)

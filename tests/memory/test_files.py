"""Files of rows against plain rows in memory, through our reader and through other people's."""

from __future__ import annotations

import hashlib
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
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.memory.files import ArtifactError, RowFiles, anchors_of, tensor_of
from diet_ray.memory.rows import SyntheticRows
from tests.sets import assert_same, files_of, random_rows

ROWS, FIELDS, WIDTH, TASKS = 23, 3, 4, 2
SHAPE = FIELDS, WIDTH, TASKS
NAMES = ("user", "item", "tab")
PER_FILE = 9
ANCHORS = [f"anchor_{name}" for name in NAMES]
TENSORS = {"label": [TASKS], "taught": [TASKS]}

Read = tuple[RowFiles, SyntheticRows]
"""Files to read, and what is to be found in them."""


def synthetic_rows(count: int = ROWS) -> SyntheticRows:
    return random_rows(count, SHAPE)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> RowFiles:
    """Three files, the last of them shorter."""
    return files_of(str(tmp_path_factory.mktemp("rows")), synthetic_rows(), NAMES, PER_FILE)


@pytest.fixture(scope="module", params=["float32", "float16"])
def read(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Read:
    """The same in either precision."""
    found = files_of(str(tmp_path_factory.mktemp("read")), synthetic_rows(), NAMES, PER_FILE)
    found = in_precision(found, request.param)
    return found, rounded(synthetic_rows(), request.param)


def in_precision(files: RowFiles, kind: str) -> RowFiles:
    """The files, written again."""
    found = replace(files, label_type=kind, delta_type=kind)
    parts = [files.slice(*files.bounds(number)) for number in range(files.count)]
    sums = tuple(found.write(number, rows) for number, rows in enumerate(parts))
    return replace(found, checksums=sums)


def rounded(rows: SyntheticRows, kind: str) -> SyntheticRows:
    """What such files hold of the rows."""
    floats = ("labels", "taught", "deltas")
    kept = {name: getattr(rows, name).astype(kind).astype(np.float32) for name in floats}
    return replace(rows, **kept)


def test_rows_are_cut_into_files_of_one_size(files: RowFiles) -> None:
    assert files.count == 3
    assert [files.bounds(number) for number in range(3)] == [(0, 9), (9, 18), (18, 23)]
    for number in range(3):
        assert pq.read_metadata(f"{files.uri}/{files.name(number)}").num_rows == np.ptp(
            files.bounds(number)
        )
    assert replace(files, rows=2 * PER_FILE).count == 2
    wanted = [(0, 1), (0, 9), (8, 10), (9, 18), (17, 23)]
    assert [list(files.numbers(*w)) for w in wanted] == [[0], [0], [0, 1], [1], [1, 2]]


def test_what_is_written_is_read(files: RowFiles) -> None:
    assert_same(files.slice(0, ROWS), synthetic_rows())


@settings(max_examples=30)
@given(st.data())
def test_positions_over_the_borders_of_files(files: RowFiles, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, ROWS))
    end = data.draw(st.integers(first, ROWS))
    assert_same(files.slice(first, end), synthetic_rows().take(slice(first, end)))
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, ROWS - 1)))), dtype=np.int64)
    assert_same(files.take(chosen), synthetic_rows().take(chosen))


def test_only_the_files_that_hold_the_rows_are_read(tmp_path: Path) -> None:
    found = files_of(str(tmp_path), synthetic_rows(), NAMES, PER_FILE)
    (tmp_path / "rows-00001.parquet").unlink()
    assert_same(found.take(np.array([8, 18])), synthetic_rows().take(np.array([8, 18])))
    with pytest.raises(ArtifactError):
        found.slice(8, 10)


def test_the_same_rows_give_the_same_bytes(files: RowFiles, tmp_path: Path) -> None:
    """In any order of writing, and of rows that were gathered from parts."""
    rows = synthetic_rows()
    again = replace(files, uri=str(tmp_path), checksums=())
    for number in (2, 0, 1):
        first, end = files.bounds(number)
        middle = (first + end) // 2
        parts = [rows.take(slice(first, middle)), rows.take(np.arange(middle, end))]
        assert again.write(number, SyntheticRows.concatenate(parts)) == files.checksums[number]
        content = (tmp_path / files.name(number)).read_bytes()
        assert hashlib.sha256(content).hexdigest() == files.checksums[number]


@pytest.mark.parametrize("moved", [0, 1])
def test_a_set_where_no_row_or_every_row_moved(tmp_path: Path, moved: int) -> None:
    rows = random_rows(ROWS, SHAPE, moved)
    assert_same(files_of(str(tmp_path), rows, NAMES, PER_FILE).slice(0, ROWS), rows)


def test_half_precision_rounds_labels_and_deltas_alone(read: Read) -> None:
    files, expected = read
    assert_same(files.slice(0, ROWS), expected)
    kinds = {files.read(0).schema.field(name).type.value_type for name in (*TENSORS, "delta")}
    assert kinds == {pa.from_numpy_dtype(files.delta_type)}
    assert np.array_equal(expected.deltas, synthetic_rows().deltas) == (kinds == {pa.float32()})


def test_no_delta_takes_no_room(tmp_path: Path) -> None:
    """A null costs a bit at most."""
    count, shape = 2_000, (FIELDS, 32, TASKS)
    sizes = []
    for moved in (0, 1):
        folder = tmp_path / str(moved)
        files_of(str(folder), random_rows(count, shape, moved), NAMES)
        sizes.append((folder / "rows-00000.parquet").stat().st_size)
    deltas = count * FIELDS * 32 * np.dtype(np.float32).itemsize
    assert sizes[1] - sizes[0] > 0.8 * deltas  # random floats hardly pack
    columns = pq.read_metadata(tmp_path / "0" / "rows-00000.parquet").row_group(0)
    packed = {
        columns.column(n).path_in_schema: columns.column(n).total_compressed_size
        for n in range(columns.num_columns)
    }
    assert packed["delta.list.element"] < count / 8


def test_ids_alone_are_read_alone(files: RowFiles) -> None:
    table, rows = files.read(1, [*ANCHORS, "taught"]), synthetic_rows().take(slice(9, 18))
    assert table.column_names == [*ANCHORS, "taught"]
    anchors, taught = anchors_of(table, NAMES), tensor_of(table, "taught")
    assert (anchors.dtype, taught.dtype) == (np.int32, np.float32)
    assert np.array_equal(anchors, rows.anchors)
    assert np.array_equal(taught, rows.taught)


def assert_columns(found: dict[str, list], rows: SyntheticRows) -> None:
    """What another reader makes of the files; to most of them a tensor is a flat list."""
    for field, name in enumerate(ANCHORS):
        assert list(found[name]) == rows.anchors[:, field].tolist()
    for name, array in (("label", rows.labels), ("taught", rows.taught)):
        assert np.array_equal(np.array([np.ravel(v) for v in found[name]], np.float32), array)
    assert [missing(value) for value in found["delta"]] == (~rows.moved).tolist()
    held = [np.ravel(value) for value in found["delta"] if not missing(value)]
    assert np.array_equal(np.array(held, np.float32).reshape(rows.deltas.shape), rows.deltas)
    assert list(found["source_stage"]) == rows.stages.tolist()
    assert list(found["source_row"]) == rows.source_rows.tolist()


def missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def test_pyarrow_reads_files_folder_and_dataset(read: Read) -> None:
    files, rows = read
    parts = [pq.read_table(f"{files.uri}/{files.name(number)}") for number in range(3)]
    opened = pads.dataset(files.uri).to_table()
    for table in (pa.concat_tables(parts), pq.read_table(files.uri), opened):
        assert_columns({name: table[name].to_pylist() for name in table.column_names}, rows)
    for name, shape in TENSORS.items():
        assert parts[0].schema.field(name).type.shape == shape


def test_pandas_reads_them(read: Read) -> None:
    files, rows = read
    frame = pd.read_parquet(files.uri)
    assert_columns({name: list(frame[name]) for name in frame.columns}, rows)


def test_duckdb_reads_them(read: Read) -> None:
    files, rows = read
    result = duckdb.sql(f"select * from read_parquet('{files.uri}/*.parquet')")
    columns = zip(*result.fetchall(), strict=True)
    assert_columns(dict(zip(result.columns, columns, strict=True)), rows)
    moved = duckdb.sql(f"select count(delta) from '{files.uri}/*.parquet'").fetchall()
    assert moved == [(rows.moved.sum(),)]


@pytest.mark.usefixtures("ray_session")
def test_ray_data_reads_them(read: Read) -> None:
    files, rows = read
    found = ray.data.read_parquet(files.uri).take_all()
    place = {row: at for at, row in enumerate(rows.source_rows.tolist())}
    found.sort(key=lambda row: place[row["source_row"]])
    assert_columns({name: [row[name] for row in found] for name in found[0]}, rows)


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b"PAR1"), hashlib.sha256(b"PAR1").hexdigest()),
        (change_a_byte, "[0-9a-f]{64}"),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, damage: Callable[[Path], None], found: str
) -> None:
    files = files_of(str(tmp_path), synthetic_rows(), NAMES, PER_FILE)
    damage(tmp_path / "rows-00002.parquet")
    told = rf"rows-00002\.parquet: its content .* \(SHA-256 {found}\); remove .* distil it again"
    with pytest.raises(ArtifactError, match=told):
        files.slice(0, ROWS)
    assert_same(files.slice(0, 18), synthetic_rows().take(slice(0, 18)))


@pytest.mark.parametrize(
    ("column", "remedy"),
    [("labels", "distill.inner"), ("taught", "reference"), ("deltas", "distill.inner")],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_not_written(
    tmp_path: Path, column: str, remedy: str, value: float
) -> None:
    rows = synthetic_rows(9)
    values = np.array(getattr(rows, column))
    values[-1].flat[0] = value
    row = 8 if column != "deltas" else int(np.flatnonzero(rows.moved)[-1])
    files = files_of(str(tmp_path), rows, NAMES)
    name = column.removesuffix("s")
    told = rf"rows-00000\.parquet: {name} of row {row} is not a finite .*lower {remedy}\.learning"
    with pytest.raises(ArtifactError, match=told):
        files.write(0, replace(rows, **{column: values}))

"""The distilled set on disk: whole or absent, and readable without any code of ours."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import ray.data
from safetensors.numpy import load_file

from diet_ray import documents, storage
from diet_ray.errors import UserError
from diet_ray.logs.blocks import Rows
from diet_ray.memory import artifact
from diet_ray.memory.artifact import Description, RankingData
from diet_ray.memory.files import ArtifactError
from diet_ray.memory.rows import SyntheticRows
from tests.sets import assert_same, files_of, publish_set, random_rows

ROWS, FIELDS, DIM, TASKS, PER_FILE = 23, 3, 4, 2, 9
SAMPLE = "_ranking.safetensors"

DESCRIPTION = Description(
    stage=3,
    rows=ROWS,
    fields=("user", "item", "tab"),
    tasks=("click", "like"),
    embedding_dim=DIM,
    reference="0123456789abcdef",
    reference_uri="s3://bucket/run/reference/t=3",
    made_from={"seed": 7, "memory": {"ratio": 0.015}},
)


def synthetic_rows(count: int = ROWS) -> SyntheticRows:
    return random_rows(count, (FIELDS, DIM, TASKS))


def validation_sample(count: int = 15) -> RankingData:
    """Of a block of 1,000 rows, which holds more ids than the set."""
    draw = np.random.default_rng(3)
    ids = draw.integers(0, 130, (count, FIELDS))
    labels = draw.integers(0, 2, (count, TASKS)).astype(np.float32)
    taught = draw.normal(size=(count, TASKS)).astype(np.float32)
    rows = Rows(np.arange(count) + 4_000, ids, labels)
    return RankingData(rows, taught, of=1_000, full_rows=2_000)


def publish(uri: str, rows: SyntheticRows, ranking: RankingData | None = None) -> None:
    """The rows as stage 3, in files of 9."""
    publish_set(uri, rows, replace(DESCRIPTION, rows=len(rows)), ranking, PER_FILE)


@pytest.fixture
def stage(tmp_path: Path) -> str:
    """A published stage of three files, and a sample of the validation block."""
    uri = str(tmp_path / "distilled" / "stage=3")
    publish(uri, synthetic_rows(), validation_sample())
    return uri


def test_what_is_published_is_read(stage: str) -> None:
    assert artifact.published(stage)
    assert_same(artifact.read(stage), synthetic_rows())
    assert artifact.describe(stage) == DESCRIPTION
    assert sorted(artifact.checksums(stage)) == [f"rows-0000{n}.parquet" for n in range(3)]


def test_files_are_opened_as_they_were_written(tmp_path: Path) -> None:
    """Precision and all, so that any part of them can be read."""
    written = files_of(str(tmp_path), synthetic_rows(), DESCRIPTION.fields, PER_FILE)
    artifact.publish(written, DESCRIPTION)
    assert artifact.open_files(str(tmp_path)) == written
    sums = dict(zip((f"rows-0000{n}.parquet" for n in range(3)), written.checksums, strict=True))
    assert artifact.checksums(str(tmp_path)) == sums
    halves = replace(written, delta_type="float16", label_type="float16")
    artifact.publish(halves, DESCRIPTION)
    assert artifact.open_files(str(tmp_path)) == halves


def test_the_manifest_states_schema_and_versions(stage: str) -> None:
    manifest = storage.read_json(storage.join(stage, "_manifest.json"))
    assert manifest["stored"] == {"label": "float32", "delta": "float32"}
    assert (manifest["rows"], manifest["rows_per_file"]) == (ROWS, PER_FILE)
    assert (manifest["fields"], manifest["tasks"]) == (["user", "item", "tab"], ["click", "like"])
    assert set(manifest["versions"]) == {"diet_ray", "torch", "ray", "pyarrow", "numpy"}
    assert manifest["versions"]["pyarrow"] == pa.__version__


def test_the_summary_tells_people_what_it_is(stage: str) -> None:
    known = [
        "Distilled set, stage 3: 23 rows of 3 fields of width 4.",
        "Fields: user, item, tab.",
        "Tasks: click, like.",
    ]
    with_sample = [
        "Rows: 1.15% of the 2,000 that a full training visits.",
        "Judges: 15 of the 1,000 rows of the validation block.",
    ]
    assert artifact.summary(stage) == "\n".join([*known, *with_sample])
    publish(stage, synthetic_rows())
    assert artifact.summary(stage) == "\n".join(known)


def test_a_run_that_is_moved_still_finds_its_reference(tmp_path: Path) -> None:
    """The manifest names the folder from where the set lies."""
    described = replace(DESCRIPTION, reference_uri=str(tmp_path / "run/reference/t=3"))
    uri = str(tmp_path / "run/distilled/stage=3")
    publish_set(uri, synthetic_rows(), described)
    assert artifact.describe(uri) == described
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    moved = artifact.describe(str(tmp_path / "elsewhere/distilled/stage=3"))
    assert moved.reference_uri == str(tmp_path / "elsewhere/reference/t=3")


def test_anchors_and_the_references_labels_are_read_alone(stage: str) -> None:
    anchors, taught = artifact.read_taught(stage)
    rows = synthetic_rows()
    assert (anchors.dtype, taught.dtype) == (np.int32, np.float32)
    assert np.array_equal(anchors, rows.anchors)
    assert np.array_equal(taught, rows.taught)


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
    assert kinds == {"ids": np.int32, "labels": np.uint8, "taught": np.float32}

    found = artifact.read_ranking_data(stage)
    assert (found.of, found.full_rows) == (1_000, 2_000)
    assert artifact.full_rows(stage) == 2_000
    assert found.rows.row_ids.tolist() == list(range(len(sample.rows)))
    assert (found.rows.ids.dtype, found.rows.labels.dtype) == (np.int64, np.float32)
    assert found.rows.ids.tolist() == expected
    assert np.array_equal(found.rows.labels, sample.rows.labels)
    assert found.taught.dtype == np.float32
    assert np.array_equal(found.taught, sample.taught)


def test_the_sample_has_a_checksum_of_its_own(stage: str) -> None:
    before = artifact.checksums(stage), artifact.ranking_checksum(stage)
    assert before[1] == hashlib.sha256((Path(stage) / SAMPLE).read_bytes()).hexdigest()
    sample = validation_sample()
    taught_otherwise = replace(sample, taught=sample.taught + 1)
    found = {before[1]}
    for other in (validation_sample(14), taught_otherwise):
        publish(stage, synthetic_rows(), other)
        assert artifact.checksums(stage) == before[0]
        found.add(artifact.ranking_checksum(stage))
    assert len(found) == 3


def test_a_stage_without_a_sample_cannot_judge(stage: str) -> None:
    publish(stage, synthetic_rows())
    assert_same(artifact.read(stage), synthetic_rows())
    assert artifact.ranking_checksum(stage) is None
    assert artifact.full_rows(stage) is None
    told = r"stage=3/_manifest\.json: the set holds no validation sample.*name a stage that jobs/"
    with pytest.raises(ArtifactError, match=told):
        artifact.read_ranking_data(stage)


def test_the_same_rows_give_the_same_bytes(stage: str, tmp_path: Path) -> None:
    again = str(tmp_path / "again")
    publish(again, synthetic_rows(), validation_sample())
    for name in ["_manifest.json", SAMPLE, *artifact.checksums(stage)]:
        assert (Path(stage) / name).read_bytes() == (Path(again) / name).read_bytes()


def publish_stage_4(stage: str) -> None:
    """Five rows beside `stage`."""
    described = replace(DESCRIPTION, stage=4, rows=5)
    other = stage.replace("stage=3", "stage=4")
    publish_set(other, synthetic_rows(5), described, validation_sample())


def test_pyarrow_reads_all_stages_together(stage: str) -> None:
    publish_stage_4(stage)
    table = pads.dataset(str(Path(stage).parent), partitioning="hive").to_table()
    assert sorted(table["stage"].to_pylist()) == [3] * ROWS + [4] * 5


def test_duckdb_reads_all_stages_together(stage: str) -> None:
    publish_stage_4(stage)
    found = duckdb.sql(f"select stage from read_parquet('{Path(stage).parent}/**/*.parquet')")
    assert sorted(found.fetchall()) == [(3,)] * ROWS + [(4,)] * 5


@pytest.mark.usefixtures("ray_session")
def test_ray_data_reads_all_stages_together(stage: str) -> None:
    publish_stage_4(stage)
    rows = ray.data.read_parquet(str(Path(stage).parent)).take_all()
    assert sorted(int(row["stage"]) for row in rows) == [3] * ROWS + [4] * 5


def test_a_stage_without_manifest_is_not_there(stage: str) -> None:
    (Path(stage) / "_manifest.json").unlink()
    assert not artifact.published(stage)
    with pytest.raises(ArtifactError, match=r"_manifest\.json: no such file; name a published"):
        artifact.read(stage)


def test_the_manifest_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is there before the stage is visible."""
    uri, written, original = str(tmp_path / "stage=1"), [], storage.write_bytes

    def watched(path: str, content: bytes | memoryview) -> str:
        assert not artifact.published(uri)
        written.append(path.rsplit("/", 1)[1])
        return original(path, content)

    monkeypatch.setattr(storage, "write_bytes", watched)
    publish(uri, synthetic_rows(), validation_sample())
    assert artifact.published(uri)
    assert written == [*(f"rows-0000{n}.parquet" for n in range(3)), SAMPLE, "_manifest.json"]


def test_files_of_an_interrupted_attempt_do_not_stay(stage: str) -> None:
    """A reader of the folder would take them for rows of the stage."""
    (Path(stage) / "_manifest.json").unlink()
    publish(stage, synthetic_rows(4))
    assert len(pq.read_table(stage)) == 4
    assert not (Path(stage) / SAMPLE).exists()


def test_a_stage_is_invisible_before_it_is_removed(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is killed meanwhile leaves no half of a stage to be read."""
    seen, original = [], storage.remove

    def watched(uri: str) -> None:
        original(uri)
        seen.append((artifact.published(stage), storage.exists(stage)))

    monkeypatch.setattr(storage, "remove", watched)
    artifact.clear(stage)
    assert seen == [(False, True), (False, False)]


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
    assert_same(artifact.read(stage), synthetic_rows())  # which needs no sample


def test_another_format_is_refused(stage: str) -> None:
    path = storage.join(stage, "_manifest.json")
    documents.write_sealed(path, {**documents.read_sealed(path), "format": 3})
    with pytest.raises(ArtifactError, match=f"format 3 is not {artifact.FORMAT}; distil again"):
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


@pytest.mark.parametrize("name", ["rows-00000.parquet", "rows-00002.parquet", SAMPLE])
@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_damaged_file_of_a_stage_is_found(stage: str, name: str, damage: str) -> None:
    artifact.check_content(stage)
    assert artifact.missing_files(stage) == []
    path = Path(stage, name)
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert artifact.missing_files(stage) == ([name] if damage == "missing" else [])
    message = rf"{name}: its content is not .*; remove the folder {stage} and distil it again"
    with pytest.raises(ArtifactError, match=message):
        artifact.check_content(stage)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ([], r"holds \[\] instead of keys"),
        (None, "holds None instead of keys"),
        ({"rows": -1}, "rows: -1: Input should be greater than or equal to 0"),
        ({"rows_per_file": 0}, "rows_per_file: 0: Input should be greater than 0"),
        ({"sha256": ["x"]}, "sha256: 1 checksums for 23 rows in files of 9"),
        ({"ranking": {}}, "ranking.validation_rows: Field required"),
        ({"stored": {"label": "float8", "delta": "float16"}}, "stored.label: 'float8': Input sho"),
        ({"more": 1}, "more: unknown"),
    ],
)
def test_a_manifest_that_is_none_is_told_by_its_field(
    stage: str, change: object, told: str
) -> None:
    path = storage.join(stage, "_manifest.json")
    if isinstance(change, dict):
        documents.write_sealed(path, {**documents.read_sealed(path), **change})
    else:
        storage.write_json(path, change)
    for read in (artifact.describe, artifact.open_files, artifact.summary, artifact.read):
        with pytest.raises(
            UserError, match=rf"_manifest\.json: {told}.*; remove the folder {stage}"
        ):
            read(stage)

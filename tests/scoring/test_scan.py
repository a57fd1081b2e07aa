"""A scan: every row's score in row order, whoever computes it and however often it is begun."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from diet_ray import storage
from diet_ray.logs.blocks import Block, Blocks, Fragment, Rows, read_block, read_fragment
from diet_ray.models.functional import FlatNetwork, flatten_parameters
from diet_ray.scoring import scan as scan_module
from diet_ray.scoring.alignment import AlignmentScoring, alignment
from diet_ray.scoring.el2n import EL2NScoring
from diet_ray.scoring.ledger import merged_sketch, read_entries, side_car_uri
from diet_ray.scoring.scan import (
    ALL_ROWS,
    FragmentScorer,
    Sample,
    Scan,
    ScanError,
    ScanTask,
    Scoring,
    label_groups,
    scan,
)
from diet_ray.training.reference import Reference
from diet_ray.training.shared_reference import share_reference
from tests.made import made_blocks, made_rows
from tests.networks import small_network
from tests.scoring.prepared import Deadly, Prepared, RowIds, Undefined

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("ray_session")


def el2n_scoring(prepared: Prepared) -> EL2NScoring:
    return EL2NScoring(prepared.reference_uri, prepared.reference.identity)


def row_ids(prepared: Prepared) -> RowIds:
    return RowIds(prepared.reference_uri)


def side_cars(found: Scan) -> pa.Table:
    files = [side_car_uri(found.uri, fragment) for fragment in found.fragments]
    return pa.concat_tables([pq.read_table(file) for file in files])


def contents(folder: str) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of change of every file below a folder."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def bytes_of(folder: str) -> dict[str, bytes]:
    return {name: content for name, (content, _) in contents(folder).items()}


@pytest.fixture(scope="module")
def scanned(
    prepared: Prepared, tmp_path_factory: pytest.TempPathFactory, ray_session: None
) -> Scan:
    """EL2N of the whole block by one worker; only to be read."""
    uri = str(tmp_path_factory.mktemp("scan"))
    return scan(prepared.config, prepared.blocks, prepared.block, el2n_scoring(prepared), uri)


def test_every_row_is_scored_in_row_order(prepared: Prepared, scanned: Scan) -> None:
    rows, table = read_block(prepared.blocks, prepared.block), side_cars(scanned)
    expected = el2n_scoring(prepared).load(prepared.reference, CPU)(rows)
    assert np.array_equal(table["row_id"], rows.row_ids)
    assert np.array_equal(table["group"], label_groups(rows.labels))
    np.testing.assert_allclose(table["score"], expected, rtol=1e-5)
    assert [str(kind) for kind in table.schema.types] == ["int64", "int32", "float"]


def test_the_ledger_counts_every_label_group(prepared: Prepared, scanned: Scan) -> None:
    groups, scores = (side_cars(scanned)[name].to_numpy() for name in ("group", "score"))
    present, counts = np.unique(groups, return_counts=True)
    assert scanned.group_rows == dict(zip(present.tolist(), counts.tolist(), strict=True))
    assert list(scanned.group_rows) == sorted(scanned.group_rows)
    for group in present:
        sketch = merged_sketch(scanned.entries, int(group))
        assert sketch.n == (groups == group).sum()
        assert sketch.get_max_value() == scores[groups == group].max()


@pytest.mark.parametrize(
    ("gpus", "turns"), [(0, 3), (0, 1), (0.5, 1)], ids=["tasks", "tasks of several", "actors"]
)
def test_two_workers_write_the_same_bytes(
    prepared: Prepared,
    scanned: Scan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: float,
    turns: int,
) -> None:
    """The GPU is one that the tests' Ray only says it has."""
    monkeypatch.setattr(scan_module, "TURNS", turns)
    asked = {"scoring_workers": (2, 2), "scoring_gpus": gpus}
    resources = prepared.config.resources.model_copy(update=asked)
    config = prepared.config.model_copy(update={"resources": resources})
    scan(config, prepared.blocks, prepared.block, el2n_scoring(prepared), str(tmp_path))
    assert bytes_of(str(tmp_path)) == bytes_of(scanned.uri)


def test_only_what_the_ledger_lacks_is_scored_again(
    prepared: Prepared, scanned: Scan, tmp_path: Path
) -> None:
    for name, content in bytes_of(scanned.uri).items():
        storage.write_bytes(storage.join(str(tmp_path), name), content)
    lost = next((tmp_path / "ledger").glob("*00002*"))
    lost.unlink()
    before = contents(str(tmp_path))
    again = scan(
        prepared.config, prepared.blocks, prepared.block, el2n_scoring(prepared), str(tmp_path)
    )
    assert again.entries == scanned.entries
    assert bytes_of(str(tmp_path)) == bytes_of(scanned.uri)
    changed = {n for n, file in contents(str(tmp_path)).items() if before.get(n) != file}
    assert len(changed) == 2
    assert all("00002" in name for name in changed)


def test_what_is_damaged_is_scored_again(prepared: Prepared, scanned: Scan, tmp_path: Path) -> None:
    """A side-car that is gone, one that is cut, an entry without content."""
    for name, content in bytes_of(scanned.uri).items():
        storage.write_bytes(storage.join(str(tmp_path), name), content)
    gone, cut = (Path(side_car_uri(str(tmp_path), f)) for f in scanned.fragments[:2])
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-100])
    next((tmp_path / "ledger").glob("*00002*")).write_text("[]")
    scoring = el2n_scoring(prepared)
    again = scan(prepared.config, prepared.blocks, prepared.block, scoring, str(tmp_path))
    assert again.entries == scanned.entries
    assert bytes_of(str(tmp_path)) == bytes_of(scanned.uri)


def test_a_finished_scan_starts_no_pipeline(
    prepared: Prepared, scanned: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_module, "_pipeline", None)
    again = scan(
        prepared.config, prepared.blocks, prepared.block, el2n_scoring(prepared), scanned.uri
    )
    assert again == scanned


def test_a_sample_is_scored_by_alignment(prepared: Prepared, tmp_path: Path) -> None:
    reference, network = prepared.reference, small_network("wukong")  # not the reference's own
    dense = reference.fresh(network, 1)
    theta = flatten_parameters(dense).numpy()
    direction = np.random.default_rng(0).normal(size=theta.shape).astype(np.float32)
    scoring = AlignmentScoring.put(
        prepared.reference_uri, reference.identity, network, theta, direction
    )
    sample = Sample(0.3, 7, ("candidates", 1))
    found = scan(prepared.config, prepared.blocks, prepared.block, scoring, str(tmp_path), sample)
    rows = sample.of(read_block(prepared.blocks, prepared.block))
    assert 0 < len(rows) < prepared.block.rows
    assert sum(found.group_rows.values()) == len(rows)
    table = side_cars(found)
    assert np.array_equal(table["row_id"], rows.row_ids)
    embeddings = reference.table(torch.from_numpy(rows.ids)).detach()
    expected = alignment(
        FlatNetwork(dense),
        torch.from_numpy(theta),
        torch.from_numpy(direction),
        embeddings,
        torch.from_numpy(rows.labels),
    )
    np.testing.assert_allclose(table["score"], expected, rtol=1e-4, atol=1e-6)


def test_a_killed_worker_does_not_lose_the_scan(prepared: Prepared, tmp_path: Path) -> None:
    row_id = prepared.block.fragments[2].first_row_id + 5
    scoring = Deadly(prepared.reference_uri, row_id, tmp_path / "killed")
    found = scan(prepared.config, prepared.blocks, prepared.block, scoring, str(tmp_path / "scan"))
    assert scoring.marker.exists()
    assert [entry.fragment for entry in found.entries] == [f.path for f in prepared.block.fragments]
    row_ids = read_block(prepared.blocks, prepared.block).row_ids
    assert np.array_equal(side_cars(found)["score"], row_ids.astype(np.float32))


def scorer_of(prepared: Prepared, scoring: Scoring, uri: str) -> FragmentScorer:
    reference = share_reference(prepared.reference_uri, prepared.config.resources.scoring_cpus)
    keys = {fragment.path: "key" for fragment in prepared.block.fragments}
    task = ScanTask(
        prepared.config, prepared.blocks, prepared.block, uri, ALL_ROWS, keys, reference
    )
    return FragmentScorer(task, scoring)


def test_a_fragment_is_read_while_another_is_scored(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first fragment's scores wait for the second to be read."""
    first, second = (fragment.path for fragment in prepared.block.fragments[:2])
    is_read, scored_by = threading.Event(), set()

    def read(blocks: Blocks, block: Block, fragment: Fragment) -> Rows:
        rows = read_fragment(blocks, block, fragment)
        if fragment.path == second:
            is_read.set()
        return rows

    class Waiting(RowIds):
        def load(self, reference: Reference, device: torch.device) -> Callable[[Rows], Tensor]:
            def score(rows: Rows) -> Tensor:
                assert is_read.wait(timeout=60)
                scored_by.add((threading.get_ident(), torch.get_num_threads()))
                return torch.from_numpy(rows.row_ids).float()

            return score

    monkeypatch.setattr(scan_module, "read_fragment", read)
    scorer = scorer_of(prepared, Waiting(prepared.reference_uri), str(tmp_path))
    counts = scorer({"fragments": np.array([[first, second]])})
    assert counts["rows"].tolist() == [sum(f.rows for f in prepared.block.fragments[:2])]
    assert len(scored_by) == 1  # one thread, whichever thread read
    assert scored_by.pop()[1] == prepared.config.threads


@pytest.mark.parametrize("lost", ["write_parquet", "write_json"])
def test_a_fragment_that_cannot_be_written_has_no_entry(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    def full(uri: str, *_: object, **_options: object) -> None:
        raise storage.StorageError(f"{uri}: no space left")

    monkeypatch.setattr(storage, lost, full)
    fragment = prepared.block.fragments[0]
    scorer = scorer_of(prepared, row_ids(prepared), str(tmp_path))
    with pytest.raises(storage.StorageError, match="no space left"):
        scorer({"fragments": np.array([[fragment.path]])})
    assert read_entries(str(tmp_path), {fragment.path: fragment}, {fragment.path: "key"}) == []


@pytest.fixture
def own_blocks(tmp_path: Path) -> Blocks:
    """Blocks that a test may damage."""
    return made_blocks(str(tmp_path / "blocks"), rows=250, historical=1)


def test_a_truncated_fragment_is_named(
    prepared: Prepared, own_blocks: Blocks, tmp_path: Path
) -> None:
    block = own_blocks.historical[0]
    path = Path(own_blocks.uri, block.fragments[1].path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(storage.StorageError, match=r"fragment-00001\.parquet: .*remove the fo"):
        scan(prepared.config, own_blocks, block, row_ids(prepared), str(tmp_path / "scan"))


def test_a_score_that_is_no_number_stops_the_scan(
    prepared: Prepared, own_blocks: Blocks, tmp_path: Path
) -> None:
    block, scoring = own_blocks.historical[0], Undefined(prepared.reference_uri, 123)
    with pytest.raises(ScanError, match=r"fragment-00001.*row 123.*nan.*learning_rate"):
        scan(prepared.config, own_blocks, block, scoring, str(tmp_path / "scan"))


def test_a_changed_fragment_is_scored_again(
    prepared: Prepared, own_blocks: Blocks, tmp_path: Path
) -> None:
    block, uri = own_blocks.historical[0], str(tmp_path / "scan")
    scan(prepared.config, own_blocks, block, row_ids(prepared), uri)
    place = storage.join(own_blocks.uri, block.fragments[0].path)
    before = contents(uri)
    storage.write_bytes(place, storage.read_bytes(place))
    scan(prepared.config, own_blocks, block, row_ids(prepared), uri)
    changed = {n for n, file in contents(uri).items() if before.get(n) != file}
    assert all("00000" in name for name in changed)
    assert len(changed) == 2


def test_a_sample_is_the_same_rows_wherever_they_are_read() -> None:
    rows = made_rows(1_000, {"a": 5}, 1, seed=0, first_row_id=77)
    sample = Sample(0.25, 3, ("candidates", 2))
    whole = sample.of(rows)
    parts = [sample.of(rows.take(slice(start, start + 91))) for start in range(0, 1_000, 91)]
    assert np.array_equal(Rows.concatenate(parts).row_ids, whole.row_ids)
    assert 0.2 < len(whole) / 1_000 < 0.3
    other = replace(sample, path=("candidates", 3)).of(rows)
    assert not np.array_equal(whole.row_ids, other.row_ids)
    assert len(replace(sample, fraction=1.0).of(rows)) == 1_000


def test_a_label_group_is_named_by_its_labels() -> None:
    labels = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1]], dtype=np.float32)
    assert label_groups(labels).tolist() == [0, 1, 2, 5]

"""Selections of rows, against slow ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diet_ray import documents, storage
from diet_ray.evaluation import selection
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.selection import (
    cluster_centres,
    el2n_row_ids,
    kmeans_row_ids,
    nearest_row_ids,
    random_row_ids,
    selected_rows,
    selection_key,
)
from diet_ray.logs.blocks import Block, Rows, read_block
from diet_ray.progress import Phase
from diet_ray.training.model import predict
from diet_ray.training.reference import Reference, load_reference, reference_uri
from tests.evaluation.prepared import RATIO, STAGES, Prepared

PHASE = Phase("test", 0, "rows")


def ids_of(block: Block) -> np.ndarray:
    return np.arange(block.rows) + block.fragments[0].first_row_id


def vectors(reference: Reference, rows: Rows) -> np.ndarray:
    """Embeddings side by side, float64 (n, F * d)."""
    return reference.table(torch.from_numpy(rows.ids)).detach().flatten(1).double().numpy()


@pytest.mark.parametrize("method", ["random", "kmeans"])
def test_every_block_gives_its_share_without_repetition(prepared: Prepared, method: str) -> None:
    run = prepared.run()
    rows = selected_rows(run, method, 0)
    assert len(rows) == round(RATIO * 600)
    assert (np.diff(rows.row_ids) > 0).all(), "in time order, none twice"
    for block, size in zip(run.blocks.historical, run.selection_sizes(), strict=True):
        assert np.isin(rows.row_ids, ids_of(block)).sum() == size == 20
    history = Rows.concatenate([read_block(run.blocks, b) for b in run.blocks.historical])
    assert np.array_equal(rows.ids, history.ids[rows.row_ids])
    assert np.array_equal(rows.labels, history.labels[rows.row_ids])


@pytest.mark.parametrize("method", ["random", "kmeans"])
def test_a_selection_belongs_to_its_seed(trained: Prepared, tmp_path: Path, method: str) -> None:
    """It is the same wherever and whenever it is drawn; another seed draws another."""
    one, two = (trained.copy(tmp_path / name).run() for name in ("one", "two"))
    first = selected_rows(one, method, 0).row_ids
    assert np.array_equal(selected_rows(two, method, 0).row_ids, first)
    assert not np.array_equal(selected_rows(one, method, 1).row_ids, first)
    other = replace(one, config=trained.copy(tmp_path / "other").config(seed=6))
    assert not np.array_equal(selected_rows(other, method, 0).row_ids, first)


def test_all_rows_can_be_drawn_at_random(prepared: Prepared) -> None:
    block = prepared.blocks.historical[1]
    found = random_row_ids(prepared.run(), block, 2, block.rows, 0)
    assert np.array_equal(np.sort(found), ids_of(block))
    assert not np.array_equal(found, ids_of(block))


@pytest.mark.parametrize("method", ["random", "kmeans"])
def test_what_is_kept_is_not_drawn_again(
    prepared: Prepared, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = selected_rows(prepared.run(), method, 0)
    files = storage.list_files(prepared.config().place("evaluation", "selections"))
    assert len(files) == 1

    def never(*_: object) -> np.ndarray:
        raise AssertionError("drawn again")

    monkeypatch.setattr(selection, f"{method}_row_ids", never)
    assert np.array_equal(selected_rows(prepared.run(), method, 0).row_ids, first.row_ids)
    with pytest.raises(AssertionError, match="drawn again"):
        selected_rows(prepared.run(), method, 1)


def key(prepared: Prepared, method: str, **overrides: Any) -> dict[str, object]:
    return selection_key(prepared.run(**overrides), method, 0)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"memory": {"ratio": 0.05}}, {"random", "kmeans", "el2n"}),
        ({"seed": 6}, {"random", "kmeans"}),
        ({"benchmark": {"percentile": 50}}, {"el2n"}),
        ({"memory": {"percentile": 50}}, set()),
        ({"distill": {"rounds": 1}, "resources": {"meta_workers": 3}}, set()),
    ],
)
def test_the_key_of_a_selection(
    prepared: Prepared, overrides: dict[str, Any], expected: set[str]
) -> None:
    methods = {"random", "kmeans", "el2n"}
    assert {m for m in methods if key(prepared, m, **overrides) != key(prepared, m)} == expected


def test_another_reference_makes_another_selection(prepared: Prepared) -> None:
    before = {method: key(prepared, method) for method in ("random", "kmeans", "el2n")}
    path = storage.join(reference_uri(prepared.config(), 1), "reference.json")
    documents.write_sealed(path, {**documents.read_sealed(path), "identity": "f" * 64})
    after = {method: key(prepared, method) for method in before}
    assert {method for method in before if before[method] != after[method]} == {"kmeans", "el2n"}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("percentile", "count"), [(90, 20), (50, 41), (99.5, 30)])
def test_el2n_is_the_band_of_all_scores_in_order(
    prepared: Prepared, percentile: float, count: int
) -> None:
    run, block = prepared.run(benchmark={"percentile": percentile}), prepared.blocks.historical[1]
    rows = read_block(run.blocks, block)
    model = load_reference(reference_uri(run.config, 2)).recommender
    probability = 1 / (1 + np.exp(-predict(model, rows.ids).astype(np.float64)))
    scores = np.sqrt(((probability - rows.labels) ** 2).sum(axis=1))
    first = min(max(round(300 * percentile / 100 - count / 2), 0), 300 - count)
    order = np.lexsort((rows.row_ids, scores.round(6)))  # equal rows have equal scores
    found = el2n_row_ids(run, block, 2, count, 0)
    assert len(set(found.tolist())) == count
    by_id = dict(zip(rows.row_ids.tolist(), scores, strict=True))
    expected = scores[order][first : first + count]
    np.testing.assert_allclose(sorted(by_id[row] for row in found.tolist()), expected, atol=1e-6)
    assert np.array_equal(found, np.sort(rows.row_ids[order[first : first + count]]))


def clustered(run: Run, stage: int, count: int) -> tuple[np.ndarray, np.ndarray, Reference]:
    """Centres and nearest rows of D_t."""
    block, reference = (
        run.blocks.historical[stage - 1],
        load_reference(reference_uri(run.config, stage)),
    )
    centres = cluster_centres(run.blocks, block, reference, count, 11, PHASE)
    return centres, nearest_row_ids(run.blocks, block, reference, centres, PHASE), reference


def nearest_by_hand(points: np.ndarray, centres: np.ndarray) -> list[tuple[int, float]]:
    """Position and distance of the member of every cluster that is nearest to its centre."""
    far = np.linalg.norm(points[:, None] - centres[None].astype(np.float64), axis=2)
    found = []
    for centre in range(len(centres)):
        members = np.flatnonzero(far.argmin(axis=1) == centre)
        best = members[far[members, centre].argmin()] if len(members) else -1
        found.append((int(best), float(far[best, centre]) if len(members) else np.inf))
    return found


@pytest.mark.parametrize("batch", [50, 8_192])
def test_of_every_cluster_the_row_nearest_to_its_centre(
    prepared: Prepared, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "CLUSTERING_BATCH", batch)
    run, block = prepared.run(), prepared.blocks.historical[1]
    centres, found, reference = clustered(run, 2, 12)
    assert centres.shape == (12, 3 * 4)
    points = vectors(reference, read_block(run.blocks, block))
    for centre, row_id, (position, distance) in zip(
        centres, found, nearest_by_hand(points, centres), strict=True
    ):
        if position < 0:
            assert row_id == -1
            continue
        chosen = points[row_id - block.fragments[0].first_row_id]
        assert np.linalg.norm(chosen - centre) == pytest.approx(distance, abs=1e-5)


def test_the_centres_are_better_than_rows_at_random(prepared: Prepared) -> None:
    run = prepared.run()
    centres, _, reference = clustered(run, 1, 15)
    points = vectors(reference, read_block(run.blocks, run.blocks.historical[0]))

    def inertia(of: np.ndarray) -> float:
        far = np.linalg.norm(points[:, None] - of[None], axis=2)
        return float((far.min(axis=1) ** 2).sum())

    draw = np.random.default_rng(0)
    guesses = [inertia(points[draw.choice(len(points), 15, replace=False)]) for _ in range(20)]
    assert inertia(centres) < min(guesses)


def test_of_equally_near_rows_the_first_and_of_an_empty_cluster_none(prepared: Prepared) -> None:
    run, block = prepared.run(), prepared.blocks.historical[0]
    reference = load_reference(reference_uri(run.config, 1))
    points = vectors(reference, read_block(run.blocks, block))
    position = next(p for p in range(1, 300) if (points == points[p]).all(axis=1).sum() == 1)
    centres = np.stack([points[position], points[position], points[0] + 100]).astype(np.float32)
    found = nearest_row_ids(run.blocks, block, reference, centres, PHASE)
    assert found.tolist() == [block.fragments[0].first_row_id + position, -1, -1]


def alike(rows: int) -> Callable[[Reference, Rows], np.ndarray]:
    """Embeddings of which only `rows` differ."""

    def embed(_: Reference, batch: Rows) -> np.ndarray:
        kind = (batch.row_ids % rows).astype(np.float32)
        return np.stack([kind * 10, -kind], axis=1)

    return embed


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_few_distinct_rows_are_filled_up_at_random(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_flat_embeddings", alike(4))
    run, block = prepared.run(), prepared.blocks.historical[1]
    found, again, other = (kmeans_row_ids(run, block, 2, 25, seed) for seed in (0, 0, 1))
    assert len(set(found.tolist())) == len(found) == 25
    assert np.isin(found, ids_of(block)).all()
    assert set((found % 4).tolist()) == {0, 1, 2, 3}
    assert np.array_equal(found, again)
    assert not np.array_equal(found, other)


@pytest.mark.parametrize("count", [0, 1, 300])
def test_the_ends_of_k_means(prepared: Prepared, count: int) -> None:
    block = prepared.blocks.historical[STAGES - 1]
    found = kmeans_row_ids(prepared.run(), block, STAGES, count, 0)
    assert found.dtype == np.int64
    assert len(set(found.tolist())) == count

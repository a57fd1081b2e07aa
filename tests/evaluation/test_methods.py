"""The reduced sets that candidates are warmed up on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from diet_ray.evaluation.methods import (
    METHODS,
    REDUCED,
    random_rows,
    teacher_labelled,
    warm_up_rows,
)
from diet_ray.logs.blocks import Rows, read_block
from tests.evaluation.prepared import DISTILLED_ROWS, Prepared


def all_history(prepared: Prepared) -> Rows:
    return Rows.concatenate([read_block(prepared.blocks, b) for b in prepared.blocks.historical])


def drawn_ids(prepared: Prepared, counts: Iterable[tuple[int, int]]) -> list[list[int]]:
    found = (random_rows(prepared.config, prepared.blocks, *pair) for pair in counts)
    return [rows.row_ids.tolist() for rows in found]


def test_a_random_selection_is_without_replacement_and_in_time_order(prepared: Prepared) -> None:
    rows, history = random_rows(prepared.config, prepared.blocks, 90, seed=0), all_history(prepared)
    assert len(rows) == 90
    assert (np.diff(rows.row_ids) > 0).all()
    place = np.searchsorted(history.row_ids, rows.row_ids)
    assert np.array_equal(history.ids[place], rows.ids)
    assert np.array_equal(history.labels[place], rows.labels)


def test_a_random_selection_belongs_to_its_seed(prepared: Prepared) -> None:
    first, again, other = drawn_ids(prepared, [(90, 0), (90, 0), (90, 1)])
    assert first == again
    assert first != other


def test_every_block_gives_its_share(prepared: Prepared) -> None:
    """Of 600 rows 60 are drawn 40 times: each block gives half of them, up to chance."""
    ids = np.concatenate(drawn_ids(prepared, [(60, seed) for seed in range(40)]))
    assert abs((ids < 300).mean() - 0.5) < 0.05
    assert len(np.unique(ids)) > 560


def test_all_rows_may_be_drawn(prepared: Prepared) -> None:
    (ids,) = drawn_ids(prepared, [(600, 0)])
    assert ids == list(range(600))


def test_a_random_selection_carries_the_references_soft_labels(prepared: Prepared) -> None:
    rows = random_rows(prepared.config, prepared.blocks, 30, seed=2)
    made = teacher_labelled(rows, prepared.reference)
    with torch.no_grad():
        embeddings = prepared.reference.table(torch.from_numpy(rows.ids))
        logits = prepared.reference.dense(embeddings)
    assert torch.equal(made.embeddings, embeddings)
    torch.testing.assert_close(made.labels, logits)
    assert made.weights.tolist() == [1.0] * 30


def test_every_reduced_set_has_as_many_rows(prepared: Prepared) -> None:
    assert set(REDUCED) < set(METHODS)
    for method in REDUCED:
        rows = warm_up_rows(
            method, prepared.config, prepared.blocks, prepared.reference, prepared.distilled, 0
        )
        assert len(rows.embeddings) == len(rows.labels) == len(rows.weights) == DISTILLED_ROWS


def test_the_distilled_set_brings_its_own_weights(prepared: Prepared) -> None:
    made = warm_up_rows(
        "distilled", prepared.config, prepared.blocks, prepared.reference, prepared.distilled, 0
    )
    np.testing.assert_allclose(made.weights, np.linspace(0.5, 1.5, DISTILLED_ROWS), rtol=1e-6)
    assert set(made.labels.unique().tolist()) == {-2.0, 2.0}

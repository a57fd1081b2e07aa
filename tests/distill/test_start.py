"""The rows that a stage starts with: made of real ones, or carried over from the memory before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diet_ray.config import RunConfig
from diet_ray.distill.start import StageModels, carried_over, synthesise
from diet_ray.logs.blocks import Rows, read_block
from tests.distill.prepared import Prepared, embedded, phi, run_config


def models(config: RunConfig) -> StageModels:
    return StageModels(config, 2, lambda t: phi(config, t))


def first_rows(prepared: Prepared) -> Rows:
    return read_block(prepared.blocks, prepared.blocks.historical[0]).take(slice(0, 90))


def test_synthetic_rows_are_what_the_reference_makes_of_real_ones(prepared: Prepared) -> None:
    reference = phi(run_config(prepared.folder), 2)
    rows = read_block(prepared.blocks, prepared.blocks.historical[1]).take(slice(5, 40))
    made = synthesise(rows, reference)
    embeddings, _ = embedded(reference, rows)
    assert (made.embeddings(reference.table) == embeddings.numpy()).all()
    assert (made.labels == reference.dense(embeddings).numpy()).all()
    assert (made.taught == made.labels).all()
    assert (made.stages == 2).all()
    assert (made.source_rows == rows.row_ids).all()
    assert (made.anchors == rows.ids).all()
    assert not made.moved.any()
    assert made.deltas.shape == (0, *embeddings.shape[1:])


def test_soft_labels_may_start_blended_with_the_truth(prepared: Prepared) -> None:
    rows, reference = first_rows(prepared), phi(run_config(prepared.folder), 2)
    plain, mixed = synthesise(rows, reference), synthesise(rows, reference, 0.3)
    taught = 1 / (1 + np.exp(-plain.labels.astype(np.float64)))
    blended = 1 / (1 + np.exp(-mixed.labels.astype(np.float64)))
    assert np.abs(blended - (0.7 * taught + 0.3 * rows.labels)).max() < 1e-6
    assert (mixed.taught == plain.labels).all()


@pytest.mark.parametrize("unseen", [False, True])
def test_an_anchored_row_keeps_what_it_learned_when_the_reference_moves(
    prepared: Prepared, unseen: bool
) -> None:
    config = run_config(prepared.folder, memory={"anchored": True}, distill={"unseen": unseen})
    rows, (old, new) = first_rows(prepared), (phi(config, 1), phi(config, 2))
    start, draw = synthesise(rows, old), np.random.default_rng(0)
    deltas = draw.normal(size=(len(rows), *start.deltas.shape[1:])).astype(np.float32)
    learned = replace(start.with_deltas(deltas), labels=start.labels + 0.25)
    followed, fresh = carried_over(learned, models(config)), synthesise(rows, new)
    assert followed.deltas.tobytes() == deltas.tobytes()
    assert np.abs(followed.labels - fresh.labels - 0.25).max() < 1e-5
    assert (followed.taught == fresh.taught).all()
    assert followed.labels.dtype == np.float32
    assert (followed.stages == 1).all()


def test_a_row_without_anchor_stays_where_it_is(prepared: Prepared) -> None:
    """In phi_{t-1}'s space, whatever phi_t makes of its ids (the paper's memory)."""
    config = run_config(prepared.folder, memory={"anchored": False}, distill={"unseen": False})
    rows, (old, new) = first_rows(prepared), (phi(config, 1), phi(config, 2))
    start = synthesise(rows, old)
    moved = np.arange(len(rows)) % 2 == 0
    deltas = np.full((int(moved.sum()), *start.deltas.shape[1:]), 0.125, dtype=np.float32)
    learned = replace(start, moved=moved, deltas=deltas)
    stayed = carried_over(learned, models(config))
    before, after = learned.embeddings(old.table), stayed.embeddings(new.table)
    assert np.abs(after - before).max() < 1e-6
    assert not np.allclose(stayed.embeddings(new.table), start.embeddings(new.table), atol=1e-3)
    assert (stayed.labels == learned.labels).all()
    assert (stayed.taught == synthesise(rows, new).taught).all()

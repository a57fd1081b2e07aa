"""Algorithm 1: sizes, the band of new rows, their synthetic form, and what fusion keeps."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.config import ConfigError
from diet_ray.distill.boundary import (
    follow_reference,
    fuse,
    memory_sizes,
    new_rows,
    re_embed,
    synthesise,
)
from diet_ray.distill.context import stage_uri
from diet_ray.distill.proxy import embedding_stage, inner_start
from diet_ray.distill.worker import RealRows
from diet_ray.logs.blocks import Block, Blocks, read_block
from diet_ray.memory import artifact
from diet_ray.training.reference import load_reference, reference_uri
from tests.distill.prepared import (
    Prepared,
    assert_smallest,
    embedded,
    network_of,
    open_stage,
    row_gradients,
    run_config,
)
from tests.distill.slow import Phi, band_of_a_sort
from tests.made import small_config


def sized_blocks(rows: list[int]) -> Blocks:
    blocks = tuple(
        Block(f"historical-{t}", "historical", "", count, {}, {}) for t, count in enumerate(rows, 1)
    )
    return Blocks("nowhere", (), (), blocks, 1, "", 0, {}, 0)


@given(
    rows=st.lists(st.integers(200, 5_000), min_size=1, max_size=6),
    ratio=st.floats(0.01, 0.2),
    keep=st.floats(0, 1),
)
def test_the_memory_follows_the_stream_at_its_ratio(
    rows: list[int], ratio: float, keep: float
) -> None:
    config = small_config("nowhere", memory={"ratio": ratio, "keep": keep})
    sizes = memory_sizes(config, sized_blocks(rows))
    totals = [new + kept for new, kept in sizes]
    # a block too small to fill what fusion freed leaves the memory smaller, never larger
    short = [new == count for (new, _), count in zip(sizes, rows, strict=True)]
    for total, seen, is_short in zip(totals, accumulate(rows), short, strict=True):
        wanted = round(ratio * seen)
        assert total == wanted or (is_short and total < wanted)
    assert [kept for _, kept in sizes] == [round(keep * total) for total in (0, *totals[:-1])]
    assert all(0 < new <= count for (new, _), count in zip(sizes, rows, strict=True))


@pytest.mark.parametrize(
    ("rows", "memory", "block"),
    [
        ([20, 20], {"ratio": 0.01}, "historical-1"),
        ([1000, 3], {"ratio": 0.01, "keep": 1.0}, "historical-2"),
    ],
)
def test_a_ratio_that_selects_nothing_is_refused(
    rows: list[int], memory: dict[str, float], block: str
) -> None:
    config = small_config("nowhere", memory=memory)
    message = rf"memory\.ratio 0\.01 selects no new row of {block} \({rows[-1]} rows\); raise"
    with pytest.raises(ConfigError, match=message):
        memory_sizes(config, sized_blocks(rows))


def test_synthetic_rows_are_what_the_reference_makes_of_real_ones(prepared: Prepared) -> None:
    reference = load_reference(reference_uri(run_config(prepared.folder), 2))
    rows = read_block(prepared.blocks, prepared.blocks.historical[1]).take(slice(5, 40))
    made = synthesise(rows, reference)
    embeddings, _ = embedded(reference, rows)
    assert (made.embeddings == embeddings.numpy()).all()
    assert (made.labels == reference.dense(embeddings).numpy()).all()
    assert (made.stages == 2).all()
    assert (made.source_rows == rows.row_ids).all()
    assert (made.anchors == rows.ids).all()


def test_soft_labels_may_start_blended_with_the_truth(prepared: Prepared) -> None:
    config, block = run_config(prepared.folder), prepared.blocks.historical[1]
    rows, reference = read_block(prepared.blocks, block), load_reference(reference_uri(config, 2))
    taught = 1 / (1 + np.exp(-synthesise(rows, reference).labels.astype(np.float64)))
    blended = 1 / (1 + np.exp(-synthesise(rows, reference, 0.3).labels.astype(np.float64)))
    assert np.abs(blended - (0.7 * taught + 0.3 * rows.labels)).max() < 1e-6


def test_an_anchored_row_keeps_what_it_learned_when_the_reference_moves(
    prepared: Prepared,
) -> None:
    config, block = run_config(prepared.folder), prepared.blocks.historical[0]
    old, new = (load_reference(reference_uri(config, t)) for t in (1, 2))
    rows = read_block(prepared.blocks, block)
    learned = np.random.default_rng(0).normal(size=synthesise(rows, old).embeddings.shape)
    start = synthesise(rows, old)
    moved = replace(start, embeddings=start.embeddings + learned.astype(np.float32))
    followed, fresh = follow_reference(moved, old, new), synthesise(rows, new)
    assert np.abs(followed.embeddings - fresh.embeddings - learned).max() < 1e-5
    assert np.abs(followed.labels - fresh.labels).max() < 1e-5
    assert followed.embeddings.dtype == followed.labels.dtype == np.float32
    assert (followed.stages == 1).all()


def test_rows_go_to_another_space_and_back(prepared: Prepared) -> None:
    config, block = run_config(prepared.folder), prepared.blocks.historical[0]
    old, new = (load_reference(reference_uri(config, t)) for t in (1, 2))
    rows = synthesise(read_block(prepared.blocks, block), old)
    there = re_embed(rows, old, new)
    real = torch.from_numpy(rows.anchors.astype(np.int64))
    assert np.abs(there.embeddings - new.table(real).detach().numpy()).max() < 1e-6
    assert (there.labels == rows.labels).all()
    assert np.abs(re_embed(there, new, old).embeddings - rows.embeddings).max() < 1e-6


def test_new_rows_at_random_are_a_function_of_the_seed(prepared: Prepared) -> None:
    def drawn(seed: int) -> list[int]:
        config = run_config(prepared.folder, memory={"new_rows": "random"}, seed=seed)
        stage = replace(open_stage(run_config(prepared.folder), prepared.blocks, 2), config=config)
        return new_rows(stage, 30).row_ids.tolist()

    rows = drawn(0)
    assert rows == sorted(set(rows)) == drawn(0) != drawn(1)
    every = read_block(prepared.blocks, prepared.blocks.historical[1]).row_ids
    assert len(rows) == 30
    assert set(rows) <= set(every.tolist())


def test_unseen_rows_are_embedded_by_the_previous_reference(prepared: Prepared) -> None:
    config = run_config(prepared.folder, memory={"anchored": True}, distill={"unseen": True})
    assert [embedding_stage(config, t) for t in (1, 2, 3)] == [1, 1, 2]
    stage = open_stage(config, prepared.blocks, 2)
    assert (stage.reference.stage, stage.embedder.stage) == (2, 1)
    rows = read_block(prepared.blocks, prepared.blocks.historical[1])
    theta, count = inner_start(config, 2, 0), len(rows)
    found = stage.workers.summed_gradient(2, RealRows(rows), count, theta)
    embeddings, labels = embedded(load_reference(reference_uri(config, 1)), rows)
    expected = row_gradients(network_of(stage.reference), theta, embeddings, labels)
    assert np.allclose(found, np.asarray(expected).sum(axis=0), rtol=1e-3, atol=1e-4)


def test_new_rows_are_the_band_of_a_sort_in_memory(undisturbed: Prepared) -> None:
    config, blocks = run_config(undisturbed.folder), undisturbed.blocks
    rows, (wanted, _) = read_block(blocks, blocks.historical[0]), memory_sizes(config, blocks)[0]
    expected = band_of_a_sort(Phi(config, 1), rows, wanted, config.memory)
    found = artifact.read(stage_uri(config, 1))
    assert found.source_rows.tolist() == expected.row_ids.tolist()


def test_fusion_keeps_the_most_influential_rows(prepared: Prepared) -> None:
    config = run_config(prepared.folder)
    stage = open_stage(config, prepared.blocks, 2)
    first, second = (read_block(prepared.blocks, b) for b in prepared.blocks.historical)
    boundary = second.take(slice(0, 50))
    previous = synthesise(first.take(slice(0, 40)), load_reference(reference_uri(config, 1)))
    draw = np.random.default_rng(0)  # rows that moved, as learned ones have
    moved = previous.embeddings + 0.3 * draw.normal(size=previous.embeddings.shape)
    previous = replace(previous, embeddings=moved.astype(np.float32))
    kept = fuse(stage, boundary, previous, 25)

    theta, network = inner_start(config, 2, 0), network_of(load_reference(reference_uri(config, 2)))
    real = row_gradients(network, theta, *embedded(stage.reference, boundary))
    old = row_gradients(
        network,
        theta,
        torch.tensor(previous.embeddings),
        torch.sigmoid(torch.tensor(previous.labels)),
    )
    influence = (old[:, None, :] * real[None, :, :]).sum(axis=2).sum(axis=1)
    positions = np.searchsorted(previous.source_rows, kept.source_rows)
    assert (np.diff(positions) > 0).all(), "in their old order"
    assert_smallest(positions, -influence, 25)
    assert (kept.embeddings == previous.embeddings[positions]).all()


def test_fusion_that_keeps_all_asks_nothing(prepared: Prepared) -> None:
    stage = replace(open_stage(run_config(prepared.folder), prepared.blocks, 2), workers=None)
    rows = read_block(prepared.blocks, prepared.blocks.historical[0]).take(slice(0, 4))
    previous = synthesise(rows, stage.reference)
    assert fuse(stage, rows, previous, 4) is previous

"""Algorithm 1: sizes, the band of new rows, their synthetic form, and what fusion keeps."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.config import ConfigError, RunConfig
from diet_ray.distill.boundary import empty_files, fuse, memory_sizes, new_rows, write_start
from diet_ray.distill.context import stage_uri
from diet_ray.distill.proxy import embedding_stage, inner_start
from diet_ray.distill.sources import BlockRows
from diet_ray.distill.start import StageModels, carried_over, synthesise
from diet_ray.logs.blocks import Block, Blocks, read_block
from diet_ray.memory import artifact
from diet_ray.memory.rows import SyntheticRows
from tests.distill.prepared import (
    Prepared,
    assert_smallest,
    embedded,
    network_of,
    open_stage,
    phi,
    row_gradients,
    run_config,
)
from tests.distill.slow import Phi, band_of_a_sort
from tests.made import small_config
from tests.sets import files_of


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


def test_new_rows_at_random_are_a_function_of_the_seed(prepared: Prepared) -> None:
    def drawn(seed: int) -> list[int]:
        config = run_config(prepared.folder, memory={"new_rows": "random"}, seed=seed)
        stage = replace(open_stage(run_config(prepared.folder), prepared.blocks, 2), config=config)
        return new_rows(stage, 30).tolist()

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
    rows = read_block(prepared.blocks, stage.block)
    theta, source = inner_start(config, 2, 0), BlockRows(stage.blocks, stage.block, rows.row_ids)
    found = stage.workers.summed_gradient(2, source, len(rows), theta)
    embeddings, labels = embedded(phi(config, 1), rows)
    expected = row_gradients(network_of(phi(config, 2)), theta, embeddings, labels)
    assert np.allclose(found, np.asarray(expected).sum(axis=0), rtol=1e-3, atol=1e-4)


def test_new_rows_are_the_band_of_a_sort_in_memory(undisturbed: Prepared) -> None:
    config, blocks = run_config(undisturbed.folder), undisturbed.blocks
    rows, (wanted, _) = read_block(blocks, blocks.historical[0]), memory_sizes(config, blocks)[0]
    expected = band_of_a_sort(Phi(config, 1), rows, wanted, config.memory)
    found = artifact.read(stage_uri(config, 1))
    assert found.source_rows.tolist() == expected.row_ids.tolist()


def moved_rows(config: RunConfig, prepared: Prepared, count: int) -> SyntheticRows:
    """Of the first stage; they have learned."""
    rows = read_block(prepared.blocks, prepared.blocks.historical[0]).take(slice(0, count))
    made, draw = synthesise(rows, phi(config, 1)), np.random.default_rng(0)
    deltas = draw.normal(0, 0.02, (count, *made.deltas.shape[1:])).astype(np.float32)
    return replace(made.with_deltas(deltas), labels=made.labels + 0.5)


def test_fusion_keeps_the_most_influential_rows(prepared: Prepared, tmp_path: Path) -> None:
    config = run_config(prepared.folder)
    stage = open_stage(config, prepared.blocks, 2)
    boundary = read_block(prepared.blocks, stage.block).take(slice(0, 50))
    previous = moved_rows(config, prepared, 40)
    files = files_of(str(tmp_path), previous, stage.blocks.fields, rows_per_file=9)
    kept = fuse(stage, boundary.row_ids, files, 25)

    theta, network = inner_start(config, 2, 0), network_of(phi(config, 2))
    embedder = phi(config, stage.embedder.stage)
    real = row_gradients(network, theta, *embedded(embedder, boundary))
    carried = carried_over(previous, StageModels(config, 2, lambda t: phi(config, t)))
    embeddings = torch.tensor(carried.embeddings(embedder.table))
    old = row_gradients(network, theta, embeddings, torch.sigmoid(torch.tensor(carried.labels)))
    influence = (old[:, None, :] * real[None, :, :]).sum(axis=2).sum(axis=1)
    assert (np.diff(kept) > 0).all(), "in their old order"
    assert_smallest(np.asarray(kept), -influence, 25)


def test_fusion_that_keeps_all_asks_nothing(prepared: Prepared, tmp_path: Path) -> None:
    config = run_config(prepared.folder)
    stage = replace(open_stage(config, prepared.blocks, 2), workers=None)
    files = files_of(str(tmp_path), moved_rows(config, prepared, 4), stage.blocks.fields)
    assert fuse(stage, np.arange(3), files, 4) == range(4)


def test_a_start_is_the_kept_rows_and_then_the_new_ones(prepared: Prepared, tmp_path: Path) -> None:
    """In files of 8 rows, one of which holds both."""
    config = run_config(prepared.folder)
    stage, previous = open_stage(config, prepared.blocks, 2), moved_rows(config, prepared, 20)
    files = files_of(str(tmp_path / "previous"), previous, stage.blocks.fields, rows_per_file=7)
    kept, block = np.array([1, 3, 6, 7, 8, 13, 19]), read_block(stage.blocks, stage.block)
    new = block.row_ids[np.arange(5, 400, 31)]
    target = empty_files(stage, str(tmp_path / "start"), len(kept) + len(new))
    assert target.count > 2
    start = write_start(stage, target, files, kept, new)
    found = start.slice(0, start.rows)
    models = StageModels(config, 2, lambda t: phi(config, t))
    fresh = synthesise(block.take(np.arange(5, 400, 31)), phi(config, 2))
    expected = SyntheticRows.concatenate([carried_over(previous.take(kept), models), fresh])
    for name, array in vars(expected).items():
        other = getattr(found, name)
        assert np.allclose(other, array, rtol=0, atol=1e-6), name
    assert found.moved.tolist() == [True] * len(kept) + [False] * len(new)

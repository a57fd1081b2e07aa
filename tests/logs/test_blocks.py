import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from diet_ray import storage
from diet_ray.logs.blocks import (
    Block,
    Blocks,
    BlocksError,
    Fragment,
    iterate_batches,
    open_blocks,
    published,
    read_block,
    read_fragment,
    read_rows,
)
from diet_ray.storage import StorageError

ROWS, FRAGMENT_ROWS, GROUP_ROWS, FIRST = 50, 20, 6, 100


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    """One block of 50 rows in three fragments, row ids from 100."""
    fragments = []
    for number, start in enumerate(range(0, ROWS, FRAGMENT_ROWS)):
        rows = np.arange(start, min(start + FRAGMENT_ROWS, ROWS))
        table = pa.table(
            {
                "row_id": rows + FIRST,
                "time_ms": rows * 10,
                "f": pa.array(rows % 7, pa.int32()),
                "g": pa.array(rows % 3, pa.int32()),
                "y": pa.array(rows % 2, pa.uint8()),
            }
        )
        path = f"historical-1/fragment-{number:05d}.parquet"
        storage.write_parquet(storage.join(str(tmp_path), path), table, GROUP_ROWS)
        groups = -(-len(rows) // GROUP_ROWS)
        fragments.append(Fragment(path, len(rows), start + FIRST, groups, 1))
    block = Block(
        "historical-1", "historical", "x", ROWS, {"f": 7, "g": 3}, {"y": 0.5}, tuple(fragments)
    )
    made = Blocks(str(tmp_path), ("f", "g"), ("y",), (block,), GROUP_ROWS, "abc", 0, {}, 0)
    assert not published(made.uri)
    made.save()
    return made


def test_manifest_comes_back(blocks: Blocks) -> None:
    assert published(blocks.uri)
    assert open_blocks(blocks.uri) == blocks
    assert blocks.historical_rows == ROWS
    with pytest.raises(BlocksError, match="no block 'test'; known: historical-1"):
        blocks.block("test")


def test_another_format_is_refused(blocks: Blocks) -> None:
    uri = storage.join(blocks.uri, "manifest.json")
    storage.write_json(uri, {**storage.read_json(uri), "format": 99})
    with pytest.raises(BlocksError, match="format is not"):
        open_blocks(blocks.uri)


@pytest.mark.parametrize("batch_size", [1, 5, 6, 13, 50, 99])
def test_batches_are_the_block_in_order(blocks: Blocks, batch_size: int) -> None:
    batches = list(iterate_batches(blocks, blocks.blocks[0], batch_size))
    assert [len(b) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    together = np.concatenate([b.row_ids for b in batches])
    assert together.tolist() == list(range(FIRST, FIRST + ROWS))
    whole = read_block(blocks, blocks.blocks[0])
    assert np.array_equal(np.concatenate([b.ids for b in batches]), whole.ids)
    assert np.array_equal(np.concatenate([b.labels for b in batches]), whole.labels)


@pytest.mark.parametrize("skipped", [0, 1, 6, 19, 20, 26, 45, ROWS])
def test_batches_go_on_after_the_rows_that_are_skipped(blocks: Blocks, skipped: int) -> None:
    batches = list(iterate_batches(blocks, blocks.blocks[0], 7, skipped))
    found = [row_id for batch in batches for row_id in batch.row_ids]
    assert found == list(range(FIRST + skipped, FIRST + ROWS))
    assert all(len(batch) == 7 for batch in batches[:-1])


def test_skipped_fragments_are_not_read(blocks: Blocks) -> None:
    block = blocks.blocks[0]
    Path(blocks.uri, block.fragments[0].path).unlink()
    skipped = block.fragments[0].rows
    assert sum(map(len, iterate_batches(blocks, block, 7, skipped))) == ROWS - skipped
    with pytest.raises(FileNotFoundError):
        next(iterate_batches(blocks, block, 7, skipped - 1))


def test_an_iteration_that_is_left_early_leaves_no_thread(blocks: Blocks) -> None:
    before = threading.active_count()
    batches = iterate_batches(blocks, blocks.blocks[0], 1)
    next(batches)
    assert threading.active_count() > before
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_rows_by_id_in_the_order_asked_for(blocks: Blocks) -> None:
    wanted = np.array([149, 100, 121, 119])
    rows = read_rows(blocks, blocks.blocks[0], wanted)
    assert rows.row_ids.tolist() == wanted.tolist()
    assert rows.ids.tolist() == [[(i - FIRST) % 7, (i - FIRST) % 3] for i in wanted]
    with pytest.raises(BlocksError, match="lacks some of the rows"):
        read_rows(blocks, blocks.blocks[0], np.array([100, 150]))


def test_an_id_outside_the_vocabulary_is_named(blocks: Blocks) -> None:
    block = replace(blocks.blocks[0], vocabulary_sizes={"f": 6, "g": 3})
    with pytest.raises(BlocksError, match=r"fragment-00000\.parquet: field f: id 6 is outside"):
        read_block(blocks, block)


def test_damaged_fragments_are_named(blocks: Blocks) -> None:
    block = blocks.blocks[0]
    short = replace(block.fragments[0], rows=19)
    with pytest.raises(BlocksError, match="20 rows, the manifest says 19"):
        read_fragment(blocks, block, short)
    with pytest.raises(BlocksError, match="no column h"):
        read_fragment(replace(blocks, fields=("f", "h")), block, block.fragments[0])
    path = Path(blocks.uri) / block.fragments[0].path
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StorageError, match=r"fragment-00000\.parquet"):
        read_fragment(blocks, block, block.fragments[0])

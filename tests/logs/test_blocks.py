import json
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray import documents, storage, telemetry
from diet_ray.errors import UserError
from diet_ray.logs.blocks import (
    CHECKSUMS,
    Block,
    Blocks,
    BlocksError,
    Fragment,
    check_whole,
    iterate_batches,
    open_blocks,
    published,
    read_block,
    read_fragment,
    read_rows,
    write_fragment,
)
from diet_ray.storage import StorageError
from tests.recorded import Recorded

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
        write_fragment(storage.join(str(tmp_path), path), table, GROUP_ROWS)
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
    documents.write_sealed(uri, {**documents.read_sealed(uri), "format": 99})
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
    with pytest.raises(BlocksError, match=r"fragment-00000\.parquet: no such file; remove the fol"):
        next(iterate_batches(blocks, block, 7, skipped - 1))


def test_bytes_are_counted_as_they_are_read(blocks: Blocks, recorded: Recorded) -> None:
    """Of some row groups their share of the file."""
    block = blocks.historical[0]
    fragment = replace(block.fragments[0], bytes=4_000)
    assert fragment.row_groups == 4
    read_fragment(blocks, block, fragment)
    read_fragment(blocks, block, fragment, row_groups=[1])
    assert recorded.values(telemetry.READ_BYTES) == [4_000, 1_000]


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
    with pytest.raises(BlocksError, match="20 rows in 4 row groups, the manifest says 19 in 4"):
        read_fragment(blocks, block, short)
    with pytest.raises(BlocksError, match="no column h"):
        read_fragment(replace(blocks, fields=("f", "h")), block, block.fragments[0])
    anew = f"remove the folder {blocks.uri} and prepare the log again"
    path = Path(blocks.uri) / block.fragments[0].path
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(StorageError, match=rf"fragment-00000\.parquet: not a whole .*; {anew}"):
        read_fragment(blocks, block, block.fragments[0])
    swapped = replace(block.fragments[0], path=block.fragments[1].path)
    path.write_bytes(whole)
    with pytest.raises(BlocksError, match=f"begins with row 120, the manifest says 100.*; {anew}"):
        read_fragment(blocks, block, swapped)
    with pytest.raises(BlocksError, match=f"begins with row 126, the manifest says 106.*; {anew}"):
        read_fragment(blocks, block, swapped, row_groups=[1])


def test_flipped_bits_are_refused(blocks: Blocks) -> None:
    """Or change nothing that is read, such as times and statistics."""
    (block,) = blocks.historical
    fragment = block.fragments[0]
    path = Path(blocks.uri) / fragment.path
    content, whole = path.read_bytes(), read_fragment(blocks, block, fragment)
    refused = 0
    for bit in np.random.default_rng(0).choice(8 * len(content), 1_000, replace=False):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read_fragment(blocks, block, fragment)
        except (BlocksError, StorageError) as error:
            assert str(path) in str(error)  # noqa: PT017 - nearly all are refused, not all
            refused += 1
        else:
            names = ("row_ids", "ids", "labels")
            assert all(np.array_equal(getattr(found, n), getattr(whole, n)) for n in names)
    assert refused > 500


def test_checksums_of_a_fragments_rows(blocks: Blocks) -> None:
    """A file from before there were any is read; one that says nonsense is not."""
    block = blocks.blocks[0]
    uri = storage.join(blocks.uri, block.fragments[0].path)
    table = pq.read_table(uri)
    rows = [table.slice(start, GROUP_ROWS) for start in range(0, FRAGMENT_ROWS, GROUP_ROWS)]
    content = [b"".join(p[n].to_numpy().tobytes() for n in ("row_id", "f", "g", "y")) for p in rows]
    assert json.loads(table.schema.metadata[CHECKSUMS]) == [zlib.crc32(c) for c in content]
    whole = read_fragment(blocks, block, block.fragments[0])
    storage.write_parquet(uri, table.replace_schema_metadata({}), GROUP_ROWS)
    assert np.array_equal(read_fragment(blocks, block, block.fragments[0]).ids, whole.ids)
    for nonsense in (b"[1, 2, 3]", b"many", b'["a", 1, 2, 3]'):
        damaged = table.replace_schema_metadata({CHECKSUMS: nonsense})
        storage.write_parquet(uri, damaged, GROUP_ROWS)
        with pytest.raises(BlocksError, match="row_group_crc32 in its metadata is not a number"):
            read_fragment(blocks, block, block.fragments[0])


@pytest.mark.parametrize("column", ["twice", "text"])
def test_a_fragment_of_other_columns_is_named(blocks: Blocks, column: str) -> None:
    block = blocks.blocks[0]
    path = Path(blocks.uri) / block.fragments[0].path
    table = pq.read_table(path)
    if column == "twice":
        table, told = table.append_column("f", table["f"]), "2 column f"
    else:
        table, told = (
            table.set_column(2, "f", table["f"].cast(pa.string())),
            "column f holds string",
        )
    pq.write_table(table, path, row_group_size=blocks.row_group_rows)
    with pytest.raises(BlocksError, match=rf"fragment-00000\.parquet: {told}; remove the folder"):
        read_fragment(blocks, block, block.fragments[0])


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_fragment_that_is_not_whole_is_found_by_its_size(blocks: Blocks, damage: str) -> None:
    stated = [replace(f, bytes=storage.size(f"{blocks.uri}/{f.path}")) for f in fragments(blocks)]
    whole = replace(blocks, blocks=(replace(blocks.blocks[0], fragments=tuple(stated)),))
    check_whole(whole)
    path = Path(blocks.uri) / stated[1].path
    if damage == "missing":
        path.unlink()
        told = "missing"
    else:
        path.write_bytes(path.read_bytes()[:-7])
        told = f"{stated[1].bytes - 7} bytes"
    message = f"{path}: {told}, the manifest says {stated[1].bytes} bytes; remove the folder"
    with pytest.raises(BlocksError, match=message):
        check_whole(whole)


def fragments(blocks: Blocks) -> tuple[Fragment, ...]:
    return blocks.blocks[0].fragments


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], r"holds \[\] instead of keys"),
        (None, "holds None instead of keys"),
        ({}, "format is not 1"),
        ({"format": 1}, "fields: Field required"),
        ({"fields": None}, "fields: None: Input should be a valid tuple"),
        ({"more": 1}, "more: unknown"),
        ({"blocks": [{"name": "x"}]}, r"blocks\.0\.role: Field required"),
        ({"row_group_rows": "many"}, "row_group_rows: 'many': Input should be a valid integer"),
    ],
)
def test_a_manifest_that_is_none_is_told_by_its_field(
    blocks: Blocks, content: Any, told: str
) -> None:
    path = Path(blocks.uri, "manifest.json")
    blocks.save()
    if isinstance(content, dict) and content and content != {"format": 1}:
        documents.write_sealed(str(path), {**documents.read_sealed(str(path)), **content})
    else:
        path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"manifest\.json: {told}.*; remove the folder"):
        open_blocks(blocks.uri)

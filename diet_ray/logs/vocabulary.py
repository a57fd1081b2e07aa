"""Vocabularies: the ids of a field's values; they only grow.

Protocol: blocks are added in stream order. A block's new values, sorted as text (a missing value
first), get the next ids; so the vocabulary after block t is a prefix of every later one. Ids start
at 1; 0 means "not in the vocabulary". What is missing in the log is a value like any other.

In other words, ids number the values by the first block that holds them, then by their text. So
each range of text can be sorted by itself: the vocabulary is, block after block, the block's new
values of one range after the other.

On disk, `vocabulary/<field>.parquet`: value (string, null for missing), id (int32), and the block
that added it. A hashed field has no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray import storage

GROUP_ROWS = 1 << 20
FOLD_ROWS = 1 << 21
FOUND = pa.schema({"value": pa.string(), "block": pa.int64()})
SCHEMA = pa.schema({"value": pa.string(), "id": pa.int32(), "block": pa.string()})
ORDER = [("block", "ascending"), ("present", "ascending"), ("value", "ascending")]


def vocabulary_uri(uri: str, field: str) -> str:
    """File of a field's vocabulary below a blocks folder."""
    return storage.join(uri, "vocabulary", f"{field}.parquet")


def grow(found: Iterable[pa.Table]) -> pa.Table:
    """Each value once, with the first block that holds it, in the order of their ids.

    found: values (string) and the numbers of blocks (int64) that hold them, in any order and any
    number of times. Holds the result and `FOLD_ROWS` rows of them.
    """
    waiting, rows = [FOUND.empty_table()], 0
    for table in found:
        waiting.append(table)
        rows += table.num_rows
        if rows >= FOLD_ROWS:
            waiting, rows = [_first_blocks(waiting)], 0
    values = _first_blocks(waiting)
    ordered = values.append_column("present", pc.is_valid(values["value"]))  # missing ones first
    return values.take(pc.sort_indices(ordered, ORDER))


def _first_blocks(tables: Sequence[pa.Table]) -> pa.Table:
    grouped = pa.concat_tables(tables).group_by("value", use_threads=False)
    first = grouped.aggregate([("block", "min")])
    return pa.table({"value": first["value"], "block": first["block_min"]})


def write_vocabulary(uri: str, field: str, added: Iterable[tuple[str, pa.Array]]) -> None:
    """Publish a field's vocabulary.

    added: values in the order of their ids, some at a time, and the block that adds them.
    """
    storage.write_parquet_groups(vocabulary_uri(uri, field), SCHEMA, _groups(added))


def _groups(added: Iterable[tuple[str, pa.Array]]) -> Iterator[pa.Table]:
    """The file's row groups: `GROUP_ROWS` rows, the last one less."""
    waiting, start = SCHEMA.empty_table(), 1
    for block, values in added:
        ids = np.arange(start, start + len(values), dtype=np.int32)
        names = pa.repeat(pa.scalar(block, pa.string()), len(values))
        waiting = pa.concat_tables([waiting, pa.table([values, ids, names], schema=SCHEMA)])
        start += len(values)
        while waiting.num_rows >= GROUP_ROWS:
            yield waiting.slice(0, GROUP_ROWS)
            waiting = waiting.slice(GROUP_ROWS)
    if waiting.num_rows:
        yield waiting


def read_vocabulary(uri: str, field: str) -> Iterator[pa.Array]:
    """The values in the order of their ids, a row group at a time. Raises StorageError."""
    with storage.open_parquet(vocabulary_uri(uri, field)) as file:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=["value"], use_threads=False)
            yield rows["value"].combine_chunks()

"""Values become ids: vocabularies that only grow, or hashes.

Protocol: blocks are added in stream order. A block's new values, sorted as text (a missing value
first), get the next ids; so the vocabulary after block t is a prefix of every later one. Ids start
at 1; 0 means "not in the vocabulary". What is missing in the log is a value like any other.

On disk, `vocabulary/<field>.parquet`: value (string, null for missing), id (int32), and the block
that added it. A hashed field has no file; its id is 1 + hash(value) mod buckets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray import storage

HASH_KEY = "diet_ray-hash-v1"  # 16 characters, as pandas asks
MISSING = "\x00missing"


def grow(blocks: Iterable[tuple[str, Sequence[pa.Array]]]) -> pa.Table:
    """The vocabulary (value, id, block) of one field.

    blocks: each block's name and arrays of the values that occur in it, in stream order.
    """
    known = pa.chunked_array([], pa.string())
    added: list[str] = []
    for block, arrays in blocks:
        values = pc.unique(pa.chunked_array(list(arrays), pa.string()))
        new = values.filter(pc.invert(pc.is_in(values, value_set=known.combine_chunks())))
        new = new.take(pc.array_sort_indices(new, null_placement="at_start"))
        known = pa.chunked_array([*known.chunks, new])
        added += [block] * len(new)
    ids = pa.array(np.arange(1, len(added) + 1), pa.int32())
    return pa.table({"value": known, "id": ids, "block": pa.array(added, pa.string())})


def sizes(vocabulary: pa.Table, blocks: Sequence[str]) -> dict[str, int]:
    """block -> number of ids after it, with id 0."""
    counted = pc.value_counts(vocabulary["block"]).to_pylist()
    counts = {entry["values"]: entry["counts"] for entry in counted}
    ends = np.cumsum([counts.get(block, 0) for block in blocks]) + 1
    return dict(zip(blocks, ends.tolist(), strict=True))


def vocabulary_uri(uri: str, field: str) -> str:
    """File of a field's vocabulary below a blocks folder."""
    return storage.join(uri, "vocabulary", f"{field}.parquet")


def hashed(values: pa.Array, buckets: int) -> np.ndarray:
    """Stable ids in 1..buckets, (n,) int32."""
    texts = np.array(values.fill_null(MISSING).to_pylist(), dtype=object)
    hashes = pd.util.hash_array(texts, hash_key=HASH_KEY, categorize=False)
    return (1 + hashes % np.uint64(buckets)).astype(np.int32)


class Encoder:
    """Holds the vocabularies of some fields, loaded once, and encodes columns with them."""

    def __init__(self, uri: str, fields: Sequence[str], hash_buckets: Mapping[str, int]) -> None:
        self.hash_buckets = hash_buckets
        self.ids: dict[str, dict[str | None, int]] = {}
        for field in fields:
            if field not in hash_buckets:
                with storage.open_parquet(vocabulary_uri(uri, field)) as file:
                    values = file.read(["value"], use_threads=False)["value"].to_pylist()
                self.ids[field] = dict(zip(values, range(1, len(values) + 1), strict=True))

    def encode(self, field: str, column: pa.ChunkedArray) -> np.ndarray:
        """Ids of a string column, (n,) int32. Each distinct value is looked up once."""
        coded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        values = coded.dictionary
        if field in self.hash_buckets:
            ids = hashed(values, self.hash_buckets[field])
        else:
            known = self.ids[field]
            ids = np.array([known.get(value, 0) for value in values.to_pylist()], np.int32)
        return ids[coded.indices.to_numpy()]

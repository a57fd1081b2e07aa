"""Values become ids: by the index of a vocabulary, or by hashing alone.

Protocol: an index holds a vocabulary's values as sorted 64-bit hashes with their ids, 12 bytes a
value. It is made from the vocabulary's file by one task and mapped by all who encode on a node.
Two values of a vocabulary never share an id: where two of its hashes are equal, all are made again
with another key. A value that is not in the vocabulary gets 0, unless its hash is that of one which
is, with the probability n / 2^64 for n ids: 1e-11 for 200 million.

A hashed field's id is 1 + hash(value) mod buckets; it has no vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.sources.source import LogsError
from diet_ray.logs.vocabulary import read_vocabulary, vocabulary_uri

# 16 characters each, as pandas asks
HASH_KEY = "diet_ray-hash-v1"
INDEX_KEYS = tuple(f"diet_ray-index-{attempt}" for attempt in range(8))
MISSING = "\x00missing"
HASHED_AT_ONCE = 1 << 16


def hash_texts(values: pa.Array, key: str) -> np.ndarray:
    """SipHash of values, none of them missing, (n,) uint64; the same in every process."""
    texts = values.to_numpy(zero_copy_only=False).astype(object)
    return pd.util.hash_array(texts, hash_key=key, categorize=False)


def hashed(values: pa.Array, buckets: int) -> np.ndarray:
    """Stable ids in 1..buckets, (n,) int32."""
    hashes = hash_texts(values.fill_null(MISSING), HASH_KEY)
    return (1 + hashes % np.uint64(buckets)).astype(np.int32)


@dataclass(frozen=True)
class Index:
    """A vocabulary of n values that are not missing, to look ids up."""

    hashes: np.ndarray  # (n,) uint64, ascending
    ids: np.ndarray  # (n,) int32, of the values with these hashes
    missing: int  # id of the missing value, 0 if it has none
    key: str  # of the hashes

    def look_up(self, values: pa.Array) -> np.ndarray:
        """Ids of values, (m,) int32; 0 for one that is not in the vocabulary."""
        ids = np.zeros(len(values), np.int32)
        if len(self.hashes):
            hashes = hash_texts(values.fill_null(MISSING), self.key)
            order = np.argsort(hashes)  # so that the index is walked from front to back
            at = np.minimum(np.searchsorted(self.hashes, hashes[order]), len(self.hashes) - 1)
            ids[order] = np.where(self.hashes[at] == hashes[order], self.ids[at], 0)
        ids[values.is_null().to_numpy(zero_copy_only=False)] = self.missing
        return ids


def load_index(uri: str, field: str) -> Index:
    """The index of a field's vocabulary. Takes about 25 bytes an id while it is made."""
    for key in INDEX_KEYS:
        index = _sorted_by_hash(uri, field, key)
        if not (index.hashes[1:] == index.hashes[:-1]).any():
            return index
    raise LogsError(
        f"{vocabulary_uri(uri, field)}: holds a value twice, for no key tells their hashes apart; "
        "remove the blocks folder and run jobs/prepare.py again"
    )


def _sorted_by_hash(uri: str, field: str, key: str) -> Index:
    """The index under a key; values of the same hash stand beside each other."""
    parts, missing, before = [np.empty(0, np.uint64)], 0, 0
    for values in read_vocabulary(uri, field):
        for start in range(0, len(values), HASHED_AT_ONCE):
            some = values.slice(start, HASHED_AT_ONCE)
            parts.append(hash_texts(some.fill_null(MISSING), key))
        if values.null_count:
            missing = before + 1 + int(pc.index(values.is_null(), True).as_py())
        before += len(values)
    hashes = np.concatenate(parts)
    parts.clear()
    order = np.argsort(hashes)
    if missing:
        order = order[order != missing - 1]
    hashes = hashes[order]
    order += 1  # in place: the index may be as large as memory allows
    return Index(hashes, order.astype(np.int32), missing, key)


class Encoder:
    """Encodes the columns of some fields.

    indexes: field -> its vocabulary's index; hash_buckets: field -> buckets of a hashed one.
    """

    def __init__(self, indexes: Mapping[str, Index], hash_buckets: Mapping[str, int]) -> None:
        self.indexes, self.hash_buckets = indexes, hash_buckets

    def encode(self, field: str, column: pa.ChunkedArray) -> np.ndarray:
        """Ids of a string column, (n,) int32. Each distinct value is looked up once."""
        coded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        values = coded.dictionary
        if field in self.hash_buckets:
            ids = hashed(values, self.hash_buckets[field])
        else:
            ids = self.indexes[field].look_up(values)
        return ids[coded.indices.to_numpy()]

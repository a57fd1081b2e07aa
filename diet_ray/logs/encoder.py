"""Values become ids: by the index of a vocabulary, or by hashing alone.

Protocol: an index holds a vocabulary's values as sorted 64-bit hashes with their ids, 12 bytes a
value. It is made from the vocabulary's file by one task and mapped by all who encode on a node.
Two values of a vocabulary never share an id: where two of its hashes are equal, all are made again
with another key. A value that is not in the vocabulary gets 0, unless its hash is that of one which
is, with the probability n / 2^64 for n ids: 1e-11 for 200 million.

A large index is in parts, by the first bits of the hash: sorted, handed over and let go one after
the other, they take hardly more memory than the index itself.

A hashed field's id is 1 + hash(value) mod buckets; it has no vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from diet_ray.logs.sources.source import LogsError
from diet_ray.logs.vocabulary import read_vocabulary, vocabulary_uri

# 16 characters each, as pandas asks
HASH_KEY = "diet_ray-hash-v1"
INDEX_KEYS = tuple(f"diet_ray-index-{attempt}" for attempt in range(8))
MISSING = "\x00missing"
HASHED_AT_ONCE = 1 << 16
PART_VALUES = 1 << 24  # of an index, at most; about


def hash_texts(values: pa.Array, key: str) -> np.ndarray:
    """SipHash of values, none of them missing, (n,) uint64; the same in every process."""
    texts = values.to_numpy(zero_copy_only=False).astype(object)
    return pd.util.hash_array(texts, hash_key=key, categorize=False)


def hashed(values: pa.Array, buckets: int) -> np.ndarray:
    """Stable ids in 1..buckets, (n,) int32."""
    hashes = hash_texts(values.fill_null(MISSING), HASH_KEY)
    return (1 + hashes % np.uint64(buckets)).astype(np.int32)


@dataclass(frozen=True)
class IndexPart:
    """Those of an index whose hashes begin with the same bits."""

    hashes: np.ndarray  # (n,) uint64, ascending
    ids: np.ndarray  # (n,) int32, of the values with these hashes

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Ids of hashes, ascending, (m,) int32; 0 for one that is not here."""
        if not len(self.hashes):
            return np.zeros(len(hashes), np.int32)
        at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[at] == hashes, self.ids[at], 0)


@dataclass(frozen=True)
class Index:
    """A vocabulary's values, to look ids up."""

    parts: list[IndexPart]  # a power of two, in the order of their hashes
    missing: int  # id of the missing value, 0 if it has none
    key: str  # of the hashes

    def look_up(self, values: pa.Array) -> np.ndarray:
        """Ids of values, (m,) int32; 0 for one that is not in the vocabulary."""
        ids = np.zeros(len(values), np.int32)
        hashes = hash_texts(values.fill_null(MISSING), self.key)
        order = np.argsort(hashes)  # so that a part is walked from front to back
        for part, within in zip(self.parts, _split(order, hashes, len(self.parts)), strict=True):
            ids[within] = part.find(hashes[within])
        ids[values.is_null().to_numpy(zero_copy_only=False)] = self.missing
        return ids


def _split(order: np.ndarray, hashes: np.ndarray, parts: int) -> list[np.ndarray]:
    """`order`, by which `hashes` ascend, cut where the parts' first bits change."""
    shift = np.uint64(65 - parts.bit_length())
    firsts = np.arange(1, parts, dtype=np.uint64) << shift
    return np.split(order, np.searchsorted(hashes, firsts, sorter=order))


def load_index(uri: str, field: str, values: int) -> Index:
    """The index of a field's vocabulary of about so many values. Raises LogsError."""
    for key in INDEX_KEYS:
        index = _hashed_with(key, uri, field, values)
        if index is not None:
            return index
    raise LogsError(
        f"{vocabulary_uri(uri, field)}: holds a value twice, for no key tells their hashes apart; "
        "remove the blocks folder and run jobs/prepare.py again"
    )


def _hashed_with(key: str, uri: str, field: str, values: int) -> Index | None:
    """The index under a key; None if two of its hashes are equal."""
    count = 1 << (max(values - 1, 0) // PART_VALUES).bit_length()
    filled = [_Filling(values // count * 9 // 8 + HASHED_AT_ONCE) for _ in range(count)]
    first, missing = 1, 0
    for group in read_vocabulary(uri, field):
        for start in range(0, len(group), HASHED_AT_ONCE):
            some = group.slice(start, HASHED_AT_ONCE)
            present = some.is_valid().to_numpy(zero_copy_only=False)
            ids = first + np.arange(len(some), dtype=np.int32)
            first += len(some)
            if some.null_count:
                missing = int(ids[~present][0])
            hashes, ids = hash_texts(some.drop_null(), key), ids[present]
            for filling, of in zip(filled, _split(np.argsort(hashes), hashes, count), strict=True):
                filling.add(hashes[of], ids[of])
    parts = []
    while filled:
        part = filled.pop(0).sorted()
        if (part.hashes[1:] == part.hashes[:-1]).any():
            return None
        parts.append(part)
    return Index(parts, missing, key)


class _Filling:
    """A part that grows; memory that is not filled yet is none."""

    def __init__(self, room: int) -> None:
        self._hashes, self._ids = np.empty(room, np.uint64), np.empty(room, np.int32)
        self._end = 0

    def add(self, hashes: np.ndarray, ids: np.ndarray) -> None:
        end = self._end + len(hashes)
        if end > len(self._hashes):  # hashes that are not spread evenly
            self._hashes = np.resize(self._hashes, 2 * end)
            self._ids = np.resize(self._ids, 2 * end)
        self._hashes[self._end : end], self._ids[self._end : end] = hashes, ids
        self._end = end

    def sorted(self) -> IndexPart:
        hashes, ids = self._hashes[: self._end], self._ids[: self._end]
        order = np.argsort(hashes)
        return IndexPart(hashes[order], ids[order])


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

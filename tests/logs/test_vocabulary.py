from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from diet_ray import storage
from diet_ray.logs.vocabulary import Encoder, grow, hashed, sizes, vocabulary_uri

VALUES = st.lists(st.one_of(st.none(), st.text("abc", max_size=2)), max_size=8)
BLOCKS = st.lists(VALUES, min_size=1, max_size=5)


def grown(blocks: list[list[str | None]]) -> pa.Table:
    return grow((f"b{t}", [pa.array(v, pa.string())]) for t, v in enumerate(blocks))


def obvious(blocks: list[list[str | None]]) -> list[str | None]:
    known: list[str | None] = []
    for values in blocks:
        new = {v for v in values if v not in known}
        known += sorted(new, key=lambda v: (v is not None, v or ""))
    return known


@given(BLOCKS)
def test_is_the_obvious_one(blocks: list[list[str | None]]) -> None:
    vocabulary = grown(blocks)
    assert vocabulary["value"].to_pylist() == obvious(blocks)
    assert vocabulary["id"].to_pylist() == list(range(1, vocabulary.num_rows + 1))


@given(BLOCKS)
def test_an_older_vocabulary_is_a_prefix(blocks: list[list[str | None]]) -> None:
    older, newer = grown(blocks[:-1]), grown(blocks)
    assert newer.slice(0, older.num_rows).to_pylist() == older.to_pylist()
    names = [f"b{t}" for t in range(len(blocks))]
    after = sizes(newer, names)
    assert [after[n] for n in names] == [
        1 + len(obvious(blocks[: t + 1])) for t in range(len(blocks))
    ]


@given(VALUES, VALUES)
def test_parts_of_a_block_come_in_any_order(left: list, right: list) -> None:
    parts = [pa.array(left, pa.string()), pa.array(right, pa.string())]
    assert grow([("b", parts)]).equals(grow([("b", parts[::-1])]))


def test_encodes_known_unknown_and_missing(tmp_path: Path) -> None:
    uri = str(tmp_path)
    storage.write_parquet(vocabulary_uri(uri, "f"), grown([["b", None, "a"], ["c"]]))
    encoder = Encoder(uri, ["f", "g"], {"g": 10})
    column = pa.chunked_array([pa.array(["c", None, "x"]), pa.array(["a", "a", "b"])])
    ids = encoder.encode("f", column)
    assert ids.tolist() == [4, 1, 0, 2, 2, 3]
    assert ids.dtype == np.int32
    assert encoder.encode("g", column).tolist() == hashed(column.combine_chunks(), 10).tolist()


def test_without_missing_value_a_missing_one_is_unknown(tmp_path: Path) -> None:
    storage.write_parquet(vocabulary_uri(str(tmp_path), "f"), grown([["a"]]))
    encoder = Encoder(str(tmp_path), ["f"], {})
    assert encoder.encode("f", pa.chunked_array([[None, "a"]])).tolist() == [0, 1]


def test_hashes_are_stable_and_within_their_buckets() -> None:
    values = pa.array([None, *(f"v{i}" for i in range(5_000))])
    ids = hashed(values, 16)
    assert ids.min() == 1
    assert ids.max() == 16
    assert np.bincount(ids)[1:].min() > 200
    assert hashed(pa.array(["a", "b", None]), 1_000).tolist() == [438, 610, 649]

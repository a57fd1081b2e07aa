from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.logs import encoder
from diet_ray.logs.encoder import INDEX_KEYS, MISSING, Encoder, Index, hashed, load_index
from diet_ray.logs.sources import LogsError
from diet_ray.logs.vocabulary import write_vocabulary

TEXTS = st.one_of(st.none(), st.text("ab\x00é", max_size=3), st.just(MISSING))


def index_of(folder: Path, values: list[str | None]) -> Index:
    write_vocabulary(str(folder), "f", [("block", pa.array(values, pa.string()))])
    return load_index(str(folder), "f", len(values))


@given(st.lists(TEXTS, unique=True), st.lists(TEXTS), st.integers(1, 40), st.integers(1, 3))
@settings(deadline=None)
def test_looks_up_as_a_dictionary_does(
    tmp_path_factory: pytest.TempPathFactory,
    known: list[str | None],
    asked: list[str | None],
    part_values: int,
    at_once: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "PART_VALUES", part_values)
        patch.setattr(encoder, "HASHED_AT_ONCE", at_once)
        index = index_of(tmp_path_factory.mktemp("index"), known)
    assert len(index.parts) >= len(known) / part_values
    ids = {value: number for number, value in enumerate(known, start=1)}
    found = index.look_up(pa.array([*asked, *known], pa.string()))
    assert found.tolist() == [ids.get(value, 0) for value in [*asked, *known]]
    assert found.dtype == np.int32


def test_takes_twelve_bytes_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "PART_VALUES", 300)
    index = index_of(tmp_path, [None, *(str(number) for number in range(1_000))])
    assert len(index.parts) == 4
    assert sum(part.hashes.nbytes + part.ids.nbytes for part in index.parts) == 12 * 1_000


def test_hashes_may_all_begin_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash_texts = encoder.hash_texts

    def low(values: pa.Array, key: str) -> np.ndarray:
        return hash_texts(values, key) >> np.uint64(8)

    monkeypatch.setattr(encoder, "hash_texts", low)
    monkeypatch.setattr(encoder, "PART_VALUES", 300)
    monkeypatch.setattr(encoder, "HASHED_AT_ONCE", 100)
    values = [str(number) for number in range(1_000)]
    index = index_of(tmp_path, values)
    assert [len(part.hashes) for part in index.parts] == [1_000, 0, 0, 0]
    assert index.look_up(pa.array(["no", *values])).tolist() == [*range(1_001)]


def test_equal_hashes_are_told_apart_by_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash_texts = encoder.hash_texts

    def colliding(values: pa.Array, key: str) -> np.ndarray:
        return hash_texts(values, key) // np.uint64(1 << (63 if key == INDEX_KEYS[0] else 0))

    values = ["a", "b", "c", None]
    monkeypatch.setattr(encoder, "hash_texts", colliding)
    index = index_of(tmp_path, values)
    assert index.key == INDEX_KEYS[1]
    assert index.look_up(pa.array([*values, "d"])).tolist() == [1, 2, 3, 4, 0]


def test_a_value_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogsError, match=r"f\.parquet: holds a value twice"):
        index_of(tmp_path, ["a", "b", "a"])


def test_encodes_known_unknown_missing_and_hashed(tmp_path: Path) -> None:
    coding = Encoder({"f": index_of(tmp_path, [None, "a", "b", "c"])}, {"g": 10})
    column = pa.chunked_array([pa.array(["c", None, "x"]), pa.array(["a", "a", "b"])])
    ids = coding.encode("f", column)
    assert ids.tolist() == [4, 1, 0, 2, 2, 3]
    assert ids.dtype == np.int32
    assert coding.encode("g", column).tolist() == hashed(column.combine_chunks(), 10).tolist()


def test_without_missing_value_a_missing_one_is_unknown(tmp_path: Path) -> None:
    coding = Encoder({"f": index_of(tmp_path, ["a"])}, {})
    assert coding.encode("f", pa.chunked_array([[None, "a"]])).tolist() == [0, 1]


def test_hashes_are_stable_and_within_their_buckets() -> None:
    values = pa.array([None, *(f"v{i}" for i in range(5_000))])
    ids = hashed(values, 16)
    assert ids.min() == 1
    assert ids.max() == 16
    assert np.bincount(ids)[1:].min() > 200
    assert hashed(pa.array(["a", "b", None]), 1_000).tolist() == [438, 610, 649]

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.logs import vocabulary
from diet_ray.logs.vocabulary import grow, read_vocabulary, vocabulary_uri, write_vocabulary

VALUES = st.lists(st.one_of(st.none(), st.text("abc", max_size=2)), max_size=8)
BLOCKS = st.lists(VALUES, min_size=1, max_size=5)


def found(blocks: list[list[str | None]]) -> list[pa.Table]:
    return [
        pa.table([pa.array(v, pa.string()), pa.array([b] * len(v), pa.int64())], vocabulary.FOUND)
        for b, v in enumerate(blocks)
    ]


def obvious(blocks: list[list[str | None]]) -> list[str | None]:
    known: list[str | None] = []
    for values in blocks:
        new = {v for v in values if v not in known}
        known += sorted(new, key=lambda v: (v is not None, v or ""))
    return known


@given(BLOCKS)
@settings(deadline=None)
def test_is_the_obvious_one(blocks: list[list[str | None]]) -> None:
    grown = grow(found(blocks))
    assert grown["value"].to_pylist() == obvious(blocks)
    first = [next(b for b, vs in enumerate(blocks) if v in vs) for v in obvious(blocks)]
    assert grown["block"].to_pylist() == first


@given(BLOCKS)
@settings(deadline=None)
def test_an_older_vocabulary_is_a_prefix(blocks: list[list[str | None]]) -> None:
    older, newer = grow(found(blocks[:-1])), grow(found(blocks))
    assert newer.slice(0, older.num_rows).to_pylist() == older.to_pylist()


@given(BLOCKS)
@settings(deadline=None)
def test_what_is_found_comes_in_any_order_and_number(blocks: list[list[str | None]]) -> None:
    tables = found(blocks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "FOLD_ROWS", 2)
        assert grow([*tables[::-1], *tables]).equals(grow(tables))


def test_file_says_value_id_and_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "GROUP_ROWS", 3)
    uri = str(tmp_path)
    added = [("one", pa.array(["b", "c"])), ("one", pa.array(["x"] * 5)), ("two", pa.array([None]))]
    added += [("two", pa.array([], pa.string())), ("two", pa.array(["a"]))]
    write_vocabulary(uri, "f", ((name, values.cast(pa.string())) for name, values in added))
    table = pq.read_table(vocabulary_uri(uri, "f"))
    assert table["value"].to_pylist() == ["b", "c", "x", "x", "x", "x", "x", None, "a"]
    assert table["id"].to_pylist() == list(range(1, 10))
    assert table["id"].type == pa.int32()
    assert table["block"].to_pylist() == ["one"] * 7 + ["two"] * 2
    assert [len(values) for values in read_vocabulary(uri, "f")] == [3, 3, 3]
    assert pa.concat_arrays(read_vocabulary(uri, "f")).to_pylist() == table["value"].to_pylist()


def test_an_empty_vocabulary(tmp_path: Path) -> None:
    write_vocabulary(str(tmp_path), "f", [])
    assert list(read_vocabulary(str(tmp_path), "f")) == []

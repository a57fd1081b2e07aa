import itertools
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diet_ray.logs import staged_values
from diet_ray.logs.staged_values import ranges, read_values, write_values

TEXTS = st.one_of(st.none(), st.text("aé\U0001f600", max_size=3))
BLOCKS = st.dictionaries(
    st.integers(0, 3), st.lists(TEXTS, min_size=1, max_size=30), min_size=1, max_size=3
)


@pytest.fixture(autouse=True)
def small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staged_values, "CELL_VALUES", 3)
    monkeypatch.setattr(staged_values, "RANGE_MARKS", 2)


@given(BLOCKS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_ranges_hold_every_value_once(
    tmp_path_factory: pytest.TempPathFactory, blocks: dict[int, list[str | None]]
) -> None:
    place = str(tmp_path_factory.mktemp("values") / "values.arrow")
    rows = {b: pa.table({"f": v, "g": [*v[1:], "other"]}) for b, v in blocks.items()}
    rows = {b: t.cast(pa.schema({"f": pa.string(), "g": pa.string()})) for b, t in rows.items()}
    marks = write_values(place, ["f", "g"], rows)
    cut = ranges(marks["f"])
    found = [list(read_values(place, "f", within, blocks=3)) for within in cut]
    pairs = [
        pair
        for piece in found
        for table in piece
        for pair in zip(table["block"].to_pylist(), table["value"].to_pylist(), strict=True)
    ]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {(b, value) for b, values in blocks.items() if b < 3 for value in values}
    # No text of a later range comes before one of an earlier range; a missing one is the first.
    tops = [[v or "" for table in piece for v in table["value"].to_pylist()] for piece in found]
    tops = [texts for texts in tops if texts]
    assert all(max(a) < min(b) for a, b in itertools.pairwise(tops))


def test_many_values_are_cut_into_ranges_of_about_equal_size(tmp_path: Path) -> None:
    place = str(tmp_path / "values.arrow")
    values = [f"{number:03d}" for number in range(100)]
    marks = write_values(place, ["f"], {0: pa.table({"f": [None, *values[::-1]]})})
    cut = ranges(marks["f"])
    held = [sum(t.num_rows for t in read_values(place, "f", r, blocks=1)) for r in cut]
    assert sum(held) == 101
    assert max(held) <= 3 * (2 + 1)  # RANGE_MARKS and one cell, at most
    assert ranges([]) == [(None, None)]
    assert ranges(["same"] * 9) == [(None, "same"), ("same", None)]

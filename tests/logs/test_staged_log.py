from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.logs.staged_log import staged_log, total
from diet_ray.logs.staging import BINS, Ledger, StagedFile

BLOCKS = ("historical-1", "subsequent")
Row = tuple[str, int, int]  # block or "" if outside, time in ms, label
ROWS = st.lists(st.tuples(st.sampled_from(("", *BLOCKS)), st.integers(0, 99), st.integers(0, 1)))


def ledger_of(part: int, rows: list[Row], bad: int) -> Ledger:
    """As a stager would leave it for these usable rows and so many others."""
    inside = [row for row in rows if row[0]]
    times = [ms for _, ms, _ in rows]
    present = sorted({block for block, _, _ in inside})
    return Ledger(
        part=part,
        rows=len(rows) + bad,
        outside=len(rows) - len(inside),
        first_ms=min(times, default=None),
        last_ms=max(times, default=None),
        quarantined={"no time": bad} if bad else {},
        first_bad={"row": part} if bad else None,
        files=tuple(StagedFile(part, b, f"{part}/{b}", 0, 99) for b in present),
        value_files=(f"{part}/values",) if inside else (),
        marks={"f": [str(part)] if inside else []},
        block_rows=dict(Counter(block for block, _, _ in inside)),
        label_sums={b: {"y": sum(y for of, _, y in inside if of == b)} for b in present},
        histograms={
            b: np.bincount([ms for of, ms, _ in inside if of == b], minlength=BINS).tolist()
            for b in present
        },
    )


@given(st.lists(st.tuples(ROWS, st.integers(0, 2)), min_size=1, max_size=4))
def test_parts_add_up_to_the_whole_log(parts: list[tuple[list[Row], int]]) -> None:
    ledgers = [ledger_of(number, rows, bad) for number, (rows, bad) in enumerate(parts)]
    found = staged_log(iter(ledgers))
    whole = ledger_of(0, [row for rows, _ in parts for row in rows], sum(bad for _, bad in parts))
    assert (found.rows, found.outside) == (whole.rows, whole.outside)
    assert (found.first_ms, found.last_ms) == (whole.first_ms, whole.last_ms)
    assert (found.quarantined, found.block_rows) == (whole.quarantined, whole.block_rows)
    assert found.label_sums == whole.label_sums
    assert {b: bins.tolist() for b, bins in found.histograms.items()} == whole.histograms
    bad_parts = [number for number, (_, bad) in enumerate(parts) if bad]
    assert found.first_bad == ({"row": bad_parts[0]} if bad_parts else None)
    assert found.files == [file for ledger in ledgers for file in ledger.files]
    assert found.value_files == [name for ledger in ledgers for name in ledger.value_files]
    assert found.marks["f"] == [mark for ledger in ledgers for mark in ledger.marks["f"]]


def test_total_is_by_key_and_in_its_order() -> None:
    assert list(total([{"b": 1}, {}, {"a": 2, "b": 3}]).items()) == [("a", 2), ("b", 4)]

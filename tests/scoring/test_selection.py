"""Shares, bands and exact cuts against sorting all scores in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_ray import storage
from diet_ray.logs.blocks import Fragment
from diet_ray.scoring.ledger import Entry, side_car_uri, sketch
from diet_ray.scoring.scan import Scan
from diet_ray.scoring.selection import (
    ALL_GROUPS,
    SelectionError,
    _brackets,
    _collect,
    bands,
    group_shares,
    select_ranks,
    smallest,
)

sizes = st.dictionaries(st.integers(0, 7), st.integers(0, 300), min_size=1, max_size=6)
alphas = st.floats(0, 1)


@given(sizes, st.floats(0, 1), alphas)
def test_shares_add_up_and_fit(group_rows: dict[int, int], part: float, alpha: float) -> None:
    count = int(part * sum(group_rows.values()))
    shares = group_shares(group_rows, count, alpha)
    assert sum(shares.values()) == count
    assert all(0 <= shares[group] <= group_rows[group] for group in shares)
    assert list(shares) == sorted(shares)
    for first, second in itertools.combinations(shares, 2):
        if group_rows[first] > group_rows[second]:
            assert shares[first] >= shares[second] - 1


@given(sizes, st.floats(0, 1), alphas, alphas)
def test_the_largest_group_gains_with_alpha(
    group_rows: dict[int, int], part: float, first: float, second: float
) -> None:
    count = int(part * sum(group_rows.values()))
    low, high = (group_shares(group_rows, count, alpha) for alpha in sorted((first, second)))
    largest = max(group_rows, key=lambda group: group_rows[group])
    assert low.get(largest, 0) <= high.get(largest, 0) + 1  # one by rounding


@given(sizes, st.floats(0, 1))
def test_alpha_one_is_proportional(group_rows: dict[int, int], part: float) -> None:
    total = sum(group_rows.values())
    count = int(part * total)
    for group, share in group_shares(group_rows, count, 1.0).items():
        assert abs(share - Fraction(count * group_rows[group], total)) < 1 + 1e-9


def test_alpha_zero_is_uniform_up_to_what_a_group_has() -> None:
    assert group_shares({0: 100, 1: 100, 2: 5, 3: 0}, 65, 0.0) == {0: 30, 1: 30, 2: 5}


def test_remainders_go_to_the_smaller_group_number() -> None:
    assert group_shares({0: 10, 1: 10, 2: 10}, 5, 0.0) == {0: 2, 1: 2, 2: 1}


def test_more_rows_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="11 rows asked for, the block has 10"):
        group_shares({0: 4, 1: 6}, 11, 0.5)


@given(sizes, st.floats(0, 1), alphas, st.floats(0.1, 99.9))
def test_a_band_has_its_share_and_lies_in_its_group(
    group_rows: dict[int, int], part: float, alpha: float, percentile: float
) -> None:
    shares = group_shares(group_rows, int(part * sum(group_rows.values())), alpha)
    for group, (first, end) in bands(group_rows, shares, percentile).items():
        rows, centre = group_rows[group], group_rows[group] * percentile / 100
        assert end - first == shares[group]
        assert 0 <= first <= end <= rows
        if first > 0 and end < rows:
            assert abs((first + end) / 2 - centre) <= 1


@pytest.mark.parametrize(
    ("percentile", "expected"), [(90, (85, 95)), (99, (90, 100)), (1, (0, 10))]
)
def test_a_band_is_centred_and_pushed_inside(percentile: float, expected: tuple[int, int]) -> None:
    assert bands({3: 100}, {3: 10}, percentile) == {3: expected}


def made_scan(
    uri: str, scores: np.ndarray, groups: np.ndarray, *, k: int = 20, told: float = 0.0
) -> Scan:
    """A finished scan of four fragments; its sketches are of scores off by `told`."""
    fragments, entries = [], []
    for number, part in enumerate(np.array_split(np.arange(len(scores)), 4)):
        fragment = Fragment(f"b/fragment-{number:05d}.parquet", len(part), int(part[0]), 1, 0)
        table = pa.table(
            {"row_id": part, "group": groups[part].astype(np.int32), "score": scores[part]}
        )
        side_car = side_car_uri(uri, fragment)
        checksum = storage.write_parquet(side_car, table)
        present = [int(group) for group in np.unique(groups[part])]
        values = {group: scores[part][groups[part] == group] for group in present}
        entries.append(
            Entry(
                fragment=fragment.path,
                key="",
                rows=len(part),
                group_rows={group: len(v) for group, v in values.items()},
                group_sketches={g: sketch(v + np.float32(told), k) for g, v in values.items()},
                side_car_bytes=storage.size(side_car),
                side_car_sha256=checksum,
            )
        )
        fragments.append(fragment)
    return Scan(uri, tuple(fragments), entries, cpus=0.2)


def sorted_cut(
    scores: np.ndarray, groups: np.ndarray, ranks: dict[int, tuple[int, int]]
) -> list[int]:
    """Row ids at the wanted ranks, all rows in memory."""
    chosen: list[int] = []
    for group, (first, end) in ranks.items():
        members = [row for row in range(len(scores)) if groups[row] == group]
        members.sort(key=lambda row: (scores[row], row))
        chosen += members[first:end]
    return sorted(chosen)


def drawn(count: int, seed: int, distinct: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Scores, with ties where only a few are distinct; groups of very different sizes."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=count) if distinct is None else draw.integers(0, distinct, count)
    groups = draw.choice([0, 1, 3], count, p=[0.7, 0.28, 0.02])
    return scores.astype(np.float32), groups


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("distinct", [None, 7, 1], ids=["no ties", "many ties", "all equal"])
def test_band_selection_equals_sorting(tmp_path: Path, distinct: int | None) -> None:
    scores, groups = drawn(3_000, seed=1, distinct=distinct)
    found = made_scan(str(tmp_path), scores, groups)
    ranks = bands(found.group_rows, group_shares(found.group_rows, 300, 0.5), 90)
    selected = select_ranks(found, ranks)
    assert selected.tolist() == sorted_cut(scores, groups, ranks)
    assert selected.dtype == np.int64


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("distinct", [None, 5], ids=["no ties", "many ties"])
def test_the_smallest_over_all_groups_equal_sorting(tmp_path: Path, distinct: int | None) -> None:
    scores, groups = drawn(2_000, seed=2, distinct=distinct)
    found = made_scan(str(tmp_path), scores, groups)
    everyone = np.zeros(2_000, dtype=int)
    assert smallest(found, 200).tolist() == sorted_cut(scores, everyone, {0: (0, 200)})


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("told", [0.5, -0.5])
def test_a_sketch_that_misses_only_costs_another_pass(tmp_path: Path, told: float) -> None:
    scores, groups = drawn(2_000, seed=3, distinct=None)
    found = made_scan(str(tmp_path), scores, groups, k=200, told=told)
    ranks = {0: (700, 720), 1: (5, 6)}
    assert select_ranks(found, ranks).tolist() == sorted_cut(scores, groups, ranks)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("told", [0.0, 0.02, -0.02, 1.0])
@pytest.mark.parametrize("distinct", [None, 9], ids=["no ties", "many ties"])
def test_wide_bands_equal_sorting_whatever_the_sketches_say(
    tmp_path: Path, told: float, distinct: int | None
) -> None:
    scores, groups = drawn(4_000, seed=4, distinct=distinct)
    found = made_scan(str(tmp_path), scores, groups, k=200, told=told)
    rows = found.group_rows
    ranks = {0: (300, 2_100), 1: (0, rows[1] // 2), 3: (7, rows[3])}
    assert select_ranks(found, ranks).tolist() == sorted_cut(scores, groups, ranks)
    every = {group: (0, count) for group, count in rows.items()}
    assert select_ranks(found, every).tolist() == list(range(4_000))


@pytest.mark.usefixtures("ray_session")
def test_the_driver_gets_scores_only_near_the_cuts(tmp_path: Path) -> None:
    scores, groups = drawn(40_000, seed=6, distinct=None)
    found = made_scan(str(tmp_path), scores, groups, k=400)
    brackets = _brackets(found, ALL_GROUPS, (10_000, 30_000), 1.0)
    (collected,) = _collect(found, {ALL_GROUPS: brackets}).values()
    assert collected.decides(10_000, 30_000)
    assert 0 < len(collected.row_ids) < 2_000
    assert sum(map(len, collected.between)) > 18_000


def loses_rows(side_car: str) -> None:
    with storage.open_parquet(side_car) as file:
        storage.write_parquet(side_car, file.read().slice(3))


def changes_a_group(side_car: str) -> None:
    with storage.open_parquet(side_car) as file:
        table = file.read()
    groups = np.concatenate([[7], table["group"].to_numpy()[1:]]).astype(np.int32)
    storage.write_parquet(side_car, table.set_column(1, "group", pa.array(groups)))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (loses_rows, "its ledger entry says .* remove this file and run again"),
        (changes_a_group, "its ledger entry says .* remove this file and run again"),
        (storage.remove, "no such file; run again"),
    ],
)
def test_a_side_car_that_its_entry_does_not_fit_is_named(
    tmp_path: Path, damage: Callable[[str], None], message: str
) -> None:
    scores, groups = drawn(200, seed=5, distinct=None)
    found = made_scan(str(tmp_path), scores, groups)
    damage(side_car_uri(found.uri, found.fragments[2]))
    with pytest.raises(SelectionError, match=rf"fragment-00002\.parquet: .*{message}"):
        smallest(found, 200)


@pytest.mark.usefixtures("ray_session")
def test_counts_that_no_side_car_holds_end_the_search(tmp_path: Path) -> None:
    scores, groups = drawn(200, seed=6, distinct=None)
    found = made_scan(str(tmp_path), scores, groups)
    told = {group: rows + 5 for group, rows in found.entries[1].group_rows.items()}
    found.entries[1] = replace(found.entries[1], group_rows=told)
    with pytest.raises(SelectionError, match=r"fragment-00001\.parquet"):
        smallest(found, sum(found.group_rows.values()))


def test_nothing_wanted_is_nothing_selected(tmp_path: Path) -> None:
    scores, groups = drawn(50, seed=4, distinct=None)
    found = made_scan(str(tmp_path), scores, groups)
    assert select_ranks(found, {0: (3, 3)}).tolist() == []
    assert smallest(found, 0).tolist() == []


@pytest.mark.parametrize("ranks", [{0: (0, 51)}, {-1: (0, 51)}, {0: (-1, 2)}, {5: (0, 1)}])
def test_ranks_beyond_the_rows_are_refused(
    tmp_path: Path, ranks: dict[int, tuple[int, int]]
) -> None:
    scores, groups = drawn(50, seed=4, distinct=None)
    found = made_scan(str(tmp_path), scores, groups)
    with pytest.raises(ValueError, match=r"ranks .* of label group"):
        select_ranks(found, ranks)

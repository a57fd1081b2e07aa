"""Exact selection by rank from a scan, without bringing its scores together.

The merged sketches bracket the score of the first wanted rank and that of the last. One pass over
the side-cars counts what lies below both brackets, collects the row ids of what lies between them,
which is wanted, and row ids and scores of what lies in them; a sort of the latter makes the cuts.
So the driver holds little more than the row ids that it returns. Equal scores are ordered by row
id, so the result is that of sorting all rows in memory. A sketch that misses (its error is
probabilistic) only widens the brackets and repeats the pass. That ends: brackets of all scores hold
every rank, as each side-car is held against its ledger entry.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from diet_ray import runtime, storage
from diet_ray.errors import UserError
from diet_ray.scoring.ledger import merged_sketch
from diet_ray.scoring.scan import Scan

Ranks = dict[int, tuple[int, int]]  # label group -> first and one-past-last rank, 0 the smallest

ALL_GROUPS = -1


FOUND = pa.schema(
    {
        "group": pa.int32(),
        "below": pa.int64(),
        "between": pa.list_(pa.int64()),
        "inside": pa.list_(pa.int64()),
        "scores": pa.list_(pa.float32()),
    }
)
"""What a pass tells of a side-car's label group."""


class SelectionError(UserError, ValueError):
    """A side-car that does not fit its ledger entry; the message names it, values and remedy."""


def group_shares(group_rows: dict[int, int], count: int, alpha: float) -> dict[int, int]:
    """How many of `count` rows each label group gives: proportional to |group|^alpha.

    No group gives more than it has; what it cannot give falls to the others in proportion.
    Whole numbers by largest remainder, ties to the smaller group number. Raises ValueError if
    all groups together have fewer than `count` rows.
    """
    if count > sum(group_rows.values()):
        raise ValueError(f"{count} rows asked for, the block has {sum(group_rows.values())}")
    shares: dict[int, int] = {}
    open_groups = {group: rows for group, rows in group_rows.items() if rows}
    while open_groups:
        left = count - sum(shares.values())
        total = sum(rows**alpha for rows in open_groups.values())
        exact = {group: left * rows**alpha / total for group, rows in open_groups.items()}
        full = [group for group, share in exact.items() if share >= open_groups[group]]
        if not full:
            return dict(sorted({**shares, **_rounded(exact, left)}.items()))
        for group in full:
            shares[group] = open_groups.pop(group)
    return dict(sorted(shares.items()))


def _rounded(exact: dict[int, float], total: int) -> dict[int, int]:
    whole = {group: int(share) for group, share in exact.items()}
    by_remainder = sorted(exact, key=lambda group: (whole[group] - exact[group], group))
    for group in by_remainder[: total - sum(whole.values())]:
        whole[group] += 1
    return whole


def bands(group_rows: dict[int, int], shares: dict[int, int], percentile: float) -> Ranks:
    """For each group the `shares[group]` ranks centred on a percentile of its scores."""
    ranks = {}
    for group, wanted in shares.items():
        rows = group_rows[group]
        first = round(rows * percentile / 100 - wanted / 2)
        first = min(max(first, 0), rows - wanted)
        ranks[group] = (first, first + wanted)
    return ranks


def select_ranks(scan: Scan, ranks: Ranks) -> np.ndarray:
    """Row ids at the wanted ranks of each label group, int64, ascending.

    The only key ALL_GROUPS ranks all rows together. Raises ValueError for a rank that no row has,
    SelectionError for a side-car that is missing or does not hold what its ledger entry says,
    StorageError for a damaged one.
    """
    for group, wanted in ranks.items():
        _check_ranks(scan, group, wanted)
    ranks = {group: (first, end) for group, (first, end) in ranks.items() if end > first}
    margin = 1.0
    selected: dict[int, list[np.ndarray]] = {}
    while len(selected) < len(ranks):
        missing = {group: ranks[group] for group in ranks if group not in selected}
        brackets = {group: _brackets(scan, group, r, margin) for group, r in missing.items()}
        for group, found in _collect(scan, brackets).items():
            if found.decides(*ranks[group]):
                selected[group] = [*found.between, found.cut(*ranks[group])]
        margin *= 4
    parts = [part for of_group in selected.values() for part in of_group]
    row_ids = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
    row_ids.sort()
    return row_ids


def _check_ranks(scan: Scan, group: int, ranks: tuple[int, int]) -> None:
    rows = sum(_members(scan, group).values())
    if ranks[0] < 0 or ranks[1] > rows:
        raise ValueError(f"ranks {ranks} of label group {group}, which has {rows} scored rows")


def _members(scan: Scan, group: int) -> dict[int, int]:
    """Scored rows of the label groups that `group` stands for."""
    counts = scan.group_rows
    return counts if group == ALL_GROUPS else {group: counts.get(group, 0)}


def smallest(scan: Scan, count: int) -> np.ndarray:
    """Row ids of the `count` smallest scores over all label groups, ascending."""
    return select_ranks(scan, {ALL_GROUPS: (0, count)})


@dataclass(frozen=True)
class _Brackets:
    """Scores, ends included, that hold the first wanted row and the last; one where they meet."""

    first: tuple[float, float]
    last: tuple[float, float]

    def masks(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which scores are below both brackets, in one of them, between them."""
        in_first = (scores >= self.first[0]) & (scores <= self.first[1])
        in_last = (scores >= self.last[0]) & (scores <= self.last[1])
        between = (scores > self.first[1]) & (scores < self.last[0])
        return scores < self.first[0], in_first | in_last, between


def _brackets(scan: Scan, group: int, ranks: tuple[int, int], margin: float) -> _Brackets:
    groups = _members(scan, group)
    sketch = merged_sketch(scan.entries, next(iter(groups)))
    for other in list(groups)[1:]:
        sketch.merge(merged_sketch(scan.entries, other))
    rows = sum(groups.values())
    error = margin * sketch.normalized_rank_error(False)

    def score(share: float) -> float:
        if share <= 0:
            return -np.inf
        return np.inf if share >= 1 else sketch.get_quantile(share)

    first, last = ((score(r / rows - error), score(r / rows + error)) for r in ranks)
    if ranks[0] == 0:
        first = -np.inf, -np.inf
    if ranks[1] == rows:
        last = np.inf, np.inf
    if last[0] <= first[1]:
        first = last = first[0], last[1]
    return _Brackets(first, last)


@dataclass(frozen=True)
class _Found:
    """What one pass found of a label group."""

    below: int  # rows below both brackets
    between: list[np.ndarray]  # row ids of those between them
    row_ids: np.ndarray  # of those in a bracket, by score and row id
    in_first: int  # so many of which are in the first bracket

    @property
    def rows_between(self) -> int:
        """How many lie between the brackets."""
        return sum(map(len, self.between))

    def decides(self, first: int, end: int) -> bool:
        """Whether both cuts are in a bracket, so that all rows between the brackets are wanted."""
        between = self.rows_between
        starts = self.below <= first
        ends = end <= self.below + between + len(self.row_ids)
        if not between:
            return starts and ends
        return starts and first <= self.below + self.in_first <= end - between and ends

    def cut(self, first: int, end: int) -> np.ndarray:
        """Of the rows in brackets those at the ranks from first until before end."""
        return self.row_ids[first - self.below : end - self.below - self.rows_between]


def _collect(scan: Scan, brackets: dict[int, _Brackets]) -> dict[int, _Found]:
    """What lies where, of each group."""
    side_cars = [
        {
            "uri": storage.join(scan.uri, entry.fragment),
            "sha256": entry.side_car_sha256,
            "told": json.dumps(entry.group_rows),
        }
        for entry in scan.entries
    ]
    read = runtime.one_task_each(side_cars).map_batches(
        _read_brackets,
        fn_args=(brackets,),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=scan.cpus,
    )
    with runtime.plain_errors():
        table = pa.concat_tables(ray.get(read.to_arrow_refs()))
    group_of = table["group"].to_numpy()
    return {
        group: _found(table, np.flatnonzero(group_of == group), of)
        for group, of in brackets.items()
    }


def _found(table: pa.Table, rows: np.ndarray, brackets: _Brackets) -> _Found:
    """rows: those of one group, of all side-cars. Nothing is copied but what lies in a bracket."""
    between, inside, scores = (
        [table[name][row].values.to_numpy() for row in rows.tolist()]
        for name in ("between", "inside", "scores")
    )
    row_ids, sorted_by = np.concatenate(inside), np.concatenate(scores)
    return _Found(
        below=int(table["below"].to_numpy()[rows].sum()),
        between=between,
        row_ids=row_ids[np.lexsort((row_ids, sorted_by))],
        in_first=int((sorted_by <= brackets.first[1]).sum()),
    )


def _read_brackets(batch: pa.Table, brackets: dict[int, _Brackets]) -> pa.Table:
    """A row per side-car and group: how many rows are below, row ids between, row ids and scores
    inside."""
    columns: dict[str, list[Any]] = {name: [] for name in FOUND.names}
    for entry in batch.to_pylist():
        told = {int(g): rows for g, rows in json.loads(entry["told"]).items()}
        table = _read_side_car(entry["uri"], entry["sha256"], told)
        row_ids, scores = table["row_id"].to_numpy(), table["score"].to_numpy()
        groups = table["group"].to_numpy()
        for group, of in brackets.items():
            member = np.ones(len(groups), bool) if group == ALL_GROUPS else groups == group
            below, inside, between = (member & mask for mask in of.masks(scores))
            columns["group"].append(group)
            columns["below"].append(int(below.sum()))
            columns["between"].append(row_ids[between])
            columns["inside"].append(row_ids[inside])
            columns["scores"].append(scores[inside])
    return pa.table(columns, FOUND)


def _read_side_car(uri: str, sha256: str, told: dict[int, int]) -> pa.Table:
    """A side-car that is the one of its ledger entry. told: label group -> rows."""
    try:
        content = storage.read_bytes(uri)
    except FileNotFoundError:
        raise SelectionError(f"{uri}: no such file; run again to score its fragment") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise SelectionError(
            f"{uri}: damaged: its SHA-256 is {found}, its ledger entry says {sha256}; remove this "
            "file and run again to score its fragment"
        )
    table = pq.read_table(pa.BufferReader(content))
    groups = np.unique(table["group"].to_numpy(), return_counts=True)
    held = dict(zip(*(values.tolist() for values in groups), strict=True))
    if held != told:
        raise SelectionError(
            f"{uri}: rows per label group {held}, its ledger entry says {told}; remove this file "
            "and run again to score its fragment"
        )
    return table

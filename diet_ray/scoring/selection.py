"""Exact selection by rank from a scan, without bringing its scores together.

The merged sketches bracket the scores at the wanted ranks; one pass over the side-cars counts
what lies below the bracket and collects what lies in it; a sort of the collected rows makes the
cut. Equal scores are ordered by row id, so the result is that of sorting all rows in memory. A
sketch that misses (its error is probabilistic) only widens the bracket and repeats the pass. That
ends: a bracket of all scores holds every rank, as each side-car is held against its ledger entry.
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
    selected: dict[int, np.ndarray] = {}
    while len(selected) < len(ranks):
        missing = {group: ranks[group] for group in ranks if group not in selected}
        brackets = {group: _bracket(scan, group, r, margin) for group, r in missing.items()}
        below, inside = _collect(scan, brackets)
        for group, (first, end) in missing.items():
            rows = inside[group]
            if below[group] <= first and end <= below[group] + len(rows.row_ids):
                order = np.lexsort((rows.row_ids, rows.scores))
                cut = order[first - below[group] : end - below[group]]
                selected[group] = rows.row_ids[cut]
        margin *= 4
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *selected.values()]))


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


def _bracket(scan: Scan, group: int, ranks: tuple[int, int], margin: float) -> tuple[float, float]:
    groups = _members(scan, group)
    sketch = merged_sketch(scan.entries, next(iter(groups)))
    for other in list(groups)[1:]:
        sketch.merge(merged_sketch(scan.entries, other))
    rows = sum(groups.values())
    error = margin * sketch.normalized_rank_error(False)
    low, high = ranks[0] / rows - error, ranks[1] / rows + error
    return (
        sketch.get_quantile(low) if low > 0 else -np.inf,
        sketch.get_quantile(high) if high < 1 else np.inf,
    )


@dataclass(frozen=True)
class _Inside:
    row_ids: np.ndarray
    scores: np.ndarray


def _collect(
    scan: Scan, brackets: dict[int, tuple[float, float]]
) -> tuple[dict[int, int], dict[int, _Inside]]:
    """Rows below each group's bracket, counted, and rows inside it, collected."""
    side_cars = [
        {
            "uri": storage.join(scan.uri, entry.fragment),
            "sha256": entry.side_car_sha256,
            "told": json.dumps(entry.group_rows),
        }
        for entry in scan.entries
    ]
    found = runtime.one_task_each(side_cars).map_batches(
        _read_bracket,
        fn_args=(brackets,),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=scan.cpus,
    )
    with runtime.plain_errors():
        table = pa.concat_tables(ray.get(found.to_arrow_refs()))
    group = table["group"].to_numpy()
    row_ids, scores = table["row_id"].to_numpy(), table["score"].to_numpy()
    is_below = table["is_below"].to_numpy(zero_copy_only=False)
    below = {g: int(row_ids[(group == g) & is_below].sum()) for g in brackets}
    inside = {}
    for g in brackets:
        mask = (group == g) & ~is_below
        inside[g] = _Inside(row_ids[mask], scores[mask])
    return below, inside


def _read_bracket(batch: pa.Table, brackets: dict[int, tuple[float, float]]) -> pa.Table:
    """Per group one row that counts (`is_below`, the count as row_id), then the rows inside."""
    columns: dict[str, list[Any]] = {"group": [], "row_id": [], "score": [], "is_below": []}
    for entry in batch.to_pylist():
        told = {int(g): rows for g, rows in json.loads(entry["told"]).items()}
        table = _read_side_car(entry["uri"], entry["sha256"], told)
        row_ids, scores = table["row_id"].to_numpy(), table["score"].to_numpy()
        groups = table["group"].to_numpy()
        for group, (low, high) in brackets.items():
            member = np.ones(len(groups), bool) if group == ALL_GROUPS else groups == group
            inside = member & (scores >= low) & (scores <= high)
            below = int((member & (scores < low)).sum())
            count = int(inside.sum())
            columns["group"].append(np.full(count + 1, group, dtype=np.int32))
            columns["row_id"].append(np.concatenate([[below], row_ids[inside]]).astype(np.int64))
            columns["score"].append(np.concatenate([[0], scores[inside]]).astype(np.float32))
            columns["is_below"].append(np.arange(count + 1) == 0)
    return pa.table({name: np.concatenate(parts) for name, parts in columns.items()})


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

"""From the table of results to the paper's tables: pandas in, pandas out.

Protocol: `results` has a row per cell, its index is the cell's key, and these columns count here:
study, reference, method, labels, variant, ratio, candidate, network, seed, auc, logloss. A table
is tidy (one number per row and column; report/ lays it out) and holds, per candidate, means over
seeds; "mean" is the mean over candidates, taken seed by seed, over the seeds that have them all.
A study shows its own rows and borrows from "main" what it need not train again: `borrowing`.
Where nothing is to be shown a table is empty but has its columns.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from diet_ray.distill.parts import Parts
from diet_ray.evaluation.gap import is_clear, lead, recovered_gap
from diet_ray.evaluation.methods import METHODS, REFERENCE_FREE
from diet_ray.evaluation.statistics import (
    Fidelity,
    fidelity,
    noise_ceiling,
    over_rows,
    over_seeds,
    over_seeds_and_rows,
    paired_difference,
    split_fidelity,
)

MEAN = "mean"

GROUP = ["reference", "method", "labels", "variant", "ratio"]
LEVEL = ["auc", "auc_half_width", "logloss"]
DIFFERENCE = [
    "difference",
    "half_width",
    "seeds",
    "rows_low",
    "rows_high",
    "both_low",
    "both_high",
]
MARKS = list(Parts._fields)
GAP = ["recovered_gap", "lead", "lead_half_width"]
SUMMARY = [*GROUP, "candidate", "network", *LEVEL, *GAP, "seeds"]
FIDELITY = ["settings", "pearson", "spearman", "kendall", "regret"]

Resampled = Mapping[Hashable, np.ndarray]
"""Cell to its AUC on every resample of the test rows, as `statistics.resampled_aucs` gives it."""


def borrowing(results: pd.DataFrame, study: str, methods: Sequence[str]) -> pd.DataFrame:
    """Rows of a study, and of main's `methods` for its candidates and seeds, each training once."""
    own = results[results["study"] == study]
    main = results[results["study"] == "main"]
    main = main[main["candidate"].isin(own["candidate"]) & main["method"].isin(methods)]
    main = main[main["seed"].isin(own["seed"])]
    both = pd.concat([own, main])
    identity = both[[*GROUP, "candidate", "seed"]].copy()
    identity.loc[both["method"].isin(REFERENCE_FREE), "reference"] = ""
    return both[~identity.duplicated()]


def comparison(results: pd.DataFrame) -> pd.DataFrame:
    """Table 3 (study main): the columns of SUMMARY, a row per reference, method and candidate."""
    return summary(borrowing(results, "main", ()))


def settings(results: pd.DataFrame) -> pd.DataFrame:
    """Study fidelity, every setting by itself: what Figure 1 draws."""
    table = summary(borrowing(results, "fidelity", ("full",)))
    return table[table["candidate"] != MEAN].reset_index(drop=True)


def transfer(results: pd.DataFrame) -> pd.DataFrame:
    """Study transfer: full data and the sets distilled by each reference, candidate by candidate.

    A row of full data stands under every reference.
    """
    rows = borrowing(results, "transfer", ("full", "warm", "distilled"))
    return _of_methods(summary(rows), ("full", "warm", "distilled"))


def ratios(results: pd.DataFrame) -> pd.DataFrame:
    """Study ratio: what Figure 3 draws, full data and sets distilled at several ratios."""
    rows = borrowing(results, "ratio", ("full", "warm", "distilled"))
    return _of_methods(summary(rows), ("full", "warm", "distilled"))


def _of_methods(table: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    hard = (table["method"] == "distilled") & (table["labels"] != "soft")
    return table[table["method"].isin(methods) & ~hard].reset_index(drop=True)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means, half-widths and recovered gaps: the columns of SUMMARY.

    Methods without a reference stand under every reference. The gap is measured against the warm
    start of the same reference; `lead` is full data's over it, paired by seed, and where that is
    not clear of zero (`gap.is_clear`), or one of the two is missing, the gap is NaN.
    """
    lines: list[dict[str, object]] = []
    for reference in _references(rows):
        groups = _groups(rows, reference)
        grids = {key: _with_mean(_grid(group, "auc"), rows) for key, group in groups.items()}
        bounds = {key[1]: grid for key, grid in grids.items() if key[1] in ("full", "warm")}
        for key, group in groups.items():
            lines += _summary_lines(key, group, grids[key], rows, bounds)
    return pd.DataFrame(lines, columns=SUMMARY)


def _summary_lines(
    key: tuple,
    group: pd.DataFrame,
    aucs: pd.DataFrame,
    rows: pd.DataFrame,
    bounds: Mapping[str, pd.DataFrame],
) -> list[dict[str, object]]:
    losses = _with_mean(_grid(group, "logloss"), rows)
    networks = group.drop_duplicates("candidate").set_index("candidate")["network"]
    lines = []
    for candidate in aucs:
        auc = over_seeds(aucs[candidate].dropna().tolist())
        line = dict(zip(GROUP, key, strict=True)) | {
            "candidate": candidate,
            "network": networks.get(candidate, ""),
            "auc": auc.mean,
            "auc_half_width": _number(auc.half_width),
            "logloss": losses[candidate].mean(),
            **_gap(auc.mean, str(candidate), bounds),
            "seeds": auc.seeds,
        }
        lines.append(line)
    return lines


def _gap(auc: float, candidate: str, bounds: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """The columns of GAP."""
    warm, full = (_by_seed(bounds, method, candidate) for method in ("warm", "full"))
    ahead = lead(full, warm)
    if ahead is None:
        return dict.fromkeys(GAP, np.nan)
    levels = [float(np.mean(list(values.values()))) for values in (warm, full)]
    recovered = recovered_gap(auc, *levels) if is_clear(ahead) else np.nan
    return dict(zip(GAP, (recovered, ahead.mean, _number(ahead.half_width)), strict=True))


def _by_seed(grids: Mapping[str, pd.DataFrame], method: str, candidate: str) -> dict[int, float]:
    if candidate not in grids.get(method, ()):
        return {}
    values = grids[method][candidate].dropna()
    return dict(zip(values.index.tolist(), values.tolist(), strict=True))


def _references(rows: pd.DataFrame) -> list[str]:
    """In order of appearance; full and cold alone have none but are shown."""
    dependent = rows[~rows["method"].isin(REFERENCE_FREE)]["reference"].unique().tolist()
    return dependent or [""] * min(1, len(rows))


def _groups(rows: pd.DataFrame, reference: str) -> dict[tuple, pd.DataFrame]:
    """(reference, method, labels, variant, ratio) to its rows, methods as in METHODS."""
    free = rows["method"].isin(REFERENCE_FREE)
    mine = rows[free | (rows["reference"] == reference)].assign(reference=reference)
    groups = dict(iter(mine.groupby(GROUP, dropna=False, sort=False)))
    return dict(sorted(groups.items(), key=lambda item: _rank(item[0])))


def _rank(key: tuple) -> tuple:
    """Soft labels before hard ones, ratios rising."""
    _, method, labels, variant, ratio = key
    place = METHODS.index(method) if method in METHODS else len(METHODS)
    return place, labels == "hard", variant, 0.0 if pd.isna(ratio) else ratio


def _grid(group: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric by seed and candidate."""
    _check_once(group)
    grid = group.pivot(index="seed", columns="candidate", values=metric)
    return grid[group["candidate"].unique()]


def _check_once(group: pd.DataFrame) -> None:
    """Raises ValueError if a candidate has two rows with one seed."""
    twice = group[group.duplicated(["candidate", "seed"])]
    if len(twice):
        row = twice.iloc[0]
        raise ValueError(
            f"results: candidate {row['candidate']!r} under method {row['method']!r} has two rows "
            f"with seed {row['seed']}; keep one"
        )


def _with_mean(grid: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """With a column for the mean over the candidates of `rows`, if there are several and all."""
    candidates = rows["candidate"].unique()
    whole = grid.dropna() if set(candidates) == set(grid) else grid[:0]
    if len(candidates) < 2 or whole.empty:
        return grid
    return grid.assign(**{MEAN: whole.mean(axis=1)})


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def differences(
    results: pd.DataFrame, resampled: Resampled | None = None, seed: int = 0
) -> pd.DataFrame:
    """Study main: distilled (soft labels) minus every other method.

    Columns: those of GROUP, which name the other method, candidate and those of DIFFERENCE.
    half_width is that of the paired t-interval over seeds. With `resampled`, rows_* bound the
    bootstrap over test rows and both_* that over seeds and rows; without, they are NaN.
    """
    rows = borrowing(results, "main", ())
    lines: list[dict[str, object]] = []
    for reference in _references(rows):
        groups = _groups(rows, reference)
        ours = [key for key in groups if key[1:4] == ("distilled", "soft", "")]
        for key, group in groups.items():
            if ours and key not in ours:
                found = _differences(groups[ours[0]], group, resampled, seed)
                lines += [dict(zip(GROUP, key, strict=True)) | line for line in found]
    return pd.DataFrame(lines, columns=[*GROUP, "candidate", *DIFFERENCE])


def _differences(
    first: pd.DataFrame, second: pd.DataFrame, resampled: Resampled | None, seed: int
) -> list[dict[str, object]]:
    """first - second: a line per candidate that shares a seed, and one for their mean."""
    ones, others = _cells(first), _cells(second)
    candidates = first["candidate"].unique().tolist()
    members = {candidate: [candidate] for candidate in candidates}
    if len(candidates) > 1:
        members[MEAN] = candidates
    lines = []
    for name, group in members.items():
        shared = {
            s: [(ones[c, s], others[c, s]) for c in group]
            for s in sorted(first["seed"].unique())
            if all((c, s) in ones and (c, s) in others for c in group)
        }
        if shared:
            lines.append({"candidate": name} | _difference(shared, resampled, seed))
    return lines


_Pair = tuple[tuple[Hashable, float], tuple[Hashable, float]]


def _difference(
    shared: Mapping[int, Sequence[_Pair]], resampled: Resampled | None, seed: int
) -> dict[str, object]:
    """Of the mean over a seed's pairs of (cell, AUC)."""
    estimate = paired_difference(
        {s: float(np.mean([auc for (_, auc), _ in pairs])) for s, pairs in shared.items()},
        {s: float(np.mean([auc for _, (_, auc) in pairs])) for s, pairs in shared.items()},
    )
    line: dict[str, object] = {
        "difference": estimate.mean,
        "half_width": _number(estimate.half_width),
        "seeds": estimate.seeds,
    }
    if resampled is None:
        return line
    values = [
        np.mean([resampled[one] - resampled[other] for (one, _), (other, _) in pairs], axis=0)
        for pairs in shared.values()
    ]
    return line | _bootstrapped(np.array(values), seed)


def _cells(group: pd.DataFrame) -> dict[tuple[str, int], tuple[Hashable, float]]:
    """(candidate, seed) to the cell's key and its AUC."""
    _check_once(group)
    names = zip(group["candidate"], group["seed"], strict=True)
    return dict(zip(names, zip(group.index, group["auc"], strict=True), strict=True))


def _bootstrapped(values: np.ndarray, seed: int) -> dict[str, float]:
    rows, both = over_rows(values), over_seeds_and_rows(values, seed)
    return {
        "rows_low": rows.low,
        "rows_high": rows.high,
        "both_low": both.low,
        "both_high": both.high,
    }


def ablation(
    results: pd.DataFrame,
    parts: Mapping[str, Parts],
    resampled: Resampled | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Table 4: reference, candidate, variant, and the columns of MARKS, LEVEL and DIFFERENCE.

    The difference is variant minus the run's own recipe, "", paired. parts: what is on in each
    variant (`studies.parts_of_variants`), in the order in which they are shown. Raises ValueError
    for a variant that is not among them.
    """
    rows = borrowing(results, "ablation", ("distilled",))
    rows = rows[(rows["method"] == "distilled") & (rows["labels"] == "soft")]
    columns = ["reference", "candidate", "variant", *MARKS, *LEVEL, *DIFFERENCE]
    for variant in rows["variant"]:
        if variant and variant not in parts:
            raise ValueError(
                f"results: variant {variant!r} is no ablation of this configuration "
                f"({', '.join(filter(None, parts))}); give the one that the results are of"
            )
    tables = []
    for reference in rows[rows["variant"] != ""]["reference"].unique():
        mine = rows[rows["reference"] == reference]
        for variant, marks in parts.items():
            group = mine[mine["variant"] == variant]
            found = _differences(group, mine[mine["variant"] == ""], resampled, seed)
            table = summary(group).drop(columns="seeds")
            table = table.assign(**marks._asdict())
            differing = pd.DataFrame(found, columns=["candidate", *DIFFERENCE])
            tables.append(table.merge(differing, on="candidate")[columns])
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=columns)


def faithfulness(results: pd.DataFrame) -> pd.DataFrame:
    """Study fidelity: does a method order the settings as full data does?

    Columns: reference, method, labels, means, seeds and those of FIDELITY. means "all": of each
    side's mean over all its seeds. means "halves": one half of the seeds against full data's
    other half, mean over splits; there full data itself is the noise ceiling.
    """
    rows = borrowing(results, "fidelity", ("full",))
    lines: list[dict[str, object]] = []
    for reference in _references(rows):
        groups = _groups(rows, reference)
        grids = {key: _grid(group, "auc") for key, group in groups.items()}
        full = next((grid for key, grid in grids.items() if key[1] == "full"), None)
        for key, grid in grids.items():
            if full is not None:
                found = _faithfulness(grid, full, ceiling=key[1] == "full")
                lines += [dict(zip(GROUP[:3], key[:3], strict=True)) | line for line in found]
    columns = ["reference", "method", "labels", "means", "seeds", *FIDELITY]
    return pd.DataFrame(lines, columns=columns)


def _faithfulness(grid: pd.DataFrame, full: pd.DataFrame, ceiling: bool) -> list[dict[str, object]]:
    shared = [c for c in full if c in grid]
    mine, truth = grid[shared].dropna(), full[shared].dropna()
    seeds = sorted(set(mine.index) & set(truth.index))
    one, other = mine.loc[seeds].to_numpy(), truth.loc[seeds].to_numpy()
    lines = []
    if not ceiling and len(mine) and len(truth):
        whole = fidelity(mine.mean().to_numpy(), truth.mean().to_numpy())
        lines.append(_fidelity_line("all", len(mine), whole))
    halves = noise_ceiling(other) if ceiling else split_fidelity(one, other)
    if halves is not None:
        lines.append(_fidelity_line("halves", len(seeds), halves))
    return lines


def _fidelity_line(means: str, seeds: int, found: Fidelity) -> dict[str, object]:
    return {"means": means, "seeds": seeds} | {name: getattr(found, name) for name in FIDELITY}


def costs(phases: pd.DataFrame) -> pd.DataFrame:
    """Table 5: device, and per phase seconds per epoch and peak memory in GB (10^9 bytes).

    phases: columns phase, seconds_per_epoch, peak_bytes, device; a row per measurement. Several
    of one phase on one device: the mean time and the highest peak.
    """
    grouped = phases.groupby(["device", "phase"], sort=False)
    table = grouped.agg(
        seconds_per_epoch=("seconds_per_epoch", "mean"), peak_gb=("peak_bytes", "max")
    )
    table["peak_gb"] /= 1e9
    return table.reset_index()

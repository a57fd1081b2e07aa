"""Tables laid out for reading: tidy frames of `evaluation.tables` become a page of Markdown.

Protocol: a *section* is a heading, a sentence that says how to read it, the number of seeds,
tables of text, notes below them, and the names of pictures that lie beside the page. Each
function named after a table makes its section, or sections, one per reference network; an empty
table makes none. The sections of the fidelity study are made by `agreement.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from diet_ray.config import ProtocolConfig
from diet_ray.evaluation.gap import why_none
from diet_ray.evaluation.tables import MARKS, MEAN
from diet_ray.report.figures import method_name

NONE = "-"
EDGE = "†"

# What an interval over rows resamples.
ROWS = "test rows"
USERS = "test users, each with all rows"

_INTERVALS = (
    "intervals are of 95%: ± over seeds (t), and, where given, over rows (bootstrap of {drawn}, "
    "the networks kept) and over both (seeds and rows resampled)"
)


@dataclass(frozen=True)
class Section:
    """One heading of the page."""

    title: str
    reading: str
    tables: dict[str, pd.DataFrame]  # caption, possibly empty, to cells of text
    seeds: str = ""
    pictures: tuple[str, ...] = ()  # without their endings
    notes: tuple[str, ...] = ()  # below the tables


def page(title: str, sections: Sequence[Section], left_out: Sequence[str], recipe: str = "") -> str:
    """The whole page; `left_out`: studies without rows; `recipe`: how the set was distilled."""
    parts = [f"# {title}"]
    if recipe:
        parts.append(f"*Distilled* stands for: {recipe}.")
    if left_out:
        parts.append(f"Left out, since the results have no rows of it: {', '.join(left_out)}.")
    for section in sections:
        parts.append(f"## {section.title}")
        parts.append(" ".join(filter(None, [section.reading, section.seeds])))
        parts += [
            f"![{section.title}]({name}.png)\n\n[The same as SVG]({name}.svg)"
            for name in section.pictures
        ]
        for caption, table in section.tables.items():
            text = table.to_markdown(index=False, disable_numparse=True)
            parts.append(f"**{caption}**\n\n{text}" if caption else text)
        parts += section.notes
    return "\n\n".join(parts) + "\n"


def protocols(tried: pd.DataFrame) -> list[Section]:
    """What was tried for every method and what was chosen (`evaluation.tuning`)."""
    if tried.empty:
        return []
    lines = tried.to_dict(orient="records")
    keys = [key for key in ProtocolConfig.model_fields if key in tried]
    columns = {
        "Method": [method_name(line["method"], line["labels"]) for line in lines],
        **{key: [_tried(line, key) for line in lines] for key in keys},
        "Validation AUC": tried["validation_auc"].map(fixed),
        "Chosen": tried["chosen"].map({True: "yes", False: ""}),
    }
    reading = (
        "Every method's protocol is the one with the highest validation AUC, mean over candidates, "
        "with seeds that are not among those judged; a dash is a key of the warm-up that the "
        "method has none of."
    )
    note = (
        f"{EDGE} The smallest or the largest value tried for this method: a better one may lie "
        "beyond it, and what is said of the method is a lower bound until the list goes on there."
    )
    notes = (note,) if tried["edge"].any() else ()
    return [Section("Protocols", reading, {"": pd.DataFrame(columns)}, notes=notes)]


def _tried(line: dict[Hashable, Any], key: str) -> str:
    """A key's value, marked where the choice lies at an edge of what was tried."""
    mark = EDGE if key in line["edge"].split(",") else ""
    return NONE if pd.isna(line[key]) else f"{line[key]:g}{mark}"


def comparison(table: pd.DataFrame) -> list[Section]:
    """Table 3: methods by candidates, for each reference."""
    sections = []
    for reference, lines in table.groupby("reference", sort=False):
        ratios = [f"{100 * ratio:.4g}%" for ratio in lines["ratio"].dropna().unique()]
        of_rows = f", {', '.join(ratios)} of the rows" if ratios else ""
        rows = _methods(lines)
        sections.append(
            Section(
                title=f"Table 3: methods compared (reference {reference}{of_rows})",
                reading=(
                    "Test AUC and LogLoss are means over seeds and tasks, ± is half of the 95% "
                    "t-interval over seeds; the recovered gap is 0 at the warm start of the same "
                    "reference and 1 at full data, where full data is clearly above it."
                ),
                seeds=_seeds(lines),
                tables={
                    "AUC": _wide("Method", rows, lines, _auc),
                    "LogLoss": _wide("Method", rows, lines, lambda x: fixed(x["logloss"])),
                    "Recovered gap": _wide("Method", rows, lines, _gap),
                },
                notes=_notes(why_none(lines)),
            )
        )
    return sections


def differences(table: pd.DataFrame, drawn: str = ROWS) -> list[Section]:
    """Distilled minus every other method, for each reference; drawn: ROWS or USERS."""
    return [
        Section(
            title=f"Distilled set against every other method (reference {reference})",
            reading=(
                "AUC of the distilled set (soft labels) minus the other method's, paired by seed, "
                f"above zero where the distilled set is better; {_INTERVALS.format(drawn=drawn)}."
            ),
            seeds=_seeds(lines),
            tables={
                "": pd.DataFrame(
                    {
                        "Against": _methods(lines),
                        "Candidate": lines["candidate"],
                        **_difference_columns(lines),
                    }
                )
            },
        )
        for reference, lines in table.groupby("reference", sort=False)
    ]


def ablation(table: pd.DataFrame, drawn: str = ROWS) -> list[Section]:
    """Table 4: the recipe with parts of it changed, for each reference; drawn: ROWS or USERS."""
    names = ("Fusion", "Target selection", "Memory selection")
    sections = []
    for reference, lines in table.groupby("reference", sort=False):
        marks = {
            name: lines[mark].map({True: "✓", False: "✗"})
            for name, mark in zip(names, MARKS, strict=True)
        }
        columns = {
            "Variant": lines["variant"].replace("", "as configured"),
            **marks,
            "Candidate": lines["candidate"],
            "AUC": lines.apply(_auc, axis=1),
            "LogLoss": lines["logloss"].map(fixed),
            **_difference_columns(lines),
        }
        own = lines["variant"] == ""
        shown = pd.DataFrame(columns)
        shown.loc[own, list(_difference_columns(lines))] = NONE
        sections.append(
            Section(
                title=f"Table 4: ablation (reference {reference})",
                reading=(
                    "✓ is a part of the paper's method that the variant has on, ✗ one that it has "
                    "off (a selection that takes all or nothing is off); the difference is the "
                    "variant's AUC minus that of the recipe as configured, paired by seed, above "
                    f"zero where the variant is better; {_INTERVALS.format(drawn=drawn)}."
                ),
                seeds=_seeds(lines),
                tables={"": shown},
            )
        )
    return sections


def costs(table: pd.DataFrame) -> list[Section]:
    """Table 5: time and memory."""
    if table.empty:
        return []
    columns = {
        "Device": table["device"],
        "Phase": table["phase"],
        "Seconds per epoch": table["seconds_per_epoch"].map("{:.1f}".format),
        "Peak memory (GB)": table["peak_gb"].map("{:.2f}".format),
    }
    reading = (
        "Time of one pass over a phase's own rows, under the protocols that were chosen, and how "
        "far memory rose above a process that has read nothing; a GB is 10^9."
    )
    return [Section("Table 5: cost", reading, {"": pd.DataFrame(columns)})]


def transfer(table: pd.DataFrame) -> list[Section]:
    """Which reference distils for which candidate."""
    return _distilled(
        table,
        "Transfer: a reference's distilled set, another network's candidate",
        "A line is the network that distilled, a column the one that is trained on the result.",
        (),
    )


def ratios(table: pd.DataFrame, pictures: Sequence[str]) -> list[Section]:
    """Figure 3 and its numbers."""
    return _distilled(
        table,
        "Figure 3: AUC against the distilled set's size",
        "Bands and ± are 95% t-intervals over seeds; the dashed line is full data.",
        pictures,
    )


def _distilled(
    table: pd.DataFrame, title: str, reading: str, pictures: Sequence[str]
) -> list[Section]:
    """Full data's line, then one for every reference and ratio."""
    distilled = table[table["method"] == "distilled"]
    if distilled.empty:
        return []
    full = table[table["method"] == "full"].drop_duplicates("candidate")
    lines = pd.concat([full, distilled])
    pairs = zip(distilled["ratio"], distilled["reference"], strict=True)
    names = [f"{100 * ratio:.4g}%, distilled by {reference}" for ratio, reference in pairs]
    rows = [*[method_name("full", "")] * len(full), *names]
    tables = {
        "AUC": _wide("Set", rows, lines, _auc),
        "Recovered gap": _wide("Set", names, distilled, _gap),
    }
    notes = _notes(
        *(
            why_none(group, f" (reference {reference})")
            for reference, group in distilled.groupby("reference", sort=False)
        )
    )
    return [Section(title, reading, tables, _seeds(lines), tuple(pictures), notes)]


def _wide(
    head: str, rows: Sequence[str], lines: pd.DataFrame, text: Callable[[pd.Series], str]
) -> pd.DataFrame:
    """`rows` names each line's row, its candidate is the column; both in order, the mean last."""
    cells = pd.DataFrame(
        {"row": rows, "column": lines["candidate"], "text": lines.apply(text, axis=1)}
    )
    columns = sorted(cells["column"].unique(), key=lambda name: name == MEAN)
    wide = cells.pivot(index="row", columns="column", values="text")
    wide = wide.reindex(index=cells["row"].unique(), columns=columns).fillna(NONE)
    return wide.rename_axis(index=head, columns=None).reset_index()


def _methods(lines: pd.DataFrame) -> list[str]:
    """Each line's method, with its ratio where one method is there with several."""
    names = [method_name(*pair) for pair in zip(lines["method"], lines["labels"], strict=True)]
    if lines["ratio"].dropna().nunique() < 2:
        return names
    return [
        name if pd.isna(ratio) else f"{name}, {100 * ratio:.4g}%"
        for name, ratio in zip(names, lines["ratio"], strict=True)
    ]


def _difference_columns(lines: pd.DataFrame) -> dict[str, pd.Series]:
    columns = {"Difference ± seeds": lines.apply(_difference, axis=1)}
    if lines["rows_low"].notna().any():
        columns["Over rows"] = lines.apply(lambda x: _interval(x, "rows"), axis=1)
        columns["Over seeds and rows"] = lines.apply(lambda x: _interval(x, "both"), axis=1)
    return columns


def _notes(*sentences: str) -> tuple[str, ...]:
    return tuple(filter(None, sentences))


def _seeds(lines: pd.DataFrame) -> str:
    low, high = int(lines["seeds"].min()), int(lines["seeds"].max())
    return f"Seeds: {low}." if low == high else f"Seeds: {low} to {high}."


def fixed(value: float) -> str:
    """An AUC or a LogLoss, as all tables write it."""
    return NONE if pd.isna(value) else f"{value:.4f}"


def _auc(line: pd.Series) -> str:
    width = line["auc_half_width"]
    return fixed(line["auc"]) + ("" if pd.isna(width) else f" ± {width:.4f}")


def _gap(line: pd.Series) -> str:
    return NONE if pd.isna(line["recovered_gap"]) else f"{line['recovered_gap']:.2f}"


def _difference(line: pd.Series) -> str:
    width = "" if pd.isna(line["half_width"]) else f" ± {line['half_width']:.4f}"
    return f"{line['difference']:+.4f}{width}"


def _interval(line: pd.Series, name: str) -> str:
    low, high = line[f"{name}_low"], line[f"{name}_high"]
    return NONE if pd.isna(low) else f"[{low:+.4f}, {high:+.4f}]"

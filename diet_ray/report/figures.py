"""Pictures of tables, as PNG and as SVG whose text stays text.

Protocol: a figure is a pure function of its table and is published byte-identical each time: no
dates, fixed ids, the font that matplotlib brings along. The colours are those of Okabe and Ito,
which colour-blind readers tell apart; a marker or line style says the same once more.
"""

from __future__ import annotations

import io
import math
import textwrap
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from diet_ray import storage
from diet_ray.evaluation.tables import MEAN

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#666666"

METHOD_NAMES = {
    "full": "Full data",
    "cold": "Cold start",
    "warm": "Warm start",
    "random": "Random selection",
    "kmeans": "K-means clustering",
    "el2n": "EL2N selection",
    "distilled": "Distilled",
}

SCORE_NAMES = {
    "taught": "AUC against the reference's soft labels",
    "auc": "Validation AUC",
    "logloss": "Validation LogLoss, negated",
}

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "figure.titlesize": 12,
    "figure.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "diet_ray",
}
_PANELS_ABREAST = 3
_LEGEND_LETTERS = 26
_SENTENCE_LETTERS = 82


def method_name(method: str, labels: str) -> str:
    """As tables and pictures call it."""
    name = METHOD_NAMES.get(method, method)
    return f"{name}, {labels} labels" if labels else name


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with room for `count` panels."""
    columns = min(_PANELS_ABREAST, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(4.6 * columns + 1.8, 3.6 * rows + 0.6), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def _looks(names: list[str]) -> dict[str, dict[str, Any]]:
    """A colour and a marker for each name, by its place; 49 pairs before one comes again."""
    looks = {}
    for place, name in enumerate(names):
        turn, colour = divmod(place, len(COLOURS))
        marker = MARKERS[(colour + turn) % len(MARKERS)]
        looks[name] = {"color": COLOURS[colour], "marker": marker}
    return looks


def ratio_figure(ratios: pd.DataFrame, recipe: str = "") -> Figure:
    """Figure 3: test AUC against the share of rows kept, a panel per candidate.

    ratios: of `evaluation.tables`. A line per reference, bands of half_width, full data dashed.
    recipe: what the distilled sets are called.
    """
    distilled = ratios[ratios["method"] == "distilled"]
    candidates = distilled["candidate"].unique().tolist()
    looks = _looks(distilled["reference"].unique().tolist())
    with matplotlib.rc_context(_STYLE):
        figure, axes = _panels(len(candidates))
        for axis, candidate in zip(axes, candidates, strict=True):
            axis.set_title("Mean of the candidates" if candidate == MEAN else str(candidate))
            full = ratios[(ratios["method"] == "full") & (ratios["candidate"] == candidate)]
            _level(axis, full)
            mine = distilled[distilled["candidate"] == candidate]
            for reference, line in mine.groupby("reference", sort=False):
                _band(axis, line.sort_values("ratio"), str(reference), looks[str(reference)])
            _percent_axis(axis, sorted(distilled["ratio"].unique()))
        named = [zip(*axis.get_legend_handles_labels(), strict=True) for axis in axes]
        handles = {name: handle for pairs in named for handle, name in pairs}
        title = "\n".join(textwrap.wrap(recipe, _LEGEND_LETTERS))
        figure.legend(handles.values(), handles.keys(), loc="outside right center", title=title)
        figure.suptitle("How small may the distilled set be?")
        figure.supxlabel("Rows of the distilled set, share of the history")
        figure.supylabel("Test AUC")
    return figure


def _level(axis: Axes, full: pd.DataFrame) -> None:
    if full.empty:
        return
    level, width = full.iloc[0]["auc"], full["auc_half_width"].fillna(0).iloc[0]
    axis.axhspan(level - width, level + width, color=GREY, alpha=0.15, linewidth=0)
    axis.axhline(level, color=GREY, linestyle="--", label="full data")


def _band(axis: Axes, line: pd.DataFrame, name: str, look: dict[str, Any]) -> None:
    width = line["auc_half_width"].fillna(0)
    low, high = line["auc"] - width, line["auc"] + width
    axis.fill_between(line["ratio"], low, high, color=look["color"], alpha=0.18, linewidth=0)
    axis.plot(line["ratio"], line["auc"], label=f"distilled by {name}", **look)


def _percent_axis(axis: Axes, ratios: list[float]) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(ratios))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{100 * ratio:.4g}%"))
    axis.tick_params(axis="x", labelsize=8)


def agreement_figure(points: pd.DataFrame) -> Figure:
    """Agreement of every method's order with full data's, against what the method costs.

    points: a row per method: method, cost (rows trained over those of one full training),
    spearman, spearman_low, spearman_high, corrected; NaN where a value is undefined. Filled marks
    are Spearman's correlation as measured with its interval, hollow ones are corrected for noise.
    Methods of nearly one cost stand side by side; the legend names them by rising cost.
    """
    points = points.sort_values("cost", kind="stable")
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 5.2), layout="constrained")
        axis = figure.subplots()
        names = [method_name(str(method), "") for method in points["method"]]
        looks = _looks(names)
        places = _side_by_side(points["cost"].to_numpy(dtype=float))
        for name, place, line in zip(names, places, points.to_dict("records"), strict=True):
            _agreement_point(axis, place, line, name, looks[name])
        axis.set_xscale("log")
        axis.set_xlim(places.min() / _MARGIN, places.max() * _MARGIN)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{100 * cost:.4g}%"))
        axis.axhline(1, color=GREY, linestyle="--", linewidth=1)
        axis.set_ylabel("Spearman correlation with full data's order")
        axis.set_xlabel("Cost: rows trained, share of one full training")
        figure.suptitle("How much of full data's order does a given cost buy?")
        _agreement_legend(figure, axis)
    return figure


_APART = 0.02  # least distance between two marks, as a share of the axis
_MARGIN = 1.6  # on either side, a factor: with the other's more than from one tick to the next


def _side_by_side(costs: np.ndarray) -> np.ndarray:
    """Costs, of which those too close for their marks are spread evenly about their own mean."""
    logs = np.log10(costs)
    gap = _APART * (np.ptp(logs) + 2 * np.log10(_MARGIN))
    clusters: list[list[int]] = []
    for point in np.argsort(logs, kind="stable").tolist():
        clusters.append([point])
        while len(clusters) > 1 and _crowded(logs, clusters[-2], clusters[-1], gap):
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    for cluster in clusters:
        middle = np.arange(len(cluster)) - (len(cluster) - 1) / 2
        logs[cluster] = logs[cluster].mean() + gap * middle
    return 10**logs


def _crowded(logs: np.ndarray, left: list[int], right: list[int], gap: float) -> bool:
    """Would the two clusters, each spread, come closer than the gap?"""
    between = logs[right].mean() - logs[left].mean()
    return bool(between < gap * (len(left) + len(right)) / 2)


def _agreement_point(
    axis: Axes, place: float, line: dict[Any, Any], name: str, look: dict[str, Any]
) -> None:
    colour = look["color"]
    measured, corrected = line["spearman"], line["corrected"]
    axis.plot(place, measured, linestyle="none", markersize=7, label=name, zorder=3, **look)
    axis.vlines(place, line["spearman_low"], line["spearman_high"], color=colour, linewidth=1.2)
    # The larger and the lower, so that it shows as a rim where both are at one place.
    hollow = look | {"linestyle": "none", "markersize": 9, "markerfacecolor": "white"}
    axis.plot(place, corrected, zorder=2.5, **hollow)


def _agreement_legend(figure: Figure, axis: Axes) -> None:
    handles, _ = axis.get_legend_handles_labels()
    kinds = {"as measured, 95% interval": GREY, "corrected for noise": "white"}
    keys = [
        Line2D([], [], linestyle="none", marker="o", color=GREY, markerfacecolor=fill, label=kind)
        for kind, fill in kinds.items()
    ]
    figure.legend(handles=[*handles, *keys], loc="outside right center")


def verification_figure(points: pd.DataFrame, score: str, sentence: str) -> Figure:
    """A sweep's scores against full data's test AUC, a mark per candidate with its place.

    points: place, network, score, score_deviation, full_auc, full_deviation (over seeds; NaN where
    there is one seed). score: a key of SCORE_NAMES. sentence: what they say together.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 5.6), layout="constrained")
        axis = figure.subplots()
        for network, look in _looks(points["network"].unique().tolist()).items():
            mine = points[points["network"] == network]
            look |= {"linestyle": "none", "label": network, "capsize": 2}
            look |= {"xerr": mine["score_deviation"], "yerr": mine["full_deviation"]}
            axis.errorbar(mine["score"], mine["full_auc"], **look)
        for point in points.to_dict("records"):
            place = point["score"], point["full_auc"]
            axis.annotate(str(point["place"]), place, (5, 5), textcoords="offset points")
        axis.set_xlabel(f"{SCORE_NAMES[score]}, on the distilled set ± deviation over seeds")
        axis.set_ylabel("Test AUC after full training, ± deviation over seeds")
        axis.set_title("\n".join(textwrap.wrap(sentence, _SENTENCE_LETTERS)), loc="left")
        figure.suptitle("Does the sweep order candidates as full data does?")
        figure.legend(loc="outside right center", title="Network\n(number: place in the sweep)")
    return figure


def publish(figure: Figure, folder: str, name: str) -> list[str]:
    """Write ``<name>.png`` and ``<name>.svg`` below a folder (any URI); returns their names."""
    written = []
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    for kind, blank in metadata.items():
        sink = io.BytesIO()
        with matplotlib.rc_context(_STYLE):
            figure.savefig(sink, format=kind, dpi=150, metadata=blank)
        storage.write_bytes(storage.join(folder, f"{name}.{kind}"), sink.getvalue())
        written.append(f"{name}.{kind}")
    return written

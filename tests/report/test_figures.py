"""Pictures: there, valid, labelled, and the same bytes each time."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from diet_ray.evaluation.tables import ratios
from diet_ray.report.figures import (
    agreement_figure,
    method_name,
    publish,
    ratio_figure,
    verification_figure,
)
from tests.evaluation.made_results import frame, made_row, main_rows, ratio_rows

RESULTS = frame([*main_rows(), *ratio_rows()])


def figure_3(results: pd.DataFrame = RESULTS) -> Figure:
    return ratio_figure(ratios(results))


POINTS = pd.DataFrame(
    {
        "method": ["cold", "random", "prefix", "el2n"],
        "cost": [0.17, 0.015, 0.015, 0.0151],
        "spearman": [0.6, 0.7, 0.8, 0.9],
        "spearman_low": [0.4, 0.5, 0.6, 0.7],
        "spearman_high": [0.7, 0.8, 0.9, 0.95],
        "corrected": [0.65, np.nan, 0.85, 0.95],
    }
)


def agreement_points() -> Figure:
    return agreement_figure(POINTS)


VERIFIED = pd.DataFrame(
    {
        "place": [1, 7, 12],
        "network": ["dcn", "wukong", "dcn"],
        "score": [0.71, 0.7, 0.68],
        "score_deviation": [0.002, 0.001, np.nan],
        "full_auc": [0.75, 0.76, 0.73],
        "full_deviation": [0.003, 0.001, 0.002],
    }
)


def verified_points() -> Figure:
    return verification_figure(VERIFIED, "taught", "Trust it " + 30 * "by far ")


def texts(svg: Path) -> str:
    """All text of an SVG, spaces evened."""
    return " ".join(" ".join(ElementTree.parse(svg).getroot().itertext()).split())


@pytest.mark.parametrize("draw", [figure_3, agreement_points, verified_points])
def test_pictures_are_whole_and_equal_byte_by_byte(
    draw: Callable[[], Figure], tmp_path: Path
) -> None:
    for folder in ("one", "two"):
        assert publish(draw(), str(tmp_path / folder), "x") == ["x.png", "x.svg"]
    png, svg = (tmp_path / "one" / name for name in ("x.png", "x.svg"))
    assert png.read_bytes() == (tmp_path / "two" / "x.png").read_bytes()
    assert svg.read_bytes() == (tmp_path / "two" / "x.svg").read_bytes()
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert min(struct.unpack(">II", png.read_bytes()[16:24])) > 400
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert not re.search(rb"20\d\d-\d\d-\d\d", svg.read_bytes())


def test_what_was_distilled_has_the_name_of_its_recipe(tmp_path: Path) -> None:
    recipe = "random rows, no step at all"
    publish(ratio_figure(ratios(RESULTS), recipe), str(tmp_path), "x")
    assert texts(tmp_path / "x.svg").count(recipe) == 1


def test_figure_3_has_a_line_per_reference_and_full_datas_level(tmp_path: Path) -> None:
    publish(figure_3(), str(tmp_path), "x")
    text = texts(tmp_path / "x.svg")
    for label in ("distilled by dcn", "distilled by wukong", "full data", "0.1%", "1.5%", "5%"):
        assert label in text
    (axis,) = figure_3().axes
    assert axis.get_xscale() == "log"
    lines = {str(line.get_label()): line for line in axis.lines}
    assert list(lines["distilled by dcn"].get_xdata()) == [0.001, 0.015, 0.05]
    assert lines["full data"].get_ydata()[0] == pytest.approx(0.75)


def test_figure_3_has_a_panel_per_candidate_and_their_mean() -> None:
    more = [
        made_row("ratio", "distilled", candidate, seed, ratio=ratio)
        for candidate in ("dcn", "wukong")
        for ratio in (0.001, 0.05)
        for seed in (0, 1)
    ]
    titles = [axis.get_title() for axis in figure_3(frame(more)).axes if axis.axison]
    assert titles == ["dcn", "wukong", "Mean of the candidates"]


def test_four_panels_leave_no_empty_axes() -> None:
    networks = ("dcn", "wukong", "finalnet")
    more = [
        made_row("ratio", "distilled", network, 0, ratio=ratio)
        for network in networks
        for ratio in (0.001, 0.05)
    ]
    figure = figure_3(frame(more))
    assert sum(axis.axison for axis in figure.axes) == len(networks) + 1  # and their mean


def test_every_method_has_its_agreement_at_its_cost() -> None:
    """Those of nearly one cost stand side by side, in order, about the cost that they share."""
    (axis,) = agreement_points().axes
    filled = {str(line.get_label()): line for line in axis.lines}
    drawn = {name: line.get_xydata()[0] for name, line in filled.items() if "_" not in name}
    names = [method_name(method, "") for method in POINTS["method"]]
    assert set(drawn) == set(names)
    assert [drawn[name][1] for name in names] == POINTS["spearman"].tolist()
    cold, *crowd = [drawn[name][0] for name in names]
    assert cold == pytest.approx(0.17)
    assert np.exp(np.mean(np.log(crowd))) == pytest.approx(0.015, rel=0.01)
    steps = np.diff(np.log(crowd))
    assert (steps > 0).all()
    assert steps == pytest.approx(steps.mean())


def test_the_agreement_has_bars_and_hollow_marks(tmp_path: Path) -> None:
    figure = agreement_points()
    (axis,) = figure.axes
    bars = sorted(tuple(bar.get_segments()[0][:, 1]) for bar in axis.collections)
    assert bars == sorted(zip(POINTS["spearman_low"], POINTS["spearman_high"], strict=True))
    hollow = [line for line in axis.lines if line.get_markerfacecolor() == "white"]
    heights = {float(line.get_ydata()[0]) for line in hollow}
    assert set(POINTS["corrected"].dropna()) == {height for height in heights if height > 0}
    publish(figure, str(tmp_path), "x")
    text = texts(tmp_path / "x.svg")
    assert text.index("EL2N") < text.index("Cold start")  # the legend goes by cost
    for label in ("as measured, 95% interval", "corrected for noise", "2%", "10%"):
        assert label in text


def test_the_verified_stand_at_both_scores_with_their_spreads(tmp_path: Path) -> None:
    figure = verified_points()
    (axis,) = figure.axes
    found = {str(bars.get_label()): bars for bars in axis.containers}
    assert list(found) == ["dcn", "wukong"]
    for network, bars in found.items():
        mine = VERIFIED[VERIFIED["network"] == network]
        marks, _, (across, upright) = bars.lines
        assert marks.get_xydata().tolist() == mine[["score", "full_auc"]].to_numpy().tolist()
        for drawn, centre, spread, axis_number in (
            (across, "score", "score_deviation", 0),
            (upright, "full_auc", "full_deviation", 1),
        ):
            ends = [segment[:, axis_number] for segment in drawn.get_segments() if len(segment)]
            known = mine.dropna(subset=spread)
            expected = [known[centre] - known[spread], known[centre] + known[spread]]
            seen = [end for end in ends if not np.isnan(end).any()]
            assert np.allclose(np.transpose(seen), expected)
    assert [text.get_text() for text in axis.texts] == ["1", "7", "12"]
    publish(figure, str(tmp_path), "x")
    text = texts(tmp_path / "x.svg")
    assert text.count("by far") == 30
    assert "soft labels, on the distilled set" in text


def test_fifteen_methods_look_different() -> None:
    many = pd.concat([POINTS] * 4, ignore_index=True)
    many["method"] = [f"method {i}" for i in range(len(many))]
    (axis,) = agreement_figure(many).axes
    filled = [line for line in axis.lines if str(line.get_label()).startswith("method")]
    assert len({(line.get_color(), line.get_marker()) for line in filled}) == len(many)
    marks = sorted(float(np.log10(line.get_xdata()[0])) for line in filled)
    low, high = np.log10(axis.get_xlim())
    assert min(np.diff(marks)) > 0.015 * (high - low)


@pytest.mark.parametrize("cost", [0.0007, 0.023, 0.031, 0.2])
def test_a_single_cost_still_has_a_tick_to_be_read_by(cost: float) -> None:
    figure = agreement_figure(POINTS[:1].assign(cost=cost))
    (axis,) = figure.axes
    low, high = axis.get_xlim()
    assert any(low <= tick <= high for tick in axis.get_xticks())


def test_one_seed_and_no_full_data_still_make_a_picture(tmp_path: Path) -> None:
    rows = [row for row in ratio_rows() if row["seed"] == 0]
    publish(figure_3(frame(rows)), str(tmp_path), "x")
    assert "full data" not in texts(tmp_path / "x.svg")


@pytest.mark.parametrize(
    ("method", "labels", "name"),
    [
        ("full", "", "Full data"),
        ("el2n", "hard", "EL2N selection, hard labels"),
        ("other", "", "other"),
    ],
)
def test_methods_have_names(method: str, labels: str, name: str) -> None:
    assert method_name(method, labels) == name

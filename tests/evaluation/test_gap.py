"""When there is a recovered gap, and what is said where there is none."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from scipy import stats

from diet_ray.evaluation.gap import is_clear, lead, recovered_gap, why_none


def test_the_gap_is_a_share_of_the_way_from_warm_to_full() -> None:
    assert recovered_gap(0.74, warm=0.70, full=0.75) == pytest.approx(0.8)


def test_the_lead_is_paired_by_seed() -> None:
    full, warm = {0: 0.75, 1: 0.80, 9: 0.1}, {1: 0.79, 0: 0.74}
    found = lead(full, warm)
    assert found is not None
    assert (found.mean, found.half_width, found.seeds) == (pytest.approx(0.01), pytest.approx(0), 2)
    assert lead({0: 0.75}, {1: 0.70}) is None
    assert lead({}, {0: 0.70}) is None


@pytest.mark.parametrize(
    "differences", [[0.01, 0.03, 0.02], [0.00, 0.03, 0.02], [0.02, 0.021], [-0.01, -0.012, -0.011]]
)
def test_a_lead_is_clear_where_a_t_test_says_so(differences: list[float]) -> None:
    full = {seed: 0.7 + value for seed, value in enumerate(differences)}
    found = lead(full, dict.fromkeys(full, 0.7))
    test = stats.ttest_1samp(differences, 0, alternative="greater")
    assert is_clear(found) == (test.pvalue < 0.025)


def test_one_seed_or_none_is_never_clear() -> None:
    assert not is_clear(lead({0: 0.9}, {0: 0.5}))
    assert not is_clear(None)


def test_a_sentence_names_the_candidates_without_a_gap_and_their_numbers() -> None:
    nan = math.nan
    lines = [
        ("dcn", nan, 0.0012, 0.0034),
        ("dcn", nan, 0.0012, 0.0034),  # another method
        ("wukong", 0.8, 0.05, 0.01),
        ("mean", nan, -0.0002, nan),
        ("finalnet", nan, nan, nan),  # no warm start at all
    ]
    columns = ["candidate", "recovered_gap", "lead", "lead_half_width"]
    table = pd.DataFrame(lines, columns=columns)
    text = why_none(table, " (reference dcn)")
    assert text.startswith("No recovered gap for dcn, mean (reference dcn): full data is not clear")
    assert text.endswith("95% interval: dcn +0.0012 ± 0.0034, mean -0.0002 (one seed)).")
    assert why_none(table[table["candidate"] == "wukong"]) == ""

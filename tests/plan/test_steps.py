"""How a plan reads."""

from __future__ import annotations

import pytest

from diet_ray.plan.steps import PUBLISHED, Step, render, roughly


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.2, "5 s"),
        (11, "15 s"),
        (56, "1 min"),
        (61, "2 min"),
        (3_599, "60 min"),
        (3_600, "1.0 h"),
        (100_000, "27.8 h"),
        (200_000, "2.3 days"),
    ],
)
def test_a_time_is_told_no_more_exactly_than_it_is_known(seconds: float, told: str) -> None:
    assert roughly(seconds) == told


def test_a_line_for_each_step_and_their_sum() -> None:
    steps = [Step("Prepare", PUBLISHED), Step("Train", "7 blocks", 20), Step("Check", "9", 25)]
    text = render(steps, ["A note."])
    prepare, train, check, whole, note = text.splitlines()
    assert prepare.split() == ["Prepare", *PUBLISHED.split(), "-"]
    assert train.split() == ["Train", "7", "blocks", "about", "20", "s"]
    assert check.index("about") == train.index("about") == whole.index("about")
    assert whole.split() == ["in", "all", "about", "45", "s"]
    assert note.strip() == "A note."

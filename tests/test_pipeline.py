"""What is refused before work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diet_ray.config import ConfigError
from diet_ray.pipeline import validate
from tests.made import small_config

UNKNOWN: dict[str, Any] = {"name": "wukongg"}


@pytest.mark.parametrize(
    "overrides",
    [
        {"reference": {"network": UNKNOWN}},
        {"distill": {"inner": {"networks": [{"name": "dcn"}, UNKNOWN], "start": "fresh"}}},
        {"evaluation": {"candidates": [{"name": "dcn"}, UNKNOWN]}},
    ],
    ids=["reference", "proxy", "candidate"],
)
def test_an_unknown_network_is_refused_before_work_starts(
    tmp_path: Path, overrides: dict[str, Any]
) -> None:
    output = tmp_path / "output"
    with pytest.raises(ConfigError, match="no network 'wukongg'; did you mean 'wukong'"):
        validate(small_config(str(output), **overrides))
    assert not output.exists()

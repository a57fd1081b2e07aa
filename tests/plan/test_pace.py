"""Every kind of step can be measured; times themselves are not judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from diet_ray.config import ConfigError, CotrainConfig, RunConfig, fit
from diet_ray.plan.expected import blocks_of
from diet_ray.plan.pace import Pace, on_a_worker
from tests.made import made_blocks, small_config

FIRST = small_config("unused").evaluation.candidates[0]


@pytest.fixture(params=["published", "expected"])
def pace(request: pytest.FixtureRequest, tmp_path: Path) -> Pace:
    config = small_config(str(tmp_path), logs={"synthetic": {"rows": 500}})
    if request.param == "published":
        made_blocks(str(tmp_path / "blocks"))
    return Pace(fit(config, 500), blocks_of(config))


def test_every_kind_of_step_is_measured(pace: Pace) -> None:
    config = fit(small_config("unused"), 500)
    measured = [
        pace.training(FIRST, 16),
        pace.warm_up(FIRST, 16),
        pace.prediction(FIRST),
        pace.alignment(FIRST, 64),
        pace.meta_gradient(FIRST, config.distill),
        pace.co_training(FIRST, CotrainConfig(steps=40, seeds=2), 30),
        pace.staging(),
    ]
    assert all(seconds > 0 for seconds in measured)


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    made_blocks(str(tmp_path / "blocks"))
    config = small_config(str(tmp_path))
    pace = Pace(config, blocks_of(config))
    renamed = FIRST.model_copy(update={"label": "another name"})
    assert pace.training(FIRST, 16) == pace.training(renamed, 16)
    assert pace.training(FIRST, 16) != pace.training(FIRST, 64)


def test_a_worker_measures_and_a_users_error_comes_back_as_it_was_raised(
    ray_session: None, tmp_path: Path
) -> None:
    def refuse(_: RunConfig) -> float:
        raise ConfigError("no such log")

    config = small_config(str(tmp_path))
    assert on_a_worker(lambda own: own.output, config) == config.output
    with pytest.raises(ConfigError, match=r"^no such log$"):
        on_a_worker(refuse, config)

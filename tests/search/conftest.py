"""What the search's tests share: a finished run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from diet_ray.training.stream import train_reference
from tests.made import made_blocks
from tests.search.prepared import config_at, publish_distilled


@pytest.fixture(scope="session")
def distilled_run(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's output: blocks, references, S_3."""
    output = tmp_path_factory.mktemp("run")
    config = config_at(output)
    blocks = made_blocks(config.place("blocks"))
    train_reference(config, blocks)
    publish_distilled(config, blocks)
    return output


@pytest.fixture(scope="session")
def distilled_set(distilled_run: Path) -> str:
    """The folder of that run's S_3."""
    return config_at(distilled_run).place("distilled", "stage=3")


@pytest.fixture
def output(distilled_run: Path, tmp_path: Path) -> Path:
    """A copy of that run for one test."""
    return Path(shutil.copytree(distilled_run, tmp_path / "run"))

"""What tests of this folder share."""

from __future__ import annotations

import pytest

from diet_ray.config import RunConfig
from diet_ray.logs.blocks import Blocks
from diet_ray.training.stream import train_reference
from tests.made import made_blocks, small_config
from tests.training.references import STAGES


@pytest.fixture(scope="session")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Blocks:
    return made_blocks(str(tmp_path_factory.mktemp("blocks")), rows=400, historical=STAGES)


@pytest.fixture(scope="session")
def trained(
    blocks: Blocks, tmp_path_factory: pytest.TempPathFactory, ray_session: None
) -> RunConfig:
    """A run whose reference nobody disturbed; only to be read.

    Ray Train starts a Ray of its own if there is none; the tests' would find it in its way.
    """
    config = small_config(str(tmp_path_factory.mktemp("trained")))
    train_reference(config, blocks)
    return config

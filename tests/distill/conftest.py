"""What the distillation tests share: one trained reference, one undisturbed run."""

from __future__ import annotations

import pytest

from diet_ray.distill.stream import distill_stream
from diet_ray.training.stream import train_reference
from tests.distill.prepared import STAGES, Prepared, run_config
from tests.made import made_blocks


@pytest.fixture(scope="session")
def prepared(
    ray_session: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Prepared:
    """Two historical blocks of two fragments each, and phi_1 and phi_2."""
    folder = tmp_path_factory.mktemp("prepared")
    blocks = made_blocks(
        str(folder / "blocks"), rows=400, historical=STAGES, seed=3, fragment_rows=200
    )
    train_reference(run_config(folder), blocks)
    return Prepared(blocks, folder)


@pytest.fixture(scope="session")
def undisturbed(prepared: Prepared) -> Prepared:
    """The prepared run, distilled by one worker and one server that nobody disturbs."""
    distill_stream(run_config(prepared.folder), prepared.blocks)
    return prepared

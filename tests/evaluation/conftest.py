"""What the evaluation tests share: blocks, a trained reference and a distilled set."""

from __future__ import annotations

from pathlib import Path

import pytest

from diet_ray.training.stream import train_reference
from tests.evaluation.prepared import STAGES, Prepared, config_at, publish_distilled
from tests.made import made_blocks


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two historical blocks of three fragments each, phi_1 and phi_2, forty distilled rows.

    Only to be read.
    """
    folder = tmp_path_factory.mktemp("evaluation")
    blocks = made_blocks(str(folder / "blocks"), rows=300, historical=STAGES)
    found = Prepared(folder / "run", blocks)
    train_reference(config_at(found.folder), blocks)
    publish_distilled(found.distilled, blocks, found.reference)
    return found


@pytest.fixture
def prepared(trained: Prepared, tmp_path: Path) -> Prepared:
    """The same in a folder of the test's own."""
    return trained.copy(tmp_path / "run")

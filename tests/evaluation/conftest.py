"""What the evaluation tests share: blocks, a trained reference and a distilled set."""

from __future__ import annotations

from pathlib import Path

import pytest

from diet_ray.training.reference import load_reference, reference_uri, train_reference
from tests.evaluation.prepared import Prepared, publish_distilled
from tests.made import made_blocks, small_config


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """A run of the test's own: two historical blocks, phi_1 and phi_2, forty distilled rows."""
    blocks = made_blocks(str(tmp_path / "blocks"), rows=300, historical=2)
    config = small_config(str(tmp_path / "run"))
    train_reference(config, blocks)
    reference = load_reference(reference_uri(config, 2))
    distilled = config.place("distilled", "stage=2")
    publish_distilled(distilled, blocks, reference)
    return Prepared(config, blocks, reference, distilled)

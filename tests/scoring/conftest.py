"""What the scoring tests share: made blocks and a reference trained on them."""

from __future__ import annotations

import pytest

from diet_ray.training.reference import load_reference, reference_uri
from diet_ray.training.stream import train_reference
from tests.made import made_blocks, small_config
from tests.scoring.prepared import Prepared


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two historical blocks of five fragments each, and phi_1 and phi_2; only to be read."""
    folder = tmp_path_factory.mktemp("scoring")
    blocks = made_blocks(str(folder / "blocks"), rows=450, historical=2, seed=3)
    config = small_config(str(folder / "run"), scoring={"batch_rows": 33})
    train_reference(config, blocks)
    uri = reference_uri(config, 2)
    return Prepared(config, blocks, uri, load_reference(uri))

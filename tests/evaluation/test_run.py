"""What the cells of a run have in common."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from diet_ray import storage
from diet_ray.distill.boundary import memory_sizes
from diet_ray.evaluation.run import Run
from diet_ray.memory.files import ArtifactError
from diet_ray.training.reference import CheckpointError, load_reference, reference_uri
from tests.evaluation.prepared import Prepared
from tests.made import made_blocks, small_config


@pytest.mark.parametrize("ratio", [0.004, 0.015, 0.0499, 0.3, 1.0])
@pytest.mark.parametrize("keep", [0.0, 0.8])
def test_a_selection_is_as_large_as_the_distilled_set(
    tmp_path: Path, ratio: float, keep: float
) -> None:
    blocks = made_blocks(str(tmp_path), rows=131)
    config = small_config(str(tmp_path / "run"), memory={"ratio": ratio, "keep": keep})
    sizes = Run(config, blocks).selection_sizes()
    seen = 0
    for stage, block in enumerate(blocks.historical, start=1):
        seen += block.rows
        assert sum(sizes[:stage]) == round(ratio * seen)
        assert 0 <= sizes[stage - 1] <= block.rows
    if keep == 0.8 and 0.004 < ratio < 0.3:
        assert sum(sizes) == sum(memory_sizes(config, blocks)[-1])


def test_identities_are_those_of_the_loaded_references(prepared: Prepared) -> None:
    run = prepared.run()
    loaded = [load_reference(reference_uri(run.config, t)).identity for t in (1, 2)]
    assert run.reference_identities == loaded
    assert run.reference_identity == run.reference().identity == loaded[-1]


def test_a_missing_reference_is_named(prepared: Prepared) -> None:
    path = Path(reference_uri(prepared.config(), 1), "reference.json")
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"{path}: no such file; train the reference first"):
        _ = prepared.run().reference_identities


def test_a_missing_distilled_set_is_named(prepared: Prepared) -> None:
    gone = replace(prepared.run(), distilled=prepared.distilled + "0")
    with pytest.raises(ArtifactError, match=r"stage=20/_manifest\.json: no such file"):
        _ = gone.distilled_files


def test_what_made_a_cell_leaves_out_where_and_how_wide(prepared: Prepared) -> None:
    other = prepared.run(resources={"evaluation_tasks": 7}, evaluation={"seeds": 9}, name="other")
    assert other.made_from() == prepared.run().made_from()
    for changes in ({"seed": 6}, {"threads": 2}, {"models": {"embedding_std": 0.02}}):
        assert prepared.run(**changes).made_from() != prepared.run().made_from()
    assert storage.exists(other.reference_uri())

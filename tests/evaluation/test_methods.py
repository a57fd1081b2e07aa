"""The reduced sets: which rows, in phi_T's space, with which labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diet_ray.config import ConfigError
from diet_ray.evaluation.methods import METHODS, Labels, check_methods, reduced_rows
from diet_ray.evaluation.selection import selected_rows
from diet_ray.logs.blocks import Rows, read_block
from diet_ray.memory import artifact
from diet_ray.memory.files import ArtifactError
from diet_ray.training.model import predict
from tests.evaluation.prepared import DISTILLED_ROWS, Prepared, publish_distilled
from tests.made import made_blocks
from tests.sets import assert_same

CONFIDENT = np.log(1 - 1e-6) - np.log(1e-6)  # a label of one, as a finite logit


def probabilities(prepared: Prepared, rows: Rows) -> np.ndarray:
    """phi_T's, in float64."""
    logits = predict(prepared.reference.recommender, rows.ids).astype(np.float64)
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("method", ["random", "kmeans"])
@pytest.mark.parametrize(("labels", "share"), [("soft", 0.0), ("blended", 0.3), ("hard", 1.0)])
def test_selected_rows_are_embedded_by_the_last_reference_and_labelled_as_asked(
    prepared: Prepared, method: str, labels: Labels, share: float
) -> None:
    run = prepared.run(memory={"truth_blend": 0.3})
    found = reduced_rows(run, method, labels, 3)
    rows = selected_rows(run, method, 3)
    assert np.array_equal(found.source_rows, rows.row_ids)
    assert np.array_equal(found.anchors, rows.ids)
    expected = prepared.reference.table(torch.from_numpy(rows.ids)).detach().numpy()
    assert np.array_equal(found.embeddings(prepared.reference.table), expected)
    blended = (1 - share) * probabilities(prepared, rows) + share * rows.labels
    if labels == "hard":
        np.testing.assert_allclose(
            found.labels, np.where(rows.labels == 1, CONFIDENT, -CONFIDENT), atol=0.05
        )
    else:
        np.testing.assert_allclose(found.labels, np.log(blended / (1 - blended)), atol=1e-4)


def test_soft_labels_are_the_references_logits_bit_for_bit(prepared: Prepared) -> None:
    rows = selected_rows(prepared.run(), "random", 0)
    found = reduced_rows(prepared.run(), "random", "soft", 0)
    assert np.array_equal(found.labels, predict(prepared.reference.recommender, rows.ids))


def test_the_distilled_set_is_taken_as_it_is(prepared: Prepared) -> None:
    found, kept = (
        reduced_rows(prepared.run(), "distilled", "soft", 0),
        artifact.read(prepared.distilled),
    )
    assert_same(found, kept)


def test_hard_labels_of_the_distilled_set_are_those_of_its_source_rows(prepared: Prepared) -> None:
    publish_distilled(prepared.distilled, prepared.blocks, prepared.reference, first=280)
    found = reduced_rows(prepared.run(), "distilled", "hard", 0)
    kept = artifact.read(prepared.distilled)
    truth = np.concatenate(
        [read_block(prepared.blocks, b).labels for b in prepared.blocks.historical]
    )
    expected = np.where(truth[280 : 280 + DISTILLED_ROWS] == 1, CONFIDENT, -CONFIDENT)
    np.testing.assert_allclose(found.labels, expected, atol=0.05)
    assert_same(replace(found, labels=kept.labels), kept)


def test_taught_labels_of_the_distilled_set_are_its_references(prepared: Prepared) -> None:
    publish_distilled(prepared.distilled, prepared.blocks, prepared.reference, first=280)
    found = reduced_rows(prepared.run(), "distilled", "taught", 0)
    kept = artifact.read(prepared.distilled)
    expected = predict(prepared.reference.recommender, kept.anchors.astype(np.int64))
    np.testing.assert_allclose(found.labels, expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(kept.labels, expected, atol=0.1)
    assert_same(replace(found, labels=kept.labels), kept)


def test_a_source_row_of_another_log_has_no_truth(prepared: Prepared) -> None:
    few = made_blocks(str(prepared.folder / "few"), rows=30, historical=1)
    run = replace(prepared.run(), blocks=few)
    with pytest.raises(ArtifactError, match=r"stage=2: source_row 30 is in no historical block of"):
        reduced_rows(run, "distilled", "hard", 0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("destilled", "no method 'destilled'; did you mean 'distilled'"),
        ("xyz", r"no method 'xyz'\."),
    ],
)
def test_a_method_that_does_not_exist_is_refused_with_the_known_ones(name: str, words: str) -> None:
    check_methods(METHODS, known=METHODS)
    with pytest.raises(ConfigError, match=words) as error:
        check_methods(["full", name])
    assert str(error.value).endswith("Known: full, cold, warm, random, kmeans, el2n, distilled")

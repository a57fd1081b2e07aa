"""The trainers that are compared train the same network; all figures are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diet_ray.bench.fuxictr_dcn import DCN, theirs
from diet_ray.bench.made import even_sizes
from diet_ray.bench.training import Candidate, ReferenceIds, ReferenceTrainer
from diet_ray.config import ModelsConfig, NetworkConfig
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import fresh_network
from diet_ray.training.model import Recommender

PARAMETERS = {"num_cross_layers": 2, "dnn_hidden_units": [6, 5]}


def test_both_trainers_have_the_same_network() -> None:
    sizes = even_sizes(70)
    model, _ = theirs(sizes, "task_0", 4, PARAMETERS)
    network = NetworkConfig(name=f"fuxictr:{DCN.__module__}:DCN", parameters=PARAMETERS)
    models = ModelsConfig(embedding_dim=4)
    dense = fresh_network(network, models, len(sizes), 1, 0)
    table = EmbeddingTable(sizes, 4, 0.1, 0)
    embeddings = model.embedding_layer.embedding_layer.embedding_layers
    table.load({name: embeddings[name].weight.detach() for name in sizes})
    own = model.state_dict()
    (inside,) = dense.interaction.models
    inside.load_state_dict({k: v for k, v in own.items() if "embedding" not in k}, strict=False)

    ids = torch.from_numpy(np.random.default_rng(0).integers(1, 10, size=(8, len(sizes))))
    batch = dict(zip(sizes, ids.unbind(dim=1), strict=True))
    with torch.no_grad():
        expected = model(batch)["y_pred"]
        assert expected.std() > 0
        torch.testing.assert_close(torch.sigmoid(Recommender(table, dense)(ids)), expected)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.slow
def test_the_reference_is_measured_beside_fuxictr(tmp_path: Path) -> None:
    measure = ReferenceTrainer(
        few_ids=70, few_rows=600, many_ids=140, many_rows=600, batch_rows=64, repeats=1
    )
    few, many = measure.run(str(tmp_path)).figures
    assert few.parts["FuxiCTR rows/s"] > 0
    assert many.parts["ours rows/s"] > 0
    assert "140 ids" in many.compared


@pytest.mark.usefixtures("ray_session")
@pytest.mark.slow
def test_a_step_is_measured_with_few_and_many_ids(tmp_path: Path) -> None:
    measure = ReferenceIds(few_ids=70, many_ids=7_000, steps=3, batch_rows=32, repeats=1)
    (figure,) = measure.run(str(tmp_path)).figures
    assert figure.value > 0
    assert ReferenceIds().needs().memory > measure.needs().memory


@pytest.mark.slow
def test_a_candidate_is_measured(tmp_path: Path) -> None:
    measure = Candidate(rows=3_000, ids=70, judged_rows=200, repeats=1)
    (figure,) = measure.run(str(tmp_path)).figures
    assert figure.parts["co-training s"] > 0
    assert figure.parts["full s"] > 0

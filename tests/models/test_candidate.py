"""A candidate's identity, its JSON, and the table that it gets."""

from __future__ import annotations

import json

import pytest

from diet_ray.config import ModelsConfig, NetworkConfig
from diet_ray.models.candidate import Candidate

DCN = NetworkConfig(name="dcn", parameters={"num_cross_layers": 2})


@pytest.mark.parametrize(
    "found", [Candidate(DCN), Candidate(DCN, 8, 0.1), Candidate(DCN, None, 1.0)]
)
def test_candidates_survive_json(found: Candidate) -> None:
    assert Candidate.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_its_values_are_those_of_the_space() -> None:
    assert Candidate(DCN).values == {"num_cross_layers": 2}
    assert Candidate(DCN, 8).values == {"num_cross_layers": 2, "embedding_dim": 8}


def test_a_table_of_its_own_width() -> None:
    models = ModelsConfig(embedding_dim=16, embedding_std=0.5)
    assert Candidate(DCN).models(models) == models
    wider = Candidate(DCN, 32).models(models)
    assert wider == models.model_copy(update={"embedding_dim": 32})


def test_an_identity_fills_in_defaults_and_tells_own_keys_apart() -> None:
    default, written = (
        Candidate(NetworkConfig(name="dcn", parameters=p)) for p in ({}, {"num_cross_layers": 3})
    )
    assert default.identity() == written.identity() != Candidate(DCN).identity()
    assert len({Candidate(DCN, *own).identity() for own in ((), (8,), (8, 0.1), (None, 0.1))}) == 4

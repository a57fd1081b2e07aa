"""What of a network of one's own is found out before work starts, and how it is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diet_ray.config import ConfigError, NetworkConfig
from diet_ray.models.check import check_network, check_proxy
from tests.made import small_config

MODELS = small_config("unused").models
FIELDS, TASKS = 3, 2


def own(name: str, **parameters: Any) -> NetworkConfig:
    return NetworkConfig(name=f"tests.models.{name}", parameters=parameters)


GOOD = [
    own("own_network:Whole", units=[5]),
    own("own_network:OwnNetwork", width=5),
    own("own_network:Plain"),
]


@pytest.mark.parametrize("network", GOOD, ids=lambda network: network.name)
def test_a_good_network_passes_and_draws_nothing(network: NetworkConfig) -> None:
    before = torch.random.get_rng_state()
    check_network(network, MODELS, FIELDS, TASKS)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_parameters_of_a_built_in_network_are_checked_too() -> None:
    with pytest.raises(ConfigError, match="network dcn: heads"):
        check_network(NetworkConfig(name="dcn", parameters={"heads": 2}), MODELS, FIELDS, TASKS)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("NoForward", r"failed on embeddings \(8, 3, 4\) of float32: NotImplementedError"),
        ("Raises", r"ArithmeticError: planted failure; it must return logits \(8, 2\)"),
        ("BadConstructor", r"constructor failed for 3 fields of width 4.*: 3 heads do not divide"),
        ("OneLogit", r"returned \(8, 1\) of float32 for embeddings \(8, 3, 4\).* \(8, 2\)"),
        ("ReturnsDict", r"returned a dict for embeddings .*it must return logits \(8, 2\)"),
        ("Lookup", r"Its table looks up ids: a network gets none.*take its own embedding layers"),
        ("RoundedLookup", r"no gradient to the embeddings.* Its table looks up ids"),
        ("Detached", r"no gradient to the embeddings.*not detached"),
        ("Lazy", r"linear\.weight has no shape .*fields and embedding_dim"),
        ("Frozen", r"hidden\.bias does not require a gradient.*make it a buffer"),
    ],
)
def test_a_network_that_does_not_fit_is_told_what_it_must_do(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"network tests\.models\.wrong_networks:{name}\(") as e:
        check_network(own(f"wrong_networks:{name}"), MODELS, FIELDS, TASKS)
    assert e.match(told)


PROXY = [own("own_network:OwnNetwork"), own("own_network:Plain"), NetworkConfig(name="dcn")]


@pytest.mark.parametrize("network", PROXY, ids=lambda network: network.name)
def test_a_pure_function_of_its_parameters_can_be_a_proxy(network: NetworkConfig) -> None:
    check_proxy(network, MODELS, FIELDS, TASKS)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Normalising", r"keeps norm\.running_mean beside its parameters.*no reference and no"),
        ("Dropping", r"logits differ from call to call.*no reference and no proxy"),
        ("OnceDifferentiable", r"cannot be differentiated.*no reference and no proxy"),
        ("OneLogit", r"returned \(8, 1\)"),
    ],
)
def test_what_is_only_a_candidate_is_no_proxy(name: str, told: str) -> None:
    network = own(f"wrong_networks:{name}")
    with pytest.raises(ConfigError, match=told):
        check_proxy(network, MODELS, FIELDS, TASKS)
    if name != "OneLogit":
        check_network(network, MODELS, FIELDS, TASKS)

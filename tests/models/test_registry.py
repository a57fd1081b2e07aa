"""Networks by name: what is known, what is wrong, and where initial parameters come from."""

from __future__ import annotations

import pytest
import torch

from diet_ray.config import ConfigError, MMoEConfig, ModelsConfig, NetworkConfig
from diet_ray.models.registry import DenseNetwork, fresh_network, network_names, parameters_of

MODELS = ModelsConfig(
    embedding_dim=4, mmoe=MMoEConfig(experts=2, expert_units=[6], gate_units=[4], tower_units=[4])
)
SMALL = NetworkConfig(name="dcn", parameters={"num_cross_layers": 1, "dnn_hidden_units": [8]})


def made(seed: int, *path: str | int, network: NetworkConfig = SMALL) -> DenseNetwork:
    return fresh_network(network, MODELS, 3, 2, seed, *path)


def equal(first: DenseNetwork, second: DenseNetwork) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_knows_the_built_in_networks() -> None:
    assert {"dcn", "wukong"} <= set(network_names())


def test_an_unknown_name_suggests_the_nearest_and_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'wukongg'; did you mean 'wukong'\?.*dcn.*wukong"):
        parameters_of(NetworkConfig(name="wukongg"))
    with pytest.raises(ConfigError, match=r"no network 'zzz'.*dcn.*wukong"):
        parameters_of(NetworkConfig(name="zzz"))


def test_an_unknown_hyper_parameter_names_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"network dcn: num_cross_layer: .*'num_cross_layers'"):
        parameters_of(NetworkConfig(name="dcn", parameters={"num_cross_layer": 2}))


def test_an_unknown_hyper_parameter_far_from_all_lists_them() -> None:
    with pytest.raises(ConfigError, match=r"heads: .*num_cross_layers, dnn_hidden_units"):
        parameters_of(NetworkConfig(name="dcn", parameters={"heads": 2}))


@pytest.mark.parametrize("value", [0, -3, "many", [[]]])
def test_a_bad_hyper_parameter_names_key_and_value(value: object) -> None:
    with pytest.raises(ConfigError, match="network dcn: num_cross_layers") as raised:
        parameters_of(NetworkConfig(name="dcn", parameters={"num_cross_layers": value}))
    assert repr(value) in str(raised.value)


def test_defaults_are_filled_in() -> None:
    assert parameters_of(SMALL).model_dump() == {
        "num_cross_layers": 1,
        "dnn_hidden_units": (8,),
    }
    assert "dnn_hidden_units" in parameters_of(NetworkConfig(name="dcn")).model_dump()


def test_a_network_of_the_users_own_is_imported_from_its_module() -> None:
    own = NetworkConfig(name="tests.models.own_network:OwnNetwork", parameters={"width": 5})
    network = made(0, network=own)
    assert type(network.interaction).__name__ == "OwnNetwork"
    assert network.interaction.output_dim == 5
    assert network(torch.randn(7, 3, 4)).shape == (7, 2)


@pytest.mark.parametrize(
    "name",
    [
        "no.such.module:Net",
        "tests.models.own_network:NoSuchClass",
        "tests.models.own_network:NotRegistered",
        ":",
    ],
)
def test_a_network_that_cannot_be_imported_says_how_to_name_one(name: str) -> None:
    with pytest.raises(ConfigError, match=r"importable class decorated with .*register"):
        parameters_of(NetworkConfig(name=name))


def test_initial_parameters_are_a_function_of_the_seed_path() -> None:
    before = torch.random.get_rng_state()
    assert equal(made(1, "reference"), made(1, "reference"))
    torch.randn(10)
    assert equal(made(1, "candidate", 2), made(1, "candidate", 2))
    assert not equal(made(1, "candidate", 2), made(1, "candidate", 3))
    assert not equal(made(1, "candidate", 2), made(2, "candidate", 2))
    torch.random.set_rng_state(before)


def test_making_a_network_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    made(1, "reference")
    assert torch.equal(torch.random.get_rng_state(), before)

"""Networks by name: what is known, what is wrong, and where initial parameters come from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diet_ray.config import ConfigError, MMoEConfig, ModelsConfig, NetworkConfig
from diet_ray.models.registry import (
    DenseNetwork,
    EmbeddingShapeError,
    fresh_network,
    network_names,
    parameters_of,
    source_digest,
)
from tests.networks import SMALL_NETWORKS, small_network

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
    assert {"dcn", "dcnv2", "finalmlp", "finalnet", "wukong"} <= set(network_names())


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
    ["no.such.module:Net", "tests.models.own_network:NoSuchClass", ":"],
)
def test_a_network_that_cannot_be_imported_says_how_to_name_one(name: str) -> None:
    with pytest.raises(ConfigError, match=r"importable class as package\.module:Class"):
        parameters_of(NetworkConfig(name=name))


WHOLE = NetworkConfig(name="tests.models.own_network:Whole", parameters={"units": [5]})


def test_a_class_without_the_decorator_is_taken_whole() -> None:
    """It gets F, d and K, keeps its layers, and gets no head of ours."""
    network = made(0, network=WHOLE)
    assert type(network.interaction).__name__ == "Whole"
    assert network.mmoe is None
    assert network.parameter_count == sum(p.numel() for p in network.interaction.parameters())
    rows, labels = torch.randn(7, 3, 4), torch.rand(7, 2)
    network.eval()
    with torch.no_grad():
        logits = network(rows)
        torch.testing.assert_close(logits, network.interaction(rows), rtol=0, atol=0)
        torch.testing.assert_close(network(rows, labels), cross_entropy(logits.sigmoid(), labels))
    assert logits.shape == (7, 2)


def test_one_row_trains_a_whole_network_by_the_statistics_so_far() -> None:
    network, rows = made(0, network=WHOLE), torch.randn(7, 3, 4)
    network(rows)
    before = {name: value.clone() for name, value in network.named_buffers()}
    found = network(rows[:1])
    assert found.requires_grad
    assert network.interaction.training
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    torch.testing.assert_close(found, network.eval()(rows)[:1])


def test_the_initial_parameters_of_a_whole_network_are_a_function_of_the_seed_path() -> None:
    assert equal(made(1, "candidate", 2, network=WHOLE), made(1, "candidate", 2, network=WHOLE))
    assert not equal(made(1, "candidate", 2, network=WHOLE), made(1, "candidate", 3, network=WHOLE))


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({}, r"units: Field required"),
        ({"unit": [5], "units": [5]}, r"unit: unknown key; did you mean 'units'\?"),
        ({"units": "many"}, r"units: 'many' Input should be a valid list"),
        ({"units": [5], "dropout": "high"}, r"dropout: 'high' Input should be a valid number"),
        ({"units": [5], "tasks": 2}, r"tasks: is filled in from the log .*leave it out"),
    ],
)
def test_a_wrong_argument_names_class_signature_and_key(
    parameters: dict[str, object], told: str
) -> None:
    network = NetworkConfig(name=WHOLE.name, parameters=parameters)
    signature = r"own_network:Whole\(fields: int, .*units: list\[int\], dropout: float = 0\.1"
    with pytest.raises(ConfigError, match=rf"network tests\.models\.{signature}.*\): {told}"):
        parameters_of(network)


def test_a_network_taken_whole_is_no_member_of_an_ensemble() -> None:
    members = [SMALL.model_dump(), WHOLE.model_dump()]
    ensemble = NetworkConfig(name="ensemble", parameters={"networks": members})
    with pytest.raises(ConfigError, match=r"puts out logits itself.*models\.register"):
        parameters_of(ensemble)


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


TWO_BLOCKS = NetworkConfig(
    name="finalnet", parameters={"block1_hidden_units": [6], "block2_hidden_units": [8]}
)


def cross_entropy(p: Tensor, label: Tensor) -> Tensor:
    """Of every row: mean over tasks, written out."""
    return -(label * p.log() + (1 - label) * (1 - p).log()).mean(dim=1)


@torch.no_grad()
def test_the_logits_of_several_branches_are_their_heads_mean() -> None:
    network, rows = made(0, network=TWO_BLOCKS).double(), torch.randn(7, 3, 4).double()
    first, second = network.interaction(rows)
    assert (first.shape, second.shape) == ((7, 6), (7, 8))
    expected = (network.mmoe[0](first) + network.mmoe[1](second)) / 2
    torch.testing.assert_close(network(rows), expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_with_one_branch_the_training_loss_is_cross_entropy() -> None:
    network, rows = made(0).double(), torch.randn(7, 3, 4).double()
    labels = torch.rand(7, 2, dtype=torch.float64)
    assert any(name.startswith("mmoe.experts") for name, _ in network.named_parameters())
    found = network(rows, labels)
    torch.testing.assert_close(found, cross_entropy(network(rows).sigmoid(), labels))


@torch.no_grad()
def test_several_branches_learn_the_mean_prediction_too() -> None:
    network, rows = made(0, network=TWO_BLOCKS).double(), torch.randn(7, 3, 4).double()
    labels = torch.rand(7, 2, dtype=torch.float64)
    first, second = network.branch_logits(rows)
    mean = ((first + second) / 2).sigmoid()
    expected = cross_entropy(mean, labels)
    expected += cross_entropy(first.sigmoid(), mean) + cross_entropy(second.sigmoid(), mean)
    torch.testing.assert_close(network(rows, labels), expected)


@pytest.mark.parametrize("network", SMALL_NETWORKS)
@pytest.mark.parametrize("shape", [(7, 5, 4), (7, 3, 8)])
def test_embeddings_of_another_shape_are_refused(network: str, shape: tuple[int, ...]) -> None:
    dense = made(0, network=small_network(network))
    told = rf"{re.escape(str(shape))}.* takes 3 fields of width 4; build it .*models\.embedding_dim"
    for labels in (None, torch.rand(7, 2)):
        with pytest.raises(EmbeddingShapeError, match=told):
            dense(torch.randn(shape), labels)


def test_code_of_ones_own_has_a_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_digest("dcn") is None
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, width in (("first", 1), ("second", 2)):
        text = f"from torch.nn import Module\nclass Net(Module):\n    width = {width}\n"
        (tmp_path / f"{name}_of_own.py").write_text(text)
    first, second = (source_digest(f"{name}_of_own:Net") for name in ("first", "second"))
    assert first != second
    assert source_digest("first_of_own:Net") == first

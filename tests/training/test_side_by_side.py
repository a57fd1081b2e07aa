"""Networks trained as one stack on embeddings, against each of them trained by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from diet_ray.config import NetworkConfig
from diet_ray.training import side_by_side
from diet_ray.training.cotrain import fresh_candidate
from diet_ray.training.model import Recommender, predict
from diet_ray.training.replay import Replayed
from diet_ray.training.side_by_side import SideBySide
from tests.made import small_config
from tests.networks import SMALL_NETWORKS, small_network

MODELS = small_config("unused").models
SIZES = {"field_0": 6, "field_1": 7, "field_2": 8}
SEEDS, STEPS, BATCH, TASKS = 3, 5, 7, 2
LEARNING_RATE = 0.01

every_network = pytest.mark.parametrize("name", SMALL_NETWORKS)


def fresh_models(name: str) -> list[Recommender]:
    """One per seed, in float64."""
    network = small_network(name)
    candidates = (
        fresh_candidate(network, MODELS, SIZES, TASKS, 4, seed).double() for seed in range(SEEDS)
    )
    return list(candidates)


def made_batches() -> tuple[Tensor, Tensor]:
    """Ids (STEPS, S, B, F) and labels (STEPS, S, B, K) in [0, 1]: every model has its own rows."""
    draw = torch.Generator().manual_seed(1)
    shape = STEPS, SEEDS, BATCH
    columns = [torch.randint(size, shape, generator=draw) for size in SIZES.values()]
    labels = torch.rand(*shape, TASKS, generator=draw, dtype=torch.float64)
    return torch.stack(columns, dim=-1), labels


def train_stack(models: list[Recommender], ids: Tensor, labels: Tensor) -> Tensor:
    """A step per batch, of the networks alone; the losses before it (STEPS, S, B)."""
    stack, told = SideBySide([model.dense for model in models]), []
    optimizer = torch.optim.Adam(stack.parameters, lr=LEARNING_RATE)
    for batch_ids, batch_labels in zip(ids, labels, strict=True):
        losses, _, gradients = stack(embedded(models, batch_ids), batch_labels)
        for whole, gradient in zip(stack.parameters, gradients, strict=True):
            whole.grad = gradient
        optimizer.step()
        told.append(losses.clone())
    return torch.stack(told)


def embedded(models: list[Recommender], ids: Tensor) -> Tensor:
    """ids (S, B, F) -> every model's own embeddings of its own rows (S, B, F, d)."""
    pairs = zip(models, ids, strict=True)
    return torch.stack([model.table(own).detach() for model, own in pairs])


def train_alone(model: Recommender, ids: Tensor, labels: Tensor) -> Tensor:
    """The same of one model and its own rows, (STEPS, B)."""
    optimizer, told = torch.optim.Adam(model.dense.parameters(), lr=LEARNING_RATE), []
    for batch_ids, batch_labels in zip(ids, labels, strict=True):
        losses = model(batch_ids, batch_labels)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        told.append(losses.detach())
    return torch.stack(told)


@every_network
def test_every_model_is_trained_as_if_it_were_alone(name: str) -> None:
    (ids, labels), models, alone = made_batches(), fresh_models(name), fresh_models(name)
    losses = train_stack(models, ids, labels)
    asked = ids[0, 0]
    for seed, (model, expected) in enumerate(zip(models, alone, strict=True)):
        own = train_alone(expected, ids[:, seed], labels[:, seed])
        torch.testing.assert_close(losses[:, seed], own, rtol=1e-9, atol=1e-12)
        for found, wanted in zip(model.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
        # a model itself knows what it has learned
        torch.testing.assert_close(model(asked), expected(asked), rtol=1e-9, atol=1e-12)
    assert not torch.equal(models[0](asked), models[1](asked))
    assert not torch.equal(models[0](asked), fresh_models(name)[0](asked))


@every_network
def test_one_models_rows_are_nothing_to_another(name: str) -> None:
    ids, labels = made_batches()
    models, others = fresh_models(name), fresh_models(name)
    other_ids, other_labels = ids.clone(), labels.clone()
    other_ids[:, 1] = (ids[:, 1] + 1) % min(SIZES.values())
    other_labels[:, 1] = 1 - labels[:, 1]
    losses = train_stack(models, ids, labels), train_stack(others, other_ids, other_labels)
    for seed, (model, other) in enumerate(zip(models, others, strict=True)):
        pairs = zip(model.parameters(), other.parameters(), strict=True)
        same = [torch.equal(one, two) for one, two in pairs]
        assert all(same) if seed != 1 else not all(same)
        assert torch.equal(losses[0][:, seed], losses[1][:, seed]) == (seed != 1)


@every_network
def test_gradients_are_every_networks_own(name: str) -> None:
    """Of its mean loss, by plain autograd, call after call: a replay is no memory of the last."""
    (ids, labels), models, alone = made_batches(), fresh_models(name), fresh_models(name)
    stack = SideBySide([model.dense for model in models])
    for batch_ids, batch_labels in zip(ids, labels, strict=True):
        embeddings = embedded(models, batch_ids)
        _, of_embeddings, of_networks = stack(embeddings, batch_labels)
        assert isinstance(stack._gradients, Replayed)
        for seed, model in enumerate(alone):
            own = embeddings[seed].clone().requires_grad_()
            wanted = torch.autograd.grad(
                model.dense(own, batch_labels[seed]).mean(), [own, *model.dense.parameters()]
            )
            found = [of_embeddings[seed], *(whole[seed] for whole in of_networks)]
            torch.testing.assert_close(found, list(wanted), rtol=1e-9, atol=1e-12)


@every_network
def test_a_replay_finds_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (ids, labels), models, others = made_batches(), fresh_models(name), fresh_models(name)
    replayed = train_stack(models, ids, labels)
    monkeypatch.setattr(side_by_side, "OURS", ())
    assert torch.equal(replayed, train_stack(others, ids, labels))
    for model, other in zip(models, others, strict=True):
        pairs = zip(model.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)


def test_a_networks_parameters_are_slices_of_the_stack() -> None:
    networks = [model.dense for model in fresh_models("dcn")]
    before = [[parameter.clone() for parameter in network.parameters()] for network in networks]
    stack = SideBySide(networks)
    assert len(stack.parameters) == len(before[0])
    for seed, (network, values) in enumerate(zip(networks, before, strict=True)):
        for whole, own, value in zip(stack.parameters, network.parameters(), values, strict=True):
            assert torch.equal(own, value)
            assert own.data_ptr() == whole[seed].data_ptr()
            assert not own.requires_grad  # it is the stack that is trained


def own_models(name: str, **parameters: object) -> list[Recommender]:
    """By seed, of a network that is taken whole."""
    network = NetworkConfig(name=f"tests.{name}", parameters=parameters)
    return [
        fresh_candidate(network, MODELS, SIZES, TASKS, 4, seed).double() for seed in range(SEEDS)
    ]


STACKED = [
    ("models.own_network:Whole", {"units": [6], "dropout": 0.0}),
    ("models.own_network:Plain", {}),
    ("training.unstackable:Attending", {}),
]
IN_TURN = [
    ("training.unstackable:Recurrent", {}),
    ("training.unstackable:Branching", {}),
    ("models.wrong_networks:OnceDifferentiable", {}),
]


@pytest.mark.parametrize(("name", "parameters"), STACKED + IN_TURN)
def test_every_model_of_a_whole_network_is_trained_as_if_it_were_alone(
    name: str, parameters: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """Its statistics are of its own rows; one that cannot be stacked is told and trained too."""
    caplog.set_level("INFO", logger="diet_ray")
    (ids, labels), models = made_batches(), own_models(name, **parameters)
    losses = train_stack(models, ids, labels)
    for seed, (model, expected) in enumerate(
        zip(models, own_models(name, **parameters), strict=True)
    ):
        own = train_alone(expected, ids[:, seed], labels[:, seed])
        torch.testing.assert_close(losses[:, seed], own, rtol=1e-9, atol=1e-12)
        for found, wanted in zip(
            model.state_dict().values(), expected.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
        asked = ids[0, 0].numpy()
        np.testing.assert_allclose(predict(model, asked), predict(expected, asked), rtol=1e-9)
    in_turn = (name, parameters) in IN_TURN
    assert ("one after the other" in caplog.text) == in_turn
    assert (type(models[0].dense.interaction).__name__ in caplog.text) == in_turn


def test_statistics_are_those_of_a_models_own_steps() -> None:
    (ids, labels), models = made_batches(), own_models("models.own_network:Whole", units=[6])
    train_stack(models, ids, labels)
    for model in models:
        norm = model.dense.interaction.layers[1]
        assert norm.num_batches_tracked == STEPS
        assert norm.running_mean.abs().sum() > 0
    means = [model.dense.interaction.layers[1].running_mean for model in models]
    assert not torch.allclose(means[0], means[1])


def test_every_model_drops_what_it_draws_itself() -> None:
    """Models of equal parameters and rows: only what is dropped tells them apart."""
    models = own_models("models.wrong_networks:Dropping")
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    ids, labels = (whole[0, :1].expand(SEEDS, *whole.shape[2:]) for whole in made_batches())
    stack = SideBySide([model.dense for model in models])
    losses, _, _ = stack(embedded(models, ids), labels)
    assert not isinstance(stack._gradients, Replayed)
    assert not torch.equal(losses[0], losses[1])


def test_a_network_that_fails_by_itself_raises_its_own_error() -> None:
    (ids, labels), models = made_batches(), own_models("models.wrong_networks:Raises")
    stack = SideBySide([model.dense for model in models])
    with pytest.raises(ArithmeticError, match="planted"):
        stack(embedded(models, ids[0]), labels[0])

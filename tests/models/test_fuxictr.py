"""FuxiCTR's model classes over our embeddings, against the same classes over tables of theirs."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diet_ray.config import ConfigError, ModelsConfig, NetworkConfig
from diet_ray.models.check import check_network
from diet_ray.models.flop import forward_flop
from diet_ray.models.fuxictr import TRAINING, feature_map_of
from diet_ray.models.registry import DenseNetwork, fresh_network, parameters_of
from tests.models.fuxictr_zoo import DeepFM, SharedBottom

FIELDS, WIDTH, TASKS, ROWS = 3, 4, 2, 9
MODELS = ModelsConfig(embedding_dim=WIDTH)


def network(name: str, **parameters: Any) -> NetworkConfig:
    return NetworkConfig(name=f"fuxictr:tests.models.fuxictr_zoo:{name}", parameters=parameters)


def made(config: NetworkConfig) -> DenseNetwork:
    return fresh_network(config, MODELS, FIELDS, TASKS, 3)


def tables_of(model: nn.Module, embeddings: Tensor) -> None:
    """Let row number n of every field of a FuxiCTR model of its own have embedding n."""
    for number, table in enumerate(model.embedding_layer.embedding_layer.embedding_layers.values()):
        table.weight = nn.Parameter(embeddings[:, number])


def by_itself(model_class: type[Any], labels: list[str], **arguments: Any) -> Any:
    """A FuxiCTR model with tables of ROWS ids, in eval mode."""
    feature_map = feature_map_of([f"field_{n}" for n in range(FIELDS)], labels, WIDTH)
    for spec in feature_map.features.values():
        spec["vocab_size"] = ROWS
    return model_class(feature_map, embedding_dim=WIDTH, **{**TRAINING, **arguments}).eval()


IDS = {f"field_{number}": torch.arange(ROWS) for number in range(FIELDS)}


def load(model: nn.Module, adapted: nn.Module) -> None:
    """The adapted model's parameters, where the model has them too."""
    own = adapted.state_dict()
    model.load_state_dict(
        {**model.state_dict(), **{k: v for k, v in own.items() if "maps" not in k}}
    )


@torch.no_grad()
def test_a_class_of_one_task_is_built_for_every_task_and_puts_out_logits() -> None:
    arguments = {"hidden_units": [6], "batch_norm": True, "net_dropout": 0.3}
    dense = made(network("DeepFM", **arguments)).eval()
    embeddings = torch.randn(ROWS, FIELDS, WIDTH)
    logits = dense(embeddings)
    assert len(dense.interaction.models) == TASKS
    for task, adapted in enumerate(dense.interaction.models):
        theirs = by_itself(DeepFM, ["task_0"], **arguments)
        load(theirs, adapted)
        tables_of(theirs, embeddings)
        # first-order weights are looked up there, and linear in the embeddings here
        maps = adapted.fm.lr_layer.embedding_layer.embedding_layer.maps
        weights = theirs.fm.lr_layer.embedding_layer.embedding_layer.embedding_layers
        for number, (name, linear) in enumerate(maps.items()):
            weights[name].weight = nn.Parameter(embeddings[:, number] @ linear.weight.T)
        torch.testing.assert_close(logits[:, task].sigmoid(), theirs(dict(IDS))["y_pred"][:, 0])
    assert not torch.allclose(logits[:, 0], logits[:, 1])


@torch.no_grad()
def test_a_class_of_several_tasks_is_built_once() -> None:
    dense = made(network("SharedBottom", units=5))
    embeddings = torch.randn(ROWS, FIELDS, WIDTH)
    (adapted,) = dense.interaction.models
    theirs = by_itself(SharedBottom, ["task_0", "task_1"], num_tasks=TASKS, units=5)
    load(theirs, adapted)
    tables_of(theirs, embeddings)
    found = theirs(dict(IDS))
    expected = torch.cat([found["task_0_pred"], found["task_1_pred"]], dim=1)
    torch.testing.assert_close(dense(embeddings).sigmoid(), expected)


def test_no_table_of_ids_is_left() -> None:
    for config in (network("DeepFM"), network("SharedBottom"), network("TwoTables", context=[])):
        modules = list(made(config).modules())
        assert not any(isinstance(module, nn.Embedding) for module in modules)


def test_a_table_of_another_width_is_a_linear_map_of_the_fields_it_holds() -> None:
    dense = made(network("TwoTables", context=["field_1"]))
    (maps,) = (
        dict(model.context_layer.embedding_layer.maps) for model in dense.interaction.models[:1]
    )
    assert {name: tuple(own.weight.shape) for name, own in maps.items()} == {"field_1": (8, 4)}
    assert dense(torch.randn(ROWS, FIELDS, WIDTH)).shape == (ROWS, TASKS)


@pytest.mark.parametrize(
    "config",
    [
        network("DeepFM", batch_norm=True, net_dropout=0.2),
        network("SharedBottom"),
        network("TwoTables", context=["field_0", "field_2"]),
    ],
    ids=lambda config: config.name,
)
def test_passes_the_check_and_is_counted(config: NetworkConfig) -> None:
    check_network(config, MODELS, FIELDS, TASKS)
    assert forward_flop(made(config), FIELDS, WIDTH) > 0


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"hidden_unit": [5]}, r"hidden_unit: unknown key; did you mean 'hidden_units'\?"),
        ({"net_regularizer": 1e-5}, r"net_regularizer: .*matter of the training"),
        ({"learning_rate": 0.1}, r"learning_rate: .*leave it out"),
        ({"embedding_dim": 8}, r"embedding_dim: is filled in"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=rf"fuxictr_zoo:DeepFM\(feature_map.*\): {told}"):
        parameters_of(network("DeepFM", **parameters))


def test_another_class_is_refused() -> None:
    own = NetworkConfig(name="fuxictr:tests.models.own_network:Plain")
    with pytest.raises(ConfigError, match=r"not derived from fuxictr.*leave 'fuxictr:' out"):
        parameters_of(own)


def test_a_model_of_sequences_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Sequential'.*get_inputs.*one value of every field"):
        parameters_of(network("Sequential"))


def test_the_root_logger_is_left_alone() -> None:
    """FuxiCTR's messages would give it a handler, and every line of ours would come twice."""
    before = list(logging.root.handlers)
    logging.root.handlers.clear()
    try:
        made(network("DeepFM"))(torch.randn(ROWS, FIELDS, WIDTH))
        assert logging.root.handlers == []
    finally:
        logging.root.handlers[:] = before


def test_without_fuxictr_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "diet_ray.models.fuxictr")
    monkeypatch.setitem(sys.modules, "fuxictr.features", None)
    with pytest.raises(ConfigError, match=r"pip install 'diet_ray\[fuxictr\]'"):
        parameters_of(network("DeepFM"))

"""A FuxiCTR model class, judged with its embedding layers replaced by ours.

Protocol: a configuration names it ``fuxictr:package.module:Class``, a class derived from FuxiCTR's
`BaseModel` (or `MultiTaskModel`); its arguments stand under `parameters` as in FuxiCTR's own
configurations, except those in NOT_OURS, which are filled in or belong to FuxiCTR's training.

The model sees F categorical features, `field_0`, `field_1`.. in the order of the log's fields.
Every `FeatureEmbeddingDict` in it, by which FuxiCTR's layers look up ids, is replaced: one of
width d puts out our embeddings themselves, one of another width a learned linear map of each.
So the first-order weight of a field's value, which FuxiCTR's `LogisticRegression` looks up in a
table of width 1, becomes linear in its embedding, and what was several tables is one. What the
model puts in front of its probabilities, `output_activation`, is left out: its logits remain.
A class for one task is built K times over the same embeddings, K trunks with a head each; a
`MultiTaskModel` once. FuxiCTR's regularisers, optimiser and early stopping play no part.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.models import BaseModel, MultiTaskModel
from fuxictr.utils import not_in_whitelist
from torch import Tensor, nn

from diet_ray.config import ConfigError, Section
from diet_ray.models.own import arguments_of

NOT_OURS = (
    "feature_map",
    "embedding_dim",
    "num_tasks",
    "task",
    "model_id",
    "gpu",
    "learning_rate",
    "loss_weight",
    "embedding_regularizer",
    "net_regularizer",
)
"""Arguments that are filled in, or of FuxiCTR's training, which is not what trains here."""

TRAINING = {
    "verbose": 0,
    "model_root": "",
    "metrics": ["AUC"],
    "optimizer": "adam",
    "loss": "binary_crossentropy",
    "task": "binary_classification",
}
"""What a FuxiCTR class wants to know of its own training, of which nothing is used."""


def check_class(name: str, model_class: type[Any]) -> None:
    """Raises ConfigError for a class that is no FuxiCTR model."""
    if not issubclass(model_class, BaseModel):
        raise ConfigError(
            f"network {name!r}: not derived from fuxictr.pytorch.models.BaseModel; leave "
            "'fuxictr:' out for a network of any other kind"
        )
    if model_class.get_inputs is not BaseModel.get_inputs:
        raise ConfigError(
            f"network {name!r}: takes its inputs in a way of its own (get_inputs), as FuxiCTR's "
            "models of sequences do; a row here holds one value of every field"
        )


def build_fuxictr(
    model_class: Callable[..., nn.Module], sizes: Mapping[str, int], parameters: Section
) -> nn.Module:
    """sizes: F, d and K by their names in `own.FILLED`."""
    return FuxiCTR(model_class, **sizes, parameters=parameters)


class FuxiCTR(nn.Module):
    """Embeddings (B, F, d) -> logits (B, K) of a FuxiCTR class."""

    def __init__(
        self,
        model_class: Any,
        fields: int,
        embedding_dim: int,
        tasks: int,
        parameters: Section,
    ) -> None:
        super().__init__()
        self.names = [f"field_{number}" for number in range(fields)]
        self.labels = [f"task_{number}" for number in range(tasks)]
        self.one_for_all = issubclass(model_class, MultiTaskModel)
        labels_of_models = [self.labels] if self.one_for_all else [[one] for one in self.labels]
        self.models: Any = nn.ModuleList()
        for labels in labels_of_models:
            arguments = {**TRAINING, **arguments_of(parameters), "embedding_dim": embedding_dim}
            if self.one_for_all:
                arguments["num_tasks"] = tasks
            model = model_class(feature_map_of(self.names, labels, embedding_dim), **arguments)
            self.models.append(_adapted(model, embedding_dim))

    def forward(self, embeddings: Tensor) -> Tensor:
        by_name = dict(zip(self.names, embeddings.unbind(dim=1), strict=True))
        logits: list[Tensor] = []
        for model in self.models:
            model.device = embeddings.device  # to which it takes its inputs
            found = model(dict(by_name))
            keys = [f"{label}_pred" for label in self.labels] if self.one_for_all else ["y_pred"]
            logits += [found[key] for key in keys]
        return torch.cat(logits, dim=1)


def feature_map_of(names: Sequence[str], labels: Sequence[str], embedding_dim: int) -> FeatureMap:
    """F categorical features; their vocabulary is a stand-in, its tables are replaced."""
    found = FeatureMap("diet_ray", data_dir="")
    spec = {"source": "", "type": "categorical", "vocab_size": 1}
    found.features = OrderedDict((name, dict(spec)) for name in names)
    found.labels, found.default_emb_dim = list(labels), embedding_dim
    found.num_fields = found.total_features = len(names)
    return found


def _adapted(model: Any, embedding_dim: int) -> nn.Module:
    """With our embeddings in place of its tables, and without what belongs to its training."""
    replaced: dict[nn.Module, Given] = {}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FeatureEmbeddingDict):
                if child not in replaced:  # one may be used in several places
                    replaced[child] = Given(child, embedding_dim)
                setattr(parent, name, replaced[child])
    model.output_activation = (
        nn.ModuleList(nn.Identity() for _ in model.output_activation)
        if isinstance(model.output_activation, nn.ModuleList)
        else nn.Identity()
    )
    model.optimizer = None  # it would hold the tables that were replaced
    return model


class Given(FeatureEmbeddingDict):
    """In place of a `FeatureEmbeddingDict`: {feature: embedding (B, d)} -> {feature: (B, width)}.

    The embedding itself where the width is d, else a linear map of it.
    """

    def __init__(self, tables: FeatureEmbeddingDict, embedding_dim: int) -> None:
        nn.Module.__init__(self)
        self._feature_map = tables._feature_map
        self.maps = nn.ModuleDict()
        for name, table in tables.embedding_layers.items():
            width = table.embedding_dim
            self.maps[name] = (
                nn.Identity()
                if width == embedding_dim
                else nn.Linear(embedding_dim, width, bias=False)
            )

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        feature_source: Sequence[str] = (),
        feature_type: Sequence[str] = (),
    ) -> OrderedDict[str, Tensor]:
        specs = self._feature_map.features
        return OrderedDict(
            (name, self.maps[name](embedding))
            for name, embedding in inputs.items()
            if name in self.maps
            and not (feature_source and not_in_whitelist(specs[name]["source"], feature_source))
            and not (feature_type and not_in_whitelist(specs[name]["type"], feature_type))
        )

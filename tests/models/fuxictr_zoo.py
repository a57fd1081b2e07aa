"""Model classes as FuxiCTR's users write them: of one task, of several, with what is special."""

from __future__ import annotations

from typing import Any

import torch
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel, MultiTaskModel
from torch import Tensor, nn


class DeepFM(BaseModel):
    """First order, factorization machine and an MLP."""

    def __init__(
        self,
        feature_map,
        model_id="DeepFM",
        gpu=-1,
        learning_rate=1e-3,
        embedding_dim=10,
        hidden_units=[64],  # noqa: B006 - as they write it
        net_dropout=0,
        batch_norm=False,
        embedding_regularizer=None,
        net_regularizer=None,
        **kwargs,
    ) -> None:
        super().__init__(
            feature_map,
            model_id=model_id,
            gpu=gpu,
            embedding_regularizer=embedding_regularizer,
            net_regularizer=net_regularizer,
            **kwargs,
        )
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.fm = FactorizationMachine(feature_map)
        self.mlp = MLP_Block(
            input_dim=feature_map.sum_emb_out_dim(),
            output_dim=1,
            hidden_units=hidden_units,
            dropout_rates=net_dropout,
            batch_norm=batch_norm,
        )
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        X = self.get_inputs(inputs)
        feature_emb = self.embedding_layer(X)
        y_pred = self.fm(X, feature_emb)
        y_pred += self.mlp(feature_emb.flatten(start_dim=1))
        return {"y_pred": self.output_activation(y_pred)}


class SharedBottom(MultiTaskModel):
    """One trunk, a tower per task."""

    def __init__(
        self,
        feature_map,
        task=["binary_classification"],  # noqa: B006
        num_tasks=1,
        gpu=-1,
        learning_rate=1e-3,
        embedding_dim=10,
        units=8,
        **kwargs,
    ) -> None:
        super().__init__(feature_map, task=task, num_tasks=num_tasks, gpu=gpu, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.bottom = nn.Linear(feature_map.num_fields * embedding_dim, units)
        self.towers = nn.ModuleList(nn.Linear(units, 1) for _ in range(num_tasks))
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        X = self.get_inputs(inputs)
        trunk = self.bottom(self.embedding_layer(X, flatten_emb=True)).relu()
        return {
            f"{label}_pred": self.output_activation[number](self.towers[number](trunk))
            for number, label in enumerate(self.feature_map.labels)
        }


class TwoTables(BaseModel):
    """Some fields in a table of another width, and a filter by the features' type."""

    def __init__(self, feature_map, context, embedding_dim=10, gpu=-1, **kwargs) -> None:
        super().__init__(feature_map, gpu=gpu, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.context_layer = FeatureEmbedding(
            feature_map, 2 * embedding_dim, required_feature_columns=context
        )
        width = embedding_dim * (feature_map.num_fields + 2 * len(context))
        self.linear = nn.Linear(width, 1)

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        X = self.get_inputs(inputs)
        parts = [
            self.embedding_layer(X, feature_type=["categorical"], flatten_emb=True),
            self.context_layer(X, flatten_emb=True),
        ]
        return {"y_pred": self.output_activation(self.linear(torch.cat(parts, dim=1)))}


class Sequential(DeepFM):
    """Reads its inputs as FuxiCTR's models of sequences do."""

    def get_inputs(self, inputs: Any, feature_source: Any = None) -> Any:
        batch, _items, _mask = inputs
        return batch

"""DCN from FuxiCTR's layers, as its model zoo puts them together (its PyPI package has no zoo).

It is trained by FuxiCTR's own `fit`, and, through `models/fuxictr.py`, by ours.
"""

from __future__ import annotations

from typing import Any

import torch
from fuxictr.pytorch.layers import CrossNet, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from diet_ray.models.fuxictr import TRAINING, feature_map_of


class DCN(BaseModel):
    """Cross network and MLP side by side, then a linear layer to one logit."""

    def __init__(
        self,
        feature_map: Any,
        gpu: int = -1,
        learning_rate: float = 1e-3,
        embedding_dim: int = 10,
        dnn_hidden_units: list[int] = [],  # noqa: B006 - as FuxiCTR writes it
        num_cross_layers: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_map, gpu=gpu, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        width = feature_map.sum_emb_out_dim()
        self.dnn = MLP_Block(input_dim=width, hidden_units=dnn_hidden_units)
        self.crossnet = CrossNet(width, num_cross_layers)
        self.fc = nn.Linear(width + dnn_hidden_units[-1], 1)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        embeddings = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        both = torch.cat([self.crossnet(embeddings), self.dnn(embeddings)], dim=-1)
        return {"y_pred": self.output_activation(self.fc(both))}


class Unjudged(DCN):
    """Trained by FuxiCTR's `fit` alone: neither evaluated nor saved at an epoch's end."""

    def eval_step(self) -> None:
        """Nothing is judged: what is timed is the training."""

    def load_weights(self, checkpoint: str) -> None:
        """The last weights stay: none was saved as the best."""


def theirs(
    sizes: dict[str, int], task: str, embedding_dim: int, parameters: dict[str, Any]
) -> tuple[Unjudged, Any]:
    """The model with tables of its own over fields of these sizes, and its feature map."""
    features = feature_map_of(list(sizes), [task], embedding_dim)
    for name, count in sizes.items():
        features.features[name]["vocab_size"] = count
    arguments: dict[str, Any] = {**TRAINING, **parameters, "embedding_dim": embedding_dim}
    return Unjudged(features, **arguments), features

"""A model class of FuxiCTR's among the candidates of a sweep.

    pip install 'diet_ray[fuxictr]'
    python jobs/distill.py --config configs/quickstart.yaml
    PYTHONPATH=. python jobs/sweep.py --config examples/fuxictr_network.yaml

`examples/fuxictr_network.yaml` names the class ``fuxictr:package.module:Class``, as it would name
one of FuxiCTR's model zoo. The class is used as it is: its embedding layers are replaced by the
table that all candidates train, its sigmoid is left out, and it is built once per task, unless it
is a `MultiTaskModel` (`diet_ray/models/fuxictr.py` says what else that changes).
"""

from __future__ import annotations

from typing import Any

from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, LogisticRegression, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import nn


class WideAndCross(BaseModel):
    """First-order weights, plus cross layers with an MLP behind them, as FuxiCTR writes models."""

    def __init__(
        self,
        feature_map,
        model_id="WideAndCross",
        gpu=-1,
        learning_rate=1e-3,
        embedding_dim=10,
        num_cross_layers=2,
        hidden_units=(64, 32),
        batch_norm=False,
        net_dropout=0,
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
        input_dim = feature_map.sum_emb_out_dim()
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.wide = LogisticRegression(feature_map)
        self.deep = nn.Sequential(
            CrossNetV2(input_dim, num_cross_layers),
            MLP_Block(
                input_dim=input_dim,
                output_dim=1,
                hidden_units=list(hidden_units),
                dropout_rates=net_dropout,
                batch_norm=batch_norm,
            ),
        )
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Any) -> dict[str, Any]:
        X = self.get_inputs(inputs)
        y_pred = self.wide(X) + self.deep(self.embedding_layer(X, flatten_emb=True))
        return {"y_pred": self.output_activation(y_pred)}

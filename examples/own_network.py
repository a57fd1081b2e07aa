"""A network of your own among the candidates of a sweep: a plain `torch.nn.Module`.

    python jobs/distill.py --config configs/quickstart.yaml
    PYTHONPATH=. python jobs/sweep.py --config examples/own_network.yaml

`examples/own_network.yaml` names the class, beside networks of this package, and the values of
its arguments. Its forward pass maps the embeddings of a row's fields to a logit per task; how
many fields and tasks there are and how wide an embedding is comes with the arguments `fields`,
`tasks` and `embedding_dim`, where the constructor has them. Nothing is registered or decorated,
and BatchNorm and dropout are welcome: the network is taken whole.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GatedFields(nn.Module):
    """Embeddings (B, F, d) -> logits (B, K).

    Every field is weighted by a gate that sees the whole row; then an MLP with BatchNorm.
    """

    def __init__(
        self, fields: int, embedding_dim: int, tasks: int, width: int = 64, dropout: float = 0.1
    ) -> None:
        super().__init__()
        inputs = fields * embedding_dim
        self.gate = nn.Linear(inputs, fields)
        self.layers = nn.Sequential(
            nn.Linear(inputs, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, tasks),
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        gates = torch.sigmoid(self.gate(embeddings.flatten(1)))
        return self.layers((embeddings * gates[:, :, None]).flatten(1))

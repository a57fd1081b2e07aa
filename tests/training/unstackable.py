"""Networks of a user's own that stretch `torch.func`: attention stacks, the others do not."""

from __future__ import annotations

from torch import Tensor, nn

from tests.models.own_network import Plain


class Attending(Plain):
    """Attention over the fields before the rest."""

    def __init__(self, tasks: int, fields: int, embedding_dim: int) -> None:
        super().__init__(tasks, fields, embedding_dim)
        self.attention = nn.MultiheadAttention(embedding_dim, 2, batch_first=True)

    def forward(self, embeddings: Tensor) -> Tensor:
        mixed, _ = self.attention(embeddings, embeddings, embeddings)
        return super().forward(embeddings + mixed)


class Recurrent(Plain):
    """A GRU over the fields before the rest."""

    def __init__(self, tasks: int, fields: int, embedding_dim: int) -> None:
        super().__init__(tasks, fields, embedding_dim)
        self.recurrent = nn.GRU(embedding_dim, embedding_dim, batch_first=True)

    def forward(self, embeddings: Tensor) -> Tensor:
        return super().forward(self.recurrent(embeddings)[0])


class Branching(Plain):
    """Counts its batches, then looks at a value to decide what to do."""

    def __init__(self, tasks: int, fields: int, embedding_dim: int) -> None:
        super().__init__(tasks, fields, embedding_dim)
        self.norm = nn.BatchNorm1d(fields, momentum=None)

    def forward(self, embeddings: Tensor) -> Tensor:
        embeddings = self.norm(embeddings)
        if embeddings.detach().mean().item() > 0:
            embeddings = embeddings * 2
        return super().forward(embeddings)

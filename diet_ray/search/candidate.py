"""What a sweep judges: an architecture, and how wide a table and how fast it trains."""

from __future__ import annotations

from dataclasses import dataclass

from diet_ray.config import ModelsConfig, NetworkConfig


@dataclass(frozen=True)
class Candidate:
    """A network; where the space names them, with a table and a learning rate of its own."""

    network: NetworkConfig
    embedding_dim: int | None = None  # of its table; default: `models.embedding_dim`
    learning_rate: float | None = None  # Adam's; default: the protocol's

    def models(self, models: ModelsConfig) -> ModelsConfig:
        """The common sizes, with the width of its own table."""
        if self.embedding_dim is None:
            return models
        return models.model_copy(update={"embedding_dim": self.embedding_dim})

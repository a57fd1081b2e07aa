"""A candidate: an architecture, and how wide a table and how fast it trains."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from diet_ray.config import ModelsConfig, NetworkConfig
from diet_ray.models.registry import parameters_of

OWN_KEYS = ("embedding_dim", "learning_rate")
"""What a space may name beside a network's hyper-parameters."""


@dataclass(frozen=True)
class Candidate:
    """A network; where the space names them, with a table and a learning rate of its own."""

    network: NetworkConfig
    embedding_dim: int | None = None  # of its table; default: `models.embedding_dim`
    learning_rate: float | None = None  # Adam's; default: the protocol's

    @property
    def own(self) -> dict[str, Any]:
        """Those of OWN_KEYS that it sets."""
        return {key: getattr(self, key) for key in OWN_KEYS if getattr(self, key) is not None}

    @property
    def values(self) -> dict[str, Any]:
        """What the space said: hyper-parameters and keys of its own."""
        return {**self.network.parameters, **self.own}

    def models(self, models: ModelsConfig) -> ModelsConfig:
        """The common sizes, with the width of its own table."""
        if self.embedding_dim is None:
            return models
        return models.model_copy(update={"embedding_dim": self.embedding_dim})

    def identity(self) -> str:
        """Equal for equal candidates, however they are written: defaults are filled in.

        Raises ConfigError for hyper-parameters that its network does not take.
        """
        parameters = parameters_of(self.network).model_dump(mode="json")
        return json.dumps(
            [self.network.name, parameters, *filter(None, [self.own])], sort_keys=True
        )

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {**asdict(self), "network": self.network.model_dump(mode="json")}

    @staticmethod
    def from_json(content: dict[str, Any]) -> Candidate:
        """The inverse of `as_json`."""
        return Candidate(**{**content, "network": NetworkConfig(**content["network"])})

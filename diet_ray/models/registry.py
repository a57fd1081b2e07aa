"""Interaction networks by name, each with typed hyper-parameters.

To add one, write a class like those in `dcn.py` and decorate it with ``@register``; its file is
listed in `_BUILT_IN`. One that lives in a package of yours needs no listing: a configuration
names it ``package.module:Class`` and every process imports it from there.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from diet_ray.config import ConfigError, ModelsConfig, NetworkConfig, Section, describe_errors
from diet_ray.errors import UserError
from diet_ray.models.functional import mean_logits, training_losses
from diet_ray.models.mmoe import MMoE
from diet_ray.seeds import Index, torch_seeded

_BUILT_IN = ("dcn", "dcnv2", "ensemble", "finalmlp", "finalnet", "wukong")


@dataclass(frozen=True)
class _Entry:
    network: type[nn.Module]
    parameters: type[Section]


_by_name: dict[str, _Entry] = {}
_by_class: dict[type[nn.Module], _Entry] = {}


def register(name: str, parameters: type[Section]) -> Callable[[type[Any]], type[Any]]:
    """Make a network known under `name`.

    The class takes (fields, embedding_dim, parameters), maps embeddings (B, F, d) to a
    representation (B, R) and states R as `output_dim`. One with several *branches* returns a
    tuple of representations and states a tuple of widths; each branch gets a head of its own. It
    says `independent_branches = True` if every branch is trained on the labels alone.
    """

    def add(network: type[Any]) -> type[Any]:
        _by_name[name] = _by_class[network] = _Entry(network, parameters)
        return network

    return add


def network_names() -> list[str]:
    """Names of all registered networks."""
    for module in _BUILT_IN:
        importlib.import_module(f"diet_ray.models.{module}")
    return sorted(_by_name)


def _find(name: str) -> _Entry:
    known = network_names()
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return _by_class[getattr(importlib.import_module(module), attribute)]
        except (ImportError, AttributeError, KeyError, ValueError) as error:
            raise ConfigError(
                f"network {name!r}: {error!r}; name an importable class decorated with "
                "diet_ray.models.register"
            ) from None
    if name not in _by_name:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"no network {name!r}{hint} Known: {', '.join(known)}")
    return _by_name[name]


def parameters_of(config: NetworkConfig) -> Section:
    """A network's hyper-parameters, defaults filled in. Raises ConfigError."""
    entry = _find(config.name)
    try:
        return entry.parameters.model_validate(config.parameters)
    except ValidationError as error:
        raise ConfigError(
            describe_errors(error, entry.parameters, f"network {config.name}")
        ) from None


def build_interaction(network: NetworkConfig, fields: int, embedding_dim: int) -> Any:
    """A network without its head. Raises ConfigError."""
    build: Any = _find(network.name).network
    return build(fields, embedding_dim, parameters_of(network))


class EmbeddingShapeError(UserError, ValueError):
    """Embeddings that a network does not take; the message names both shapes and the remedy."""


class DenseNetwork(nn.Module):
    """Embeddings (B, F, d) -> logits (B, K): an interaction network, then MMoE.

    With several branches the logits are the mean over their heads, `mmoe.0`, `mmoe.1`..
    """

    mmoe: nn.Module

    def __init__(
        self, network: NetworkConfig, models: ModelsConfig, fields: int, tasks: int
    ) -> None:
        super().__init__()
        self.fields, self.embedding_dim = fields, models.embedding_dim
        self.interaction = build_interaction(network, fields, models.embedding_dim)
        self._independent = getattr(self.interaction, "independent_branches", False)
        width = self.interaction.output_dim
        if isinstance(width, int):
            self.mmoe = MMoE(width, tasks, models.mmoe)
        else:
            self.mmoe = nn.ModuleList(MMoE(branch, tasks, models.mmoe) for branch in width)

    @property
    def parameter_count(self) -> int:
        """P, with the heads."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits (B, K); given labels (B, K) in [0, 1], every row's training loss (B,).

        Raises EmbeddingShapeError.
        """
        branches = self.branch_logits(embeddings)
        if labels is None:
            return mean_logits(branches)
        return training_losses(branches, labels, independent=self._independent)

    def branch_logits(self, embeddings: Tensor) -> list[Tensor]:
        """Logits (B, K) of each branch. Raises EmbeddingShapeError."""
        if embeddings.shape[1:] != (self.fields, self.embedding_dim):
            raise EmbeddingShapeError(
                f"embeddings of shape {tuple(embeddings.shape)}, rows first, but the network "
                f"takes {self.fields} fields of width {self.embedding_dim}; build it for their "
                "fields and with their width as models.embedding_dim, or give it rows of its own"
            )
        representation = self.interaction(embeddings)
        if isinstance(self.mmoe, nn.ModuleList):
            return [head(branch) for head, branch in zip(self.mmoe, representation, strict=True)]
        return [self.mmoe(representation)]


def fresh_network(
    network: NetworkConfig, models: ModelsConfig, fields: int, tasks: int, seed: int, *path: Index
) -> DenseNetwork:
    """A dense network whose initial parameters are a pure function of (seed, path)."""
    with torch_seeded(seed, *path):
        return DenseNetwork(network, models, fields, tasks)

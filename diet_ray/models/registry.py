"""Interaction networks by name, each with typed hyper-parameters.

To add one, write a class like those in `dcn.py` and decorate it with ``@register``; its file is
listed in `_BUILT_IN`. One that lives in a package of yours needs no listing: a configuration
names it ``package.module:Class`` and every process imports it from there. A registered network
gets our heads; any other `torch.nn.Module` so named is taken whole (`own.py`), and so is a model
class of FuxiCTR's, named ``fuxictr:package.module:Class`` (`fuxictr.py`).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from diet_ray.config import (
    ConfigError,
    MMoEConfig,
    ModelsConfig,
    NetworkConfig,
    Section,
    describe_errors,
)
from diet_ray.errors import UserError
from diet_ray.models.functional import mean_logits, training_losses
from diet_ray.models.mmoe import MMoE
from diet_ray.models.modes import evaluating
from diet_ray.models.own import FILLED, build_own, import_network, parameters_in, signature_of
from diet_ray.seeds import Index, torch_seeded

FUXICTR = "fuxictr:"
_BUILT_IN = ("dcn", "dcnv2", "ensemble", "finalmlp", "finalnet", "wukong")


@dataclass(frozen=True)
class _Entry:
    build: Callable[..., nn.Module]  # sizes by name (FILLED), parameters
    parameters: type[Section]
    whole: bool = False  # it puts out logits, and gets no heads of ours
    signature: str = ""  # how errors tell what it takes, behind its name
    left_out: tuple[str, ...] = ()  # arguments that `parameters` must not hold


_by_name: dict[str, _Entry] = {}
_by_class: dict[type[Any], _Entry] = {}


def register(name: str, parameters: type[Section]) -> Callable[[type[Any]], type[Any]]:
    """Make a network known under `name`.

    The class takes (fields, embedding_dim, parameters), maps embeddings (B, F, d) to a
    representation (B, R) and states R as `output_dim`. One with several *branches* returns a
    tuple of representations and states a tuple of widths; each branch gets a head of its own. It
    says `independent_branches = True` if every branch is trained on the labels alone.
    """

    def add(network: type[Any]) -> type[Any]:
        def build(sizes: dict[str, int], given: Section) -> nn.Module:
            return network(sizes["fields"], sizes["embedding_dim"], given)

        _by_name[name] = _by_class[network] = _Entry(build, parameters)
        return network

    return add


def network_names() -> list[str]:
    """Names of all registered networks."""
    for module in _BUILT_IN:
        importlib.import_module(f"diet_ray.models.{module}")
    return sorted(_by_name)


def _find(name: str) -> _Entry:
    known = network_names()
    if name.startswith(FUXICTR):
        return _of_fuxictr(name)
    if ":" in name:
        network = import_network(name)
        return _by_class.get(network) or _taken_whole(network, build_own, FILLED)
    if name not in _by_name:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"no network {name!r}{hint} Known: {', '.join(known)}")
    return _by_name[name]


def _taken_whole(
    network: Callable[..., nn.Module],
    build: Callable[..., nn.Module],
    left_out: tuple[str, ...],
    closed: bool = False,
) -> _Entry:
    return _Entry(
        build=partial(build, network),
        parameters=parameters_in(network, left_out, closed),
        whole=True,
        signature=str(signature_of(network)),
        left_out=left_out,
    )


def _of_fuxictr(name: str) -> _Entry:
    try:
        adapter = importlib.import_module("diet_ray.models.fuxictr")
    except ImportError as error:
        raise ConfigError(
            f"network {name!r}: FuxiCTR is not installed ({error}); pip install 'diet_ray[fuxictr]'"
        ) from None
    network = import_network(name.removeprefix(FUXICTR))
    adapter.check_class(name, network)
    return _taken_whole(network, adapter.build_fuxictr, adapter.NOT_OURS, closed=True)


def parameters_of(config: NetworkConfig) -> Section:
    """A network's hyper-parameters, defaults filled in. Raises ConfigError."""
    entry = _find(config.name)
    for key in entry.left_out:
        if key in config.parameters:
            raise ConfigError(
                f"{describe(config)}: {key}: is filled in from the log and models.embedding_dim, "
                "or is a matter of the training and not of the network; leave it out of parameters"
            )
    try:
        return entry.parameters.model_validate(config.parameters)
    except ValidationError as error:
        raise ConfigError(describe_errors(error, entry.parameters, describe(config))) from None


def source_digest(name: str) -> str | None:
    """Of the file that a class of one's own stands in; None for a built-in network.

    It tells whether results of earlier code still hold; what that file imports does not count.
    """
    if ":" not in name:
        return None
    source = inspect.getsourcefile(import_network(name.removeprefix(FUXICTR)))
    return None if source is None else hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]


def describe(config: NetworkConfig) -> str:
    """How errors call a network: its name, and what a class of one's own takes."""
    return f"network {config.name}{_find(config.name).signature}"


def is_whole(config: NetworkConfig) -> bool:
    """Whether a network puts out logits itself. Raises ConfigError."""
    return _find(config.name).whole


def build_interaction(network: NetworkConfig, fields: int, embedding_dim: int) -> Any:
    """A registered network without its head. Raises ConfigError."""
    if is_whole(network):
        raise ConfigError(
            f"network {network.name}: puts out logits, not the representation that a head of ours "
            "takes; decorate the class with diet_ray.models.register to use it here"
        )
    return _build(network, fields, embedding_dim, tasks=0)


def _build(network: NetworkConfig, fields: int, embedding_dim: int, tasks: int) -> Any:
    sizes = {"fields": fields, "embedding_dim": embedding_dim, "tasks": tasks}
    return _find(network.name).build(sizes, parameters_of(network))


class EmbeddingShapeError(UserError, ValueError):
    """Embeddings that a network does not take; the message names both shapes and the remedy."""


class DenseNetwork(nn.Module):
    """Embeddings (B, F, d) -> logits (B, K): an interaction network, then MMoE.

    With several branches the logits are the mean over their heads, `mmoe.0`, `mmoe.1`.. A network
    that is taken whole puts out the logits itself; there is no MMoE.
    """

    mmoe: nn.Module | None

    def __init__(
        self, network: NetworkConfig, models: ModelsConfig, fields: int, tasks: int
    ) -> None:
        super().__init__()
        self.fields, self.embedding_dim = fields, models.embedding_dim
        self.interaction = _build(network, fields, models.embedding_dim, tasks)
        self._independent = getattr(self.interaction, "independent_branches", False)
        self.mmoe = None if is_whole(network) else self._heads(tasks, models.mmoe)

    def _heads(self, tasks: int, config: MMoEConfig) -> nn.Module:
        width = self.interaction.output_dim
        if isinstance(width, int):
            return MMoE(width, tasks, config)
        return nn.ModuleList(MMoE(branch, tasks, config) for branch in width)

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
        if self.mmoe is None:
            return [self._whole_logits(embeddings)]
        representation = self.interaction(embeddings)
        if isinstance(self.mmoe, nn.ModuleList):
            return [head(branch) for head, branch in zip(self.mmoe, representation, strict=True)]
        return [self.mmoe(representation)]

    def _whole_logits(self, embeddings: Tensor) -> Tensor:
        if len(embeddings) > 1:
            return self.interaction(embeddings)
        with evaluating(self):  # an epoch's last batch may be one row, of which BatchNorm has none
            return self.interaction(embeddings)


def fresh_network(
    network: NetworkConfig, models: ModelsConfig, fields: int, tasks: int, seed: int, *path: Index
) -> DenseNetwork:
    """A dense network whose initial parameters are a pure function of (seed, path)."""
    with torch_seeded(seed, *path):
        return DenseNetwork(network, models, fields, tasks)

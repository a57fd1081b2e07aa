"""Whether a network of one's own does what is asked of it, found out before any long work.

It is built and a few random rows are passed through, if it is taken whole: a registered network
says by its decorator that it keeps the protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.parameter import is_lazy

from diet_ray.config import ConfigError, ModelsConfig, NetworkConfig
from diet_ray.models.functional import FlatNetwork, flatten_parameters
from diet_ray.models.registry import DenseNetwork, describe, fresh_network, is_whole, parameters_of
from diet_ray.seeds import torch_generator, torch_seeded

ROWS = 8  # more than one, for BatchNorm


class _Refused(Exception):
    """Why a network cannot be used, and what to do."""


def check_network(network: NetworkConfig, models: ModelsConfig, fields: int, tasks: int) -> None:
    """Whether it maps embeddings (B, fields, d) to logits (B, tasks). Raises ConfigError."""
    parameters_of(network)
    if is_whole(network):
        with _named(network):
            dense = _built(network, models, fields, tasks)
            for training in (True, False):
                _check_logits(dense.train(training), tasks)


def check_proxy(network: NetworkConfig, models: ModelsConfig, fields: int, tasks: int) -> None:
    """`check_network`, and whether a distillation can use it, as its reference or as a proxy.

    That takes influence by forward mode and differentiates training steps, so the logits must be
    a function of parameters and embeddings that can be differentiated both ways: no statistics
    of rows, no dropout. Raises ConfigError.
    """
    check_network(network, models, fields, tasks)
    if is_whole(network):
        with _named(network):
            dense = _built(network, models, fields, tasks)
            _check_keeps_nothing(dense)
            _check_derivatives(dense, tasks)


@contextmanager
def _named(network: NetworkConfig) -> Iterator[None]:
    try:
        yield
    except _Refused as reason:
        raise ConfigError(f"{describe(network)}: {reason}") from reason.__cause__


def _built(network: NetworkConfig, models: ModelsConfig, fields: int, tasks: int) -> DenseNetwork:
    try:
        dense = fresh_network(network, models, fields, tasks, 0, "check")
    except ConfigError:
        raise
    except Exception as error:
        raise _Refused(
            f"its constructor failed for {fields} fields of width {models.embedding_dim} and "
            f"{tasks} tasks: {_told(error)}; change its parameters"
        ) from error
    for name, parameter in dense.interaction.named_parameters():
        if is_lazy(parameter):
            raise _Refused(
                f"{name} has no shape before the first rows; give lazy layers their widths, which "
                "follow from the constructor's arguments fields and embedding_dim"
            )
        if not parameter.requires_grad:
            raise _Refused(
                f"{name} does not require a gradient, but every parameter of a candidate is "
                "trained; make it a buffer"
            )
    return dense


def _rows(dense: DenseNetwork) -> Tensor:
    generator = torch_generator(0, "check rows")
    return torch.randn(ROWS, dense.fields, dense.embedding_dim, generator=generator)


def _check_logits(dense: DenseNetwork, tasks: int) -> None:
    """In the mode that it is in."""
    embeddings = _rows(dense).requires_grad_(True)
    given = f"embeddings {tuple(embeddings.shape)} of float32"
    wanted = f"it must return logits ({ROWS}, {tasks}), a column per task"
    try:
        with torch_seeded(0, "check"):
            logits = dense(embeddings)
    except Exception as error:
        raise _Refused(f"failed on {given}: {_told(error)}; {wanted}{_raw_ids(dense)}") from error
    if not isinstance(logits, Tensor):
        raise _Refused(f"returned a {type(logits).__name__} for {given}; {wanted}")
    if logits.shape != (ROWS, tasks) or not logits.is_floating_point():
        kind = str(logits.dtype).removeprefix("torch.")
        raise _Refused(f"returned {tuple(logits.shape)} of {kind} for {given}; {wanted}")
    gradient = None
    if logits.requires_grad:
        (gradient,) = torch.autograd.grad(logits.sum(), embeddings, allow_unused=True)
    if gradient is None:
        raise _Refused(
            "its logits have no gradient to the embeddings, so no table can learn below it; use "
            f"them as they are, not detached, rounded or looked up{_raw_ids(dense)}"
        )


def _raw_ids(dense: DenseNetwork) -> str:
    """What to do where the network looks up ids itself."""
    for name, module in dense.interaction.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            return (
                f". Its {name} looks up ids: a network gets none, but the fields' embeddings, of a "
                "table that is trained below it; take its own embedding layers out"
            )
    return ""


def _check_keeps_nothing(dense: DenseNetwork) -> None:
    """Whether parameters and embeddings are all that its logits depend on."""
    remedy = "it can be a candidate, but no reference and no proxy; name another there"
    parameters = {name for name, _ in dense.interaction.named_parameters()}
    for name in dense.interaction.state_dict():
        if name not in parameters:
            raise _Refused(
                f"keeps {name} beside its parameters, as BatchNorm does: {remedy}, or register a "
                "constant with persistent=False"
            )
    logits = []
    for draw in range(2):
        with torch_seeded(draw, "check"), torch.no_grad():
            logits.append(dense.train()(_rows(dense)))
    if not torch.equal(*logits):
        raise _Refused(f"its logits differ from call to call, as with dropout: {remedy}")


def _check_derivatives(dense: DenseNetwork, tasks: int) -> None:
    """Forward mode once, backward twice."""
    flat, theta, embeddings = FlatNetwork(dense), flatten_parameters(dense), _rows(dense)
    labels = torch.full((ROWS, tasks), 0.5)

    def loss(parameters: Tensor) -> Tensor:
        return flat.training_losses(parameters, embeddings, labels).sum()

    try:
        jvp(loss, (theta,), (torch.ones_like(theta),))
        variable = theta.clone().requires_grad_(True)
        (once,) = torch.autograd.grad(loss(variable), variable, create_graph=True)
        torch.autograd.grad(once.sum(), variable)
    except Exception as error:
        raise _Refused(
            f"cannot be differentiated as a distillation does: {_told(error)}; it can be a "
            "candidate, but no reference and no proxy; name another there"
        ) from error


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())

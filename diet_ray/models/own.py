"""A network of one's own, taken whole: any `torch.nn.Module` from embeddings to logits.

Protocol: a configuration names the class ``package.module:Class``; every process imports it from
there, so its folder is on PYTHONPATH or it is installed. Its forward pass maps embeddings
(B, F, d) to logits (B, K), one per task, and is given nothing else: no ids, no labels. It gets no
head of ours, and keeps its BatchNorm and dropout.

Its constructor's arguments stand under `parameters`, by name. Three are filled in where the
constructor has them: `fields` (F), `embedding_dim` (d) and `tasks` (K). Its annotations and its
defaults are the typed list that the others are checked against, as a registered network's are.
What it draws at random it draws from torch's global generator, which is seeded; state that it
keeps between batches it changes in place, as BatchNorm does.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any

from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter, create_model
from torch import nn

from diet_ray.config import ConfigError, Section

FILLED = ("fields", "embedding_dim", "tasks")


def import_network(name: str) -> type[Any]:
    """The class called ``package.module:Class``. Raises ConfigError."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"network {name!r}: {error!r}; name an importable class as package.module:Class, its "
            "folder on PYTHONPATH if it is not installed"
        ) from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ConfigError(
            f"network {name!r}: a {type(found).__name__}, not a class derived from torch.nn.Module"
        )
    return found


@cache
def signature_of(network: Callable[..., nn.Module]) -> inspect.Signature:
    """What the constructor takes, its annotations evaluated where they can be."""
    try:
        found = inspect.signature(network, eval_str=True)
    except NameError:  # an annotation of what is only imported for type checkers
        found = inspect.signature(network)
    return found.replace(return_annotation=found.empty)


@cache
def parameters_in(
    network: Callable[..., nn.Module], left_out: Collection[str] = FILLED
) -> type[Section]:
    """The typed list of what `parameters` may hold: the constructor's arguments by name.

    left_out: arguments that do not come from there, a tuple. Others are accepted if the
    constructor takes any (``**arguments``).
    """
    fields: dict[str, Any] = {}
    takes_any = False
    for name, argument in signature_of(network).parameters.items():
        takes_any |= argument.kind is argument.VAR_KEYWORD
        if name not in left_out and argument.kind in (
            argument.KEYWORD_ONLY,
            argument.POSITIONAL_OR_KEYWORD,
        ):
            fields[name] = (_checked_type(argument.annotation), _default(argument.default))
    base = _TakesAny if takes_any else _Parameters
    return create_model(f"{network.__name__}Parameters", __base__=base, **fields)


class _Parameters(Section):
    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())


class _TakesAny(_Parameters):
    model_config = ConfigDict(extra="allow")


def _checked_type(annotation: Any) -> Any:
    """The annotation, or Any where none can be checked."""
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return Any
    try:
        TypeAdapter(annotation)
    except PydanticUserError:
        return Any
    return annotation


def _default(value: Any) -> Any:
    """A default that JSON cannot hold, such as a class, is not among what identifies a network."""
    if value is inspect.Parameter.empty:
        return Field()
    try:
        json.dumps(value)
    except TypeError:
        return Field(default=value, exclude_if=lambda given: given is value)
    return value


def arguments_of(parameters: Section) -> dict[str, Any]:
    """What the constructor is called with, by name; a copy, for it may change a list."""
    named = {name: getattr(parameters, name) for name in type(parameters).model_fields}
    return copy.deepcopy({**named, **(parameters.model_extra or {})})


def build_own(
    network: Callable[..., nn.Module], sizes: Mapping[str, int], parameters: Section
) -> nn.Module:
    """sizes: F, d and K by their names in FILLED."""
    taken = signature_of(network).parameters
    filled = {name: size for name, size in sizes.items() if name in taken}
    return network(**filled, **arguments_of(parameters))

"""From a YAML file and overrides to a configuration; and the list of all keys."""

from __future__ import annotations

import copy
import os
import typing
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from diet_ray import storage
from diet_ray.config.models import NetworkConfig
from diet_ray.config.places import NO_YAML, Places
from diet_ray.config.run import RunConfig
from diet_ray.config.section import ConfigError, Section, describe_errors, section_in
from diet_ray.errors import LONGEST_VALUE, shortened

Given = RunConfig | Mapping[str, Any] | str | os.PathLike[str]
"""A configuration, its keys as a tree, or its YAML file (any URI)."""


def load_config(uri: str, overrides: typing.Sequence[str] = ()) -> RunConfig:
    """Read, override and validate a configuration.

    `overrides` are ``key.path=value`` with a YAML value. Raises :class:`ConfigError`.
    """
    return read_config(uri, overrides)[0]


def read_config(uri: str, overrides: typing.Sequence[str] = ()) -> tuple[RunConfig, Places]:
    """`load_config`, and where each key was set."""
    text = _read(uri)
    places = Places(uri, text, overrides)
    tree = _tree(uri, text)
    for override in overrides:
        _override(tree, override)
    return _validated(tree, places.of), places


def make_config(given: Given, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """A configuration of whatever form, validated.

    changes: ``key.path`` to the value that it gets. Raises :class:`ConfigError`.
    """
    where: str | Callable[[str], str] = "configuration"
    if isinstance(given, RunConfig):
        tree = given.model_dump()
    elif isinstance(given, Mapping):
        tree = copy.deepcopy(dict(given))
    else:
        uri = os.fspath(given)
        text = _read(uri)
        where, tree = Places(uri, text).of, _tree(uri, text)
    for path, value in (changes or {}).items():
        _put(tree, path, value, path)
    return _validated(tree, where)


def _validated(tree: dict[str, Any], where: str | Callable[[str], str]) -> RunConfig:
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe_errors(error, RunConfig, where)) from None


def _tree(uri: str, text: str) -> dict[str, Any]:
    tree = _parsed(text, f"{uri}: the file")
    if not isinstance(tree, dict):
        raise ConfigError(f"{uri}: expected a mapping of keys, found {type(tree).__name__}")
    return tree


def _parsed(text: str, said: str) -> Any:
    """YAML whose values may be none, as 2024-13-45 is. said: how an error calls the text."""
    try:
        return yaml.safe_load(text)
    except NO_YAML as error:
        raise ConfigError(f"{said} is not valid YAML: {_problem(error)}") from None


def _problem(error: Exception) -> str:
    told = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
    return f"{told}; correct it, or put a text in quotes"


def _read(uri: str) -> str:
    try:
        return storage.read_bytes(uri).decode()
    except FileNotFoundError:
        raise ConfigError(f"{uri}: no such file; see configs/ for examples") from None
    except OSError as error:
        raise ConfigError(f"{uri}: cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{uri}: not text in UTF-8 ({error}); save it so") from None


def _override(tree: dict[str, Any], override: str) -> None:
    path, separator, value = override.partition("=")
    if not separator:
        raise ConfigError(f"--set {override}: expected key.path=value")
    said = f"--set {shortened(override, LONGEST_VALUE)}"
    parsed = _parsed(value, f"{said}: the value")
    Places(said, value)  # refuses a key that stands there twice
    _put(tree, path.strip(), parsed, said)


def _put(tree: dict[str, Any], path: str, value: Any, said: str) -> None:
    """said: how an error calls the change."""
    *parents, leaf = path.split(".")
    for parent in parents:
        if not isinstance(tree.setdefault(parent, {}), dict):
            raise ConfigError(f"{said}: {parent} is a value, not a group of keys")
        tree = tree[parent]
    tree[leaf] = value


def describe_keys(schema: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """One line per key: path, default, meaning. The keys of a list's or a mapping's entries follow
    it, as `key[].name` and `key.*.name`."""
    lines = []
    for name, field in schema.model_fields.items():
        section = section_in(field.annotation)
        if section is NetworkConfig or (section and not issubclass(section, Section)):
            section = None
        entries = _entries(field.annotation)
        if section is None or entries or field.default is None:
            default = "required" if field.is_required() else _plain(field.default)
            lines.append(f"{prefix}{name} = {default}  {field.description or ''}".rstrip())
        if section is not None:
            lines += describe_keys(section, f"{prefix}{name}{entries}.")
    return lines


def _entries(annotation: Any) -> str:
    """How the path goes on to the entries of a list or mapping; empty for what has none."""
    kind = typing.get_origin(annotation)
    if kind is list:
        return "[]"
    return ".*" + _entries(typing.get_args(annotation)[1]) if kind is dict else ""


def _plain(default: Any) -> Any:
    if isinstance(default, list):
        return [_plain(entry) for entry in default]
    if isinstance(default, dict):
        return {name: _plain(entry) for name, entry in default.items()}
    return default.model_dump(exclude_defaults=True) if isinstance(default, BaseModel) else default

"""From a YAML file and overrides to a configuration; and the list of all keys."""

from __future__ import annotations

import typing
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from diet_ray import storage
from diet_ray.config.models import NetworkConfig
from diet_ray.config.places import Places
from diet_ray.config.run import RunConfig
from diet_ray.config.section import ConfigError, Section, describe_errors, section_in


def load_config(uri: str, overrides: typing.Sequence[str] = ()) -> RunConfig:
    """Read, override and validate a configuration.

    `overrides` are ``key.path=value`` with a YAML value. Raises :class:`ConfigError`.
    """
    return read_config(uri, overrides)[0]


def read_config(uri: str, overrides: typing.Sequence[str] = ()) -> tuple[RunConfig, Places]:
    """`load_config`, and where each key was set."""
    text = _read(uri)
    places = Places(uri, text, overrides)
    tree = yaml.safe_load(text)
    if not isinstance(tree, dict):
        raise ConfigError(f"{uri}: expected a mapping of keys, found {type(tree).__name__}")
    for override in overrides:
        _override(tree, override)
    try:
        return RunConfig.model_validate(tree), places
    except ValidationError as error:
        raise ConfigError(describe_errors(error, RunConfig, places.of)) from None


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
    *parents, leaf = path.strip().split(".")
    for parent in parents:
        if not isinstance(tree.setdefault(parent, {}), dict):
            raise ConfigError(f"--set {override}: {parent} is a value, not a group of keys")
        tree = tree[parent]
    try:
        tree[leaf] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from None


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

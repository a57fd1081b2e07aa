"""From a YAML file and a command line to a configuration."""

from __future__ import annotations

import argparse
import typing
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from diet_ray import storage
from diet_ray.config.models import NetworkConfig
from diet_ray.config.run import RunConfig
from diet_ray.config.section import ConfigError, Section, describe_errors, section_in


def load_config(uri: str, overrides: typing.Sequence[str] = ()) -> RunConfig:
    """Read, override and validate a configuration.

    `overrides` are ``key.path=value`` with a YAML value. Raises :class:`ConfigError`.
    """
    try:
        tree = yaml.safe_load(storage.read_bytes(uri))
    except FileNotFoundError:
        raise ConfigError(f"{uri}: no such file; see configs/ for examples") from None
    except OSError as error:
        raise ConfigError(f"{uri}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{uri}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{uri}: expected a mapping of keys, found {type(tree).__name__}")
    for override in overrides:
        _override(tree, override)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe_errors(error, RunConfig, uri)) from None


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
    """One line per key: path, default, meaning. The keys of a list's entries follow the list."""
    lines = []
    for name, field in schema.model_fields.items():
        section = section_in(field.annotation)
        if section is NetworkConfig or (section and not issubclass(section, Section)):
            section = None
        of_entries = typing.get_origin(field.annotation) is list
        if section is None or of_entries or field.default is None:
            default = "required" if field.is_required() else _plain(field.default)
            lines.append(f"{prefix}{name} = {default}  {field.description or ''}".rstrip())
        if section is not None:
            lines += describe_keys(section, f"{prefix}{name}{'[]' if of_entries else ''}.")
    return lines


def _plain(default: Any) -> Any:
    if isinstance(default, list):
        return [_plain(entry) for entry in default]
    return default.model_dump(exclude_defaults=True) if isinstance(default, BaseModel) else default


def parse_command_line(description: str, arguments: list[str] | None = None) -> RunConfig:
    """The command line that every job shares; exits with a readable message on a bad config."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="configuration keys (for --set or the file):\n  "
        + "\n  ".join(" ".join(line.split()) for line in describe_keys()),
    )
    parser.add_argument("--config", required=True, help="YAML file, a path or any URI")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override one key, such as --set memory.ratio=0.01 (may be repeated)",
    )
    options = parser.parse_args(arguments)
    try:
        return load_config(options.config, options.overrides)
    except ConfigError as error:
        parser.exit(2, f"{error}\n")

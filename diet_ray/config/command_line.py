"""The command line that all jobs share: one page of help, all keys on request."""

from __future__ import annotations

import argparse
import textwrap
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diet_ray.config.file import describe_keys, read_config
from diet_ray.config.places import Places
from diet_ray.config.run import RunConfig
from diet_ray.config.section import ConfigError

WIDTH = 100
QUICK_END = "-quick"
"""Of the output of a quick run, whose results never mix with the real one's."""


@dataclass(frozen=True)
class Command:
    """What a job was asked to do."""

    config: RunConfig
    places: Places  # of the configuration's keys
    dry_run: bool = False  # say what would be done, and stop
    quick: bool = False  # small, into an output of its own

    def tell(self, message: str) -> str:
        """An error's message; one that begins with a key's path gets the key's place in front."""
        return self.places.tell(message, list(RunConfig.model_fields))


class _HelpAll(argparse.Action):
    """Prints every key of a configuration and ends, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: typing.Any) -> typing.NoReturn:
        keys = "\n  ".join(" ".join(line.split()) for line in describe_keys())
        print(f"{parser.description}\nconfiguration keys (for --set or the file):\n  {keys}")
        parser.exit()


def parse_command_line(
    description: str,
    first_keys: Sequence[str] = (),
    arguments: list[str] | None = None,
    shorthands: Mapping[str, str] | None = None,
    quick: Sequence[str] = (),
) -> Command:
    """What the command line asks for; exits with a readable message on a bad configuration.

    first_keys: those that --help explains, from the schema. shorthands: flag to the key that it
    sets, such as ``{"--seeds": "evaluation.seeds"}``. quick: of a job that tells its plan, and
    takes --dry-run and --quick: ``key.path=value`` that make it small, unless the user sets them.
    """
    shorthands = shorthands or {}
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_first_page(first_keys),
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
    for flag, key in shorthands.items():
        parser.add_argument(flag, metavar="VALUE", dest=key, help=f"short for --set {key}=VALUE")
    if quick:
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="say what would be done and about how long it takes here, and stop",
        )
        parser.add_argument(
            "--quick",
            action="store_true",
            help=f"a small run that ends in minutes, in a folder of its own, <output>{QUICK_END}: "
            f"unless set otherwise, {', '.join(quick)}",
        )
    parser.add_argument("--help-all", action=_HelpAll, nargs=0, help="show every key, and exit")
    options = parser.parse_args(arguments)
    given = {key: getattr(options, key) for key in shorthands.values()}
    short = [f"{key}={value}" for key, value in given.items() if value is not None]
    overrides, dry_run, small = [*options.overrides, *short], False, False
    if quick:
        dry_run, small = options.dry_run, options.quick
    try:
        config, places = read_config(options.config, overrides)
        if small:
            if config.logs is None:
                quick = [change for change in quick if not change.startswith("logs.")]
            elsewhere = [f"output={config.output}{QUICK_END}", "reference.folder=null"]
            config, places = read_config(options.config, [*quick, *overrides, *elsewhere])
    except ConfigError as error:
        parser.exit(2, f"{error}\n")
    return Command(config, places, dry_run, small)


def _first_page(keys: Sequence[str]) -> str:
    """The keys, each with its default and meaning. Raises ValueError for one that there is not."""
    described = {line.partition(" = ")[0]: line for line in describe_keys()}
    unknown = [key for key in keys if key not in described]
    if unknown:
        raise ValueError(f"first_keys: {', '.join(unknown)}: no such key of RunConfig")
    lines = [_paragraph(described[key]) for key in keys]
    head = "the keys that matter first, with their defaults (all keys: --help-all):"
    return "\n".join([head, *lines]) if keys else "all keys: --help-all"


def _paragraph(line: str) -> str:
    """A line of `describe_keys`, as `key (default): meaning`."""
    key, _, rest = line.partition(" = ")
    default, _, meaning = rest.partition("  ")
    text = f"{key} ({default}): {' '.join(meaning.split())}"
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="      ")

"""The command line of ``jobs/bench.py``: a subcommand per measure, `all`, and `page`."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import fields

from diet_ray import progress, runtime
from diet_ray.bench.catalogue import MEASURES
from diet_ray.bench.measure import Measure, refuse_too_large
from diet_ray.bench.record import save, write_page
from diet_ray.errors import UserError

ALL, PAGE = "all", "page"


def run(description: str, arguments: Sequence[str] | None = None) -> None:
    """Make the measures that the command line asks for, record each, write the page.

    A measure that is refused does not keep others from being made; its error is told at the end,
    with status 2.
    """
    options = _parser(description).parse_args(arguments)
    progress.start_logging()
    # Ray starts its workers at a low priority: they would starve beside a plain rival.
    os.environ.setdefault("RAY_worker_niceness", "0")
    refused = []
    for measure in _asked(options):
        try:
            make(measure, options.output, options.folder)
        except UserError as error:
            refused.append(f"error: {error}")
        write_page(options.output, options.page, list(MEASURES))
    if options.measure == PAGE:
        write_page(options.output, options.page, list(MEASURES))
    if refused:
        print("\n".join(refused), file=sys.stderr)
        sys.exit(2)


def make(measure: Measure, output: str, folder: str | None = None) -> None:
    """Make one measure and record it. Raises BenchError if it is too large for this machine.

    folder: below which its files lie meanwhile; default: the system's for temporary files.
    """
    refuse_too_large(measure, folder or tempfile.gettempdir())
    with (
        progress.phase(f"Measure {measure.name}") as phase,
        tempfile.TemporaryDirectory(prefix="diet_ray-bench-", dir=folder) as own,
        runtime.plain_errors(),
    ):
        found = measure.run(own)
    save(output, measure, found, time.monotonic() - phase.started)


def _asked(options: argparse.Namespace) -> list[Measure]:
    if options.measure == PAGE:
        return []
    if options.measure == ALL:
        return [kind() for kind in MEASURES.values()]
    kind = MEASURES[options.measure]
    return [kind(**{f.name: getattr(options, f.name) for f in fields(kind)})]


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subcommands = parser.add_subparsers(dest="measure", required=True, metavar="MEASURE")
    for name, kind in MEASURES.items():
        told = inspect.getdoc(kind) or ""
        own = subcommands.add_parser(
            name,
            help=told.partition("\n")[0],
            description=told,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for f in fields(kind):
            own.add_argument(
                f"--{f.name.replace('_', '-')}",
                type=_positive,
                default=f.default,
                metavar="N",
                help=f"{f.metadata['help']} (default {f.default:,})",
            )
        _add_places(own)
    _add_places(subcommands.add_parser(ALL, help="every measure, at its default size"))
    _add_places(subcommands.add_parser(PAGE, help="only write the page anew"))
    return parser


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", default="docs/bench", help="folder of the records (JSON)")
    parser.add_argument("--page", default="BENCH.md", help="the Markdown page of all records there")
    parser.add_argument("--folder", help="for files in between; default: the system's temporary")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive; give 1 or more")
    return value

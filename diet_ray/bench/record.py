"""A measure's record, a JSON file, and the page made of all records that are there."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import ray
import torch

from diet_ray import storage
from diet_ray.bench.measure import KIBIBYTE, Figure, Found, Goal, Measure
from diet_ray.progress import byte_size

MISSED = "**missed**"
HEAD = """\
# What it costs, measured

Written by `jobs/bench.py` from the records of its last runs. A ratio is the median of \
what repeats that ran by turns gave; a GB is 10^9 bytes.
"""


@dataclass(frozen=True)
class Record:
    """What a measure found, where, and how to find it again."""

    name: str
    command: str
    sizes: dict[str, int]
    machine: str
    seconds: float
    found: Found


def machine() -> str:
    """Processor, memory and the libraries that count, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    total = next(
        float(line.split()[1]) * KIBIBYTE
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    gpu = f", {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else ""
    return (
        f"{processor}, {os.cpu_count()} CPUs, {byte_size(total)}{gpu}; Python "
        f"{platform.python_version()}, torch {torch.__version__}, ray {ray.__version__}, pyarrow "
        f"{pa.__version__}"
    )


def command_of(measure: Measure) -> str:
    """What repeats it; sizes that are the default's are left out."""
    changed = [
        f" --{f.name.replace('_', '-')} {getattr(measure, f.name)}"
        for f in fields(measure)
        if getattr(measure, f.name) != f.default
    ]
    return f"python jobs/bench.py {measure.name}{''.join(changed)}"


def save(output: str, measure: Measure, found: Found, seconds: float) -> None:
    """Publish a measure's record, in the place of an earlier one."""
    record = Record(
        name=measure.name,
        command=command_of(measure),
        sizes=asdict(measure),
        machine=machine(),
        seconds=seconds,
        found=found,
    )
    text = json.dumps(asdict(record), indent=1)  # in the order in which tables and parts are told
    storage.write_bytes(storage.join(output, f"{measure.name}.json"), text.encode())


def read_records(output: str) -> dict[str, Record]:
    """By name, all records of a folder."""
    records = {}
    for uri in storage.list_files(output, ".json"):
        content = storage.read_json(uri)
        content["found"] = _found(content["found"])
        records[content["name"]] = Record(**content)
    return records


def _found(content: dict[str, Any]) -> Found:
    figures = [
        Figure(**{**one, "goal": Goal(**one["goal"]) if one["goal"] else None})
        for one in content["figures"]
    ]
    return Found(**{**content, "figures": figures})


def write_page(output: str, page: str, order: list[str]) -> None:
    """The Markdown page of a folder's records; those of `order` first, as they stand there."""
    records = read_records(output)
    names = [name for name in order if name in records]
    names += [name for name in records if name not in order]
    storage.write_bytes(page, render([records[name] for name in names]).encode())


def render(records: list[Record]) -> str:
    """Records as Markdown: one table of all figures, then each measure's own tables and notes."""
    machines = list(dict.fromkeys(record.machine for record in records))
    lines = [
        {
            "Measure": record.name,
            "Compared": figure.compared,
            "Goal": str(figure.goal) if figure.goal else "-",
            "Reached": _reached(figure),
            "Behind it": ", ".join(f"{k} {_number(v)}" for k, v in figure.parts.items()) or "-",
            "Machine": machines.index(record.machine) + 1,
            "Command": f"`{record.command}`",
        }
        for record in records
        for figure in record.found.figures
    ]
    parts = [HEAD, pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)]
    parts.append("\n".join(f"Machine {n}: {told}." for n, told in enumerate(machines, start=1)))
    for record in records:
        parts += _details(record)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _reached(figure: Figure) -> str:
    value = f"{_number(figure.value)} {figure.unit}".strip()
    if figure.goal is None:
        return value
    return f"{value}, met" if figure.goal.met(figure.value) else f"{value}, {MISSED}"


def _details(record: Record) -> list[str]:
    if not record.found.tables and not record.found.notes:
        return []
    parts = [f"## {record.name}", *record.found.notes]
    for title, rows in record.found.tables.items():
        shown = pd.DataFrame([{key: _cell(value) for key, value in row.items()} for row in rows])
        parts += [f"{title}:", shown.to_markdown(index=False, disable_numparse=True)]
    return parts


def _cell(value: Any) -> str:
    return _number(value) if isinstance(value, int | float) else str(value)


def _number(value: float) -> str:
    """Four digits; whole where it has more before the point."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"

"""What the jobs' command line takes, and what its help shows."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from diet_ray.config import NetworkConfig, RunConfig, Section, describe_keys, parse_command_line

ROOT = Path(__file__).parents[2]
# those that take a run's configuration
JOBS = sorted(p.name for p in (ROOT / "jobs").glob("*.py") if "FIRST_KEYS" in p.read_text())
QUICKSTART = str(ROOT / "configs/quickstart.yaml")
PAGE = 60  # lines that a terminal on half a screen shows


def shown_by(capsys: pytest.CaptureFixture[str], *arguments: str, **options: object) -> str:
    """What a command line prints that ends the job at once."""
    with pytest.raises(SystemExit) as ended:
        parse_command_line("A job.", arguments=list(arguments), **options)  # type: ignore[arg-type]
    assert ended.value.code == 0
    return capsys.readouterr().out


def keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Path of every key of a section; a network's and a table's keys depend on what is chosen."""
    for name, field in schema.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section) and kind is not NetworkConfig:
            yield from keys(kind, f"{prefix}{name}.")
        elif name != "table":
            yield f"{prefix}{name}"


def test_help_all_prints_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown_by(capsys, "--help-all").splitlines()
    shown = [line.split(" = ")[0].strip() for line in lines]
    assert set(keys(RunConfig)) <= set(shown)
    assert "benchmark.fidelity.arms[].method" in shown
    assert "benchmark.fidelity.arms.method" not in shown  # which --set could not reach
    assert "logs.table.time_column" in shown


def test_help_shows_the_first_keys_as_the_schema_states_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = shown_by(capsys, "--help", first_keys=["memory.ratio", "output"])
    (line,) = [line for line in describe_keys() if line.startswith("memory.ratio = ")]
    default, meaning = line.removeprefix("memory.ratio = ").split("  ")
    assert f"memory.ratio ({default}): {meaning}" in shown
    assert "output (required): " in shown
    assert "memory.keep" not in shown


def test_a_first_key_that_there_is_not_is_a_slip_of_the_job() -> None:
    with pytest.raises(ValueError, match=r"memory\.ratoi: no such key"):
        parse_command_line("A job.", ["memory.ratoi"], [])


@pytest.mark.parametrize("job", JOBS)
def test_a_jobs_help_is_a_page_whose_examples_can_be_read(
    job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command of the page names a file and keys that there are."""
    module = runpy.run_path(str(ROOT / "jobs" / job))
    description, first_keys = module["__doc__"], module["FIRST_KEYS"]
    shown = shown_by(capsys, "--help", first_keys=first_keys)
    assert len(shown.splitlines() + description.splitlines()) <= PAGE
    examples = re.findall(rf"python jobs/{job} --config (\S+)((?: --set \S+)*)", description)
    assert examples
    for config, overrides in examples:
        words = overrides.replace("'", "").split()
        parse_command_line("", first_keys, ["--config", str(ROOT / config), *words])


def test_a_bad_configuration_ends_a_job_with_the_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--config", QUICKSTART, "--set", "sede=1"]
    with pytest.raises(SystemExit) as ended:
        parse_command_line("A job.", arguments=arguments)
    assert ended.value.code == 2
    told = "--set sede=1: sede: unknown key; did you mean 'seed'?\n"
    assert capsys.readouterr().err == told
    arguments[-1] = "seed=3"
    assert parse_command_line("A job.", arguments=arguments).config.seed == 3


def test_a_shorthand_sets_its_key_last(capsys: pytest.CaptureFixture[str]) -> None:
    shorthands = {"--trials": "search.trials"}
    assert "--trials VALUE" in shown_by(capsys, "--help", shorthands=shorthands)
    given = ["--config", QUICKSTART, "--set", "search.trials=2"]
    for more, trials in (([], 2), (["--trials", "5"], 5)):
        command = parse_command_line("", arguments=[*given, *more], shorthands=shorthands)
        assert command.config.search.trials == trials


def test_a_later_error_names_the_line_of_its_key() -> None:
    arguments = ["--config", QUICKSTART, "--set", "memory.ratio=0.5"]
    command = parse_command_line("", arguments=arguments)
    text = Path(QUICKSTART).read_text().splitlines()
    line = text.index("search:") + 1
    assert command.tell("search: no").startswith(f"{QUICKSTART}:{line}: search: no")
    assert command.tell("memory.ratio: no") == "--set memory.ratio=0.5: memory.ratio: no"
    assert command.tell("something else: no") == "something else: no"

"""Quick runs are valid, small, and end where no other run does."""

from __future__ import annotations

from pathlib import Path

import pytest

from diet_ray.config import parse_command_line
from diet_ray.plan import quick

CONFIGS = Path(__file__).parents[2] / "configs"
JOBS = {"distill": quick.DISTILL, "benchmark": quick.BENCHMARK, "sweep": quick.SWEEP}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("name", ["quickstart", "kuairand_pure", "kuairand_pure_paper"])
def test_a_quick_run_is_valid_and_has_an_output_of_its_own(job: str, name: str) -> None:
    arguments = ["--config", str(CONFIGS / f"{name}.yaml")]
    whole = parse_command_line("", arguments=arguments, quick=JOBS[job])
    small = parse_command_line("", arguments=[*arguments, "--quick"], quick=JOBS[job])
    assert (whole.quick, small.quick) == (False, True)
    assert whole.config.logs.most_rows is None
    assert small.config.logs.most_rows
    assert small.config.output == f"{whole.config.output}-quick"
    assert small.config.reference.folder is None


def test_what_the_user_sets_stays() -> None:
    given = ["--set", "logs.most_rows=7", "--set", "output=/elsewhere"]
    arguments = ["--config", str(CONFIGS / "quickstart.yaml"), "--quick", *given]
    config = parse_command_line("", arguments=arguments, quick=quick.DISTILL).config
    assert (config.logs.most_rows, config.output) == (7, "/elsewhere-quick")


def test_all_jobs_make_the_same_set() -> None:
    arguments = ["--config", str(CONFIGS / "quickstart.yaml"), "--quick"]
    sections = ("logs", "models", "reference", "scoring", "memory", "distill", "seed", "threads")
    made = [
        parse_command_line("", arguments=arguments, quick=keys).config.determining(*sections)
        for keys in JOBS.values()
    ]
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("job", JOBS)
def test_a_quick_run_needs_no_logs_where_the_whole_one_has_none(job: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("output: out\nsearch: {distilled: some/set}\n")
    arguments = ["--config", str(file), "--quick"]
    assert parse_command_line("", arguments=arguments, quick=JOBS[job]).config.logs is None

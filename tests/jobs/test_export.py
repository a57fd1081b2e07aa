"""The job that exports a set, as its user starts it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import diet_ray
from diet_ray.memory.artifact import Description
from diet_ray.training.reference import load_reference
from diet_ray.training.stream import train_reference
from tests.made import FIRST_IDS, made_blocks, small_config
from tests.sets import publish_set, random_rows

ROOT = Path(__file__).parents[2]
PAGE = 40  # lines


def run_export(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The job, started in `folder`."""
    command = [sys.executable, str(ROOT / "jobs/export.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """phi_1 and a set of it, `distilled/stage=1`."""
    folder = tmp_path_factory.mktemp("run")
    config = small_config(str(folder))
    blocks = made_blocks(str(folder / "blocks"), historical=1)
    train_reference(config, blocks)
    width, place = config.models.embedding_dim, str(folder / "reference/t=1")
    rows = random_rows(30, (len(blocks.fields), width, len(blocks.tasks)))
    rows.anchors[:] %= FIRST_IDS
    identity = load_reference(place).identity
    made_from = {"memory": {"ratio": 0.1}}
    described = Description(1, 30, blocks.fields, blocks.tasks, width, identity, place, made_from)
    publish_set(str(folder / "distilled/stage=1"), rows, described)
    return folder


def test_a_set_is_written_in_its_plain_form(run: Path, tmp_path: Path) -> None:
    done = run_export(run, "distilled/stage=1", "--to", str(tmp_path / "plain"))
    assert done.returncode == 0, done.stderr
    frame, loaded = (
        pd.read_parquet(tmp_path / "plain"),
        diet_ray.load_distilled(str(run / "distilled/stage=1")),
    )
    assert np.array_equal(
        np.stack(list(frame["embedding"])), loaded.embeddings.numpy().reshape(len(loaded), -1)
    )
    assert np.array_equal(np.stack(list(frame["label"])), loaded.labels.numpy())


def test_a_set_that_was_moved_is_told_its_reference(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "distilled/stage=1", tmp_path / "set")
    done = run_export(tmp_path, "set", "--to", "plain")
    assert done.returncode == 2
    assert done.stderr.startswith("error: set: its rows are stored as ids and need the reference")
    reference = str(run / "reference/t=1")
    done = run_export(tmp_path, "set", "--to", "plain", "--reference", reference)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_parquet(tmp_path / "plain")) == 30


def test_its_help_is_one_page_with_an_example(tmp_path: Path) -> None:
    done = run_export(tmp_path, "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) < PAGE
    assert "python jobs/export.py results/quickstart/distilled/stage=3 --to plain" in done.stdout

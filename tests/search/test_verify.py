"""Which candidates are trained on full data, and what that says of the leaderboard."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diet_ray.config import ConfigError, NetworkConfig, RunConfig
from diet_ray.evaluation import grid
from diet_ray.evaluation.agreement import FEWEST_SETTINGS, agreement, intervals
from diet_ray.evaluation.cells import CellResult
from diet_ray.evaluation.pairs import pairs_right, significant_pairs
from diet_ray.evaluation.run import Run
from diet_ray.logs.blocks import open_blocks, read_block
from diet_ray.models.candidate import Candidate
from diet_ray.search import verify as module
from diet_ray.search.leaderboard import Line, leaderboard
from diet_ray.search.trial import Outcome
from diet_ray.search.verify import (
    Verification,
    as_json,
    judge,
    points,
    probe,
    render,
    spread,
    verify,
)
from diet_ray.training.candidate import train_through
from diet_ray.training.cotrain import fresh_candidate
from diet_ray.training.metrics import Metrics, measure
from diet_ray.training.model import predict
from tests.made import made_blocks
from tests.search.prepared import config_at, publish_distilled, small_candidate

SEEDS = 3
RATE = 0.02


def made_lines(candidates: Sequence[Candidate], failed: int = 0) -> list[Line]:
    """Their leaderboard, in their order, and failed ones after them."""
    results = []
    for number, candidate in enumerate(candidates):
        aucs = [0.8 - number / 100, 0.81 - number / 100]
        epochs = tuple((Metrics(auc, 0.5, {}, {}),) for auc in aucs)
        results.append((candidate, Outcome(epochs, (1, 1), (), 1_000, 90, 9.0, 0.5)))
    results += [(Candidate(NetworkConfig(name="bad")), Outcome(error="it broke"))] * failed
    return leaderboard(results, "auc", full_rows=900)


def candidates(count: int) -> list[Candidate]:
    """Of two networks; none of them is trained."""
    names = ("dcn", "wukong")
    return [
        Candidate(NetworkConfig(name=names[i % 2], parameters={"size": i})) for i in range(count)
    ]


@pytest.mark.parametrize(
    ("judged", "count", "chosen"),
    [
        (45, 9, [0, 6, 11, 16, 22, 28, 33, 38, 44]),
        (10, 2, [0, 9]),
        (5, 3, [0, 2, 4]),
        (3, 9, [0, 1, 2]),
        (1, 2, [0]),
    ],
)
def test_the_verified_are_spread_evenly_and_have_both_ends(
    judged: int, count: int, chosen: list[int]
) -> None:
    assert spread(made_lines(candidates(judged), failed=2), count) == chosen


TRIED = [
    small_candidate("wukong", learning_rate=RATE),
    small_candidate("dcn"),
    small_candidate("dcn", embedding_dim=8),
]


def test_the_verified_are_trained_on_all_blocks_as_the_space_says(
    output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "diet_ray")
    config = config_at(
        output,
        evaluation={"seeds": SEEDS, "full_protocol": {"batch_size": 40}},
        search={"verify": 2},
    )
    lines = made_lines(TRIED, failed=1)
    found = verify(config, lines)
    assert [(verified.place, verified.line) for verified in found.lines] == [
        (1, lines[0]),
        (3, lines[2]),
    ]
    trained = zip(found.lines, (TRIED[0], TRIED[2]), (RATE, 0.01), strict=True)
    for verified, candidate, rate in trained:
        assert verified.full_auc == [
            directly(config, candidate, rate, seed) for seed in range(SEEDS)
        ]
        assert verified.full_rows == 4 * 240
    assert found.agreement is None
    assert found.pairs is not None
    assert "6 full trainings of 960 rows each, of which 0 are there already" in caplog.text
    assert found.sentence in caplog.text
    published = output / "search" / "verify.json"
    before = published.read_bytes()
    assert json.loads(before) == json.loads(json.dumps(as_json(config, found)))

    monkeypatch.setattr(grid, "run_cell", None)
    assert as_json(config, verify(config, lines)) == as_json(config, found)
    assert published.read_bytes() == before
    assert "all 6 full trainings are there already" in caplog.text


def directly(config: RunConfig, candidate: Candidate, rate: float, seed: int) -> float:
    """Test AUC of one full training."""
    blocks = open_blocks(config.place("blocks"))
    sizes, tasks = dict.fromkeys(blocks.fields, 0), blocks.tasks
    models = candidate.models(config.models)
    model = fresh_candidate(candidate.network, models, sizes, len(tasks), config.seed, seed)
    protocol = config.evaluation.protocol.changed({"batch_size": 40, "learning_rate": rate})
    train_through(model, blocks, [*blocks.historical, blocks.block("subsequent")], protocol)
    test = read_block(blocks, blocks.block("test"))
    return measure(predict(model, test.ids), test.labels, tasks).auc


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Blocks alone, since nothing is trained on them."""
    config = config_at(tmp_path)
    return Run(config, made_blocks(config.place("blocks")))


def judged(
    run: Run, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch, tried: Sequence[Candidate] = ()
) -> tuple[Verification, np.ndarray]:
    """Candidates in the order of the leaderboard, whose full trainings gave `truth` (S, n), with
    the resamples of these."""
    seeds, count = truth.shape
    noise = np.random.default_rng(1).normal(scale=0.001, size=(1, 1, 2_000))
    resampled = truth[:, :, None] + noise
    monkeypatch.setattr(module, "_resampled", lambda *_: resampled)
    lines = made_lines(tried or candidates(count))
    cells = [module.full_cells(run, TRIED[1])[:1] for _ in lines]
    results = [[result(truth[s, i]) for s in range(seeds)] for i in range(count)]
    return judge(run, list(enumerate(lines, start=1)), cells, results), resampled


def result(auc: float) -> CellResult:
    return CellResult({"auc": float(auc)}, {}, [], [], 1_000, 2.0)


def falling(count: int, seeds: int, swap: tuple[int, int] | None = None) -> np.ndarray:
    """Full data's AUC, far apart; two of them may have changed places."""
    level = 0.8 - np.arange(count) / 20
    if swap is not None:
        level[list(swap)] = level[list(swap[::-1])]
    return level + np.linspace(-0.001, 0.001, seeds)[:, None]


def test_an_order_is_judged_by_agreement_and_pairs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = falling(9, SEEDS, swap=(0, 1))
    found, resampled = judged(run, truth, monkeypatch)
    order = -np.arange(9.0)[None]
    families = np.array([verified.line.network for verified in found.lines])
    assert found.agreement is not None
    assert found.spearman is not None
    assert dataclasses.asdict(found.agreement) == pytest.approx(
        dataclasses.asdict(agreement(truth, order)), nan_ok=True
    )
    assert found.spearman == intervals(truth, order, families, run.config.seed)["spearman"]
    pairs = significant_pairs(truth, resampled, run.config.seed)
    assert found.pairs == pairs_right(pairs, order, families)
    assert found.regret == pytest.approx(0.05)
    assert [verified.full_place for verified in found.lines] == [2, 1, *range(3, 10)]
    assert found.sentence == (
        "Spearman's correlation with full data over 9 candidates is 0.98 "
        f"[{found.spearman.low:.2f}, {found.spearman.high:.2f}], clear of chance; of 36 pairs that "
        "full data tells apart the sweep has 35 right; taking the sweep's first costs 0.0500 of "
        "full data's AUC."
    )


def test_an_order_that_may_be_chance_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = falling(9, SEEDS)[:, [4, 8, 0, 6, 2, 5, 1, 7, 3]]
    found, _ = judged(run, truth, monkeypatch)
    assert "which may be chance" in found.sentence


def test_few_candidates_have_pairs_and_no_correlation(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = judged(run, falling(FEWEST_SETTINGS - 1, SEEDS), monkeypatch)
    assert (found.agreement, found.spearman) == (None, None)
    assert found.sentence.startswith("7 candidates are too few for a correlation (8 at least); of")
    assert "Spearman" not in render(found)


def test_what_full_data_does_not_tell_apart_is_no_order(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(3)
    found, _ = judged(run, 0.7 + random.normal(scale=0.01, size=(4, 5)), monkeypatch)
    assert found.pairs is not None
    assert found.pairs.pairs == 0
    assert "full data tells no two of them apart, so there is no order" in found.sentence
    assert as_json(run.config, found)["pairs"]["pairs_right"] is None  # NaN is no JSON


def test_two_seeds_tell_no_pair_apart(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = judged(run, falling(9, 2), monkeypatch)
    assert found.pairs is None
    assert "fewer than 3 seeds (evaluation.seeds) tell no pair of them apart" in found.sentence


def test_networks_that_stand_there_once_have_no_interval(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = [Candidate(NetworkConfig(name=f"own-{i}")) for i in range(9)]
    found, _ = judged(run, falling(9, SEEDS), monkeypatch, tried)
    assert "over 9 candidates is 1.00; of 36 pairs" in found.sentence


def test_both_orders_stand_side_by_side(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = judged(run, falling(3, SEEDS, swap=(0, 2)), monkeypatch)
    _, _, *rows, sentence = render(found).splitlines()
    assert rows[0].split() == [
        *("1", "1", "3", "dcn", "size=0", "0.8050", "±0.0071"),
        *("0.7000", "±0.0010", "10%", "0.5", "2.0"),
    ]
    assert sentence == found.sentence


def test_the_pictures_points_have_both_spreads(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = judged(run, falling(3, SEEDS), monkeypatch)
    drawn = points(found)
    assert drawn["place"].tolist() == [1, 2, 3]
    assert drawn["full_auc"].tolist() == pytest.approx([0.8, 0.75, 0.7])
    assert drawn["full_deviation"].tolist() == pytest.approx([0.001] * 3)
    assert drawn["score_deviation"].tolist() == pytest.approx([0.005 * 2**0.5] * 3)
    with_one_seed, _ = judged(run, falling(3, 1), monkeypatch)
    assert points(with_one_seed)["full_deviation"].isna().all()


def test_a_probe_tells_the_time_of_a_whole_training(run: Run) -> None:
    cells = module.full_cells(run, TRIED[1])
    seconds = probe(cells[:1])
    assert len(seconds) == 1
    assert seconds[0] > 0


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda output: shutil.rmtree(output / "blocks"), "the log itself, and .* holds no blocks"),
        (lambda output: shutil.rmtree(output / "reference" / "t=3"), r"phi_1\.\.phi_3 2 are there"),
        (
            lambda output: publish_distilled(
                config_at(output), open_blocks(str(output / "blocks")), fields=("a", "b", "c")
            ),
            "has fields a, b, c and tasks .*, the blocks in .* have ",
        ),
    ],
    ids=["blocks", "reference", "fields"],
)
def test_without_its_run_nothing_is_verified(output: Path, spoil: Any, told: str) -> None:
    spoil(output)
    with pytest.raises(ConfigError, match=rf"search\.verify: .*{told}.*set search\.verify to 0"):
        verify(config_at(output, search={"verify": 2}), made_lines(TRIED))

"""Which cells a study is made of, and which sets it distils."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from diet_ray.config import ConfigError, RunConfig
from diet_ray.distill.context import stage_uri
from diet_ray.evaluation import studies
from diet_ray.evaluation.fidelity import TRUTH, repetitions_of
from diet_ray.evaluation.methods import METHODS
from diet_ray.evaluation.studies import (
    Studies,
    StudyCell,
    Variation,
    all_arms,
    arms_of,
    derived,
    parts_of_variants,
    soft,
    variations,
)
from diet_ray.evaluation.tuning import Tuned
from diet_ray.logs.blocks import Blocks
from diet_ray.training.reference import reference_uri
from tests.evaluation.prepared import RATIO, STAGES, Prepared
from tests.networks import SMALL_NETWORKS

WUKONG = {"name": "wukong", "parameters": SMALL_NETWORKS["wukong"]}
BENCHMARK: dict[str, Any] = {
    "methods": ["full", "cold", "warm", "kmeans", "distilled"],
    "seeds": 2,
    "fidelity": {
        "space": {"dcn": {"dnn_hidden_units": [[8], [16]]}, "wukong": {"num_layers": [1]}},
        "full_seeds": 3,
        "repetitions": 2,
        "arms": [
            {"method": "prefix", "share": 0.5},
            {"method": "warm"},
            {"method": "kmeans", "use": "cotrain", "score": "taught", "label": "centres"},
            {"method": "distilled"},
        ],
    },
    "ratios": [0.02, RATIO],
    "references": [WUKONG],
    "study_seeds": 1,
    "ablations": {"no-fusion": {"memory": {"keep": 0.0}}},
}


@pytest.fixture
def distilled(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The configurations that a study trains a reference for and distils, in order."""
    trained: list[RunConfig] = []
    found: list[RunConfig] = []

    def train(config: RunConfig, _: Blocks) -> None:
        trained.append(config)

    def distil(config: RunConfig, _: Blocks) -> str:
        assert trained[-1] is config
        found.append(config)
        return stage_uri(config, STAGES)

    monkeypatch.setattr(studies, "train_reference", train)
    monkeypatch.setattr(studies, "distill_stream", distil)
    return found


def cells_of(prepared: Prepared, *names: str, **overrides: Any) -> list[StudyCell]:
    run = prepared.run(benchmark={**BENCHMARK, "studies": list(names), **overrides})
    protocol = run.config.evaluation.protocol
    arms = all_arms(run.config)
    return Studies(run, Tuned(dict.fromkeys(arms, protocol), None)).cells()  # type: ignore[arg-type]


def counted(cells: list[StudyCell]) -> Counter[tuple[str, str, str]]:
    """Cells by reference, method and labels."""
    return Counter(
        (c.cell.run.config.reference.network.name, c.cell.method, c.cell.labels) for c in cells
    )


def test_main_is_every_arm_candidate_and_seed(
    prepared: Prepared, distilled: list[RunConfig]
) -> None:
    cells = cells_of(prepared, "main")
    arms = [
        ("full", ""),
        ("cold", ""),
        ("warm", ""),
        *((method, labels) for method in ("kmeans", "distilled") for labels in ("soft", "hard")),
    ]
    assert counted(cells) == Counter({("dcn", *arm): 4 for arm in arms})
    assert (
        len({(c.cell.method, c.cell.labels, c.cell.candidate.title, c.cell.seed) for c in cells})
        == 28
    )
    assert {c.study for c in cells} == {"main"}
    assert distilled == []


def test_fidelity_is_the_truth_and_every_arm_repetition_and_setting(
    prepared: Prepared, distilled: list[RunConfig]
) -> None:
    cells = cells_of(prepared, "fidelity", labels=["hard"])
    assert {c.cell.candidate.title for c in cells} == {"dcn-1", "dcn-2", "wukong-1"}
    assert Counter((c.arm, c.repetition) for c in cells) == {
        (TRUTH, 0): 3 * 3,  # settings, seeds
        **{(arm, r): 3 for arm in ("prefix 50%", "warm", "centres", "distilled") for r in (0, 1)},
    }
    assert [c.cell.method for c in cells if c.arm == TRUTH] == ["full"] * 9
    assert {c.cell.seed for c in cells if c.arm == TRUTH} == {0, 1, 2}


def test_another_repetition_has_a_reference_and_a_set_of_its_own(
    prepared: Prepared, distilled: list[RunConfig]
) -> None:
    cells = cells_of(prepared, "fidelity")
    own, other = repetitions_of(cells[0].cell.run.config)
    assert distilled == [other]
    runs = {c.repetition: c.cell.run for c in cells if c.cell.method == "distilled"}
    assert [runs[r].config for r in (0, 1)] == [own, other]
    assert [runs[r].distilled for r in (0, 1)] == [prepared.distilled, stage_uri(other, STAGES)]


def test_a_repetitions_own_reference_teaches_what_is_scored_by_its_labels(
    prepared: Prepared, distilled: list[RunConfig]
) -> None:
    cells = cells_of(prepared, "main", "fidelity")
    own, other = repetitions_of(cells[0].cell.run.config)
    taught = [c for c in cells if c.teacher is not None]
    assert {c.arm for c in taught} == {"centres"}
    assert [c.teacher.config for c in taught if c.teacher] == [own] * 3 + [other] * 3
    assert [c.repetition for c in taught] == [0] * 3 + [1] * 3
    # what needs no reference is trained once, and scored by every repetition's
    fidelity = BENCHMARK["fidelity"] | {"arms": [{"method": "cold", "score": "taught"}]}
    cold = [c for c in cells_of(prepared, "fidelity", fidelity=fidelity) if c.arm != TRUTH]
    assert {(c.repetition, c.cell.run.config.seed) for c in cold} == {(0, own.seed), (1, own.seed)}
    assert {(c.repetition, c.teacher.config.seed) for c in cold if c.teacher} == {
        (0, own.seed),
        (1, other.seed),
    }


def test_without_a_distilled_arm_nothing_is_distilled(
    prepared: Prepared, distilled: list[RunConfig]
) -> None:
    fidelity = BENCHMARK["fidelity"] | {"arms": [{"method": "warm"}]}
    cells = cells_of(prepared, "fidelity", fidelity=fidelity)
    assert distilled == []
    assert {c.cell.run.distilled for c in cells if c.repetition} == {""}


def test_ratios_are_distilled_by_every_reference(
    prepared: Prepared, distilled: list[RunConfig]
) -> None:
    cells = cells_of(prepared, "ratio")
    by_run = Counter((c.cell.run.config.name, c.cell.method) for c in cells)
    assert by_run == {
        ("made", "full"): 2,
        ("made-dcn-ratio-0.02", "warm"): 2,
        ("made-dcn-ratio-0.02", "distilled"): 2,
        ("made", "warm"): 2,
        ("made", "distilled"): 2,  # the run's own ratio
        ("made-wukong-ratio-0.02", "warm"): 2,
        ("made-wukong-ratio-0.02", "distilled"): 2,
        ("made-wukong-reference", "warm"): 2,
        ("made-wukong-reference", "distilled"): 2,  # the set that `transfer` asks for
    }
    assert [c.memory.ratio for c in distilled] == [0.02, 0.02, RATIO]
    assert [c.reference.network.name for c in distilled] == ["dcn", "wukong", "wukong"]


def test_an_ablation_is_its_variant_beside_the_run_itself(
    prepared: Prepared, distilled: list[RunConfig]
) -> None:
    cells = cells_of(prepared, "ablation")
    assert Counter((c.cell.run.variant, c.cell.method, c.cell.labels) for c in cells) == {
        ("", "distilled", "soft"): 2,
        ("no-fusion", "distilled", "soft"): 2,
    }
    assert [config.memory.keep for config in distilled] == [0.0]
    varied = next(c.cell.run for c in cells if c.cell.run.variant)
    assert varied.distilled == stage_uri(distilled[0], STAGES)


def test_the_parts_of_a_variant_come_from_its_configuration(prepared: Prepared) -> None:
    ablations = {
        "all are kept": {"memory": {"keep": 1.0}},
        "all are targets": {"distill": {"hard_fraction": 1.0}},
        "others are kept": {"memory": {"keep": 0.3}},
    }
    config = prepared.config(benchmark={"ablations": ablations}, distill={"active_fraction": 1.0})
    assert parts_of_variants(config) == {
        "all are kept": (False, True, False),
        "all are targets": (True, False, False),
        "others are kept": (True, True, False),
        "": (True, True, False),
    }


def test_transfer_is_every_reference(prepared: Prepared, distilled: list[RunConfig]) -> None:
    cells = cells_of(prepared, "transfer")
    own = {("dcn", *soft(method)): 2 for method in ("full", "warm", "distilled")}
    other = {("wukong", *soft(method)): 2 for method in ("warm", "distilled")}
    assert counted(cells) == own | other
    assert len(distilled) == 1


def test_studies_share_what_they_distil(prepared: Prepared, distilled: list[RunConfig]) -> None:
    every = ("main", "fidelity", "ratio", "ablation", "transfer", "cost")
    cells = cells_of(prepared, *every)
    assert list(dict.fromkeys(c.study for c in cells)) == list(every[:-1])
    outputs = [config.output for config in distilled]
    assert len(outputs) == len(set(outputs)) == 5
    runs = {id(c.cell.run): c.cell.run.config.output for c in cells}
    assert len(runs) == len(set(runs.values())) == 6


@pytest.mark.parametrize("labels", [["soft", "hard"], ["hard"], ["blended"]])
def test_every_arm_that_a_study_judges_is_tuned(
    prepared: Prepared, distilled: list[RunConfig], labels: list[str]
) -> None:
    every = ("main", "fidelity", "ratio", "ablation", "transfer", "cost")
    config = prepared.config(benchmark={**BENCHMARK, "studies": list(every), "labels": labels})
    arms = all_arms(config)
    assert len(arms) == len(set(arms))
    cells = cells_of(prepared, *every, labels=labels)
    tuned = [c.cell for c in cells if c.cell.use != "cotrain"]
    names = {"prefix": "full"}  # whose protocol it takes
    assert {(names.get(cell.method, cell.method), cell.labels) for cell in tuned} == set(arms)


def test_what_is_timed_is_tuned_too(prepared: Prepared) -> None:
    config = prepared.config(benchmark={"studies": ["cost"]})
    assert all_arms(config) == [("full", ""), ("distilled", "soft")]


def test_a_distilled_sets_blended_labels_are_its_soft_ones(prepared: Prepared) -> None:
    config = prepared.config(benchmark={"labels": ["blended", "soft", "hard"]})
    assert arms_of(config, ["cold", "distilled", "random"]) == [
        ("cold", ""),
        ("distilled", "soft"),
        ("distilled", "hard"),
        ("random", "blended"),
        ("random", "soft"),
        ("random", "hard"),
    ]
    assert [soft(method)[1] for method in METHODS] == ["", "", "", "", *["soft"] * 4]


def variation_of(config: RunConfig, **values: Any) -> Variation:
    return Variation(
        **{"study": "ablation", "name": "x", "network": config.reference.network, **values}
    )


def test_a_varied_run_has_a_place_of_its_own_and_shares_the_reference(prepared: Prepared) -> None:
    base = prepared.config()
    changes = {"distill": {"inner": {"steps": 9}}}
    config = derived(base, variation_of(base, name="a b/c", changes=changes))
    assert config.output == base.place("benchmark", "a_b_c")
    assert config.name == "made-a_b_c"
    assert reference_uri(config, 2) == reference_uri(base, 2)
    assert config.distill.inner == base.distill.inner.model_copy(update={"steps": 9})
    same = ("seed", "threads", "logs", "models", "reference", "memory", "evaluation")
    assert config.determining(*same) == base.determining(*same)


def test_a_shared_folder_stays_the_references(prepared: Prepared) -> None:
    shared = {"folder": str(prepared.folder / "shared")}
    base = prepared.config(reference=shared)
    config = derived(base, variation_of(base, changes={"memory": {"keep": 0.0}}))
    assert reference_uri(config, 1) == f"{shared['folder']}/t=1"


def test_another_reference_lies_apart_and_is_the_proxy_too(prepared: Prepared) -> None:
    base = prepared.config()
    own = base.reference.network.model_dump()
    base = prepared.config(
        distill={"inner": {"networks": [own]}}, benchmark={"references": [WUKONG]}
    )
    made = {v.name: derived(base, v) for v in variations(base)}
    ratio, reference = made["wukong-ratio-0.005"], made["wukong-reference"]
    assert ratio.reference.network.name == reference.reference.network.name == "wukong"
    assert ratio.distill.inner.networks == []
    assert reference_uri(ratio, 1) == base.place("benchmark", "references", "wukong", "t=1")
    assert reference_uri(reference, 1) == reference_uri(ratio, 1)
    assert made["dcn-ratio-0.005"].distill.inner.networks == base.distill.inner.networks


@pytest.mark.parametrize(
    "changes",
    [{}, {"memory": {"ratio": RATIO}}, {"distill": {"inner": {"optimizer": "adam"}, "rounds": 2}}],
)
def test_a_run_equal_to_the_base_is_the_base(prepared: Prepared, changes: dict[str, Any]) -> None:
    base = prepared.config()
    assert derived(base, variation_of(base, changes=changes)) == base
    labelled = base.reference.network.model_copy(update={"label": "other name"})
    assert derived(base, variation_of(base, changes=changes, network=labelled)) == base


def test_the_runs_own_network_among_the_references_is_no_second_one(prepared: Prepared) -> None:
    own = prepared.config().reference.network.model_dump() | {"label": "again"}
    config = prepared.config(benchmark={**BENCHMARK, "references": [own, WUKONG]})
    names = [v.name for v in variations(config) if v.study == "transfer"]
    assert names == ["dcn-reference", "wukong-reference"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory": {"kep": 0.0}}, r"the set 'x': memory\.kep: unknown key; did you mean 'keep'"),
        ({"memory": {"keep": 2}}, r"the set 'x': memory\.keep: 2 Input should be less than"),
        ({"models": {"embedding_dim": 8}}, r"ablations\.x\.models: an ablation changes keys of sc"),
        ({"memry": {"keep": 0}}, r"ablations\.x\.memry: an ablation changes keys of scoring, mem"),
    ],
)
def test_an_ablation_that_cannot_be_run_is_refused(
    prepared: Prepared, changes: dict[str, Any], words: str
) -> None:
    base = prepared.config()
    with pytest.raises(ConfigError, match=words):
        derived(base, variation_of(base, changes=changes, variant="x"))

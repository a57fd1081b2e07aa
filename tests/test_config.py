"""The configuration: what is read, what is refused, and in which words."""

from __future__ import annotations

import copy
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from diet_ray.config import (
    ArmConfig,
    ConfigError,
    Interval,
    ProtocolConfig,
    TuningConfig,
    load_config,
    make_config,
)
from diet_ray.config.section import FORMER

CONFIGS = Path(__file__).parents[1] / "configs"

SMALLEST: dict[str, Any] = {
    "output": "results/small",
    "logs": {
        "source": "synthetic",
        "intervals": {
            "historical": ["2024-01-01..2024-01-02", "2024-01-03"],
            "subsequent": "2024-01-04",
            "validation": "2024-01-05",
            "test": "2024-01-06..2024-01-07",
        },
    },
}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a tree (or text) to a file and returns its path."""

    def _write(content: Any) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(path)

    return _write


def changed(path: str, value: Any) -> dict[str, Any]:
    """The smallest tree with one key set."""
    tree = copy.deepcopy(SMALLEST)
    *parents, leaf = path.split(".")
    place = tree
    for parent in parents:
        place = place.setdefault(parent, {})
    place[leaf] = value
    return tree


def refusal(uri: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(uri, overrides)
    return str(caught.value)


def test_a_configuration_survives_being_written_and_read(write: Any) -> None:
    config = load_config(write(SMALLEST), ["memory.ratio=0.02", "resources.scoring_workers=[2, 3]"])
    again = load_config(write(config.model_dump(mode="json")))
    assert again == config
    assert again.memory.ratio == 0.02
    assert again.resources.scoring_workers == (2, 3)


def test_a_configuration_comes_in_any_form(write: Any) -> None:
    uri = write(SMALLEST)
    config = load_config(uri, ["search.trials=3"])
    for given in (load_config(uri), SMALLEST, uri, Path(uri)):
        before = copy.deepcopy(given)
        assert make_config(given, {"search.trials": 3}) == config
        assert given == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"search.trialls": 3}, "search.trialls: unknown key; did you mean 'trials'?"),
        ({"search.trials": 0}, "search.trials: 0 Input should be greater than 0"),
        ({"output.trials": 0}, "output.trials: output is a value, not a group of keys"),
    ],
)
def test_a_change_is_validated_in_every_form(
    write: Any, changes: dict[str, Any], told: str
) -> None:
    uri = write(SMALLEST)
    for given in (load_config(uri), SMALLEST, uri):
        with pytest.raises(ConfigError, match=re.escape(told)):
            make_config(given, changes)


def test_only_a_sweep_on_a_named_set_does_without_logs(write: Any) -> None:
    config = load_config(write({"output": "x", "search": {"distilled": "some/set"}}))
    with pytest.raises(ConfigError, match=r"^logs: required: say where the raw log comes from"):
        config.raw_logs  # noqa: B018
    with pytest.raises(ConfigError, match="logs: required"):
        make_config(config, {"search.distilled": None})
    given = load_config(write(SMALLEST))
    assert given.raw_logs is given.logs


def test_unseen_rows_need_anchors(write: Any) -> None:
    with pytest.raises(ConfigError, match=r"memory\.anchored"):
        load_config(write(SMALLEST), ["memory.anchored=false"])
    seen = ["distill.unseen=false", "memory.anchored=false"]
    assert not load_config(write(SMALLEST), seen).memory.anchored


def test_it_cannot_be_changed_afterwards(write: Any) -> None:
    config = load_config(write(SMALLEST))
    with pytest.raises(ValueError, match="frozen"):
        config.memory.ratio = 0.5


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("memory.ratio=0.25", lambda c: c.memory.ratio == 0.25),
        ("output=s3://bucket/a=b", lambda c: c.output == "s3://bucket/a=b"),
        ("logs.tasks=[click, like]", lambda c: c.logs.tasks == ["click", "like"]),
        ("logs.tasks=null", lambda c: c.logs.tasks is None),
        ("resources.cluster_limit.CPU=64", lambda c: c.resources.cluster_limit == {"CPU": 64}),
        (
            "resources.cluster_limit={CPU: 64, GPU: 8}",
            lambda c: c.resources.cluster_limit == {"CPU": 64, "GPU": 8},
        ),
        ("distill.inner.steps=40", lambda c: c.distill.inner.steps == 40),
        ("reference.network={name: wukong}", lambda c: c.reference.network.name == "wukong"),
    ],
)
def test_an_override_is_a_path_and_a_yaml_value(write: Any, override: str, read: Any) -> None:
    assert read(load_config(write(SMALLEST), [override]))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("memory.ratio", "--set memory.ratio: expected key.path=value"),
        ("output.folder=x", "--set output.folder=x: output is a value, not a group of keys"),
        ("logs.tasks=[a", "--set logs.tasks=[a: the value is not valid YAML: expected ',' or ']'"),
        ("seed=" + "9" * 5_000, "the value is not valid YAML: Exceeds the limit"),
        ("seed=" + "[" * 5_000, "the value is not valid YAML: maximum recursion depth"),
        ("seed=0x" + "f" * 5_000, "seed: int, too large to show Input should be less than"),
        ("seed=!!timestamp x", "seed=!!timestamp x: the value is not valid YAML"),
        ("logs.intervals.test=2024-13-45", "not valid YAML: month must be in 1..12; correct it"),
        ("logs.intervals.test=9999-12-31", "'9999-12-31' is not an interval"),
        (
            "resources.cluster_limit={CPU: 1, CPU: 2}",
            "--set resources.cluster_limit={CPU: 1, CPU: 2}:1: CPU: stands there twice",
        ),
    ],
)
def test_an_override_that_cannot_be_read(write: Any, override: str, words: str) -> None:
    message = refusal(write(SMALLEST), override)
    assert words in message
    assert len(message) < 2_000


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("seed: 2024-13-45", "not valid YAML: month must be in 1..12"),
        ("seed: " + "9" * 5_000, "not valid YAML: Exceeds the limit"),
        ("seed: " + "[" * 5_000, "not valid YAML"),
        ("seed: {[a]: 1}", "not valid YAML: found unhashable key"),
        ("seed: !!bool 3", "not valid YAML"),
        ("2024-01-01: 3", "Keys should be strings"),
    ],
)
def test_a_file_that_cannot_be_read(write: Any, line: str, words: str) -> None:
    message = refusal(write(yaml.safe_dump(SMALLEST) + line + "\n"))
    assert "run.yaml" in message
    assert words in message
    assert len(message) < 2_000


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("outptu", "output"),
        ("memory.ratoi", "ratio"),
        ("distill.inner.learnin_rate", "learning_rate"),
        ("logs.intervals.historic", "historical"),
        ("logs.table.time_colum", "time_column"),
        ("reference.network.nam", "name"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(write: Any, key: str, nearest: str) -> None:
    message = refusal(write(changed(key, 1)))
    assert f": {key}: unknown key; did you mean {nearest!r}?" in message


def test_an_unknown_key_in_a_list_names_the_nearest_known_one(write: Any) -> None:
    message = refusal(write(changed("evaluation.candidates", [{"name": "dcn", "labl": "big"}])))
    assert "evaluation.candidates.0.labl: unknown key; did you mean 'label'?" in message


@pytest.mark.parametrize(("key", "now"), FORMER.items())
def test_a_key_of_an_earlier_version_names_what_it_is_now(write: Any, key: str, now: str) -> None:
    told = f": {key}: unknown key, of an earlier version; now it is {now!r}"
    assert told in refusal(write(changed(key, 1)))
    assert f" {now}: unknown key" not in refusal(write(changed(now, "no such value")))


def test_an_unknown_key_like_no_other_lists_the_known_ones(write: Any) -> None:
    assert "unknown key; known here: ratio, keep," in refusal(write(changed("memory.zzz", 1)))


def test_several_mistakes_are_told_at_once(write: Any) -> None:
    message = refusal(write(SMALLEST), "memory.ratio=2", "memroy=1", "seed=one")
    assert len(message.splitlines()) == 3
    assert "memory.ratio: 2 Input should be less than or equal to 1" in message


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2022-04-25..2022-04-27", "2022-04-25", "2022-04-28"),
        ("2022-04-25", "2022-04-25", "2022-04-26"),
        ("2022-04-25T00:00..2022-04-25T12:00", "2022-04-25", "2022-04-25T12:00"),
        ("2022-04-25..2022-04-26T00:00", "2022-04-25", "2022-04-26"),
        ("2022-04-25..2022-04-26 00:00", "2022-04-25", "2022-04-26"),
    ],
)
def test_the_forms_of_an_interval(text: str, start: str, end: str) -> None:
    interval = Interval.model_validate(text)
    assert interval.start == datetime.fromisoformat(start)
    assert interval.end == datetime.fromisoformat(end)


def test_a_date_that_yaml_has_read_is_one_day(write: Any) -> None:
    config = load_config(write(SMALLEST), ["logs.intervals.subsequent=2024-01-04"])
    assert config.logs.intervals.subsequent == Interval.model_validate("2024-01-04")


def test_bounds_are_in_the_logs_own_time_zone() -> None:
    interval = Interval.model_validate("2022-04-25")
    utc, shanghai = interval.bounds_ms("UTC"), interval.bounds_ms("Asia/Shanghai")
    assert utc[1] - utc[0] == 24 * 3_600_000
    assert utc[0] - shanghai[0] == 8 * 3_600_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("April..May", "'April..May' is not an interval; write 2022-04-25..2022-04-27"),
        ("2022-04-25..", "'2022-04-25..' is not an interval"),
        ("..2022-04-25", "'..2022-04-25' is not an interval"),
        ("2022-02-30", "'2022-02-30' is not an interval"),
        ("2022-04-27..2022-04-25", "ends before it starts"),
        ("2022-04-25T00:00+08:00..2022-04-26", "set logs.timezone instead"),
    ],
)
def test_what_is_not_an_interval(write: Any, text: str, words: str) -> None:
    message = refusal(write(changed("logs.intervals.subsequent", text)))
    assert "logs.intervals.subsequent" in message
    assert words in message


@pytest.mark.parametrize(
    ("historical", "subsequent", "words"),
    [
        (["2024-01-01..2024-01-03", "2024-01-03"], "2024-01-04", "historical-2"),
        (["2024-01-03", "2024-01-01"], "2024-01-04", "historical-2"),
        (["2024-01-01"], "2024-01-01", "subsequent"),
    ],
)
def test_overlapping_intervals(
    write: Any, historical: list[str], subsequent: str, words: str
) -> None:
    tree = changed("logs.intervals.historical", historical)
    tree["logs"]["intervals"]["subsequent"] = subsequent
    message = refusal(write(tree))
    assert f"{words} (2024-" in message
    assert "overlaps or precedes historical-1" in message
    assert "time order without overlap" in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["logs.timezone=Asia/Atlantis"], "'Asia/Atlantis' is not a time zone; use a name such as"),
        (["distill.inner.window=200"], "window 200 is longer than the unroll of 140 steps"),
        (["logs.table.delimiter='::'"], "'::' is not one character; write `,`, `;`, `|` or"),
        (["logs.source=kuairand"], "source 'kuairand' needs logs.path"),
        (["logs.source=table", "logs.path=raw"], "source 'table' needs logs.table"),
        (["logs.source=csv"], "logs.source: 'csv' Input should be 'kuairand', 'tmall'"),
        (["resources.scoring_workers=[3, 2]"], "scoring_workers 3, 2: the fewest exceed the most"),
        (["resources.reference_workers=[4, 2]"], "reference_workers 4, 2: the fewest exceed"),
        (["resources.meta_workers=[4, 2]"], "meta_workers 4, 2: the fewest exceed"),
        (["evaluation.candidates=[{name: dcn}, {name: dcn}]"], "give each its own label"),
        (["reference.learning_rate=.inf"], "reference.learning_rate: inf"),
        (["memory.ratio=0"], "memory.ratio: 0 Input should be greater than 0"),
        (["logs.intervals.historical=[]"], "logs.intervals.historical: [] List should have"),
        (["benchmark.references=[{name: dcn}, {name: dcn}]"], "two references are called 'dcn'"),
        (["evaluation.methods=[full, full]"], "evaluation.methods: ['full', 'full'] 'full' stands"),
        (
            ["evaluation.methods=[ful]"],
            "evaluation.methods.0: 'ful' Input should be 'full', 'warm'",
        ),
        (["benchmark.studies=[mian]"], "benchmark.studies.0: 'mian' Input should be 'main', 'fid"),
        (["benchmark.fidelity.arms=[]"], "benchmark.fidelity.arms: [] List should have at least 1"),
        (
            ["benchmark.fidelity.arms=[{method: random, score: acu}]"],
            "benchmark.fidelity.arms.0.score: 'acu' Input should be 'taught', 'auc', 'logloss' or",
        ),
        (
            ["benchmark.fidelity.arms=[{method: random, use: cotrain, protocol: {stepps: 2}}]"],
            "protocol: stepps: unknown key; did you mean 'steps'?",
        ),
        (
            ["benchmark.fidelity.arms=[{method: random, protocol: {epoch: 2}}]"],
            "protocol: epoch: unknown key; did you mean 'epochs'?",
        ),
        (
            ["search.use=inherit", "search.score=taught"],
            "score: taught compares with the reference, whose finished table every candidate of "
            "use: inherit has; set score to auc or logloss",
        ),
        (["search.score=acu"], "search.score: 'acu' Input should be 'taught', 'auc' or 'logloss'"),
        (["search.seeds=2"], "search.seeds: unknown key"),
        (["search.verify=1"], "search.verify: 1 one candidate has no order; name 2 or more"),
        (["benchmark.labels=[firm]"], "benchmark.labels.0: 'firm' Input should be 'soft', 'blend"),
        (["benchmark.tuning.tried=[]"], "nothing to try; [{}] tries the protocol of the check"),
        (["benchmark.tuning.tried_without_warm_up=[]"], "nothing to try; [{}] tries the protocol"),
        (
            ["benchmark.tuning.tried_without_warm_up=[{}, {batch_size: 32, epochs: 3}]"],
            "entry 2: epochs is a key of the warm-up, which is not part of this training; remove "
            "it: batch_size and learning_rate alone count here",
        ),
        (["evaluation.full_protocol={epochs: 3}"], "full_protocol: epochs is a key of the warm-up"),
        (["benchmark.tuning.tried=[{}, {epochs: 0}]"], "entry 2: epochs: 0.0 Input should be"),
        (
            [
                "reference.network={name: dcn}",
                "distill.inner.networks=[{name: dcn}, {name: wukong}]",
                "distill.inner.start=previous_reference",
            ],
            "start 'previous_reference' takes the reference's parameters, which do not fit wukong",
        ),
        (
            [
                "distill.inner.networks=[{name: dcn, parameters: {num_cross_layers: 1}}]",
                "distill.inner.start=mixed",
            ],
            "set it to fresh, or let networks name reference.network alone",
        ),
    ],
)
def test_values_that_cannot_be_run(write: Any, overrides: list[str], words: str) -> None:
    assert words in refusal(write(SMALLEST), *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["networks=[{name: wukong}, {name: dcn}]", "start=fresh"],
        ["networks=[{name: dcn, label: the reference's}]", "start=mixed"],
    ],
)
def test_proxies_of_their_own(write: Any, overrides: list[str]) -> None:
    given = [f"distill.inner.{override}" for override in overrides]
    config = load_config(write(SMALLEST), ["reference.network={name: dcn}", *given])
    assert config.distill.inner.networks


def test_an_unknown_key_of_a_tried_protocol_names_the_nearest(write: Any) -> None:
    message = refusal(write(SMALLEST), "benchmark.tuning.tried=[{}, {learning_rates: 0.01}]")
    assert "benchmark.tuning.tried: [{}, {'learning_rates': 0.01}] entry 2: " in message
    assert message.endswith("learning_rates: unknown key; did you mean 'learning_rate'?")


def test_tried_keys_take_the_protocols_types(write: Any) -> None:
    tuning = "benchmark.tuning.tried=[{epochs: 4, learning_rate: 1}]"
    (keys,) = load_config(write(SMALLEST), [tuning]).benchmark.tuning.tried
    changed = ProtocolConfig(batch_size=7).changed(keys)
    assert changed == ProtocolConfig(batch_size=7, epochs=4, learning_rate=1.0)
    assert isinstance(changed.epochs, int)


@pytest.mark.parametrize(
    ("keys", "title"),
    [
        ({"method": "prefix", "share": 0.05}, "prefix 5%"),
        ({"method": "random", "labels": "hard", "ratio": 0.015}, "random 1.5% hard"),
        ({"method": "distilled", "use": "cotrain"}, "distilled co-trained"),
        (
            {"method": "random", "use": "cotrain", "protocol": {"steps": 2.0}},
            "random co-trained steps=2",
        ),
        (
            {"method": "random", "use": "cotrain", "score": "taught"},
            "random co-trained by soft labels",
        ),
        ({"method": "warm", "score": "logloss"}, "warm by LogLoss"),
        ({"method": "prefix", "share": 0.05, "score": "progressive"}, "prefix 5% by its loss"),
        ({"method": "random", "seeds": 3, "label": "ours"}, "ours"),
    ],
)
def test_an_arm_is_called_by_what_it_changes(keys: dict[str, Any], title: str) -> None:
    assert ArmConfig.model_validate(keys).title == title


@pytest.mark.parametrize(("use", "key"), [("cotrain", "steps"), ("inherit", "epochs")])
def test_an_arms_keys_take_their_protocols_types(use: Any, key: str) -> None:
    protocol = ArmConfig(method="random", use=use, protocol={key: 2.0}).protocol
    assert isinstance(protocol[key], int)


def test_without_a_warm_up_the_keys_of_real_blocks_are_tried() -> None:
    tried = [{"epochs": 4, "batch_size": 32}, {"epochs": 8}]
    tuning = TuningConfig(tried=tried)
    assert tuning.of(warms_up=True) == tried
    assert tuning.of(warms_up=False) == [{"batch_size": 32}, {}]
    tuning = TuningConfig(tried=tried, tried_without_warm_up=[{"learning_rate": 0.1}])
    assert tuning.of(warms_up=True) == tried
    assert tuning.of(warms_up=False) == [{"learning_rate": 0.1}]


def test_an_absent_file_points_at_the_examples(tmp_path: Path) -> None:
    uri = str(tmp_path / "absent.yaml")
    assert refusal(uri) == f"{uri}: no such file; see configs/ for examples"


def test_a_folder_is_not_a_configuration(tmp_path: Path) -> None:
    assert f"{tmp_path}: cannot be read" in refusal(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("output: [a", "not valid YAML"),
        ("- a\n- b", "expected a mapping of keys, found list"),
        ("", "expected a mapping of keys, found NoneType"),
        ("output: a", "logs: required: say where the raw log comes from"),
    ],
)
def test_a_file_that_is_not_a_configuration(write: Any, text: str, words: str) -> None:
    uri = write(text)
    message = refusal(uri)
    assert message.startswith(uri)
    assert words in message


def test_what_determines_a_result_leaves_out_where_and_how_wide(write: Any) -> None:
    narrow = load_config(write(SMALLEST))
    wide = load_config(write(SMALLEST), ["output=elsewhere", "name=x", "resources.meta_workers=9"])
    assert narrow.determining() == wide.determining()
    assert not {"output", "resources", "name"} & narrow.determining().keys()
    assert narrow.determining() != load_config(write(SMALLEST), ["seed=1"]).determining()
    assert list(narrow.determining("memory", "seed")) == ["memory", "seed"]


def test_where_the_reference_lies_determines_nothing(write: Any) -> None:
    own = load_config(write(SMALLEST))
    shared = load_config(write(SMALLEST), ["reference.folder=results/phi"])
    assert shared.determining() == own.determining()
    assert shared.reference.folder == str(Path("results/phi").absolute())
    remote = load_config(write(SMALLEST), ["reference.folder=s3://bucket/phi"])
    assert remote.reference.folder == "s3://bucket/phi"


def test_blocks_are_named_in_stream_order(write: Any) -> None:
    named = load_config(write(SMALLEST)).logs.intervals.named()
    names = [name for name, _ in named]
    assert names == ["historical-1", "historical-2", "subsequent", "validation", "test"]
    assert [i.start for _, i in named] == sorted(i.start for _, i in named)


@pytest.mark.parametrize("name", ["kuairand_pure", "kuairand_1k", "tmall", "taobao"])
def test_the_papers_recipe_is_judged_like_ours(name: str) -> None:
    """Only the recipe differs."""
    ours, papers = (load_config(str(CONFIGS / f"{name}{end}.yaml")) for end in ("", "_paper"))
    same = ["seed", "threads", "logs", "models", "reference", "scoring", "evaluation"]
    assert ours.determining(*same) == papers.determining(*same)
    assert ours.benchmark.tuning == papers.benchmark.tuning
    assert ours.memory.ratio == papers.memory.ratio
    assert (ours.name, papers.name) == (name, f"{name}_paper")


def test_an_error_names_the_line_of_its_key(write: Any) -> None:
    uri = write("output: x\nevaluation:\n  seeds: 0\nlogs:\n  source: synthetic\n  sources: 2\n")
    lines = refusal(uri).splitlines()
    assert {line.partition(" ")[0] for line in lines} == {f"{uri}:{n}:" for n in (3, 4, 6)}

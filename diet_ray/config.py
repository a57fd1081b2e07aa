"""The run's typed configuration: YAML in, a validated tree out, every key documented once.

Protocol: a job calls :func:`load_config` with a YAML file (any URI) and ``key.path=value``
overrides. Everything is checked there, before any long work starts; the rest of the code
trusts what it gets. An unknown key is an error that names the nearest known one.

Two kinds of keys exist. ``name`` calls the run something, ``output`` and ``reference.folder`` say
where things lie, ``resources`` how many processes do the work: none of these changes a result,
with one exception: several data-parallel workers of the reference take the same steps as one, but
add a batch's gradients in another order. Everything else determines the result, bit for bit, and
is written into the artifacts.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import typing
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from diet_ray import storage
from diet_ray.errors import UserError

Fraction = Annotated[float, Field(gt=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class ConfigError(UserError, ValueError):
    """A configuration that cannot be run; the message names file, key, value and remedy."""


class Section(BaseModel):
    """A group of keys; unknown ones are refused, values are not coerced silently later on."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _end_of(text: str) -> datetime:
    """The end that a bare date (through that day) or a date with a clock time (exclusive) means."""
    try:
        return datetime.combine(date.fromisoformat(text), time(0)) + timedelta(days=1)
    except ValueError:
        return datetime.fromisoformat(text)


class Interval(BaseModel):
    """A half-open time interval in the log's own time zone, written ``2022-04-25..2022-04-27``.

    A bare date as the end means *through* that day; an end with a clock time is exclusive.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    start: datetime
    end: datetime

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, date):
            value = value.isoformat()
        if not isinstance(value, str):
            return value
        first, separator, second = value.partition("..")
        try:
            end = _end_of(second if separator else first)
            return {"start": datetime.fromisoformat(first), "end": end}
        except ValueError:
            raise ValueError(
                f"{value!r} is not an interval; write 2022-04-25..2022-04-27, one date, "
                "or 2022-04-25T00:00..2022-04-25T12:00"
            ) from None

    @model_validator(mode="after")
    def _not_empty(self) -> Interval:
        if self.start.tzinfo or self.end.tzinfo:
            raise ValueError(f"the interval {self} has an offset; set logs.timezone instead")
        if self.start >= self.end:
            raise ValueError(f"the interval {self} ends before it starts")
        return self

    def bounds_ms(self, timezone: str) -> tuple[int, int]:
        """First and one-past-last millisecond since the epoch."""
        zone = ZoneInfo(timezone)
        start, end = (
            round(t.replace(tzinfo=zone).timestamp() * 1000) for t in (self.start, self.end)
        )
        return start, end

    def __str__(self) -> str:
        return f"{self.start.isoformat()}..{self.end.isoformat()}"


class IntervalsConfig(Section):
    historical: Annotated[list[Interval], Field(min_length=1)]
    """Blocks D_1..D_T that are distilled, oldest first."""
    subsequent: Interval
    """The block on which a candidate is trained for one epoch after its warm-up."""
    validation: Interval
    """Chooses a candidate's warm-up epoch; never trained on."""
    test: Interval
    """Judges; never used to choose anything."""

    def named(self) -> list[tuple[str, Interval]]:
        """Block name and interval in stream order; historical ones are ``historical-1``.."""
        blocks = [(f"historical-{t}", i) for t, i in enumerate(self.historical, start=1)]
        return [
            *blocks,
            ("subsequent", self.subsequent),
            ("validation", self.validation),
            ("test", self.test),
        ]

    @model_validator(mode="after")
    def _in_time_order(self) -> IntervalsConfig:
        named = self.named()
        for (before, a), (after, b) in itertools.pairwise(named):
            if b.start < a.end:
                raise ValueError(
                    f"{after} ({b}) overlaps or precedes {before} ({a}); give the intervals in "
                    "time order without overlap"
                )
        return self


class TableConfig(Section):
    format: Literal["parquet", "csv"] = "parquet"
    """File format of the files below `logs.path`."""
    time_column: str
    """Column that holds the time of the interaction."""
    time_unit: str = "ms"
    """`s`, `ms`, `us`, `ns` since the epoch, or a strptime pattern such as `%Y-%m-%d %H:%M:%S`."""
    fields: Annotated[list[str], Field(min_length=1)]
    """Columns that are features; each becomes one categorical field."""
    tasks: Annotated[dict[str, str], Field(min_length=1)]
    """Task name to a 0/1 column, or to an expression such as `rating >= 4`."""
    feedback: list[str] = []
    """Columns known only after the interaction; naming one as a field is refused."""


class SyntheticConfig(Section):
    rows: PositiveInt = 120_000
    """Rows of the whole log; row i is a pure function of (seed, i)."""
    users: PositiveInt = 2_000
    items: PositiveInt = 1_500
    categories: PositiveInt = 20
    latent_dim: PositiveInt = 6
    """Width of the planted user and item vectors."""
    days: PositiveInt = 7
    """The log spans this many days from `start`, rows evenly in time."""
    start: date = date(2024, 1, 1)
    drift: Annotated[float, Field(ge=0)] = 0.5
    """How far (radians) a user's taste turns over the log; 0 keeps it still."""
    rows_per_part: PositiveInt = 32_768
    """Rows that one task generates at a time."""


class LogsConfig(Section):
    source: Literal["kuairand", "tmall", "taobao", "table", "synthetic"]
    """Where the raw log comes from."""
    path: str | None = None
    """Folder of the raw files (any URI); not used by `synthetic`."""
    intervals: IntervalsConfig
    timezone: str = "UTC"
    """Time zone in which the intervals are meant."""
    fields: list[str] | None = None
    """Features to keep, in this order; default: all that the source offers."""
    tasks: list[str] | None = None
    """Tasks to keep, in this order; default: all that the source offers."""
    hash_buckets: dict[str, PositiveInt] = {}
    """Fields encoded as 1 + hash(value) mod buckets instead of by a vocabulary."""
    fragment_rows: PositiveInt = 1_000_000
    """Rows per Parquet file, the unit of a scan."""
    row_group_rows: PositiveInt = 65_536
    """Rows per Parquet row group."""
    bad_rows_limit: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Share of unusable rows (quarantined, counted) above which the job stops."""
    table: TableConfig | None = None
    """Schema of a `table` source."""
    synthetic: SyntheticConfig = SyntheticConfig()

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(
                f"{value!r} is not a time zone; use a name such as Asia/Shanghai"
            ) from None
        return value

    @model_validator(mode="after")
    def _source_is_described(self) -> LogsConfig:
        if self.source != "synthetic" and not self.path:
            raise ValueError(f"source {self.source!r} needs logs.path, the folder of its raw files")
        if self.source == "table" and self.table is None:
            raise ValueError("source 'table' needs logs.table (time_column, fields, tasks)")
        return self


class NetworkConfig(Section):
    name: str
    """A registered network, or `package.module:Class` for one of your own (`diet_ray/models`)."""
    parameters: dict[str, Any] = {}
    """Its hyper-parameters; checked against the network's own typed list."""
    label: str | None = None
    """How tables name it; default: `name`. Needed when one network stands in two sizes."""

    @property
    def title(self) -> str:
        return self.label or self.name

    def same_as(self, other: NetworkConfig) -> bool:
        """Whether both are the same network, whatever they are called."""
        return (self.name, self.parameters) == (other.name, other.parameters)


class MMoEConfig(Section):
    experts: PositiveInt = 8
    expert_units: Annotated[list[PositiveInt], Field(min_length=1)] = [512, 256, 128]
    gate_units: list[PositiveInt] = [128, 64]
    tower_units: list[PositiveInt] = [128, 64]


class ModelsConfig(Section):
    embedding_dim: PositiveInt = 16
    """d: width of every field's vector, shared by the reference and all candidates."""
    embedding_std: PositiveFloat = 0.01
    """Standard deviation of a fresh embedding."""
    mmoe: MMoEConfig = MMoEConfig()


class ReferenceConfig(Section):
    folder: str | None = None
    """Folder (any URI) of a reference that another run trained with the same settings on the same
    blocks; default: `reference` below `output`. What is missing is trained and published there."""
    network: NetworkConfig = NetworkConfig(name="dcn")
    batch_size: PositiveInt = 512
    """Rows per step, over all workers together."""
    learning_rate: PositiveFloat = 1e-3
    """Adam's; one epoch per block."""

    @field_validator("folder")
    @classmethod
    def _same_place_in_every_process(cls, value: str | None) -> str | None:
        return None if value is None else storage.absolute(value)


class ScoringConfig(Section):
    batch_rows: PositiveInt = 8_192
    """Rows per forward or JVP pass of a scoring actor."""
    sketch_k: Annotated[int, Field(ge=8, le=65_535)] = 400
    """Size of the KLL quantile sketches; larger brackets a band more tightly (the cut is exact)."""


class MemoryConfig(Section):
    ratio: Fraction = 0.015
    """Synthetic rows over historical rows."""
    keep: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of the previous memory that fusion keeps; the rest makes place for new rows."""
    new_rows: Literal["boundary", "random"] = "boundary"
    """Which rows of a block become new synthetic rows: the EL2N band of each label group (the
    paper's), or rows drawn at random."""
    percentile: Annotated[float, Field(gt=0, lt=100)] = 90
    """Centre of the EL2N band from which new rows are taken, within each label group."""
    group_alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """A label group's share is proportional to |group|^alpha: 1 proportional, 0 uniform."""
    truth_blend: Annotated[float, Field(ge=0, lt=1)] = 0
    """Share of a row's own labels in the soft labels it starts from; the paper's is 0."""
    anchored: bool = False
    """Kept rows move along with the reference: what phi_t changed of their source row is added to
    them. The paper leaves them in the space of the stage that made them."""


class InnerConfig(Section):
    networks: list[NetworkConfig] = []
    """Networks that the proxy takes by turns from shard to shard, so that the rows serve them all;
    the first one is the proxy of fusion and addressing. Empty: the reference's."""
    start: Literal["previous_reference", "fresh", "mixed"] = "previous_reference"
    """theta_0 of the proxy: phi_{t-1}'s dense network (fresh at t = 1), a freshly initialised one,
    or the two by turns from shard to shard. Networks other than the reference's start `fresh`."""
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    batch_size: PositiveInt = 128
    steps: PositiveInt = 100
    """N: the longest unroll."""
    window: PositiveInt = 20
    """W: only the last W steps are differentiated (RaT-BPTT)."""

    @model_validator(mode="after")
    def _window_fits(self) -> InnerConfig:
        if self.window > self.steps:
            raise ValueError(
                f"window {self.window} is longer than the unroll of {self.steps} steps"
            )
        return self


class OuterConfig(Section):
    embedding_step: PositiveFloat = 0.15
    """Adam step of the embeddings in units of the reference table's standard deviation."""
    label_step: PositiveFloat = 0.03
    """Adam step of the soft labels, in logits."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Over all outer steps of a stage."""
    clip: PositiveFloat = 2.0
    """The meta-gradient's norm is clipped at this multiple of its exponential mean."""
    clip_memory: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of that mean."""


class DistillConfig(Section):
    rounds: PositiveInt = 2
    """Addressing (hard targets, active memory) is renewed this often per stage."""
    outer_steps: PositiveInt = 30
    """M: meta-gradient steps per round."""
    candidate_fraction: Fraction = 1.0
    """Share of the block that is looked at for hard targets, drawn anew each round."""
    hard_fraction: Fraction = 0.1
    """Share of those candidates, the least aligned, that become hard targets; 1 takes them all."""
    active_fraction: Fraction = 0.5
    """Share of the memory, the most responsible, that is updated; 1 takes it all."""
    target_batch: PositiveInt = 1_024
    """Real rows in one shard's outer loss."""
    logical_shards: PositiveInt = 2
    """G: independent meta-gradients averaged in one outer step."""
    unseen: bool = False
    """From stage 2 on, rows are embedded by phi_{t-1}, which has not trained on them, as candidates
    meet new rows; else by phi_t (the paper's). The artifact is in phi_t's space either way."""
    commit_every: PositiveInt = 10
    """Outer steps between two durable states of the memory."""
    inner: InnerConfig = InnerConfig()
    outer: OuterConfig = OuterConfig()


class ProtocolConfig(Section):
    """How a candidate is trained."""

    batch_size: PositiveInt = 512
    """Rows per step on real blocks."""
    learning_rate: PositiveFloat = 1e-3
    """Adam's on real blocks; one epoch."""
    warm_up_batch_size: PositiveInt = 128
    """Rows per step on a reduced set; smaller, or a few thousand rows give too few steps."""
    warm_up_learning_rate: PositiveFloat = 1e-3
    """Adam's on a reduced set."""
    epochs: PositiveInt = 8
    """Longest warm-up on a reduced set; the best epoch on validation counts."""

    @staticmethod
    def changes(keys: dict[str, float]) -> dict[str, Any]:
        """Some keys, checked, with their types. Raises pydantic's ValidationError."""
        return ProtocolConfig.model_validate(keys).model_dump(include=set(keys))


class EvaluationConfig(Section):
    candidates: Annotated[list[NetworkConfig], Field(min_length=1)] = [
        NetworkConfig(name="dcn"),
        NetworkConfig(name="wukong"),
    ]
    seeds: PositiveInt = 3
    """Each cell of the table is the mean over this many independent trainings."""
    protocol: ProtocolConfig = ProtocolConfig()

    @model_validator(mode="after")
    def _titles_differ(self) -> EvaluationConfig:
        _refuse_equal_titles("candidates", self.candidates)
        return self


def _refuse_equal_titles(what: str, networks: list[NetworkConfig]) -> None:
    titles = [network.title for network in networks]
    for title in titles:
        if titles.count(title) > 1:
            raise ValueError(f"two {what} are called {title!r}; give each its own label")


class TuningConfig(Section):
    """Every method's protocol is chosen on validation, each method from the same list."""

    tried: list[dict[str, float]] = [{}]
    """Keys of `evaluation.protocol` to try in its place, such as `{learning_rate: 0.002}`; `{}` is
    the protocol itself."""
    seeds: PositiveInt = 1
    """Trainings per candidate and tried protocol; their seeds are not among those judged."""

    @field_validator("tried")
    @classmethod
    def _protocols(cls, value: list[dict[str, float]]) -> list[dict[str, float]]:
        if not value:
            raise ValueError("nothing to try; [{}] tries evaluation.protocol alone")
        for number, keys in enumerate(value, start=1):
            try:
                ProtocolConfig.changes(keys)
            except ValidationError as error:
                raise ValueError(
                    describe_errors(error, ProtocolConfig, f"entry {number}")
                ) from None
        return value


Study = Literal["main", "fidelity", "ratio", "ablation", "transfer", "cost"]


class BenchmarkConfig(Section):
    """The paper's tables and figures (`jobs/benchmark.py`)."""

    studies: list[Study] = ["main", "fidelity", "ratio", "ablation", "transfer", "cost"]
    """main: Table 3; fidelity: Figure 1; ratio: Figure 3; ablation: Table 4; transfer: other
    references; cost: Table 5."""
    methods: Annotated[list[str], Field(min_length=1)] = [
        "full",
        "cold",
        "warm",
        "random",
        "kmeans",
        "el2n",
        "distilled",
    ]
    labels: Annotated[list[Literal["soft", "blended", "hard"]], Field(min_length=1)] = [
        "soft",
        "hard",
    ]
    """Labels of the selected rows in the main study: the reference's, those blended with the truth
    by `memory.truth_blend`, or the truth. Soft ones in all other studies."""
    seeds: PositiveInt = 10
    """Of candidates and selections, in the main study."""
    tuning: TuningConfig = TuningConfig()
    percentile: Annotated[float, Field(gt=0, lt=100)] = 90
    """Centre of the band of EL2N scores that the method `el2n` selects, per block."""
    settings: list[NetworkConfig] = []
    """More candidates, beside `evaluation.candidates`, in the fidelity study."""
    fidelity_seeds: PositiveInt = 4
    ratios: list[Fraction] = [0.001, 0.005, 0.015, 0.05]
    """Of the ratio study."""
    references: list[NetworkConfig] = []
    """Reference networks of the transfer and ratio studies, beside the run's own."""
    study_seeds: PositiveInt = 3
    """Of the ratio, ablation and transfer studies."""
    ablations: dict[str, dict[str, dict[str, Any]]] = {
        "no-fusion": {"memory": {"keep": 0.0}},
        "no-target-selection": {"distill": {"hard_fraction": 1.0}},
        "no-memory-selection": {"distill": {"active_fraction": 1.0}},
        "none": {
            "memory": {"keep": 0.0},
            "distill": {"hard_fraction": 1.0, "active_fraction": 1.0},
        },
    }
    """Name to the keys that switch a part of the recipe off."""

    @model_validator(mode="after")
    def _titles_differ(self) -> BenchmarkConfig:
        _refuse_equal_titles("references", self.references)
        return self


class SearchConfig(Section):
    space: dict[str, dict[str, list[Any]]] = {"dcn": {}, "wukong": {}}
    """Network name to hyper-parameter to the values tried."""
    trials: PositiveInt = 8
    """Candidates drawn from the space without repetition."""


class ResourcesConfig(Section):
    scoring_actors: tuple[PositiveInt, PositiveInt] = (1, 2)
    """Fewest and most scoring actors; the pool scales between them."""
    scoring_cpus: PositiveFloat = 0.4
    """CPUs of one scoring actor; under half, since scoring and meta-workers take turns on a core
    and the memory's servers need a little."""
    scoring_gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs of one scoring actor."""
    reference_workers: Annotated[int, Field(ge=0)] = 0
    """Data-parallel workers of the reference; 0 trains in the driver's process."""
    reference_gpu: bool = False
    meta_workers: PositiveInt = 2
    """Actors that compute meta-gradients."""
    meta_worker_cpus: PositiveFloat = 0.5
    meta_worker_gpus: Annotated[float, Field(ge=0)] = 0
    memory_servers: PositiveInt = 1
    """Parameter-server actors, each with a range of memory rows."""
    memory_server_cpus: PositiveFloat = 0.1
    evaluation_tasks: PositiveInt = 2
    """Candidate trainings that run side by side."""
    cluster_limit: dict[str, float] = {}
    """What an elastic cluster can grow to, such as `{CPU: 64, GPU: 8}`; empty for a fixed one."""

    @model_validator(mode="after")
    def _pool_is_ordered(self) -> ResourcesConfig:
        low, high = self.scoring_actors
        if low > high:
            raise ValueError(f"scoring_actors {low}, {high}: the fewest exceed the most")
        return self


class RunConfig(Section):
    """One run: from raw logs to a distilled set and its check."""

    name: str = "run"
    """Shown in logs and reports."""
    seed: int = 0
    """Every random draw is derived from it."""
    threads: PositiveInt = 1
    """Torch threads of every worker; a fixed number, since sums depend on it in the last bits."""
    output: str
    """Folder (any URI) for everything the run writes. A relative one is taken from where the job
    starts, which under `ray job submit` is a copy of the working folder: name an absolute one."""
    logs: LogsConfig
    models: ModelsConfig = ModelsConfig()
    reference: ReferenceConfig = ReferenceConfig()
    scoring: ScoringConfig = ScoringConfig()
    memory: MemoryConfig = MemoryConfig()
    distill: DistillConfig = DistillConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    benchmark: BenchmarkConfig = BenchmarkConfig()
    search: SearchConfig = SearchConfig()
    resources: ResourcesConfig = ResourcesConfig()

    @field_validator("output")
    @classmethod
    def _same_place_in_every_process(cls, value: str) -> str:
        return storage.absolute(value)

    @model_validator(mode="after")
    def _unseen_rows_have_anchors(self) -> RunConfig:
        if self.distill.unseen and not self.memory.anchored:
            raise ValueError("distill.unseen moves rows by their anchors; set memory.anchored too")
        return self

    @model_validator(mode="after")
    def _only_the_references_network_inherits(self) -> RunConfig:
        inner = self.distill.inner
        others = [n.title for n in inner.networks if not n.same_as(self.reference.network)]
        if others and inner.start != "fresh":
            raise ValueError(
                f"distill.inner.start {inner.start!r} takes the reference's parameters, which do "
                f"not fit {', '.join(others)} of distill.inner.networks; set it to fresh, or let "
                "networks name reference.network alone"
            )
        return self

    def place(self, *parts: str) -> str:
        """URI of something below `output`."""
        return storage.join(self.output, *parts)

    def determining(self, *sections: str) -> dict[str, Any]:
        """The keys of `sections` (default: all) that determine the result, as plain JSON."""
        tree = self.model_dump(mode="json", exclude={"output", "resources", "name"})
        del tree["reference"]["folder"]
        return {key: tree[key] for key in sections} if sections else tree


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


def describe_errors(error: ValidationError, schema: type[BaseModel], where: str) -> str:
    """A validation error as lines that name file, key, value and remedy."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: {key}: unknown key{_nearest(schema, problem['loc'])}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(problem["input"], dict | Section) else f" {problem['input']!r}"
            lines.append(f"{where}: {key}:{shown} {message}".replace(":  ", ": "))
    return "\n".join(lines)


def _nearest(schema: type[BaseModel], location: tuple[int | str, ...]) -> str:
    for part in location[:-1]:
        if isinstance(part, str) and part in schema.model_fields:
            inner = _section_in(schema.model_fields[part].annotation)
            schema = inner or schema
    known = list(schema.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}"


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_section_in(argument) for argument in typing.get_args(annotation))
    return next((section for section in inner if section is not None), None)


def describe_keys(schema: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """One line per key: path, default, meaning."""
    lines = []
    for name, field in schema.model_fields.items():
        section = _section_in(field.annotation)
        if section is not None and issubclass(section, Section) and section is not NetworkConfig:
            lines += describe_keys(section, f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else field.default
        if isinstance(default, BaseModel):
            default = default.model_dump(exclude_defaults=True)
        lines.append(f"{prefix}{name} = {default}  {field.description or ''}".rstrip())
    return lines


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

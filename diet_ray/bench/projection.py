"""What a run of the largest size would take, on paper: pure arithmetic on stated constants.

A phase on a process takes the longest of reading its rows, computing them and exchanging them.
Nothing here is measured; `Cluster.reached` is the share of a GPU's peak that small dense networks
are taken to reach, and every hour is in proportion to it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from diet_ray.bench.measure import Figure, Found, Measure, Needs, size

FLOAT, ID, LABEL, COUNT = 4, 4, 1, 8  # bytes
ENCODED = 12  # bytes of an id's hash and number
HOUR = 3_600.0
BITS = 8  # in a byte


@dataclass(frozen=True)
class Log:
    """The log and the recipe."""

    blocks: int = 5
    rows_per_block: float = 1e9
    ids: float = 130e6
    fields: int = 40
    tasks: int = 3
    embedding_dim: int = 32
    dense_parameters: float = 10e6
    ratio: float = 0.01
    touched: float = 1.0  # share of the synthetic rows that have a delta
    batch_rows: int = 65_536  # of the reference, over all workers
    unique_share: float = 0.3  # of a batch's ids, after those that come twice
    outer_steps: int = 1_000  # per stage
    shards: int = 128  # G, one per GPU
    inner_steps: int = 140
    window: int = 20
    inner_batch: int = 128
    target_batch: int = 2_048
    scans: int = 3  # EL2N, deficiency, responsibility or fusion, each over a block


@dataclass(frozen=True)
class Cluster:
    """The machines."""

    nodes: int = 16
    gpus: int = 8  # of a node
    peak_flop: float = 60e12  # float32 with tensor cores left out, of a GPU
    reached: float = 0.1
    network_bits: float = 100e9  # a second, of a node
    storage_bytes: float = 1e9  # a second, that a node reads

    @property
    def processes(self) -> int:
        return self.nodes * self.gpus


@dataclass(frozen=True)
class Step:
    """A phase of the run, over all blocks."""

    name: str
    flop: float  # of all GPUs
    read: float  # bytes from storage, by all nodes
    exchanged: float  # bytes into or out of one node
    held: float  # bytes that one process holds; one copy on a node counts whole


def steps(log: Log, cluster: Cluster) -> list[Step]:
    """The run's phases, in order."""
    rows = log.blocks * log.rows_per_block
    log_bytes = rows * (COUNT + log.fields * ID + log.tasks * LABEL)
    forward = 2 * log.dense_parameters
    table = FLOAT * log.embedding_dim * log.ids
    synthetic = log.ratio * rows
    anchored = log.fields * ID + log.tasks * FLOAT
    delta = log.touched * log.fields * FLOAT * log.embedding_dim
    # A step back computes the step's gradient again, and differentiates it at twice that cost.
    unrolled = (log.inner_steps + 3 * log.window) * log.inner_batch
    drawn = log.blocks * log.outer_steps * log.shards
    return [
        # every row is written once sorted by time, and read again; a vocabulary is on every node
        Step("prepare", 0, 2 * log_bytes, log_bytes / cluster.nodes, ENCODED * log.ids),
        # the table and Adam's two moments; every node gets all rows' gradients
        Step(
            "reference",
            3 * forward * rows,
            log_bytes,
            rows / log.batch_rows * gradient_bytes(log),
            3 * table,
        ),
        # one forward pass for EL2N, a JVP at three of them for the others; a table to every node
        Step(
            "scan",
            (1 + 3 * (log.scans - 1)) * forward * rows,
            log.scans * log_bytes,
            log.blocks * (table + log.scans * FLOAT * log.dense_parameters),
            table,
        ),
        # a synthetic row is its anchor and labels, and a delta with two moments once touched
        Step(
            "distil",
            drawn * 3 * forward * (unrolled + log.target_batch),
            synthetic * anchored,
            log.blocks * log.outer_steps * outer_bytes(log) / cluster.nodes,
            synthetic * (anchored + 3 * delta) / cluster.processes,
        ),
    ]


def gradient_bytes(log: Log) -> float:
    """Of the embedding gradients of one batch of the reference."""
    return log.unique_share * log.batch_rows * log.fields * FLOAT * log.embedding_dim


def outer_bytes(log: Log) -> float:
    """Of one outer step of the distillation, all shards together.

    Each pulls the rows of its batches and its targets, and pushes gradients of the differentiated.
    """
    row = log.fields * FLOAT * log.embedding_dim
    pulled = log.inner_steps * log.inner_batch + log.target_batch
    return log.shards * row * (pulled + log.window * log.inner_batch)


def table_of(log: Log, cluster: Cluster) -> list[dict[str, Any]]:
    """A row per phase: what a process holds, and the hours of each of its three bounds."""
    rows = []
    for step in steps(log, cluster):
        seconds = {
            "compute": step.flop / (cluster.processes * cluster.peak_flop * cluster.reached),
            "storage": step.read / (cluster.nodes * cluster.storage_bytes),
            "network": BITS * step.exchanged / cluster.network_bits,
        }
        longest = max(seconds, key=lambda name: seconds[name])
        hours = {f"{name} h": spent / HOUR for name, spent in seconds.items()}
        rows.append(
            {
                "Phase": step.name,
                "Held by a process, GB": step.held / 1e9,
                **hours,
                "Bound by": longest,
                "Hours": seconds[longest] / HOUR,
            }
        )
    return rows


@dataclass(frozen=True)
class Projection(Measure):
    """On paper: bytes a process, network a step and hours a phase of a run over billions of rows.

    Nothing is measured; the assumptions stand beside the table.
    """

    name: ClassVar[str] = "projection"
    blocks: int = size(Log.blocks, "historical blocks")
    million_rows: int = size(1_000, "rows of a block, in millions")
    million_ids: int = size(130, "ids over all fields, in millions")
    nodes: int = size(Cluster.nodes, "nodes")
    gpus: int = size(Cluster.gpus, "GPUs of a node")

    def needs(self) -> Needs:
        return Needs(0)

    def run(self, folder: str) -> Found:  # noqa: ARG002 - nothing is written
        log = Log(
            blocks=self.blocks,
            rows_per_block=1e6 * self.million_rows,
            ids=1e6 * self.million_ids,
            shards=self.nodes * self.gpus,
        )
        cluster = Cluster(nodes=self.nodes, gpus=self.gpus)
        phases = table_of(log, cluster)
        outer = outer_bytes(log) / cluster.nodes
        of = (
            f"on paper, {self.blocks} x {self.million_rows:,}M rows, {self.million_ids:,}M ids, "
            f"{self.nodes} x {self.gpus} GPUs"
        )
        hours = {row["Phase"]: row["Hours"] for row in phases}
        network = {"reference, a step, MB": gradient_bytes(log) / 1e6}
        held = max(row["Held by a process, GB"] for row in phases)
        return Found(
            [
                Figure(f"{of}: hours of all phases", sum(hours.values()), unit="h", parts=hours),
                Figure(f"{of}: most that a process holds", held, unit="GB"),
                Figure(
                    f"{of}: a node's network in a step of distilling",
                    outer / 1e6,
                    unit="MB",
                    parts=network,
                ),
            ],
            {"On paper": phases, "Assumptions": assumptions(log) + assumptions(cluster)},
        )


def assumptions(of: Log | Cluster) -> list[dict[str, Any]]:
    """Every constant, by name."""
    return [{"Of": type(of).__name__, "Constant": k, "Value": v} for k, v in asdict(of).items()]

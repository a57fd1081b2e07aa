"""The one home of Ray's connection, and of what a run may ask of a cluster.

Protocol: a job calls :func:`connect` once. Inside `ray job submit` or with RAY_ADDRESS set it
joins that cluster; else it starts one on this machine. Before long work starts,
:func:`check_resources` compares what the configuration asks for with what the cluster can give.
"""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import ray
import ray.data
from ray.data import DataContext
from ray.exceptions import RayError

from diet_ray import log_lines, progress, whereabouts
from diet_ray.config import Command, ConfigError, ResourcesConfig, RunConfig
from diet_ray.errors import UserError
from diet_ray.running import lease, stopping, watchdog
from diet_ray.running.draining import leaving_nodes

HEAD_ANSWERS_SECONDS = 5.0
"""Within which a Ray head takes a connection."""
IDLE_WORKER_SECONDS = 30
"""That a Ray which is started here keeps a worker that has nothing to do. With Ray's own, 1, each
short task of a run would start a process and import torch anew, which takes three."""


class ClusterError(UserError, RuntimeError):
    """A Ray cluster that cannot be reached."""


RAYS_ADVICE = re.compile(r"\nFailed to .* after \d+/\d+ attempts .*", re.DOTALL)
"""On retries, which Ray Data appends to the message of any error of a task."""


@contextmanager
def connect() -> Iterator[None]:
    """Ray for the length of the block; a session that is connected already is left connected.

    Raises ClusterError.
    """
    if ray.is_initialized():
        quiet_ray_data()
        yield
        return
    keep_idle_workers()
    try:
        ray.init(address=_address(), logging_level=logging.WARNING, log_to_driver=False)
    except ConnectionError as error:
        raise ClusterError(
            f"{error}; start that cluster, or set RAY_ADDRESS=local to have one started on this "
            "machine"
        ) from None
    quiet_ray_data()
    try:
        yield
    finally:
        ray.shutdown()


def keep_idle_workers() -> None:
    """Has a Ray that this process starts keep its idle workers for IDLE_WORKER_SECONDS, unless the
    environment says how long; a cluster that is there already is not changed."""
    milliseconds = str(1000 * IDLE_WORKER_SECONDS)
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", milliseconds)


def _address() -> str | None:
    """For `ray.init`: `local` if the cluster that was started last on this machine is gone, though
    Ray's note of it remains; else None, with which Ray joins it, or what RAY_ADDRESS names."""
    named = os.environ.get("RAY_ADDRESS", "")
    if named:
        plain = ":" in named and "://" not in named  # not `local`, `auto`, or a Ray client's
        silent = _silent(named) if plain else None
        if silent:
            say = "RAY_ADDRESS=%s: nothing answers there (%s); Ray waits for it for some minutes"
            progress.logger.warning(say, named, silent)
        return None
    temporary = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    note = os.path.join(temporary, "ray", "ray_current_cluster")
    try:
        with open(note) as file:
            address = file.read().strip()
    except FileNotFoundError:
        return None
    silent = _silent(address)
    if silent is None:
        return None
    progress.logger.warning(
        "%s names a cluster at %s that does not answer (%s): a new one is started on this machine; "
        "`ray stop` removes the file",
        note,
        address,
        silent,
    )
    return "local"


def _silent(address: str) -> Exception | None:
    """Why nothing answers at `host:port`; None if something does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), HEAD_ANSWERS_SECONDS).close()
    except (OSError, ValueError) as error:
        return error
    return None


@contextmanager
def plain_errors() -> Iterator[None]:
    """A user's error that Ray wrapped, however often, leaves the block as it was raised."""
    try:
        yield
    except Exception as error:
        innermost = _users_error(error)
        if innermost is None or innermost is error:
            raise
        innermost.args = (RAYS_ADVICE.sub("", str(innermost)), *innermost.args[1:])
        raise innermost from None


def _users_error(error: BaseException | None) -> UserError | None:
    while error is not None:
        if isinstance(error, UserError) and not isinstance(error, RayError):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None


def run_job(
    job: Callable[[RunConfig], object],
    command: Command,
    check: Callable[[RunConfig], object] = lambda _: None,
    plan: Callable[[RunConfig], object] = lambda _: None,
) -> None:
    """What every job does: log, take the output, connect, run.

    check: what can be refused without Ray, which takes seconds to start. plan: says what the job
    will do; a dry run ends there. A user's error ends the process with its message and status 2,
    a signal as `stopping.py` says, a run that hangs as `watchdog.py` does.
    """
    progress.start_logging()
    log_lines.tell_exceptions()
    whereabouts.enter(run=command.config.name)
    if command.quick:
        progress.logger.info("A quick run, for a first look: %s", command.config.output)
    try:
        with stopping.stoppable():
            check(command.config)
            alone = nullcontext() if command.dry_run else lease.held(command.config.output)
            watched = watchdog.watched(command.config.resources)
            with alone, connect(), plain_errors(), watched:
                stopping.listen()
                plan(command.config)
                if not command.dry_run:
                    job(command.config)
    except UserError as error:
        log_lines.say(f"error: {command.tell(str(error))}")
        sys.exit(2)


def one_task_each(descriptors: list[dict[str, Any]]) -> ray.data.Dataset:
    """A Ray Data pipeline's start: small descriptors of work, each a task of its own."""
    quiet_ray_data()
    return ray.data.from_items(descriptors, override_num_blocks=len(descriptors))


def quiet_ray_data() -> None:
    """Ray Data's own bars only in a terminal, its chatter never: phases report progress, and an
    error that ends a pipeline is raised, so it need not be logged before in a hundred lines."""
    context = DataContext.get_current()
    context.raise_original_map_exception = True  # else the original error is lost
    context.enable_progress_bars = sys.stdout.isatty() and context.enable_progress_bars
    context.enable_operator_progress_bars = False
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def check_resources(config: RunConfig) -> None:
    """Whether the cluster can ever run what the configuration asks for. Raises ConfigError."""
    asked = config.resources
    (workers, _), (trainers, _) = asked.range_of_meta_workers, asked.range_of_reference_workers
    beside = _beside_meta_workers(asked)
    stage = {
        "CPU": beside["CPU"] + workers * asked.meta_worker_cpus,
        "GPU": beside["GPU"] + workers * asked.meta_worker_gpus,
    }
    training = {"CPU": trainers, "GPU": trainers * asked.reference_gpu}
    for resource, limit in _limits(asked).items():
        count = max(stage[resource], training[resource])
        if count > limit:
            raise ConfigError(
                f"resources: the run needs {count:g} {resource} at once (meta_workers, "
                f"memory_servers, scoring_workers, reference_workers), the cluster can give "
                f"{limit:g}; ask for less, or set resources.cluster_limit if the cluster can grow"
            )


def room_for_meta_workers(asked: ResourcesConfig) -> int:
    """How many there is room for in the cluster, or, with `cluster_limit`, when it has grown: from
    the fewest to the most, and so that the rest of a stage fits beside them."""
    fewest, most = asked.range_of_meta_workers
    if fewest == most:
        return most
    return min(max(_meta_workers_within(_limits(asked), asked), fewest), most)


def room_for_meta_workers_now(asked: ResourcesConfig) -> int:
    """How many leave the rest of a stage its room on the nodes that are there; maybe none."""
    return max(_meta_workers_within(_present(), asked), 0)


def _meta_workers_within(limits: dict[str, float], asked: ResourcesConfig) -> int:
    beside = _beside_meta_workers(asked)
    needs = {"CPU": asked.meta_worker_cpus, "GPU": asked.meta_worker_gpus}
    room = min(
        round((limits[resource] - beside[resource]) / need, 6)  # .3 / .1 is less than 3
        for resource, need in needs.items()
        if need
    )
    return math.floor(room)


def _beside_meta_workers(asked: ResourcesConfig) -> dict[str, float]:
    """What else a stage needs at once."""
    scoring, _ = asked.scoring_workers
    servers = asked.memory_servers * asked.memory_server_cpus
    return {"CPU": servers + scoring * asked.scoring_cpus, "GPU": scoring * asked.scoring_gpus}


def _limits(asked: ResourcesConfig) -> dict[str, float]:
    """What the nodes that stay have, or what the cluster can grow to."""
    grown = asked.cluster_limit
    return {kind: max(amount, grown.get(kind, 0.0)) for kind, amount in _present().items()}


def _present() -> dict[str, float]:
    """What the nodes that stay have."""
    leaving = leaving_nodes()
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"] and n["NodeID"] not in leaving]
    return {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}

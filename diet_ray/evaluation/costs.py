"""Time and peak memory of full training, distillation and distilled training (paper, Table 5).

Each phase runs alone in a fresh process on the CPU, which reports its wall-clock time and how far
its resident set rose above the most that it held before. What is timed is what the benchmark
trains: candidates under their methods' tuned protocols, the distillation with all of its proxies.
An epoch of full training is one pass over all blocks, one of distilled training a pass over S_T.
An epoch of distillation is as many meta-gradients as it takes to see the rows of the newest block
once as targets, one after the other in one process, the proxies taking turns. The candidate is
the first of `evaluation.candidates`.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from functools import partial

import pandas as pd
import ray
import torch

from diet_ray import devices, progress, runtime
from diet_ray.config import NetworkConfig, ProtocolConfig
from diet_ray.distill.inner_loop import inner_batches
from diet_ray.distill.meta_gradient import meta_gradient
from diet_ray.distill.proxy import proxy_networks, turn
from diet_ray.evaluation.methods import reduced_rows
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.shared import warm_up_rows
from diet_ray.logs.blocks import read_block
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.functional import FlatNetwork, flatten_parameters
from diet_ray.models.registry import DenseNetwork, fresh_network
from diet_ray.seeds import torch_generator
from diet_ray.training.candidate import train_through
from diet_ray.training.model import Recommender, adam
from diet_ray.training.soft_rows import soft_epoch

KIBIBYTE = 1_024


def measure_costs(run: Run, full: ProtocolConfig, distilled: ProtocolConfig) -> pd.DataFrame:
    """A row per phase: phase, seconds_per_epoch, peak_bytes, device.

    full, distilled: the protocols of full data and of the distilled set.
    """
    phases: dict[str, Callable[[Run], Callable[[], object]]] = {
        "full training": partial(_full_training, protocol=full),
        "distillation": _distillation,
        "distilled training": partial(_distilled_training, protocol=distilled),
    }
    threads = run.config.threads
    lines = []
    with progress.phase("Cost of an epoch", len(phases), "phases", long=True) as phase:
        for name, prepare in phases.items():
            # An environment of its own gives a task a process of its own.
            environment = {"env_vars": {"DIET_RAY_COST_OF": name}}
            task = ray.remote(max_calls=1)(_measured).options(
                num_cpus=threads, runtime_env=environment
            )
            with runtime.plain_errors():
                lines.append({"phase": name, **ray.get(task.remote(run, prepare))})
            phase.advance()
    return pd.DataFrame(lines)


def _measured(run: Run, prepare: Callable[[Run], Callable[[], object]]) -> dict[str, object]:
    before = _peak_bytes()
    device = devices.use_device(0, run.config.threads)
    epoch = prepare(run)
    started = time.monotonic()
    epoch()
    seconds = time.monotonic() - started
    return {
        "seconds_per_epoch": seconds,
        "peak_bytes": _peak_bytes() - before,
        "device": str(device),
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE


def _network(run: Run, network: NetworkConfig) -> DenseNetwork:
    fields, tasks = len(run.blocks.fields), len(run.blocks.tasks)
    return fresh_network(network, run.config.models, fields, tasks, run.config.seed, "costs")


def _full_training(run: Run, protocol: ProtocolConfig) -> Callable[[], object]:
    config, blocks = run.config, run.blocks
    sizes, models = dict.fromkeys(blocks.fields, 0), config.models
    table = EmbeddingTable(sizes, models.embedding_dim, models.embedding_std, config.seed)
    model = Recommender(table, _network(run, config.evaluation.candidates[0]))
    through = [*blocks.historical, blocks.block("subsequent")]
    return lambda: train_through(model, blocks, through, protocol)


def _distilled_training(run: Run, protocol: ProtocolConfig) -> Callable[[], None]:
    dense = _network(run, run.config.evaluation.candidates[0])
    rows = warm_up_rows(reduced_rows(run, "distilled", "soft", 0), run.reference().table)
    optimizer = adam(dense, protocol.warm_up_learning_rate)
    generator = torch_generator(run.config.seed, "costs")
    batch_size = protocol.warm_up_batch_size
    return lambda: soft_epoch(dense, optimizer, rows, batch_size, generator)


def _distillation(run: Run) -> Callable[[], None]:
    distill, block = run.config.distill, run.blocks.historical[-1]
    inner, reference = distill.inner, run.reference()
    proxies = [_network(run, network) for network in proxy_networks(run.config)]
    rows = warm_up_rows(reduced_rows(run, "distilled", "soft", 0), reference.table)
    real = read_block(run.blocks, block)
    times = math.ceil(len(real) / distill.target_batch)
    generator = torch_generator(run.config.seed, "costs")

    def epoch() -> None:
        for number in range(times):
            proxy = proxies[turn(run.config, *divmod(number, distill.logical_shards))]
            part = real.take(slice(number, None, times))
            length = (inner.window + inner.steps) // 2  # the mean of the lengths that are drawn
            with torch.no_grad():
                targets = reference.table(torch.from_numpy(part.ids))
            meta_gradient(
                FlatNetwork(proxy),
                flatten_parameters(proxy),
                rows.inputs,
                rows.labels,
                inner_batches(len(rows.labels), inner.batch_size, length, generator),
                targets,
                torch.from_numpy(part.labels),
                inner,
            )

    return epoch

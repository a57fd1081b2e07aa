"""The package as a library: what the jobs do, as functions that return what they found.

Protocol: each takes a configuration as a `RunConfig`, a tree of keys or a YAML file, refuses what
can be refused, then works in the Ray session that is connected; without one it starts its own and
ends it again, which takes seconds each time. No other driver may write into its output meanwhile
(`lease`). Nothing is printed unless the logger "diet_ray" is switched on, as `start_logging` does.
What is published already is not computed again.

Ray, Torch and the rooms are imported only when they are called: `import diet_ray` stays cheap, for
every worker process too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diet_ray import whereabouts
from diet_ray.config import ConfigError, Given, RunConfig, make_config

if TYPE_CHECKING:
    from diet_ray.memory.dataset import DistilledDataset
    from diet_ray.pipeline import Distilled, Searched
    from diet_ray.training.model import Recommender

# ruff: noqa: PLC0415 - imports inside functions; the module's docstring says why

SWEEP_OUTPUT = "sweep"
"""Folder below the current one, for a sweep over a space alone."""


def distill(config: Given) -> Distilled:
    """Distil a log, as `jobs/distill.py` does: prepare blocks, train the reference, distil, check.

    Raises UserError's kinds, such as ConfigError, whose messages say what to do.
    """
    from diet_ray import pipeline, runtime
    from diet_ray.running import lease

    made = make_config(config)
    made.raw_logs  # noqa: B018 - refused where there are none
    pipeline.check_networks(made)
    with (
        whereabouts.at(run=made.name),
        lease.held(made.output),
        runtime.connect(),
        runtime.plain_errors(),
    ):
        return pipeline.distill_logs(made)


def sweep(
    config: Given, distilled: str | None = None, output: str | None = None, **search: Any
) -> Searched:
    """Search architectures on a distilled set, as `jobs/sweep.py` does.

    config: a configuration, or a space alone, such as ``{"dcn": {"num_cross_layers": [1, 2]}}``;
    that one needs `distilled`, and nothing else of the run behind the set.
    distilled: folder (any URI) of a published set; default: the configuration's.
    output: folder (any URI) for leaderboard and trials; default: the configuration's, or `sweep`
    in the current folder for a space alone.
    search: other keys of the configuration's section `search`, such as ``trials=12``.

    Raises UserError's kinds, such as ConfigError, whose messages say what to do.
    """
    from diet_ray import pipeline, runtime
    from diet_ray.running import lease
    from diet_ray.search.sweep import check_space

    changes = {f"search.{key}": value for key, value in search.items()}
    if distilled is not None:
        changes["search.distilled"] = distilled
    if output is not None:
        changes["output"] = output
    if isinstance(config, Mapping) and is_space(config):
        config = around_space(config, distilled)
    made = make_config(config, changes)
    check_space(made)
    with (
        whereabouts.at(run=made.name),
        lease.held(made.output),
        runtime.connect(),
        runtime.plain_errors(),
    ):
        return pipeline.search_architectures(made)


def is_space(tree: Mapping[str, Any]) -> bool:
    """Whether it holds networks, and no key of a configuration."""
    return not tree.keys() & RunConfig.model_fields.keys()


def around_space(space: Mapping[str, Any], distilled: str | None) -> dict[str, Any]:
    """The keys of a sweep over a space on a set, with tables as wide as the set's run had them.

    Raises ConfigError without a set, ArtifactError for one that is not there.
    """
    from diet_ray.memory import artifact

    if distilled is None:
        raise ConfigError(
            f"a space alone ({', '.join(space)}) has no set to sweep over: name the folder of a "
            "published one as `distilled`, or give a configuration with search.space"
        )
    return {
        "name": "sweep",
        "output": SWEEP_OUTPUT,
        "models": {"embedding_dim": artifact.describe(distilled).embedding_dim},
        "search": {"space": dict(space)},
    }


def load_distilled(uri: str, reference: str | None = None) -> DistilledDataset:
    """A published set, such as ``<output>/distilled/stage=3`` (any URI), as a Torch dataset of
    (embedding (F, d), soft label (K,) logits); its ids and the rest are attributes.

    reference: folder of the reference model whose embeddings they are, if it was moved away from
    the set. Raises ArtifactError.
    """
    from diet_ray.memory import dataset

    return dataset.load_distilled(uri, reference)


def export(uri: str, target: str, reference: str | None = None) -> None:
    """Write a published set in its plain form, as `jobs/export.py` does: Parquet with embeddings
    (F, d), labels (K,) logits, ids and source rows, for readers without this package.

    uri: of the set, such as ``<output>/distilled/stage=3``. target: the folder to write to, any
    URI. reference: as for `load_distilled`. Needs no Ray. Raises ArtifactError.
    """
    from diet_ray.memory import dataset

    dataset.export(uri, target, reference)


def load_finished(uri: str) -> Recommender:
    """A model that a search finished, such as ``<output>/search/finished/1-dcn-..`` (any URI),
    ready to predict: ids (B, F) to logits (B, K). Raises FinishedError."""
    from diet_ray.search import finish

    return finish.load_finished(uri)

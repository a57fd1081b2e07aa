"""Baselines that select rows: random, k-means, EL2N; block by block, at the distilled set's ratio.

A selection is drawn once per seed and kept, so that all candidates train on the same rows and a
benchmark that was killed does not draw it again.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import pairwise_distances_argmin_min

from diet_ray import progress, storage, tensor_files
from diet_ray.evaluation.run import Run
from diet_ray.logs.blocks import Block, Blocks, Rows, iterate_batches, read_rows
from diet_ray.progress import Phase
from diet_ray.scoring.el2n import EL2NScoring
from diet_ray.scoring.scan import scan
from diet_ray.scoring.selection import ALL_GROUPS, bands, select_ranks
from diet_ray.seeds import derive, numpy_generator
from diet_ray.training.reference import Reference, load_reference, reference_uri

CLUSTERING_BATCH = 8_192

DRAWN = ("random", "kmeans")  # another seed, other rows


def selected_rows(run: Run, method: str, seed: int) -> Rows:
    """The selection of a method ("random", "kmeans", "el2n"), in time order."""
    chosen = _kept(run, method, seed)
    return Rows.concatenate(
        [
            read_rows(run.blocks, block, chosen[block.name])
            for block in run.blocks.historical
            if len(chosen[block.name])
        ]
    )


def _kept(run: Run, method: str, seed: int) -> dict[str, np.ndarray]:
    """Row ids by block name, drawn unless they are kept already."""
    made_from = json.dumps(selection_key(run, method, seed), sort_keys=True)
    key = hashlib.sha256(made_from.encode()).hexdigest()
    uri = run.config.place("evaluation", "selections", f"{method}-{key[:16]}.safetensors")
    if not storage.exists(uri):
        select = {"random": random_row_ids, "kmeans": kmeans_row_ids, "el2n": el2n_row_ids}[method]
        blocks = zip(run.blocks.historical, run.selection_sizes(), strict=True)
        chosen = {
            block.name: np.sort(select(run, block, stage, count, seed))
            for stage, (block, count) in enumerate(blocks, start=1)
        }
        tensor_files.write(uri, chosen)
    return tensor_files.read(uri)


def selection_key(run: Run, method: str, seed: int) -> dict[str, object]:
    """What a selection depends on."""
    key: dict[str, object] = {
        "blocks": run.blocks.fingerprint,
        "method": method,
        "sizes": run.selection_sizes(),
    }
    if method != "random":
        key["references"] = run.reference_identities
    if method == "el2n":
        key["percentile"] = run.config.benchmark.percentile
        key["precision"] = run.config.scoring.el2n_precision
    if method in DRAWN:
        key["drawn"] = [run.config.seed, seed]
    return key


def random_row_ids(run: Run, block: Block, stage: int, count: int, seed: int) -> np.ndarray:
    """`count` rows of a block, drawn without replacement."""
    draw = numpy_generator(run.config.seed, "random selection", seed, stage)
    return block.fragments[0].first_row_id + draw.choice(block.rows, count, replace=False)


def el2n_row_ids(run: Run, block: Block, stage: int, count: int, seed: int) -> np.ndarray:
    """`count` rows around a percentile of the block's EL2N scores at phi_t (paper, A.3)."""
    del seed  # nothing is drawn
    uri = reference_uri(run.config, stage)
    precision = run.config.scoring.el2n_precision
    scoring = EL2NScoring(uri, run.reference_identities[stage - 1], precision)
    folder = run.config.place("scores", f"t={stage}", "el2n")
    scores = scan(run.config, run.blocks, block, scoring, folder)
    rows, wanted = {ALL_GROUPS: block.rows}, {ALL_GROUPS: count}
    return select_ranks(scores, bands(rows, wanted, run.config.benchmark.percentile))


def kmeans_row_ids(run: Run, block: Block, stage: int, count: int, seed: int) -> np.ndarray:
    """Of each of `count` clusters of the block's embeddings at phi_t the row nearest to its centre.

    Two passes over the block: one fits the clusters batch by batch, one finds the rows. The place
    of a cluster that no row belongs to is taken by a row drawn at random.
    """
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    reference = load_reference(reference_uri(run.config, stage))
    state = derive(run.config.seed, "k-means selection", seed, stage) % 2**32
    with progress.phase(f"k-means of {block.name}", 2 * block.rows) as phase:
        centres = cluster_centres(run.blocks, block, reference, count, state, phase)
        nearest = nearest_row_ids(run.blocks, block, reference, centres, phase)
    chosen = nearest[nearest >= 0]
    others = np.setdiff1d(block.fragments[0].first_row_id + np.arange(block.rows), chosen)
    draw = numpy_generator(run.config.seed, "k-means fill", seed, stage)
    return np.concatenate([chosen, draw.choice(others, count - len(chosen), replace=False)])


def cluster_centres(
    blocks: Blocks, block: Block, reference: Reference, count: int, state: int, phase: Phase
) -> np.ndarray:
    """Mini-batch k-means of a block's embeddings, (count, F * d); state: its random state."""
    batch_rows = max(CLUSTERING_BATCH, 3 * count)
    clusters = MiniBatchKMeans(count, batch_size=batch_rows, n_init=1, random_state=state)
    for batch in iterate_batches(blocks, block, batch_rows):
        clusters.partial_fit(_flat_embeddings(reference, batch))
        phase.advance(len(batch))
    return clusters.cluster_centers_


def nearest_row_ids(
    blocks: Blocks, block: Block, reference: Reference, centres: np.ndarray, phase: Phase
) -> np.ndarray:
    """For every centre the nearest of the rows that have no nearer centre, -1 if there is none.

    centres (m, F * d); returns int64 (m,). Of equally near rows the first counts.
    """
    nearest, distance = np.full(len(centres), -1), np.full(len(centres), np.inf)
    for batch in iterate_batches(blocks, block, max(CLUSTERING_BATCH, 3 * len(centres))):
        cluster, far = pairwise_distances_argmin_min(_flat_embeddings(reference, batch), centres)
        by_distance = np.argsort(far, kind="stable")
        found, first = np.unique(cluster[by_distance], return_index=True)
        rows = by_distance[first]
        closer = far[rows] < distance[found]
        nearest[found[closer]] = batch.row_ids[rows[closer]]
        distance[found[closer]] = far[rows[closer]]
        phase.advance(len(batch))
    return nearest


@torch.no_grad()
def _flat_embeddings(reference: Reference, rows: Rows) -> np.ndarray:
    return reference.table(torch.from_numpy(rows.ids)).flatten(1).numpy()

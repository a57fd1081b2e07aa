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

from diet_ray import progress, storage
from diet_ray.evaluation.run import Run
from diet_ray.logs.blocks import Block, Rows, iterate_batches, read_rows
from diet_ray.scoring.el2n import EL2NScoring
from diet_ray.scoring.scan import scan
from diet_ray.scoring.selection import ALL_GROUPS, bands, select_ranks
from diet_ray.seeds import derive, numpy_generator
from diet_ray.training.reference import Reference, load_reference, reference_uri

CLUSTERING_BATCH = 8_192


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
    key = hashlib.sha256(json.dumps(selection_key(run, method, seed)).encode()).hexdigest()
    uri = run.config.place("evaluation", "selections", f"{method}-{key[:16]}.safetensors")
    if not storage.exists(uri):
        select = {"random": random_row_ids, "kmeans": kmeans_row_ids, "el2n": el2n_row_ids}[method]
        blocks = zip(run.blocks.historical, run.selection_sizes(), strict=True)
        chosen = {
            block.name: np.sort(select(run, block, stage, count, seed))
            for stage, (block, count) in enumerate(blocks, start=1)
        }
        storage.write_tensors(uri, chosen)
    return storage.read_tensors(uri)


def selection_key(run: Run, method: str, seed: int) -> list[object]:
    """What a selection depends on."""
    identities = [] if method == "random" else run.reference_identities
    percentile = run.config.benchmark.percentile if method == "el2n" else None
    drawn = None if method == "el2n" else (run.config.seed, seed)
    made_from = run.made_from()
    return [made_from["blocks"], method, run.selection_sizes(), identities, percentile, drawn]


def random_row_ids(run: Run, block: Block, stage: int, count: int, seed: int) -> np.ndarray:
    """`count` rows of a block, drawn without replacement."""
    draw = numpy_generator(run.config.seed, "random selection", seed, stage)
    return block.fragments[0].first_row_id + draw.choice(block.rows, count, replace=False)


def el2n_row_ids(run: Run, block: Block, stage: int, count: int, seed: int) -> np.ndarray:
    """`count` rows around a percentile of the block's EL2N scores at phi_t (paper, A.3)."""
    del seed  # nothing is drawn
    uri = reference_uri(run.config, stage)
    scoring = EL2NScoring(uri, run.reference_identities[stage - 1])
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
    batch_rows = max(CLUSTERING_BATCH, 3 * count)
    state = derive(run.config.seed, "k-means selection", seed, stage) % 2**32
    clusters = MiniBatchKMeans(count, batch_size=batch_rows, n_init=1, random_state=state)
    with progress.phase(f"k-means of {block.name}", 2 * block.rows) as phase:
        for batch in iterate_batches(run.blocks, block, batch_rows):
            if len(batch) >= count or batch.row_ids[0] != block.fragments[0].first_row_id:
                clusters.partial_fit(_flat_embeddings(reference, batch))
            phase.advance(len(batch))
        nearest, distance = np.full(count, -1), np.full(count, np.inf)
        for batch in iterate_batches(run.blocks, block, batch_rows):
            vectors = _flat_embeddings(reference, batch)
            cluster, far = pairwise_distances_argmin_min(vectors, clusters.cluster_centers_)
            for row in np.argsort(-far, kind="stable"):  # the nearest is written last
                if far[row] < distance[cluster[row]]:
                    nearest[cluster[row]] = batch.row_ids[row]
                    distance[cluster[row]] = far[row]
            phase.advance(len(batch))
    chosen = nearest[nearest >= 0]
    others = np.setdiff1d(block.fragments[0].first_row_id + np.arange(block.rows), chosen)
    draw = numpy_generator(run.config.seed, "k-means fill", seed, stage)
    return np.concatenate([chosen, draw.choice(others, count - len(chosen), replace=False)])


@torch.no_grad()
def _flat_embeddings(reference: Reference, rows: Rows) -> np.ndarray:
    return reference.table(torch.from_numpy(rows.ids)).flatten(1).numpy()

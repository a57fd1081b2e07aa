"""Algorithm 1: the new rows of a stage, and their fusion with the previous memory.

The driver chooses by row ids and positions; workers make the files of the stage's start out of
them (`start.py`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from diet_ray.config import ConfigError, RunConfig
from diet_ray.distill.context import Stage
from diet_ray.distill.positions import Positions
from diet_ray.distill.sources import BlockRows, CarriedRows
from diet_ray.logs.blocks import Blocks
from diet_ray.memory.files import RowFiles
from diet_ray.scoring.el2n import EL2NScoring
from diet_ray.scoring.scan import scan
from diet_ray.scoring.selection import bands, group_shares, select_ranks
from diet_ray.seeds import numpy_generator
from diet_ray.training.reference import reference_uri


def memory_sizes(config: RunConfig, blocks: Blocks) -> list[tuple[int, int]]:
    """For every stage the number of new and of kept rows.

    After stage t the memory holds `ratio` of the rows of D_1..D_t; of the previous memory the
    share `keep` stays, the rest makes place for new rows, at most as many as D_t has. Raises
    ConfigError if a stage would hold no row.
    """
    sizes, seen, total = [], 0, 0
    for block in blocks.historical:
        seen += block.rows
        wanted = round(config.memory.ratio * seen)
        kept = round(config.memory.keep * total)
        new = min(max(wanted - kept, 0), block.rows)
        if new == 0:
            raise ConfigError(
                f"memory.ratio {config.memory.ratio} selects no new row of {block.name} "
                f"({block.rows} rows); raise memory.ratio or lower memory.keep"
            )
        sizes.append((new, kept))
        total = new + kept
    return sizes


def new_rows(stage: Stage, count: int) -> np.ndarray:
    """Row ids of `count` rows of D_t that become synthetic, chosen as `memory.new_rows` says;
    int64 (count,), ascending."""
    block, memory = stage.block, stage.config.memory
    if memory.new_rows == "random":
        draw = numpy_generator(stage.config.seed, "new rows", stage.number)
        chosen = np.sort(draw.choice(block.rows, count, replace=False))
        return block.fragments[0].first_row_id + chosen
    uri = reference_uri(stage.config, stage.number)
    precision = stage.config.scoring.el2n_precision
    scoring = EL2NScoring(uri, stage.reference.identity, precision)
    stage.workers.make_room()
    scores = scan(stage.config, stage.blocks, block, scoring, stage.scores("el2n"))
    shares = group_shares(scores.group_rows, count, memory.group_alpha)
    ranks = bands(scores.group_rows, shares, memory.percentile)
    return select_ranks(scores, ranks)


def fuse(stage: Stage, new: np.ndarray, previous: RowFiles, keep: int) -> Positions:
    """Positions of the `keep` rows of the previous memory with the largest influence on the new
    boundary rows.

    w(s) = sum over boundary rows b of I(s, b) (paper, equation 10). new: row ids of those.
    """
    if keep >= previous.rows:
        return range(previous.rows)
    workers, number = stage.workers, stage.number
    theta = workers.inner_start(number, 0)
    boundary = BlockRows(stage.blocks, stage.block, new)
    direction = workers.summed_gradient(number, boundary, len(new), theta)
    carried = CarriedRows(previous)
    influence = workers.alignments(number, carried, previous.rows, theta, direction)
    return np.sort(np.argsort(-influence, kind="stable")[:keep]).astype(np.int64)


def empty_files(stage: Stage, uri: str, rows: int) -> RowFiles:
    """The files of `rows` rows of this stage, none of them written yet; all is float32."""
    facts = stage.reference
    return RowFiles(
        uri=uri,
        rows=rows,
        rows_per_file=stage.config.memory.rows_per_file,
        fields=facts.fields,
        embedding_dim=facts.models.embedding_dim,
    )


def write_start(
    stage: Stage, target: RowFiles, previous: RowFiles | None, kept: Positions, new: np.ndarray
) -> RowFiles:
    """Write the stage's start, every file by some worker: kept rows first, then new ones."""
    parts = []
    for number in range(target.count):
        first, end = target.bounds(number)
        inside = kept[min(first, len(kept)) : min(end, len(kept))]
        parts.append((inside, new[max(first - len(kept), 0) : max(end - len(kept), 0)]))
    sums = stage.workers.write_start(stage.number, stage.blocks, previous, target, parts)
    return replace(target, checksums=tuple(sums))

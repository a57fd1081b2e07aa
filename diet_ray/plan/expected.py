"""The blocks of a run: as their manifest states them, or as the raw files let expect them.

Before a log is prepared its rows (`thinned.rows_of`) are spread evenly over the intervals, and a
share of them is taken to be new ids: both are guesses, good enough to tell minutes from hours.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta

from diet_ray.config import LogsConfig, RunConfig
from diet_ray.logs import blocks as logs
from diet_ray.logs.blocks import Block, Blocks
from diet_ray.logs.prepare import LAST_ROLES
from diet_ray.logs.sources import Source, open_source
from diet_ray.logs.sources.thinned import rows_of

IDS_PER_ROW = 0.1
"""Ids of all fields together over rows: 0.1 in KuaiRand-Pure."""
MOST_IDS = 5_000_000
"""Of all fields together, so that a plan does not need a large log's memory."""


def blocks_of(config: RunConfig) -> Blocks:
    """The run's blocks: published, or expected (no fragments, no fingerprint).

    Raises LogsError for raw files that are not there.
    """
    uri = config.place("blocks")
    if logs.published(uri):
        return logs.open_blocks(uri)
    source = open_source(config.raw_logs, config.seed)
    rows = rows_of(source)
    sizes = _vocabulary_sizes(source, rows)
    blocks = tuple(
        Block(
            name=name,
            role=LAST_ROLES.get(name, "historical"),
            interval=str(interval),
            rows=max(round(rows * share), 1),
            vocabulary_sizes=sizes,
            label_rates={},
        )
        for (name, interval), share in zip(
            config.raw_logs.intervals.named(), interval_shares(config.raw_logs), strict=True
        )
    )
    return Blocks(
        uri=uri,
        fields=source.fields,
        tasks=source.tasks,
        blocks=blocks,
        row_group_rows=config.raw_logs.row_group_rows,
        fingerprint="",
        source_bytes=source.source_bytes(),
        quarantined={},
        outside_intervals=max(rows - sum(block.rows for block in blocks), 0),
    )


def interval_shares(config: LogsConfig) -> list[float]:
    """Share of the rows in every block: of a log that is even over its time.

    A synthetic log states its time; another one is taken to lie within the intervals.
    """
    intervals = [interval for _, interval in config.intervals.named()]
    start, end = intervals[0].start, intervals[-1].end
    if config.source == "synthetic":
        start = datetime.combine(config.synthetic.start, time(0))
        end = start + timedelta(days=config.synthetic.days)
        inside = [min(i.end, end) - max(i.start, start) for i in intervals]
        return [max(length / (end - start), 0.0) for length in inside]
    lengths = [interval.end - interval.start for interval in intervals]
    return [length / sum(lengths, timedelta(0)) for length in lengths]


def _vocabulary_sizes(source: Source, rows: int) -> dict[str, int]:
    ids = min(round(rows * IDS_PER_ROW), MOST_IDS)
    return dict.fromkeys(source.fields, ids // len(source.fields) + 2)

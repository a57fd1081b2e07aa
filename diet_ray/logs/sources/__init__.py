"""Where raw logs come from: one file per kind of source, `source.py` says what they share."""

from __future__ import annotations

from diet_ray import storage
from diet_ray.config import LogsConfig
from diet_ray.logs.sources.kuairand import KuaiRand
from diet_ray.logs.sources.source import (
    LogsError,
    Part,
    RawBatch,
    Source,
    check_names,
    nearest,
)
from diet_ray.logs.sources.synthetic import Synthetic
from diet_ray.logs.sources.table import TableSource
from diet_ray.logs.sources.taobao import Taobao
from diet_ray.logs.sources.thinned import Thinned
from diet_ray.logs.sources.tmall import Tmall

__all__ = ["LogsError", "Part", "RawBatch", "Source", "open_source"]


def open_source(logs: LogsConfig, seed: int) -> Source:
    """The configured source, checked. Raises LogsError naming file, column and remedy."""
    if logs.path and logs.source != "table" and storage.is_file(logs.path):
        raise LogsError(f"logs.path: {logs.path} is a file; name the folder that it lies in")
    source: Source
    if logs.source == "kuairand":
        source = KuaiRand(logs)
    elif logs.source == "table":
        source = TableSource(logs)
    elif logs.source == "taobao":
        source = Taobao(logs)
    elif logs.source == "tmall":
        source = Tmall(logs)
    else:
        source = Synthetic(logs, seed)
    check_names(source.fields, source.tasks)
    for name in logs.hash_buckets:
        if name not in source.fields:
            raise LogsError(f"logs.hash_buckets: no field {name!r}; {nearest(name, source.fields)}")
    return source if logs.most_rows is None else Thinned(source, logs.most_rows, seed)

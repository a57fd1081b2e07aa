"""Which files a table consists of: a file, a folder, a folder of partitions, or a glob.

 - A file is the table, whatever its name.
 - Of a folder, the files directly below it whose names end as those of its format do, and those
   below its `key=value` folders (Hive's partitions) at any depth. Other folders are not entered.
 - A glob names files, and folders that are taken as above: `*`, `?` and `[..]` stand for characters
   of one name, `**` for any number of folders.

A name that begins with `_` or `.` is no data, unless it is written out. The keys of the `key=value`
folders below the folder, or below where the glob's wildcards begin, are columns of their files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal
from urllib.parse import unquote

from diet_ray import storage
from diet_ray.logs.sources.source import LogsError

Format = Literal["parquet", "csv"]

ENDINGS: dict[Format, tuple[str, ...]] = {"parquet": (".parquet", ".pq"), "csv": (".csv", ".tsv")}
COMPRESSIONS = {
    ".gz": "gzip",
    ".bz2": "bz2",
    ".zst": "zstd",
    ".lz4": "lz4",
    ".xz": "xz",
    ".zip": "zip",
}
WILDCARD = re.compile(r"[*?[]")
END_BYTES = 1 << 16
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class TableFile:
    """A file of a table. `name` is its path below the table's root; keys: those of its folders."""

    uri: str
    name: str
    keys: dict[str, str | None]


def compression_of(name: str) -> str | None:
    """How a file is compressed as a whole, by the end of its name."""
    return next((how for end, how in COMPRESSIONS.items() if name.lower().endswith(end)), None)


def format_of(name: str) -> Format | None:
    """The format that the end of a file's name tells."""
    plain = name.lower()
    if compression_of(plain):
        plain = plain.rpartition(".")[0]
        return "csv" if plain.endswith(ENDINGS["csv"]) else None
    return next((kind for kind, ends in ENDINGS.items() if plain.endswith(ends)), None)


def find_files(path: str, wanted: Format | None = None) -> tuple[Format, list[TableFile]]:
    """The format and the files of the table at `path`, by their names; at least one.

    `wanted` is the format that the configuration states; None takes the one that the names tell.
    Raises LogsError if there is no file, or one of another format.
    """
    path = path.rstrip("/") or "/"
    root, names = _names(path)
    if not names:
        raise LogsError(_nothing_there(path, root, wanted))
    by_format: dict[Format, str] = {}
    for name in names:
        told = format_of(name)
        if told:
            by_format.setdefault(told, name)
    if len(by_format) > 1:
        raise LogsError(
            f"{path}: files of two formats, such as {' and '.join(by_format.values())}; name those "
            f"of one by a glob, such as logs.path={storage.join(root, '*.parquet')}"
        )
    found = next(iter(by_format), wanted or "csv")
    if wanted not in (None, found):
        raise LogsError(
            f"{path}: no *.{wanted} file there, but {by_format[found]}; set logs.table.format to "
            f"{found}, or logs.path to the {wanted} files"
        )
    return found, [TableFile(storage.join(root, n), n, _keys(n)) for n in sorted(names)]


def repeated(files: Sequence[TableFile]) -> tuple[TableFile, TableFile] | None:
    """Two files that are copies of each other, as far as size, both ends and keys tell, if any."""
    by_size: dict[int, list[TableFile]] = {}
    for file in files:
        by_size.setdefault(storage.size(file.uri), []).append(file)
    seen: dict[tuple[object, ...], TableFile] = {}
    for size, alike in by_size.items():
        for file in alike if len(alike) > 1 else ():
            own = (size, tuple(file.keys.items()), *_ends(file.uri))
            if own in seen:
                return seen[own], file
            seen[own] = file
    return None


def _ends(uri: str) -> tuple[bytes, bytes]:
    fs, path = storage.filesystem(uri)
    with fs.open_input_file(path) as stream:
        first = stream.read(END_BYTES)
        stream.seek(max(stream.size() - END_BYTES, 0))
        return first, stream.read()


def _names(path: str) -> tuple[str, list[str]]:
    """The folder that the table is in, and the paths of its files below that."""
    glob = WILDCARD.search(path) is not None
    literal = not glob or "://" not in path  # a URI with ? is another place
    if literal and storage.is_file(path):
        folder, _, name = path.rpartition("/")
        return folder or ("/" if path.startswith("/") else "."), [name]
    if not glob or (literal and storage.exists(path)):
        return path, list(_data_below(path, ""))
    steps = path.split("/")
    first = next(number for number, step in enumerate(steps) if WILDCARD.search(step))
    root = "/".join(steps[:first]) or ("/" if path.startswith("/") else ".")
    return root, sorted(set(_matching(root, "", steps[first:])))


def _data_below(root: str, folder: str) -> Iterator[str]:
    """Files of a folder and of the partitions below it that have the ending of a known format."""
    for name in _files(root, folder):
        if not _hidden(name) and format_of(name):
            yield folder + name
    for name in _folders(root, folder):
        if not _hidden(name) and "=" in name:
            yield from _data_below(root, f"{folder}{name}/")


def _matching(root: str, folder: str, steps: list[str]) -> Iterator[str]:
    """Files below `folder` (empty, or with a slash at its end) that the rest of a glob names."""
    step, *rest = steps
    if step == "**":
        yield from _matching(root, folder, rest or ["*"])
        for name in _folders(root, folder):
            if not _hidden(name):
                yield from _matching(root, f"{folder}{name}/", steps)
        return
    if not rest:
        yield from (folder + name for name in _files(root, folder) if _fits(name, step))
    for name in _folders(root, folder):
        if _fits(name, step):
            inner = f"{folder}{name}/"
            yield from _matching(root, inner, rest) if rest else _data_below(root, inner)


def _files(root: str, folder: str) -> list[str]:
    uris = storage.list_files(storage.join(root, folder) if folder else root)
    return [uri.rpartition("/")[2] for uri in uris]


def _folders(root: str, folder: str) -> list[str]:
    return storage.list_folders(storage.join(root, folder) if folder else root)


def _hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _fits(name: str, step: str) -> bool:
    return name == step or (fnmatchcase(name, step) and not _hidden(name))


def _keys(name: str) -> dict[str, str | None]:
    pairs = (step.split("=", 1) for step in name.split("/")[:-1] if "=" in step)
    return {key: None if value == HIVE_NULL else unquote(value) for key, value in pairs}


def _nothing_there(path: str, root: str, wanted: Format | None) -> str:
    if not storage.exists(root):
        return f"{root}: no such file or folder; set logs.path to the log's file, folder or glob"
    if WILDCARD.search(path) and root != path:
        return f"{path}: no file matches (names that begin with _ or . are no data); see logs.path"
    kinds = [wanted] if wanted else list(ENDINGS)
    told = " or ".join(f"*.{kind}" for kind in kinds)
    folders = storage.list_folders(root)
    inner = f" ({folders[0]}/ is not searched: it is no key=value folder)" if folders else ""
    return (
        f"{path}: no {told} file directly below it or in partitions{inner}; set logs.path to the "
        f"folder of the log, or to a glob such as {storage.join(path, '**', '*.csv')}"
    )

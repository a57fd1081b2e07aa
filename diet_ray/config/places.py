"""Where the keys of a run were set: the line of its file, or the `--set` that changed it.

The YAML text is composed into its nodes, which know their lines, and a key's path is walked as far
as the file holds it. So an error about an absent key names the line of the group that lacks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import yaml

from diet_ray.config.section import ConfigError
from diet_ray.errors import LONGEST_VALUE, shortened

MERGE = "<<"
NO_YAML = (
    yaml.YAMLError,
    AttributeError,
    LookupError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What its parser raises: also for a date or a number that is none, for a tag such as `!!bool` on
something else, and for lists in lists in lists.."""


class Places:
    """The places of the keys of one file and of the overrides that follow it.

    Raises ConfigError if the text is no YAML or holds a key twice.
    """

    def __init__(self, uri: str, text: str, overrides: Sequence[str] = ()) -> None:
        self._uri, self._overrides = uri, list(overrides)
        try:
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = f":{mark.line + 1}" if mark else ""
            raise ConfigError(f"{uri}{line}: not valid YAML: {error.problem}") from None
        except NO_YAML as error:
            raise ConfigError(f"{uri}: not valid YAML: {error}") from None
        self._refuse_twice(self._root, "", set())

    def of(self, key: str) -> str:
        """Where `key` (a path such as `evaluation.candidates.0.name`) was set, for people.

        `configs/x.yaml:37`, or `--set memory.ratio=2`; the file alone where it holds no part of
        the path. For a group in which overrides changed something, its line and those.
        """
        by_path = [(override.partition("=")[0].strip(), override) for override in self._overrides]
        replaced = [override for path, override in by_path if _within(key, path)]
        if replaced:
            return f"--set {shortened(replaced[-1], LONGEST_VALUE)}"
        line = self._line(key)
        place = self._uri if line is None else f"{self._uri}:{line}"
        changed = [
            f" --set {shortened(override, LONGEST_VALUE)}"
            for path, override in by_path
            if _within(path, key)
        ]
        return f"{place} with{','.join(changed)}" if changed else place

    def tell(self, message: str, known: Sequence[str]) -> str:
        """A message that begins with a key's path, with the key's place in front.

        known: the first parts that a key can have; any other message is left as it is.
        """
        found = re.match(r"([a-z_]+)((?:\.[^\s:]+(?::[^\s:]+)*)*):\s", message)
        if not found or found[1] not in known:
            return message
        return f"{self.of(found[1] + found[2])}: {message}"

    def _line(self, key: str) -> int | None:
        """Line, from 1, of the last part of the path that the file holds."""
        node, rest, line = self._root, key, None
        while rest:
            step = next(_steps(node, rest), None)
            if step is None:
                break
            line, node, rest = step
        return line

    def _refuse_twice(self, node: yaml.Node | None, path: str, seen: set[int]) -> None:
        if id(node) in seen:  # an alias; it may even hold itself
            return
        seen.add(id(node))
        lines: dict[str, int] = {}
        for name, number, inner in _entries(node):
            where = f"{path}.{name}" if path else name
            if name in lines and isinstance(node, yaml.MappingNode):
                raise ConfigError(
                    f"{self._uri}:{number}: {where}: stands there twice, first in line "
                    f"{lines[name]}; remove one of them"
                )
            lines[name] = number
            self._refuse_twice(inner, where, seen)


def _within(key: str, group: str) -> bool:
    return key == group or key.startswith(f"{group}.")


def _entries(node: yaml.Node | None) -> Iterator[tuple[str, int, yaml.Node]]:
    """Key (of a list: index), line and value of what a node holds."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield str(name.value), name.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield str(index), value.start_mark.line + 1, value


def _steps(node: yaml.Node | None, path: str) -> Iterator[tuple[int, yaml.Node, str]]:
    """Line and value of the entry with which `path` begins, and what follows; then merged ones.

    A key may hold dots itself, as a network's class does.
    """
    merged: list[yaml.Node] = []
    for name, line, value in _entries(node):
        if _within(path, name):
            yield line, value, path[len(name) + 1 :]
        elif name == MERGE:
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
    for value in merged:
        yield from _steps(value, path)

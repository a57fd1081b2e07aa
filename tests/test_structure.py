"""The house rules that a reader relies on: docstrings, the flow of imports, mirrored tests."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "diet_ray"

GROUND = (
    "version",
    "errors",
    "config",
    "documents",
    "storage",
    "devices",
    "filesystems",
    "tensor_files",
    "retries",
    "seeds",
    "whereabouts",
    "telemetry",
    "log_lines",
    "progress",
    "running",
    "runtime",
)
ROOMS = (
    "logs",
    "models",
    "training",
    "scoring",
    "memory",
    "distill",
    "evaluation",
    "search",
    "report",
    "plan",
)
# The composition root, the functions of the package itself, and the measures of all of it: they
# import everything, and only jobs/ and users import them.
TOP = ("pipeline", "library", "bench")

# Folders of tests that mirror something else than a room.
OTHER_TESTS = {"chaos", "cluster", "examples", "fuzz", "jobs"}
# Tests on the top floor that are not about one module.
WHOLE_TESTS = {"structure", "quickstart", "package"}

FORBIDDEN = {
    r"^\s*(import|from) (pickle|cloudpickle|dill|joblib)\b": "nothing pickled in an artifact",
    r"\byaml\.load\(": "use yaml.safe_load",
    r"\btorch\.load\((?![^)]*weights_only=True)": "use safetensors, or weights_only=True",
    r"\bray\._private\b": "Ray's public interface only",
}
# Where there is no public one.
PRIVATE_RAY = "diet_ray.running.draining"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
every_module = pytest.mark.parametrize("module", MODULES)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


@cache
def imports(module: str) -> frozenset[str]:
    """Modules of this package that `module` imports, wherever in its text it does so."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import, line {node.lineno}"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else str(node.module))
    return frozenset(found & MODULES.keys())


def room(module: str) -> str:
    """The part right below the package; empty for the package itself."""
    return [*module.split("."), ""][1]


def floor(module: str) -> int:
    """Where a module stands in the flow: it may import from lower or equal floors."""
    name = room(module)
    if name in GROUND:
        return 0
    return len(ROOMS) + 1 if name in (*TOP, "") else 1 + ROOMS.index(name)


@every_module
def test_has_a_docstring(module: str) -> None:
    assert ast.get_docstring(tree(module)), f"{MODULES[module]}: say what the module is for"


@every_module
def test_stands_in_a_room(module: str) -> None:
    assert room(module) in (*GROUND, *ROOMS, *TOP, ""), f"{room(module)} is no room of DESIGN.md"


@every_module
def test_imports_follow_the_flow(module: str) -> None:
    against = [other for other in imports(module) if floor(other) > floor(module)]
    assert against == [], f"{module} imports from a room to its right"
    if room(module) not in (*TOP, ""):
        assert not {f"diet_ray.{top}" for top in TOP} & imports(module)


@every_module
def test_no_import_comes_back_to_its_module(module: str) -> None:
    seen: set[str] = set()
    waiting = list(imports(module))
    while waiting:
        reached = waiting.pop()
        if reached not in seen:
            seen.add(reached)
            waiting += imports(reached)
    assert module not in seen, f"{module} is reached again from what it imports"


@every_module
def test_uses_nothing_forbidden(module: str) -> None:
    text = MODULES[module].read_text()
    found = [reason for rule, reason in FORBIDDEN.items() if re.search(rule, text, re.MULTILINE)]
    assert found == (["Ray's public interface only"] if module == PRIVATE_RAY else [])


def mirrored(test: Path) -> str:
    """The module that a test file is about, by its name."""
    folder = test.relative_to(ROOT / "tests").parent
    return ".".join(["diet_ray", *folder.parts, test.stem.removeprefix("test_")])


@pytest.mark.parametrize(
    "test",
    [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if path.relative_to(ROOT / "tests").parts[0] not in OTHER_TESTS
        and not (path.parent.name == "tests" and path.stem.removeprefix("test_") in WHOLE_TESTS)
    ],
)
def test_a_test_mirrors_a_module(test: str) -> None:
    assert mirrored(ROOT / test) in MODULES, f"{test} mirrors no module; move or rename it"


@pytest.mark.parametrize(
    "text",
    ["import pickle\n", "    from pickle import loads\n", "torch.load(path)", "yaml.load(text)"],
)
def test_the_forbidden_would_be_seen(text: str) -> None:
    assert any(re.search(rule, text, re.MULTILINE) for rule in FORBIDDEN)

"""The types that all sections share: every number has bounds, every place is one."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from diet_ray.config import NetworkConfig, RunConfig, Section
from diet_ray.models.registry import network_names, parameters_of

OUTPUT = {"output": "x", "search": {"distilled": "y"}}


def numbers_in(annotation: Any, metadata: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """What every int and float within a type is annotated with."""
    if annotation in (int, float):
        yield metadata
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *own = typing.get_args(annotation)
        yield from numbers_in(inner, (*metadata, *own))
        return
    for argument in typing.get_args(annotation):
        yield from numbers_in(argument)


def unpacked(metadata: tuple[Any, ...]) -> Iterator[Any]:
    for entry in metadata:
        if isinstance(entry, FieldInfo):
            yield from unpacked(tuple(entry.metadata))
        elif isinstance(entry, Interval):
            yield from entry
        else:
            yield entry


def unbounded(schema: type[BaseModel], seen: set[type[BaseModel]], path: str = "") -> Iterator[str]:
    """Paths of the numbers that lack a bound, in a section and all below it."""
    if schema in seen:
        return
    seen.add(schema)
    for name, field in schema.model_fields.items():
        for metadata in numbers_in(field.annotation, tuple(field.metadata)):
            told = list(unpacked(metadata))
            low = any(isinstance(m, Ge | Gt) for m in told)
            if not (low and any(isinstance(m, Le | Lt) for m in told)):
                yield f"{path}{name}"
        for inner in sections_in(field.annotation):
            yield from unbounded(inner, seen, f"{path}{name}.")


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from sections_in(argument)


def test_every_number_of_a_configuration_has_both_bounds() -> None:
    seen: set[type[BaseModel]] = set()
    assert list(unbounded(RunConfig, seen)) == []
    assert len(seen) > 20, "the walk reaches the sections"


@pytest.mark.parametrize("name", sorted(set(network_names()) - {"ensemble"}))
def test_every_number_of_a_network_has_both_bounds(name: str) -> None:
    parameters = type(parameters_of(NetworkConfig(name=name)))
    assert list(unbounded(parameters, set())) == []


def test_a_missing_bound_would_be_seen() -> None:
    class Inner(Section):
        counts: list[int]

    class Outer(Section):
        inner: dict[str, Inner]
        share: float | None = None

    assert list(unbounded(Outer, set())) == ["inner.counts", "share"]


def refusal(tree: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        RunConfig.model_validate({**OUTPUT, **tree})
    return str(caught.value)


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"models": {"embedding_dim": 10**8}}, "less than or equal to 16384"),
        ({"models": {"mmoe": {"tower_units": [10**8]}}}, "less than or equal to 16384"),
        ({"distill": {"inner": {"steps": 10**12}}}, "less than or equal to 1000000"),
        ({"seed": 10**30}, "less than or equal to 1000000000000000000"),
        ({"seed": True}, "is true, which is no number"),
        ({"memory": {"keep": False}}, "is false, which is no number"),
        ({"evaluation": {"full_protocol": {"batch_size": True}}}, "is true, which is no number"),
        ({"resources": {"cluster_limit": {"CPU": True}}}, "is true, which is no number"),
    ],
)
def test_no_number_is_beyond_its_bounds_or_a_truth_value(tree: dict[str, Any], told: str) -> None:
    assert told in refusal(tree)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", "is empty; name a folder"),
        (" ", "is empty; name a folder"),
        ("~/x", "no shell reads a configuration"),
        ("$HOME/x", "no shell reads a configuration"),
        ("s3://$BUCKET/x", "no shell reads a configuration"),
        ("a\0b", "no shell reads a configuration"),
        ("a/" + "x" * 256, "holds a name of more than 255 bytes"),
    ],
)
@pytest.mark.parametrize("key", ["output", "reference", "search"])
def test_a_place_is_written_out(key: str, path: str, told: str) -> None:
    trees = {
        "output": {"output": path},
        "reference": {"reference": {"folder": path}},
        "search": {"search": {"distilled": path}},
    }
    assert told in refusal(trees[key])


def test_a_place_is_the_same_from_every_folder() -> None:
    config = RunConfig.model_validate({**OUTPUT, "reference": {"folder": "s3://bucket/r"}})
    assert config.output == os.path.abspath("x")
    assert config.search.distilled == os.path.abspath("y")
    assert config.reference.folder == "s3://bucket/r"

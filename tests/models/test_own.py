"""A class of anyone's own: how it is found, and what its constructor is called with."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from torch import nn

from diet_ray.config import ConfigError
from diet_ray.models.own import arguments_of, build_own, import_network, parameters_in
from tests.models import own_network
from tests.models.own_network import Plain, TakesAny, Whole

SIZES = {"fields": 3, "embedding_dim": 4, "tasks": 2}


def test_a_class_is_found_by_its_module() -> None:
    assert import_network("tests.models.own_network:Whole") is Whole


@pytest.mark.parametrize("name", ["tests.models.own_network:no_class", "math:pi"])
def test_what_is_no_module_class_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"not a class derived from torch\.nn\.Module"):
        import_network(name)


def test_sizes_are_filled_in_by_name_wherever_they_stand() -> None:
    network = build_own(Plain, SIZES, parameters_in(Plain)())
    assert isinstance(network, Plain)
    assert network.hidden.in_features == 12
    assert network.logits.out_features == 2


def test_parameters_are_the_other_arguments_with_their_types_and_defaults() -> None:
    typed = parameters_in(Whole)
    assert set(typed.model_fields) == {"units", "dropout", "activation"}
    given = typed.model_validate({"units": [5, "6"], "dropout": 0})
    assert given.model_dump(mode="json") == {"units": [5, 6], "dropout": 0.0}
    with pytest.raises(ValidationError, match="dropout"):
        typed.model_validate({"units": [5], "dropout": "high"})


def test_a_default_that_json_cannot_hold_identifies_only_where_another_is_given() -> None:
    typed = parameters_in(Whole)
    assert "activation" not in typed.model_validate({"units": [5]}).model_dump()
    other = typed.model_validate({"units": [5], "activation": nn.Tanh})
    assert other.model_dump()["activation"] is nn.Tanh


def test_a_constructor_gets_lists_of_its_own() -> None:
    given = parameters_in(Whole).model_validate({"units": [5]})
    for _ in range(2):
        network = build_own(Whole, SIZES, given)
        assert isinstance(network, Whole)
        assert len([layer for layer in network.layers if isinstance(layer, nn.Linear)]) == 2
    assert arguments_of(given)["units"] == [5]


def test_a_constructor_that_takes_any_argument_gets_all() -> None:
    given = parameters_in(TakesAny).model_validate({"k": 2, "f": 3, "d": 4, "more": 7})
    network = build_own(TakesAny, SIZES, given)
    assert isinstance(network, TakesAny)
    assert network.arguments == {"more": 7}
    assert given.model_dump() == {"k": 2, "f": 3, "d": 4, "more": 7}


def test_an_annotation_that_cannot_be_checked_takes_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unknown(nn.Module):
        def __init__(self, size: NoSuchType, fields: int = 1) -> None:  # type: ignore[name-defined] # noqa: F821
            super().__init__()

    monkeypatch.setattr(own_network, "Unknown", Unknown, raising=False)
    network = import_network("tests.models.own_network:Unknown")
    assert parameters_in(network).model_validate({"size": "any"}).model_dump() == {"size": "any"}

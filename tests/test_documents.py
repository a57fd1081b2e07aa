"""Sealed files come back as they were written, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_ray import documents, storage
from diet_ray.documents import SEAL

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
contents = st.dictionaries(st.text().filter(lambda key: key != SEAL), values, max_size=5)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("documents") / "any.json")


@given(content=contents)
def test_what_was_sealed_comes_back(uri: str, content: dict[str, Any]) -> None:
    documents.write_sealed(uri, content)
    assert documents.read_sealed(uri) == content


def test_keys_that_are_numbers_come_back_as_text(uri: str) -> None:
    """Ten comes before two then."""
    documents.write_sealed(uri, {"rows": {2: 1, 10: 3}})
    assert documents.read_sealed(uri) == {"rows": {"2": 1, "10": 3}}


@given(content=contents, other=contents)
def test_other_content_under_a_seal_is_refused(
    uri: str, content: dict[str, Any], other: dict[str, Any]
) -> None:
    documents.write_sealed(uri, content)
    seal = storage.read_json(uri)[SEAL]
    storage.write_json(uri, {**other, SEAL: seal})
    if json.dumps(other, sort_keys=True) != json.dumps(content, sort_keys=True):
        with pytest.raises(storage.StorageError, match=r"any\.json: damaged: .* its seal vouches"):
            documents.read_sealed(uri, "write it again")


def test_a_file_from_before_there_were_seals_is_read(tmp_path: Path) -> None:
    uri = str(tmp_path / "old.json")
    storage.write_json(uri, {"rows": 3})
    assert documents.read_sealed(uri) == {"rows": 3}

"""Which line an error about a key names."""

from __future__ import annotations

import pytest

from diet_ray.config import ConfigError
from diet_ray.config.places import Places

TEXT = """\
# a comment
output: results
evaluation:
  candidates:
    - &first {name: dcn}
    - name: wukong
      parameters: {rank: 4}
    - {<<: *first, label: again}
search:
  space:
    dcn: &options
      num_cross_layers: [1, 2]
      rank: [4]
    own.networks:Small:
      <<: *options
      units: [8]
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("output", 2),
        ("evaluation.candidates", 4),
        ("evaluation.candidates.0.name", 5),
        ("evaluation.candidates.1", 6),
        ("evaluation.candidates.1.parameters.rank", 7),
        ("evaluation.candidates.2.label", 8),
        ("evaluation.candidates.2.name", 5),  # merged in from the first
        ("search.space.dcn.num_cross_layers.1", 12),
        ("search.space.own.networks:Small", 14),
        ("search.space.own.networks:Small.units", 16),
        ("search.space.own.networks:Small.rank", 13),
        ("evaluation.candidates.7.name", 4),  # as far as the file holds it
        ("evaluation.seeds", 3),
        ("search.space.dcn.rank.low", 13),
    ],
)
def test_a_key_has_a_line(key: str, line: int) -> None:
    assert Places("run.yaml", TEXT).of(key) == f"run.yaml:{line}"


@pytest.mark.parametrize("key", ["memory.ratio", "", "outputs"])
def test_a_key_that_the_file_does_not_hold_has_none(key: str) -> None:
    assert Places("run.yaml", TEXT).of(key) == "run.yaml"


@pytest.mark.parametrize(
    ("overrides", "key", "place"),
    [
        (["output=b"], "output", "--set output=b"),
        (["output=b", "output=c"], "output", "--set output=c"),
        (["search={space: {}}"], "search.space.dcn", "--set search={space: {}}"),
        (["search.trials=2"], "search", "run.yaml:9 with --set search.trials=2"),
        (["memory.keep=2"], "memory", "run.yaml with --set memory.keep=2"),
        (["searches=2"], "search", "run.yaml:9"),
    ],
)
def test_an_override_is_named_instead(overrides: list[str], key: str, place: str) -> None:
    assert Places("run.yaml", TEXT, overrides).of(key) == place


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: {c: 2}\na: 3\n", "run.yaml:3: a: stands there twice, first in line 1; remove"),
        ("a:\n- b: 1\n  c: 2\n  b: 3\n", "run.yaml:4: a.0.b: stands there twice, first in line 2;"),
        ("a:\n  b: [1\nc: 2\n", "run.yaml:3: not valid YAML: "),
    ],
)
def test_a_text_that_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Places("run.yaml", text)
    assert str(caught.value).startswith(words)


def test_a_key_may_be_overridden_where_another_is_merged_in() -> None:
    assert Places("run.yaml", "a: &a {b: 1}\nc:\n  <<: *a\n  b: 2\n").of("c.b") == "run.yaml:4"


def test_an_alias_that_holds_itself_ends() -> None:
    assert Places("run.yaml", "a: &a\n  b: *a\n").of("a.b.b") == "run.yaml:2"


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ("search.space.dcn.rank: 0 is too small", "run.yaml:13: "),
        ("search.space.own.networks:Small.units: empty", "run.yaml:16: "),
        ("search: nothing to do", "run.yaml:9: "),
        ("search.space.dcn: line one\nsearch.space: line two", "run.yaml:11: "),
        ("s3://bucket/file: no such file", ""),
        ("searching: an unknown first part", ""),
        ("search has no colon behind it", ""),
    ],
)
def test_a_message_that_begins_with_a_key_gets_its_place(message: str, place: str) -> None:
    told = Places("run.yaml", TEXT).tell(message, ["search", "output"])
    assert told == f"{place}{message}"

from typing import Any

from diet_ray.logs.blocks import Block, Blocks, Role
from diet_ray.logs.doubts import doubts, unseen_table

ROLES: tuple[Role, ...] = ("historical", "historical", "subsequent", "validation", "test")
ROWS = 100


def block(
    name: str,
    role: Role,
    values: dict[str, int],
    rates: dict[str, float],
    unseen: dict[str, float],
) -> Block:
    sizes = {field: count + 1 for field, count in values.items()}  # id 0
    return Block(name, role, "day", ROWS, sizes, rates, (), unseen)


def blocks(
    values: dict[str, int],
    unseen: list[dict[str, float]],
    rates: tuple[dict[str, float], ...] = ({"y": 0.2}, {"y": 0.3}),
) -> Blocks:
    """Five blocks of 100 rows; every field has the same number of values in all of them."""
    made: list[dict[str, Any]] = [{"rates": rates[0], "unseen": {}}]
    made += [{"rates": rates[1], "unseen": shares} for shares in unseen]
    names = ("historical-1", "historical-2", "subsequent", "validation", "test")
    return Blocks(
        uri="somewhere",
        fields=tuple(values),
        tasks=tuple(rates[0]),
        blocks=tuple(block(n, r, values, **m) for n, r, m in zip(names, ROLES, made, strict=True)),
        row_group_rows=10,
        fingerprint="f",
        source_bytes=0,
        quarantined={},
        outside_intervals=0,
    )


def shares(*of_blocks: float, field: str = "f") -> list[dict[str, float]]:
    return [{field: share} for share in of_blocks]


def test_a_good_field_and_task_raise_no_doubt() -> None:
    assert doubts(blocks({"f": 50}, shares(0.9, 0.5, 0.5, 0.5))) == []


def test_a_constant_field() -> None:
    [doubt] = doubts(blocks({"f": 1}, shares(0, 0, 0, 0)))
    assert doubt == ("field 'f' is constant in history, over 200 rows: leave it out of the fields")


def test_nearly_every_row_has_its_own_value() -> None:
    [doubt] = doubts(blocks({"f": 191}, shares(1, 1, 1, 1)))
    assert "'f' has 191 values in history's 200 rows" in doubt
    assert doubts(blocks({"f": 190}, shares(0, 0, 0, 0))) == []


def test_values_that_history_lacks() -> None:
    [doubt] = doubts(blocks({"week": 7}, shares(1, 0.4, 0.51, 1, field="week")))
    assert (
        "'week' has values that history lacks in 40% of subsequent, 51% of validation, 100% of test"
    ) in doubt


def test_a_task_with_one_label() -> None:
    for rate in (0.0, 1.0):
        rates: tuple[dict[str, float], ...] = ({"y": rate, "z": 0.0}, {"y": rate, "z": 0.1})
        [doubt] = doubts(blocks({"f": 50}, shares(0, 0, 0, 0), rates))
        assert f"task 'y' is {rate:.0f} in all 200 rows of history" in doubt


def test_nothing_is_said_of_hashed_fields_and_of_blocks_that_do_not_tell() -> None:
    assert doubts(blocks({"f": 50, "hashed": 1}, shares(0, 0, 0, 0))) == []
    silent = blocks({"f": 1}, [{}, {}, {}, {}])
    assert (doubts(silent), unseen_table(silent)) == ([], [])


def test_table_names_fields_blocks_and_shares() -> None:
    unseen = [{"f": share, "known": 0.0} for share in (0.5, 0.25, 0.125, 0.0004)]
    assert unseen_table(blocks({"f": 50, "known": 2, "hashed": 8}, unseen)) == [
        "rows with a value that earlier history lacks:",
        "  field  historical-2  subsequent  validation  test",
        "  f             50.0%       25.0%       12.5%  0.0%",
        "  none in known",
        "  not known of hashed fields: hashed",
    ]

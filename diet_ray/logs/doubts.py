"""What of a prepared log cannot help a model, as its manifest tells: fields and tasks to look at.

A value of a row is *unseen* if no historical block before the row's own holds it; so an embedding
that is trained on history knows nothing of it. Hashed fields have no vocabulary, and nothing is
said about them.
"""

from __future__ import annotations

from collections.abc import Iterator

from diet_ray.logs.blocks import Block, Blocks

NEARLY_ALL = 0.95  # of history's rows with a value of their own: an identifier of the row
MOST = 0.5  # of a block's rows with an unseen value
BLOCKS_SHOWN = 6


def doubts(blocks: Blocks) -> list[str]:
    """A sentence, with its figures, for every field and task that cannot help."""
    told = [_about_field(blocks, field) for field in blocks.fields]
    told += [_about_task(blocks, task) for task in blocks.tasks]
    return [sentence for sentence in told if sentence]


def _about_field(blocks: Blocks, field: str) -> str:
    later = [b for b in blocks.blocks if b.role != "historical" and field in b.unseen]
    if not later:
        return ""
    rows = blocks.historical_rows
    values = blocks.historical[-1].vocabulary_sizes[field] - 1  # id 0 is no value
    remedy = "leave it out of the fields"
    if values == 1:
        return f"field {field!r} is constant in history, over {rows:,} rows: {remedy}"
    if values > NEARLY_ALL * rows:
        return (
            f"field {field!r} has {values:,} values in history's {rows:,} rows, nearly one for "
            f"each: nothing can be learned about a value that does not come back; {remedy}"
        )
    if max(block.unseen[field] for block in later) > MOST:
        shares = ", ".join(f"{block.unseen[field]:.0%} of {block.name}" for block in later)
        return (
            f"field {field!r} has values that history lacks in {shares}: nothing is learned about "
            f"them; {remedy}, or replace it by one whose values come back (a weekday for a date)"
        )
    return ""


def _about_task(blocks: Blocks, task: str) -> str:
    rates = {block.label_rates[task] for block in blocks.historical}
    if rates not in ({0.0}, {1.0}):
        return ""
    return (
        f"task {task!r} is {rates.pop():.0f} in all {blocks.historical_rows:,} rows of history: "
        "nothing can be learned about it; leave it out of the tasks, or check how it is made"
    )


def unseen_table(blocks: Blocks) -> list[str]:
    """The share of rows with an unseen value by field and block (the last few), for people."""
    shown = [block for block in blocks.blocks if block.unseen][-BLOCKS_SHOWN:]
    if not shown:
        return []
    return ["rows with a value that earlier history lacks:", *_table(blocks.fields, shown)]


def _table(fields: tuple[str, ...], shown: list[Block]) -> Iterator[str]:
    with_unseen = [f for f in fields if any(block.unseen.get(f) for block in shown)]
    wide = max(map(len, ["field", *with_unseen]))
    if with_unseen:
        yield f"  {'field':<{wide}}  " + "  ".join(block.name for block in shown)
    for field in with_unseen:
        shares = "  ".join(f"{b.unseen[field]:>{len(b.name)}.1%}" for b in shown)
        yield f"  {field:<{wide}}  {shares}"
    without = [f for f in fields if f in shown[-1].unseen and f not in with_unseen]
    if without:
        yield f"  none in {', '.join(without)}"
    hashed = [f for f in fields if f not in shown[-1].unseen]
    if hashed:
        yield f"  not known of hashed fields: {', '.join(hashed)}"

import json

import pyarrow as pa

from diet_ray.logs.cleaning import NO_TIME, bad_label, clean
from diet_ray.logs.sources.source import BadRow, RawBatch


def test_bad_rows_keep_reason_and_text() -> None:
    rows = pa.table(
        {
            "_row": [0, 1, 3, 4, 5, 6],
            "time_ms": pa.array([10, None, 30, 40, 50, None]),
            "f": ["a", "b", "c", "d", "e", "g"],
            "click": [1.0, 0.0, 2.0, None, 0.0, 0.5],
            "like": [0.0, 0.0, 0.0, 0.0, -1.0, 1.0],
        }
    )
    raw = pa.table({"text": ["a", "b", "c", "d", "é", "g"]})
    malformed = BadRow(2, "wrong number of columns", "{}")
    good, bad = clean(RawBatch(rows, raw, (malformed,)), ["click", "like"])
    assert good.to_pylist() == [{"_row": 0, "time_ms": 10, "f": "a", "click": 1, "like": 0}]
    assert good.schema.field("click").type == pa.uint8()
    assert [(b.row, b.reason) for b in bad] == [
        (1, NO_TIME),
        (2, "wrong number of columns"),
        (3, bad_label("click")),
        (4, bad_label("click")),
        (5, bad_label("like")),
        (6, NO_TIME),
    ]
    assert json.loads(bad[4].raw) == {"text": "é"}

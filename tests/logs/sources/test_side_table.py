from pathlib import Path

import pyarrow as pa
import pytest

from diet_ray.logs.sources.side_table import load_side_table
from diet_ray.logs.sources.source import LogsError


def write(folder: Path, **texts: str) -> list[str]:
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return [str(folder / f"{name}.csv") for name in texts]


def ids(*values: int | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.int64())])


def test_looks_up_by_id_in_several_files(tmp_path: Path) -> None:
    files = write(tmp_path, a="age,id,sex\n3,7,m\n,5,f\n", b="sex,id,age\nf,6,1\nm,x,2\nm,5,9\n")
    table = load_side_table(files, "id", ["age", "sex"], 0)
    assert table.keys.tolist() == [5, 6, 7]
    found = table.look_up(ids(7, None, 4, 5, 8, 6)).to_pydict()
    assert found == {
        "age": ["3", None, None, None, None, "1"],
        "sex": ["m", None, None, "f", None, "f"],
    }


def test_an_empty_table_knows_nobody(tmp_path: Path) -> None:
    table = load_side_table(write(tmp_path, a="id,age\n"), "id", ["age"], 0)
    assert table.look_up(ids(0, 1)).to_pydict() == {"age": [None, None]}


def test_malformed_rows_are_refused_above_the_limit(tmp_path: Path) -> None:
    files = write(tmp_path, a="id,age\n1,2\n3\n")
    with pytest.raises(LogsError, match=r"a\.csv: 1 rows with a wrong number of columns"):
        load_side_table(files, "id", ["age"], 0.4)
    assert load_side_table(files, "id", ["age"], 0.5).keys.tolist() == [1]

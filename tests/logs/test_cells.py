from pathlib import Path

import pyarrow as pa
import pytest

from diet_ray.logs.cells import read_cells, write_cells
from diet_ray.storage import StorageError

ROWS = pa.table({"text": ["a", None, "b", "c"], "number": [1, 2, 3, 4]})


def test_gives_back_the_cells_that_are_wanted(tmp_path: Path) -> None:
    place = str(tmp_path / "cells.arrow")
    scattered = pa.concat_tables([ROWS.slice(3), ROWS.slice(0, 1)])
    cells = [(["x", 0], ROWS.slice(1, 2)), (["y", 1], ROWS.slice(0, 0)), (["z", 2], scattered)]
    write_cells(place, cells)
    assert read_cells(place, lambda key: True) == cells
    assert read_cells(place, lambda key: key[1] >= 2) == cells[2:]
    assert read_cells(place, lambda key: key[0] == "?") == []


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    place = tmp_path / "cells.arrow"
    write_cells(str(place), [([0], ROWS)])
    place.write_bytes(place.read_bytes()[:-20])
    with pytest.raises(StorageError, match=r"cells\.arrow: not a whole Arrow file of ours"):
        read_cells(str(place), lambda key: True)

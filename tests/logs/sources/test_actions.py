import pyarrow as pa

from diet_ray.logs.sources.actions import ACTIONS, TASKS, action_labels

CODES = {"click": "0", "cart": "1", "buy": "2", "favourite": "3"}


def test_a_row_has_the_label_of_its_action() -> None:
    column = pa.chunked_array([["0", "1", "2"], ["3", "4", None, "00"]], pa.string())
    labels = action_labels(column, CODES, ACTIONS)
    nothing = [None, None, None]
    assert {task: label.to_pylist() for task, label in labels.items()} == {
        "click": [1, 0, 0, 0, *nothing],
        "favourite": [0, 0, 0, 1, *nothing],
        "buy": [0, 0, 1, 0, *nothing],
        "cart": [0, 1, 0, 0, *nothing],
    }
    assert [str(label.type) for label in labels.values()] == ["double"] * 4
    assert list(action_labels(column, CODES, TASKS)) == ["click", "favourite", "buy"]

import json

import pytest

from napari_simmat.progress import JobEvent
from napari_simmat.widgets.child_process import read_event


@pytest.mark.parametrize(
    "values",
    [
        {"done": 0, "total": 1, "message": "reading"},
        {"done": 2, "total": 6, "message": "step", "figures": {"step": 2, "loss": 0.5}},
        {"done": 0, "total": 2, "message": "a.tif", "fraction": None},
        {"done": 1, "total": 2, "message": "a.tif", "fraction": 0.5, "number": 0, "state": "kept"},
        {"plan": {"output": "out", "files": [], "skipped": []}},
        {"finished": 3},
        {"output": None, "metrics": {"before": {"click": 50.0}}, "sentence": "It did not help."},
    ],
)
def test_read_event_of_a_printed_event_is_the_event(values):
    assert read_event(json.dumps(values).encode()) == JobEvent(**values)


@pytest.mark.parametrize(
    "line",
    [b"", b"a warning", b"\xff", b"3", b"[]", b"{}", b'{"done": 1}', b'{"done": "x"}', b'{"a": 1}'],
)
def test_read_event_of_what_a_library_prints_is_none(line):
    assert read_event(line) is None

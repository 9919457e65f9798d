import json
import tomllib

import pytest

from napari_simmat.progress import JobEvent
from napari_simmat.widgets.subprocess import read_event, settings_text


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


def test_settings_text_of_arguments_is_the_same_as_toml():
    words = ["segment", "my images", '--model=a "b"', "--rois", "--no-link", "--auto.seeds=maxima"]
    text = settings_text([*words, "--prompts=click", "--prompts=box"])
    assert tomllib.loads(text) == {
        "segment": {
            "model": 'a "b"',
            "rois": True,
            "link": False,
            "auto": {"seeds": "maxima"},
            "prompts": ["click", "box"],
        }
    }


def test_settings_text_leaves_out_a_path_with_an_equals_sign():
    words = ["segment", "2026/dose=5/a.tif", "--model=tiny", "--output=dose=5"]
    assert tomllib.loads(settings_text(words)) == {"segment": {"model": "tiny", "output": "dose=5"}}

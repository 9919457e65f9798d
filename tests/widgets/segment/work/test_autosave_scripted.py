"""A session from Python and one in the window: the same steps, the same objects, the same log."""

import json

import numpy as np
import pytest

from napari_simmat.annotation.session import Session
from napari_simmat.annotation.session_image import SessionImage
from napari_simmat.io.files import user_folder
from tests.widgets.scenes import CENTERS, gray
from tests.widgets.segment.noted import work_on


def commands(path):
    """The name of each command in a log."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()[1:]]
    return [line["value"]["name"] for line in lines if line["what"] == "do"]


@pytest.fixture
def log(ready):
    """The log of a window in which two objects were committed, and the window."""
    for center in CENTERS[:2]:
        ready.add_object(*center)
    (path,) = user_folder("sessions").glob("*.jsonl")
    ready.idle()
    return path


def test_window_and_script_do_and_log_the_same(ready, log, tmp_path):
    with Session(SessionImage.of(gray(), name="discs"), log=tmp_path / "log.jsonl") as session:
        for center in CENTERS[:2]:
            session.click(*center)
            session.commit()
        assert np.array_equal(session.labels, ready.objects)
        assert commands(tmp_path / "log.jsonl") == commands(log)
        first = [path.read_text("utf-8").splitlines()[0] for path in (log, tmp_path / "log.jsonl")]
        assert json.loads(first[0])["shape"] == json.loads(first[1])["shape"]


@pytest.mark.slow
def test_script_goes_on_with_the_log_of_a_window(ready, log, tmp_path):
    work_on(ready)
    copy = tmp_path / "copy.jsonl"
    ready.idle()
    copy.write_bytes(log.read_bytes())
    with Session(SessionImage.of(gray(), name="discs"), log=copy) as session:
        assert np.array_equal(session.labels, ready.objects)
        assert np.array_equal(session.prediction().masks[0], ready.mask)
        while session.undo():
            pass
        assert not session.labels.any()


@pytest.mark.slow
def test_window_restores_the_log_of_a_script(window, tmp_path):
    path = tmp_path / "scripted.jsonl"
    with Session(SessionImage.of(gray(), name="discs"), log=path) as session:
        for center in CENTERS[:2]:
            session.click(*center)
            session.commit("disc")
        drafts = session.propose()
        session.reject(drafts[0])
        labels = session.labels.copy()
    before = path.read_bytes()
    window.open(gray(), name="discs")
    window.idle()
    window.tab.recovery.open(path)
    window.idle()
    assert np.array_equal(window.objects, labels)
    assert len(window.workspace.session.drafts.open) == len(drafts) - 1
    window.undo()
    assert len(window.workspace.session.drafts.open) == len(drafts)
    assert path.read_bytes() == before, "the window goes on with a copy"

"""Learning from committed objects: what is offered, what changes, and what survives."""

import os
import random
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qtpy.QtWidgets import QInputDialog
from scipy.ndimage import gaussian_filter

from napari_simmat.annotation.learning_request import AdaptRequest, adapt_job
from napari_simmat.annotation.session_file import LOST
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.io.files import partial_path, user_folder
from napari_simmat.progress import Progress, finish
from napari_simmat.training import evidence, few_shot
from napari_simmat.training.adapting import AdaptedCheckpoint, FewShotConfig
from napari_simmat.training.annotations import AnnotatedPlane
from napari_simmat.training.evidence import ENOUGH, least_gain
from napari_simmat.widgets.segment.form.learn_panel import (
    AGAIN_AFTER,
    COMMIT_MORE,
    FEW_LEARN,
    GOES_ON,
    LEARN_AGAIN,
    LEARNS,
    LEARNS_CHANNELS,
)
from napari_simmat.widgets.segment.work.autosave import NEXT_OBJECT, RESTORED
from napari_simmat.widgets.segment.work.learning import (
    CANCELED,
    KEPT,
    LEARN,
    LEARNING,
    MAY_LEARN,
    file_of,
)
from tests.training.simulated_learning import OFFER_ANYTHING
from tests.widgets.scenes import iou
from tests.widgets.segment.noted import crash, kill_at_work, new_window, put, restore

CELLS = tuple((32 + 64 * row, 28 + 56 * column) for row in range(2) for column in range(4))
"""Centers of the cells, y and x."""
SHOWN = (0, 1, 2, 4, 5)
"""Those that are committed."""
TOUGH = 7
QUICK = FewShotConfig(steps=6, crops=1, prompted=2, side=96, folds=2, learning_rate=3e-3)
SHORT = replace(QUICK, steps=2, prompted=1, side=64)
MOMENTS = 1 + QUICK.steps * (QUICK.folds + 1)
"""Of a learning at which it is killed, in steps: from the first to what follows the last one."""


def cells() -> tuple[np.ndarray, np.ndarray]:
    """Dim cells with bright nuclei, which a click takes for the object, and labels 1..8."""
    y, x = np.indices((128, 224))
    values, labels = np.full(y.shape, 50.0), np.zeros(y.shape, np.int32)
    for number, (row, column) in enumerate(CELLS, start=1):
        labels[((y - row) / 20) ** 2 + ((x - column) / 17) ** 2 <= 1] = number
        values[np.hypot(y - row, x - column) < 10] += 130
    noise = np.random.default_rng(0).normal(0, 5, y.shape)
    image = gaussian_filter(values + 30 * (labels > 0) + noise, 0.6)
    return image.clip(0, 255).astype(np.uint8), labels


def open_cells(window: Any) -> Any:
    window.open(cells()[0], name="cells")
    window.tab.learning.config = QUICK
    return window


def commit(window: Any, *numbers: int) -> None:
    """Draw a box around each cell and commit what it gives."""
    for number in numbers:
        y, x = CELLS[number]
        window.drag(y - 21, x - 18, y + 21, x + 18)
        window.commit()


def learn(window: Any) -> None:
    window.tab.show_section("learn")
    window.take(window.tab.learn_panel.start)
    assert window.tab.learning.learns
    window.qtbot.waitUntil(lambda: not window.tab.learning.busy)
    window.idle()


def preview_of(window: Any, number: int) -> np.ndarray:
    """The mask of a click on a cell that is not committed."""
    window.click(*CELLS[number])
    return window.mask


@pytest.fixture
def with_cells(window):
    return open_cells(window)


def offer_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offer what was learned whatever it gained."""
    for name, value in OFFER_ANYTHING.items():
        monkeypatch.setattr(evidence, name, value)


@pytest.fixture(scope="module")
def result():
    """What was learned in very few steps, offered whatever it gained."""
    base = load_model("tiny")
    labels = np.where(np.isin(cells()[1], (1, 2, 3)), cells()[1], 0)
    stack = ChannelStack.build(cells()[0], inputs=base.spec.inputs)
    with pytest.MonkeyPatch.context() as monkeypatch:
        offer_anything(monkeypatch)
        plane = AnnotatedPlane.of(stack, labels)
        return finish(few_shot.learn_objects_job(base, [plane], SHORT))


class Core:
    """Takes the place of the core's job: it goes on until it is told what comes of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, result: Any = None) -> None:
        self.result = result
        self.start = self.folder = self.planes = None
        self.goes_on = self.closed = False
        monkeypatch.setattr(few_shot, "learn_objects_job", self.job)

    def job(self, _: Any, planes: Any, *__: Any, **named: Any) -> Any:
        self.planes, self.start, self.folder = planes, named["start"], named["folder"]
        self.goes_on = self.folder.exists()
        self.folder.mkdir(exist_ok=True)
        scores = few_shot.LeftOutScores(60, 70), few_shot.LeftOutScores(71, 75)
        try:
            while self.result is None:
                yield few_shot.LearnProgress(3, 9, "learning", *scores)
        finally:
            self.closed = True
        return self.result


@pytest.fixture
def core(monkeypatch, result):
    return Core(monkeypatch, result)


@pytest.fixture
def learned(with_cells, core):
    """A window that has learned a little from three cells."""
    commit(with_cells, 0, 1, 2)
    learn(with_cells)
    return with_cells


def few_learn(count: int) -> str:
    """What so few objects can show."""
    return FEW_LEARN.format(least_gain(count), f"{ENOUGH} objects", least_gain(ENOUGH))


@pytest.mark.slow
def test_learning_from_five_cells_segments_another_whole(with_cells, monkeypatch):
    offer_anything(monkeypatch)  # five can show no gain where boxes are right already
    window, truth = with_cells, cells()[1] == TOUGH + 1
    panel = window.tab.learn_panel
    before = iou(preview_of(window, TOUGH), truth)
    window.take(window.tab.buttons.clear)
    commit(window, *SHOWN[:2])
    assert not panel.start.isEnabled()
    assert panel.hint.text() == COMMIT_MORE.format("1 more object")
    commit(window, *SHOWN[2:])
    learn(window)
    assert window.status.text == window.workspace.session.adapted.sentence
    assert panel.start.text() == LEARN_AGAIN
    assert not panel.start.isEnabled()
    assert panel.hint.text() == AGAIN_AFTER.format("3 more objects")
    after = preview_of(window, TOUGH)
    assert iou(after, truth) > before + 0.1
    window.push(panel.before)
    assert iou(window.mask, truth) < iou(after, truth)
    window.push(panel.after)
    assert np.array_equal(window.mask, after)


def test_learning_is_offered_once_after_corrections(with_cells, monkeypatch):
    window, core, panel = with_cells, Core(monkeypatch), with_cells.tab.learn_panel
    monkeypatch.setattr("napari_simmat.widgets.segment.work.learning.FEW", 5)
    window.tab.resize(400, 500)
    commit(window, 0, 1, 4, 5)
    assert not window.status.offer
    assert few_learn(4) in panel.hint.text()
    y, x = CELLS[2]
    window.drag(y - 21, x - 18, y + 21, x + 18)
    window.add_object(y, x)
    assert window.status.text.endswith(MAY_LEARN)
    assert panel.hint.text() == f"{LEARNS.format('5 objects')} {few_learn(5)}"
    assert window.status.offer == LEARN
    window.take(window.tab.status.offer)
    window.qtbot.waitUntil(lambda: window.status.text.startswith(LEARNING.format("")))
    window.qtbot.waitUntil(lambda: window.status.fraction is not None)
    window.qtbot.waitUntil(lambda: not panel.bar.visibleRegion().isEmpty())
    window.qtbot.waitUntil(lambda: "click 60 → 71 %, box 70 → 75 %" in panel.hint.text())
    assert preview_of(window, 3).any(), "one can go on"
    assert window.status.kind == "done"
    window.commit()
    assert not window.status.offer, "once"
    window.qtbot.waitUntil(lambda: window.status.text.startswith(LEARNING.format("")))
    window.qtbot.waitUntil(window.tab.status.cancel.isVisible)
    window.take(window.tab.status.cancel)
    assert window.status.text == CANCELED
    window.qtbot.waitUntil(lambda: core.closed)
    window.idle()
    assert window.workspace.session.adapted is None
    assert panel.hint.text() == GOES_ON
    assert list(user_folder("sessions").glob("*.learning-*"))


def test_offer_to_learn_stays_beside_later_commits(with_cells, monkeypatch):
    window, core = with_cells, Core(monkeypatch)
    monkeypatch.setattr("napari_simmat.widgets.segment.work.learning.FEW", 5)
    commit(window, 0, 1, 4, 5)
    y, x = CELLS[2]
    window.drag(y - 21, x - 18, y + 21, x + 18)
    window.add_object(y, x)
    assert MAY_LEARN in window.status.text
    commit(window, 3)
    assert MAY_LEARN not in window.status.text, "the words once"
    assert window.status.offer == LEARN
    window.push(window.tab.status.offer)
    window.qtbot.waitUntil(lambda: core.folder is not None)
    window.tab.learning.cancel()
    window.qtbot.waitUntil(lambda: core.closed)
    window.idle()
    commit(window, 6)
    assert not window.status.offer, "taken once, it is in the menu"


def test_learning_without_gain_changes_nothing(with_cells, monkeypatch):
    window, core = with_cells, Core(monkeypatch)
    commit(window, 0, 1, 2)
    before, model = preview_of(window, 3), window.workspace.model
    scores = few_shot.LeftOutScores(60, 70)
    sentence = "Nothing changed."
    core.result = few_shot.FewShotResult(None, None, scores, scores, 0, 1, 1, 3, 1, sentence)
    panel = window.tab.learn_panel
    panel.complete.click()
    field = [(0, 0), (0, 100), (127, 100), (127, 0)]
    window.viewer.add_shapes([np.array(field)], shape_type="ellipse", name="field")
    window.idle()
    window.choose(panel.region, "field")
    learn(window)
    known = core.planes[0].complete
    assert known[60, 50], "all is labeled in the field"
    assert not known[60, 150]
    assert not known[4, 4], "an ellipse is not its rectangle"
    assert window.status.text == sentence
    assert window.workspace.model == model
    assert window.workspace.session.adapted is None
    assert np.array_equal(window.mask, before)
    assert not list(user_folder("sessions").glob("*.learning-*"))


@pytest.mark.slow
def test_learning_from_long_pixels_keeps_their_shape(window, core):
    window.open(cells()[0][::2], name="cells", scale=(2, 1))
    commit(window, 0, 1, 2)
    learn(window)
    assert core.planes[0].labels.shape == (64, 224)
    assert core.planes[0].pixel_size == (2, 1)


def test_recovery_after_a_crash_restores_the_adapted_model(learned, open_window):
    mine = preview_of(learned, 3)
    left = crash(learned)
    (checkpoint,) = user_folder("sessions").glob("*.safetensors")
    shutil.copy(checkpoint, left.with_name(left.stem + "." + checkpoint.name.split(".", 1)[1]))
    second = open_cells(open_window())
    restore(second)
    assert second.workspace.session.adapted == learned.workspace.session.adapted
    assert np.array_equal(second.mask, mine), "what was open is predicted with it"
    second.push(second.tab.learn_panel.before)
    assert not np.array_equal(second.mask, mine)


def test_recovery_without_the_adapted_model_says_it_is_lost(learned, open_window):
    crash(learned)
    (checkpoint,) = user_folder("sessions").glob("*.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    second = open_cells(open_window())
    restore(second)
    assert second.status.text == f"{RESTORED.format('3 objects', NEXT_OBJECT)} {LOST}"
    assert second.workspace.session.adapted is None
    assert second.tab.learn_panel.start.isEnabled()


@pytest.mark.slow
@pytest.mark.parametrize("state", ["cut off", "of another model"])
def test_learning_with_useless_leftovers_begins_anew(with_cells, monkeypatch, state):
    offer_anything(monkeypatch)
    monkeypatch.setattr(few_shot, "SAVE_INTERVAL", 0)
    window, panel = with_cells, with_cells.tab.learn_panel
    window.tab.learning.config = SHORT
    commit(window, 0, 1, 2)
    window.take(panel.start)
    window.qtbot.waitUntil(
        lambda: bool(list(user_folder("sessions").glob("*.learning-*/state.pt")))
    )
    window.push(window.tab.status.cancel)
    window.qtbot.waitUntil(lambda: window.tab.learning.worker.idle)
    (path,) = user_folder("sessions").glob("*.learning-*/state.pt")
    if state == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        left = torch.load(path)
        torch.save({**left, "settings": left["settings"].replace('"base": "', '"base": "0')}, path)
    assert panel.hint.text() == GOES_ON
    learn(window)
    assert window.workspace.session.adapted is not None


@pytest.mark.slow
def test_learning_after_a_crash_resumes(with_cells, open_window, monkeypatch):
    core = Core(monkeypatch)
    commit(with_cells, 0, 1, 2)
    with_cells.take(with_cells.tab.learn_panel.start)
    with_cells.qtbot.waitUntil(lambda: core.folder is not None and core.folder.exists())
    left, digest = crash(with_cells), core.folder.name.rsplit("-", 1)[1]
    shutil.copytree(core.folder, left.with_name(f"{left.stem}.learning-{digest}"))
    with_cells.close_widget()
    second = open_cells(open_window())
    second.workspace.accept()
    second.idle()
    assert second.tab.learn_panel.hint.text() == GOES_ON
    second.take(second.tab.learn_panel.start)
    second.qtbot.waitUntil(lambda: core.goes_on)
    assert core.folder.name.endswith(digest)


def learn_until_killed(folder: Path) -> None:
    """Commit and learn, twice; "learned" in the folder then names the checkpoint.

    The size of "moments" says in bytes how many steps that has taken so far.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        offer_anything(monkeypatch)
        monkeypatch.setattr(few_shot, "SAVE_INTERVAL", 0)
        window = open_cells(new_window())
        moments, begun = (folder / "moments").open("wb", buffering=0), 0

        def note(at: Progress) -> None:
            if isinstance(at, few_shot.LearnProgress):
                moments.truncate(begun + at.done)

        window.tab.learning.progressed.connect(note)
        for numbers in ((0, 1, 2), (4, 5, 6)):
            commit(window, *numbers)
            put(folder, window.objects)
            (folder / "go").touch()
            learn(window)
            (folder / "new").write_text(window.workspace.session.adapted.file)
            (folder / "new").replace(folder / "learned")
            begun += MOMENTS
            moments.truncate(begun)
        while True:
            window.click(*CELLS[TOUGH])


@pytest.mark.slow
@pytest.mark.parametrize("_kill", range(int(os.environ.get("SIMMAT_KILLS", 1))))
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_learning_killed_anywhere_resumes_to_the_same_result(
    open_window, tmp_path, monkeypatch, _kill
):
    moment = random.randrange(2 * MOMENTS + 1)

    def wait():
        while (tmp_path / "moments").stat().st_size < moment:
            time.sleep(0.002)
        time.sleep(0.3 * random.random())

    kill_at_work("tests.widgets.segment.work.test_learning", tmp_path, wait)
    offer_anything(monkeypatch)
    labels, named = np.load(tmp_path / "labels.npy"), tmp_path / "learned"
    window = open_cells(open_window())
    restore(window)
    assert np.array_equal(window.objects[labels > 0], labels[labels > 0])
    learned = window.workspace.session.adapted
    assert learned is not None or not named.exists(), "what was accepted is lost"
    assert learned is None or window.workspace.model.reference == file_of(learned)
    if window.tab.learn_panel.start.isEnabled():
        requests: list[AdaptRequest] = []
        with monkeypatch.context() as instead:
            instead.setattr(window.tab.learning, "start", requests.append)
            window.take(window.tab.learn_panel.start)
        for file in user_folder("sessions").glob("*.safetensors"):
            shutil.copy(file, tmp_path)  # learning goes on from the model beside the log
        (log,) = user_folder("sessions").glob("*.jsonl")
        shutil.copy(log, tmp_path / "unbroken.jsonl")  # of the same image
        unbroken = finish(adapt_job(requests[0], tmp_path / "unbroken.jsonl", QUICK))
        learn(window)
        state = AdaptedCheckpoint.load(file_of(window.workspace.session.adapted))
        assert state.digest == unbroken.result.checkpoint.digest
    assert preview_of(window, TOUGH).any()
    (log,) = user_folder("sessions").glob("*.jsonl")
    files = user_folder("sessions").iterdir()
    kept = {path.name for path in files if path.suffix not in (".lock", ".tries")}
    assert kept == {log.name, window.workspace.session.adapted.file}


def test_an_adapted_model_without_its_file_is_dropped(learned):
    window = learned
    (checkpoint,) = user_folder("sessions").glob("*.safetensors")
    checkpoint.unlink()
    window.push(window.tab.learn_panel.before)
    window.take(window.tab.learn_panel.after)
    assert window.status.text == LOST
    window.idle()
    assert window.workspace.session.adapted is None
    assert preview_of(window, 3).any()


def test_keep_lists_the_model_and_segments_the_same(learned, monkeypatch):
    window, panel = learned, learned.tab.learn_panel
    mine = preview_of(window, 3)
    for name in ("tiny", "cells"):  # the first name is taken
        monkeypatch.setattr(QInputDialog, "getText", lambda *_, name=name: (name, True))
        window.take(panel.keep)
        window.qtbot.waitUntil(lambda: not window.tab.learning.busy)
    assert window.status.text == KEPT.format("cells")
    assert [path.name for path in user_folder("models").iterdir()] == ["cells.safetensors"]
    entry = find_model("cells")
    assert window.workspace.session.adapted.sentence in entry.spec.description
    window.tab.models.set_value("cells")
    window.idle()
    assert np.array_equal(window.mask, mine)
    assert panel._outcome.isHidden(), "another model has learned nothing yet"


@pytest.mark.slow
def test_learning_again_goes_on_after_three_more_objects(learned, core):
    window, panel = learned, learned.tab.learn_panel
    first = window.workspace.session.adapted
    commit(window, 4, 5)
    assert not panel.start.isEnabled()
    commit(window, 6)
    partial_path(
        user_folder("sessions") / first.file
    ).touch()  # as a process leaves it that was killed
    learn(window)
    assert core.start.digest == core.result.checkpoint.digest
    second = window.workspace.session.adapted
    assert second.file != first.file
    assert len(second.objects) == 6
    window.idle()
    assert [path.name for path in user_folder("sessions").glob("*.safetensors*")] == [second.file]


@pytest.mark.slow
def test_learning_from_all_channels_leaves_empty_ones_out(window, monkeypatch):
    offer_anything(monkeypatch)
    image = cells()[0]
    planes = np.stack([image // 4, image, np.full_like(image, 7), image // 2, 255 - image])
    window.open(planes, name="stain", axis_labels=("channel", "y", "x"))
    window.tab.learning.config = SHORT
    commit(window, 0, 1, 2)
    assert LEARNS_CHANNELS.format(5) in window.tab.learn_panel.hint.text()
    learn(window)
    assert "channel 2" in window.status.text, "the one that shows nothing"
    assert window.workspace.session.adapted.all_channels
    after = preview_of(window, 3)
    assert window.controller.inference.service.predictor.stack.n_channels == 4
    window.push(window.tab.learn_panel.before)
    assert window.controller.inference.service.predictor.stack.n_channels == 3
    assert not np.array_equal(window.mask, after)


if __name__ == "__main__":
    learn_until_killed(Path(sys.argv[1]))

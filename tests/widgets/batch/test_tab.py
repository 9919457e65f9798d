"""The Batch tab, with mouse and keys: each run is a real process that writes real files."""

import json
import os
import shlex
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDoubleSpinBox

from napari_simmat.annotation.channel_choice import LayerChannel
from napari_simmat.batch.inputs import folder_beside
from napari_simmat.batch.nested import NESTED_PART
from napari_simmat.batch.options import (
    EXTRAS,
    ClusterOptions,
    FileOptions,
    SegmentChannelOptions,
    SegmentTableOptions,
    SeriesOptions,
    SlideOptions,
)
from napari_simmat.batch.plan import SPATIAL
from napari_simmat.cli import app
from napari_simmat.engine.files.tables import TABLE_FORMATS
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.engine.tracking.linking import LAPTRACK_MISSING
from napari_simmat.io.part import WRONG_REGION
from napari_simmat.progress import finish
from napari_simmat.widgets.batch.controller import CRASHED, STOPPED
from napari_simmat.widgets.batch.opened_result import open_result_job
from napari_simmat.widgets.batch.request import (
    CHOOSE_IMAGES,
    CHOOSE_PROMPTS,
    BatchRequest,
    load_request,
    save_request,
)
from napari_simmat.widgets.batch.tab import (
    EVERYTHING,
    NEXT_TO_IMAGE,
    ONE_FILE,
    RESUME,
    STOP_AT_ONCE,
)
from tests.batch.folders import contents
from tests.cli.test_segment_nested import CENTERS, WITH_NUCLEUS, draw, rows_of
from tests.slides import drawn_slide, write_svs
from tests.widgets.conftest import Window
from tests.widgets.dropping import drop
from tests.widgets.hands import TabHands
from tests.widgets.scenes import gray

pytestmark = pytest.mark.all_tabs

LEFT = Qt.MouseButton.LeftButton
WORKING = {"reading", "segmenting", "writing"}
OF_TABLES = {*TABLE_FORMATS, SPATIAL}
"""Formats whose libraries take seconds to import."""
CLICK = "index,axis-0,axis-1,label,object\n0,{0},{1},1,1\n"


class Batch(TabHands):
    """Hands on the Batch tab."""

    def __init__(self, window: Window) -> None:
        super().__init__(window, "batch")
        window.open_widget()
        self.open_tab()

    @property
    def batching(self) -> Any:
        return self.tab.batching

    @property
    def states(self) -> list[str]:
        return [row.state for row in self.tab.table.files.rows]

    def run(self, button: Any) -> None:
        """Press a button, and wait for the end of what it starts."""
        self.press(button)
        self.until(lambda: not self.tab.busy)

    def settle(self) -> None:
        """Wait until the files were scanned."""
        self.until(lambda: not self.tab.busy)
        QApplication.processEvents()

    def choose(self, images: Path, output: Path, prompts: str) -> None:
        assert drop(self.tab, images)
        assert drop(self.tab.form.output, output)
        self.window.choose(self.tab.form.prompts, prompts)
        self.settle()


@pytest.fixture
def data(tmp_path):
    """Four images with a click each beside them, one broken, one without a click."""
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    image = gray()[::2, ::2]
    for number, name in enumerate(("a", "b", "sub/a", "c")):
        tifffile.imwrite(folder / f"{name}.tif", np.roll(image, 3 * number, axis=0))
        (folder / f"{name}.csv").write_text(CLICK.format(20, 20 + number))
    (folder / "broken.tif").write_bytes(b"II*\0 and nothing more")
    (folder / "broken.csv").write_text(CLICK.format(1, 1))
    tifffile.imwrite(folder / "without.tif", image)
    return folder


@pytest.fixture
def batch(window):
    return Batch(window)


@pytest.mark.slow
def test_run_in_which_every_file_fails_says_so(batch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "data" / "a.tif").write_bytes(b"II*\0 and nothing more")
    batch.choose(tmp_path / "data", tmp_path / "out", EVERYTHING)
    batch.run(batch.tab.start)
    assert batch.states == ["failed"]
    assert batch.status.kind == "failed"
    assert "1 could not be segmented" in batch.status.text


@pytest.mark.real_window
@pytest.mark.parametrize(
    "extras", [sorted(set(EXTRAS) - OF_TABLES), pytest.param(EXTRAS, marks=pytest.mark.slow)]
)
def test_a_folder_is_tried_run_and_opened(batch, data, tmp_path, extras):
    tab, window = batch.tab, batch.window
    assert batch.status.kind == "nothing"
    assert batch.status.text == CHOOSE_IMAGES
    assert not tab.start.isEnabled()
    batch.choose(data, tmp_path / "out", NEXT_TO_IMAGE)
    assert batch.status.kind == "ready", batch.status
    assert batch.status.text.startswith("5 images to segment, 1 left out")
    assert batch.states == ["waiting"] * 5 + ["skipped"]
    assert "There are no prompts beside" in tab.table.files.rows[5].message
    tab.form.also.set_open(True)
    absent = {kind for kind, each in TABLE_FORMATS.items() if find_spec(each.package) is None}
    absent |= {SPATIAL} if find_spec("spatialdata") is None else set()
    for kind in [kind for kind in extras if kind not in absent]:
        box = tab.form.files[kind]
        QTest.mouseClick(box, LEFT, pos=box.rect().center() / 4)
    batch.settle()
    command = tab.command.value()
    batch.press(tab.trial)
    batch.until(lambda: not tab.busy and "a.tif labels" in window.viewer.layers)
    assert batch.status.kind == "done", batch.status
    assert set(np.unique(window.viewer.layers["a.tif labels"].data)) == {0, 1}
    assert list((tmp_path / "out").iterdir()) == [], "a trial leaves nothing"

    batch.press(tab.start)
    assert not tab.form.isEnabled()
    assert tab.pause.isVisibleTo(tab)
    batch.until(lambda: batch.batching.process.pid > 0)
    batch.until(lambda: not tab.busy)
    assert batch.status.kind == "done", batch.status
    assert "4 files with 4 objects are in" in batch.status.text
    assert "1 could not be segmented" in batch.status.text
    assert batch.states == ["written", "written", "failed", "written", "written", "skipped"]
    row = tab.table.files.rows[0]
    assert (row.objects, row.name) == (1, "a.tif")
    assert row.seconds is not None

    # A click on a row opens image and labels.
    place = tab.table.visualRect(tab.table.files.index(1, 0)).center()
    QTest.mouseClick(tab.table.viewport(), LEFT, pos=place)
    batch.until(lambda: not tab.busy and "b.tif labels" in window.viewer.layers)
    assert "a.tif labels" not in window.viewer.layers
    assert window.viewer.layers["b.tif labels"].data.any()

    # The command line writes the same files.
    assert command.startswith("simmat segment ")
    words = shlex.split(command)[1:]
    words[[word.startswith("--output=") for word in words].index(True)] = (
        f"--output={tmp_path / 'again'}"
    )
    # In a process of its own: a labels layer sets this thread's number of OpenMP threads (numba).
    assert subprocess.run([sys.executable, "-m", "napari_simmat", *words]).returncode == 1
    made = contents(tmp_path / "out")
    assert made == contents(tmp_path / "again")
    assert {"sub/a_labels.tif", "a_overlay.png", "a_coco.json", "a_rois.zip"} <= set(made)

    batch.press(tab.command.copy) if tab.command.copy.isVisibleTo(tab) else tab.command.copy.click()
    assert QApplication.clipboard().text() == tab.command.value()
    assert load_request().images == str(data)


@pytest.mark.slow
def test_a_trial_does_what_the_run_does(batch, data, tmp_path):
    tab, window = batch.tab, batch.window
    tab.form.files["pattern"].setText("b.tif")
    batch.choose(data, tmp_path / "out", EVERYTHING)
    set_quality(tab.form, 0.5)
    tab.form.pixels.set_open(True)
    batch.type(tab.form.pixels.ratio.lineEdit(), "2.5")
    batch.settle()
    batch.press(tab.trial)
    batch.until(lambda: not tab.busy and "b.tif labels" in window.viewer.layers)
    tried = window.viewer.layers["b.tif labels"].data
    assert tried.any()
    batch.run(tab.start)
    assert batch.states == ["written"], batch.status
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/b_labels.tif"), tried)
    record = json.loads((tmp_path / "out/b.json").read_text("utf-8"))
    assert record["settings"]["pixel_ratio"] == 2.5


@pytest.mark.slow
def test_a_trial_that_fails_says_why(batch, data, tmp_path):
    batch.tab.form.files["pattern"].setText("broken.tif")
    batch.choose(data, tmp_path / "out", NEXT_TO_IMAGE)
    batch.run(batch.tab.trial)
    assert batch.status.kind == "failed"
    assert "broken.tif" in batch.status.text


@pytest.mark.slow
def test_a_stopped_trial_leaves_the_files_as_they_were(batch, data, tmp_path):
    tab = batch.tab
    batch.choose(data, tmp_path / "out", NEXT_TO_IMAGE)
    rows = list(tab.table.files.rows)
    batch.press(tab.trial)
    batch.run(tab.stop)
    assert batch.status.text == STOPPED
    assert tab.table.files.rows == rows


@pytest.mark.slow
@pytest.mark.real_window
def test_start_takes_a_number_that_is_half_typed(batch, data, tmp_path):
    tab = batch.tab
    tab.form.files["pattern"].setText("b.tif")
    batch.choose(data, tmp_path / "out", EVERYTHING)
    tab.form.how.set_open(True)
    label = quality_of(tab.form)  # the number beside the slider
    batch.window.activate()
    label.setFocus()
    batch.until(label.hasFocus)
    batch.type(label, "0.99")
    assert tab.form.value().automatic.quality != 0.99
    batch.run(tab.start)
    assert batch.states == ["written"], batch.status
    assert not tifffile.imread(tmp_path / "out/b_labels.tif").any()
    record = json.loads((tmp_path / "out/b.json").read_text("utf-8"))
    assert record["settings"]["automatic"]["quality"] == 0.99


def test_a_choice_taken_back_can_be_run(batch, data, tmp_path):
    batch.choose(data, tmp_path / "out", EVERYTHING)
    ready = batch.status
    prompts = batch.tab.form.prompts
    prompts.setCurrentIndex(2)  # at once, as by the mouse
    prompts.activated.emit(2)
    assert not batch.tab.start.isEnabled()
    prompts.setCurrentIndex(0)
    prompts.activated.emit(0)
    batch.settle()
    assert batch.tab.start.isEnabled()
    assert batch.status == ready


@pytest.mark.slow
def test_run_shows_files_that_changed_since_the_scan(batch, data, tmp_path):
    tab, window = batch.tab, batch.window
    batch.choose(data, tmp_path / "out", NEXT_TO_IMAGE)
    (data / "a.tif").unlink()
    (data / "broken.tif").unlink()
    (data / "without.tif").unlink()
    (data / "b2.tif").write_bytes((data / "b.tif").read_bytes())
    (data / "b2.csv").write_bytes((data / "b.csv").read_bytes())
    batch.run(tab.start)
    rows = {row.name: row.state for row in tab.table.files.rows}
    assert rows == dict.fromkeys(("b.tif", "b2.tif", "c.tif", "sub/a.tif"), "written")
    number = list(rows).index("b2.tif")
    place = tab.table.visualRect(tab.table.files.index(number, 0)).center()
    QTest.mouseClick(tab.table.viewport(), LEFT, pos=place)
    batch.until(lambda: not tab.busy and "b2.tif labels" in window.viewer.layers)


@pytest.mark.parametrize(
    ("shape", "colors", "labels_shape", "shown"),
    [
        ((1, 3, 20, 30), False, (3, 20, 30), (1, 3, 20, 30)),
        ((4, 20, 30), False, (20, 30), (20, 30)),  # with --channel-axis 0
        ((3, 20, 30), True, (20, 30), (20, 30)),
    ],
)
def test_open_result_of_any_axes_shows_image_and_labels(
    batch, tmp_path, shape, colors, labels_shape, shown
):
    image, labels = tmp_path / "a.tif", tmp_path / "a_labels.tif"
    if colors:  # one plane for each
        values = np.zeros(shape, np.uint8)
        tifffile.imwrite(image, values, photometric="rgb", planarconfig="separate")
    else:
        image = image.with_suffix(".npy")
        np.save(image, np.zeros(shape, np.uint8))
    tifffile.imwrite(labels, np.ones(labels_shape, np.uint16), photometric="minisblack")
    batch.batching.opened.emit(finish(open_result_job(image, labels)))
    layers = batch.window.viewer.layers
    assert layers[f"{image.name} labels"].data.shape == shown
    assert len(layers) == (4 if colors else 2)


@pytest.mark.slow
def test_pause_stop_and_resume_complete_the_run(batch, data, tmp_path):
    tab = batch.tab
    batch.choose(data, tmp_path / "out", NEXT_TO_IMAGE)
    batch.press(tab.start)
    batch.press(tab.pause)
    assert tab.pause.text() == RESUME
    assert batch.status.text.startswith("Paused")
    batch.press(tab.pause)
    batch.until(lambda: "written" in batch.states or not tab.busy)
    batch.press(tab.stop)
    assert tab.stop.text() == STOP_AT_ONCE
    batch.until(lambda: not tab.busy)
    assert batch.status.kind in ("canceled", "done"), batch.status
    assert not list((tmp_path / "out").rglob("*.part"))
    batch.run(tab.start)
    assert batch.status.kind == "done", batch.status
    assert batch.states[0] in ("kept", "written"), tab.table.files.rows[0]
    assert len(list((tmp_path / "out").rglob("*_labels.tif"))) == 4


@pytest.mark.slow
def test_a_stopped_run_shows_done_files_and_failures(batch, tmp_path):
    tab, table, folder = batch.tab, batch.tab.table, tmp_path / "data"
    folder.mkdir()
    (tmp_path / "out").mkdir()
    (folder / "0.tif").write_bytes(b"II*\0 and nothing more")
    for number in range(1, 30):
        tifffile.imwrite(folder / f"{number:02}.tif", gray()[::2, ::2])
    for path in folder.glob("*.tif"):
        path.with_suffix(".csv").write_text(CLICK.format(26, 30))
    batch.choose(folder, tmp_path / "out", NEXT_TO_IMAGE)
    batch.press(tab.start)
    batch.until(lambda: "failed" in batch.states and bool(WORKING & set(batch.states)))
    place = table.visualRect(table.files.index(batch.states.index("failed"), 0)).center()
    QTest.mouseClick(table.viewport(), LEFT, pos=place)
    message = table.files.rows[batch.states.index("failed")].message
    assert "0.tif" in message
    assert message.startswith(" ".join(table.shown_lines(message)).rstrip(" …"))
    row = batch.states.index("failed")
    spacing = table.fontMetrics().lineSpacing()
    assert table.rowHeight(row) >= table.rowHeight(29) + spacing * len(table.shown_lines(message))
    cut = " ".join(table.shown_lines(message)) != message
    assert tab.message.isVisibleTo(tab) == cut, "what its row cuts stands beside the table"
    batch.run(tab.stop)
    assert batch.status.kind == "canceled", batch.status
    assert set(batch.states) <= {"written", "failed", "waiting"}
    done = [row for row in table.files.rows if row.state == "written"]
    assert [row.labels for row in done] == sorted((tmp_path / "out").glob("*_labels.tif"))
    assert batch.status.text.startswith(f"{STOPPED} {len(done)} of 30 files done, 1 failed;")
    assert table.files.rows[row].message == message, "it outlasts the run"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
def test_a_killed_run_says_so(batch, data, tmp_path):
    tab = batch.tab
    batch.choose(data, tmp_path / "out", NEXT_TO_IMAGE)
    batch.press(tab.start)
    batch.until(lambda: batch.batching.process.pid > 0)
    os.kill(batch.batching.process.pid, signal.SIGKILL)
    batch.until(lambda: not tab.busy)
    assert batch.status.kind == "failed"
    assert batch.status.text == CRASHED
    assert tab.start.isEnabled()


def test_closing_the_window_ends_the_process(batch, data, tmp_path):
    batch.choose(data, tmp_path / "out", NEXT_TO_IMAGE)
    batch.press(batch.tab.start)
    batch.until(lambda: batch.batching.process.pid > 0)
    pid = batch.batching.process.pid
    batch.window.release()
    assert not psutil.pid_exists(pid)


@pytest.mark.slow
def test_the_levels_of_the_first_file_are_named(batch, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "slide.csv").write_text("axis-0,axis-1\n300,300\n")
    slide = write_svs(tmp_path / "slide.svs", drawn_slide((512, 512)), steps=(4,))
    batch.choose(slide, tmp_path / "out", NEXT_TO_IMAGE)
    said = batch.tab.form.first.text()
    assert said.endswith("its levels are 0 (512 x 512, 0.25 um), 1 (128 x 128, 1 um)")


@pytest.mark.slow
def test_the_channels_of_the_first_file_can_be_chosen(batch, data, tmp_path):
    tab = batch.tab
    for path in data.glob("*.tif"):
        path.unlink()
    stack = np.zeros((4, 64, 64), np.uint16)
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "RFP", "dark"]}}
    tifffile.imwrite(data / "a.tif", stack, ome=True, metadata=metadata, photometric="minisblack")
    batch.choose(data, tmp_path / "out", NEXT_TO_IMAGE)
    assert "channels DAPI, GFP, RFP, dark" in tab.form.first.text()
    assert tab.form.channels.isVisibleTo(tab)
    assert "--channels=DAPI,DAPI,DAPI" in tab.command.value(), "the first, until another is chosen"
    slots = tab.form.channels.slots
    for slot, name in zip(slots, ("GFP", "DAPI", "DAPI"), strict=True):
        batch.window.choose(slot, name)
    batch.settle()
    assert tab.form.value().channels.channels == "GFP,DAPI,DAPI"
    assert "--channels=GFP,DAPI,DAPI" in tab.command.value()
    assert batch.status.kind == "ready", batch.status


def test_a_problem_is_said_in_one_sentence(batch, data, tmp_path):
    tab = batch.tab
    batch.choose(data, tmp_path / "out", ONE_FILE)
    assert batch.status.text == CHOOSE_PROMPTS
    batch.type(tab.form.prompt_file.path, str(tmp_path / "nothing.csv"))
    batch.settle()
    assert batch.status.kind == "failed"
    assert "There is no prompt file" in batch.status.text
    assert not tab.start.isEnabled()
    assert drop(tab.form.prompt_file, data / "a.csv")
    batch.settle()
    assert batch.status.kind == "ready"
    batch.type(tab.form.files["pattern"], "*.png")
    batch.settle()
    assert "There is no file that matches *.png" in batch.status.text


def test_the_form_is_a_view_of_its_value(batch):
    request = BatchRequest(
        images="/data/cells",
        output="/results",
        model="tiny-rgb",
        prompts="/data/p.csv",
        files=FileOptions(pattern="*.tif", coco=True, labels_in_memory=2.0),
        channels=SegmentChannelOptions(
            channels="2,1,0", channel_axis=1, pixel_ratio=2.5, children="0,DAPI"
        ),
        series=SeriesOptions(propagate=True, link=True, link_axis=1, link_gap=2),
        slides=SlideOptions(mpp=0.5, region="0,0,50,60um", tissue="auto"),
        table=SegmentTableOptions(statistics="mean,p99", index=("ndvi", "r=minimum(nir, red)")),
        cluster=ClusterOptions(scheduler="tcp://10.0.0.1:8786", shard="1/2"),
        automatic=AutomaticSettings(points_per_side=8, quality=0.75, keep_border=False, tile=512),
    )
    batch.tab.form.set_value(request)
    assert batch.tab.form.value() == BatchRequest(
        **{**vars(request), "model": batch.tab.form.value().model}
    )
    save_request(request)
    assert load_request() == request
    batch.settle()


def test_the_command_segments_as_the_form_says(batch, data, tmp_path, monkeypatch):
    form = batch.tab.form
    batch.choose(data, tmp_path / "out", EVERYTHING)
    assert form.how.isVisibleTo(form)
    assert not form.series["propagate"].isVisibleTo(form)
    assert form.value().automatic == AutomaticSettings()
    assert quality_of(form).value() == 0.5, "that of tiny is shown"
    form.everything.options["points_per_side"].setValue(8)
    form.everything.options["crop_layers"].setValue(1)
    set_quality(form, 0.8)
    form.everything.options["keep_border"].setChecked(False)
    wanted = AutomaticSettings(points_per_side=8, crop_layers=1, quality=0.8, keep_border=False)
    assert form.value().automatic == wanted
    assert _understood(form.value())["automatic"] == wanted
    form.series["objects"].setCurrentText("3D objects")
    assert _understood(form.value())["series"] == SeriesOptions(objects="3d")
    batch.choose(data, tmp_path / "out", NEXT_TO_IMAGE)
    assert not form.how.isVisibleTo(form)
    form.slides["mpp"].setValue(0.25)
    form.slides["region"].setText("0,0,40,50")
    part = _understood(form.value())["slides"]
    assert part == SlideOptions(mpp=0.25, region="0,0,40,50")
    form.slides["region"].setText("0,0")
    assert form.problem() == WRONG_REGION.format("0,0")
    form.slides["region"].setText("")
    form.slides["mpp"].setValue(0)
    form.series["propagate"].setChecked(True)
    form.pixels.ratio.setValue(0.5)
    form.table["index"].setText(" ndvi; r=minimum(nir, red) ;")
    assert _understood(form.value())["table"] == SegmentTableOptions(
        index=("ndvi", "r=minimum(nir, red)")
    )
    form.table["statistics"].setText("mode")
    assert "There is no statistic 'mode'" in form.problem()
    form.table.set_value(SegmentTableOptions())
    understood = _understood(form.value())
    assert understood["series"] == SeriesOptions(propagate=True)
    assert understood["channels"].pixel_ratio == 0.5
    form.stated["pixel_size"].setText("2,0.5,0.5")
    assert "has no unit" in form.problem()
    form.stated["unit"].setText("um")
    form.stated["axes"].setText("CZYX")
    stated = _understood(form.value())["channels"].selection
    assert (stated.pixel_size, stated.unit, stated.axes) == ((2.0, 0.5, 0.5), "um", "CZYX")
    form.stated.set_value(SegmentChannelOptions())
    assert "automatic" not in understood
    assert not form.series["link_axis"].isVisibleTo(form)
    form.series["link"].setChecked(True)
    assert form.series["link_axis"].isVisibleTo(form)
    form.series["link_axis"].setValue(0)
    assert _understood(form.value())["series"] == SeriesOptions(
        propagate=True, link=True, link_axis=0
    )
    assert all("tracks" in task.files.extras for task in form.value().planned().tasks)
    monkeypatch.setattr("napari_simmat.widgets.batch.request.find_spec", lambda _: None)
    assert form.problem() == LAPTRACK_MISSING
    batch.settle()


def quality_of(form: Any) -> QDoubleSpinBox:
    """The number beside the slider of the predicted IoU."""
    return form.everything.options["quality"].findChild(QDoubleSpinBox)


def set_quality(form: Any, value: float) -> None:
    """Set the least predicted IoU as if it was typed."""
    quality_of(form).setValue(value)
    quality_of(form).editingFinished.emit()


def _understood(request: BatchRequest) -> dict[str, Any]:
    """What the command line makes of a request."""
    _, bound, _ = app.parse_args(request.arguments())
    return dict(bound.arguments)


def test_images_of_a_run_are_looked_over_from_its_end(batch, data, tmp_path):
    batch.choose(data, tmp_path / "out", NEXT_TO_IMAGE)
    batch.run(batch.tab.start)
    assert batch.status.offer == "Review 4 images"
    window = batch.window
    window.push(batch.tab.status.offer)
    window.idle()
    assert window.widget.tabs.currentWidget() is window.tab
    assert window.tab.folder_panel.place.text().startswith("1 of 5, 1 seen, 4 done")
    assert window.objects.any()


def test_folder_of_results_is_proposed_until_it_is_chosen(batch, data, tmp_path):
    assert drop(batch.tab, data)
    batch.settle()
    assert batch.tab.form.output.value() == str(folder_beside(data))
    assert batch.status.kind == "ready", batch.status
    assert drop(batch.tab.form.output, tmp_path / "out")
    assert drop(batch.tab, data / "a.tif")
    batch.settle()
    assert batch.tab.form.output.value() == str(tmp_path / "out")


@pytest.mark.slow
def test_children_are_tried_run_and_opened(batch, tmp_path):
    """The same table as of the command; of an image there are two files, but it is one image."""
    stained = tmp_path / "stained.ome.tif"
    draw(stained)
    tab, window = batch.tab, batch.window
    (tmp_path / "out").mkdir()
    batch.choose(stained, tmp_path / "out", EVERYTHING)
    form = tab.form
    assert form.stated["children"].isVisibleTo(form)
    form.channels.set_value((LayerChannel("1"),) * 3)
    form.channels.changed.emit()
    batch.type(form.stated["children"], "DAPI")
    batch.settle()
    assert "--children=DAPI" in form.value().arguments()
    batch.press(tab.trial)
    children = "stained.ome.tif children"
    batch.until(lambda: not tab.busy and children in window.viewer.layers)
    assert window.viewer.layers[children].data.max() == len(WITH_NUCLEUS)
    assert window.viewer.layers["stained.ome.tif labels"].data.max() == len(CENTERS)
    batch.run(tab.start)
    assert batch.states == ["written"] * 2, batch.status
    names = [row.name for row in tab.table.files.rows]
    assert names == ["stained.ome.tif", "children/stained.ome.tif"]
    assert batch.status.offer == "Review 1 image"
    cells = rows_of(tmp_path / "out/simmat-parents.csv")
    assert sum(int(row["children"]) for row in cells) == len(WITH_NUCLEUS)


def test_children_of_a_region_are_refused_in_the_form(batch, tmp_path):
    stained = tmp_path / "stained.ome.tif"
    draw(stained)
    batch.choose(stained, tmp_path / "out", EVERYTHING)
    form = batch.tab.form
    form.stated["children"].setText("DAPI")
    assert form.problem() is None
    form.slides["region"].setText("0,0,64,64")
    assert form.problem() == NESTED_PART
    batch.window.choose(form.prompts, NEXT_TO_IMAGE)
    assert not form.stated["children"].isVisibleTo(form)
    assert not any(word.startswith("--children") for word in form.value().arguments())
    batch.settle()

"""The window's pictures in the documentation, taken from the real window.

Run ``python tests/with_screen.py python scripts/screenshots.py``; it writes ``docs/images/``.
Names after it (coins, everything, ...) take only those; `screens` alone writes every screen in dark
and in light to ``build/screens/``, to be looked at (also with QT_SCALE_FACTOR=1.5). A picture shows
what the shipped models do, so run it again when one of them has changed. That of the Train tab
shows bands that the research draws, which has to be installed too.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
sys.path.insert(0, str(FOLDER.parents[1]))  # tests draw series and volumes
SIZE = (1280, 780)
"""Of the window in pixels: its text can be read in the documentation's column."""
TALL = (1280, 900)
"""Where more of the tab is open."""
COLORS = 256
PATIENCE = 900.0
TRAINING = 1800.0
"""Seconds for a training of so many steps."""


@contextmanager
def window(size: tuple[int, int] = SIZE) -> Iterator[tuple[Any, Any]]:
    """An empty viewer and the widget in it."""
    import napari

    from napari_simmat.widgets.main import SimMATWidget

    viewer = napari.Viewer(title="napari", show=True)
    viewer.window.resize(*size)
    widget = SimMATWidget(viewer)
    widget.open_now()
    viewer.window.add_dock_widget(widget, name="SimMAT", area="right")
    try:
        yield viewer, widget
    finally:
        worker = widget.segment.controller.inference.worker
        widget.release()
        worker.join(PATIENCE)
        viewer.close()


def click(tab: Any, position: Sequence[float]) -> None:
    """Put a point of the current sign at y, x."""
    settle(tab)
    tab.buttons.tools["point"].click()
    tab.workspace.prompt_layers.points.add(position)
    tab.workspace.prompt_layers.points.selected_data = set()
    settle(tab)


def rectangle(y0: float, x0: float, y1: float, x1: float) -> np.ndarray:
    """Its corners, as napari draws them."""
    return np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0)], dtype=float)


def wait(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds, and what follows is drawn."""
    from qtpy.QtCore import QEventLoop
    from qtpy.QtWidgets import QApplication

    deadline = time.monotonic() + TRAINING
    after = 0
    while after < 5:
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 50)
        time.sleep(0.01)
        after = after + 1 if condition() else 0
        if time.monotonic() > deadline:
            raise SystemExit("the window is still busy")


def settle(tab: Any) -> None:
    """Let the event loop run until the window has nothing left to do."""
    from qtpy.QtCore import QEventLoop
    from qtpy.QtWidgets import QApplication

    deadline = time.monotonic() + PATIENCE
    idle = 0
    while idle < 5:  # turns of the loop: what has been asked for is also drawn
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 50)
        idle = 0 if tab.busy or tab.controller.inference.worker.running else idle + 1
        if time.monotonic() > deadline:
            raise SystemExit(f"the window is still busy: {tab.status.value()}")


def save(viewer: Any, tab: Any, name: str) -> None:
    """Save what the window shows, in few colors; how long it took differs from run to run."""
    tab.status.set_value(replace(tab.status.value(), seconds=None))
    write(viewer.screenshot(canvas_only=False, flash=False), name)


def save_tab(widget: Any, name: str) -> None:
    """Save the widget alone."""
    from PIL import Image

    tab = widget.segment
    if tab.status.value().kind == "done":
        tab.status.set_value(replace(tab.status.value(), seconds=None))
    tab.status.time.clear()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "tab.png")
        widget.grab().save(path)
        write(np.asarray(Image.open(path).convert("RGB")), name)


def write(pixels: np.ndarray, name: str) -> None:
    """Save a picture (Y, X, 3 or 4) in few colors."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3])).quantize(
        COLORS, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE
    )
    path = FOLDER / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)
    print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size // 1024} KiB")


FILES = 12
SIDE = 130
STEPS = 40
LONG = (
    "plate07_well_B04_channel_DAPI_maximum_projection.ome.tif was trained on 4 channels, but 3 are "
    "selected (DAPI, GFP, RFP). Select 4, or choose another model."
)

COINS = ((125.0, 206.0), (119.0, 270.0), (52.0, 215.0), (127.0, 154.0), (52.0, 155.0))
BOX = (168.5, 186.5, 217.5, 237.5)
"""y0, x0, y1, x1 around another coin."""
BESIDE = (180.0, 242.0)
PENNED = (COINS[2], 22.0)
"""The coin that the pen outlines: its middle and its radius."""
PEN_SIDE = 290
"""Pixels of the screen."""


def take(pictures: dict[str, Callable[[], None]]) -> None:
    """Take the pictures that the command line names, or all."""
    for name in sys.argv[1:] or list(pictures):
        with tempfile.TemporaryDirectory() as home, chdir(home):
            # Nobody's settings, models and unsaved work: the pictures are the same everywhere.
            os.environ["NAPARI_SIMMAT_HOME"] = home
            os.environ["NAPARI_CONFIG"] = str(Path(home) / "napari.yaml")
            pictures[name]()


def coins() -> None:
    """A click on a coin; then several objects, and a box with a correction."""
    from skimage.data import coins as image

    with window() as (viewer, widget):
        tab = widget.segment
        viewer.add_image(image(), name="coins")
        settle(tab)
        viewer.reset_view()
        click(tab, COINS[0])
        save(viewer, tab, "window-click")
        for position in COINS:
            if not tab.workspace.session.prompts:
                click(tab, position)
            tab.buttons.commit.click()
            settle(tab)
        tab.buttons.tools["box"].click()
        tab.workspace.prompt_layers.boxes.add(rectangle(*BOX), shape_type="rectangle")
        settle(tab)
        tab.buttons.sign.click()
        click(tab, BESIDE)
        save(viewer, tab, "window-objects")


def states() -> None:
    """The Segment tab in each of its states."""
    from skimage.data import coins as image

    with window() as (viewer, widget):
        tab = widget.segment
        settle(tab)
        save_tab(widget, "tab-nothing")
        viewer.add_image(image(), name="coins", scale=(0.1, 0.1), units=("mm", "mm"))
        settle(tab)
        viewer.reset_view()
        save_tab(widget, "tab-ready")
        while_working(widget)
        click(tab, COINS[0])
        save_tab(widget, "tab-preview")
        for position in COINS[1:3]:
            tab.act("next")
            click(tab, position)
        save_tab(widget, "tab-several")
        objects(viewer, widget)


def while_working(widget: Any) -> None:
    """Hold the worker in the middle of its work, and cancel it."""
    import threading

    from napari_simmat.progress import Progress

    tab = widget.segment
    original, go_on = tab.controller.inference.service.predict_job, threading.Event()

    def held(question: Any, **named: Any) -> Any:
        yield Progress(7, 12, "encoding block 7 of 12")
        go_on.wait(PATIENCE)
        return (yield from original(question, **named))

    tab.controller.inference.service.predict_job = held
    tab.buttons.tools["point"].click()
    tab.workspace.prompt_layers.points.add(COINS[0])
    wait(lambda: tab.status.value().fraction is not None and tab.status.bar.isVisible())
    save_tab(widget, "tab-working")
    tab.controller.cancel()
    wait(lambda: tab.status.value().kind == "canceled")
    save_tab(widget, "tab-canceled")
    tab.controller.inference.service.predict_job = original
    go_on.set()
    tab.buttons.clear.click()
    settle(tab)


def objects(viewer: Any, widget: Any) -> None:
    """Finished objects with classes: open again, overlapping, and a layer that takes none."""
    tab = widget.segment
    tab.buttons.commit.click()
    settle(tab)
    for row, name in enumerate(("small", "large", "small")):
        tab.object_panel.table.choose([row + 1])
        tab.object_panel.class_chosen.emit(name)
    tab.object_panel.table.choose([2])
    tab.controller.objects.edit(2)
    settle(tab)
    save(viewer, tab, "window-reopened")
    save_tab(widget, "tab-reopened")
    tab.buttons.clear.click()
    tab.buttons.tools["box"].click()
    y, x = COINS[0]
    tab.workspace.prompt_layers.boxes.add(rectangle(y - 35, x - 35, y + 5, x + 35))
    settle(tab)
    full = np.full(tab.workspace.session.geometry.shape, 0, dtype=np.uint8)
    full[0, 0] = 255
    layer = viewer.add_labels(full, name="eight bits", scale=(0.1, 0.1), units=("mm", "mm"))
    tab.workspace.use_objects(layer)
    tab.buttons.commit.click()
    settle(tab)
    save_tab(widget, "tab-failed")


def pen() -> None:
    """Four lines of the pen as they are drawn, and the other reading of one; side by side."""
    from types import SimpleNamespace

    import napari
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QApplication
    from skimage.data import coins as image

    from tests.widgets.hands import Window

    (y, x), radius = PENNED

    def arc(of: float, begin: float, end: float) -> np.ndarray:
        turn = 2 * np.pi * np.linspace(begin, end, 120)
        return np.stack([y + of * np.sin(turn), x + of * np.cos(turn)], axis=1)

    around = arc(radius, 0.0, 0.99)
    cap = np.concatenate(
        [np.linspace((y, x - radius - 4), (y, x + radius + 4)), arc(radius + 4, 1.0, 0.51)]
    )
    across = np.linspace((y + 4, x - 0.6 * radius), (y + 9, x + 0.5 * radius))

    viewer = napari.Viewer(title="napari", show=True)
    viewer.window.resize(*SIZE)
    viewer.add_image(image(), name="coins")
    hands = Window(viewer, SimpleNamespace(waitUntil=lambda done, **_: wait(done)))
    hands.start()
    viewer.scene.camera.center, viewer.scene.camera.zoom = (y, x), 4.0
    pictures: list[np.ndarray] = []

    def look() -> None:
        """Keep a square around the object."""
        wait(lambda: True)
        shown = viewer.screenshot(canvas_only=False, flash=False)
        scale = shown.shape[1] / viewer.window._qt_window.width()
        at = hands.canvas.mapTo(viewer.window._qt_window, hands._on_canvas(y, x + 7))
        row, column, half = (int(scale * each) for each in (at.y(), at.x(), PEN_SIDE / 2))
        pictures.append(shown[row - half : row + half, column - half : column + half])

    def draw(path: np.ndarray, *, positive: bool = True) -> None:
        """Draw a line, and look before the mouse is let go."""
        if hands.workspace.prompt_layers.positive != positive:
            hands.key(Qt.Key.Key_T)
        hands.take(hands.tab.buttons.tools["pen"])
        hands.press_mouse(*path[0])
        for place in path:
            hands.move_mouse(*place)
            QApplication.processEvents()
            time.sleep(0.02)  # between two moves of a mouse, else the word at the cursor is older
        look()
        hands.release_mouse(*path[-1])
        hands.idle()

    draw(around)
    draw(cap, positive=False)
    draw(cap)
    hands.key(Qt.Key.Key_Q)  # the other reading: an object of its own
    look()
    hands.key(Qt.Key.Key_Q)
    draw(across, positive=False)
    gap = np.full((pictures[0].shape[0], 6, pictures[0].shape[2]), 255, np.uint8)
    write(np.concatenate([part for each in pictures for part in (each, gap)][:-1], axis=1), "pen")
    hands.release()
    viewer.close()


def polarization() -> None:
    """Four layers, opened in the wrong order, that feed the checkpoint sorted by name."""
    from napari_simmat.cli.demo import demo_samples
    from napari_simmat.engine.masks import interior_point

    shown = demo_samples()[2]
    largest = np.argsort(np.bincount(shown.truth.ravel())[1:])[::-1] + 1
    with window() as (viewer, widget):
        tab = widget.segment
        for number in (2, 0, 3, 1):
            viewer.add_image(shown.image[number], name=f"beads {shown.channels[number]}")
        tab.models.set_value("polarization")
        settle(tab)
        viewer.reset_view()
        for label in largest[:3]:
            click(tab, interior_point(shown.truth == label, ties="median"))
            tab.buttons.commit.click()
            settle(tab)
        click(tab, interior_point(shown.truth == largest[3], ties="median"))
        tab.open_section("model")  # its list says which layer feeds which channel
        save(viewer, tab, "window-channels")


def train() -> None:
    """Six bands and their objects: while a model is trained on them, and when it is done."""
    from napari_simmat.widgets.train.request import DEFAULT_CONFIG, TrainRequest
    from simmat_research.sensors import SENSORS, draw_sensor_sample

    image, labels, _ = draw_sensor_sample("multispectral", 34, 256)
    with window() as (viewer, widget):
        tab = widget.train
        for band, name in zip(image, SENSORS["multispectral"].channels, strict=True):
            viewer.add_image(band, name=name, visible=len(viewer.layers) == 0)
        viewer.add_labels(labels, name="known objects").contour = 2
        settle(widget.segment)
        widget.tabs.setCurrentWidget(tab)
        # Less in each step than a user has: the picture takes minutes.
        config = replace(DEFAULT_CONFIG, steps=STEPS, batch=2, objects=2, corrections=1)
        tab.form.set_value(TrainRequest(name="six-bands", config=config))
        wait(lambda: not tab.busy)
        viewer.reset_view()
        save(viewer, tab, "window-train-ready")
        tab.train.click()
        training = tab.training
        wait(lambda: training.history.loss[-1:] >= [(0.7 * STEPS, 0.0)])
        save(viewer, tab, "window-train")
        wait(lambda: not training.busy)
        save(viewer, tab, "window-trained")


def everything() -> None:
    """All coins at once as drafts, two of them accepted."""
    from skimage.data import coins as image

    with window(TALL) as (viewer, widget):
        tab = widget.segment
        viewer.add_image(image(), name="coins")
        settle(tab)
        viewer.reset_view()
        tab.sections["everything"].set_open(True)
        tab.automatic_panel.start.click()
        settle(tab)
        review, drafts = tab.controller.review, tab.workspace.session.drafts
        for draft in sorted(drafts.open, key=lambda each: -each.score)[:2]:
            viewer.cursor.position = draft.mask.corner[-2:] + np.array(draft.mask.shape[-2:]) // 2
            viewer.mouse_over_canvas = True
            review.accept()
        settle(tab)
        save(viewer, tab, "window-everything")


def stack() -> None:
    """A drawn cell, followed from one click in the middle plane."""
    from scipy.ndimage import center_of_mass

    from tests.drawn_volume import draw_volume

    cells, labels = draw_volume(0)
    middle = len(cells) // 2
    center = center_of_mass(
        labels[middle] == np.bincount(labels[middle][labels[middle] > 0]).argmax()
    )
    with window(TALL) as (viewer, widget):
        tab = widget.segment
        viewer.add_image(cells, name="cells", scale=(2, 1, 1), axis_labels=("z", "y", "x"))
        viewer.dims.set_point(0, 2 * middle)
        settle(tab)
        viewer.reset_view()
        click(tab, (middle, *center))
        tab.stack_panel.start.click()
        settle(tab)
        viewer.dims.set_point(0, 2 * (middle + 4))
        settle(tab)
        save(viewer, tab, "window-stack")
        correct(viewer, tab, labels, middle + 7)
        save(viewer, tab, "window-corrected")


def side() -> None:
    """The same cells from the side: one followed along y, and a click on another."""
    from scipy.ndimage import center_of_mass

    from tests.drawn_volume import draw_volume

    cells, labels = draw_volume(0)
    largest = np.argsort(np.bincount(labels.ravel())[1:])[::-1][:2] + 1
    first, second = (center_of_mass(labels == label) for label in largest)
    with window(TALL) as (viewer, widget):
        tab = widget.segment
        viewer.add_image(cells, name="cells", scale=(2, 1, 1), axis_labels=("z", "y", "x"))
        viewer.dims.order = (1, 0, 2)
        viewer.dims.set_point(1, round(first[1]))
        settle(tab)
        click(tab, (first[0], round(first[1]), first[2]))
        tab.stack_panel.first.setValue(round(first[1]) - 8)
        tab.stack_panel.last.setValue(round(first[1]) + 8)
        tab.stack_panel.start.click()
        settle(tab)
        tab.buttons.commit.click()
        settle(tab)
        viewer.dims.set_point(1, round(second[1]))
        settle(tab)
        click(tab, (second[0], round(second[1]), second[2]))
        save(viewer, tab, "window-side")


def correct(viewer: Any, tab: Any, labels: np.ndarray, plane: int) -> None:
    """Click once in the middle of the largest error on another plane."""
    from scipy import ndimage as ndi

    from napari_simmat.engine.masks import interior_point

    viewer.dims.set_point(0, 2 * plane)
    settle(tab)
    found = viewer.layers["SimMAT preview"].data[plane] > 0
    truth = labels[plane] == np.bincount(labels[plane][found])[1:].argmax() + 1
    patches, _ = ndi.label(found != truth)
    largest = patches == np.bincount(patches.ravel())[1:].argmax() + 1
    place = tuple(float(value) for value in interior_point(largest))
    if found[tuple(int(value) for value in place)] and tab.workspace.prompt_layers.positive:
        tab.buttons.sign.click()
    click(tab, (plane, *place))


def folder() -> None:
    """The third image of a folder, with the work on it restored."""
    from skimage.data import coins as image
    from skimage.io import imsave

    place = Path("coins")  # as it is shown
    place.mkdir()
    for number in range(1, 7):
        imsave(place / f"coins-{number}.tif", np.roll(image(), 40 * (number - 3), 1))
    with window(TALL) as (viewer, widget):
        tab = widget.segment
        tab.folder_panel.folder.set_value(str(place))
        settle(tab)
        for _ in range(3):
            click(tab, COINS[0])
            tab.buttons.commit.click()
            settle(tab)
            tab.folder_panel.next.click()
            settle(tab)
        tab.folder_panel.previous.trigger()
        settle(tab)
        viewer.reset_view()
        save(viewer, tab, "window-folder")


def tracks() -> None:
    """Drawn cells over time, linked; one has divided."""
    from tests.drawn_series import draw_series

    series, truth, _ = draw_series(1, (12, 200, 200), 8)
    labels = np.zeros_like(truth)
    for frame, (before, after) in enumerate(zip(truth, labels, strict=True)):
        for label in np.unique(before)[1:]:
            after[before == label] = 1 + (label + 5 * frame) % 31
    with window(TALL) as (viewer, widget):
        tab = widget.segment
        viewer.add_image(series, name="cells", axis_labels=("t", "y", "x"))
        layer = viewer.add_labels(labels, name="cells labels")
        settle(tab)
        tab.workspace.use_objects(layer)
        tab.sections["tracks"].set_open(True)
        tab.tracks_panel.start.click()
        settle(tab)
        viewer.dims.set_point(0, 9)
        settle(tab)
        viewer.reset_view()
        save(viewer, tab, "window-tracks")


def volumes() -> None:
    """Drawn cells whose planes were segmented one by one, joined into 3D objects."""
    from tests.drawn_volume import draw_volume

    cells, truth = draw_volume(0)
    labels = np.where(truth > 0, 1 + (truth + 5 * np.arange(len(truth))[:, None, None]) % 31, 0)
    with window(TALL) as (viewer, widget):
        tab = widget.segment
        viewer.add_image(cells, name="cells", scale=(2, 1, 1), axis_labels=("z", "y", "x"))
        layer = viewer.add_labels(labels, name="cells labels", scale=(2, 1, 1))
        settle(tab)
        tab.workspace.use_objects(layer)
        tab.act("join planes")
        settle(tab)
        viewer.dims.ndisplay = 3
        viewer.scene.camera.angles = (20, 35, -110)
        viewer.reset_view(reset_camera_angle=False)
        settle(tab)
        save(viewer, tab, "window-volumes")


def restoring() -> None:
    """Coins that were committed and not saved, when their image is opened another time."""
    from skimage.data import coins as image

    for again in (False, True):
        with window() as (viewer, widget):
            tab = widget.segment
            viewer.add_image(image(), name="coins")
            settle(tab)
            viewer.reset_view()
            if again:
                save_tab(widget, "tab-restore")
                tab.status.offer.click()
                settle(tab)
                save(viewer, tab, "window-restored")
                continue
            for position in COINS:
                if not tab.workspace.session.prompts:
                    click(tab, position)
                tab.buttons.commit.click()
                settle(tab)
            click(tab, COINS[0])


def unnoted() -> None:
    """Work goes on where what is done cannot be noted."""
    from skimage.data import coins as image

    from napari_simmat.io.files import user_folder

    with window() as (viewer, widget):
        tab = widget.segment
        os.environ["NAPARI_SIMMAT_HOME"] = "napari-simmat"  # as it is shown
        user_folder("sessions").parent.mkdir(parents=True, exist_ok=True)
        user_folder("sessions").write_text("a file where the folder should be")
        viewer.add_image(image(), name="coins")
        settle(tab)
        viewer.reset_view()
        click(tab, COINS[0])
        save_tab(widget, "tab-unnoted")


def levels() -> None:
    """An image of several levels, one of which is segmented."""
    from skimage.data import coins as image
    from skimage.transform import downscale_local_mean, resize

    finest = resize(image(), (1212, 1536), order=1, preserve_range=True)
    pyramid = [downscale_local_mean(finest, (2**level,) * 2) for level in range(4)]
    with window() as (viewer, widget):
        tab = widget.segment
        data = [level.astype(np.uint8) for level in pyramid]
        viewer.add_image(data, multiscale=True, name="slide")
        settle(tab)
        viewer.reset_view()
        tab.level.setCurrentIndex(1)
        tab.level.activated.emit(1)
        settle(tab)
        save_tab(widget, "tab-level")
        click(tab, tuple(2 * (value + 0.5) - 0.5 for value in COINS[0]))
        tab.buttons.commit.click()
        settle(tab)
        save(viewer, tab, "window-level")


def channels() -> None:
    """An image whose channels lie amid its axes."""
    from skimage.data import coins as image

    with window() as (viewer, widget):
        planes = np.stack([np.stack([image()] * 3)] * 2)
        viewer.add_image(planes, name="coins", axis_labels=("z", "channel", "y", "x"))
        settle(widget.segment)
        save_tab(widget, "tab-channels")


def batch() -> None:
    """A folder's run half-way, then a result opened from the table."""
    from napari_simmat.batch.options import FileOptions
    from napari_simmat.widgets.batch.request import BatchRequest

    write_images(Path("plates"))
    with window() as (viewer, widget):
        tab = widget.batch
        widget.tabs.setCurrentWidget(tab)
        request = BatchRequest(
            images="plates", output="results", files=FileOptions(overlay=True, coco=True)
        )
        tab.form.set_value(request)
        wait(lambda: not tab.busy)
        save(viewer, tab, "window-batch-ready")
        tab.start.click()
        wait(lambda: sum(row.state == "written" for row in tab.table.files.rows) >= FILES // 2)
        save(viewer, tab, "window-batch")
        wait(lambda: not tab.busy)
        tab.table.clicked.emit(tab.table.files.index(2, 0))
        wait(lambda: not tab.busy and len(viewer.layers) > 1)
        save(viewer, tab, "window-batch-opened")


def write_images(folder: Path) -> None:
    """Crops of a photograph of coins in two subfolders, and a file that is no image."""
    import tifffile
    from skimage.data import coins

    for number in range(FILES):
        plate = folder / f"plate{1 + number // 6}"
        plate.mkdir(parents=True, exist_ok=True)
        top, left = 80 * (number % 3), 120 * (number // 3 % 3)
        piece = coins()[top : top + SIDE, left : left + SIDE]
        tifffile.imwrite(plate / f"field{number + 1:02d}.tif", piece)
    (folder / "plate1" / "field03b.tif").write_text("this is no image")


def screens() -> None:
    """Every screen in both themes, in a window of a usual size; none of them is in the docs."""
    from qtpy.QtWidgets import QMessageBox
    from skimage.data import coins as image

    from napari_simmat.widgets.status_line import Status

    scale = os.environ.get("QT_SCALE_FACTOR", "1")
    with window((1280, 800)) as (viewer, widget):
        tab = widget.segment

        def look(name: str) -> None:
            for theme in ("dark", "light"):
                viewer.theme = theme
                wait(lambda: True)
                widget.repaint()
                pixels = viewer.screenshot(canvas_only=False, flash=False)
                write(pixels, f"../../build/screens/{scale}-{theme}-{name}")

        settle(tab)
        look("nothing")
        viewer.add_image(image(), name="coins")
        settle(tab)
        viewer.reset_view()
        tab.sections["model"].set_open(True)
        look("model")
        tab.sections["model"].set_open(False)
        for number, position in enumerate(COINS):
            if not tab.workspace.session.prompts:
                click(tab, position)
            if number == 2:
                look("click")
            tab.buttons.commit.click()
            settle(tab)
        look("objects")
        for name in ("learn", "everything", "folder"):
            for each, section in tab.sections.items():
                section.set_open(each == name)
            tab.automatic_panel.more.set_open(True)
            wait(lambda: True)
            look(name)
        tab.status.set_value(Status("failed", LONG, offer="Use tiny", other="Somewhere else"))
        look("message")
        for name in ("train", "batch"):
            widget.tabs.setCurrentWidget(getattr(widget, name))
            wait(lambda: not (widget.train.busy or widget.batch.busy))
            look(name)
        widget.help.show_shortcuts()
        wait(lambda: True)
        box = viewer.window._qt_window.findChild(QMessageBox)
        box.grab().save(str(FOLDER.parents[1] / "build" / "screens" / f"{scale}-help.png"))
        box.accept()


PICTURED = (
    *(coins, states, restoring, unnoted, levels, channels),
    *(everything, pen, stack, volumes, side, folder, tracks, train, polarization, batch),
)
PICTURES = {each.__name__: each for each in PICTURED}


if __name__ == "__main__":
    chosen = {"screens": screens} if sys.argv[1:] == ["screens"] else PICTURES
    take(chosen)

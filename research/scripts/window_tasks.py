"""Seven people's work in napari's window, from opening the image to the saved table.

``xvfb-run -a -s "-screen 0 1400x900x24" python research/scripts/window_tasks.py`` does each by
events of the mouse and the keyboard; names after it (biologist, ...) take only those. Who works
knows the true objects, as the user of `finishing_film` does: boxes, outlines or clicks what
*Everything* missed until it is right at an IoU of 0.75, and takes away what is wrong. Every press
is an action, opening and saving too. Seconds are those of `simmat_research.user_time` for acting
and looking, and those of the clock for waiting.

It prints a row for each: actions and seconds to the first object and to the table, how many of the
true objects are right, and the most controls that were seen at a time. A picture of each goes to
``build/window-tasks``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import chdir
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import numpy as np
import tifffile
from finishing_film import DATA, ROOT, SIZE, User, read_labels, wait_until
from numpy.typing import NDArray

TUTORIALS = ROOT / "docs" / "tutorials"
PICTURES = ROOT / "build" / "window-tasks"
CHANNELS, STAINED = 42, (12, 27, 33)
"""Of the biologist's image, and those that show its nuclei."""
CONTRASTS = 1.0, 0.7, 0.5
FRAMES, FIELD, CELLS = 20, 256, 16
"""Of the time series: frames, side in pixels, and nuclei."""
GONE = 10
"""The last frame of one nucleus; on the next another one comes to its place."""
GRAINS = "Picture_2_png"
"""A micrograph of particles: 222 of them. Others of the source are mosaics of four."""
FOLDER, FEW = 12, 65
"""Images of the folder; they have so many particles at most."""
BOXES = 3
"""At most, of the lesion: on planes where it is missing, until it is right."""
Labels = NDArray[np.int32]


class Person(User):
    """Somebody at the window, with what was seen on the way.

    Parameters
    ----------
    hands
        `tests.widgets.hands.Window`, with the widget open.
    labels
        (Y, X), the true objects.
    """

    def __init__(self, hands: Any, labels: Labels) -> None:
        super().__init__(hands, labels)
        self.most = 0
        self.has_pen = False
        self.first: tuple[int, float] | None = None

    @property
    def tab(self) -> Any:
        """The Segment tab."""
        return self.hands.tab

    @property
    def layer(self) -> Any:
        """The image."""
        return next(each for each in self.hands.viewer.layers if type(each).__name__ == "Image")

    @property
    def committed(self) -> Labels:
        """The committed objects (Y, X) of the plane that is shown."""
        target = self.hands.workspace.target().layer
        labels = np.asarray(target.data)
        at = self.hands.viewer.dims.current_step[: labels.ndim - 2]
        return np.asarray(labels[at], np.int32)

    @property
    def done(self) -> list[int]:
        """The true objects that are committed."""
        editor = self.hands.workspace.editor
        return list(self.right(self.committed)) if editor is not None and editor.labels else []

    def know(self, labels: Labels) -> None:
        """Turn to another image."""
        from simmat_research.finishing import SimulatedUser

        self.knows = SimulatedUser(labels)

    def wait(self, began: float | None = None) -> None:
        """Let the window finish, and see what it shows."""
        super().wait(began)
        self.most = max(self.most, len(controls(self.tab)))
        editor = self.hands.workspace.editor
        if self.first is None and editor is not None and editor.labels:
            self.first = self.actions.total(), self.time.seconds

    def shift_click(self, y: float, x: float) -> None:
        """Press on the image with Shift held."""
        from tests.widgets.hands import SHIFT

        self.hands.press(y, x, SHIFT)
        self._count("clicks")

    def go_to(self, frame: int) -> None:
        """Move the slider of the first axis."""
        self.hands.viewer.dims.set_current_step(0, frame)
        self._count("slider")

    def begin(self, label: int) -> None:
        """Draw a box around an object or, with the pen, its outline."""
        from simmat_research.strokes import outline_of

        if not self.has_pen:
            super().begin(label)
            return
        self.take("pen")
        if not self.hands.workspace.prompt_layers.positive:
            self.key("T")  # after a negative click
        line = outline_of(self.knows.labels == label, label).line
        steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
        self.draw(line, float(steps.sum() * self.hands.viewer.scene.camera.zoom))

    def draw(self, line: NDArray[np.float64], length: float) -> None:
        """Draw a line (N, 2) of so many pixels of the screen."""
        self.hands.press_mouse(*line[0])
        for at in line[1:]:
            self.hands.move_mouse(*at)
        self.hands.release_mouse(*line[-1])
        self.actions["lines"] += 1
        self.time.line(length)
        self.wait()

    def menu(self, name: str) -> None:
        """Open the menu, and take an entry, unless its section is open."""
        if not self.tab.sections[name].is_open:
            self.hands.pick(self.tab.entries[name])
            self._count("menu")

    def waits_for(self, tab: Any) -> None:
        """Wait until another tab has ended what it does."""
        began = monotonic()
        wait_until(lambda: not tab.busy)
        self.time.waited += monotonic() - began

    def found(self) -> str:
        """How many of the true objects are right."""
        return f"{len(self.done)} of {len(self.knows.objects)}"

    def row(self, name: str, note: str) -> str:
        """Of the table."""
        actions, seconds = self.first or (0, 0.0)
        total = self.actions.total()
        return (
            f"| {name} | {actions}, {seconds:.0f} | {total}, {self.time.seconds:.0f} "
            f"| {self.time.waited:.0f} | {note} | {self.most} |"
        )


def controls(tab: Any) -> list[Any]:
    """What is seen to press, choose or type into, but for the door to the settings.

    The pictures of the candidates are one choice, as the entries of a list are.
    """
    from qtpy import QtWidgets

    kinds = (
        QtWidgets.QAbstractButton, QtWidgets.QComboBox, QtWidgets.QAbstractSpinBox,
        QtWidgets.QAbstractSlider, QtWidgets.QLineEdit, QtWidgets.QAbstractItemView,
    )  # fmt: skip
    inner = (QtWidgets.QAbstractItemView, QtWidgets.QAbstractSpinBox, QtWidgets.QComboBox)
    pictures = tab.candidates.buttons[1:]
    return [
        each
        for each in tab.findChildren(QtWidgets.QWidget)
        if isinstance(each, kinds)
        and each.isVisible()
        and each is not tab.menu
        and each not in pictures
        and not isinstance(each, (QtWidgets.QScrollBar, QtWidgets.QHeaderView))
        and not isinstance(each.parentWidget(), inner)
    ]


# ---------------------------------------------------------------------- tasks


def beginner(person: Person) -> str:
    """The coins among the samples of the empty tab, all of them."""
    person.know(development("coins")[1])
    person.push(person.tab.welcome.samples[0])
    person.finish_by_drafts()
    person.save()
    return person.found()


def biologist(person: Person) -> str:
    """42 channels, of which three show nuclei: all nuclei of the field."""
    stain, labels = development("fluo2d_lowcontrast_nuclei")
    bright = (stain - stain.min()) / np.ptp(stain)
    channels = np.random.default_rng(0).normal(0.15, 0.05, (CHANNELS, *stain.shape))
    for number, contrast in zip(STAINED, CONTRASTS, strict=True):
        channels[number] = contrast * bright + 0.05 * channels[number]
    names = [f"marker {number}" for number in range(CHANNELS)]
    tifffile.imwrite(
        "field.ome.tif",
        (4000 * channels.clip(0, 1)).astype(np.uint16),
        metadata={"axes": "CYX", "Channel": {"Name": names}},
    )
    person.know(labels)
    person.open(Path("field.ome.tif"))
    person.finish_by_drafts()
    person.save()
    return person.found()


def radiologist(person: Person) -> str:
    """A lesion by boxes on axial planes, propagated, looked at from three sides after each.

    It is the largest that fills half of its box: larger ones run together from several, and a box
    around one is a box around the brain between its branches.
    """
    from scipy.ndimage import find_objects, label

    nibabel: Any = import_module("nibabel")
    shutil.copy(TUTORIALS / "ms-brain_FLAIR.nii.gz", "flair.nii.gz")
    lesions, _ = label(
        np.asarray(nibabel.load(TUTORIALS / "ms-brain_lesions.nii.gz").dataobj).T > 0
    )
    masks = [lesions == each for each in range(1, lesions.max() + 1)]

    def fills(mask: NDArray[np.bool_]) -> bool:
        widest = mask[mask.sum((1, 2)).argmax()]
        return bool(widest[find_objects(widest.astype(int))[0]].mean() > 0.5)

    lesion = max(filter(fills, masks), key=np.count_nonzero)
    plane = int(lesion.sum((1, 2)).argmax())
    person.open(Path("flair.nii.gz"))
    person.take("box")
    overlap = 0.0
    for _ in range(BOXES):
        person.know(lesion[plane].astype(np.int32))
        person.go_to(plane)
        y0, x0, y1, x1 = person.knows.objects[1].box
        corners = [person.layer.data_to_world((plane, *at))[-2:] for at in ((y0, x0), (y1, x1))]
        person.box(*(value for corner in corners for value in corner))
        person.push(person.tab.stack_panel.start)
        for _ in range(3):
            person.push(person.hands.viewer.window._qt_viewer.viewerButtons.rollDimsButton)
        assert person.hands.viewer.dims.displayed == (1, 2), "three rolls lead back"
        shown = person.hands.mask
        overlap = np.count_nonzero(shown & lesion) / np.count_nonzero(shown | lesion)
        if overlap >= 0.75:
            break
        plane = int((lesion & ~shown).sum((1, 2)).argmax())
    person.key("C")
    person.save()
    found = np.asarray(person.hands.workspace.target().layer.data) > 0
    assert (found == shown).all(), "what was shown is written"
    return f"the volume by {person.actions['boxes']} boxes, with an IoU of {overlap:.2f}"


def pathologist(person: Person) -> str:
    """A slide as a pyramid in OME-TIFF: the three largest nuclei by boxes, others as drafts."""
    slide = tifffile.imread(TUTORIALS / "stained.svs")
    labels = np.asarray(tifffile.imread(TUTORIALS / "stained_labels.tif"), np.int32)
    with tifffile.TiffWriter("slide.ome.tif", bigtiff=True) as file:
        levels: Any = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg"}
        file.write(slide, subifds=2, metadata={"axes": "YXS"}, **levels)
        for step in (2, 4):
            file.write(slide[::step, ::step], subfiletype=1, **levels)
    person.know(labels)
    person.open(Path("slide.ome.tif"))
    by_size = np.argsort(np.bincount(labels.ravel())[1:])[::-1] + 1
    person.make(by_size[:3].tolist())
    person.everything()
    person.reject()
    person.key("C")
    person.save()
    return person.found()


def materials(person: Person) -> str:
    """222 particles by drafts, and by the pen those that are missing."""
    shutil.copy(DATA / "real" / "nanoshapes" / f"{GRAINS}.jpg", "grains.jpg")
    person.know(particles(GRAINS))
    person.open(Path("grains.jpg"))
    person.has_pen = True
    person.finish_by_drafts()
    person.save()
    return person.found()


def time_series(person: Person) -> str:
    """Nuclei of 20 frames, found and linked by one press; wrong links are cut."""
    frames, truth = moving_nuclei()
    tifffile.imwrite("series.ome.tif", frames, metadata={"axes": "TYX"})
    person.open(Path("series.ome.tif"))
    person.push(person.tab.buttons.everything)
    person.push(person.tab.automatic_panel.all_frames)
    wrong = wrong_links(person, truth)
    for frame, one, other in wrong:
        for at, which in ((frame, one), (frame + 1, other)):
            person.go_to(at)
            person.shift_click(*middle_of(truth[at] == which))
        person.menu("tracks")
        person.push(person.tab.tracks_panel.buttons["cut link"])
    person.save()
    left = len(wrong_links(person, truth))
    return f"{links_right(person, truth)} links; {len(wrong)} wrong before, {left} after"


def folder(person: Person) -> str:
    """Twelve images found as a batch, looked over and corrected one after the other."""
    from qtpy.QtTest import QTest
    from skimage.io import imread

    from tests.widgets.dropping import drop
    from tests.widgets.hands import LEFT

    Path("images").mkdir()
    sizes = {
        path.name.removesuffix("_labels.png"): len(np.unique(imread(path))) - 1
        for path in sorted((DATA / "real" / "nanoshapes").glob("*_labels.png"))
    }
    names = sorted(name for name in sizes if sizes[name] <= FEW)[:FOLDER]
    for name in names:
        shutil.copy(DATA / "real" / "nanoshapes" / f"{name}.jpg", "images")
    widget = person.hands.widget
    bar = widget.tabs.tabBar()
    click: Any = QTest.mouseClick  # the stubs know no widget of napari's
    click(bar, LEFT, pos=bar.tabRect(widget.tabs.indexOf(widget.batch)).center())
    assert drop(widget.batch, Path("images").resolve())
    person.waits_for(widget.batch)
    person.actions["opened"] += 2
    person.time.press(2)
    person.push(widget.batch.start)
    person.waits_for(widget.batch)
    person.push(widget.batch.status.offer)
    right = there = 0
    for number, name in enumerate(names):
        person.know(particles(name))
        person.take_away(person.committed, "Shift+D")
        person.make(person.missing())
        right += len(person.done)
        there += len(person.knows.objects)
        if number < len(names) - 1:
            person.key("Shift+N")
    return f"{right} of {there}"


TASKS: dict[str, Callable[[Person], str]] = {
    each.__name__: each
    for each in (beginner, biologist, radiologist, pathologist, materials, time_series, folder)
}


# ---------------------------------------------------------------------- images


def development(name: str) -> tuple[NDArray[Any], Labels]:
    """An image of the development set, and its true objects."""
    from development_set import ENTRIES

    image, labels = ENTRIES[name].make()
    return np.asarray(image), labels.astype(np.int32)


def particles(name: str) -> Labels:
    """The true particles (Y, X) of an image; labels of ground are left out."""
    return read_labels(DATA / "real" / "nanoshapes" / f"{name}.jpg")


def moving_nuclei() -> tuple[NDArray[np.uint16], Labels]:
    """Real nuclei on a walk (T, Y, X), and which they are; one goes, another takes its place."""
    image, labels = development("fluo2d_hela")
    ground = image[labels == 0]
    rng = np.random.default_rng(0)
    noise = rng.normal(np.median(ground), ground.std() / 4, (FRAMES, FIELD, FIELD))
    truth = np.zeros((FRAMES, FIELD, FIELD), np.int32)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    kinds = np.argsort(areas)[::-1][: CELLS + 1]
    side = FIELD // round(CELLS**0.5)
    for number, kind in enumerate(kinds):
        place = np.array(divmod(number % CELLS, round(CELLS**0.5))) * side + side // 2
        walk = place + rng.normal(0, 1.0, (FRAMES, 2)).cumsum(0).clip(-8, 8)
        rows, columns = np.nonzero(labels == kind)
        for frame in range(FRAMES):
            if number % CELLS == 0 and (frame > GONE) != (number == CELLS):
                continue
            at = np.round(walk[frame]).astype(int)
            y = rows - round(rows.mean()) + at[0]
            x = columns - round(columns.mean()) + at[1]
            seen = (y >= 0) & (y < FIELD) & (x >= 0) & (x < FIELD)
            noise[frame, y[seen], x[seen]] = image[rows[seen], columns[seen]]
            truth[frame, y[seen], x[seen]] = number + 1
    return noise.astype(np.uint16), truth


def middle_of(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """A point within an object (Y, X)."""
    from napari_simmat.engine.masks import interior_point

    return interior_point(mask)


def _links(person: Person, truth: Labels) -> list[tuple[int, int, int]]:
    """The links that the labels tell: a frame, and the true objects on it and the next."""
    labels = np.asarray(person.hands.workspace.target().layer.data)
    at = [
        {
            int(labels[(frame, *map(round, middle_of(truth[frame] == which)))]): which
            for which in np.unique(truth[frame])[1:].tolist()
        }
        for frame in range(len(truth))
    ]
    return [
        (frame, one, at[frame + 1][label])
        for frame in range(len(truth) - 1)
        for label, one in at[frame].items()
        if label and label in at[frame + 1]
    ]


def wrong_links(person: Person, truth: Labels) -> list[tuple[int, int, int]]:
    """The links of two objects that are not the same."""
    return [link for link in _links(person, truth) if link[1] != link[2]]


def links_right(person: Person, truth: Labels) -> str:
    """How many of the true links there are."""
    right = sum(one == other for _, one, other in _links(person, truth))
    there = sum(len(np.intersect1d(before, after)) - 1 for before, after in pairwise(truth))
    return f"{right} of {there}"


# ---------------------------------------------------------------------- the run


def main() -> None:
    """Do the tasks, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*TASKS, []], default=[])
    chosen = parser.parse_args()
    print("| who | to the first object | to the saved table | waited, s | right | controls |")
    print("| --- | --- | --- | ---: | --- | ---: |")
    for name in chosen.names or TASKS:
        with tempfile.TemporaryDirectory() as home, chdir(home):
            # Nobody's settings, models and unsaved work.
            os.environ["NAPARI_SIMMAT_HOME"] = str(Path(home) / "home")
            os.environ["NAPARI_CONFIG"] = str(Path(home) / "napari.yaml")
            print(do(name), flush=True)


def do(name: str) -> str:
    """Do a task in a window of its own; the row of the table."""
    import napari
    from napari.settings import get_settings
    from PIL import Image

    from tests.widgets.hands import SECONDS, Window

    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    settings = get_settings()
    settings.application.hold_button_delay = SECONDS / 1000
    settings.plugins.extension2reader = dict.fromkeys(
        ("*.nii.gz", "*.ome.tif"), "napari-simmat"
    )  # so that napari asks for none of other plugins
    hands = Window(viewer, SimpleNamespace(waitUntil=wait_until))
    hands.start()
    person = Person(hands, np.zeros((8, 8), np.int32))
    note = TASKS[name](person)
    PICTURES.mkdir(parents=True, exist_ok=True)
    pixels = viewer.screenshot(canvas_only=False, flash=False)
    Image.fromarray(np.ascontiguousarray(pixels[..., :3])).save(PICTURES / f"{name}.png")
    row = person.row(name.replace("_", " "), note)
    hands.release()
    viewer.close()
    return row


if __name__ == "__main__":
    main()

"""A packed image finished in the window by *Everything*, counted and filmed.

``python tests/with_screen.py python research/scripts/finishing_film.py`` opens napari's window and
finishes the image of `IMAGE` by real mouse and key events: a simulated user who knows the true
objects (as in `simmat_research.finishing`) works until each is committed at an IoU of 0.75 or was
given up after ten clicks. It writes what it took, and pictures of the window, to
``build/finishing-film``, and of them ``docs/images/finishing.webp`` and
``docs/reports/data/finishing-film.json``. With the word ``cut`` it makes these two alone.

Every press counts as an action: a click, a box, a key, a button; so do opening the image and
saving. Seconds are those of `simmat_research.user_time`, half a second for each draft among them,
and waiting by the clock, from the end of an action until the window has nothing left to do.

The image comes from the folder ``real`` of NAPARI_SIMMAT_DATA, by default ``../shared/data``; the
built-in foundation was not trained on its source.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]  # the hands are of the tests, the film of scripts
DATA = Path(os.environ.get("NAPARI_SIMMAT_DATA", "../shared/data")).resolve()
IMAGE = DATA / "real" / "nanoshapes" / "Picture_1_png.jpg"
NAME = "copper-particles.jpg"
WORK = ROOT / "build" / "finishing-film"
FILM = ROOT / "docs" / "images" / "finishing.webp"
KEPT = ROOT / "docs" / "reports" / "data" / "finishing-film.json"
SIZE = (1280, 800)
TOGETHER = 20
"""Boxes that are committed with one key."""
CLOSE, SHOWN, SELDOM = 8, 60, 50
"""Actions of a step that are filmed from near, that are filmed at all, and of others each 50th."""
PRESSED, AFTER, PASSING = 200, 450, 140
"""Milliseconds for which pictures are shown: of a press, and of what came of it."""
LATE = 5
"""Turns of the event loop in which a layout settles."""
BETWEEN, FASTER = 3.0, 40
"""Seconds between two pictures while the window works, and how much faster the film shows them."""
SEEN = (332, 23, 1280, 775)
"""What the film shows of the window: canvas and tab; x and y from, x and y to."""
TOP, BOTTOM, NOTE = (278, 56), (278, 676), (278, 718)
"""Middles of what is said, counted and noted, x and y."""
LETTERS = 38
"""In a line."""
MOVING, THINNED, QUICK = 60, 5, 0.5
"""Milliseconds of the pointer's steps, which are left out; one of so many pictures of waiting is
kept; how long actions are shown, of the time that they were taken for.
"""
QUALITY = 55
Pictures = list[tuple[Path, dict[str, Any]]]
"""Files, and what was said and counted at each."""
LARGEST = 10
"""Labels that are so many times larger than most are no objects: the image has one, of ground."""


class User:
    """Finishes the image in a window, seeing only what its layers show.

    Parameters
    ----------
    hands
        `tests.widgets.hands.Hands`, with the widget open.
    labels
        (Y, X), the true objects.
    film
        Takes pictures; None for none.
    """

    def __init__(self, hands: Any, labels: np.ndarray, film: Any = None) -> None:
        from simmat_research.finishing import SimulatedUser
        from simmat_research.user_time import UserTime

        self.hands, self.film = hands, film or Unfilmed()
        self.time = UserTime()
        self.knows = SimulatedUser(labels)
        self.actions: Counter[str] = Counter()
        self.given_up: set[int] = set()
        self.film.user = self

    @property
    def done(self) -> list[int]:
        """The true objects that are committed."""
        layers = self.hands.viewer.layers
        return list(self.right(layers["SimMAT objects"].data)) if "SimMAT objects" in layers else []

    def right(self, labels: np.ndarray) -> dict[int, int]:
        """Of the true objects that a label meets, that label."""
        return self.knows.right_ones(labels.astype(np.int32))

    def outcome(self) -> dict[str, Any]:
        """What it took until now."""
        return {
            "objects": len(self.knows.objects),
            "done": len(self.done),
            "actions": self.actions.total(),
            **self.actions,
            "waited": round(self.time.waited, 1),
            "seconds": round(self.time.seconds, 1),
        }

    # ------------------------------------------------------------------ actions

    def key(self, name: str) -> None:
        """Press a key of the keyboard, e.g. C, or Shift+C."""
        from qtpy.QtCore import Qt

        *shift, letter = name.split("+")
        held = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
        self.hands.tap(getattr(Qt.Key, f"Key_{letter}"), held)
        self._count("keys")

    def push(self, button: Any) -> None:
        """Press a button."""
        self.film.at_widget(button)
        self.hands.take(button)
        self._count("buttons")

    def click(self, y: float, x: float) -> None:
        """Press the mouse on the image."""
        self.film.at_image(y, x)
        self.hands.press(y, x)
        self._count("clicks")

    def box(self, y0: float, x0: float, y1: float, x1: float) -> None:
        """Draw a box around pixels: half-open, as those of arrays."""
        corners = (y0 - 0.5, x0 - 0.5), (y1 - 0.5, x1 - 0.5)
        self.film.at_image(*corners[0])
        self.film.at_image(*corners[1], pressed=True)
        began = time.monotonic()
        self.hands.draw(corners)  # waits, too
        self._count("boxes", began)

    def _count(self, kind: str, began: float | None = None) -> None:
        self.actions[kind] += 1
        if kind == "boxes":
            self.time.box()
        else:
            self.time.press()
        self.wait(began)

    def wait(self, began: float | None = None) -> None:
        """Let the window finish; what takes long is filmed."""
        from qtpy.QtWidgets import QApplication

        began = time.monotonic() if began is None else began
        while not self.hands._is_idle():
            QApplication.processEvents()
            time.sleep(0.002)
            self.film.meanwhile(time.monotonic() - began)
        self.time.waited += time.monotonic() - began
        self.film.after()

    def open(self, path: Path) -> None:
        """Drop a file on the viewer."""
        from tests.widgets.dropping import drop

        assert drop(self.hands.viewer.window._qt_viewer, path.resolve())
        self._count("opened")
        self.push(self.hands.viewer.window._qt_viewer.viewerButtons.resetViewButton)

    def save(self) -> None:
        """Save the objects under the name that the dialog proposes."""
        from qtpy.QtCore import Qt, QTimer
        from qtpy.QtTest import QTest
        from qtpy.QtWidgets import QApplication

        def accept() -> None:
            if QApplication.activeModalWidget() is None:
                return
            opened.stop()
            QTest.keyClick(QApplication.activeModalWidget(), Qt.Key.Key_Return)
            self.actions["keys"] += 1
            self.time.press()

        button = self.hands.tab.object_panel.save
        self.film.say("Save: a label image and a table")
        self.film.at_widget(button)
        self.film.hold(2500)
        self.film.say("")  # dialog and status show folders
        opened = QTimer()
        opened.timeout.connect(accept)
        opened.start(300)
        self.push(button)

    # ------------------------------------------------------------------ ways

    def take(self, tool: str) -> None:
        """Take a tool in hand, unless it is there."""
        button = self.hands.tab.buttons.tools[tool]
        if not button.isChecked():
            self.push(button)

    def everything(self) -> None:
        """Segment everything; its section is opened before."""
        tab = self.hands.tab
        if not tab.automatic_panel.start.isVisible():
            self.push(tab.buttons.everything)
        self.push(tab.automatic_panel.start)

    def finish_by_drafts(self) -> None:
        """Everything; a box for what is missing; what is wrong is rejected; commit."""
        say = self.film.say
        say("One press: Segment everything")
        self.everything()
        self.film.hold(2500)
        say("A box where one is missing")
        self.make(self.missing())
        say("H takes a wrong one away")
        self.reject()
        say("C commits all")
        self.key("C")
        self.film.hold(1500)

    def make(self, labels: list[int]) -> None:
        """Box objects, correct those that need it, and commit them together."""
        for number, label in enumerate(labels, 1):
            self.begin(label)
            self.correct(label)
            if number % TOGETHER == 0 or number == len(labels):
                self.key("C")

    def begin(self, label: int) -> None:
        """Draw a box around an object."""
        self.take("box")
        self.box(*self.knows.objects[label].box)

    def correct(self, label: int) -> None:
        """Click where the mask of an object is wrong, until it is right."""
        from simmat_research.finishing import MAX_CLICKS

        truth = self.knows.objects[label]
        for left in reversed(range(MAX_CLICKS)):
            mask = self._own(label)
            further = truth.correction(mask)
            if self.knows.is_done(label, mask) or further is None:
                return
            if not left:
                self.given_up.add(label)
                return
            self.take("point")
            point, kind = further
            if self.hands.workspace.prompt_layers.positive != bool(kind):
                self.key("T")
            self.click(*point)

    def missing(self) -> list[int]:
        """Objects that neither a draft nor a committed object meets."""
        right = {*self.done, *self.right(self._drafts())}
        return [label for label in self.knows.objects if label not in right]

    def reject(self) -> None:
        """Look at each draft; point at those that are wrong, and press H."""
        self.take_away(self._drafts(), "H")

    def take_away(self, labels: np.ndarray, key: str) -> None:
        """Look at each object of some labels (Y, X); point at those that are wrong, and press."""
        from napari_simmat.engine.masks import interior_point, label_windows

        self.time.look(len(np.unique(labels)) - 1)
        right = set(self.right(labels).values())
        for number, window in label_windows(labels):
            if number not in right:
                y, x = interior_point(labels[window] == number)
                at = window[0].start + y, window[1].start + x
                self.film.at_image(*at, pressed=False)
                self.hands.hover(*at)
                self.key(key)

    def _own(self, label: int) -> np.ndarray:
        """The mask that is shown where the object is."""
        shown = self._shown()
        numbers = np.bincount(shown[self.knows.labels == label])
        numbers[:1] = 0
        return shown == (int(numbers.argmax()) if numbers.any() else -1)

    def _drafts(self) -> np.ndarray:
        """The open drafts (Y, X), each with its number; colors of those shown repeat."""
        drafts = self.hands.workspace.session.drafts
        return np.array(drafts.open_labels(self.knows.labels.shape), np.int32)

    def _shown(self) -> np.ndarray:
        """The masks that are shown (Y, X), each with its number."""
        if "SimMAT preview" not in self.hands.viewer.layers:
            return np.zeros_like(self.knows.labels)
        return np.array(self.hands.preview, np.int32)


class Unfilmed:
    """Takes no pictures."""

    user: Any = None

    def say(self, text: str) -> None:
        """What follows, in words."""

    def at_widget(self, widget: Any) -> None:
        """Before a widget is pressed."""

    def at_image(self, y: float, x: float, *, pressed: bool = True) -> None:
        """Before the mouse is pressed, moved or released on the image."""

    def after(self) -> None:
        """An action, and what followed from it."""

    def meanwhile(self, waited: float) -> None:
        """The window is working, for so many seconds."""

    def hold(self, milliseconds: int) -> None:
        """Show the window for so long."""


class Filmed(Unfilmed):
    """Keeps pictures of the window, and what was said and counted at each.

    Parameters
    ----------
    viewer
        Whose window is filmed.
    folder
        Where the pictures go.
    """

    def __init__(self, viewer: Any, folder: Path) -> None:
        from films import Film

        self._folder, self._film = folder, Film(viewer)
        self._film.hold = self._take
        self.pictures: list[dict[str, Any]] = []
        self._said, self._since, self._waited, self._outcome = "", 0, 0.0, {}

    def say(self, text: str) -> None:
        """What follows, in words."""
        self._said, self._since = text, 0

    def at_widget(self, widget: Any) -> None:
        """Before a widget is pressed."""
        if self._since < SHOWN:
            self._film.point_at(widget)
            self._take(PRESSED, pressed=True)

    def at_image(self, y: float, x: float, *, pressed: bool = True) -> None:
        """Before the mouse is pressed, moved or released on the image."""
        if self._since < SHOWN:
            steps = 3 if self._since < CLOSE else 1
            self._film.point_on(self.user.hands.viewer.layers[0], (y, x), steps)
            if pressed and self._since < CLOSE:
                self._take(PRESSED, pressed=True)

    def after(self) -> None:
        """An action, and what followed from it."""
        self._since, self._waited = self._since + 1, 0.0
        shown = self._since <= SHOWN or self.user.actions.total() % SELDOM == 0
        self._outcome = self.user.outcome() if shown else self._outcome
        if shown:
            self._take(AFTER if self._since <= CLOSE else PASSING)

    def hold(self, milliseconds: int) -> None:
        """Show the window for so long."""
        self._outcome = self.user.outcome()
        self._take(milliseconds)

    def meanwhile(self, waited: float) -> None:
        """The window is working, for so many seconds."""
        if waited - self._waited > BETWEEN:
            self._waited = waited
            self._take(round(1000 * BETWEEN / FASTER), faster=True)

    def _take(self, milliseconds: int, *, pressed: bool = False, faster: bool = False) -> None:
        from qtpy.QtWidgets import QApplication

        number = len(self.pictures)
        for _ in range(LATE):
            QApplication.processEvents()
            time.sleep(0.01)
        picture = self._film.picture(pressed=pressed)
        picture.save(self._folder / f"{number:04d}.png", compress_level=1)
        about = {"said": self._said, "milliseconds": milliseconds, "faster": faster}
        self.pictures.append({**about, **self._outcome})


def finish() -> None:
    """Finish the image in a window, and keep what it took."""
    import napari
    from napari.settings import get_settings

    from simmat_research.finishing import Setting, SimulatedUser, finish_image
    from tests.widgets.hands import SECONDS, Window

    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    viewer = napari.Viewer(title="napari", show=True)
    viewer.window.resize(*SIZE)
    get_settings().application.hold_button_delay = SECONDS / 1000
    hands = Window(viewer, SimpleNamespace(waitUntil=wait_until))
    hands.start()
    film, labels = Filmed(viewer, WORK), read_labels()
    user = User(hands, labels, film)
    film.say("{objects} copper particles, packed")
    try:
        user.open(Path(NAME))  # the first picture: of a window without an image nobody learns
        film.hold(1800)
        user.finish_by_drafts()
        user.save()
        film.hold(2000)
    finally:
        (WORK / "pictures.json").write_text(json.dumps(film.pictures))
    outlining = finish_image("by hand", Setting(None, None, SimulatedUser(labels)))
    result = {
        "everything": {**user.outcome(), "given up": len(user.given_up)},
        "by hand": {"objects": outlining.objects, "seconds": round(outlining.seconds, 1)},
    }
    (WORK / "result.json").write_text(json.dumps(result, indent=1))
    print(result)
    hands.release()
    viewer.close()


def wait_until(condition: Callable[[], bool], timeout: float = 180_000) -> None:
    """As pytest-qt's."""
    from qtpy.QtWidgets import QApplication

    deadline = time.monotonic() + timeout / 1000
    while not condition():
        QApplication.processEvents()
        time.sleep(0.002)
        if time.monotonic() > deadline:
            raise SystemExit("the window is still busy")


def read_labels(image: Path = IMAGE) -> np.ndarray:
    """The true objects (Y, X) of an image."""
    from skimage.io import imread

    labels = imread(image.with_name(image.stem + "_labels.png"))
    areas = np.bincount(labels.ravel())
    kept = areas <= LARGEST * np.median(areas[1:])
    kept[0] = False
    return np.where(kept[labels], labels, 0).astype(np.int32)


def cut() -> None:
    """Write what was counted, and the film; it ends with what a hand takes."""
    from PIL import Image

    result = json.loads((WORK / "result.json").read_text())
    KEPT.write_text(json.dumps(result, indent=1) + "\n")
    frames, durations = [], []
    for path, about in shortened(pictures()):
        text = about["said"].format(**about)
        note = f"{FASTER} times faster" if about["faster"] else ""
        frames.append(captioned(path, text, counted(about), note))
        durations.append(about["milliseconds"])
    path, about = pictures()[-1]
    by_hand = minutes(result["by hand"]["seconds"])
    frames.append(captioned(path, f"Outlined by hand: {by_hand} min", counted(about), ""))
    durations.append(4000)
    first, *others = [each.convert("RGB") for each in frames]
    first.save(
        FILM,
        save_all=True,
        append_images=others,
        duration=durations,
        loop=0,
        quality=QUALITY,
        method=4,
    )
    with Image.open(FILM) as film:
        size = FILM.stat().st_size // 1024
        print(f"{FILM.name}: {film.width} x {film.height}, {size} KiB, {sum(durations) / 1000} s")


def shortened(taken: Pictures) -> Pictures:
    """Without the ways of the pointer and what is said nothing of, and with little waiting."""
    kept: Pictures = []
    waiting = 0
    for path, about in taken:
        waiting += about["faster"]
        if (about["faster"] and waiting % THINNED) or not about["said"]:
            continue
        milliseconds = about["milliseconds"]
        if about["faster"]:
            milliseconds *= THINNED
        elif milliseconds == MOVING:
            continue
        elif milliseconds <= AFTER:
            milliseconds = round(milliseconds * QUICK)
        kept.append((path, {**about, "milliseconds": milliseconds}))
    return kept


def pictures() -> Pictures:
    """The pictures, and what was said and counted at each."""
    abouts = json.loads((WORK / "pictures.json").read_text())
    return [(WORK / f"{number:04d}.png", about) for number, about in enumerate(abouts)]


def counted(about: dict[str, Any]) -> str:
    """The counters of a picture."""
    from napari_simmat._text import pluralize

    return f"{pluralize(about['done'], 'object')}, {minutes(about['seconds'])} min"


def minutes(seconds: float) -> str:
    """Minutes and seconds."""
    whole, rest = divmod(round(seconds), 60)
    return f"{whole}:{rest:02d}"


def captioned(path: Path, text: str, counters: str, note: str) -> Any:
    """The canvas and the tab, with words above and below the image."""
    from PIL import Image, ImageDraw

    with Image.open(path) as picture:
        frame = picture.crop(SEEN)
    draw = ImageDraw.Draw(frame)
    write(draw, text, TOP, 26)
    write(draw, counters, BOTTOM, 24)
    write(draw, note, NOTE, 20, "#ffdc00")
    return frame


def write(draw: Any, text: str, middle: tuple[int, int], size: int, color: str = "white") -> None:
    """Write lines around a place."""
    from PIL import ImageFont

    lines, font = textwrap.fill(text, LETTERS), ImageFont.load_default(size)
    draw.multiline_text(middle, lines, fill=color, font=font, anchor="mm", align="center")


def main(words: list[str]) -> None:
    """Finish the image, unless the film is only to be cut anew; and cut the film."""
    if "cut" not in words:
        with tempfile.TemporaryDirectory() as home, chdir(home):
            # Nobody's settings, models and unsaved work.
            os.environ["NAPARI_SIMMAT_HOME"] = home
            os.environ["NAPARI_CONFIG"] = str(Path(home) / "napari.yaml")
            shutil.copy(IMAGE, NAME)
            finish()
    cut()


if __name__ == "__main__":
    main(sys.argv[1:])

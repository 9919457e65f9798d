"""Lines of the pen as a hand draws them in napari's window, by events of the mouse.

``xvfb-run -a python research/scripts/pen_window.py run --output pen.csv`` opens images of the
sources held out from all training (``held_out.txt``) in a real window, one after the other, and
zooms until an object has the size on the screen that is its turn. There a hand outlines it, or a
half of it or too much of it and mends that, scribbles over what is wrong, or outlines its neighbor
next. Each line is a row: what was meant, what the pen took it for, whether the other meaning was
offered, the IoU of the mask and of the drawn line with the truth where an object was outlined, the
seconds by `user_time` and those that the window took.

The hand is off as `strokes` has it, trembles by a pixel of the screen, stops short of its start or
goes on past it, lets go beside it, and is slow or fast. With ``table`` in place of ``run`` it
prints the report's tables from the rows in ``docs/reports/data/pen.csv``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from learn import DATA, read
from numpy.typing import NDArray
from scipy import ndimage

from napari_simmat.engine.masks import Mask, iou
from napari_simmat.engine.outlines import shape_mask
from simmat_research.strokes import (
    Stroke,
    half_width,
    largest_part,
    line_around,
    outline_of,
    scribble_over,
)
from simmat_research.user_time import UserTime

KEPT = Path(__file__).parents[2] / "docs/reports/data/pen.csv"
IMAGES, OBJECTS = 2, 9
"""Images of each source, and objects of each."""
SIZES = (8, 16, 30, 60, 120, 240, 400)
"""Sides of an object on the screen in pixels."""
ZOOMS = 0.5, 10.0
TREMBLE = 0.7
"""Screen pixels, root mean square along each axis, without memory."""
SHORT, PAST, ASIDE = 9.0, 25.0, 8.0
"""Screen pixels by which a line ends short of its start, past it, and beside it, at most."""
SPEEDS = {"slow": 100.0, "fast": 900.0}
"""Screen pixels a second."""
EVENTS = 125.0
"""Of the mouse in a second."""
ENDS = ("to the start", "short of it", "past it", "beside it")
LEAST = 20
"""Pixels of an object."""
_TURNS = 10_000
"""Objects of a run, at most: those of another seed are drawn by other hands."""
WINDOW = 1600, 1000


class Row(NamedTuple):
    """One line."""

    source: str
    image: str
    object: int
    situation: str
    meant: str
    taken: str
    offered: bool
    right: bool
    end: str
    speed: str
    side: float
    zoom: float
    drawn: float | None
    mask: float | None
    acting: float
    waited: float


def main() -> None:
    """Draw, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--output", type=Path, default=KEPT)
    parser.add_argument("--objects", type=int, default=OBJECTS)
    parser.add_argument("--skip", type=int, default=0, help="images of each source to leave out")
    parser.add_argument("--images", type=int, default=IMAGES, help="images of each source")
    parser.add_argument("--seed", type=int, default=0, help="of objects, lines and hand")
    options = parser.parse_args()
    if options.what == "table":
        with KEPT.open() as file:
            print(tables(list(csv.DictReader(file))))
        return
    with options.output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        for row in draw_all(options.objects, options.skip, options.images, options.seed):
            writer.writerow(row)
            file.flush()


def draw_all(count: int, skip: int, images: int, seed: int) -> Iterator[Row]:
    """A row for each line on so many images of each source."""
    hand = WindowHand()
    turn = _TURNS * seed
    for source in (DATA / "real/held_out.txt").read_text().split():
        for path in sorted((DATA / "real" / source).glob("*_labels.png"))[skip : skip + images]:
            name = path.name.removesuffix("_labels.png")
            image = read(source, name, Path())
            labels = np.asarray(image.labels)
            hand.open(image)
            found, areas = np.unique(labels[labels > 0], return_counts=True)
            wanted = found[areas >= LEAST]
            for label in np.random.default_rng(seed).permutation(wanted)[:count].tolist():
                yield from draw_one(hand, labels, label, (source, name), turn)
                turn += 1
    hand.close()


def draw_one(
    hand: WindowHand, labels: NDArray[Any], label: int, image: tuple[str, str], turn: int
) -> Iterator[Row]:
    """The lines on one object: an outline, and what is done with it in the situation's turn."""
    truth = ndimage.binary_fill_holes(largest_part(labels == label))
    situation = ("outline", "adds", "takes away", "scribble", "neighbor")[turn % 5]
    window = ndimage.find_objects(truth.astype(np.uint8))[0]
    side = max(each.stop - each.start for each in window)
    zoom = float(np.clip(SIZES[turn % len(SIZES)] / side, *ZOOMS))
    hand.look_at([(each.start + each.stop) / 2 for each in window], zoom)
    rng = np.random.default_rng(turn)
    meant_first = _first(truth, situation)

    def draw(stroke: Stroke, meant: str, goal: Mask | None, number: int = 0) -> Row:
        end = ENDS[int(rng.integers(len(ENDS)))] if meant != "scribble" else ""
        speed = list(SPEEDS)[int(rng.integers(len(SPEEDS)))]
        before = hand.count
        done = hand.draw(stroke, end, SPEEDS[speed], rng)
        right = done.taken == meant and hand.count == before + (meant == "outline")
        drawn = shape_mask("polygon", stroke.line.tolist(), (truth.shape[0], truth.shape[1]))
        scores: tuple[float | None, float | None] = (None, None)
        if goal is not None:
            scores = (_rounded(drawn, goal), _rounded(hand.mask(number), goal))
        return Row(
            *image, label, situation, meant, done.taken, done.offered, right, end, speed,
            round(side * zoom, 1), round(zoom, 2), *scores,
            round(done.acting, 2), round(done.waited, 2),
        )  # fmt: skip

    yield draw(outline_of(meant_first, turn), "outline", meant_first)
    shown = hand.mask(0)
    wrong = shown ^ truth
    if situation in ("adds", "takes away") and wrong.any():
        kind = truth & ~shown if situation == "adds" else shown & ~truth
        part = largest_part(kind) if kind.any() else kind
        stroke = line_around(part, truth, turn) if part.any() else None
        if stroke is not None and bool(stroke.label) == (situation == "adds"):
            yield draw(stroke, situation, None)
    elif situation == "scribble" and wrong.any():
        yield draw(scribble_over(wrong, truth, turn), "scribble", None)
    elif situation == "neighbor":
        near = np.unique(labels[ndimage.binary_dilation(truth, iterations=4) & ~truth])
        others = [other for other in near.tolist() if other not in (0, label)]
        for other in others[:1]:
            beside = ndimage.binary_fill_holes(largest_part(labels == other))
            if np.count_nonzero(beside) >= LEAST and hand.sees(beside, zoom):
                yield draw(outline_of(beside, turn), "outline", beside, 1)
    hand.discard()


def _first(truth: Mask, situation: str) -> Mask:
    """What is outlined first (Y, X): the object, a half of it, or the object and as much again."""
    if situation not in ("adds", "takes away", "scribble"):
        return truth
    rows, columns = np.nonzero(truth)
    along = rows if np.ptp(rows) >= np.ptp(columns) else columns
    half = np.zeros_like(truth)
    kept = along <= np.median(along)
    half[rows[kept], columns[kept]] = True
    if situation != "takes away":
        return largest_part(half)
    other = truth & ~half
    grown = ndimage.binary_dilation(other, iterations=max(2, round(0.6 * half_width(truth))))
    return np.asarray(ndimage.binary_fill_holes(largest_part(truth | grown)))


def _rounded(mask: Mask, truth: Mask) -> float:
    return round(iou(mask, truth, empty=0.0), 4)


class Done(NamedTuple):
    """What became of a line; seconds by the model and by the clock."""

    taken: str
    offered: bool
    acting: float
    waited: float


class WindowHand:
    """napari's window with the Segment tab, and a hand on the mouse."""

    def __init__(self) -> None:
        import napari
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        from napari_simmat.widgets.main import SimMATWidget

        self.viewer = napari.Viewer()
        self.viewer.window.resize(*WINDOW)
        self.widget = SimMATWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, name="SimMAT", area="right")
        self.widget.open_now()
        self.canvas = self.viewer.window._qt_viewer.canvas.native
        self._left, self._none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        self._keys, self._shift = Qt.Key, Qt.KeyboardModifier.ShiftModifier
        # The stubs know no widget that napari hands out.
        self._press: Any = QTest.mousePress
        self._release: Any = QTest.mouseRelease
        self._key: Any = QTest.keyClick

    @property
    def count(self) -> int:
        """How many objects are open."""
        prediction = self._session.prediction(())
        return 0 if prediction is None else len(prediction.masks)

    @property
    def _session(self) -> Any:
        return self.widget.segment.workspace.session

    def mask(self, number: int) -> Mask:
        """The mask (Y, X) of an open object."""
        masks = self._session.prediction(()).masks
        return np.asarray(masks[min(number, len(masks) - 1)])

    def open(self, image: Any) -> None:
        """Show another image, and take the pen."""
        self.viewer.layers.clear()
        arrays, axis = image.arrays, image.channel_axis
        array = (
            np.stack(arrays, -1)
            if isinstance(arrays, list)
            else np.moveaxis(arrays, axis, -1)
            if axis is not None
            else arrays
        )
        if array.ndim == 3 and array.shape[-1] != 3:
            array = array[..., 0]
        self.viewer.add_image(np.ascontiguousarray(array), rgb=array.ndim == 3)
        self.wait()
        self._key(self.canvas, self._keys.Key_L)
        self.wait()

    def look_at(self, middle: Sequence[float], zoom: float) -> None:
        """Zoom, with a place in the middle."""
        self.viewer.scene.camera.center = (0.0, *middle)
        self.viewer.scene.camera.zoom = zoom
        self.wait()

    def sees(self, mask: Mask, zoom: float) -> bool:
        """Whether an object lies within the canvas."""
        rows, columns = np.nonzero(mask)
        middle = np.array(self.viewer.scene.camera.center[-2:])
        half = np.array([self.canvas.height(), self.canvas.width()]) / 2 / zoom - 30 / zoom
        ends = np.array([(rows.min(), columns.min()), (rows.max(), columns.max())])
        return bool((np.abs(ends - middle) < half).all())

    def draw(self, stroke: Stroke, end: str, speed: float, rng: np.random.Generator) -> Done:
        """Draw a line that ends in some way, at so many screen pixels a second."""
        sign = bool(stroke.label)
        time = UserTime()
        if self.widget.segment.workspace.prompt_layers.positive != sign:
            self._key(self.canvas, self._keys.Key_T)
            time.press()
        path = self._on_canvas(stroke.line)
        if end:
            path = _ended(path, end, rng)
        path = _along(path, speed / EVENTS)
        path += rng.normal(0, TREMBLE, path.shape)
        time.line(float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum()))
        self._drag(path)
        began = monotonic()
        self.wait()
        waited = monotonic() - began
        last = self.widget.segment.controller.pen._last
        state = self._session.prompt_state
        taken = last[1] if last is not None and last[0] == state.on(()) else "nothing"
        return Done(taken, state.other is not None, time.acting, waited)

    def discard(self) -> None:
        """Take all prompts away."""
        self._key(self.canvas, self._keys.Key_C, self._shift)
        self.wait()

    def close(self) -> None:
        """Close the window."""
        self.widget.release()
        self.viewer.close()

    def wait(self) -> None:
        """Until nothing is pending."""
        from qtpy.QtWidgets import QApplication

        calm, segment = 0, self.widget.segment
        while calm < 3:
            was_idle = segment.controller.inference.worker.idle
            QApplication.processEvents()
            calm = calm + 1 if was_idle and not segment.busy else 0

    def _on_canvas(self, line: NDArray[np.float64]) -> NDArray[np.float64]:
        view = self.viewer.window._qt_viewer.canvas.view
        at = view.scene.transform.map(line[:, ::-1])
        return np.asarray(at[:, :2], np.float64)

    def _drag(self, path: NDArray[np.float64]) -> None:
        from qtpy.QtCore import QEvent, QPointF
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        whole = [QPointF(round(x), round(y)) for x, y in path.tolist()]
        self._press(self.canvas, self._left, self._none, whole[0].toPoint())
        for number, at in enumerate(whole[1:]):
            everywhere = self.canvas.mapToGlobal(at)
            event = QMouseEvent(
                QEvent.Type.MouseMove, at, everywhere, self._left, self._left, self._none
            )
            QApplication.sendEvent(self.canvas, event)
            if number % 8 == 0:
                QApplication.processEvents()
        self._release(self.canvas, self._left, self._none, whole[-1].toPoint())


def _ended(path: NDArray[np.float64], end: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """A closed path (N, 2) of the screen that begins anywhere and ends in some way."""
    ring = np.roll(path[:-1], int(rng.integers(len(path))), axis=0)
    ring = np.vstack([ring, ring[:1]])
    steps = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(ring, axis=0), axis=1))]
    length = steps[-1]
    most = {"short of it": SHORT, "past it": PAST, "beside it": ASIDE}.get(end, 0.0)
    far = min(float(rng.uniform(0.3, 1.0)) * most, length / 8)
    if end == "short of it":
        return np.asarray(ring[steps <= length - far])
    if end == "past it":
        return np.vstack([ring, ring[1:][steps[1:] <= far]])
    if end == "beside it":
        turn = rng.uniform(0, 2 * np.pi)
        return np.vstack([ring[:-1], ring[-1] + far * np.array([np.cos(turn), np.sin(turn)])])
    return ring


def _along(path: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Points (N, 2) of a path that the mouse reports, so many pixels apart."""
    lengths = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))]
    where = np.linspace(0, lengths[-1], max(int(np.ceil(lengths[-1] / step)) + 1, 3))
    return np.stack([np.interp(where, lengths, column) for column in path.T], axis=1)


def tables(rows: list[dict[str, str]]) -> str:
    """Two tables: by what was meant, and by the size of the object on the screen."""

    def line(name: str, chosen: list[dict[str, str]]) -> str:
        right = [each["right"] == "True" for each in chosen]
        wrong = [each for each, is_right in zip(chosen, right, strict=True) if not is_right]
        offered = sum(each["offered"] == "True" for each in wrong)
        # Halves, and objects with more than themselves, are no objects.
        whole = [each for each in chosen if each["situation"] in ("outline", "neighbor")]
        scored = [each for each in whole if each["mask"]]
        ious = [
            f"{np.mean([float(each[key]) for each in scored]):.2f}" if scored else ""
            for key in ("drawn", "mask")
        ]
        seconds = [
            f"{np.mean([float(each[key]) for each in chosen]):.{digits}f}"
            for key, digits in (("acting", 1), ("waited", 2))
        ]
        share = f"{100 * np.mean(right):.1f} %"
        cells = [name, str(len(chosen)), share, str(len(wrong)), str(offered), *ious, *seconds]
        return f"| {' | '.join(cells)} |"

    head = (
        "| {} | lines | taken as meant | otherwise | of these offered | IoU, line | IoU, mask |"
        " s by the model | s waited |\n| --- | " + " | ".join(["---:"] * 8) + " |"
    )
    meant: dict[str, list[Any]] = {}
    for row in rows:
        name = row["situation"] if row["situation"] == "neighbor" else row["meant"]
        meant.setdefault(name, []).append(row)
    sizes = [(0, 20), (20, 50), (50, 100), (100, 200), (200, 999)]
    by_size = {
        f"{low} to {high} px" if high < 999 else f"from {low} px": [
            row for row in rows if low <= float(row["side"]) < high
        ]
        for low, high in sizes
    }
    by_end = {end: [row for row in rows if row["end"] == end] for end in ENDS}
    by_speed = {speed: [row for row in rows if row["speed"] == speed] for speed in SPEEDS}
    parts = []
    for title, groups in (("the line was meant as", meant), ("side on the screen", by_size)):
        parts += [head.format(title), *(line(*each) for each in groups.items() if each[1])]
        parts += [line("all", rows), ""] if groups is meant else [""]
    parts += [head.format("it ends, it is")]
    parts += [line(*each) for each in (*by_end.items(), *by_speed.items()) if each[1]]
    return "\n".join(parts)


if __name__ == "__main__":
    main()

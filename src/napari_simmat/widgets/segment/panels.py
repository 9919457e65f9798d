"""Parts of the form: prompt buttons, stack, automatic segmentation, pyramid level.

They compute nothing; they show what they are given and emit what the user asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from napari import Viewer
from napari.layers import Image, Labels, Layer, Points
from qtpy.QtCore import QEvent, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QImage, QMouseEvent, QPainter, QPaintEvent, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QSpinBox,
    QStackedLayout,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_simmat.engine.drawing import THUMBNAIL_SIDE
from napari_simmat.widgets.controls import (
    Button,
    ComboBox,
    LayerChoice,
    MainButton,
    hbox,
    set_tone,
    text_label,
    tone_color,
    vbox,
)
from napari_simmat.widgets.forms import EverythingForm
from napari_simmat.widgets.placement import choose_level, image_shape, level_of
from napari_simmat.widgets.segment.inference import Candidate
from napari_simmat.widgets.segment.outputs import PREVIEW
from napari_simmat.widgets.segment.prompt_layers import Tool
from napari_simmat.widgets.segment.prompt_state import Plane, plane_names
from napari_simmat.widgets.shortcuts import shortcut_text

Direction = Literal["both", "up", "down"]
_DIRECTIONS: dict[Direction, str] = {
    "both": "both directions",
    "up": "to later planes",
    "down": "to earlier planes",
}
_BARS_HEIGHT = 44
NO_BARS = "Propagate shows how sure each plane is."
POSITIVE_TEXT, NEGATIVE_TEXT = "positive", "negative"
KEYS_TEXT = (
    "Keys: {flip} positive or negative, {cycle} another mask, {next} another object beside it, "
    "{undo} undo."
)


class PromptButtons(QWidget):
    """Tools and actions; each button shows its key.

    What needs a prompt or something to undo has a fixed place, which shows the keys until then.

    Attributes
    ----------
    candidates
        The pictures of the masks to choose from.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.point = Button("● Point", tip="Click on the object")
        self.box = Button("▭ Box", tip="Draw a box around each object; E and P: ellipse, polygon")
        self.scribble = Button("∿ Scribble", tip="Scribble over the object")
        self.sign = Button("", tip="Flip between positive and negative")
        self.commit = MainButton(
            "Commit", shortcut_text("commit"), "Write the object; then the next one"
        )
        self.clear = Button("Clear", shortcut_text("clear"), "Remove the prompts shown")
        self.undo = Button("Undo", shortcut_text("undo"), "Undo the last action")
        self.redo = Button("Redo", "", f"Redo it ({shortcut_text('redo')})")
        self.cycle = Button(
            "Next mask", shortcut_text("cycle"), "Another of the model's candidates"
        )
        self.next = Button(
            "New object", shortcut_text("next"), "Another object beside the open ones"
        )
        self.candidates = CandidateStrip()
        self.keys = text_label("muted")
        self.keys.setText(keys_text())
        self._tools: dict[Tool, Button] = {
            "point": self.point,
            "box": self.box,
            "ellipse": self.box,
            "polygon": self.box,
            "scribble": self.scribble,
        }
        for button in (self.point, self.box, self.scribble):
            button.setCheckable(True)
        self._lay_out()
        self.set_sign(True)

    def set_tool(self, tool: Tool) -> None:
        """Show the tool in use."""
        for button in (self.point, self.box, self.scribble):
            button.setChecked(self._tools.get(tool) is button)

    def set_sign(self, positive: bool) -> None:
        """Show whether new prompts are positive."""
        self.sign.setText(
            f"{POSITIVE_TEXT if positive else NEGATIVE_TEXT}  {shortcut_text('flip')}"
        )
        set_tone(self.sign, "good" if positive else "error")

    def event(self, event: QEvent) -> bool:
        """Keep as much room as the actions need, so that nothing moves when they are seen."""
        if event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.Show):
            # Buttons that were not seen yet do not know the theme's size; all are as high as this.
            row = self.commit.sizeHint().height() + self._rows.spacing()
            self._room.setFixedHeight(2 * row + self.candidates.height())
        return super().event(event)

    def set_state(
        self, *, working: bool, prompted: bool, commits: bool, undo: bool, redo: bool
    ) -> None:
        """Enable what can be done with an image, with prompts, and with something to commit."""
        for button in (self.point, self.box, self.scribble, self.sign):
            button.setEnabled(working)
        for button in (self.clear, self.cycle, self.next):
            button.setEnabled(prompted)
        self.commit.setEnabled(commits)
        self.undo.setEnabled(undo)
        self.redo.setEnabled(redo)
        self._actions.setCurrentIndex(prompted or undo or redo)

    def _lay_out(self) -> None:
        tools = QHBoxLayout()
        tools.setSpacing(4)
        for button in (self.point, self.box, self.scribble, self.sign):
            tools.addWidget(button)
        first, second = hbox(self.cycle, self.next), hbox(self.undo, self.redo, self.clear)
        for row in (first, second):
            row.setSpacing(4)
        actions, self._room = QWidget(), QWidget()
        self._rows = vbox(first, second, self.candidates, parent=actions)
        self._rows.addStretch(1)
        self.keys.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._actions = QStackedLayout(self._room)
        self._actions.addWidget(self.keys)
        self._actions.addWidget(actions)
        vbox(tools, self.commit, self._room, parent=self, spacing=8)


def keys_text() -> str:
    """What stands where the actions will be."""
    keys = {name: shortcut_text(name) for name in ("flip", "cycle", "next", "undo")}
    return KEYS_TEXT.format(**keys)


class CandidateStrip(QWidget):
    """Thumbnails of the model's candidates for the last object; blank unless there are several."""

    chosen = Signal(int)
    """The user pressed the picture of this candidate."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(2)
        self._row.addStretch(1)
        self.setFixedHeight(THUMBNAIL_SIDE + 8)
        policy = self.sizePolicy()
        policy.setRetainSizeWhenHidden(True)  # what is below stays where it is
        self.setSizePolicy(policy)
        self.buttons: list[QToolButton] = []
        self._candidates: tuple[Candidate, ...] = ()
        self.setStyleSheet(
            "QToolButton { border: 2px solid transparent; padding: 0; background: transparent; }"
            "QToolButton:checked { border-color: #3a86bf; }"
        )
        self.show_candidates((), 0)

    def show_candidates(self, candidates: Sequence[Candidate], choice: int) -> None:
        """Show pictures in the order in which Q goes through them.

        Parameters
        ----------
        candidates
            None hides the strip.
        choice
            The one that is shown on the image.
        """
        self._candidates = tuple(candidates)
        count = len(candidates)
        while len(self.buttons) < count:
            self._add(len(self.buttons))
        for number, button in enumerate(self.buttons):
            button.setVisible(number < count)
            button.setToolTip(candidate_tip(number, count))
        for button, (_, picture) in zip(self.buttons, candidates, strict=False):
            height, width = picture.shape[:2]
            pixels = np.ascontiguousarray(picture)
            image = QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888)
            button.setIcon(QIcon(QPixmap.fromImage(image)))
            button.setIconSize(QSize(width, height))
        self._mark(choice)
        self.setVisible(count > 1)

    def _mark(self, choice: int) -> None:
        for button, candidate in zip(self.buttons, self._candidates, strict=False):
            button.setChecked(candidate.choice == choice)

    def _add(self, number: int) -> None:
        button = QToolButton()
        button.setCheckable(True)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        button.clicked.connect(lambda: self._on_clicked(number))
        self._row.insertWidget(number, button)
        self.buttons.append(button)

    def _on_clicked(self, number: int) -> None:
        choice = self._candidates[number].choice
        self._mark(choice)
        self.chosen.emit(choice)


def candidate_tip(number: int, count: int) -> str:
    """Tool tip of one of the candidates."""
    key = shortcut_text("cycle")
    return f"Mask {number + 1} of {count}: click to choose it ({key} for the next)"


@dataclass(frozen=True)
class StackAxis:
    """One axis of planes."""

    index: int
    name: str
    size: int


class PlaneBar(NamedTuple):
    """How sure a propagated plane is, 0..1, and whether it is worth a look."""

    plane: Plane
    certainty: float
    doubtful: bool


class PlaneBars(QWidget):
    """A bar for each plane of what was propagated; low and orange where it is doubtful."""

    chosen = Signal(object)
    """The user pressed the bar of this plane."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.bars: tuple[PlaneBar, ...] = ()
        self._shown: Plane | None = None
        self.setFixedHeight(_BARS_HEIGHT)
        self.setMouseTracking(True)

    def set_bars(self, bars: Sequence[PlaneBar]) -> None:
        """Show these, in this order; none before anything is propagated."""
        self.bars = tuple(bars)
        self.setCursor(Qt.CursorShape.PointingHandCursor if bars else Qt.CursorShape.ArrowCursor)
        self.update()

    def set_shown(self, plane: Plane | None) -> None:
        """Mark the plane that the viewer shows."""
        self._shown = plane
        self.update()

    def area(self, number: int) -> QRectF:
        """The whole height of a bar."""
        width = self.width() / len(self.bars)
        return QRectF(number * width, 0, max(1.0, width - 1), self.height())

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the bars; the shown plane has a line above it."""
        painter = QPainter(self)
        if not self.bars:
            painter.setPen(QColor(tone_color("muted", self)))
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, NO_BARS)
        for number, bar in enumerate(self.bars):
            area = self.area(number)
            if bar.plane == self._shown:
                color = self.palette().windowText().color()
                painter.fillRect(QRectF(area.x(), 0, area.width(), 2), color)
            area.setTop(4 + (area.height() - 6) * (1 - bar.certainty))
            tone = "warning" if bar.doubtful else "good"
            painter.fillRect(area, QColor(tone_color(tone, self)))

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Choose the bar under the mouse."""
        if (bar := self._at(event)) is not None:
            self.chosen.emit(bar.plane)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Say what the bar under the mouse means."""
        bar = self._at(event)
        self.setToolTip("" if bar is None else bar_tip(bar))

    def _at(self, event: QMouseEvent) -> PlaneBar | None:
        number = int(event.position().x() * len(self.bars) / max(1, self.width()))
        return self.bars[number] if 0 <= number < len(self.bars) else None


def bar_tip(bar: PlaneBar) -> str:
    """Tool tip of a bar."""
    doubt = ", doubtful" if bar.doubtful else ""
    return f"{plane_names([bar.plane])}: {bar.certainty:.2f}{doubt}. Click to go there."


class StackPanel(QWidget):
    """Settings and buttons for propagation and for encoding ahead."""

    started = Signal()
    """Propagate the open objects."""
    stopped = Signal()
    """Stop propagating."""
    whole_requested = Signal()
    """Encode all planes."""
    whole_stopped = Signal()
    """Stop encoding all planes."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._axes: tuple[StackAxis, ...] = ()
        self._routes: list[tuple[StackAxis, ...]] = []
        self.along = ComboBox()
        self.direction = ComboBox()
        self.direction.addItems(_DIRECTIONS.values())
        self.first, self.last = _PlaneNumber(), _PlaneNumber()
        self.start = Button("", "", "Follow the open objects through the planes")
        self.commit = Button("Commit all", "", "Write what was found on all planes (C)")
        self.drop = Button("Discard", "", "Discard what was found")
        self.bars = PlaneBars()
        self.whole = Button("", "", "All planes, so that each click is fast")
        self.clear = Button("Clear", "", "Forget all embeddings, in memory and on disk")
        self.ahead = QCheckBox("Encode planes ahead")
        self.disk = QCheckBox("Keep on disk")
        self.bar = QProgressBar()
        self.encoded = QLabel()
        self._propagating = self._encoding = False
        self._lay_out()
        self._connect()
        self.set_state(working=False, busy=False, found=False)
        self.set_encoding(False)
        self.show_encoded("", 1.0)

    # ---------------------------------------------------------------------- values

    def set_axes(self, axes: Sequence[StackAxis]) -> None:
        """Offer the axes along which an image has planes; the last is the usual one."""
        if tuple(axes) == self._axes:
            return
        self._axes = tuple(axes)
        self._routes = [(axis,) for axis in reversed(self._axes)]
        if len(self._axes) > 1:
            self._routes.append((self._axes[-1], self._axes[0]))
        self.along.clear()
        for route in self._routes:
            self.along.addItem(", then ".join(axis.name for axis in route))
        self.along.setEnabled(len(self._routes) > 1)
        self._on_along()

    def along_value(self) -> tuple[int, ...]:
        """The axes to propagate along, one after the other."""
        return tuple(axis.index for axis in self._routes[self.along.currentIndex()])

    def planes_value(self, annotated: Sequence[tuple[int, ...]]) -> tuple[int, int]:
        """The first and the last plane to propagate to, from those that have prompts."""
        axis = self.along_value()[0]
        first, last = sorted((self.first.value(), self.last.value()))
        direction = list(_DIRECTIONS)[self.direction.currentIndex()]
        at = [plane[axis] for plane in annotated]
        if direction == "up" and at:
            first = min(max(first, min(at)), last)
        if direction == "down" and at:
            last = max(min(last, max(at)), first)
        return first, last

    # ----------------------------------------------------------------------- shown

    def set_state(self, *, working: bool, busy: bool, found: bool) -> None:
        """Enable what can be done: with prompts, while propagating, with something found."""
        self._propagating = busy
        self.start.setText("Cancel" if busy else f"Propagate  {shortcut_text('propagate')}")
        self.start.setEnabled(busy or (working and bool(self._axes)))
        for button in (self.commit, self.drop):
            button.setEnabled(found and not busy)

    def set_encoding(self, whole: bool) -> None:
        """Show whether the whole stack is being encoded."""
        self._encoding = whole
        self.whole.setText("Cancel encoding" if whole else "Encode whole stack")

    def show_encoded(self, text: str, fraction: float) -> None:
        """Show the progress of encoding; 1 means idle."""
        self.encoded.setText(text)
        self.bar.setVisible(fraction < 1)
        self.bar.setValue(round(100 * fraction))

    # ---------------------------------------------------------------------- layout

    def _lay_out(self) -> None:
        planes = QHBoxLayout()
        planes.addWidget(self.first)
        planes.addWidget(QLabel("to"))
        planes.addWidget(self.last)
        form = QFormLayout()
        form.setContentsMargins(14, 0, 0, 0)
        form.setVerticalSpacing(6)
        form.addRow("Along", self.along)
        form.addRow("Direction", self.direction)
        form.addRow("Planes", planes)
        found = QHBoxLayout()
        found.setSpacing(4)
        found.addWidget(self.commit)
        found.addWidget(self.drop)
        encode = QHBoxLayout()
        encode.setSpacing(4)
        encode.addWidget(self.whole, 2)
        encode.addWidget(self.clear, 1)
        checks = QHBoxLayout()
        checks.addWidget(self.ahead)
        checks.addWidget(self.disk)
        self.bar.setMaximumHeight(6)
        self.bar.setTextVisible(False)
        self.encoded.setWordWrap(True)
        self.ahead.setChecked(True)
        self.disk.setToolTip(
            "Saves encoding next time. Off by default: embeddings reveal much of the image."
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addLayout(form)
        layout.addWidget(self.start)
        layout.addLayout(found)
        layout.addWidget(self.bars)
        layout.addLayout(checks)
        layout.addLayout(encode)
        layout.addWidget(self.bar)
        layout.addWidget(self.encoded)

    def _connect(self) -> None:
        self.along.currentIndexChanged.connect(self._on_along)
        self.start.clicked.connect(
            lambda: (self.stopped if self._propagating else self.started).emit()
        )
        self.whole.clicked.connect(
            lambda: (self.whole_stopped if self._encoding else self.whole_requested).emit()
        )

    def _on_along(self) -> None:
        if 0 <= self.along.currentIndex() < len(self._routes):
            last = self._routes[self.along.currentIndex()][0].size - 1
            for box in (self.first, self.last):
                box.setMaximum(last)
            self.first.setValue(0)
            self.last.setValue(last)


class _PlaneNumber(QSpinBox):
    """The number of a plane; a click into the image returns the keyboard to it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setMaximum(0)


class AutomaticPanel(EverythingForm):
    """Settings and buttons for segmenting everything on a plane.

    Parameters
    ----------
    viewer
        Its points and labels layers can be where the model is prompted.
    """

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.layer = LayerChoice(viewer, (Points, Labels), "none", _is_preview)  # type: ignore[arg-type]
        self.start = Button("Segment everything", "", "All objects of the current plane")
        self.stop = Button("Stop", "", "Stop segmenting")
        self.commit = Button("Commit all", "", "Write what was found as objects")
        self.drop = Button("Discard", "", "Discard what was found")
        self.rows.insertRow(1, "or on a layer", self.layer)
        self.like_mine = QCheckBox("Only objects like mine")
        self.like_mine.setToolTip(
            "Keep what is like the committed objects in size, intensity and appearance"
        )
        self.rows.addRow(self.like_mine)
        first, second = QHBoxLayout(), QHBoxLayout()
        second.setSpacing(4)
        first.addWidget(self.start)
        first.addWidget(self.stop)
        second.addWidget(self.commit)
        second.addWidget(self.drop)
        self.rows.addRow(first)
        self.rows.addRow(second)
        self.set_state(working=False, busy=False, found=False)

    def layer_value(self) -> Layer | None:
        """The layer at whose points or labels the model is prompted, if one was chosen."""
        return self.layer.value()

    def set_state(self, *, working: bool, busy: bool, found: bool) -> None:
        """Enable what can be done: with an image, while masks are proposed, with some found."""
        self.start.setVisible(not busy)
        self.start.setEnabled(working)
        self.stop.setVisible(busy)
        self.commit.setEnabled(found and not busy)
        self.drop.setEnabled(found and not busy)

    def release(self) -> None:
        """Stop following the viewer's layers."""
        self.layer.release()


def _is_preview(layer: Layer) -> bool:
    return bool(layer.name == PREVIEW)


class LevelChoice(ComboBox):
    """The level of a multiscale image that is segmented; hidden for other images."""

    changed = Signal()
    """The user chose another level."""

    def __init__(self, form: QFormLayout) -> None:
        super().__init__()
        form.addRow("Level", self)
        self._label = form.labelForField(self)
        self._layers: tuple[Image, ...] = ()
        self.setToolTip("Finer levels take more memory; prompts and objects lie in its pixels")
        self.activated.connect(self._on_activated)
        self.show_layers(())

    def show_layers(self, layers: Iterable[Image]) -> None:
        """Offer the levels of the layers in use."""
        self._layers = tuple(layer for layer in layers if layer.multiscale)
        for part in (self, self._label):
            part.setVisible(bool(self._layers))
        self.clear()
        if self._layers:
            first = self._layers[0]
            for level in range(len(first.data)):
                height, width = image_shape(first, level)[-2:]
                self.addItem(f"{level}: {height} x {width} pixels")
            self.setCurrentIndex(level_of(first))

    def _on_activated(self, level: int) -> None:
        for layer in self._layers:
            choose_level(layer, level)
        self.changed.emit()

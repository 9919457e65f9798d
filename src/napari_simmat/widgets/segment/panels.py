"""Parts of the form: prompts, stack, everything, review, the device, the level of a pyramid.

They compute nothing; they show what they are given and emit what the user asks for. A button emits
the name of its action.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from napari import Viewer
from napari.layers import Image, Labels, Points
from qtpy.QtCore import QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QCheckBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QSpinBox,
    QStackedLayout,
    QToolButton,
    QWidget,
)

from napari_simmat._text import pluralize
from napari_simmat.annotation.inference_service import ComputeInUse
from napari_simmat.annotation.predictions import Candidate
from napari_simmat.annotation.prompt_state import Plane, plane_names
from napari_simmat.engine.drawing import THUMBNAIL_SIDE
from napari_simmat.engine.remote import is_address
from napari_simmat.engine.settings import Compute
from napari_simmat.widgets.channels_form import rgb_pixmap
from napari_simmat.widgets.controls import (
    INDENT,
    Button,
    CollapsibleSection,
    ComboBox,
    LayerChoice,
    MainButton,
    MenuButton,
    form_rows,
    hbox,
    keep_place,
    set_tone,
    text_label,
    thin_bar,
    tone_color,
    vbox,
)
from napari_simmat.widgets.forms import EverythingForm
from napari_simmat.widgets.placement import choose_level, image_shape, level_of
from napari_simmat.widgets.segment.outputs import CHOSEN, PREVIEW
from napari_simmat.widgets.segment.prompt_layers import TOOLS, Tool
from napari_simmat.widgets.shortcuts import SHORTCUTS

Direction = Literal["both", "up", "down"]
_DIRECTIONS: dict[Direction, str] = {
    "both": "both directions",
    "up": "to later planes",
    "down": "to earlier planes",
}
_BARS_HEIGHT = 44
_UNDO_WIDTH = 48
"""Pixels, with room for the list, so that nothing moves when there is something to redo."""
NO_BARS = "Propagate shows how sure each plane is."
POSITIVE_TEXT, NEGATIVE_TEXT = "● positive", "✕ negative"
COMMIT_TIP = "Write what is shown: open objects, drafts, or what was propagated to all planes"
DISCARD_TIP = "Take away what a commit would write ({key})"
MORE_SETTINGS = "More settings"
NEXT_DOUBTFUL = "Doubtful ({count})  {key}"
NEXT_TIP = "Go to the draft that is least certain; {key} opens it, and clicks mend it"
REVIEWED = "{settled} done, {drafts} left"
CANDIDATE = "Mask {number} of {count}"
CANDIDATE_TIP = "{name}: click to choose it ({key} for the next)"
BAR_TIP = "{plane}: {certainty:.2f}{doubt}. Click to go there."
_KEYS = {each.action: str(each.binding()) for each in SHORTCUTS}


class Panel(QWidget):
    """A part of the form."""

    acted = Signal(str)
    """The name of an action."""

    def button(self, action: str, text: str, tip: str, kind: type[Button] = Button) -> Button:
        """A button that emits its action, and shows the key of it."""
        button = kind(text, _KEYS.get(action, ""), tip)
        button.clicked.connect(lambda: self.acted.emit(action))
        return button


# --------------------------------------------------------------------------------- prompts


class ShapeButton(MenuButton):
    """The button of a tool for shapes, with the other tools for shapes in a list beside it."""

    chosen = Signal(str)
    """The name of a tool."""

    def __init__(self) -> None:
        super().__init__("", splits=True)
        self._tool: Tool = "box"
        self.setCheckable(True)
        self.entries = {}
        for name, tool in TOOLS.items():
            if tool.shape is not None:
                self.entries[name] = self.menu().addAction(
                    tool.title, lambda name=name: self.chosen.emit(name)
                )
                self.entries[name].setToolTip(tool.tip)
        self.clicked.connect(lambda: self.chosen.emit(self._tool))
        self.set_tool("box")

    def set_tool(self, tool: Tool) -> None:
        """Show which of the tools a press takes."""
        self._tool = tool
        self.setText(TOOLS[tool].title)
        self.setToolTip(f"{TOOLS[tool].tip}; the list has other shapes")


class PromptButtons(Panel):
    """Tools and actions; each button shows its key.

    *Discard* is shown while there is something to discard, the list of *Undo* while there is
    something to redo.

    Attributes
    ----------
    tools
        The button of points, and that of shapes.
    everything
        Opens what finds all objects; while prompts are open, `sign` has its place.
    """

    tool_chosen = Signal(str)
    """The name of a tool."""

    def __init__(self) -> None:
        super().__init__()
        point = Button(TOOLS["point"].title, tip=TOOLS["point"].tip)
        point.setCheckable(True)
        point.clicked.connect(lambda: self.tool_chosen.emit("point"))
        self.shapes = ShapeButton()
        self.shapes.chosen.connect(self.tool_chosen)
        self.tools: dict[str, QAbstractButton] = {"point": point, "box": self.shapes}
        self.sign = Button("", tip="Flip between positive and negative")
        self.sign.clicked.connect(lambda: self.acted.emit("flip"))
        self.everything = Button("✦ Everything", tip="Find all objects of the plane")
        self.everything.setCheckable(True)
        self.commit = self.button("commit", "Commit", COMMIT_TIP, MainButton)
        self.clear = Button("Discard", "", DISCARD_TIP.format(key=_KEYS["clear"]))
        self.clear.clicked.connect(lambda: self.acted.emit("clear"))
        self.undo = MenuButton("↶", f"Undo ({_KEYS['undo']})", splits=True)
        self.undo.setAccessibleName("Undo")
        self.undo.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.undo.setFixedWidth(_UNDO_WIDTH)
        self.undo.setStyleSheet(
            "MenuButton { padding: 0; font-size: 13pt; }MenuButton::menu-indicator { image: none; }"
        )
        self.undo.clicked.connect(lambda: self.acted.emit("undo"))
        self.redo = self.undo.menu().addAction(
            f"Redo\t{_KEYS['redo']}", lambda: self.acted.emit("redo")
        )
        self._third = QStackedLayout()
        self._third.addWidget(self.everything)
        self._third.addWidget(self.sign)
        self._third.addWidget(QWidget())  # while drafts are looked over
        third = QWidget()
        third.setLayout(self._third)
        third.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        tools = hbox((point, 1), (self.shapes, 1), (third, 1))
        actions = hbox(self.undo, (self.commit, 1), self.clear)
        for row in (tools, actions):
            row.setSpacing(4)
        self._prompted, self._positive, self._reviews = False, True, False
        self.tool_row = QWidget()
        self.tool_row.setLayout(tools)
        vbox(self.tool_row, actions, parent=self, spacing=6)
        self.set_sign(True)

    def set_tool(self, tool: Tool) -> None:
        """Show the tool in use."""
        is_shape = bool(tool) and TOOLS[tool].shape is not None
        self.tools["point"].setChecked(tool == "point")
        self.shapes.setChecked(is_shape)
        if is_shape:
            self.shapes.set_tool(tool)

    def set_sign(self, positive: bool) -> None:
        """Show whether new prompts are positive."""
        self._positive = positive
        self.sign.setText(f"{POSITIVE_TEXT if positive else NEGATIVE_TEXT}  {_KEYS['flip']}")
        set_tone(self.sign, "good" if positive else "error")
        self._show_third()

    def _show_third(self) -> None:
        shows_sign = self._prompted or not self._positive
        self._third.setCurrentIndex(2 if self._reviews and not shows_sign else int(shows_sign))

    def set_state(
        self,
        *,
        working: bool,
        prompted: bool,
        commits: bool,
        undo: bool,
        redo: bool,
        reviews: bool = False,
    ) -> None:
        """Show what can be done with an image, prompts, something to commit, and drafts."""
        for button in (*self.tools.values(), self.sign, self.everything):
            button.setEnabled(working)
        self.commit.setEnabled(commits)
        self.clear.setVisible(commits)
        self.undo.setEnabled(undo)
        self.redo.setEnabled(redo)
        modes = QToolButton.ToolButtonPopupMode
        self.undo.setPopupMode(modes.MenuButtonPopup if redo else modes.DelayedPopup)
        self._prompted, self._reviews = prompted, reviews
        self._show_third()


class CandidateStrip(QWidget):
    """Thumbnails of the model's candidates for the last object; blank unless there are several."""

    chosen = Signal(int)
    """The user pressed the picture of this candidate."""

    def __init__(self) -> None:
        super().__init__()
        self._row = hbox(parent=self)
        self._row.setSpacing(2)
        self._row.addStretch(1)
        self.setFixedHeight(THUMBNAIL_SIDE + 8)
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
        self._candidates, count = tuple(candidates), len(candidates)
        while len(self.buttons) < count:
            button = QToolButton()
            button.setCheckable(True)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            number = len(self.buttons)
            button.clicked.connect(lambda _=False, number=number: self._on_clicked(number))
            self._row.insertWidget(number, button)
            self.buttons.append(button)
        for number, button in enumerate(self.buttons):
            button.setVisible(number < count)
            name = CANDIDATE.format(number=number + 1, count=count)
            button.setAccessibleName(name)
            button.setToolTip(CANDIDATE_TIP.format(name=name, key=_KEYS["cycle"]))
        for button, (_, picture, _) in zip(self.buttons, candidates, strict=False):
            button.setIcon(QIcon(rgb_pixmap(picture)))
            button.setIconSize(QSize(*picture.shape[1::-1]))
        self._mark(choice)
        self.setVisible(count > 1)

    def _mark(self, choice: int) -> None:
        for button, candidate in zip(self.buttons, self._candidates, strict=False):
            button.setChecked(candidate.choice == choice)

    def _on_clicked(self, number: int) -> None:
        choice = self._candidates[number].choice
        self._mark(choice)
        self.chosen.emit(choice)


# ----------------------------------------------------------------------------------- stack


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

    def __init__(self) -> None:
        super().__init__()
        self.bars: tuple[PlaneBar, ...] = ()
        self._shown: Plane | None = None
        self.setFixedHeight(_BARS_HEIGHT)
        self.setAccessibleName("Certainty of each plane")  # napari's slider goes there by keys
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
        tip = ""
        if (bar := self._at(event)) is not None:
            plane, doubt = plane_names([bar.plane]), ", doubtful" if bar.doubtful else ""
            tip = BAR_TIP.format(plane=plane, certainty=bar.certainty, doubt=doubt)
        self.setToolTip(tip)

    def _at(self, event: QMouseEvent) -> PlaneBar | None:
        number = int(event.position().x() * len(self.bars) / max(1, self.width()))
        return self.bars[number] if 0 <= number < len(self.bars) else None


class StackPanel(Panel):
    """Propagates open objects, and shows how sure each plane is.

    Attributes
    ----------
    range
        Along which axes, and to which planes; to be laid out elsewhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self._axes: tuple[StackAxis, ...] = ()
        self._routes: list[tuple[StackAxis, ...]] = []
        self._propagating = False
        self.along, self.direction = ComboBox(), ComboBox()
        self.along.setAccessibleName("Along")
        self.direction.addItems(_DIRECTIONS.values())
        self.first, self.last = QSpinBox(), QSpinBox()
        self.first.setAccessibleName("First plane")
        self.last.setAccessibleName("Last plane")
        for box in (self.first, self.last):
            box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)  # not by the wheel
            box.setMaximum(0)
        self.start = Button("", "", "Follow the open objects through the planes")
        self.bars = PlaneBars()
        planes = hbox(self.first, QLabel("to"), self.last)
        self.range = QWidget()
        form = form_rows(
            ("Along", self.along),
            ("Direction", self.direction),
            parent=self.range,
            spacing=6,
            indent=INDENT,
        )
        form.addRow("Planes", planes)
        vbox(self.start, self.bars, parent=self, spacing=4)
        self.along.currentIndexChanged.connect(self._on_along)
        self.start.clicked.connect(
            lambda: self.acted.emit("stop propagating" if self._propagating else "propagate")
        )
        self.set_state(working=False, busy=False)

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
        """The axes to propagate along, one after the other; none if there is no stack."""
        routes = self._routes
        index = self.along.currentIndex()
        return tuple(axis.index for axis in routes[index]) if routes else ()

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

    def set_state(self, *, working: bool, busy: bool) -> None:
        """Enable what can be done: with prompts, while propagating."""
        self._propagating = busy
        self.start.setText("Cancel" if busy else f"Propagate  {_KEYS['propagate']}")
        self.start.setEnabled(busy or (working and bool(self._axes)))

    def _on_along(self) -> None:
        if 0 <= self.along.currentIndex() < len(self._routes):
            last = self._routes[self.along.currentIndex()][0].size - 1
            for box in (self.first, self.last):
                box.setMaximum(last)
            self.first.setValue(0)
            self.last.setValue(last)


class EncodingPanel(Panel):
    """Which planes are encoded before they are shown, and where embeddings are kept."""

    def __init__(self) -> None:
        super().__init__()
        self._encoding = False
        self.whole = Button("", "", "All planes, so that each click is fast")
        self.clear = self.button(
            "clear embeddings", "Clear", "Forget all embeddings, in memory and on disk"
        )
        self.ahead, self.disk = QCheckBox("Encode planes ahead"), QCheckBox("Keep on disk")
        self.ahead.setChecked(True)
        self.disk.setToolTip(
            "Saves encoding next time. Off by default: embeddings reveal much of the image."
        )
        self.bar, self.encoded = thin_bar(), text_label()
        vbox(
            hbox(self.ahead, self.disk),
            hbox((self.whole, 2), (self.clear, 1)),
            self.bar,
            self.encoded,
            parent=self,
            spacing=6,
        )
        self.whole.clicked.connect(
            lambda: self.acted.emit("stop encoding" if self._encoding else "encode whole stack")
        )
        self.show_encoded("", 1.0, whole=False)

    def show_encoded(self, text: str, fraction: float, *, whole: bool) -> None:
        """Show the progress of encoding, and whether it is of the whole stack; 1 means idle."""
        self._encoding = whole
        self.whole.setText("Cancel encoding" if whole else "Encode whole stack")
        self.encoded.setText(text)
        self.bar.setVisible(fraction < 1)
        self.bar.setValue(round(100 * fraction))


# ------------------------------------------------------------------------------ everything


class ReviewPanel(Panel):
    """What is done with the drafts one by one; shown while there are any."""

    def __init__(self) -> None:
        super().__init__()
        self.accept = self.button("accept", "Accept", "Write the draft that is outlined")
        self.reject = self.button("reject", "Reject", "Take the draft that is outlined away")
        self.next = self.button("next doubtful", "", NEXT_TIP.format(key=_KEYS["edit"]))
        self.left = text_label("muted")
        self.bar = thin_bar()
        self._row = QWidget()
        row = hbox((self.accept, 2), (self.reject, 2), (self.next, 3), parent=self._row)
        row.setSpacing(4)
        keep_place(self._row)
        vbox(self._row, hbox((self.left, 2), (self.bar, 1)), parent=self)
        self.set_state(drafts=0, doubtful=0, settled=0)

    def set_state(
        self, *, drafts: int, doubtful: int, settled: int, prompted: bool = False, left: str = ""
    ) -> None:
        """Show how many drafts are open, doubtful, and settled, and how long the rest takes.

        While prompts are open (`prompted`) they hide the drafts, and nothing can be done with them.
        """
        self.setVisible(drafts > 0)
        self._row.setVisible(not prompted)
        self.next.setText(NEXT_DOUBTFUL.format(count=doubtful, key=_KEYS["next doubtful"]))
        counts = REVIEWED.format(drafts=pluralize(drafts, "draft"), settled=settled)
        self.left.setText(", ".join(filter(None, (counts, left))))
        self.bar.setRange(0, max(1, drafts + settled))
        self.bar.setValue(settled)


class AutomaticPanel(Panel):
    """Finds all objects of a plane; the settings are folded below the button.

    Parameters
    ----------
    viewer
        Its points and labels layers can be where the model is prompted.

    Attributes
    ----------
    form, options, value, set_value, sifted
        The `EverythingForm` of the settings, and what it offers.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.form = EverythingForm()
        form = self.form
        self.options, self.value, self.sifted = form.options, form.value, form.sifted
        self.set_value = form.set_value
        self.layer = LayerChoice(
            viewer,
            (Points, Labels),  # type: ignore[arg-type]
            "none",
            lambda layer: layer.name in (PREVIEW, CHOSEN),
        )
        self.start = self.button(
            "segment everything", "Segment everything", "All objects of the current plane"
        )
        self.stop = self.button("stop everything", "Stop", "Stop segmenting")
        self.like_mine = QCheckBox("Only objects like mine")
        self.like_mine.setToolTip(
            "Keep what is like the committed objects in size, intensity and appearance"
        )
        self.expect_mine = QCheckBox("Expect objects like mine")
        self.expect_mine.setChecked(True)
        self.expect_mine.setToolTip(
            "From three committed objects on: look for others of their size. Negative marks alone "
            "say where no object is; then also for their looks"
        )
        self.draft_next = QCheckBox("Next plane or image: the same kind")
        self.draft_next.setToolTip(
            "For stacks, and images of one series in a folder: look for objects like those of the "
            "last one as soon as another plane or image is shown"
        )
        above = self.options["seeds"]
        row, _ = self.form.rows.getWidgetPosition(above)
        self.form.rows.insertRow(row + 1, "or on a layer", self.layer)
        self.setTabOrder(above, self.layer)
        settings = QWidget()
        mine = (self.expect_mine, self.draft_next, self.like_mine)
        vbox(*mine, self.form, parent=settings)
        self.more = CollapsibleSection(MORE_SETTINGS, settings)
        self.form.words.returnPressed.connect(self.start.click)
        vbox(self.form.words_row, hbox(self.start, self.stop), self.more, parent=self)
        self.set_state(working=False, busy=False)

    def set_state(self, *, working: bool, busy: bool) -> None:
        """Enable what can be done: with an image, while masks are proposed."""
        self.start.setVisible(not busy)
        self.start.setEnabled(working)
        self.stop.setVisible(busy)


# ------------------------------------------------------------------------- model and level

AUTOMATIC = "Auto"
IN_USE = "Auto: {used}"
NOT_FOUND = "{name}: not found"
DEVICE_TIP = (
    "Where the model runs. Auto takes a GPU if PyTorch finds one; `simmat info` says why "
    "it does not."
)
PRECISION_TIP = (
    "Exact is float32. Fast is half precision, where that is faster on this device. Auto is "
    "exact on the CPU and fast on a GPU."
)
QUALITY_TIP = (
    "Fast predicts a mask once. Best averages the masks of four views of the image: better masks "
    "of clicks, at four times the time. For the embedded foundation and what is trained on it."
)
NO_BEST_TIP = "This model does not support the Best quality setting."
REMOTE_TIP = (
    "Address of a Dask scheduler, e.g. tcp://10.0.0.1:8786. Its workers encode; clicks are "
    "predicted here. If it cannot be reached, this computer encodes."
)


class ComputeChoice(QWidget):
    """Three lists, whose devices are known once torch is loaded, and an address that encodes."""

    changed = Signal()
    """The user chose another device, precision or quality, or another address."""

    def __init__(self) -> None:
        super().__init__()
        rows = (
            (DEVICE_TIP, {"auto": AUTOMATIC, "cpu": "CPU"}),
            (PRECISION_TIP, {"auto": AUTOMATIC, "exact": "Exact", "fast": "Fast"}),
            (QUALITY_TIP, {"fast": "Quality: fast", "best": "Quality: best, four times slower"}),
        )
        self._boxes = [ComboBox() for _ in rows]
        for box, (tip, titles) in zip(self._boxes, rows, strict=True):
            box.setToolTip(tip)
            box.setMinimumContentsLength(4)  # side by side they are as wide as the other lists
            box.activated.connect(lambda _: self.changed.emit())
            for name, title in titles.items():
                box.addItem(title, name)
        self.device, self.precision, self.quality = self._boxes
        self.remote = QLineEdit()
        self.remote.setPlaceholderText("GPU elsewhere: tcp://...")
        self.remote.setToolTip(REMOTE_TIP)
        self.remote.editingFinished.connect(self._on_address)
        self._address = ""
        lists = hbox((self.device, 1), (self.precision, 1))
        vbox(lists, self.quality, self.remote, parent=self)

    def value(self) -> Compute:
        """What is chosen."""
        device, precision, quality = (box.currentData() for box in self._boxes)
        return Compute(device=self._address or device, precision=precision, quality=quality)

    def set_value(self, value: Compute) -> None:
        """Choose all; a device that is not listed is added."""
        self._address, device = "", value.device
        if is_address(device):
            self._address, device = device, "auto"
        self.remote.setText(self._address)
        self.device.setEnabled(not self._address)
        if self.device.findData(device) < 0:
            self.device.addItem(NOT_FOUND.format(name=device), device)
        names = device, value.precision, value.quality
        for box, name in zip(self._boxes, names, strict=True):
            box.setCurrentIndex(max(0, box.findData(name)))

    def show_in_use(self, used: ComputeInUse) -> None:
        """List the devices that are here, and name what *Auto* means."""
        chosen = self.value()
        now = used.compute
        titles = {"auto": AUTOMATIC, **{each.name: each.title for each in used.devices}}
        if chosen.device == "auto":
            titles["auto"] = IN_USE.format(used=used.title)
        elif chosen.device in titles and not f"{chosen.device}:".startswith(f"{now.device}:"):
            titles[chosen.device] += f" (now: {used.title})"  # its memory ran out
        self.device.clear()
        for name, title in titles.items():
            self.device.addItem(title, name)
        self.device.setToolTip(f"{DEVICE_TIP}\nIn use: {used.title}")  # the list may be too narrow
        is_auto = chosen.precision == "auto"
        self.precision.setItemText(0, IN_USE.format(used=now.precision) if is_auto else AUTOMATIC)
        self.quality.setToolTip(QUALITY_TIP if now.quality == chosen.quality else NO_BEST_TIP)
        self.set_value(chosen)

    def _on_address(self) -> None:
        address = self.remote.text().strip()
        address = address if "://" in address or not address else f"tcp://{address}"
        if address != self._address:
            device = address or self.device.currentData()
            self.set_value(replace(self.value(), device=device))
            self.changed.emit()


class LevelChoice(ComboBox):
    """The level of a multiscale image that is segmented; hidden for other images.

    Attributes
    ----------
    stated
        Names the level where it cannot be chosen.
    """

    changed = Signal()
    """The user chose another level."""

    def __init__(self, form: QFormLayout) -> None:
        super().__init__()
        self.stated = QLabel()
        self._row = QWidget()
        vbox(self, self.stated, parent=self._row)
        form.addRow("Level", self._row)
        self._label = form.labelForField(self._row)
        self._label.setBuddy(self)
        self._layers: tuple[Image, ...] = ()
        self._is_stated = False
        self.setToolTip("Finer levels take more memory; prompts and objects lie in its pixels")
        self.activated.connect(self._on_activated)
        self.show_layers(())

    def set_stated(self, stated: bool) -> None:
        """Say which level is segmented, without a choice, as while work on it is under way."""
        self._is_stated = stated
        self._show()

    def _show(self) -> None:
        for part in (self._row, self._label):
            part.setVisible(bool(self._layers))
        self.setVisible(bool(self._layers) and not self._is_stated)
        self.stated.setVisible(self._is_stated)
        self.stated.setText(self.currentText())

    def show_layers(self, layers: Iterable[Image]) -> None:
        """Offer the levels of the layers in use."""
        self._layers = tuple(layer for layer in layers if layer.multiscale)
        self.clear()
        if self._layers:
            first = self._layers[0]
            for level in range(len(first.data)):
                height, width = image_shape(first, level)[-2:]
                self.addItem(f"{level}: {height} x {width} pixels")
            self.setCurrentIndex(level_of(first))
        self._show()

    def _on_activated(self, level: int) -> None:
        for layer in self._layers:
            choose_level(layer, level)
        self.changed.emit()

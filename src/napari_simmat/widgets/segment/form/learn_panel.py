"""`LearnPanel`: learning from the committed objects, and what came of it."""

from __future__ import annotations

from typing import NamedTuple

from napari import Viewer
from napari.layers import Shapes
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QCheckBox, QInputDialog, QWidget

from napari_simmat._text import pluralize
from napari_simmat.annotation.session_lines import AdaptedModelFile
from napari_simmat.progress import Progress
from napari_simmat.training.evidence import ENOUGH, least_gain
from napari_simmat.widgets.controls import (
    INDENT,
    Button,
    CollapsibleSection,
    hbox,
    text_label,
    thin_bar,
    vbox,
)
from napari_simmat.widgets.layer_choice import LayerChoice
from napari_simmat.widgets.segment.form.automatic_panel import MORE_SETTINGS
from napari_simmat.widgets.segment.layers.prompt_adapters import BOXES

MIN_OBJECTS = 3
"""As `training.few_shot.MIN_OBJECTS`, whose import loads torch."""
LEARN, LEARN_AGAIN = "Learn from these objects", "Learn again"
COMMIT_MORE = "Commit {}, and the model can learn from them."
AGAIN_AFTER = "Learn again after {}."
LEARNS = "Learns from {} in a minute or two; you can keep working."
FEW_LEARN = (
    "So few show only a gain of {:.0f} points or more where the model reaches 50 %; {} show {:.0f}."
)
LEARNS_CHANNELS = "Trains a transfer layer for all {} channels; empty ones are left out and named."
GOES_ON = "Learning was interrupted: with the same objects it goes on from there."
SCORES = "Objects left out, mean IoU: {}."
COMPLETE_TIP = (
    "What has no label is background. Otherwise it counts as unknown, beyond a ring around each "
    "object."
)
REGION_TIP = "A shapes layer: all objects are labeled within its shapes"


class AdaptPanelState(NamedTuple):
    """What the panel shows."""

    working: bool = False
    """Whether an image is chosen."""
    new: int = 0
    """Number of objects that were not learned from yet."""
    channels: int = 0
    """Number of the image's channels, if the model reads fewer; else 0."""
    takes_all: bool = False
    """Whether all are learned from, unless the user says otherwise."""
    progress: Progress | None = None
    """How far a learning is; None if none is under way."""
    adapted: AdaptedModelFile | None = None
    """What the chosen model became by learning; None if it did not."""
    shows_adapted: bool = True
    """Whether that is in use."""
    taught: str = ""
    """What *Everything* was taught of the objects, in words."""
    interrupted: bool = False
    """Whether a learning was interrupted."""

    @property
    def ready(self) -> bool:
        """Whether there are enough objects."""
        return self.working and self.new >= MIN_OBJECTS


class LearnPanel(QWidget):
    """Starts and shows learning, compares before and after, and names what is to be kept."""

    started = Signal()
    compared = Signal(bool)
    """Show the masks after learning, or those before it."""
    named = Signal(str)
    """Keep what was learned as a model of this name."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._state = AdaptPanelState()
        self.hint = text_label("muted")
        self.complete = QCheckBox("All objects are labeled")
        self.complete.setToolTip(COMPLETE_TIP)
        self.region = LayerChoice(
            viewer, Shapes, "in the whole image", lambda layer: layer.name == BOXES
        )
        self.region.setToolTip(REGION_TIP)
        self.all_channels = QCheckBox("")
        self.start = Button("")
        self.bar = thin_bar()
        self.result = text_label()
        self.before = Button("Before", "", "The masks of the model as it was")
        self.after = Button("After", "", "The masks of the model that has learned")
        self.keep = Button("Keep as model ...", "", "Name it, and use it on other images")
        both = QButtonGroup(self)
        for button in (self.before, self.after):
            button.setCheckable(True)
            both.addButton(button)
        self._outcome = QWidget()
        options = QWidget()
        vbox(self.all_channels, hbox(self.complete, (self.region, 1)), parent=options)
        self.more = CollapsibleSection(MORE_SETTINGS, options)
        compare = hbox((self.before, 1), (self.after, 1), (self.keep, 2))
        vbox(self.result, compare, parent=self._outcome)
        vbox(
            self.hint,
            self.start,
            self.bar,
            self._outcome,
            self.more,
            parent=self,
            indent=INDENT,
        )
        self.complete.toggled.connect(self.region.setVisible)
        self.all_channels.toggled.connect(self._show)
        self.start.clicked.connect(self.started)
        self.before.clicked.connect(lambda: self.compared.emit(False))
        self.after.clicked.connect(lambda: self.compared.emit(True))
        self.keep.clicked.connect(self._on_keep)
        self.region.setVisible(False)
        self._show()

    @property
    def takes_all_channels(self) -> bool:
        """Whether to learn from all channels of the image."""
        return self._state.channels > 0 and self.all_channels.isChecked()

    @property
    def labeled_within(self) -> Shapes | bool:
        """Where all objects are labeled: within shapes, everywhere, or nowhere for sure."""
        if not self.complete.isChecked():
            return False
        layer = self.region.value()
        return layer if isinstance(layer, Shapes) else True

    def set_state(self, state: AdaptPanelState) -> None:
        """Show what can be done, what goes on, and what came of it."""
        before, self._state = self._state, state
        if (state.channels, state.takes_all) != (before.channels, before.takes_all):
            self.all_channels.setChecked(state.takes_all)
        self._show()

    def set_progress(self, progress: Progress) -> None:
        """Show how far it is; nothing else moves."""
        self._state = self._state._replace(progress=progress)
        self._show_progress()

    def release(self) -> None:
        """Stop following the viewer's layers."""
        self.region.release()

    def _show(self) -> None:
        state, progress = self._state, self._state.progress
        self._show_progress()
        self.all_channels.setText(f"All {state.channels} channels")
        self.all_channels.setVisible(state.channels > 0)
        learns = progress is not None
        for option in (self.complete, self.region, self.all_channels):
            option.setEnabled(not learns)
        again = LEARN if state.adapted is None else LEARN_AGAIN
        self.start.setText(again)
        self.start.setEnabled(state.ready)
        # Once it has learned, there is nothing to start before there are more objects.
        is_wanted = state.ready or state.adapted is None
        self.start.setVisible(is_wanted and not learns)  # the status line stops it
        self.more.setVisible(learns or is_wanted)
        self.bar.setVisible(learns)
        learned, taught = state.adapted is not None, bool(state.taught)
        for button in (self.before, self.after):
            button.setVisible(learned)
        self._outcome.setVisible(learned or taught)
        sentence = "" if state.adapted is None else state.adapted.sentence
        self.result.setText(" ".join(filter(None, [sentence, state.taught])))
        (self.after if state.shows_adapted else self.before).setChecked(True)

    def _show_progress(self) -> None:
        self.hint.setText(hint(self._state, all_channels=self.takes_all_channels))
        if (progress := self._state.progress) is not None:
            self.bar.setRange(0, progress.total)
            self.bar.setValue(progress.done)

    def _on_keep(self) -> None:
        name, accepted = QInputDialog.getText(self, "Keep as model", "Name of the model")
        if accepted and name.strip():
            self.named.emit(name.strip())


def hint(state: AdaptPanelState, *, all_channels: bool = False) -> str:
    """What goes on, or what is missing until it can."""
    if state.progress is not None:
        message = state.progress.message
        text = f"{message[:1].upper()}{message[1:]}."
        return " ".join(filter(None, [text, scores_text(state.progress)]))
    missing = pluralize(max(0, MIN_OBJECTS - state.new), "more object")
    if not state.ready:
        return (COMMIT_MORE if state.adapted is None else AGAIN_AFTER).format(missing)
    if state.interrupted:
        return GOES_ON
    parts = [LEARNS.format(pluralize(state.new, "new object" if state.adapted else "object"))]
    if state.new < ENOUGH:
        more = pluralize(ENOUGH, "object")
        parts.append(FEW_LEARN.format(least_gain(state.new), more, least_gain(ENOUGH)))
    if all_channels:
        parts.append(LEARNS_CHANNELS.format(state.channels))
    return " ".join(parts)


def scores_text(progress: Progress) -> str:
    """The scores of a `LearnProgress` so far; empty before the first."""
    before, after = getattr(progress, "before", None), getattr(progress, "after", None)
    if before is None:
        return ""
    figures = [
        f"{kind} {getattr(before, kind):.0f}"
        f"{'' if after is None else f' → {getattr(after, kind):.0f}'} %"
        for kind in ("click", "box")
    ]
    return SCORES.format(", ".join(figures))

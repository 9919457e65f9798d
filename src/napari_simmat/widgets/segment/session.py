"""What is remembered: of each image its state, and of the tab its settings. No Qt.

An image has prompts, an undo history, predictions, and a layer for its objects. The settings are
in a small file in the user's folder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from weakref import WeakKeyDictionary

from napari.layers import Labels, Layer

from napari_simmat.annotation.channel_choice import RememberedChannels
from napari_simmat.annotation.drafts import Draft, Drafts
from napari_simmat.annotation.history import Command, LayerEdit, UndoStack
from napari_simmat.annotation.prompt_state import (
    Plane,
    Prompts,
    PromptState,
    PropagatedMask,
    corrected_masks,
)
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.masks import LabelIndex
from napari_simmat.engine.settings import Compute
from napari_simmat.io.files import atomic_write, user_folder
from napari_simmat.io.plain import FLAT, from_plain, to_plain
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment.inference import ChosenModel, Prediction
from napari_simmat.widgets.segment.label_editor import LabelEditor, Overlap
from napari_simmat.widgets.segment.outputs import Look

if TYPE_CHECKING:
    from napari_simmat.annotation.session_file import AdaptedModelFile, AutosaveFile
    from napari_simmat.engine.object_kind import ObjectKind


log = logging.getLogger(__name__)
_MOST_SETTINGS = 1 << 20
"""Bytes; a larger file of settings is not read."""


@dataclass(eq=False)
class ViewState:
    """The prompts of one view of an image, their predictions, and the masks propagated in it.

    `predictions` maps each plane to its prediction and the prompts this was made from.
    """

    prompt_state: PromptState
    predictions: dict[Plane, tuple[PromptState, Prediction]] = field(default_factory=dict)
    propagated: dict[Plane, tuple[PropagatedMask, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RemovedObjects:
    """An objects layer that was removed from the viewer; undo brings it back."""

    editor: LabelEditor
    index: int
    """Where it was among the viewer's layers."""
    was_target: bool
    """Whether commits went into it."""
    successor: LabelEditor | None = None
    """Once it is back: what commits went into until then."""


class KindTaught(NamedTuple):
    """A kind of objects that *Everything* learned from committed ones.

    Attributes
    ----------
    model
        That looks for them.
    kind, text
        What they have in common, also in words.
    """

    model: ChosenModel
    kind: ObjectKind
    text: str


@dataclass(eq=False)
class ImageSession:
    """Everything about one image.

    All views share the objects and the undo history; prompts belong to the view in which they were
    made.
    """

    geometry: ImageGeometry
    """The image in its current view."""
    layers: frozenset[str]
    """Keys of its layers."""
    history: UndoStack = field(default_factory=UndoStack)
    """The commands that were done."""
    editor: LabelEditor | None = None
    """The committed objects; None as long as they have no layer."""
    views: dict[AxisOrder, ViewState] = field(default_factory=dict)
    """The state of each view, by its order."""
    drafts: Drafts = field(default_factory=Drafts)
    """The proposed objects, and what became of them."""
    removed: WeakKeyDictionary[Command, RemovedObjects] = field(default_factory=WeakKeyDictionary)
    """What each removal of a layer in the history removed."""
    adapted: AdaptedModelFile | None = None
    """The model that was adapted to the image."""
    shows_adapted: bool = True
    taught: KindTaught | None = None
    """The kind of objects that was last learned from the image."""
    """Whether that is used, in place of the model that it was learned on."""
    log: AutosaveFile | None = None
    """While no tab is open: the file in which it was logged."""
    time_axis: int | None = None
    """The axis of the image along which its objects were linked; None if they were not."""
    stale: bool = False
    """Whether objects were changed while no tab was open, so that the file does not hold them."""

    def view(self, order: AxisOrder) -> ViewState:
        """The state of a view."""
        return self.views.setdefault(order, ViewState(PromptState(order=order)))

    @property
    def current(self) -> ViewState:
        """The state of the current view."""
        return self.view(self.geometry.order)

    @property
    def prompt_state(self) -> PromptState:
        """The uncommitted prompts of the current view; setting it sets that of its own view."""
        return self.current.prompt_state

    @prompt_state.setter
    def prompt_state(self, state: PromptState) -> None:
        self.view(state.order).prompt_state = state

    @property
    def prompts(self) -> Prompts:
        """The prompts of the current view."""
        return self.prompt_state.prompts

    @property
    def predictions(self) -> dict[Plane, tuple[PromptState, Prediction]]:
        """The predictions of the current view."""
        return self.current.predictions

    @property
    def propagated(self) -> dict[Plane, tuple[PropagatedMask, ...]]:
        """The masks propagated in the current view."""
        return self.current.propagated

    @property
    def rejected(self) -> tuple[Draft, ...]:
        """The proposed objects that the user rejected: what no object is like."""
        return self.drafts.rejected

    @property
    def objects(self) -> Labels | None:
        """The labels layer that takes the objects; None if it is still to be made."""
        return None if self.editor is None else self.editor.layer

    def prediction(self, plane: Plane) -> Prediction | None:
        """The prediction for the prompts that are on `plane` now."""
        state, prediction = self.predictions.get(plane, (None, None))
        return prediction if state == self.prompt_state.on(plane) else None

    def set_prompts(
        self, prompts: Prompts, *, undoable: bool = True, area_in_view: float | None = None
    ) -> None:
        """Take over prompts that the user drew, as one command if it is to be undone.

        The first prompts of an object mean one as large as the newest object, or before there is
        one, as `area_in_view`.
        """
        corrected = corrected_masks(prompts, self.prompt_state, self.propagated)
        before = self.prompt_state
        area = before.expected_area
        if not before:
            newest = None if self.editor is None else self.editor.newest_area(before.order)
            area = area_in_view if newest is None else newest
        after = PromptState(prompts, before.choices, before.edited, corrected, before.order)
        if after:
            after = replace(after, expected_area=area)
        if undoable:
            self.history.add(Command("prompts", before, after))
        self.prompt_state = after

    def clear_predictions(self) -> None:
        """Forget the predictions of all views."""
        for view in self.views.values():
            view.predictions.clear()


left_by_closed_tabs: WeakKeyDictionary[Layer, list[tuple[ImageSession, list[LabelEditor]]]]
left_by_closed_tabs = WeakKeyDictionary()
"""What a closed tab has left: sessions (one for each level used) and editors by each image layer.

napari destroys the widget of a tab that is closed, but the layers stay in the viewer.
"""


class Sessions:
    """One `ImageSession` per image that was chosen, for as long as one of its layers is open.

    A labels layer is counted once and followed until it is removed, also while another image is
    chosen: a stroke in it belongs to the image whose objects it holds.

    Parameters
    ----------
    on_command
        Called with the session and the arguments of `UndoStack`'s ``on_change``.
    on_paint
        Called with the `LabelEditor` that was painted into by hand, and the edit.
    on_replace
        Called with the `LabelEditor` whose layer's array was replaced.
    on_close
        Called with the session of an image none of whose layers is open any more.
    """

    def __init__(
        self,
        on_command: Callable[[ImageSession, str, Any], None],
        on_paint: Callable[[LabelEditor, LayerEdit], None],
        on_replace: Callable[[LabelEditor], None],
        on_close: Callable[[ImageSession], None],
    ) -> None:
        self._on_command, self._painted = on_command, on_paint
        self._replaced, self._closed = on_replace, on_close
        self._sessions: list[ImageSession] = []
        self._editors: dict[str, LabelEditor] = {}

    def open(
        self, geometry: ImageGeometry, layers: frozenset[str], current: ImageSession | None
    ) -> ImageSession:
        """The session of the image that shares a layer, preferably `current`; else a new one."""
        session = self.find(geometry, layers, current)
        if session is not None:
            session.geometry, session.layers = geometry, layers
        else:
            session = ImageSession(geometry, layers)
            session.history = UndoStack(partial(self._on_command, session))
        self._sessions = [session, *(other for other in self._sessions if other is not session)]
        return session

    def find(
        self, geometry: ImageGeometry, layers: frozenset[str], current: ImageSession | None
    ) -> ImageSession | None:
        """The session of the image that shares a layer, preferably `current`; None if it is new."""
        for session in (*filter(None, [current]), *self._sessions):
            same_shape = session.geometry.usual.shape == geometry.usual.shape
            if session.layers & layers and same_shape:
                return session
        return None

    def others(self, session: ImageSession) -> list[ImageSession]:
        """The sessions of the other open images."""
        return [each for each in self._sessions if each is not session]

    def editor(self, layer: Labels, index: LabelIndex | None = None) -> LabelEditor:
        """The editor of a labels layer of the viewer.

        `index` gives its objects if they are known, so that they need not be counted.
        """
        key = str(layer.unique_id)
        if key not in self._editors:
            self._editors[key] = LabelEditor(layer, self._on_paint, self._replaced, index)
        return self._editors[key]

    def editor_of(self, key: str) -> LabelEditor | None:
        """The editor of the layer with this key; None if the layer is gone."""
        return self._editors.get(key)

    def follow(self, editor: LabelEditor) -> None:
        """Follow a layer again that was removed."""
        self._editors[editor.key] = editor
        editor.follow(self._on_paint, self._replaced)

    def remove(
        self, gone: Layer, index: int, left: Iterable[Layer]
    ) -> list[tuple[ImageSession, Command]]:
        """Stop following a layer that was removed, and drop the sessions of closed images.

        Parameters
        ----------
        gone, index
            The layer, and where it was among the viewer's.
        left
            The layers that are still open.

        Returns
        -------
        list of (ImageSession, Command)
            The sessions that have lost objects or edits, each with the removal as a command.
        """
        open_layers = {str(layer.unique_id) for layer in left}
        closed = [each for each in self._sessions if not each.layers & open_layers]
        self._sessions = [each for each in self._sessions if each.layers & open_layers]
        for session in closed:
            self._closed(session)
        key = str(gone.unique_id)
        if (editor := self._editors.pop(key, None)) is None:
            return []
        editor.release()
        affected = []
        for session in self._sessions:
            was_target = session.editor is editor
            if was_target:
                session.editor = None
            if (was_target and editor.labels) or session.history.edits(key):
                state = session.prompt_state
                command = Command(f"removal of {gone.name}", state, state)
                session.removed[command] = RemovedObjects(editor, index, was_target)
                affected.append((session, command))
        return affected

    def release(self, layers: Iterable[Layer]) -> None:
        """Stop following all layers; a tab that is opened later continues on the open `layers`."""
        open_layers = {str(layer.unique_id): layer for layer in layers}
        for editor in self._editors.values():
            editor.release()
        for session in self._sessions:
            session.clear_predictions()
            session.history.on_change = lambda *_: None
            editors = [
                editor
                for editor in self._editors.values()
                if editor is session.editor or session.history.edits(editor.key)
            ]
            for key in session.layers & open_layers.keys():
                left_by_closed_tabs.setdefault(open_layers[key], []).append((session, editors))
        self._editors.clear()

    def take_over(self, layers: Iterable[Layer]) -> None:
        """Continue what a closed tab has left on these layers."""
        for layer in layers:
            for session, editors in left_by_closed_tabs.pop(layer, []):
                if session in self._sessions:
                    continue
                session.history.on_change = partial(self._on_command, session)
                self._sessions.append(session)
                for editor in editors:
                    if editor.key not in self._editors:
                        session.stale = editor.recount() or session.stale
                        self.follow(editor)

    def _on_paint(self, editor: LabelEditor, edit: LayerEdit) -> None:
        # If several images share one objects layer, the stroke belongs to the one chosen last.
        session = next((each for each in self._sessions if each.editor is editor), None)
        if session is not None:
            state = session.prompt_state
            name = f"painting in {editor.layer.name}"
            session.history.add(Command(name, state, state, edit))
        self._painted(editor, edit)


# -------------------------------------------------------------------- settings of the tab


@dataclass(frozen=True, kw_only=True)
class TabSettings:
    """The choices of the Segment tab."""

    model: str = ""
    """Name of the model, or the path of its file; empty for the default."""
    compute: Annotated[Compute, FLAT] = field(default_factory=Compute)
    """How the model computes."""
    overlap: Overlap = "keep"
    """Which object gets the pixels that a new object shares with others."""
    look: Look = "filled"
    """How objects are drawn."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers."""
    open_parts: tuple[str, ...] = ()
    closed_parts: tuple[str, ...] = ()
    """Sections of the form that the user opened, and that the user closed."""
    encode_ahead: bool = True
    keep_on_disk: bool = False
    """Whether planes are encoded before they are shown, and whether embeddings are stored."""
    channels: tuple[RememberedChannels, ...] = ()
    """The channels that were chosen by hand, the last first."""


def settings_file() -> Path:
    """The file of the settings."""
    return user_folder() / "settings.json"


def load_settings() -> TabSettings:
    """Read the saved settings; the defaults if the file cannot be used."""
    path = settings_file()
    try:
        if path.stat().st_size > _MOST_SETTINGS:
            return TabSettings()
        values = json.loads(path.read_text(encoding="utf-8")).get("segment", {})
        # Settings of other versions are ignored.
        known = set(to_plain(TabSettings())) & set(values)
        return from_plain(TabSettings, {name: values[name] for name in known})
    except FileNotFoundError:
        return TabSettings()
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        log.warning("%s cannot be read; the window starts with its defaults.", path)
        return TabSettings()


def save_settings(settings: TabSettings) -> None:
    """Write the settings; a disk that cannot be written is only logged."""
    path = settings_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(
                json.dumps({"segment": to_plain(settings)}, indent=1) + "\n", encoding="utf-8"
            )
    except OSError as error:
        log.warning("The window's settings could not be saved: %s", error)

"""The images that are open in the viewer, each with its session and its labels layers.

What a closed tab has left, the next one takes over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from napari.layers import Labels, Layer

from napari_simmat.annotation.history import Command, LayerEdit, UndoStack
from napari_simmat.annotation.image_session import ImageSession
from napari_simmat.engine.label_index import LabelIndex
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment.layers.layer_editor import LayerEditor

if TYPE_CHECKING:
    from napari_simmat.annotation.session_file import AutosaveFile


@dataclass(frozen=True, eq=False)
class RemovedObjects:
    """An objects layer that was removed from the viewer; undo brings it back."""

    editor: LayerEditor
    index: int
    """Where it was among the viewer's layers."""
    was_target: bool
    """Whether commits went into it."""
    successor: LayerEditor | None = None
    """Once it is back: what commits went into until then."""


@dataclass(eq=False)
class LayerSession(ImageSession):
    """The session of an image whose pixels and objects are layers of a viewer."""

    geometry: ImageGeometry
    """The image in its current view."""
    layers: frozenset[str] = frozenset()
    """Keys of its layers."""
    editor: LayerEditor | None = None
    """The committed objects; None as long as they have no layer."""
    removed: WeakKeyDictionary[Command, RemovedObjects] = field(default_factory=WeakKeyDictionary)
    """What each removal of a layer in the history removed."""
    identity: str = ""
    """Of the image, in other sessions as well; empty before it was chosen."""
    home: str = ""
    """`home_of` the folder to which its results go; empty if that is not known."""
    log: AutosaveFile | None = None
    """While no tab is open, or its image is closed: the file in which it was logged."""
    stale: bool = False
    """Whether objects were changed while no tab was open, so that the file does not hold them."""

    @property
    def objects(self) -> Labels | None:
        """The labels layer that takes the objects; None if it is still to be made."""
        return None if self.editor is None else self.editor.layer


left_by_closed_tabs: WeakKeyDictionary[Layer, list[tuple[LayerSession, list[LayerEditor]]]]
left_by_closed_tabs = WeakKeyDictionary()
"""What a closed tab has left: sessions (one for each level used) and editors by each image layer.

napari destroys the widget of a tab that is closed, but the layers stay in the viewer.
"""


class Sessions:
    """One `LayerSession` per image that was chosen, for as long as one of its layers is open.

    A labels layer is counted once and followed until it is removed, also while another image is
    chosen: a stroke in it belongs to the image whose objects it holds.

    Parameters
    ----------
    on_command
        Called with the session and the arguments of `UndoStack`'s ``on_change``.
    on_paint
        Called with the `LayerEditor` that was painted into by hand, and the edit.
    on_replace
        Called with the `LayerEditor` whose layer's array was replaced.
    on_close
        Called with the session of an image none of whose layers is open any more.
    """

    def __init__(
        self,
        on_command: Callable[[LayerSession, str, Any], None],
        on_paint: Callable[[LayerEditor, LayerEdit], None],
        on_replace: Callable[[LayerEditor], None],
        on_close: Callable[[LayerSession], None],
    ) -> None:
        self._on_command, self._painted = on_command, on_paint
        self._replaced, self._closed = on_replace, on_close
        self._sessions: list[LayerSession] = []
        self._parted: list[LayerSession] = []  # of closed images whose objects are still open
        self._editors: dict[str, LayerEditor] = {}

    def open(
        self,
        geometry: ImageGeometry,
        layers: frozenset[str],
        current: LayerSession | None,
        identity: Callable[[], str] = str,
    ) -> LayerSession:
        """The session of the image that shares a layer, preferably `current`; else a new one.

        An image that was closed, by its `identity`, goes on with its objects if their layer is
        still open.
        """
        session = self.find(geometry, layers, current) or self._rejoined(geometry, identity)
        if session is not None:
            session.geometry, session.layers = geometry, layers
        else:
            session = LayerSession(geometry, layers=layers)
            session.history = UndoStack(partial(self._on_command, session))
        self._sessions = [session, *(other for other in self._sessions if other is not session)]
        return session

    def find(
        self, geometry: ImageGeometry, layers: frozenset[str], current: LayerSession | None
    ) -> LayerSession | None:
        """The session of the image that shares a layer, preferably `current`; None if it is new."""
        for session in (*filter(None, [current]), *self._sessions):
            same_shape = session.geometry.usual.shape == geometry.usual.shape
            if session.layers & layers and same_shape:
                return session
        return None

    def _rejoined(
        self, geometry: ImageGeometry, identity: Callable[[], str]
    ) -> LayerSession | None:
        """The session of an image that was closed before its objects; None if it is another."""
        known = identity() if self._parted else ""
        for session in self._parted:
            fits = session.objects is not None and geometry.misfit(session.objects) is None
            if session.identity == known and fits:
                self._parted.remove(session)
                return session
        return None

    def left_of(self, layer: str) -> LayerSession | None:
        """The session of an image that was closed before its objects, by the key of its layer."""
        return next((each for each in self._parted if layer in each.layers), None)

    def close(self, session: LayerSession) -> None:
        """Let a session go as if its image were closed."""
        self._sessions.remove(session)
        self._closed(session)

    def is_open(self, session: LayerSession) -> bool:
        """Whether a session's image is open."""
        return session in self._sessions

    def others(self, session: LayerSession | None) -> list[LayerSession]:
        """The sessions of the other open images."""
        return [each for each in self._sessions if each is not session]

    def editor(self, layer: Labels, index: LabelIndex | None = None) -> LayerEditor:
        """The editor of a labels layer of the viewer.

        `index` gives its objects if they are known, so that they need not be counted.
        """
        key = str(layer.unique_id)
        if key not in self._editors:
            self._editors[key] = LayerEditor(layer, self._on_paint, self._replaced, index)
        return self._editors[key]

    def editor_of(self, key: str) -> LayerEditor | None:
        """The editor of the layer with this key; None if the layer is gone."""
        return self._editors.get(key)

    def follow(self, editor: LayerEditor) -> None:
        """Follow a layer again that was removed."""
        self._editors[editor.key] = editor
        editor.follow(self._on_paint, self._replaced)

    def remove(
        self, gone: Layer, index: int, left: Iterable[Layer]
    ) -> list[tuple[LayerSession, Command]]:
        """Stop following a layer that was removed, and drop the sessions of closed images.

        Parameters
        ----------
        gone, index
            The layer, and where it was among the viewer's.
        left
            The layers that are still open.

        Returns
        -------
        list of (LayerSession, Command)
            The sessions that have lost objects or edits, each with the removal as a command.
        """
        open_layers = {str(layer.unique_id) for layer in left}
        closed = [each for each in self._sessions if not each.layers & open_layers]
        self._sessions = [each for each in self._sessions if each.layers & open_layers]
        for session in closed:
            self._closed(session)
        with_objects = [*self._parted, *closed]
        self._parted = [
            each for each in with_objects if each.editor and each.editor.key in open_layers
        ]
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

    def _on_paint(self, editor: LayerEditor, edit: LayerEdit) -> None:
        # If several images share one objects layer, the stroke belongs to the one chosen last.
        session = next((each for each in self._sessions if each.editor is editor), None)
        if session is not None:
            state = session.prompt_state
            name = f"painting in {editor.layer.name}"
            session.history.add(Command(name, state, state, edit))
        self._painted(editor, edit)


# -------------------------------------------------------------------- settings of the tab

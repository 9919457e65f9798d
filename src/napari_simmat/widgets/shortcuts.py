"""Shortcuts: on our layers, in the viewer, and while a list has the focus."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from app_model.backends.qt import qkeysequence2modelkeybinding
from app_model.types import KeyBinding, KeyCode, KeyMod
from napari import Viewer
from napari.layers import Layer, Shapes
from napari.settings import get_settings
from qtpy.QtCore import QCoreApplication, QEvent, QObject
from qtpy.QtGui import QKeyEvent, QKeySequence
from qtpy.QtWidgets import (
    QAbstractItemView,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDockWidget,
    QLineEdit,
    QPlainTextEdit,
    QTextEdit,
    QWidget,
)


@dataclass(frozen=True)
class Shortcut:
    """One key and its action.

    Parameters
    ----------
    action
        Name of the action.
    key
        On our layers.
    meaning
        What it does, for the list of shortcuts.
    on_shapes
        On shapes layers, if napari uses `key` there.
    """

    action: str
    key: int
    meaning: str
    on_shapes: int | None = None

    def text(self, shapes: bool = False) -> str:
        """For a button, e.g. ``Ctrl+Z``."""
        return str(self.binding(shapes)).replace("Shift+/", "?")

    def binding(self, shapes: bool = False) -> KeyBinding:
        """For napari's `bind_key`."""
        is_other = shapes and self.on_shapes is not None
        return _binding(self.on_shapes if is_other else self.key)


@cache
def _binding(key: int) -> KeyBinding:
    return KeyBinding.from_int(key)


SHORTCUTS = (
    Shortcut("point", KeyCode.KeyP, "take points in hand"),
    Shortcut("box", KeyCode.KeyB, "take boxes in hand"),
    Shortcut("pen", KeyCode.KeyL, "take the pen in hand"),
    Shortcut("flip", KeyCode.KeyT, "positive or negative clicks and lines"),
    Shortcut("segment", KeyCode.KeyS, "segment again"),
    Shortcut("propagate", KeyMod.Shift | KeyCode.KeyS, "propagate through the stack"),
    Shortcut("commit", KeyCode.KeyC, "commit what is shown"),
    Shortcut("clear", KeyMod.Shift | KeyCode.KeyC, "remove the open prompts"),
    Shortcut("undo", KeyMod.CtrlCmd | KeyCode.KeyZ, "undo"),
    Shortcut("redo", KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ, "redo"),
    Shortcut("cycle", KeyCode.KeyQ, "the next mask"),
    Shortcut("next", KeyCode.KeyN, "another object beside the open ones"),
    Shortcut("edit", KeyCode.KeyE, "edit the object under the mouse", KeyMod.Alt | KeyCode.KeyE),
    Shortcut("delete", KeyMod.Shift | KeyCode.KeyD, "delete the object under the mouse"),
    Shortcut("merge", KeyCode.KeyG, "merge the objects under the points"),
    Shortcut("split", KeyCode.KeyK, "split an object around the points"),
    Shortcut(
        "next doubtful",
        KeyCode.KeyJ,
        "the least certain draft; in a folder the next not seen",
    ),
    Shortcut("accept", KeyCode.KeyW, "accept the draft under the mouse; in a folder the image"),
    Shortcut("reject", KeyCode.KeyH, "take the draft under the mouse away"),
    Shortcut("next image", KeyMod.Shift | KeyCode.KeyN, "the next image of the folder"),
    Shortcut("previous image", KeyMod.Shift | KeyCode.KeyB, "the previous image of the folder"),
    Shortcut("keys", KeyMod.Shift | KeyCode.Slash, "this page"),
)
KEPT_BY_NAPARI = (
    "on boxes E draws an ellipse where no object is",
    "on layers of your own its keys come first: S selects on points and shapes, E erases on labels",
    "on the image C is its automatic contrast while there is nothing to commit",
    "3 selects on the points of the tab; 1 erases, 2 paints and 5 picks on its objects",
)
"""napari's own keys in words, for the page of keys."""
_KEY = re.compile("<key:([a-z ]+)>")


def shortcut_text(action: str) -> str:
    """The key of an action as text."""
    return next(each for each in SHORTCUTS if each.action == action).text()


def with_keys(text: str) -> str:
    """A sentence with the key of each action in place of ``<key:action>``."""
    return _KEY.sub(lambda found: shortcut_text(found[1]), text)


def napari_key(action: str) -> str:
    """The key of one of napari's actions as text; the user can move it in napari's preferences."""
    keys = get_settings().shortcuts.shortcuts.get(f"napari:{action}", [])
    return " or ".join(map(str, keys))


class KeyBindings:
    """Binds the shortcuts, and restores earlier bindings.

    On our own layers they take precedence over napari's keys; on others they act only if the
    layer does not use the key. A key that napari uses on the image itself (C, automatic contrast)
    or on our shapes (E, ellipses) is ours only while its action can do something.

    Parameters
    ----------
    viewer
        Where they act.
    actions
        Function for each `Shortcut.action`.
    wanted
        Whether an action can do something now.

    Attributes
    ----------
    active
        Whether the keys act.
    """

    def __init__(
        self,
        viewer: Viewer,
        actions: Mapping[str, Callable[[], object]],
        wanted: Callable[[str], bool],
    ) -> None:
        self._viewer = viewer
        self._actions = dict(actions)
        self._wanted = wanted
        self._bound: dict[Any, dict[KeyBinding, Any]] = {}
        self._known = [each for each in SHORTCUTS if each.action in actions]
        self._layers: tuple[Sequence[Layer], Sequence[Layer]] = (), ()
        self.active = False
        self.set_active(True)

    def set_active(self, active: bool) -> None:
        """Let the keys act, or give all of them back until they are to act again."""
        if active == self.active:
            return
        if active:
            self.active = True
            keys = {each.binding(): self._guarded(each.action) for each in self._known}
            self._bind(self._viewer, keys)
            self.bind(*self._layers)
        else:
            self.release()

    def bind(self, own: Sequence[Layer], images: Sequence[Layer] = ()) -> None:
        """Bind to exactly these layers; others get their earlier bindings back.

        Parameters
        ----------
        own
            Layers on which all shortcuts act.
        images
            Layers whose own keys are borrowed while an action wants them.
        """
        self._layers = own, images
        if not self.active:
            return
        kept = [self._viewer, *own, *images]
        for holder in [each for each in self._bound if each not in kept]:
            self._unbind(holder)
        for layer in own:
            shapes = isinstance(layer, Shapes)
            keys = {each.binding(shapes): self._guarded(each.action) for each in self._known}
            for each in self._known if shapes else ():
                usual = layer.class_keymap.get(each.binding())
                if each.on_shapes is not None and usual is not None:
                    keys[each.binding()] = self._lent(each.action, usual)
            self._bind(layer, keys)
        for layer in images:
            lent = {each.binding(): each.action for each in self._known}
            usual = {key: layer.class_keymap.get(key) for key in lent}
            self._bind(
                layer,
                {key: self._lent(lent[key], own) for key, own in usual.items() if own is not None},
            )

    def release(self) -> None:
        """Restore all earlier bindings; the keys do not act any more."""
        self.active = False
        for holder in list(self._bound):
            self._unbind(holder)

    def _bind(self, holder: Any, keys: Mapping[KeyBinding, Callable[[Any], object]]) -> None:
        if holder in self._bound:
            return
        self._bound[holder] = {key: holder.keymap.get(key) for key in keys}
        for key, act in keys.items():
            holder.bind_key(key, act, overwrite=True)

    def _unbind(self, holder: Any) -> None:
        for key, function in self._bound.pop(holder).items():
            holder.keymap.pop(key, None)
            if function is not None:
                holder.keymap[key] = function

    def _guarded(self, action: str) -> Callable[[Any], None]:
        def act(_: Any) -> None:
            if not is_typing():
                self._actions[action]()

        return act

    def _lent(self, action: str, usual: Callable[[Any], object]) -> Callable[[Any], object]:
        def act(layer: Any) -> object:
            if is_typing():
                return None
            return self._actions[action]() if self._wanted(action) else usual(layer)

        return act


def guard_shift(layer: Layer, *, guarded: bool = True) -> None:
    """Let Shift do nothing on shapes that are seen in 3D: napari's action for it raises there.

    It locks the aspect ratio of a shape that is resized, which is possible in 2D only. With
    ``guarded=False`` napari's action is back.
    """
    shift = KeyBinding.from_int(KeyCode.Shift)
    if not guarded:
        layer.keymap.pop(shift, None)
        return
    usual = layer.class_keymap.get(shift)

    def hold(shapes: Shapes) -> Iterator[None]:
        if usual is not None and shapes._slice_input.ndisplay == 2:
            yield from usual(shapes)

    layer.bind_key(shift, hold, overwrite=True)


def is_typing() -> bool:
    """Whether a text field has the focus."""
    focus = QApplication.focusWidget()
    if isinstance(focus, QComboBox):
        return focus.isEditable()
    return isinstance(focus, (QLineEdit, QTextEdit, QPlainTextEdit, QAbstractSpinBox))


class ListShortcuts(QObject):
    """Forwards shortcuts to the viewer while a list or a table of its window has the focus.

    Parameters
    ----------
    inside
        A widget of the window; lists of other windows keep their keys.
    keys
        Nothing is forwarded while they do not act.
    """

    def __init__(self, inside: QWidget, keys: KeyBindings) -> None:
        super().__init__(inside)
        self._inside, self._bindings = inside, keys
        self._watched: QWidget | None = None
        self._keys = {each.binding() for each in SHORTCUTS}
        application = QApplication.instance()
        assert isinstance(application, QApplication)
        self._application = application
        application.focusChanged.connect(self._on_focus)

    def release(self) -> None:
        """Stop forwarding."""
        self._application.focusChanged.disconnect(self._on_focus)
        self._watch(None)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Send a shortcut to the window instead of the list."""
        pressed = event.type() == QEvent.Type.KeyPress and self._bindings.active
        if not pressed or is_typing() or not self._is_shortcut(event):
            return super().eventFilter(watched, event)
        window = self._window()
        if window is None:
            return super().eventFilter(watched, event)
        QCoreApplication.sendEvent(window, event.clone())
        return True

    def _on_focus(self, _: QWidget | None, focused: QWidget | None) -> None:
        searches = isinstance(focused, (QAbstractItemView, QComboBox))
        ours = (self._window(), self._inside.window())
        self._watch(focused if searches and focused.window() in ours else None)

    def _watch(self, widget: QWidget | None) -> None:
        if self._watched is not None:
            with suppress(RuntimeError):  # Qt has deleted it
                self._watched.removeEventFilter(self)
        self._watched = widget
        if widget is not None:
            widget.installEventFilter(self)

    def _window(self) -> QWidget | None:
        """The viewer's window, even while the widget floats."""
        window = self._inside.window()
        return window.parentWidget() if isinstance(window, QDockWidget) else window

    def _is_shortcut(self, event: QKeyEvent) -> bool:
        with suppress(KeyError, ValueError, TypeError):  # a key without a name in app-model
            sequence = QKeySequence(event.keyCombination())
            return qkeysequence2modelkeybinding(sequence) in self._keys
        return False

"""Shortcuts: on our layers and, where no other layer needs the key, everywhere in the viewer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app_model.types import KeyBinding, KeyCode, KeyMod
from napari import Viewer
from napari.layers import Layer, Shapes
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QPlainTextEdit,
    QTextEdit,
)


@dataclass(frozen=True)
class Shortcut:
    """One key and what it does.

    Parameters
    ----------
    action
        Name of the action.
    key
        On our layers.
    on_shapes
        On a shapes layer, where napari needs `key` itself; None for the same.
    """

    action: str
    key: int
    on_shapes: int | None = None

    def text(self, shapes: bool = False) -> str:
        """As shown on a button, e.g. ``Ctrl+Z``."""
        return str(KeyBinding.from_int(self._on(shapes)))

    def binding(self, shapes: bool = False) -> KeyBinding:
        """The key as napari binds it."""
        return KeyBinding.from_int(self._on(shapes))

    def _on(self, shapes: bool) -> int:
        return self.on_shapes if shapes and self.on_shapes is not None else self.key


SHORTCUTS = (
    Shortcut("flip", KeyCode.KeyT, KeyMod.Alt | KeyCode.KeyT),
    Shortcut("segment", KeyCode.KeyS),
    Shortcut("propagate", KeyMod.Shift | KeyCode.KeyS),
    Shortcut("commit", KeyCode.KeyC),
    Shortcut("clear", KeyMod.Shift | KeyCode.KeyC),
    Shortcut("undo", KeyMod.CtrlCmd | KeyCode.KeyZ),
    Shortcut("redo", KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ),
    Shortcut("cycle", KeyCode.KeyQ),
    Shortcut("next", KeyCode.KeyN),
    Shortcut("edit", KeyCode.KeyE, KeyMod.Alt | KeyCode.KeyE),
    Shortcut("delete", KeyMod.Shift | KeyCode.KeyD),
    Shortcut("merge", KeyCode.KeyG),
    Shortcut("split", KeyCode.KeyK),
)


def key_of(action: str, *, shapes: bool = False) -> str:
    """The key of an action as text."""
    return next(each for each in SHORTCUTS if each.action == action).text(shapes)


class Keys:
    """Binds the shortcuts and gives them back.

    On our own layers they take precedence over napari's keys, on all others they act only where
    the layer has no use for the key. A key that napari uses on the image itself (C, automatic
    contrast) is ours only while there is something for it to do.

    Parameters
    ----------
    viewer
        Where they act.
    actions
        What each `Shortcut.action` calls.
    wanted
        Whether an action has something to do now.
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
        self._bind(viewer, {each.binding(): self._guarded(each.action) for each in self._known()})

    def bind(self, own: Sequence[Layer], images: Sequence[Layer] = ()) -> None:
        """Bind to exactly these layers; others get back what they had.

        Parameters
        ----------
        own
            Layers on which all shortcuts act.
        images
            Layers that lend a key while it is wanted.
        """
        kept = [self._viewer, *own, *images]
        for holder in [each for each in self._bound if each not in kept]:
            self._unbind(holder)
        for layer in own:
            shapes = isinstance(layer, Shapes)
            keys = {each.binding(shapes): each.action for each in self._known()}
            self._bind(layer, {key: self._guarded(action) for key, action in keys.items()})
        for layer in images:
            lent = {each.binding(): each.action for each in self._known()}
            usual = {key: layer.class_keymap.get(key) for key in lent}
            self._bind(
                layer,
                {key: self._lent(lent[key], own) for key, own in usual.items() if own is not None},
            )

    def release(self) -> None:
        """Give everything back."""
        for holder in list(self._bound):
            self._unbind(holder)

    def _known(self) -> list[Shortcut]:
        return [each for each in SHORTCUTS if each.action in self._actions]

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
            if not typing():
                self._actions[action]()

        return act

    def _lent(self, action: str, usual: Callable[[Any], object]) -> Callable[[Any], object]:
        def act(layer: Any) -> object:
            if typing():
                return None
            return self._actions[action]() if self._wanted(action) else usual(layer)

        return act


def typing() -> bool:
    """Whether keys belong to a text field now."""
    focus = QApplication.focusWidget()
    if isinstance(focus, QComboBox):
        return focus.isEditable()
    return isinstance(focus, (QLineEdit, QTextEdit, QPlainTextEdit, QAbstractSpinBox))

"""Shortcuts: bound to our layers only, silent while a text field has the focus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app_model.types import KeyBinding, KeyCode, KeyMod
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

    def _on(self, shapes: bool) -> int:
        return self.on_shapes if shapes and self.on_shapes is not None else self.key


SHORTCUTS = (
    Shortcut("flip", KeyCode.KeyT, KeyMod.Alt | KeyCode.KeyT),
    Shortcut("segment", KeyCode.KeyS),
    Shortcut("commit", KeyCode.KeyC),
    Shortcut("clear", KeyMod.Shift | KeyCode.KeyC),
    Shortcut("undo", KeyMod.CtrlCmd | KeyCode.KeyZ),
    Shortcut("redo", KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ),
)


class Keys:
    """Binds the shortcuts to layers and gives them back.

    Parameters
    ----------
    actions
        What each `Shortcut.action` calls.
    """

    def __init__(self, actions: Mapping[str, Callable[[], object]]) -> None:
        self._actions = dict(actions)
        self._bound: dict[Layer, dict[KeyBinding, Any]] = {}

    def bind(self, layers: list[Layer]) -> None:
        """Bind to exactly these layers; others get back what they had."""
        for layer in [layer for layer in self._bound if layer not in layers]:
            self._unbind(layer)
        for layer in layers:
            if layer not in self._bound:
                self._bind(layer)

    def release(self) -> None:
        """Give everything back."""
        self.bind([])

    def _bind(self, layer: Layer) -> None:
        before = {}
        for shortcut in SHORTCUTS:
            key = KeyBinding.from_int(shortcut._on(isinstance(layer, Shapes)))
            before[key] = layer.keymap.get(key)
            layer.bind_key(key, self._guarded(self._actions[shortcut.action]), overwrite=True)
        self._bound[layer] = before

    def _unbind(self, layer: Layer) -> None:
        for key, function in self._bound.pop(layer).items():
            layer.keymap.pop(key, None)
            if function is not None:
                layer.keymap[key] = function

    def _guarded(self, action: Callable[[], object]) -> Callable[[Layer], None]:
        def act(_: Layer) -> None:
            if not typing():
                action()

        return act


def typing() -> bool:
    """Whether keys belong to a text field now."""
    focus = QApplication.focusWidget()
    if isinstance(focus, QComboBox):
        return focus.isEditable()
    return isinstance(focus, (QLineEdit, QTextEdit, QPlainTextEdit, QAbstractSpinBox))

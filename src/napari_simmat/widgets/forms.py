"""Forms, command lines and JSON made from config dataclasses, so that no option is named twice.

A field's annotation holds what its control shows, as magicgui reads it::

    steps: Annotated[int, {"label": "Steps", "min": 1, "tooltip": "..."}] = 500

Three keys are added to magicgui's: ``special`` is the text shown for the least value of a number,
``scale`` the unit in which a small number is shown, ``suffix`` the text behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from functools import partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from magicgui.widgets import create_widget
from magicgui.widgets.bases import ValueWidget
from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QFormLayout, QSizePolicy, QWidget

T = TypeVar("T")


class Options(QObject):
    """Controls for some fields of a dataclass; lay them out with `add_rows`.

    A field whose control was not touched keeps its value exactly, however it is rounded on the
    screen; so does a field that is None.

    Parameters
    ----------
    value
        A frozen dataclass; fields without a control are kept.
    names
        Fields to make controls for.
    """

    changed = Signal(str)
    """The user changed this field."""

    def __init__(self, value: Any, names: Iterable[str], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._value = value
        hints = get_type_hints(type(value), include_extras=True)
        self._controls = {name: _Control(name, hints[name]) for name in names}
        self._shown: dict[str, Any] = {}
        for name, control in self._controls.items():
            control.widget.changed.connect(partial(self._on_changed, name))
        self.set_value(value)

    def __getitem__(self, name: str) -> Any:
        """The Qt widget of a field."""
        return self._controls[name].native

    def value(self) -> Any:
        """The dataclass as shown; ValueError if its fields contradict each other."""
        shown = {name: control.value() for name, control in self._controls.items()}
        moved = {name: value for name, value in shown.items() if value != self._shown[name]}
        return replace(self._value, **moved)

    def set_value(self, value: Any, **shown: Any) -> None:
        """Show `value` without a signal.

        Parameters
        ----------
        value
            The dataclass.
        **shown
            What controls show instead of a field that is None.
        """
        self._value = value
        for name, control in self._controls.items():
            current = shown.get(name, getattr(value, name))
            if current is not None:
                control.set_value(current)
            self._shown[name] = control.value()

    def shown(self, name: str) -> Any:
        """What the control of a field shows."""
        return self._controls[name].value()

    def show(self, **values: Any) -> None:
        """Change fields as the user would, but without a signal."""
        for name, value in values.items():
            self._controls[name].set_value(value)

    def add_rows(self, layout: QFormLayout, *names: str) -> None:
        """Add fields to a form, by default all."""
        for name in names or self._controls:
            control = self._controls[name]
            label = () if isinstance(control.widget.value, bool) else (control.widget.label,)
            layout.addRow(*label, control.native)

    def _on_changed(self, name: str) -> None:
        self.changed.emit(name)


class _Control:
    """The widget of one field, and how its value is shown."""

    def __init__(self, name: str, hint: Any) -> None:
        kind, options = _split(hint)
        special, suffix = options.pop("special", ""), options.pop("suffix", "")
        self._scale = options.pop("scale", None)
        self._kind = kind
        if special:  # magicgui's box for integers cannot show one
            options = {"widget_type": "FloatSpinBox", "step": 1, **options}
        self.widget: ValueWidget[Any] = create_widget(annotation=kind, name=name, options=options)
        self.native = native = self.widget.native
        native.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        if special:
            native.setDecimals(0)
            native.setSpecialValueText(special)
        if suffix:
            native.setSuffix(suffix)
        if isinstance(native, QAbstractSpinBox):
            native.setKeyboardTracking(False)
        if isinstance(native, QComboBox):
            native.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            native.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            native.setMinimumContentsLength(8)
            native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        if isinstance(native, (QComboBox, QAbstractSpinBox)):
            native.installEventFilter(_wheel)

    def value(self) -> Any:
        value = self.widget.value
        if self._scale is not None:
            return round(value * self._scale, 12)
        if self._kind is str:
            return value.strip()
        return self._kind(value) if self._kind in (int, float) else value

    def set_value(self, value: Any) -> None:
        with self.widget.changed.blocked():
            self.widget.value = value if self._scale is None else value / self._scale


class _IgnoredWheel(QObject):
    """Leaves the wheel to the panel that scrolls, unless a number has the focus."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() != QEvent.Type.Wheel:
            return False
        assert isinstance(watched, QWidget)
        if isinstance(watched, QAbstractSpinBox) and watched.hasFocus():
            return False
        event.ignore()
        return True


_wheel = _IgnoredWheel()


def command_words(
    value: Any, *, prefix: str = "--", always: Collection[str] = (), omit: Collection[str] = ()
) -> list[str]:
    """The options of a command line that say what a dataclass says.

    Parameters
    ----------
    value
        The dataclass; its defaults are those of the command line.
    prefix
        Goes before each name, e.g. ``--auto.``.
    always
        Fields that are written even if they have their default.
    omit
        Fields that are no options.
    """
    words = []
    for each in fields(value):
        current = getattr(value, each.name)
        if each.name in omit or (current == _default(each) and each.name not in always):
            continue
        name = each.name.replace("_", "-")
        if isinstance(current, bool):
            words.append(f"{prefix}{name}" if current else f"{prefix}no-{name}")
        elif current is not None:
            # With "=", since words of the user may start with a dash.
            several = current if isinstance(current, tuple) else (current,)
            words += [f"{prefix}{name}={one}" for one in several]
    return words


def from_plain(kind: type[T], values: Any) -> T:
    """Make a dataclass from parsed JSON; ValueError or TypeError if a field does not fit."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{values!r:.50} is no object")
    hints = get_type_hints(kind)
    if unknown := set(values) - set(hints):
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    made = {}
    for name, value in values.items():
        if is_dataclass(hints[name]):
            value = from_plain(hints[name], value)  # type: ignore[arg-type]
        value = tuple(value) if isinstance(value, list) else value
        if not _fits(value, hints[name]):
            raise TypeError(f"{name} is {value!r:.50}")
        made[name] = value
    return kind(**made)


def _fits(value: Any, hint: Any) -> bool:
    kinds = get_args(hint)
    if get_origin(hint) is Literal:
        return value in kinds
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, kind) for kind in kinds)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(each, kinds[0]) for each in value)
    return type(value) is hint or (hint is float and type(value) is int)


def _split(hint: Any) -> tuple[Any, dict[str, Any]]:
    """A field's type without None, and the options of its control."""
    options: dict[str, Any] = {}
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        for note in notes:
            options |= note if isinstance(note, Mapping) else {}
    if get_origin(hint) in (Union, UnionType):
        (hint,) = [kind for kind in get_args(hint) if kind is not NoneType]
    return hint, options


def _default(each: Field[Any]) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()

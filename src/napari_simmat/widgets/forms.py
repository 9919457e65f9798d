"""Forms and command lines made from config dataclasses, so that no option is named twice.

A field's annotation holds what its control shows, as magicgui reads it::

    steps: Annotated[int, {"label": "Steps", "min": 1}] = 500

Its tooltip is the field's text in the dataclass's docstring, as in the help of the command line.
One key is added to magicgui's: ``special`` is the text shown for the least value of a number.
A float with the ``widget_type`` LineEdit is typed as text, e.g. 0.001 or 3e-5.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from textwrap import fill
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import DocstringStyle
from docstring_parser import parse as parse_docstring
from magicgui.widgets import create_widget
from magicgui.widgets.bases import ValueWidget
from qtpy.QtCore import QEvent, QLocale, QObject, Qt, Signal
from qtpy.QtGui import QDoubleValidator, QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QMenu,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from napari_simmat.engine.everything.idle_settings import idle_settings
from napari_simmat.engine.settings import FILTER_FIELDS, WAYS_OF_FINDING, AutomaticSettings
from napari_simmat.io.plain import RULE_NOTES
from napari_simmat.models.spec import ModelSpec
from napari_simmat.widgets.controls import INDENT, CollapsibleSection, form_rows, hbox

SEPARATOR = ";"
"""Between the words of a field that holds several."""
TYPE_A_NUMBER = (
    "{label} is {value!r}, not a number between {low:g} and {high:g}: type one, such as 0.001 or "
    "3e-5."
)


class Options(QObject):
    """Controls for some fields of a dataclass; lay them out with `add_rows`.

    A field whose control was not touched keeps its value exactly, however it is rounded on the
    screen; so does a field that is None.

    Parameters
    ----------
    value
        A frozen dataclass; its fields with a label get a control, the others are kept.
    """

    changed = Signal(str)
    """The user changed this field."""

    def __init__(self, value: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._value = value
        hints = get_type_hints(type(value), include_extras=True)
        texts = field_texts(type(value))
        self._controls = {
            name: _Control(name, hints[name], texts.get(name, ""))
            for name in shown_fields(type(value))
        }
        self._shown: dict[str, Any] = {}
        for name, control in self._controls.items():
            control.widget.changed.connect(partial(self._on_changed, name))
        self.set_value(value)

    def __getitem__(self, name: str) -> Any:
        """The Qt widget of a field."""
        return self._controls[name].native

    def value(self) -> Any:
        """The dataclass as shown; ValueError if a field holds no number or two contradict."""
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

    def __init__(self, name: str, hint: Any, text: str) -> None:
        kind, options = _split(hint)
        self._is_list = get_origin(kind) is tuple  # of words, which the user separates
        kind = str if self._is_list else kind
        special = options.pop("special", "")
        self._kind = kind
        if special:  # magicgui's box for integers cannot show one
            options = {"widget_type": "FloatSpinBox", "step": 1, **options}
        is_typed = kind is float and options.get("widget_type") == "LineEdit"
        self._limits = (options.pop("min"), options.pop("max")) if is_typed else ()
        self.widget: ValueWidget[Any] = create_widget(annotation=kind, name=name, options=options)
        self.native = native = self.widget.native
        native.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        native.setToolTip(fill(text, 80, break_on_hyphens=False))
        if self._limits:
            validator = QDoubleValidator(*self._limits, -1, native)
            validator.setLocale(QLocale.c())
            native.setValidator(validator)
        if special:
            native.setDecimals(0 if kind is int else 3)
            native.setSpecialValueText(special)
        if isinstance(native, QAbstractSpinBox):
            native.setKeyboardTracking(False)
        if isinstance(native, QComboBox):
            native.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            native.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            native.setMinimumContentsLength(8)
            native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        for part in (native, *native.findChildren(QWidget)):
            if isinstance(part, (QComboBox, QAbstractSpinBox, QAbstractSlider)):
                part.installEventFilter(_IgnoredWheel(part))

    def value(self) -> Any:
        value = self.widget.value
        if self._limits:
            if not self.native.hasAcceptableInput():
                low, high = self._limits
                raise ValueError(
                    TYPE_A_NUMBER.format(label=self.widget.label, value=value, low=low, high=high)
                )
            return float(value)
        if self._is_list:
            return tuple(word.strip() for word in value.split(SEPARATOR) if word.strip())
        if self._kind is str:
            return value.strip()
        return self._kind(value) if self._kind in (int, float) else value

    def set_value(self, value: Any) -> None:
        if self._is_list:
            value = f"{SEPARATOR} ".join(value)
        with self.widget.changed.blocked():
            self.widget.value = f"{value:.7g}" if self._limits else value


class _IgnoredWheel(QObject):
    """Leaves the wheel to the panel that scrolls, unless a number has the focus."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() != QEvent.Type.Wheel:
            return False
        assert isinstance(watched, QWidget)
        if not isinstance(watched, QComboBox) and watched.hasFocus():
            return False
        event.ignore()
        return True


def field_texts(kind: type) -> dict[str, str]:
    """The text of each field in the docstring of a dataclass, or of one that it extends."""
    documented = [each for each in kind.__mro__ if is_dataclass(each)]
    texts: dict[str, str] = {}
    for each in reversed(documented):
        described = parse_docstring(each.__doc__ or "", DocstringStyle.NUMPYDOC).params
        texts |= {one.arg_name: one.description or "" for one in described}
    return {name: " ".join(text.replace("`", "").split()) for name, text in texts.items()}


def shown_fields(kind: type) -> tuple[str, ...]:
    """Fields of a dataclass that are annotated with a label."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(name for name, hint in hints.items() if "label" in _split(hint)[1])


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
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if each.name in omit or (current == default and each.name not in always):
            continue
        name = each.name.replace("_", "-")
        if isinstance(current, bool):
            words.append(f"{prefix}{name}" if current else f"{prefix}no-{name}")
        elif current is not None:
            # With "=", since words of the user may start with a dash.
            several = current if isinstance(current, tuple) else (current,)
            words += [f"{prefix}{name}={one}" for one in several]
    return words


def _split(hint: Any) -> tuple[Any, dict[str, Any]]:
    """A field's type without None, and the options of its control."""
    options: dict[str, Any] = {}
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        for note in notes:
            options |= note if isinstance(note, Mapping) else {}
    if get_origin(hint) in (Union, UnionType):
        (hint,) = [kind for kind in get_args(hint) if kind is not NoneType]
    return hint, {name: value for name, value in options.items() if name not in RULE_NOTES}


class EverythingForm(QWidget):
    """A view of one value: `AutomaticSettings`.

    Attributes
    ----------
    options
        The controls.
    rows
        The layout, for further rows.
    words_row
        What to look for, to be placed by its user; shown for models that read words alone.
    """

    sifted = Signal()
    """A filter changed: the masks that were proposed stay valid."""
    asked = Signal()
    """A setting changed that needs new proposals of the model."""

    def __init__(self) -> None:
        super().__init__()
        self._model: ModelSpec | None = None
        self._is_seeded = False
        self.options = Options(AutomaticSettings(), self)
        self.rows = form_rows(parent=self, indent=INDENT)
        self.options.add_rows(self.rows, *(each for each in FORM_SETTINGS if each != "words"))
        self.words = self.options["words"]
        self.words.setPlaceholderText(WORDS_HINT)
        self.words_row = QWidget()
        form_rows(("Words", self.words), parent=self.words_row)
        self.words_row.hide()
        self.options.changed.connect(self._on_changed)
        # A person waits gladly for what spares work; a pipeline is told to.
        self.set_value(AutomaticSettings(second_look=True))

    def show_model(self, model: ModelSpec | None) -> None:
        """Show the thresholds of a model where none were moved, and words if it reads some."""
        self._model = model
        self.words_row.setVisible(self._reads_words)
        self.set_value(self.options.value())

    def show_seeded(self, is_seeded: bool) -> None:
        """Say whether a layer's points or labels are where the model is clicked."""
        self._is_seeded = is_seeded
        self._gray_idle()

    def value(self) -> AutomaticSettings:
        """The settings; thresholds that were not moved stay the model's own.

        Without words if the model reads none: the field keeps them.
        """
        settings: AutomaticSettings = self.options.value()
        return settings if self._reads_words else replace(settings, words="")

    def set_value(self, settings: AutomaticSettings) -> None:
        """Show settings without a signal; those without a control are kept.

        The model's decoder can be chosen only if it has one.
        """
        has_decoder = self._model is not None and self._model.finds_instances
        if self._model is not None and settings.by == "decoder" and not has_decoder:
            settings = replace(settings, by="auto")
        by = self.options["by"]
        self.rows.setRowVisible(by, self._model is not None)
        by.model().item(by.findData("decoder")).setEnabled(has_decoder)
        used = settings if self._reads_words else replace(settings, words="")
        shown = used if self._model is None else used.for_model(self._model)
        quality, stability = shown.thresholds
        self.options.set_value(settings, quality=quality, stability=stability)
        self._gray_idle()

    def _gray_idle(self) -> None:
        """Disable the controls of settings that the way of finding does not read."""
        idle = set()
        if self._model is not None:
            idle = idle_settings(self.value(), self._model, self._is_seeded)
        for name in FORM_SETTINGS:
            if name != "words":
                self.options[name].setEnabled(name not in idle)

    @property
    def _reads_words(self) -> bool:
        return self._model is not None and self._model.base.reads_words

    def _on_changed(self, name: str) -> None:
        if name in WAYS_OF_FINDING:
            self.set_value(self.options.value())  # their thresholds are others
        self._gray_idle()
        (self.sifted if name in FILTER_FIELDS else self.asked).emit()


FORM_SETTINGS = shown_fields(AutomaticSettings)
WORDS_HINT = "e.g. yellow leaf"


_PIXEL_SHAPE = "Pixel aspect ratio"


class PixelShape(CollapsibleSection):
    """A view of one number: height of a pixel over its width. Folded, its title shows it."""

    changed = Signal()

    def __init__(self) -> None:
        self.ratio = QDoubleSpinBox()
        self.ratio.setDecimals(3)
        self.ratio.setRange(0.01, 100.0)
        self.ratio.setSingleStep(0.1)
        self.ratio.setValue(1.0)
        self.ratio.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.ratio.setToolTip(
            "Height of a pixel over its width, where a file does not say; 1 for squares"
        )
        content = QWidget()
        form_rows(("Height / width", self.ratio), parent=content, indent=INDENT)
        super().__init__(_PIXEL_SHAPE, content)
        self.ratio.valueChanged.connect(self._on_ratio)

    def value(self) -> float:
        """Height over width."""
        return round(self.ratio.value(), 3)

    def set_value(self, ratio: float) -> None:
        """Show a ratio."""
        self.ratio.setValue(ratio)

    def _on_ratio(self) -> None:
        ratio = self.value()
        self.set_title(
            _PIXEL_SHAPE if ratio == 1 else f"{_PIXEL_SHAPE}: {ratio:g} times as high as wide"
        )
        self.changed.emit()


# ------------------------------------------------------------------------ files and folders

PathKind = Literal["folder", "file", "either"]


class DropTarget(QWidget):
    """Takes one path of the right kind that is dropped on it.

    Parameters
    ----------
    drops
        Which paths it takes.
    """

    def __init__(self, drops: PathKind) -> None:
        super().__init__()
        self._drops = drops
        self.setAcceptDrops(True)

    def take(self, path: str) -> None:
        """Show a path that was dropped."""
        raise NotImplementedError

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        """Accept one path of the right kind."""
        if self._dropped(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802 - Qt's name
        """Show the path that was dropped."""
        if path := self._dropped(event):
            self.take(path)
            event.acceptProposedAction()

    def _dropped(self, event: QDropEvent) -> str:
        """The one local path that is dragged, if it is of the right kind; empty for several."""
        data = event.mimeData()
        paths = [url.toLocalFile() for url in data.urls()] if data is not None else []
        if len(paths) != 1 or not paths[0]:
            return ""
        path = Path(paths[0])
        kind = self._drops
        fits = kind == "either" or (path.is_dir() if kind == "folder" else path.is_file())
        return paths[0] if fits else ""


class PathField(DropTarget):
    """A view of one path.

    Parameters
    ----------
    kind
        Which paths can be dropped or browsed for.
    title
        Of the dialog.
    """

    changed = Signal()

    def __init__(self, kind: PathKind, title: str, tip: str = ""):
        super().__init__(kind)
        self._title = title
        self.path = QLineEdit()
        self.path.setPlaceholderText("drop it here")
        self.path.setToolTip(tip)
        self.path.setAcceptDrops(False)  # the whole field takes it, as a path
        self.browse = QToolButton()
        self.browse.setText("⋯")
        self.browse.setToolTip(title)
        if kind == "either":
            menu = QMenu(self.browse)
            menu.addAction("A folder...", lambda: self._ask("folder"))
            menu.addAction("A file or manifest...", lambda: self._ask("file"))
            self.browse.setMenu(menu)
            self.browse.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
            self.browse.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        else:
            self.browse.clicked.connect(lambda: self._ask(kind))
        hbox((self.path, 1), self.browse, parent=self)
        self.path.textChanged.connect(self.changed)

    def value(self) -> str:
        """The path as typed."""
        return self.path.text().strip()

    def set_value(self, path: str) -> None:
        """Show a path."""
        self.path.setText(path)

    take = set_value

    def _ask(self, kind: PathKind) -> None:
        if kind == "folder":
            path = QFileDialog.getExistingDirectory(self, self._title, self.value())
        else:
            path, _ = QFileDialog.getOpenFileName(self, self._title, self.value())
        if path:
            self.set_value(path)

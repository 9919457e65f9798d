"""The size of a pixel of the chosen image: what its layers say, or what the user states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from napari.layers import Image
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLineEdit, QWidget

from napari_simmat.io.units import check_pixel_size, parse_pixel_size
from napari_simmat.widgets.controls import ComboBox
from napari_simmat.widgets.placement import ImageGeometry, reference_of

UNITS = ("nm", "um", "mm")
PLACED = (
    "The file of {} says where its pixels lie, and how large they are by that; another pixel size "
    "would contradict it."
)
TOO_MANY = "{} has {} axes without channels, so give at most that many numbers."
_TIP = (
    "Height and width of a pixel: one number, HEIGHT,WIDTH or DEPTH,HEIGHT,WIDTH; the table, what "
    "is saved and the scale bar follow"
)


class PixelSizeField(QWidget):
    """Shows the size of a pixel; emits what the user states, in text, with its unit."""

    stated = Signal(str, str)

    def __init__(self) -> None:
        super().__init__()
        self.number, self.unit = QLineEdit(), ComboBox()
        self.number.setPlaceholderText("unknown: the table is in pixels")
        self.number.setToolTip(_TIP)
        self.unit.addItems(UNITS)
        self.unit.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        rows = QHBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addWidget(self.number, 1)
        rows.addWidget(self.unit)
        self._shown = ""
        self.number.editingFinished.connect(self._on_edited)
        self.unit.activated.connect(self._on_edited)

    def show_image(self, geometry: ImageGeometry | None) -> None:
        """Show the size of an image's pixels; empty if it is unknown, or there is none."""
        known = None if geometry is None else geometry.kept_reference()
        sizes = [] if known is None else [known.of(letter) for letter in "ZYX"]
        lengths = [each for each in sizes if each is not None]
        self.setEnabled(geometry is not None)
        text = ""
        if len(lengths) > 1 and lengths[-1][1] in UNITS and len({unit for _, unit in lengths}) == 1:
            told = [f"{size:.6g}" for size, _ in lengths]
            text = told[0] if len(told) == 2 and told[0] == told[1] else ",".join(told)
            self.unit.setCurrentText(lengths[-1][1])
        self._shown = f"{text} {self.unit.currentText()}"
        self.number.setText(text)

    def _on_edited(self, *_: object) -> None:
        text, unit = self.number.text().strip(), self.unit.currentText()
        if text and f"{text} {unit}" != self._shown:
            self._shown = f"{text} {unit}"  # once, though the focus leaves as well
            self.stated.emit(text, unit)


def state_pixel_size(layers: Iterable[Image], text: str, unit: str) -> None:
    """Give the layers of an image the size of pixels that the user states.

    Parameters
    ----------
    layers
        Of its channels.
    text
        One number, or those of the last axes, with commas between.
    unit
        One of `UNITS`.

    Raises
    ------
    ValueError
        If it is no size, or a file says where the pixels lie.
    """
    sizes = parse_pixel_size(text)
    check_pixel_size(sizes, unit)
    sizes = sizes * 2 if len(sizes) == 1 else sizes
    layers = list(layers)
    for layer in layers:
        if reference_of(layer).world is not None:
            raise ValueError(PLACED.format(layer.name))
        if len(sizes) > layer.ndim:
            raise ValueError(TOO_MANY.format(layer.name, layer.ndim))
    for layer in layers:
        layer.units = _last(layer.units, [unit] * len(sizes))
        layer.scale = _last(layer.scale, sizes)


def _last(values: Sequence[object], new: Sequence[object]) -> list[object]:
    """`values` with the last of them replaced."""
    return [*list(values)[: -len(new)], *new]

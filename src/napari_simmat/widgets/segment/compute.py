"""Device, precision and quality of the Segment tab: as they are chosen, and as they are in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_simmat.widgets.controls import ComboBox, hbox, vbox

if TYPE_CHECKING:
    from napari_simmat.engine.device import DeviceInfo
    from napari_simmat.engine.settings import Quality

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
_QUALITIES = (("fast", "Quality: fast"), ("best", "Quality: best, four times slower"))
_PRECISIONS = (("auto", AUTOMATIC), ("exact", "Exact"), ("fast", "Fast"))


class ComputeInUse(NamedTuple):
    """What the loaded model computes on, of the devices that are here."""

    devices: Sequence[DeviceInfo]
    device: str
    precision: str
    quality: str = "fast"

    @property
    def title(self) -> str:
        """What people call the device."""
        fitting = (e for e in self.devices if f"{e.name}:".startswith(f"{self.device}:"))
        return next((each.title for each in fitting), self.device)


class ComputeChoice(QWidget):
    """Three lists. Devices are known once torch is loaded, with the first model."""

    changed = Signal()
    """The user chose another device, precision or quality."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.device, self.precision, self.quality = ComboBox(), ComboBox(), ComboBox()
        self.device.setToolTip(DEVICE_TIP)
        self.precision.setToolTip(PRECISION_TIP)
        self.quality.setToolTip(QUALITY_TIP)
        for name, title in (("auto", AUTOMATIC), ("cpu", "CPU")):
            self.device.addItem(title, name)
        for name, title in _PRECISIONS:
            self.precision.addItem(title, name)
        for name, title in _QUALITIES:
            self.quality.addItem(title, name)
        for box in (self.device, self.precision, self.quality):
            box.setMinimumContentsLength(4)  # side by side they are as wide as the other lists
            box.activated.connect(lambda _: self.changed.emit())
        vbox(hbox((self.device, 1), (self.precision, 1)), self.quality, parent=self)

    def value(self) -> tuple[str, str, Quality]:
        """Names of device, precision and quality, as `Predictor` takes them."""
        boxes = (self.device, self.precision, self.quality)
        device, precision, quality = (box.currentData() for box in boxes)
        return device, precision, quality

    def set_value(self, device: str, precision: str, quality: str) -> None:
        """Choose all three; a device that is not listed is added."""
        if self.device.findData(device) < 0:
            self.device.addItem(NOT_FOUND.format(name=device), device)
        self.device.setCurrentIndex(self.device.findData(device))
        self.precision.setCurrentIndex(max(0, self.precision.findData(precision)))
        self.quality.setCurrentIndex(max(0, self.quality.findData(quality)))

    def show_in_use(self, used: ComputeInUse) -> None:
        """List the devices that are here, and name what *Auto* means."""
        device, precision, quality = self.value()
        titles = {"auto": AUTOMATIC, **{each.name: each.title for each in used.devices}}
        if device == "auto":
            titles["auto"] = IN_USE.format(used=used.title)
        elif device in titles and not f"{device}:".startswith(f"{used.device}:"):
            titles[device] = f"{titles[device]} (now: {used.title})"  # its memory ran out
        self.device.clear()
        for name, title in titles.items():
            self.device.addItem(title, name)
        self.device.setToolTip(f"{DEVICE_TIP}\nIn use: {used.title}")  # the list may be too narrow
        automatic = IN_USE.format(used=used.precision) if precision == "auto" else AUTOMATIC
        self.precision.setItemText(0, automatic)
        self.quality.setToolTip(QUALITY_TIP if used.quality == quality else NO_BEST_TIP)
        self.set_value(device, precision, quality)

"""Device, precision and quality of the Segment tab: as they are chosen, and as they are in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_simmat.engine.settings import Compute
from napari_simmat.widgets.controls import ComboBox, hbox, vbox

if TYPE_CHECKING:
    from napari_simmat.engine.device import DeviceInfo

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
    compute: Compute

    @property
    def title(self) -> str:
        """What people call the device."""
        device = self.compute.device
        fitting = (e for e in self.devices if f"{e.name}:".startswith(f"{device}:"))
        return next((each.title for each in fitting), device)


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

    def value(self) -> Compute:
        """What is chosen."""
        return Compute(
            device=self.device.currentData(),
            precision=self.precision.currentData(),
            quality=self.quality.currentData(),
        )

    def set_value(self, value: Compute) -> None:
        """Choose all three; a device that is not listed is added."""
        if self.device.findData(value.device) < 0:
            self.device.addItem(NOT_FOUND.format(name=value.device), value.device)
        self.device.setCurrentIndex(self.device.findData(value.device))
        self.precision.setCurrentIndex(max(0, self.precision.findData(value.precision)))
        self.quality.setCurrentIndex(max(0, self.quality.findData(value.quality)))

    def show_in_use(self, used: ComputeInUse) -> None:
        """List the devices that are here, and name what *Auto* means."""
        chosen, device = self.value(), self.value().device
        titles = {"auto": AUTOMATIC, **{each.name: each.title for each in used.devices}}
        if device == "auto":
            titles["auto"] = IN_USE.format(used=used.title)
        elif device in titles and not f"{device}:".startswith(f"{used.compute.device}:"):
            titles[device] = f"{titles[device]} (now: {used.title})"  # its memory ran out
        self.device.clear()
        for name, title in titles.items():
            self.device.addItem(title, name)
        self.device.setToolTip(f"{DEVICE_TIP}\nIn use: {used.title}")  # the list may be too narrow
        is_auto = chosen.precision == "auto"
        self.precision.setItemText(
            0, IN_USE.format(used=used.compute.precision) if is_auto else AUTOMATIC
        )
        has_quality = used.compute.quality == chosen.quality
        self.quality.setToolTip(QUALITY_TIP if has_quality else NO_BEST_TIP)
        self.set_value(chosen)

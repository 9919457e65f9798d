"""The device and precision of the Segment tab: chosen by the user, and shown as they are in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_simmat.widgets.controls import ComboBox, hbox

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
_PRECISIONS = (("auto", AUTOMATIC), ("exact", "Exact"), ("fast", "Fast"))


class ComputeInUse(NamedTuple):
    """What the loaded model computes on, of the devices that are here."""

    devices: Sequence[DeviceInfo]
    device: str
    precision: str

    @property
    def title(self) -> str:
        """What people call the device."""
        fitting = (e for e in self.devices if f"{e.name}:".startswith(f"{self.device}:"))
        return next((each.title for each in fitting), self.device)


class ComputeChoice(QWidget):
    """Two lists side by side. Devices are known once torch is loaded, with the first model."""

    changed = Signal()
    """The user chose another device or precision."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.device, self.precision = ComboBox(), ComboBox()
        self.device.setToolTip(DEVICE_TIP)
        self.precision.setToolTip(PRECISION_TIP)
        for name, title in (("auto", AUTOMATIC), ("cpu", "CPU")):
            self.device.addItem(title, name)
        for name, title in _PRECISIONS:
            self.precision.addItem(title, name)
        for box in (self.device, self.precision):
            box.setMinimumContentsLength(4)  # side by side they are as wide as the other lists
            box.activated.connect(lambda _: self.changed.emit())
        hbox((self.device, 1), (self.precision, 1), parent=self)

    def value(self) -> tuple[str, str]:
        """Names of device and precision, as `Predictor` takes them."""
        return self.device.currentData(), self.precision.currentData()

    def set_value(self, device: str, precision: str) -> None:
        """Choose both; a device that is not listed is added."""
        if self.device.findData(device) < 0:
            self.device.addItem(NOT_FOUND.format(name=device), device)
        self.device.setCurrentIndex(self.device.findData(device))
        self.precision.setCurrentIndex(max(0, self.precision.findData(precision)))

    def show_in_use(self, used: ComputeInUse) -> None:
        """List the devices that are here, and name what *Auto* means."""
        device, precision = self.value()
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
        self.set_value(device, precision)

"""Where the model runs, how exactly, and in what quality."""

from __future__ import annotations

from dataclasses import replace

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLineEdit, QWidget

from napari_simmat.annotation.inference_service import ComputeInUse
from napari_simmat.engine.remote import is_address
from napari_simmat.engine.settings import Compute
from napari_simmat.widgets.controls import ComboBox, hbox, vbox

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
REMOTE_TIP = (
    "Address of a Dask scheduler, e.g. tcp://10.0.0.1:8786. Its workers encode; clicks are "
    "predicted here. If it cannot be reached, this computer encodes."
)


class ComputeChoice(QWidget):
    """Three lists, whose devices are known once torch is loaded, and an address that encodes."""

    changed = Signal()
    """The user chose another device, precision or quality, or another address."""

    def __init__(self) -> None:
        super().__init__()
        rows = (
            (DEVICE_TIP, {"auto": AUTOMATIC, "cpu": "CPU"}),
            (PRECISION_TIP, {"auto": AUTOMATIC, "exact": "Exact", "fast": "Fast"}),
            (QUALITY_TIP, {"fast": "Quality: fast", "best": "Quality: best, four times slower"}),
        )
        self._boxes = [ComboBox() for _ in rows]
        for box, (tip, titles) in zip(self._boxes, rows, strict=True):
            box.setToolTip(tip)
            box.setMinimumContentsLength(4)  # side by side they are as wide as the other lists
            box.activated.connect(lambda _: self.changed.emit())
            for name, title in titles.items():
                box.addItem(title, name)
        self.device, self.precision, self.quality = self._boxes
        self.remote = QLineEdit()
        self.remote.setPlaceholderText("GPU elsewhere: tcp://...")
        self.remote.setToolTip(REMOTE_TIP)
        self.remote.editingFinished.connect(self._on_address)
        self._address = ""
        lists = hbox((self.device, 1), (self.precision, 1))
        vbox(lists, self.quality, self.remote, parent=self)

    def value(self) -> Compute:
        """What is chosen."""
        device, precision, quality = (box.currentData() for box in self._boxes)
        return Compute(device=self._address or device, precision=precision, quality=quality)

    def set_value(self, value: Compute) -> None:
        """Choose all; a device that is not listed is added."""
        self._address, device = "", value.device
        if is_address(device):
            self._address, device = device, "auto"
        self.remote.setText(self._address)
        self.device.setEnabled(not self._address)
        if self.device.findData(device) < 0:
            self.device.addItem(NOT_FOUND.format(name=device), device)
        names = device, value.precision, value.quality
        for box, name in zip(self._boxes, names, strict=True):
            box.setCurrentIndex(max(0, box.findData(name)))

    def show_in_use(self, used: ComputeInUse) -> None:
        """List the devices that are here, and name what *Auto* means."""
        chosen = self.value()
        now = used.compute
        titles = {"auto": AUTOMATIC, **{each.name: each.title for each in used.devices}}
        if chosen.device == "auto":
            titles["auto"] = IN_USE.format(used=used.title)
        elif chosen.device in titles and not f"{chosen.device}:".startswith(f"{now.device}:"):
            titles[chosen.device] += f" (now: {used.title})"  # its memory ran out
        self.device.clear()
        for name, title in titles.items():
            self.device.addItem(title, name)
        self.device.setToolTip(f"{DEVICE_TIP}\nIn use: {used.title}")  # the list may be too narrow
        is_auto = chosen.precision == "auto"
        self.precision.setItemText(0, IN_USE.format(used=now.precision) if is_auto else AUTOMATIC)
        self.quality.setToolTip(QUALITY_TIP if now.quality == chosen.quality else NO_BEST_TIP)
        self.set_value(chosen)

    def _on_address(self) -> None:
        address = self.remote.text().strip()
        address = address if "://" in address or not address else f"tcp://{address}"
        if address != self._address:
            device = address or self.device.currentData()
            self.set_value(replace(self.value(), device=device))
            self.changed.emit()

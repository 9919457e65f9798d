"""The settings of a batch run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_simmat._text import format_shape, pluralize
from napari_simmat.batch.plan import AUTO, SAME_STEM
from napari_simmat.widgets.batch.run import BatchRequest, FirstFile
from napari_simmat.widgets.channels_form import ChannelsForm
from napari_simmat.widgets.controls import (
    INDENT,
    CollapsibleSection,
    ComboBox,
    form_rows,
    text_label,
    vbox,
)
from napari_simmat.widgets.forms import EverythingForm, Options, PathField, PixelShape
from napari_simmat.widgets.model_picker import ModelPicker

EVERYTHING, NEXT_TO_IMAGE, ONE_FILE = PROMPTS = (
    "Segment everything",
    "File next to each image (same stem)",
    "One file for all images",
)
_EXTRAS = {
    "overlay": "Overlay (PNG)",
    "coco": "COCO (JSON)",
    "rois": "ImageJ ROIs (zip)",
    "geojson": "QuPath (GeoJSON)",
    "map": "Map coordinates (GeoJSON)",
    "seg": "DICOM SEG, of a DICOM series",
    "ctc": "Cell Tracking Challenge",
    "zarr": "OME-Zarr, with a pyramid",
}


class BatchForm(QWidget):
    """A view of one value: a `BatchRequest`."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._first: FirstFile | None = None
        self._wanted = ""  # channels, until the first file is known
        self.images = PathField(
            "either",
            "Images to segment",
            "A folder with its subfolders, an image, a pattern such as data/**/*.tif, or a "
            "manifest (CSV with the column image)",
        )
        self.output = PathField("folder", "Folder for the results", "Subfolders are mirrored in it")
        self.models = ModelPicker()
        self.channels = ChannelsForm()
        self.pixels = PixelShape()
        self.first = text_label("muted")
        self.prompts = ComboBox()
        self.prompts.addItems(PROMPTS)
        self.prompt_file = PathField("file", "Prompts", "CSV of points or shapes, or a label image")
        self.everything = EverythingForm()
        self.extras = {kind: QCheckBox(title) for kind, title in _EXTRAS.items()}
        self.options = Options(BatchRequest(), self)
        self.options["pattern"].setPlaceholderText("all images")
        self.options["scheduler"].setPlaceholderText("this machine")
        self._lay_out()
        self._show()
        self._connect()

    def value(self) -> BatchRequest:
        """The request."""
        request: BatchRequest = self.options.value()
        kind = self.prompts.currentIndex()
        return replace(
            request,
            images=self.images.value(),
            output=self.output.value(),
            model=str(self.models.reference()),
            channels=self._channels(),
            pixel_ratio=self.pixels.value(),
            prompts=(AUTO, SAME_STEM, self.prompt_file.value())[kind],
            extras=tuple(kind for kind, box in self.extras.items() if box.isChecked()),
            automatic=self.everything.value(),
        )

    def set_value(self, request: BatchRequest) -> None:
        """Show a request; a model that no longer exists is left out."""
        path = Path(request.model).expanduser()
        with suppress(ValueError, OSError):
            self.models.set_value(path if path.is_file() else request.model)
        self.options.set_value(request)
        self.images.set_value(request.images)
        self.output.set_value(request.output)
        self._wanted = request.channels
        self.pixels.set_value(request.pixel_ratio)
        kind = {AUTO: 0, SAME_STEM: 1}.get(request.prompts, 2)
        self.prompts.setCurrentIndex(kind)
        self.prompt_file.set_value(request.prompts if kind == 2 else "")
        for name, box in self.extras.items():
            box.setChecked(name in request.extras)
        self.everything.set_value(request.automatic)
        self.set_first(self._first, "")
        self._show()
        self.changed.emit()

    def set_first(self, first: FirstFile | None, remark: str) -> None:
        """Show the channels of the first file, or a remark why it cannot be read."""
        self._first = first
        spec = self._spec()
        self.channels.blockSignals(True)
        self.channels.set_layers([] if first is None else first.layers())
        sources = None
        if first is not None and spec is not None:
            sources = first.sources(self._wanted, spec)
        if sources is not None:
            self.channels.set_value(sources)
        self.channels.blockSignals(False)
        if first is not None:
            shape = format_shape(first.shape)
            count = pluralize(first.count, "channel")
            named = f" ({', '.join(first.names[:12])})" if first.names else ""
            self.first.setText(f"{first.name}: {shape}, {count}{named}")
        else:
            self.first.setText(remark)
        self._show()

    def problem(self) -> str | None:
        """What is wrong with the request itself, one sentence; None if nothing is."""
        if problem := self.models.problem():
            return problem
        if problem := self.value().problem():
            return problem
        first, spec = self._first, self._spec()
        gap = any(source is None for source in self.channels.value())
        if first is not None and spec is not None and first.count > 1 and gap:
            return (
                f"{spec.name} reads {', '.join(spec.channel_names)}, but {first.name} has "
                f"{first.count} channels and none is chosen: choose under Channels."
            )
        return None

    def _lay_out(self) -> None:
        self.how = CollapsibleSection("Automatic segmentation", self.everything)
        boxes, cluster = QWidget(), QWidget()
        vbox(*self.extras.values(), parent=boxes, indent=INDENT)
        self.also = CollapsibleSection("Additional outputs", boxes)
        self.options.add_rows(form_rows(parent=cluster, indent=INDENT), "scheduler")
        form = form_rows(("Images", self.images), parent=self, spacing=6)
        self.options.add_rows(form, "pattern")
        for each in (
            ("Results", self.output),
            ("Model", self.models),
            (self.models.details,),
            ("First file", self.first),
            ("Channels", self.channels),
            (self.channels.details,),
            (self.pixels,),
            ("Prompts", self.prompts),
            ("", self.prompt_file),
            (self.how,),
            ("", self.options["propagate"]),
            ("", self.options["link"]),
        ):
            form.addRow(*each)
        self.options.add_rows(form, "objects")
        self.options["link_axis"].setPlaceholderText("as the file says")
        self.options.add_rows(form, "link_axis")
        form.addRow(self.also)
        self.options.add_rows(form, "existing")
        form.addRow(CollapsibleSection("Cluster", cluster))
        self._form = form

    def _connect(self) -> None:
        for field in (self.images, self.output, self.prompt_file, self.pixels):
            field.changed.connect(self._on_changed)
        self.prompts.activated.connect(self._on_changed)
        for box in self.extras.values():
            box.toggled.connect(self._on_changed)
        self.options.changed.connect(self._on_changed)
        self.everything.sifted.connect(self._on_changed)
        self.everything.asked.connect(self._on_changed)
        self.models.changed.connect(self._on_model)
        self.channels.changed.connect(self._on_channels)
        spec = self._spec()
        self.channels.set_inputs(None if spec is None else spec.inputs)

    def _spec(self):
        entry = self.models.value()
        return None if entry is None else entry.spec

    def _channels(self) -> str:
        first, spec = self._first, self._spec()
        if first is None or spec is None:
            return self._wanted
        return first.chosen(self.channels.value(), spec)

    def _on_model(self) -> None:
        self._wanted = ""
        self.channels.blockSignals(True)
        spec = self._spec()
        self.channels.set_inputs(None if spec is None else spec.inputs)
        self.channels.blockSignals(False)
        self.set_first(self._first, self.first.text())
        self._on_changed()

    def _on_channels(self) -> None:
        self._wanted = self._channels()
        self._on_changed()

    def _on_changed(self) -> None:
        self._show()
        self.changed.emit()

    def _show(self) -> None:
        several = self._first is not None and self._first.count > 1
        kind = self.prompts.currentIndex()
        self.prompt_file.setVisible(kind == 2)
        self.how.setVisible(kind == 0)
        self.options["propagate"].setVisible(kind != 0)
        for field, shown in (
            (self.channels, several),
            (self.channels.details, several),
            (self.first, bool(self.first.text())),
            (self.options["link_axis"], self.options.shown("link")),
        ):
            field.setVisible(shown)
            if (label := self._form.labelForField(field)) is not None:
                label.setVisible(shown)

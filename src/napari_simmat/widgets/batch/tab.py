"""The Batch tab: settings, files and progress of a run over a folder."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from napari import Viewer
from qtpy.QtCore import QModelIndex, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QResizeEvent, QShowEvent, QTextLayout
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from napari_simmat._text import pluralize
from napari_simmat.batch.inputs import AUTO, SAME_STEM, folder_beside
from napari_simmat.batch.options import (
    EXTRAS,
    ClusterOptions,
    SegmentChannelOptions,
    SegmentTableOptions,
    SeriesOptions,
    SlideOptions,
)
from napari_simmat.batch.plan import Plan
from napari_simmat.widgets.batch.controller import OPENABLE_STATES, BatchController
from napari_simmat.widgets.batch.file_table import FilesModel
from napari_simmat.widgets.batch.opened_result import OpenedResult
from napari_simmat.widgets.batch.preflight import FirstFile, RunPreflight
from napari_simmat.widgets.batch.request import BatchRequest, load_request
from napari_simmat.widgets.capture_offer import CaptureOffer
from napari_simmat.widgets.channels_form import ChannelsForm
from napari_simmat.widgets.controls import (
    INDENT,
    Button,
    CollapsibleSection,
    ComboBox,
    MainButton,
    form_rows,
    hbox,
    text_label,
    vbox,
)
from napari_simmat.widgets.forms import EverythingForm, Options, PathField, PixelShape
from napari_simmat.widgets.job_tab import JobTab
from napari_simmat.widgets.layer_data import PROVENANCE
from napari_simmat.widgets.model_picker import ModelPicker
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.tones import Tone, tone_color

MESSAGE_LINES = 3
"""Of a file's message that its row shows."""
_ROW, _MARGIN = 20, 4
"""Height of a row without a message, and the space around messages, in pixels."""
PAUSE, RESUME, STOP, STOP_AT_ONCE = "Pause", "Resume", "Stop", "Stop at once"
EVERYTHING, NEXT_TO_IMAGE, ONE_FILE = PROMPTS = (
    "Segment everything",
    "File next to each image (same stem)",
    "One file for all images",
)


EXISTING = {
    "Keep them and resume": "resume",
    "Stop with an error": "refuse",
    "Overwrite": "overwrite",
}
"""What becomes of results that are there already, in words."""


class BatchTab(JobTab):
    """Choose files and settings, try one, run all, and open the results."""

    review_wanted = Signal()
    """The user wants to look over the images of the run in the Segment tab."""

    def __init__(self, viewer: Viewer) -> None:
        self.form = BatchForm()
        self.table = FilesTable()
        self.batching = BatchController(self.table.files)
        super().__init__(self.form, "either", self.batching)
        self.viewer = viewer
        self._shown: list[object] = []
        self._make_buttons()
        buttons = hbox(self.trial, self.start, self.pause, self.stop)
        self.message = text_label("muted")
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._lay_out(buttons, self.status, (self.table, 1), self.message)
        self._on_explained("")
        self._connect()
        self.form.set_value(load_request())
        self._set_ready(False)
        self._on_changed()

    def release(self) -> None:
        """End process and threads."""
        self.form.models.release()
        self.batching.close()

    @property
    def busy(self) -> bool:
        """Whether files are being scanned or opened, or a run is active."""
        return self.batching.busy or self.batching.scanning

    def plan(self) -> Plan | None:
        """The images that are chosen and where their results go; None if there are none."""
        preflight = self.batching.preflight
        return None if preflight is None else preflight.plan

    def take(self, path: str) -> None:
        """Choose the images that were dropped."""
        self.form.images.set_value(path)

    def refresh(self) -> None:
        """Read what may have changed elsewhere: models and files."""
        if not self.batching.busy:
            self.form.models.refresh()
            self._on_choice()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Read what changed while another tab was shown."""
        super().showEvent(event)
        self._on_choice()

    def _make_buttons(self) -> None:
        self.start = MainButton(
            "Start", tip="Run in a separate process; the window stays responsive"
        )
        self.trial = Button(
            "Try one file", tip="The selected file, or the first: its result opens in the viewer"
        )
        self.pause = Button(PAUSE)
        self.stop = Button(STOP)

    def _connect(self) -> None:
        batching = self.batching
        self.form.changed.connect(self._on_choice)
        self.start.clicked.connect(self._on_start)
        self.trial.clicked.connect(self._on_trial)
        self.pause.clicked.connect(batching.pause)
        self.stop.clicked.connect(batching.stop)
        self.table.opened.connect(batching.open)
        self.table.explained.connect(self._on_explained)
        batching.scanned.connect(self._on_scanned)
        batching.opened.connect(self._on_opened)
        self.status.accepted.connect(self.review_wanted)

    # ------------------------------------------------------------------ choice

    def _on_choice(self) -> None:
        """Show what is missing, or scan the files."""
        if self.batching.busy or not self.isVisible():
            return  # `showEvent` calls this again
        request = self.form.value()
        problem = request.problem()
        self.command.set_value(() if problem else request.arguments())
        preflight = self.batching.preflight
        if problem:
            self._show_problem(problem)
        elif self.start.isEnabled() and preflight is not None and request == preflight.request:
            return  # the result of the last run stays visible
        elif preflight is not None and self.batching.has_scanned(request):
            self._show_preflight(preflight)
        else:
            self._set_ready(False)
            self.batching.scan(request)

    def _on_scanned(self, preflight: RunPreflight) -> None:
        self.form.set_first(preflight.first, preflight.remark)
        self.form.captures.offer(preflight.proposal)
        self._show_preflight(preflight)

    def _show_preflight(self, preflight: RunPreflight) -> None:
        """Show whether the form's request can be run on the files that were scanned."""
        request = self.form.value()  # with channels chosen from the first file
        self.batching.preflight = preflight._replace(request=request)
        self.command.set_value(request.arguments())
        problem = preflight.problem or self.form.problem()
        if problem or preflight.plan is None:
            self._show_problem(problem)
            return
        self._set_ready(True)
        skipped, others = len(preflight.plan.skipped), preflight.plan.others
        parts = [f"{pluralize(len(preflight.plan.tasks), 'image')} to segment"]
        parts += [f"{skipped} left out"] * bool(skipped)
        parts += [pluralize(others, "other file")] * bool(others)
        self.status.set_value(Status("ready", f"{', '.join(parts)}."))

    def _show_problem(self, problem: str) -> None:
        self._set_ready(False)
        empty = not self.form.images.value() or not self.form.output.value()
        self.status.set_value(Status("nothing" if empty else "failed", problem))

    def _set_ready(self, ready: bool) -> None:
        self.start.setEnabled(ready)
        self.trial.setEnabled(ready)

    def _on_start(self) -> None:
        self.settings.set_open(False)
        self.batching.start(self.form.value())

    def _on_trial(self) -> None:
        chosen = self.table.chosen()
        images = [task.image for task in self.batching.preflight.plan.tasks]
        number = images.index(chosen) if chosen in images else 0
        self.batching.try_one(self.form.value(), number)

    # ------------------------------------------------------------------- shown

    def _on_changed(self) -> None:
        state = self.batching.state
        busy = self.batching.busy
        self.form.setEnabled(not busy)
        self.start.setVisible(not busy)
        self.trial.setVisible(not busy)
        self.pause.setVisible(state in ("running", "paused"))
        self.pause.setText(RESUME if state == "paused" else PAUSE)
        self.stop.setVisible(busy)
        self.stop.setText(STOP_AT_ONCE if state in ("stopping", "killing") else STOP)
        self.stop.setEnabled(state != "killing")

    def _on_explained(self, message: str) -> None:
        self.message.setText(message)
        self.message.setVisible(bool(message))

    def _on_opened(self, opened: OpenedResult) -> None:
        """Show an image and its labels instead of those opened before."""
        for layer in self._shown:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        image, axis = opened.image, opened.image.channel_axis
        scale = [image.scale.get(letter, 1.0) for letter in image.plane_axes]
        if image.rgb and axis == image.data.ndim - 1:  # where napari expects colors
            added = self.viewer.add_image(image.data, name=opened.name, rgb=True, scale=scale)
        else:
            names = image.channel_names
            if axis is not None and names is not None:
                names = [f"{opened.name} {name}" for name in names]
            added = self.viewer.add_image(
                image.data, name=names or opened.name, channel_axis=axis, scale=scale
            )
        layers = added if isinstance(added, list) else [added]
        called = f"{opened.name} labels"
        # The labels lack the channel axis, which the run was given by --channel-axis.
        scale = scale[-opened.labels.ndim :]
        labels = self.viewer.add_labels(
            opened.labels, name=called, scale=scale, metadata={PROVENANCE: dict(opened.made)}
        )
        self._shown = [*layers, labels]
        if opened.children is not None:
            name = f"{opened.name} children"
            self._shown.append(self.viewer.add_labels(opened.children, name=name, scale=scale))
        self.viewer.reset_view()


class FilesTable(QTableView):
    """The table; a click on a finished file opens it.

    Messages stand below the line of their file, over all columns; what is longer than
    `MESSAGE_LINES` is explained beside the table.
    """

    opened = Signal(object, object)
    """Paths of the image and of its labels."""
    explained = Signal(str)
    """The message of the chosen file if its row cuts it; empty otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Files")
        self.files = FilesModel(self)
        self.setModel(self.files)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(_ROW)
        header = self.horizontalHeader()
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft)
        mode = QHeaderView.ResizeMode
        header.setSectionResizeMode(mode.ResizeToContents)
        header.setSectionResizeMode(0, mode.Stretch)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setMinimumHeight(150)
        self.clicked.connect(self._on_clicked)
        selection = self.selectionModel()
        assert selection is not None
        selection.currentRowChanged.connect(self._explain)
        self.files.dataChanged.connect(self._on_changed)
        self.files.modelReset.connect(self._on_reset)

    def chosen(self) -> Path | None:
        """The image of the selected row."""
        row = self.currentIndex().row()
        return self.files.rows[row].image if 0 <= row < len(self.files.rows) else None

    def _on_clicked(self, index: QModelIndex) -> None:
        row = self.files.rows[index.row()]
        if row.state in OPENABLE_STATES and row.image is not None:
            self.opened.emit(row.image, row.labels)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Break the messages anew."""
        super().resizeEvent(event)
        self._on_reset()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Write the messages below the texts of their rows."""
        super().paintEvent(event)
        painter = QPainter(self.viewport())
        first, behind = self.rowAt(0), self.rowAt(self.viewport().height() - 1) + 1
        for number in range(max(first, 0), behind or len(self.files.rows)):
            row = self.files.rows[number]
            tone: Tone = "error" if row.state == "failed" else "muted"
            painter.setPen(QColor(tone_color(tone, self)))
            if number == self.currentIndex().row():
                painter.setPen(self.palette().highlightedText().color())
            at = self.rowViewportPosition(number) + _ROW + self.fontMetrics().ascent()
            for line in self.shown_lines(row.message):
                painter.drawText(_MARGIN, at, line)
                at += self.fontMetrics().lineSpacing()
        painter.end()

    def shown_lines(self, message: str) -> list[str]:
        """The lines of a message that its row shows."""
        lines = self._lines(message)
        cut = len(lines) > MESSAGE_LINES
        return [*lines[: MESSAGE_LINES - 1], f"{lines[MESSAGE_LINES - 1]} …"] if cut else lines

    def _lines(self, message: str) -> list[str]:
        """A message broken into lines as wide as the table, but for a mark of what is cut."""
        if not message:
            return []
        layout = QTextLayout(message, self.font())
        layout.beginLayout()
        lines = []
        width = max(self.viewport().width() - 2 * _MARGIN - 2 * self.fontMetrics().height(), 60)
        while (line := layout.createLine()).isValid():
            line.setLineWidth(width)
            lines.append(message[line.textStart() : line.textStart() + line.textLength()].strip())
        layout.endLayout()
        return lines

    def _on_changed(self, first: QModelIndex, last: QModelIndex) -> None:
        self._make_room(range(first.row(), last.row() + 1))
        self._explain()

    def _on_reset(self) -> None:
        self._make_room(range(len(self.files.rows)))
        self._explain()

    def _make_room(self, rows: range) -> None:
        """Make rows as high as their messages need."""
        spacing = self.fontMetrics().lineSpacing()
        for number in rows:
            lines = len(self.shown_lines(self.files.rows[number].message))
            height = _ROW + lines * spacing + (_MARGIN if lines else 0)
            if self.rowHeight(number) != height:
                self.setRowHeight(number, height)

    def _explain(self, *_: object) -> None:
        row = self.currentIndex().row()
        message = self.files.rows[row].message if 0 <= row < len(self.files.rows) else ""
        self.explained.emit(message if len(self._lines(message)) > MESSAGE_LINES else "")


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
            "A folder with its subfolders, an image, a pattern such as data/**/*.tif, or of "
            "captures with a file for each band, {capture}_{band}.tif, or a manifest (CSV with the "
            "column image)",
        )
        self.captures = CaptureOffer(self.images)
        self.output = PathField("folder", "Folder for the results", "Subfolders are mirrored in it")
        self.models = ModelPicker()
        self.channels = ChannelsForm()
        self.pixels = PixelShape()
        self.stated = Options(SegmentChannelOptions(), self)
        self.stated["children"].setPlaceholderText("none; a channel of smaller objects: DAPI")
        self.stated["pixel_size"].setPlaceholderText("as in the files; 0.5, or height,width")
        self.stated["unit"].setPlaceholderText("um, nm, mm, ...")
        self.stated["axes"].setPlaceholderText("as in the files; TYX for a film")
        self.stated["plane"].setPlaceholderText("all; Z=12 for one, Z=max for a projection")
        self.first = text_label("muted")
        self.prompts = ComboBox()
        self.prompts.addItems(PROMPTS)
        self.prompt_file = PathField("file", "Prompts", "CSV of points or shapes, or a label image")
        self.everything = EverythingForm()
        self.everything.rows.insertRow(0, self.everything.words_row)
        self.existing = ComboBox()
        for title, existing in EXISTING.items():
            self.existing.addItem(title, existing)
        self.files = Options(BatchRequest().files, self)
        self.files["pattern"].setPlaceholderText("all images")
        self.series = Options(SeriesOptions(), self)
        self.slides = Options(SlideOptions(), self)
        self.slides["region"].setPlaceholderText("Y0,X0,Y1,X1 of level 0, or 0,0,2,2mm")
        self.slides["tissue"].setPlaceholderText("everywhere; auto, or a file")
        self._proposed = ""
        self.table = Options(SegmentTableOptions(), self)
        self.table["index"].setPlaceholderText("ndvi; ratio=nir/red")
        self.cluster = Options(ClusterOptions(), self)
        self.cluster["scheduler"].setPlaceholderText("this machine")
        self._lay_out()
        self._show()
        self._connect()

    def value(self) -> BatchRequest:
        """The request."""
        existing = self.existing.currentData()
        return BatchRequest(
            images=self.images.value(),
            output=self.output.value(),
            model=str(self.models.reference()),
            prompts=(AUTO, SAME_STEM, self.prompt_file.value())[self.prompts.currentIndex()],
            files=replace(
                self.files.value(),
                resume=existing == "resume",
                overwrite=existing == "overwrite",
            ),
            channels=replace(
                self.stated.value(),
                channels=self._channels() or None,
                pixel_ratio=self.pixels.value(),
            ),
            series=self.series.value(),
            slides=self.slides.value(),
            table=self.table.value(),
            cluster=self.cluster.value(),
            automatic=self.everything.value(),
        )

    def set_value(self, request: BatchRequest) -> None:
        """Show a request; a model that no longer exists is left out."""
        path = Path(request.model).expanduser()
        with suppress(ValueError, OSError):
            self.models.set_value(path if path.is_file() else request.model)
        self.files.set_value(request.files)
        self.existing.setCurrentIndex(self.existing.findData(request.files.existing))
        self.series.set_value(request.series)
        self.slides.set_value(request.slides)
        self.table.set_value(request.table)
        self.cluster.set_value(request.cluster)
        self.stated.set_value(request.channels)
        self.images.set_value(request.images)
        self.output.set_value(request.output)
        self._wanted = request.channels.channels or ""
        self.pixels.set_value(request.channels.pixel_ratio)
        kind = {AUTO: 0, SAME_STEM: 1}.get(request.prompts, 2)
        self.prompts.setCurrentIndex(kind)
        self.prompt_file.set_value(request.prompts if kind == 2 else "")
        self.everything.set_value(request.automatic)
        self.set_first(self._first, "")
        self._show()
        self.changed.emit()

    def set_first(self, first: FirstFile | None, remark: str) -> None:
        """Show the channels of the first file, or a remark why it cannot be read."""
        self._first = first
        spec = self._spec()
        self.channels.blockSignals(True)
        layers = [] if first is None else first.layers()
        # Of channels without a match the first, not the topmost as of layers, is taken.
        self.channels.set_layers(layers, layers[0].key if layers else None)
        sources = None
        if first is not None and spec is not None:
            sources = first.sources(self._wanted, spec)
        if sources is not None:
            self.channels.set_value(sources)
        self.channels.blockSignals(False)
        if first is not None:
            self.first.setText(first.about)
        else:
            self.first.setText(remark)
        self._show()

    def problem(self) -> str | None:
        """What is wrong with the request itself, one sentence; None if nothing is."""
        if problem := self.models.problem():
            return problem
        if problem := self.value().problem():
            return problem
        first = self._first
        spec = self._spec()
        gap = any(source is None for source in self.channels.value())
        if first is not None and spec is not None and first.count > 1 and gap:
            return (
                f"{spec.name} reads {', '.join(spec.channel_names)}, but {first.name} has "
                f"{first.count} channels and none is chosen: choose under Channels."
            )
        return None

    def _lay_out(self) -> None:
        self.how = CollapsibleSection("Automatic segmentation", self.everything)
        boxes, stated, slides, table, cluster = (QWidget() for _ in range(5))
        vbox(*(self.files[kind] for kind in (*EXTRAS, "report")), parent=boxes, indent=INDENT)
        self.also = CollapsibleSection("Additional outputs", boxes)
        self.stated.add_rows(
            form_rows(parent=stated, indent=INDENT), "pixel_size", "unit", "axes", "plane"
        )
        self.slides.add_rows(form_rows(parent=slides, indent=INDENT))
        self.table.add_rows(form_rows(parent=table, indent=INDENT))
        self.cluster.add_rows(form_rows(parent=cluster, indent=INDENT), "scheduler")
        form = form_rows(("Images", self.images), ("", self.captures), parent=self, spacing=6)
        self.files.add_rows(form, "pattern")
        for each in (
            ("Results", self.output),
            ("Model", self.models),
            (self.models.details,),
            ("First file", self.first),
            ("Channels", self.channels),
            (self.channels.details,),
        ):
            form.addRow(*each)
        self.stated.add_rows(form, "children")
        for each in (
            (self.pixels,),
            (CollapsibleSection("Pixel size and axes", stated),),
            ("Prompts", self.prompts),
            ("", self.prompt_file),
            (self.how,),
            ("", self.series["propagate"]),
            ("", self.series["link"]),
        ):
            form.addRow(*each)
        self.series.add_rows(form, "objects", "link_axis")
        form.addRow(CollapsibleSection("Slides", slides))
        form.addRow(CollapsibleSection("Table of objects", table))
        form.addRow(self.also)
        form.addRow("Existing results", self.existing)
        form.addRow(CollapsibleSection("Cluster", cluster))
        self._form = form

    def _connect(self) -> None:
        self.images.changed.connect(self._propose_output)
        for field in (self.images, self.output, self.prompt_file, self.pixels):
            field.changed.connect(self._on_changed)
        self.prompts.activated.connect(self._on_changed)
        self.existing.activated.connect(self._on_changed)
        for options in (
            self.files, self.stated, self.series, self.slides, self.table, self.cluster,
        ):  # fmt: skip
            options.changed.connect(self._on_changed)
        self.everything.sifted.connect(self._on_changed)
        self.everything.asked.connect(self._on_changed)
        self.models.changed.connect(self._on_model)
        self.channels.changed.connect(self._on_channels)
        spec = self._spec()
        self.channels.set_inputs(None if spec is None else spec.inputs)
        self.everything.show_model(spec)

    def _spec(self):
        entry = self.models.value()
        return None if entry is None else entry.spec

    def _channels(self) -> str:
        first = self._first
        spec = self._spec()
        if first is None or spec is None:
            return self._wanted
        return first.chosen(self.channels.value(), spec)

    def _on_model(self) -> None:
        self._wanted = ""
        self.channels.blockSignals(True)
        spec = self._spec()
        self.channels.set_inputs(None if spec is None else spec.inputs)
        self.channels.blockSignals(False)
        self.everything.show_model(spec)
        self.set_first(self._first, self.first.text())
        self._on_changed()

    def _on_channels(self) -> None:
        self._wanted = self._channels()
        self._on_changed()

    def _propose_output(self) -> None:
        """Fill in where results go, as the command does, until the user says where."""
        images = self.images.value()
        if self.output.value() in ("", self._proposed) and images and Path(images).exists():
            self._proposed = str(folder_beside(Path(images)))
            self.output.set_value(self._proposed)

    def _on_changed(self) -> None:
        self._show()
        self.changed.emit()

    def _show(self) -> None:
        several = self._first is not None and self._first.count > 1
        kind = self.prompts.currentIndex()
        self.prompt_file.setVisible(kind == 2)
        self.how.setVisible(kind == 0)
        self.series["propagate"].setVisible(kind != 0)
        for field, shown in (
            (self.channels, several),
            (self.channels.details, several),
            (self.first, bool(self.first.text())),
            (self.stated["children"], several and kind == 0),
            (self.series["link_axis"], self.series.shown("link")),
        ):
            field.setVisible(shown)
            if (label := self._form.labelForField(field)) is not None:
                label.setVisible(shown)

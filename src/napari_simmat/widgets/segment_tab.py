"""The Segment tab: shows the choices and the buttons, passes on what was asked."""

from __future__ import annotations

from napari import Viewer
from napari.layers import Image, Labels, Layer, Points, Shapes
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFormLayout, QFrame, QGridLayout, QHBoxLayout, QVBoxLayout, QWidget

from napari_simmat.widgets.channels_form import ChannelsForm
from napari_simmat.widgets.controls import Button, Fold, LayerChoice
from napari_simmat.widgets.inputs import describe, image_of, key_of, place_of
from napari_simmat.widgets.interaction import Interaction
from napari_simmat.widgets.keys import SHORTCUTS, Keys
from napari_simmat.widgets.label_layers import PREVIEW
from napari_simmat.widgets.model_picker import ModelPicker
from napari_simmat.widgets.prompt_layers import NEGATIVE, POSITIVE
from napari_simmat.widgets.status import Kind, Status
from napari_simmat.widgets.status_line import StatusLine

_MAIN = """
QPushButton:enabled { background-color: #2f6f9f; color: white; }
QPushButton:enabled:hover { background-color: #3a86bf; }
"""
"""The button that is pressed most."""


class SegmentTab(QWidget):
    """Choose a model and its channels, click, commit."""

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.interaction = Interaction(viewer, self)
        self.models = ModelPicker()
        self.channels = ChannelsForm()
        self.objects = LayerChoice(viewer, Labels, "new layer", lambda layer: layer.name == PREVIEW)
        self.points = LayerChoice(viewer, Points, "new layer")
        self.boxes = LayerChoice(viewer, Shapes, "new layer")
        self.status = StatusLine()
        self.keys = Keys(
            {
                "flip": self.interaction.prompts.flip,
                "segment": self.interaction.segment,
                "commit": self.interaction.commit,
                "clear": self.interaction.clear,
                "undo": self.interaction.undo,
                "redo": self.interaction.redo,
            }
        )
        self._versions: dict[str, int] = {}
        self._followed: list[Image] = []
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._read_layers)
        self._layer_events = [
            viewer.layers.events.inserted,
            viewer.layers.events.removed,
            viewer.layers.events.renamed,
        ]
        self._make_buttons()
        self._lay_out()
        self._connect()
        entry = self.models.value()
        self.channels.set_model(None if entry is None else entry.spec)
        self._read_layers()
        self._on_changed()

    def release(self) -> None:
        """Give back what was taken: the thread, keys, events, the preview."""
        self._later.stop()
        for event in self._layer_events:
            event.disconnect(self._on_layers)
        self._follow([])
        self.keys.release()
        for choice in (self.objects, self.points, self.boxes):
            choice.release()
        self.models.release()
        self.interaction.release()

    @property
    def busy(self) -> bool:
        """Whether a change of layers or prompts is still to be taken up, or an answer to come."""
        return self._later.isActive() or self.interaction.busy

    # ------------------------------------------------------------------ layout

    def _make_buttons(self) -> None:
        shown = {shortcut.action: shortcut.text() for shortcut in SHORTCUTS}
        alt = next(each for each in SHORTCUTS if each.action == "flip").text(shapes=True)
        self.point_tool = Button("● Point", tip="Click on the object")
        self.box_tool = Button("▭ Box", tip="Draw a box around each object")
        self.sign = Button("", tip=f"Flip between inside and outside ({alt} on boxes)")
        self.segment = Button("Segment", shown["segment"], "Answer the prompts (again)")
        self.commit = Button("Commit", shown["commit"], "Write the object; then the next one")
        self.clear = Button("Clear", shown["clear"], "Remove the prompts shown")
        self.undo = Button("Undo", shown["undo"], "Take back a prompt or a commit")
        self.redo = Button("Redo", shown["redo"], "Do it again")
        self.commit.setStyleSheet(_MAIN)
        for tool in (self.point_tool, self.box_tool):
            tool.setCheckable(True)

    def _lay_out(self) -> None:
        choices = QFormLayout()
        choices.setVerticalSpacing(6)
        choices.setHorizontalSpacing(8)
        choices.addRow("Model", self.models)
        choices.addRow(self.models.details)
        choices.addRow("Image", self.channels)
        choices.addRow(self.channels.details)
        choices.addRow("Objects", self.objects)
        layers = QWidget()
        layers_form = QFormLayout(layers)
        layers_form.setContentsMargins(14, 0, 0, 0)
        layers_form.addRow("Points", self.points)
        layers_form.addRow("Boxes", self.boxes)
        choices.addRow(Fold("Prompt layers", layers))
        rule = QFrame()
        rule.setFrameShape(QFrame.Shape.HLine)
        tools = QHBoxLayout()
        tools.setSpacing(4)
        for button in (self.point_tool, self.box_tool, self.sign):
            tools.addWidget(button)
        actions = QGridLayout()
        actions.setSpacing(4)
        actions.addWidget(self.commit, 0, 0, 1, 2)
        actions.addWidget(self.segment, 1, 0)
        actions.addWidget(self.clear, 1, 1)
        actions.addWidget(self.undo, 2, 0)
        actions.addWidget(self.redo, 2, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(8)
        layout.addLayout(choices)
        layout.addWidget(rule)
        layout.addLayout(tools)
        layout.addLayout(actions)
        layout.addWidget(self.status)
        layout.addStretch(1)

    def _connect(self) -> None:
        interaction = self.interaction
        for event in self._layer_events:
            event.connect(self._on_layers)
        self.models.changed.connect(self._on_model)
        self.channels.changed.connect(self._on_choice)
        self.objects.chosen.connect(interaction.use_objects)
        self.points.chosen.connect(self._on_points)
        self.boxes.chosen.connect(self._on_boxes)
        self.point_tool.clicked.connect(self._on_point_tool)
        self.box_tool.clicked.connect(self._on_box_tool)
        self.sign.clicked.connect(interaction.prompts.flip)
        self.segment.clicked.connect(interaction.segment)
        self.commit.clicked.connect(interaction.commit)
        self.clear.clicked.connect(interaction.clear)
        self.undo.clicked.connect(interaction.undo)
        self.redo.clicked.connect(interaction.redo)
        self.status.cancelled.connect(interaction.cancel)
        self.status.accepted.connect(interaction.accept_offer)
        interaction.status.connect(self.status.set_value)
        interaction.changed.connect(self._on_changed)
        interaction.prompts.sign_changed.connect(self._show_sign)
        interaction.prompts.tool_changed.connect(self._show_tool)
        self._show_sign(True)

    # ------------------------------------------------------------------ choice

    def _images(self) -> list[Image]:
        return [layer for layer in self.viewer.layers if isinstance(layer, Image)]

    def _on_layers(self) -> None:
        self._later.start(0)

    def _read_layers(self) -> None:
        images = self._images()
        self._follow(images)
        active = self.viewer.layers.selection.active
        preferred = key_of(active) if active in images else None
        self.channels.set_layers([describe(layer) for layer in images], preferred)
        self._on_choice()

    def _on_model(self) -> None:
        entry = self.models.value()
        self.channels.set_model(None if entry is None else entry.spec)
        self._on_choice()

    def _on_choice(self) -> None:
        """Start on what is chosen, or say what is wrong with it."""
        interaction, images = self.interaction, self._images()
        entry = self.models.value()
        problem = self.models.problem() or self.channels.problem()
        sources = [source for source in self.channels.value() if source is not None]
        image = None
        if problem is None and entry is not None and entry.spec is not None:
            try:
                image = image_of(sources, images, entry.spec, self._versions)
            except (ValueError, TypeError) as error:
                problem = str(error)
        reference = self.models.reference()
        if image is None:
            interaction.set_subject(reference, None, None, frozenset())
            absent = entry is None or entry.kind == "downloadable" or not images
            kind: Kind = "nothing" if absent else "failed"
            self.status.set_value(Status(kind, problem or "Choose a model."))
            return
        layers = frozenset(source.layer for source in sources)
        interaction.set_subject(reference, image, place_of(sources, images), layers)

    def _follow(self, images: list[Image]) -> None:
        """Notice when an image's data or transform is replaced."""
        for layer in self._followed:
            layer.events.data.disconnect(self._on_data)
            for name in ("scale", "translate", "rotate", "shear", "affine"):
                getattr(layer.events, name).disconnect(self._on_layers)
        self._followed = list(images)
        for layer in images:
            layer.events.data.connect(self._on_data)
            for name in ("scale", "translate", "rotate", "shear", "affine"):
                getattr(layer.events, name).connect(self._on_layers)

    def _on_data(self, event: object) -> None:
        layer = getattr(event, "source", None)
        if isinstance(layer, Image):
            self._versions[key_of(layer)] = self._versions.get(key_of(layer), 0) + 1
        self._later.start(0)

    # ----------------------------------------------------------------- prompts

    def _on_points(self, layer: Points | None) -> None:
        self.interaction.prompts.use_points(layer)
        self._ensure_prompts()

    def _on_boxes(self, layer: Shapes | None) -> None:
        self.interaction.prompts.use_boxes(layer)
        self._ensure_prompts()

    def _on_point_tool(self) -> None:
        if self._ensure_prompts():
            self.interaction.prompts.draw_points()
        self._show_tool()

    def _on_box_tool(self) -> None:
        if self._ensure_prompts():
            self.interaction.prompts.draw_boxes()
        self._show_tool()

    def _ensure_prompts(self) -> bool:
        work = self.interaction.work
        if work is not None:
            self.interaction.prompts.ensure(work.place)
        return work is not None

    # ------------------------------------------------------------------- shown

    def _on_changed(self) -> None:
        interaction = self.interaction
        work, prompts = interaction.work, interaction.prompts
        self.undo.setEnabled(work is not None and work.operations.can_undo)
        self.redo.setEnabled(work is not None and work.operations.can_redo)
        asked = work is not None and bool(work.prompts)
        for button in (self.segment, self.commit, self.clear):
            button.setEnabled(asked)
        for button in (self.point_tool, self.box_tool, self.sign):
            button.setEnabled(work is not None)
        self.points.set_value(prompts.points)
        self.boxes.set_value(prompts.boxes)
        self.objects.set_value(interaction.objects)
        self.objects.setEnabled(work is not None)
        ours: list[Layer | None] = [
            prompts.points,
            prompts.boxes,
            interaction.preview.layer,
            interaction.objects,
        ]
        self.keys.bind(
            [layer for layer in ours if layer is not None and layer in self.viewer.layers]
        )

    def _show_tool(self) -> None:
        """Show what a press on the image does."""
        tool = self.interaction.prompts.tool
        self.point_tool.setChecked(tool == "point")
        self.box_tool.setChecked(tool == "box")

    def _show_sign(self, positive: bool) -> None:
        key = next(each for each in SHORTCUTS if each.action == "flip").text()
        self.sign.setText(f"{'inside' if positive else 'outside'}  {key}")
        self.sign.setStyleSheet(f"color: {POSITIVE if positive else NEGATIVE};")

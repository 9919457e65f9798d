"""The Segment tab: shows the choices and the buttons, passes on what was asked."""

from __future__ import annotations

from typing import Any

from napari import Viewer
from napari.layers import Image, Labels, Layer, Points, Shapes
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFormLayout, QFrame, QVBoxLayout, QWidget

from napari_simmat.widgets.channels_form import ChannelsForm
from napari_simmat.widgets.controls import Fold, LayerChoice, Scroll
from napari_simmat.widgets.inputs import describe, image_of, key_of, place_of
from napari_simmat.widgets.keys import Keys
from napari_simmat.widgets.list_keys import ListKeys
from napari_simmat.widgets.model_picker import ModelPicker
from napari_simmat.widgets.segment.autosave import Autosave
from napari_simmat.widgets.segment.channel_axis import ChannelAxis
from napari_simmat.widgets.segment.everything import Everything
from napari_simmat.widgets.segment.image_watch import ImageWatch
from napari_simmat.widgets.segment.interaction import Interaction
from napari_simmat.widgets.segment.label_layers import CLASSES, PREVIEW
from napari_simmat.widgets.segment.level_choice import LevelChoice
from napari_simmat.widgets.segment.object_part import ObjectPart
from napari_simmat.widgets.segment.point_prompts import unreadable
from napari_simmat.widgets.segment.prompt_buttons import PromptButtons
from napari_simmat.widgets.segment.remembering import Remembering
from napari_simmat.widgets.segment.restoring import Restoring
from napari_simmat.widgets.segment.segmenting import ChosenModel
from napari_simmat.widgets.segment.stack_part import StackPart
from napari_simmat.widgets.status import Kind, Status
from napari_simmat.widgets.status_line import StatusLine


class SegmentTab(QWidget):
    """Choose a model and its channels, click, commit."""

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.interaction = Interaction(viewer, self)
        self.models = ModelPicker()
        self.channels = ChannelsForm()
        self.objects = LayerChoice(viewer, Labels, "new layer", _is_derived)
        self.points = LayerChoice(viewer, Points, "new layer")
        self.boxes = LayerChoice(viewer, Shapes, "new layer")
        self.masks = LayerChoice(viewer, Labels, "none", _is_derived)
        self.buttons = PromptButtons()
        self.autosave = Autosave(self.interaction)
        self.finished = ObjectPart(self.interaction, self.autosave, self)
        self.panel, self.saving = self.finished.panel, self.finished.saving
        self.stack = StackPart(self.interaction, self)
        self.everything = Everything(self.interaction, self)
        self.status = StatusLine()
        self.channel_axis = ChannelAxis(self.interaction)
        self.restoring = Restoring(self.interaction, self.autosave)
        self.keys = Keys(viewer, self._actions(), self._wanted)
        self.list_keys = ListKeys(self)
        self.watch = ImageWatch(self)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._read_layers)
        self._layer_events = [
            viewer.layers.events.inserted,
            viewer.layers.events.removed,
            viewer.layers.events.renamed,
        ]
        self._lay_out()
        self._connect()
        self.remembering = Remembering(self)
        entry = self.models.value()
        self.channels.set_model(None if entry is None else entry.spec)
        self._read_layers()
        self._on_changed()

    def release(self) -> None:
        """Give back what was taken: the thread, keys, events, the preview."""
        self._later.stop()
        for event in self._layer_events:
            event.disconnect(self._on_layers)
        self.viewer.mouse_double_click_callbacks.remove(self._on_double_click)
        self.watch.follow([])
        self.keys.release()
        self.list_keys.release()
        for choice in (self.objects, self.points, self.boxes, self.masks):
            choice.release()
        self.models.release()
        self.finished.release()
        self.restoring.release()
        self.autosave.release()
        self.stack.release()
        self.everything.release()
        self.interaction.release()

    @property
    def busy(self) -> bool:
        """Whether a change of layers or prompts is still to be taken up, or an answer to come."""
        noted = (self.autosave, self.restoring)
        parts = (self.interaction, self.stack.propagation, self.everything, *noted)
        return self._later.isActive() or any(part.busy for part in parts)

    # ------------------------------------------------------------------ layout

    def _lay_out(self) -> None:
        choices = QFormLayout()
        choices.setVerticalSpacing(6)
        choices.setHorizontalSpacing(8)
        choices.addRow("Model", self.models)
        choices.addRow(self.models.details)
        choices.addRow("Image", self.channels)
        choices.addRow(self.channels.details)
        self.level = LevelChoice(choices)
        choices.addRow("Objects", self.objects)
        layers = QWidget()
        layers_form = QFormLayout(layers)
        layers_form.setContentsMargins(14, 0, 0, 0)
        layers_form.addRow("Points", self.points)
        layers_form.addRow("Boxes", self.boxes)
        layers_form.addRow("Masks", self.masks)
        self.masks.setToolTip("Refine each object of another labels layer on the plane shown")
        self.layers_fold = Fold("Prompt layers", layers)
        self.objects_fold = Fold("Objects", self.panel)
        self.finished.titled.connect(self.objects_fold.set_title)
        self.stack_fold = Fold("Stack", self.stack.panel)
        self.everything_fold = Fold("Everything", self.everything.panel)
        choices.addRow(self.layers_fold)
        rule = QFrame()
        rule.setFrameShape(QFrame.Shape.HLine)
        form = QWidget()
        rows = QVBoxLayout(form)
        rows.setContentsMargins(8, 8, 8, 8)
        rows.setSpacing(8)
        rows.addLayout(choices)
        rows.addWidget(rule)
        rows.addWidget(self.buttons)
        rows.addWidget(self.status)
        rows.addWidget(self.everything_fold)
        rows.addWidget(self.stack_fold)
        rows.addWidget(self.objects_fold)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(Scroll(form))
        layout.addStretch(1)

    def _connect(self) -> None:
        interaction, buttons, panel = self.interaction, self.buttons, self.panel
        for event in self._layer_events:
            event.connect(self._on_layers)
        self.viewer.mouse_double_click_callbacks.append(self._on_double_click)
        self.watch.changed.connect(self._on_layers)
        self.models.changed.connect(self._on_model)
        self.channels.changed.connect(self._on_choice)
        self.level.changed.connect(self._on_choice)
        self.objects.chosen.connect(interaction.use_objects)
        self.points.chosen.connect(self._on_points)
        self.boxes.chosen.connect(self._on_boxes)
        self.masks.chosen.connect(self._on_masks)
        actions = self._actions()
        for name in ("segment", "commit", "clear", "undo", "redo", "cycle", "next"):
            getattr(buttons, name).clicked.connect(lambda _=False, name=name: actions[name]())
        buttons.point.clicked.connect(lambda: self._take(interaction.prompts.draw_points))
        buttons.box.clicked.connect(lambda: self._take(interaction.prompts.draw_boxes))
        buttons.scribble.clicked.connect(lambda: self._take(interaction.prompts.scribble))
        buttons.sign.clicked.connect(interaction.prompts.flip)
        panel.acted.connect(lambda name: actions[name]())
        self.saving.status.connect(self.status.set_value)
        self.status.cancelled.connect(interaction.cancel)
        self.status.cancelled.connect(self.stack.propagation.cancel)
        self.status.cancelled.connect(self.everything.cancel)
        self.status.cancelled.connect(self.restoring.cancel)
        self.autosave.warned.connect(self.status.set_warning)
        self.status.accepted.connect(lambda: interaction.accept(0))
        self.status.other_accepted.connect(lambda: interaction.accept(1))
        interaction.status.connect(self.status.set_value)
        interaction.changed.connect(self._on_changed)
        interaction.prompts.sign_changed.connect(buttons.set_sign)
        interaction.prompts.tool_changed.connect(self._show_tool)

    def _actions(self) -> dict[str, Any]:
        """What each shortcut does."""
        interaction, actions = self.interaction, self.interaction.actions
        return {
            "flip": interaction.prompts.flip,
            "segment": interaction.segment,
            "propagate": self.stack.start,
            "commit": self.stack.commit,
            "clear": interaction.asking.clear,
            "undo": interaction.undo,
            "redo": interaction.redo,
            "cycle": interaction.asking.cycle,
            "next": interaction.asking.one_more,
            "edit": actions.reopen,
            "delete": actions.delete,
            "merge": actions.merge,
            "split": actions.split,
        }

    def _wanted(self, action: str) -> bool:
        """Whether an action takes a key that napari uses on the image itself."""
        work = self.interaction.work
        open_or_found = self.stack.propagation.found is not None or (work and work.asked)
        return action == "commit" and work is not None and bool(open_or_found)

    # ------------------------------------------------------------------ choice

    def _images(self) -> list[Image]:
        return [layer for layer in self.viewer.layers if isinstance(layer, Image)]

    def _on_layers(self) -> None:
        self._later.start(0)

    def _read_layers(self) -> None:
        images = self._images()
        self.watch.follow(images)
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
                image = image_of(sources, images, entry.spec, self.watch.versions)
            except (ValueError, TypeError) as error:
                problem = str(error)
        model = ChosenModel(self.models.reference(), 0 if entry is None else entry.changed)
        used = {source.layer for source in sources}
        self.level.show_layers(layer for layer in images if key_of(layer) in used)
        if image is None:
            interaction.set_subject(model, None, None, frozenset())
            absent = entry is None or entry.kind == "downloadable" or not images
            kind: Kind = "nothing" if absent else "failed"
            self.status.set_value(Status(kind, problem or "Choose a model."))
            return
        layers = frozenset(source.layer for source in sources)
        interaction.set_subject(model, image, place_of(sources, images), layers)

    # ----------------------------------------------------------------- prompts

    def _on_points(self, layer: Points | None) -> None:
        if self._is_readable(layer):
            self.interaction.prompts.use_points(layer)
            self._ensure_prompts()

    def _on_boxes(self, layer: Shapes | None) -> None:
        if self._is_readable(layer):
            self.interaction.prompts.use_boxes(layer)
            self._ensure_prompts()

    def _is_readable(self, layer: Points | Shapes | None) -> bool:
        """Whether prompts can be taken from a layer; where not, the status line says why."""
        reason = None if layer is None else unreadable(layer)
        if reason is not None:
            self.interaction.fail(reason)  # shows the layer before again
        return reason is None

    def _on_masks(self, layer: Labels | None) -> None:
        self.masks.set_value(None)  # taken once: what is painted there later is another layer's
        if layer is not None:
            self.interaction.asking.take_masks(layer)

    def _take(self, tool: Any) -> None:
        """Take a tool in hand."""
        if self._ensure_prompts():
            tool()
        self._show_tool()

    def _ensure_prompts(self) -> bool:
        work = self.interaction.work
        if work is not None:
            self.interaction.prompts.ensure(work.place)
        return work is not None

    # ----------------------------------------------------------------- objects

    def _on_double_click(self, _: Viewer, event: Any) -> None:
        """Open the object again; with a tool in hand, since otherwise napari zooms."""
        if self.interaction.prompts.tool in ("point", "box"):
            self.interaction.actions.reopen_at(event.position)

    # ------------------------------------------------------------------- shown

    def _on_changed(self) -> None:
        interaction = self.interaction
        work, prompts = interaction.work, interaction.prompts
        self.buttons.set_state(
            working=work is not None,
            asked=work is not None and bool(work.asked),
            undo=work is not None and work.operations.can_undo,
            redo=work is not None and work.operations.can_redo,
        )
        self.points.set_value(prompts.points)
        self.boxes.set_value(prompts.boxes)
        self.objects.set_value(interaction.objects)
        for choice in (self.objects, self.masks):
            choice.setEnabled(work is not None)
        self.stack_fold.setVisible(self.stack.has_planes)
        self._bind_keys()

    def _bind_keys(self) -> None:
        interaction = self.interaction
        work, prompts = interaction.work, interaction.prompts
        own: list[Layer | None] = [
            prompts.points,
            prompts.boxes,
            interaction.preview.layer,
            interaction.objects,
        ]
        used = frozenset() if work is None else work.layers
        self.keys.bind(
            [layer for layer in own if layer is not None and layer in self.viewer.layers],
            [layer for layer in self._images() if key_of(layer) in used],
        )

    def _show_tool(self) -> None:
        """Show what a press on the image does."""
        self.buttons.set_tool(self.interaction.prompts.tool)


def _is_derived(layer: Labels) -> bool:
    """Whether a labels layer only shows what follows from others."""
    return layer.name.startswith((PREVIEW, CLASSES))

"""Which level of a multiscale image is segmented."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from napari import Viewer
from napari.layers import Image, Labels, Layer, Points, Shapes
from napari.utils.transforms import Affine
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QFormLayout, QFrame, QVBoxLayout, QWidget

from napari_simmat.widgets.channel_forms import ChannelsForm
from napari_simmat.widgets.controls import (
    CollapsibleSection,
    ComboBox,
    LayerChoice,
    Status,
    StatusKind,
    StatusLine,
    VerticalScroll,
)
from napari_simmat.widgets.layer_data import (
    ImageWatch,
    channel_axis,
    image_geometry,
    image_value,
    layer_info,
    layer_key,
)
from napari_simmat.widgets.model_picker import ModelPicker
from napari_simmat.widgets.placement import choose_level, image_shape, layer_matrix, level_of
from napari_simmat.widgets.segment.automatic import Everything
from napari_simmat.widgets.segment.autosave import Autosave, Restoring
from napari_simmat.widgets.segment.controller import Interaction
from napari_simmat.widgets.segment.export import ObjectPart
from napari_simmat.widgets.segment.inference import ChosenModel, Question
from napari_simmat.widgets.segment.outputs import CLASSES, PREVIEW
from napari_simmat.widgets.segment.panels import PromptButtons
from napari_simmat.widgets.segment.preferences import Remembering
from napari_simmat.widgets.segment.prompt_layers import unreadable
from napari_simmat.widgets.segment.propagation import StackPart
from napari_simmat.widgets.shortcuts import KeyBindings, ListShortcuts


class LevelChoice(ComboBox):
    """A row of a form that is there for multiscale images alone."""

    changed = Signal()
    """The user chose another level."""

    def __init__(self, form: QFormLayout) -> None:
        super().__init__()
        form.addRow("Level", self)
        self._label = form.labelForField(self)
        self._layers: tuple[Image, ...] = ()
        self.setToolTip("Finer levels take more memory; prompts and objects lie in its pixels")
        self.activated.connect(self._on_activated)
        self.show_layers(())

    def show_layers(self, layers: Iterable[Image]) -> None:
        """Offer the levels of the layers in use; nothing where they have one."""
        self._layers = tuple(layer for layer in layers if layer.multiscale)
        for part in (self, self._label):
            part.setVisible(bool(self._layers))
        self.clear()
        if self._layers:
            first = self._layers[0]
            for level in range(len(first.data)):
                height, width = image_shape(first, level)[-2:]
                self.addItem(f"{level}: {height} x {width} pixels")
            self.setCurrentIndex(level_of(first))

    def _on_activated(self, level: int) -> None:
        for layer in self._layers:
            choose_level(layer, level)
        self.changed.emit()


# An image whose channels lie amid its axes: moving them to the front is offered.


class ChannelAxis(QObject):
    """Offers it where an image was opened and nothing was done yet.

    Parameters
    ----------
    session
        Owns the image's work and the status line.
    """

    def __init__(self, session: Interaction) -> None:
        super().__init__(session)
        self._session = session
        session.answering.answered.connect(self._on_answered)

    def _on_answered(self, question: Question, *_: object) -> None:
        work = self._session.work
        if work is None or question.prompts or len(work.operations):
            return
        for layer in self._session.viewer.layers:
            axis = channel_axis(layer) if isinstance(layer, Image) else 0
            if axis and layer_key(layer) in work.layers:
                label = layer.axis_labels[axis]
                self._session.offer(
                    Status(
                        "ready",
                        f"The channels of {layer.name} count as planes, since {label} is its axis "
                        f"{axis}: move it to the front to use them together.",
                        offer="Move channels",
                    ),
                    lambda layer=layer, axis=axis: self.move(layer, axis),
                )
                return

    def move(self, layer: Image, axis: int) -> None:
        """Put a view of a layer, its channels in front, in its place."""
        layers = self._session.viewer.layers
        if layer in layers:
            index = layers.index(layer)
            moved = channels_in_front(layer, axis)
            layers.remove(layer)
            layers.insert(index, moved)
            layers.selection.active = moved


def channels_in_front(layer: Image, axis: int) -> Image:
    """The same image with another axis in front; nothing is read or copied.

    Parameters
    ----------
    layer
        (..., C, ..., Y, X), numpy or lazy, multiscale or not.
    axis
        Which axis is to be the first.
    """
    order = [axis, *(n for n in range(layer.ndim) if n != axis)]
    levels = [
        _transposed(level, order) for level in (layer.data if layer.multiscale else [layer.data])
    ]
    kept = ("name", "colormap", "contrast_limits", "gamma", "opacity", "blending", "visible")
    return Image(
        levels if layer.multiscale else levels[0],
        multiscale=layer.multiscale,
        axis_labels=[layer.axis_labels[n] for n in order],
        units=[layer.units[n] for n in order],
        metadata=layer.metadata,
        **{name: getattr(layer, name) for name in kept},
        **_placed(layer, order),
    )


def _placed(layer: Image, order: list[int]) -> dict[str, Any]:
    """Where it lies, its axes in another order."""
    whole = [*order, layer.ndim]
    linear = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear).linear_matrix
    if not np.allclose(linear, np.diag(layer.scale)):  # turned: as one matrix
        return {"affine": layer_matrix(layer)[np.ix_(whole, whole)]}
    return {
        "scale": layer.scale[order],
        "translate": layer.translate[order],
        "affine": np.array(layer.affine)[np.ix_(whole, whole)],
    }


def _transposed(data: Any, order: list[int]) -> Any:
    if not isinstance(data, np.ndarray) and not type(data).__module__.startswith("dask"):
        from dask.array import from_array

        data = from_array(data)  # zarr would read the whole of it
    return data.transpose(order)


# The Segment tab: shows the choices and the buttons, passes on what was asked.


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
        self.keys = KeyBindings(viewer, self._actions(), self._wanted)
        self.list_keys = ListShortcuts(self)
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
        self.channels.set_inputs(None if entry is None or entry.spec is None else entry.spec.inputs)
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
        self.layers_fold = CollapsibleSection("Prompt layers", layers)
        self.objects_fold = CollapsibleSection("Objects", self.panel)
        self.finished.titled.connect(self.objects_fold.set_title)
        self.stack_fold = CollapsibleSection("Stack", self.stack.panel)
        self.everything_fold = CollapsibleSection("Everything", self.everything.panel)
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
        layout.addWidget(VerticalScroll(form))
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
        preferred = layer_key(active) if active in images else None
        self.channels.set_layers([layer_info(layer) for layer in images], preferred)
        self._on_choice()

    def _on_model(self) -> None:
        entry = self.models.value()
        self.channels.set_inputs(None if entry is None or entry.spec is None else entry.spec.inputs)
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
                image = image_value(sources, images, entry.spec, self.watch.versions)
            except (ValueError, TypeError) as error:
                problem = str(error)
        model = ChosenModel(self.models.reference(), 0 if entry is None else entry.changed)
        used = {source.layer for source in sources}
        self.level.show_layers(layer for layer in images if layer_key(layer) in used)
        if image is None:
            interaction.set_subject(model, None, None, frozenset())
            absent = entry is None or entry.kind == "downloadable" or not images
            kind: StatusKind = "nothing" if absent else "failed"
            self.status.set_value(Status(kind, problem or "Choose a model."))
            return
        layers = frozenset(source.layer for source in sources)
        interaction.set_subject(model, image, image_geometry(sources, images), layers)

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
            [layer for layer in self._images() if layer_key(layer) in used],
        )

    def _show_tool(self) -> None:
        """Show what a press on the image does."""
        self.buttons.set_tool(self.interaction.prompts.tool)


def _is_derived(layer: Labels) -> bool:
    """Whether a labels layer only shows what follows from others."""
    return layer.name.startswith((PREVIEW, CLASSES))

"""The layers that prompts are drawn in, `SimMAT points` and `SimMAT boxes`; the tool in hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari import Viewer
from napari.layers import Layer, Points, Shapes
from qtpy.QtCore import QObject, Signal

from napari_simmat.annotation.prompt_state import Prompts
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment.layers.outputs import note_provenance
from napari_simmat.widgets.segment.layers.prompt_adapters import (
    BOXES,
    OUTLINE_WIDTH,
    POINTS,
    PointsAdapter,
    ShapesAdapter,
)
from napari_simmat.widgets.segment.layers.prompt_tools import (
    TOOL_OF_MODE,
    TOOLS,
    PenTool,
    Select,
    Tool,
    follow_with_pen,
    select_before_adding,
)
from napari_simmat.widgets.shortcuts import guard_shift
from napari_simmat.widgets.worker import later

_ZOOM_DELAY = 50
"""Milliseconds that the zoom rests before the edges are drawn again."""


class PromptLayers(QObject):
    """The points layer and the shapes layer in use; own ones are made if none is chosen.

    Layers are read and written in the coordinates of an image's `ImageGeometry`. Own layers show
    the prompts of the current view; one that the user chose belongs to the view it was chosen in.

    Attributes
    ----------
    set_positive, flip
        Those of the `PointsAdapter`.
    """

    edited = Signal()
    """The prompts may have changed; emitted once per turn of the event loop."""
    replaced = Signal()
    """Another layer is in use, or one is gone."""
    sign_changed = Signal(bool)
    """Whether new points are positive."""
    tool_changed = Signal()
    """`tool` may have changed."""

    def __init__(self, viewer: Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._points = PointsAdapter(self)
        self._shapes = ShapesAdapter(viewer, self)
        # In this order new points lie on top.
        self._adapters: tuple[Any, ...] = self._shapes, self._points
        self._last_mode = "add"
        self._order: AxisOrder = ()
        # Chosen layers that are unused while another view is shown, and the prompts they held.
        self._parked: dict[AxisOrder, tuple[list[Layer | None], Prompts]] = {}
        # napari emits several events for one edit, so the layers are read when all have passed.
        self._settled = later(self, self._on_settled)
        for adapter in self._adapters:
            adapter.edited.connect(self._settled.start)
            adapter.mode_changed.connect(self._on_tool)
        self._points.sign_changed.connect(self._set_shape_defaults)
        self._points.sign_changed.connect(self.sign_changed)
        self.set_positive, self.flip = self._points.set_positive, self._points.flip
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(self._on_tool)
        self._zoomed = later(self, self._fit_outlines, _ZOOM_DELAY)
        self._camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
        self._camera.events.zoom.connect(self._on_zoom)

    @property
    def points(self) -> Points | None:
        """The points layer in use."""
        return self._points.layer  # type: ignore[no-any-return]

    @property
    def boxes(self) -> Shapes | None:
        """The shapes layer in use."""
        return self._shapes.layer  # type: ignore[no-any-return]

    @property
    def tool(self) -> Tool:
        """What a press on the image adds now."""
        active = self._viewer.layers.selection.active
        is_ours = active is not None and active in (self.points, self.boxes)
        return TOOL_OF_MODE.get(str(active.mode), "") if is_ours else ""

    @property
    def positive(self) -> bool:
        """Whether new points are positive."""
        return self._points.positive

    @property
    def pending(self) -> bool:
        """Whether `edited` is about to be emitted."""
        return self._settled.isActive()

    def follows_slider(self, geometry: ImageGeometry) -> bool:
        """Whether a layer in use has fewer axes than the image.

        Its prompts lie on whichever plane is shown, so they move with the slider.
        """
        layers = self.points, self.boxes
        return any(layer is not None and layer.ndim < geometry.ndim for layer in layers)

    def ensure(self, geometry: ImageGeometry) -> None:
        """Make sure that both layers exist and own ones lie on the image."""
        while self.make_layer(geometry):
            pass

    def make_layer(self, geometry: ImageGeometry) -> bool:
        """Make one layer that is missing; whether one was.

        An own layer that lies elsewhere is replaced by a new one, which takes over its tool.
        """
        for adapter in self._adapters:
            old = adapter.layer
            if old is None or (old.name == adapter.name and not geometry.lies_on(old)):
                active = self._viewer.layers.selection.active
                if old is not None and old in self._viewer.layers:
                    self._viewer.layers.remove(old)
                self._use(adapter, self._own_layer(adapter, geometry))
                self._hand_over(old, adapter.layer, active)
                return True
        return False

    def use(self, layer: Points | Shapes | None, name: str) -> None:
        """Take prompts from this layer in place of that called `POINTS` or `BOXES`."""
        [adapter] = [each for each in self._adapters if each.name == name]
        self._use(adapter, layer)

    def read(self, geometry: ImageGeometry, point: Sequence[float]) -> Prompts:
        """All drawn prompts in image coordinates; `point` is the viewer's."""
        return self._points.read(geometry, point) + self._shapes.read(geometry, point)

    def write(self, prompts: Prompts, geometry: ImageGeometry, point: Sequence[float]) -> Prompts:
        """Replace the drawn prompts by these; returns how they read back.

        What the user changed in a chosen layer while another view was shown is kept.
        """
        if geometry.order != self._order:
            prompts = self._change_view(prompts, geometry, point)
        self.ensure(geometry)
        boxes, points = (each.write(prompts, geometry, point) for each in self._adapters)
        self._set_shape_defaults()
        self._settled.stop()
        return points + boxes

    def next_group(self, prompts: Prompts) -> bool:
        """Let new points begin another object besides those of `prompts`; whether there are any."""
        if not prompts.next_group:
            return False
        self._points.set_group(prompts.next_group)
        self._set_shape_defaults()
        return True

    def continue_last_group(self, prompts: Prompts) -> None:
        """Let new points belong to the last object of `prompts`, those of the current plane."""
        last = prompts.last_group
        if last != self._points.group:
            self._points.set_group(last)
            self._set_shape_defaults()

    def begins_object(self, prompts: Prompts) -> bool:
        """Whether what is drawn next begins another object besides those of `prompts`."""
        return bool(prompts) and self._points.group >= prompts.next_group > 0

    def selects_with(self, select: Select) -> None:
        """Have a click on what can be selected do that."""
        self._points.select = select
        if self.points is not None:
            select_before_adding(self.points, select)

    def draws_with(self, pen: PenTool) -> None:
        """Have this follow the mouse where lines are drawn."""
        self._shapes.pen = pen
        if self.boxes is not None:
            follow_with_pen(self.boxes, pen)

    def draw(self, tool: Tool) -> None:
        """Activate a tool, and the layer in which it draws."""
        layer = self.points if TOOLS[tool].shape is None else self.boxes
        self._activate(layer, TOOLS[tool].modes[0])

    def restore_tool(self) -> None:
        """Activate the last-used tool, at first points; one in hand stays, also napari's."""
        active = self._viewer.layers.selection.active
        if active is None or str(active.mode) == "pan_zoom":
            self.take_up_tool()

    def take_up_tool(self) -> None:
        """Activate the last-used tool, whatever is in hand."""
        on_points = self._last_mode in TOOLS["point"].modes
        self._activate(self.points if on_points else self.boxes, self._last_mode)

    def release(self) -> None:
        """Stop following the layers; they stay in the viewer."""
        self._settled.stop()
        self._zoomed.stop()
        self._camera.events.zoom.disconnect(self._on_zoom)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._viewer.layers.selection.events.active.disconnect(self._on_tool)
        for adapter in self._adapters:
            if adapter.layer is not None and adapter.layer.name == BOXES:
                guard_shift(adapter.layer, guarded=False)
            adapter.use(None)

    def _change_view(
        self, prompts: Prompts, geometry: ImageGeometry, point: Sequence[float]
    ) -> Prompts:
        """Park the layers chosen in the view before, and take up those of this view."""
        before, self._order = self._order, geometry.order
        used = [adapter.layer for adapter in self._adapters]
        chosen = [None if each is None or each.name in (POINTS, BOXES) else each for each in used]
        if any(layer is not None for layer in chosen):
            known = len(before) in (0, geometry.ndim)  # else they were on an image of other axes
            held = self.read(geometry.seen(before), point) if known else Prompts()
            self._parked[before] = chosen, held
        parked, held = self._parked.pop(geometry.order, ([None, None], Prompts()))
        active = self._viewer.layers.selection.active
        for adapter, was_chosen, back in zip(self._adapters, chosen, parked, strict=True):
            old = adapter.layer
            if back is not None and back in self._viewer.layers:
                if was_chosen is None and old is not None:
                    adapter.write(Prompts(), geometry, point)
                self._use(adapter, back)
                now = adapter.read(geometry, point)
                if now != adapter.split(held)[0]:
                    prompts = now + adapter.split(prompts)[1]
            elif was_chosen is not None:
                self._use(adapter, self._own_layer(adapter, geometry))
            self._hand_over(old, adapter.layer, active)
        return prompts

    def _use(self, adapter: PointsAdapter | ShapesAdapter, layer: Layer | None) -> None:
        if layer is not adapter.layer:
            adapter.use(layer)
            self._set_shape_defaults()
            self._fit_outlines()
            self.replaced.emit()
            self._settled.start(0)

    def _own_layer(self, adapter: PointsAdapter | ShapesAdapter, geometry: ImageGeometry) -> Layer:
        """The own layer on the image, perhaps left by an earlier session or view; else a new one.

        A new one is added on top; the active layer stays active.
        """
        for layer in self._viewer.layers:
            is_own = layer.name == adapter.name and isinstance(layer, adapter.kind)
            if is_own and geometry.lies_on(layer):
                return layer
        active = self._viewer.layers.selection.active
        layer = adapter.new_layer(geometry)
        note_provenance(layer, geometry.name)
        self._viewer.add_layer(layer)
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active
        return layer

    def _activate(self, layer: Points | Shapes | None, mode: str) -> None:
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.selection.active = layer
            layer.visible = True
            layer.mode = mode

    def _hand_over(self, old: Layer | None, new: Any, active: Layer | None) -> None:
        """Give the new layer the tool of the old one if that was active."""
        if old is not None and old is active and new is not old:
            self._activate(new, old.mode)

    def _on_removed(self, event: object) -> None:
        gone = getattr(event, "value", None)
        for adapter in self._adapters:
            if gone is not None and gone is adapter.layer:
                self._use(adapter, None)

    def _on_settled(self) -> None:
        if self._shapes.remove_click():
            self._settled.stop()
            if self._points.select is not None:
                self._points.select(tuple(self._viewer.cursor.position), False)
        self.edited.emit()

    def _on_tool(self) -> None:
        if self.tool:
            self._last_mode = str(self._viewer.layers.selection.active.mode)
        self._set_shape_defaults()
        self.tool_changed.emit()

    def _on_zoom(self) -> None:
        self._zoomed.start()

    def _fit_outlines(self) -> None:
        """Draw the own shapes equally thin on the screen at any zoom, so that they hide nothing."""
        if self.boxes is not None:
            pixel = self._camera.zoom * abs(float(self.boxes.scale[-1]))
            self._shapes.set_width(OUTLINE_WIDTH / pixel)
            self._set_shape_defaults()

    def _set_shape_defaults(self, *_: object) -> None:
        self._shapes.set_defaults(self._points.positive)

"""The layers in which the user draws prompts: `SimMAT points` and `SimMAT boxes`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from napari import Viewer
from napari.layers import Layer, Points, Shapes
from qtpy.QtCore import QObject, QTimer, Signal

from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment.layer_adapters import OUTLINE, PointsAdapter, ShapesAdapter
from napari_simmat.widgets.segment.outputs import note_provenance
from napari_simmat.widgets.segment.prompt_state import Prompts

POINTS, BOXES = "SimMAT points", "SimMAT boxes"

OUTLINE_WIDTH = 2.0
"""Width of the edges of shapes in screen pixels."""
_ZOOM_DELAY = 50
"""Milliseconds that the zoom rests before the edges are drawn again."""

Tool = Literal["point", "box", "ellipse", "polygon", "scribble", ""]
_MODES: dict[str, Tool] = {
    "add_rectangle": "box",
    "add_ellipse": "ellipse",
    "add_polygon": "polygon",
    "add_polygon_lasso": "polygon",
    "add_path": "scribble",
    "add_polyline": "scribble",
    "add_line": "scribble",
}


@dataclass(eq=False)
class _Slot:
    """One of the two layers in use, and how its own layer is made."""

    adapter: PointsAdapter | ShapesAdapter
    name: str
    kind: type[Layer]
    make: Callable[[ImageGeometry], Layer]

    @property
    def layer(self) -> Any:
        return self.adapter.layer

    @property
    def chosen(self) -> Any:
        """The layer in use if the user chose it; None for an own one."""
        return None if self.layer is None or self.layer.name == self.name else self.layer


class PromptLayers(QObject):
    """The points layer and the shapes layer in use; own ones are made if none is chosen.

    Layers are read and written in the coordinates of an image's `ImageGeometry`. Own layers show
    the prompts of the current view; one that the user chose belongs to the view it was chosen in.
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
        # Boxes before points, so that new points lie on top.
        self._slots = (
            _Slot(self._shapes, BOXES, Shapes, new_boxes),
            _Slot(self._points, POINTS, Points, new_points),
        )
        self._last_mode = "add"
        self._order: AxisOrder = ()
        # Chosen layers that are unused while another view is shown, and the prompts they held.
        self._parked: dict[AxisOrder, tuple[list[Layer | None], Prompts]] = {}
        # napari emits several events for one edit, so the layers are read when all have passed.
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.timeout.connect(self._on_settled)
        for adapter in (self._points, self._shapes):
            adapter.edited.connect(self._on_edit)
            adapter.mode_changed.connect(self._on_tool)
        self._points.sign_changed.connect(self._on_sign)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(self._on_tool)
        self._zoomed = QTimer(self)
        self._zoomed.setSingleShot(True)
        self._zoomed.timeout.connect(self._fit_outlines)
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
        if active is not None and active is self.points and active.mode == "add":
            return "point"
        if active is not None and active is self.boxes:
            return _MODES.get(str(active.mode), "")
        return ""

    @property
    def positive(self) -> bool:
        """Whether new points are positive."""
        return self._points.positive

    @property
    def group(self) -> int:
        """The group of new points."""
        return self._points.group

    @property
    def pending(self) -> bool:
        """Whether `edited` is about to be emitted."""
        return self._settled.isActive()

    def travels(self, place: ImageGeometry) -> bool:
        """Whether a layer in use has fewer axes than the image.

        Its prompts lie on whichever plane is shown, so they move with the slider.
        """
        layers = self.points, self.boxes
        return any(layer is not None and layer.ndim < place.ndim for layer in layers)

    def ensure(self, place: ImageGeometry) -> None:
        """Make sure that both layers exist and own ones lie on the image.

        An own layer that lies elsewhere is replaced by a new one, which takes over its tool.
        """
        for slot in self._slots:
            old = slot.layer
            if old is None or (old.name == slot.name and not place.lies_on(old)):
                active = self._viewer.layers.selection.active
                if old is not None and old in self._viewer.layers:
                    self._viewer.layers.remove(old)
                self._use(slot.adapter, self._own_layer(slot, place))
                self._hand_over(old, slot.layer, active)

    def use_points(self, layer: Points | None) -> None:
        """Take points from this layer."""
        self._use(self._points, layer)

    def use_boxes(self, layer: Shapes | None) -> None:
        """Take shapes from this layer."""
        self._use(self._shapes, layer)

    def read(self, place: ImageGeometry, point: Sequence[float]) -> Prompts:
        """All drawn prompts in image coordinates; `point` is the viewer's."""
        return self._points.read(place, point) + self._shapes.read(place, point)

    def write(self, prompts: Prompts, place: ImageGeometry, point: Sequence[float]) -> Prompts:
        """Replace the drawn prompts by these; returns how they read back.

        What the user changed in a chosen layer while another view was shown is kept.
        """
        if place.order != self._order:
            prompts = self._change_view(prompts, place, point)
        self.ensure(place)
        for slot in self._slots:
            slot.adapter.write(prompts, place, point)
        self._set_shape_defaults()
        self._settled.stop()
        return self.read(place, point)

    def set_positive(self, positive: bool) -> None:
        """Set the sign of new points; selected points are changed by `flip` alone."""
        self._points.set_positive(positive)

    def flip(self) -> None:
        """Flip the points chosen with the select tool, else the sign of new points."""
        self._points.flip()

    def next_group(self, prompts: Prompts) -> bool:
        """Let new points begin another object besides those of `prompts`; whether there are any."""
        taken = [*prompts.groups, *(each.group for each in prompts.outlines)]
        if not taken:
            return False
        self._points.set_group(max(taken) + 1)
        self._set_shape_defaults()
        return True

    def continue_last_group(self, prompts: Prompts) -> None:
        """Let new points belong to the last object of `prompts`, those of the current plane."""
        last = max((*prompts.groups, *(each.group for each in prompts.outlines)), default=0)
        if last != self.group:
            self._points.set_group(last)
            self._set_shape_defaults()

    def draw_points(self) -> None:
        """Activate the points layer with its add tool."""
        self._activate(self.points, "add")

    def take_up(self) -> None:
        """Take the tool that was last in hand, at first the point tool.

        A tool that is in hand stays there, one of napari as well.
        """
        active = self._viewer.layers.selection.active
        if active is None or str(active.mode) == "pan_zoom":
            on_boxes = self._last_mode in _MODES
            self._activate(self.boxes if on_boxes else self.points, self._last_mode)

    def draw_boxes(self) -> None:
        """Activate the shapes layer with its rectangle tool."""
        self._activate(self.boxes, "add_rectangle")

    def scribble(self) -> None:
        """Activate the shapes layer with its path tool."""
        self._activate(self.boxes, "add_path")

    def release(self) -> None:
        """Stop following the layers; they stay in the viewer."""
        self._settled.stop()
        self._zoomed.stop()
        self._camera.events.zoom.disconnect(self._on_zoom)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._viewer.layers.selection.events.active.disconnect(self._on_tool)
        for slot in self._slots:
            slot.adapter.use(None)

    # -------------------------------------------------------------------- view

    def _change_view(
        self, prompts: Prompts, place: ImageGeometry, point: Sequence[float]
    ) -> Prompts:
        """Park the layers chosen in the view before, and take up those of this view."""
        before, self._order = self._order, place.order
        chosen = [slot.chosen for slot in self._slots]
        if any(layer is not None for layer in chosen):
            known = len(before) in (0, place.ndim)  # else they were on an image of other axes
            held = self.read(place.seen(before), point) if known else Prompts()
            self._parked[before] = chosen, held
        parked, held = self._parked.pop(place.order, ([None, None], Prompts()))
        active = self._viewer.layers.selection.active
        for slot, was_chosen, back in zip(self._slots, chosen, parked, strict=True):
            old, adapter = slot.layer, slot.adapter
            if back is not None and back in self._viewer.layers:
                if was_chosen is None and old is not None:
                    adapter.write(Prompts(), place, point)
                self._use(adapter, back)
                now = adapter.read(place, point)
                if now != adapter.split(held)[0]:
                    prompts = now + adapter.split(prompts)[1]
            elif was_chosen is not None:
                self._use(adapter, self._own_layer(slot, place))
            self._hand_over(old, slot.layer, active)
        return prompts

    # ------------------------------------------------------------------ layers

    def _use(self, adapter: PointsAdapter | ShapesAdapter, layer: Layer | None) -> None:
        if layer is not adapter.layer:
            adapter.use(layer)
            self._set_shape_defaults()
            self._fit_outlines()
            self.replaced.emit()
            self._settled.start(0)

    def _own_layer(self, slot: _Slot, place: ImageGeometry) -> Layer:
        """The own layer on the image, perhaps left by an earlier session or view; else a new one.

        A new one is added on top; the active layer stays active.
        """
        for layer in self._viewer.layers:
            if layer.name == slot.name and isinstance(layer, slot.kind) and place.lies_on(layer):
                return layer
        active = self._viewer.layers.selection.active
        layer = slot.make(place)
        self._viewer.add_layer(layer)
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active
        return layer

    def _activate(self, layer: Points | Shapes | None, mode: str) -> None:
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.selection.active = layer
            layer.visible = True
            layer.mode = mode

    def _hand_over(
        self, old: Points | Shapes | None, new: Points | Shapes | None, active: Layer | None
    ) -> None:
        """Give the new layer the tool of the old one if that was active."""
        if old is not None and old is active and new is not old:
            self._activate(new, old.mode)

    def _on_removed(self, event: object) -> None:
        gone = getattr(event, "value", None)
        for slot in self._slots:
            if gone is not None and gone is slot.layer:
                self._use(slot.adapter, None)

    # ------------------------------------------------------------------- edits

    def _on_edit(self) -> None:
        self._settled.start(0)

    def _on_settled(self) -> None:
        if self._shapes.remove_click():
            self._settled.stop()
        self.edited.emit()

    def _on_tool(self) -> None:
        if self.tool:
            self._last_mode = str(self._viewer.layers.selection.active.mode)
        self._set_shape_defaults()
        self.tool_changed.emit()

    def _on_sign(self, positive: bool) -> None:
        self._set_shape_defaults()
        self.sign_changed.emit(positive)

    def _on_zoom(self) -> None:
        self._zoomed.start(_ZOOM_DELAY)

    def _fit_outlines(self) -> None:
        """Draw the own shapes equally thin on the screen at any zoom, so that they hide nothing."""
        layer = self.boxes
        if layer is None or layer.name != BOXES:
            return
        width = OUTLINE_WIDTH / (self._camera.zoom * abs(float(layer.scale[-1])))
        layer.edge_width = width
        with layer.block_update_properties():
            layer.current_edge_width = width

    def _set_shape_defaults(self) -> None:
        self._shapes.set_defaults(self.positive, self.group)


def new_points(place: ImageGeometry) -> Points:
    """An empty points layer in the image's own axes."""
    layer = Points(
        ndim=place.ndim,
        name=POINTS,
        size=max(1.0, max(place.usual.shape[-2:]) / 50),
        border_color="white",
        border_width=0.15,
        **_features(),
        **place.layer_options(),
    )
    layer.canvas_size_limits = (9, 16)
    note_provenance(layer, place.name)
    return layer


def new_boxes(place: ImageGeometry) -> Shapes:
    """An empty shapes layer in the image's own axes."""
    layer = Shapes(
        ndim=place.ndim,
        name=BOXES,
        edge_color=OUTLINE,
        face_color="transparent",
        **_features(),
        **place.layer_options(),
    )
    layer.current_edge_color, layer.current_face_color = OUTLINE, "transparent"
    note_provenance(layer, place.name)
    return layer


def _features() -> dict[str, Any]:
    none = np.zeros(0, dtype=int)
    return {
        "features": {"label": none, "object": none.copy()},
        "feature_defaults": {"label": 1, "object": 0},
    }

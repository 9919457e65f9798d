"""The tools that draw prompts: napari's modes, and what they draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import numpy as np
from napari import Viewer
from napari.layers import Points, Shapes
from napari.layers.points._points_constants import Mode as PointsMode
from napari.layers.points._points_mouse_bindings import DRAG_DIST_THRESHOLD
from napari.layers.shapes._shapes_constants import Mode as ShapesMode

from napari_simmat.annotation.prompt_state import ShapeKind

Tool = Literal["point", "box", "ellipse", "polygon", "pen", ""]


class PromptTool(NamedTuple):
    """A way to draw prompts."""

    modes: tuple[str, ...]
    """napari's modes that draw with it; its button takes the first."""
    shape: ShapeKind | None
    """What is drawn; None for points."""
    title: str
    tip: str
    """Text and tool tip, of its button or of its entry in the list of shapes."""


TOOLS: dict[Tool, PromptTool] = {
    "point": PromptTool(("add",), None, "● Point", "Click on the object"),
    "box": PromptTool(("add_rectangle",), "rectangle", "▭ Box", "Draw a box around each object"),
    "ellipse": PromptTool(("add_ellipse",), "ellipse", "◯ Ellipse", "Draw an ellipse around it"),
    "polygon": PromptTool(("add_polygon",), "polygon", "⬠ Polygon", "Click around the object"),
    "pen": PromptTool(
        ("add_path", "add_polygon_lasso", "add_polyline", "add_line"),
        "path",
        "✎ Pen",
        "Draw around an object, around what is missing or too much, or along it",
    ),
}
IN_LIST: tuple[Tool, ...] = ("box", "ellipse", "polygon")
"""The tools that share a button."""
TOOL_OF_MODE = {mode: name for name, tool in TOOLS.items() for mode in tool.modes}


Select = Callable[[tuple[float, ...], bool], bool]
"""Selects what lies at a position of the world, with `True` beside what is selected; whether there
was anything to select."""


def select_before_adding(layer: Points, select: Select) -> None:
    """Have a click on something that can be selected do that, in place of adding a point.

    With Shift a point is added wherever the click is.
    """
    usual = type(layer)._drag_modes[PointsMode.ADD]

    def press(points: Points, event: Any) -> Iterator[None]:
        pressed = np.array(event.pos)
        adding = usual(points, event)
        next(adding)
        yield
        while event.type == "mouse_move":
            next(adding)
            yield
        is_click = np.linalg.norm(np.array(event.pos) - pressed) < DRAG_DIST_THRESHOLD
        keys = {str(getattr(key, "name", key)) for key in event.modifiers}
        if "Shift" not in keys and is_click and select(event.position, "Control" in keys):
            return
        with suppress(StopIteration):
            next(adding)

    _use_tools(layer, drag={**layer._drag_modes, PointsMode.ADD: press})


def add_without_selecting(layer: Points) -> None:
    """Give the mode that adds points back to napari."""
    usual = type(layer)._drag_modes[PointsMode.ADD]
    _use_tools(layer, drag={**layer._drag_modes, PointsMode.ADD: usual})


class PenTool(NamedTuple):
    """What follows the mouse where lines are drawn."""

    follow: Callable[[Shapes, Any], Any]
    """A drag mode of napari's."""
    frames: Callable[[Any], bool]
    """Whether a press begins a box that is no prompt, which is followed, too."""


def follow_with_pen(layer: Shapes, pen: PenTool) -> None:
    """Have the pen follow the mouse in napari's modes for lines, and boxes that are no prompts."""
    lines = [mode for mode in layer._drag_modes if TOOL_OF_MODE.get(str(mode)) == "pen"]
    boxes = _BoxOrPen(_box_of(layer), pen)
    _use_tools(
        layer,
        drag={
            **layer._drag_modes,
            **dict.fromkeys(lines, pen.follow),
            ShapesMode.ADD_RECTANGLE: boxes,
        },
        move={**layer._move_modes, **dict.fromkeys(lines, _rest)},
    )


def let_go_of_pen(layer: Shapes) -> None:
    """Give napari's modes for lines and boxes back to it."""
    usual = type(layer)
    lines = [mode for mode in layer._drag_modes if TOOL_OF_MODE.get(str(mode)) == "pen"]
    _use_tools(
        layer,
        drag={
            **layer._drag_modes,
            **{mode: usual._drag_modes[mode] for mode in lines},
            ShapesMode.ADD_RECTANGLE: _box_of(layer),
        },
        move={**layer._move_modes, **{mode: usual._move_modes[mode] for mode in lines}},
    )


class _BoxOrPen(NamedTuple):
    """The tool for boxes, and the pen in its place where a box is no prompt."""

    box: Callable[[Shapes, Any], Any]
    pen: PenTool

    def __call__(self, layer: Shapes, event: Any) -> Any:
        follow = self.pen.follow if self.pen.frames(event) else self.box
        return follow(layer, event)


def _box_of(layer: Shapes) -> Callable[[Shapes, Any], Any]:
    tool = layer._drag_modes[ShapesMode.ADD_RECTANGLE]
    return tool.box if isinstance(tool, _BoxOrPen) else tool


def _use_tools(
    layer: Points | Shapes, drag: dict[Any, Any], move: dict[Any, Any] | None = None
) -> None:
    """Give a layer other tools for its modes, also for the mode that it is in.

    napari takes a tool up when the mode is chosen, and finds it by its mode to put it down.
    """
    for name, tools, used in (
        ("_drag_modes", drag, layer.mouse_drag_callbacks),
        ("_move_modes", move or layer._move_modes, layer.mouse_move_callbacks),
    ):
        before, after = getattr(layer, name)[layer._mode], tools[layer._mode]
        setattr(layer, name, tools)
        used[:] = [after if each is before else each for each in used]


def _rest(_: Shapes, __: Any) -> None:
    """Nothing while the mouse moves without a button."""


def draw_on_planes(layer: Shapes, viewer: Viewer) -> None:
    """Have napari's tools draw on the middle of a plane, to which they move the sliders.

    Sliders rest between two planes where another image has finer ones. There napari cuts off the
    fraction of the plane of a shape, does not find it where the sliders are, and fails.
    """
    layer._drag_modes = {
        mode: _on_plane(tool, viewer) if str(mode) in TOOL_OF_MODE else tool
        for mode, tool in layer._drag_modes.items()
    }


def _on_plane(tool: Callable[[Shapes, Any], Any], viewer: Viewer) -> Callable[[Shapes, Any], Any]:
    """The tool, which begins with the sliders on the middle of a plane."""

    def draw(layer: Shapes, event: Any) -> Any:
        place = _middle_of_plane(layer, event.position, viewer.dims.displayed)
        for axis, at in place.items():
            viewer.dims.set_point(axis, at)
        return tool(layer, _EventOnPlane(event, place))

    return draw


def _middle_of_plane(
    layer: Shapes, position: tuple[float, ...], displayed: tuple[int, ...]
) -> dict[int, float]:
    """Where the nearest plane lies on each hidden axis; empty if `position` is on one."""
    first = len(position) - layer.ndim
    hidden = [axis for axis in range(layer.ndim) if first + axis not in displayed]
    data = np.array(layer.world_to_data(position))
    nearest = data.copy()
    nearest[hidden] = np.round(data[hidden])
    if np.abs(nearest - data).max() < 1e-6:
        return {}
    world = layer.data_to_world(nearest)
    return {first + axis: float(world[axis]) for axis in hidden}


class _EventOnPlane:
    """An event of the mouse, with the plane of another position."""

    def __init__(self, event: Any, place: dict[int, float]) -> None:
        self._event, self._place = event, place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._event, name)

    @property
    def position(self) -> tuple[float, ...]:
        return tuple(self._place.get(axis, at) for axis, at in enumerate(self._event.position))

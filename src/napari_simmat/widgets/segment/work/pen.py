"""The pen: it follows the mouse itself, shows what the line will mean, and gives it to the image.

napari's own tools for lines keep a vertex every ten pixels of the screen and drop the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

import numpy as np
from napari.layers import Shapes
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_simmat.annotation.drafts import Draft
from napari_simmat.annotation.pen import Reading, drawn_state, read_line
from napari_simmat.annotation.prompt_state import Plane, PromptState
from napari_simmat.engine.pen_line import REACH, closes, drawn_line
from napari_simmat.widgets.segment.layers.images_in_view import area_in_view
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.layers.pen_overlay import PenOverlay
from napari_simmat.widgets.segment.layers.pen_stroke import Stroke
from napari_simmat.widgets.segment.layers.prompt_tools import PenTool
from napari_simmat.widgets.segment.work.review import DraftReview
from napari_simmat.widgets.segment.work.shape_buttons import ShapeButtons
from napari_simmat.widgets.segment.work.workspace import Workspace, needs_image

CLICK = 4.0
"""A line shorter than so many screen pixels was a click."""
_PAUSE = 0.03
"""Seconds between two looks at what the line will mean; four times as long as a look took."""
SAID: dict[Reading, str] = {
    "outline": "Outlined:",
    "adds": "Added:",
    "takes away": "Taken away:",
    "scribble": "Scribbled:",
}
"""How the status line begins after a line."""
SWEEPS = {True: "accepts", False: "rejects"}
"""What a line or a box does with drafts, with Ctrl and with Shift."""


class Pen(QObject):
    """Draws lines on the chosen image, with any of napari's modes for lines."""

    drawn = Signal(object)
    """A `Stroke` has ended."""
    swept = Signal(object, bool)
    """Drafts that a line or a box means, and whether it accepts them."""
    clicked = Signal(object)
    """A position of the world, where there was no line."""

    def __init__(self, workspace: Workspace, review: DraftReview) -> None:
        super().__init__(workspace)
        self._workspace, self._review = workspace, review
        self._buttons = ShapeButtons(workspace)
        self._overlay = PenOverlay()
        self._looks_at = 0.0
        self._last: tuple[PromptState, Reading] | None = None
        workspace.prompt_layers.draws_with(PenTool(self.follow, self._frames))
        workspace.prompt_layers.tool_changed.connect(self._show_buttons)

    def release(self) -> None:
        """Take the drawing off the canvas, and bring napari's buttons back."""
        self._overlay.end()
        self._buttons.show(True)

    def follow(self, _: Shapes, event: Any) -> Iterator[None]:
        """Follow the mouse from a press to the release, as a drag mode of napari's layers."""
        if event.button != 1 or self._workspace.session is None:
            return
        sweep, is_box = self._sweep_of(event), self._workspace.prompt_layers.tool == "box"
        stroke = Stroke(self._workspace.viewer, event, is_box=is_box)
        self._looks_at = 0.0
        if stroke.canvas is not None:
            positive = self._workspace.prompt_layers.positive if sweep is None else sweep
            self._overlay.begin(stroke.canvas, positive)
        yield
        while event.type == "mouse_move":
            stroke.follow(event)
            self._preview(stroke, sweep)
            yield
        stroke.follow(event)
        stroke.end()
        self._overlay.end()
        is_click = stroke.length < CLICK
        if sweep is not None and not (is_click and stroke.is_box):
            self.swept.emit(self._swept(self._workspace.session, stroke), sweep)
        elif not is_click:
            self.drawn.emit(stroke)
        else:
            self.clicked.emit(tuple(event.position))

    @needs_image
    def take(self, session: LayerSession, stroke: Stroke) -> None:
        """Give a line to the image."""
        workspace = self._workspace
        try:
            plane = workspace.plane()
        except ValueError as error:
            workspace.fail(str(error))
            return
        line, layers = self._line(session, stroke), workspace.prompt_layers
        before = session.prompt_state
        is_new = layers.begins_object(session.prompts.on(plane))
        meaning, state = drawn_state(session, plane, line, layers.positive, is_new=is_new)
        area = area_in_view(workspace.viewer, session.geometry)
        session.set_prompts(state.prompts, area_in_view=area, drawn=state)
        workspace.show_prompts(session.prompt_state)
        if session.prompt_state == before:
            return
        self._last = session.prompt_state.on(plane), meaning.reading
        workspace.prompts_changed.emit()
        workspace.prediction_wanted.emit()

    def said(self, state: PromptState) -> str:
        """What the last line did, if the prompts of its plane are still as it left them."""
        is_last = self._last is not None and self._last[0] == state
        return SAID[self._last[1]] if is_last and self._last is not None else ""

    def _sweep_of(self, event: Any) -> bool | None:
        """Whether a line accepts the drafts that it means, or rejects them; None for neither."""
        keys = {str(getattr(key, "name", key)) for key in event.modifiers}
        if not self._review.is_shown or self._workspace.prompted:
            return None
        return True if "Control" in keys else False if "Shift" in keys else None

    def _frames(self, press: Any) -> bool:
        """Whether a press with the tool for boxes begins one around drafts."""
        return press.button == 1 and self._sweep_of(press) is not None

    def _swept(self, session: LayerSession, stroke: Stroke) -> tuple[Draft, ...]:
        """The drafts that a line or a box means."""
        return self._review.along(self._line(session, stroke), enclosed_only=stroke.is_box)

    def _show_buttons(self) -> None:
        self._buttons.show(self._workspace.prompt_layers.tool != "pen")

    @needs_image
    def _preview(self, session: LayerSession, stroke: Stroke, sweep: bool | None) -> None:
        """Show the line, and from time to time what it would mean if it ended here."""
        began = monotonic()
        if began < self._looks_at or stroke.length < CLICK:
            self._overlay.show(stroke.on_canvas())
            return
        plane = self._workspace.plane_or_none()
        word: str = ""
        is_closed = False
        if plane is not None:
            line = self._line(session, stroke)
            is_closed = closes(line)
            if sweep is None:
                word = self._reading(session, plane, line)
            else:
                word = f"{SWEEPS[sweep]} {len(self._swept(session, stroke))}"
        self._overlay.show(stroke.on_canvas(), word, closed=is_closed)
        took = monotonic() - began
        self._looks_at = began + took + max(_PAUSE, 4 * took)

    def _reading(self, session: LayerSession, plane: Plane, line: NDArray[np.float64]) -> Reading:
        layers = self._workspace.prompt_layers
        is_new = layers.begins_object(session.prompts.on(plane))
        return read_line(session, plane, line, layers.positive, is_new=is_new).reading

    def _line(self, session: LayerSession, stroke: Stroke) -> NDArray[np.float64]:
        """The line (N, 2) in pixels of the view; it closes where it does on the screen."""
        viewer = self._workspace.viewer
        camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
        path = stroke.path if stroke.is_box else drawn_line(stroke.path, REACH / camera.zoom)
        places = stroke.positions(path)
        return np.array([session.geometry.from_world(place)[-2:] for place in places])

"""The tools that draw prompts: napari's modes, and what they draw."""

from __future__ import annotations

from typing import Literal, NamedTuple

from napari_simmat.annotation.prompt_state import ShapeKind

Tool = Literal["point", "box", "ellipse", "polygon", "scribble", ""]


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
    "polygon": PromptTool(
        ("add_polygon", "add_polygon_lasso"), "polygon", "⬠ Polygon", "Click around the object"
    ),
    "scribble": PromptTool(
        ("add_path", "add_polyline", "add_line"),
        "path",
        "∿ Scribble",
        "Scribble over the object, or around it",
    ),
}
TOOL_OF_MODE = {mode: name for name, tool in TOOLS.items() for mode in tool.modes}

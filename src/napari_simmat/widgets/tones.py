"""The colors of words and buttons, which follow napari's theme."""

from __future__ import annotations

from typing import Literal

from qtpy.QtWidgets import QWidget

Tone = Literal["", "muted", "info", "good", "warning", "error"]
"""What the color of a text means; empty for the theme's own color."""
TONES: dict[Tone, tuple[str, str]] = {
    "muted": ("#b9bfc7", "#474c53"),
    "info": ("#8cc8ff", "#0a3dbc"),
    "good": ("#7cfcce", "#0a5a3d"),
    "warning": ("#f4da11", "#5c4902"),
    "error": ("#fc9e88", "#8d155d"),
}
"""Colors on dark and on light themes; each can be read on panels, tables and buttons.

The color-blind tell them apart, but for muted texts.
"""


def tone_color(tone: Tone, on: QWidget) -> str:
    """The color of a tone on the background of a widget."""
    dark, light = TONES[tone]
    return dark if _is_dark(on) else light


def tone_sheet(on: QWidget) -> str:
    """The style sheet that colors what `set_tone` has marked inside `on`, and `MenuButton`."""
    colors = (f'*[tone="{tone}"] {{ color: {tone_color(tone, on)}; }}' for tone in TONES)
    return "".join([*colors, _MENU_BUTTON % _BUTTON_COLORS[not _is_dark(on)]])


_BUTTON_COLORS = (
    {"rest": "#424a54", "hover": "#61696e", "checked": "#4560c4", "off": "#7f868e"},
    {"rest": "#c5c3c1", "hover": "#afacaa", "checked": "#a0b8ff", "off": "#7a7876"},
)
"""Of napari's buttons on dark and on light themes: it styles no tool buttons with text."""
_MENU_BUTTON = """
MenuButton { background-color: %(rest)s; border: 0; border-radius: 2px; padding: 4px; }
MenuButton:hover, MenuButton::menu-button:hover { background-color: %(hover)s; }
MenuButton:checked { background-color: %(checked)s; }
MenuButton:disabled { background-color: transparent; border: 1px solid %(rest)s; color: %(off)s; }
MenuButton::menu-button { border: 0; width: 20px; }
"""


def _is_dark(on: QWidget) -> bool:
    return bool(on.palette().window().color().lightness() < 128)


def set_tone(widget: QWidget, tone: Tone) -> None:
    """Color the text of a widget; the color follows the theme."""
    if widget.property("tone") != tone:
        widget.setProperty("tone", tone)
        widget.style().unpolish(widget)  # style sheets look at properties only when they polish
        widget.style().polish(widget)

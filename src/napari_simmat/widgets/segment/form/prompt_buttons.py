"""The tools for prompts, and what is done with the mask that they give."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QAbstractButton, QSizePolicy, QStackedLayout, QToolButton, QWidget

from napari_simmat.widgets.controls import Button, MainButton, MenuButton, hbox, vbox
from napari_simmat.widgets.segment.form.panel import KEYS, Panel
from napari_simmat.widgets.segment.layers.prompt_tools import IN_LIST, TOOLS, Tool
from napari_simmat.widgets.tones import set_tone

_UNDO_WIDTH = 48
"""Pixels, with room for the list, so that nothing moves when there is something to redo."""
POSITIVE_TEXT, NEGATIVE_TEXT = "● positive", "✕ negative"
COMMIT_TIP = "Write what is shown: open objects, drafts, or what was propagated to all planes"
DISCARD_TIP = "Take away what a commit would write ({key})"


class ShapeButton(MenuButton):
    """The button of a tool for shapes, with the other tools for shapes in a list beside it."""

    chosen = Signal(str)
    """The name of a tool."""

    def __init__(self) -> None:
        super().__init__("", splits=True)
        self._tool: Tool = "box"
        self.setCheckable(True)
        self.entries = {}
        for name in IN_LIST:
            self.entries[name] = self.menu().addAction(
                TOOLS[name].title, lambda name=name: self.chosen.emit(name)
            )
            self.entries[name].setToolTip(TOOLS[name].tip)
        self.clicked.connect(lambda: self.chosen.emit(self._tool))
        self.set_tool("box")

    def set_tool(self, tool: Tool) -> None:
        """Show which of the tools a press takes."""
        self._tool = tool
        key = f"  {KEYS['box']}" if tool == "box" else ""
        self.setText(f"{TOOLS[tool].title}{key}")
        self.setToolTip(f"{TOOLS[tool].tip}; the list has other shapes")


class PromptButtons(Panel):
    """Tools and actions; each button shows its key.

    *Discard* is shown while there is something to discard, the list of *Undo* while there is
    something to redo.

    Attributes
    ----------
    tools
        The buttons of points, of shapes, and of the pen.
    everything
        Opens what finds all objects; while prompts are open, `sign` has its place.
    """

    tool_chosen = Signal(str)
    """The name of a tool."""

    def __init__(self) -> None:
        super().__init__()
        point, pen = self._tool_button("point"), self._tool_button("pen")
        self.shapes = ShapeButton()
        self.shapes.chosen.connect(self.tool_chosen)
        self.tools: dict[str, QAbstractButton] = {
            "point": point,
            "box": self.shapes,
            "pen": pen,
        }
        self.sign = Button("", tip="Flip between positive and negative")
        self.sign.clicked.connect(lambda: self.acted.emit("flip"))
        self.everything = Button("✦ Everything", tip="Find all objects of the plane")
        self.everything.setCheckable(True)
        self.commit = self.button("commit", "Commit", COMMIT_TIP, MainButton)
        self.clear = Button("Discard", "", DISCARD_TIP.format(key=KEYS["clear"]))
        self.clear.clicked.connect(lambda: self.acted.emit("clear"))
        self.undo = MenuButton("↶", f"Undo ({KEYS['undo']})", splits=True)
        self.undo.setAccessibleName("Undo")
        self.undo.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.undo.setFixedWidth(_UNDO_WIDTH)
        self.undo.setStyleSheet(
            "MenuButton { padding: 0; font-size: 13pt; }MenuButton::menu-indicator { image: none; }"
        )
        self.undo.clicked.connect(lambda: self.acted.emit("undo"))
        self.redo = self.undo.menu().addAction(
            f"Redo\t{KEYS['redo']}", lambda: self.acted.emit("redo")
        )
        self._third = QStackedLayout()
        self._third.addWidget(self.everything)
        self._third.addWidget(self.sign)
        self._third.addWidget(QWidget())  # while drafts are looked over
        third = QWidget()
        third.setLayout(self._third)
        third.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        tools = hbox((point, 1), (self.shapes, 1), (pen, 1))
        actions = hbox(self.undo, (self.commit, 1), (third, 1), self.clear)
        for row in (tools, actions):
            row.setSpacing(4)
        self._prompted, self._positive, self._reviews = False, True, False
        self.tool_row = QWidget()
        self.tool_row.setLayout(tools)
        vbox(self.tool_row, actions, parent=self, spacing=6)
        self.set_sign(True)

    def _tool_button(self, tool: Tool) -> Button:
        button = Button(TOOLS[tool].title, KEYS[tool], TOOLS[tool].tip)
        button.setCheckable(True)
        button.clicked.connect(lambda: self.tool_chosen.emit(tool))
        return button

    def set_tool(self, tool: Tool) -> None:
        """Show the tool in use."""
        is_shape = tool in IN_LIST
        for name in ("point", "pen"):
            self.tools[name].setChecked(tool == name)
        self.shapes.setChecked(is_shape)
        if is_shape:
            self.shapes.set_tool(tool)

    def set_sign(self, positive: bool) -> None:
        """Show whether new prompts are positive."""
        self._positive = positive
        self.sign.setText(f"{POSITIVE_TEXT if positive else NEGATIVE_TEXT}  {KEYS['flip']}")
        set_tone(self.sign, "good" if positive else "error")
        self._show_third()

    def _show_third(self) -> None:
        shows_sign = self._prompted or not self._positive
        self._third.setCurrentIndex(2 if self._reviews and not shows_sign else int(shows_sign))

    def set_state(
        self,
        *,
        working: bool,
        prompted: bool,
        commits: bool,
        undo: bool,
        redo: bool,
        reviews: bool = False,
    ) -> None:
        """Show what can be done with an image, prompts, something to commit, and drafts."""
        for button in (*self.tools.values(), self.sign, self.everything):
            button.setEnabled(working)
        self.commit.setEnabled(commits)
        self.clear.setVisible(commits)
        self.undo.setEnabled(undo)
        self.redo.setEnabled(redo)
        modes = QToolButton.ToolButtonPopupMode
        self.undo.setPopupMode(modes.MenuButtonPopup if redo else modes.DelayedPopup)
        self._prompted, self._reviews = prompted, reviews
        self._show_third()

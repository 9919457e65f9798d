"""Small pictures of the masks that a prompt may mean."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QToolButton, QWidget

from napari_simmat.annotation.predictions import Candidate
from napari_simmat.engine.drawing import THUMBNAIL_SIDE
from napari_simmat.widgets.channels_form import rgb_pixmap
from napari_simmat.widgets.controls import hbox
from napari_simmat.widgets.segment.form.panel import KEYS

CANDIDATE = "Mask {number} of {count}"
CANDIDATE_TIP = "{name}: click to choose it ({key} for the next)"


class CandidateStrip(QWidget):
    """Thumbnails of the model's candidates for the last object; blank unless there are several."""

    chosen = Signal(int)
    """The user pressed the picture of this candidate."""

    def __init__(self) -> None:
        super().__init__()
        self._row = hbox(parent=self)
        self._row.setSpacing(2)
        self._row.addStretch(1)
        self.setFixedHeight(THUMBNAIL_SIDE + 8)
        self.buttons: list[QToolButton] = []
        self._candidates: tuple[Candidate, ...] = ()
        self.setStyleSheet(
            "QToolButton { border: 2px solid transparent; padding: 0; background: transparent; }"
            "QToolButton:checked { border-color: #3a86bf; }"
        )
        self.show_candidates((), 0)

    def show_candidates(self, candidates: Sequence[Candidate], choice: int) -> None:
        """Show pictures in the order in which Q goes through them.

        Parameters
        ----------
        candidates
            None hides the strip.
        choice
            The one that is shown on the image.
        """
        self._candidates, count = tuple(candidates), len(candidates)
        while len(self.buttons) < count:
            button = QToolButton()
            button.setCheckable(True)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            number = len(self.buttons)
            button.clicked.connect(lambda _=False, number=number: self._on_clicked(number))
            self._row.insertWidget(number, button)
            self.buttons.append(button)
        for number, button in enumerate(self.buttons):
            button.setVisible(number < count)
            name = CANDIDATE.format(number=number + 1, count=count)
            button.setAccessibleName(name)
            button.setToolTip(CANDIDATE_TIP.format(name=name, key=KEYS["cycle"]))
        for button, (_, picture, _) in zip(self.buttons, candidates, strict=False):
            button.setIcon(QIcon(rgb_pixmap(picture)))
            button.setIconSize(QSize(*picture.shape[1::-1]))
        self._mark(choice)
        self.setVisible(count > 1)

    def _mark(self, choice: int) -> None:
        for button, candidate in zip(self.buttons, self._candidates, strict=False):
            button.setChecked(candidate.choice == choice)

    def _on_clicked(self, number: int) -> None:
        choice = self._candidates[number].choice
        self._mark(choice)
        self.chosen.emit(choice)

"""An offer below a field for a folder: to read its files as captures, one file for each band."""

from __future__ import annotations

from pathlib import Path

from napari_simmat.widgets.controls import Button
from napari_simmat.widgets.forms import PathField

OFFER = "Read as captures: {}"


class CaptureOffer(Button):
    """Puts a pattern of captures into a field; hidden unless the names in its folder look like it.

    The pattern can then be changed there, e.g. to name the bands.

    Parameters
    ----------
    field
        Where the folder was chosen.
    """

    def __init__(self, field: PathField) -> None:
        super().__init__("", tip="Each capture becomes one image of all its bands")
        self._field = field
        self._pattern = ""
        self.clicked.connect(self._take)
        self.hide()

    def offer(self, pattern: str) -> None:
        """Offer a pattern, with its folder; nothing if it is empty."""
        self._pattern = pattern
        self.setText(OFFER.format(Path(pattern).name))
        self.setVisible(bool(pattern))

    def _take(self) -> None:
        self.hide()
        self._field.set_value(self._pattern)

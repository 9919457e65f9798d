"""Segment everything, and the review of what it proposes."""

from __future__ import annotations

from napari import Viewer
from napari.layers import Labels, Points
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_simmat._text import pluralize
from napari_simmat.widgets.controls import (
    CollapsibleSection,
    hbox,
    keep_place,
    text_label,
    thin_bar,
    vbox,
)
from napari_simmat.widgets.forms import EverythingForm
from napari_simmat.widgets.layer_choice import LayerChoice
from napari_simmat.widgets.segment.form.panel import KEYS, Panel
from napari_simmat.widgets.segment.layers.outputs import CHOSEN, PREVIEW

MORE_SETTINGS = "More settings"
NEXT_DOUBTFUL = "Doubtful ({count})  {key}"
NEXT_TIP = "Go to the draft that is least certain; {key} opens it, and clicks mend it"
ACCEPT_TIP = "Write the draft between the corners; Ctrl and a line of the pen: all that it passes"
REJECT_TIP = "Take the draft between the corners away; Shift and a line of the pen: all it passes"
REVIEWED = "{settled} done, {drafts} left"


class ReviewPanel(Panel):
    """What is done with the drafts one by one; shown while there are any."""

    def __init__(self) -> None:
        super().__init__()
        self.accept = self.button("accept", "Accept", ACCEPT_TIP)
        self.reject = self.button("reject", "Reject", REJECT_TIP)
        self.next = self.button("next doubtful", "", NEXT_TIP.format(key=KEYS["edit"]))
        self.left = text_label("muted")
        self.bar = thin_bar()
        self._row = QWidget()
        row = hbox((self.accept, 2), (self.reject, 2), (self.next, 3), parent=self._row)
        row.setSpacing(4)
        keep_place(self._row)
        vbox(self._row, hbox((self.left, 2), (self.bar, 1)), parent=self)
        self.set_state(drafts=0, doubtful=0, settled=0)

    def set_state(
        self, *, drafts: int, doubtful: int, settled: int, prompted: bool = False, left: str = ""
    ) -> None:
        """Show how many drafts are open, doubtful, and settled, and how long the rest takes.

        While prompts are open (`prompted`) drafts are neither accepted nor rejected.
        """
        self.setVisible(drafts > 0)
        self._row.setVisible(not prompted)
        self.next.setText(NEXT_DOUBTFUL.format(count=doubtful, key=KEYS["next doubtful"]))
        counts = REVIEWED.format(drafts=pluralize(drafts, "draft"), settled=settled)
        self.left.setText(", ".join(filter(None, (counts, left))))
        self.bar.setRange(0, max(1, drafts + settled))
        self.bar.setValue(settled)


class AutomaticPanel(Panel):
    """Finds all objects of a plane; the settings are folded below the button.

    Parameters
    ----------
    viewer
        Its points and labels layers can be where the model is prompted.

    Attributes
    ----------
    form, options, value, set_value, sifted
        The `EverythingForm` of the settings, and what it offers.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.form = EverythingForm()
        form = self.form
        self.options, self.value, self.sifted = form.options, form.value, form.sifted
        self.set_value = form.set_value
        self.layer = LayerChoice(
            viewer,
            (Points, Labels),  # type: ignore[arg-type]
            "none",
            lambda layer: layer.name in (PREVIEW, CHOSEN),
        )
        self.start = self.button(
            "segment everything", "Segment everything", "All objects of the current plane"
        )
        self.all_frames = self.button(
            "segment all frames",
            "All frames, linked",
            "All objects of all frames of the series, each with one id over time",
        )
        self._is_series = False
        self.like_mine = QCheckBox("Only objects like mine")
        self.like_mine.setToolTip(
            "Keep what is like the committed objects in size, intensity and appearance"
        )
        self.expect_mine = QCheckBox("Expect objects like mine")
        self.expect_mine.setChecked(True)
        self.expect_mine.setToolTip(
            "From three committed objects on: look for others of their size. Negative marks alone "
            "say where no object is; then also for their looks"
        )
        self.draft_next = QCheckBox("Next plane or image: the same kind")
        self.draft_next.setToolTip(
            "For stacks, and images of one series in a folder: look for objects like those of the "
            "last one as soon as another plane or image is shown"
        )
        self.layer.chosen.connect(lambda layer: self.form.show_seeded(layer is not None))
        above = self.options["seeds"]
        row, _ = self.form.rows.getWidgetPosition(above)
        self.form.rows.insertRow(row + 1, "or on a layer", self.layer)
        self.setTabOrder(above, self.layer)
        settings = QWidget()
        mine = (self.expect_mine, self.draft_next, self.like_mine)
        vbox(*mine, self.form, parent=settings)
        self.more = CollapsibleSection(MORE_SETTINGS, settings)
        self.form.words.returnPressed.connect(self.start.click)
        vbox(self.form.words_row, self.start, self.all_frames, self.more, parent=self)
        self.set_state(working=False, busy=False)

    def set_series(self, *, is_series: bool) -> None:
        """Offer all frames where the image is known to have some."""
        self._is_series = is_series
        self.all_frames.setVisible(is_series and not self.start.isHidden())

    def set_state(self, *, working: bool, busy: bool) -> None:
        """Enable what can be done: with an image; the status line stops what goes on."""
        for button in (self.start, self.all_frames):
            button.setEnabled(working)
        self.start.setVisible(not busy)
        self.set_series(is_series=self._is_series)

"""`ObjectHistogram`: the sizes, or scores, of the objects in the table above it, as bars."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QRectF
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import QWidget

from napari_simmat.engine.measuring.histogram import Histogram
from napari_simmat.engine.measuring.size_distribution import SizeDistribution
from napari_simmat.widgets.tones import tone_color

FEWEST = 5
"""Objects from which on a histogram is shown."""
_HEIGHT = 44


class ObjectHistogram(QWidget):
    """Bars of a column of numbers; hidden as long as there are few."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(_HEIGHT)
        self.histogram: Histogram | None = None
        self.set_values("", [])

    def set_values(
        self, title: str, values: Sequence[float], sizes: SizeDistribution | None = None
    ) -> None:
        """Show these values.

        Parameters
        ----------
        title
            Names their column, with the unit.
        values
            Of all objects.
        sizes
            How they are spread, if they are sizes.
        """
        self.histogram = Histogram.of(values) if len(values) >= FEWEST else None
        self.setVisible(self.histogram is not None)
        if self.histogram is not None:
            low, high = self.histogram.edges[0], self.histogram.edges[-1]
            told = f"{title}: {low:.4g} to {high:.4g}, {len(values)} objects"
            self.setToolTip(told if sizes is None else f"{told}\n{sizes.sentence}")
            self.setAccessibleName(f"Histogram of {title}")
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the bars, as high as the widget where most values are."""
        super().paintEvent(event)
        if self.histogram is None:
            return
        painter = QPainter(self)
        color = QColor(tone_color("muted", self))
        wide, top = self.width() / len(self.histogram.counts), max(self.histogram.counts)
        for number, count in enumerate(self.histogram.counts):
            high = self.height() * count / top
            bar = QRectF(number * wide, self.height() - high, max(wide - 1, 0.5), high)
            painter.fillRect(bar, color)

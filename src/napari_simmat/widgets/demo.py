"""The window with a sample, the widget and a first prompt: `simmat demo --gui`."""

from __future__ import annotations

import napari
from qtpy.QtCore import QTimer

from napari_simmat.widgets import samples
from napari_simmat.widgets.main import SimMATWidget

FIRST_CLICK = (125.0, 206.0)
"""On a coin, y and x."""


def open_demo(*, run: bool = True) -> napari.Viewer:
    """Open napari with the coins, the Segment tab and one point on a coin.

    Parameters
    ----------
    run
        Stay until the window is closed; otherwise return at once, for a running event loop.
    """
    viewer = napari.Viewer(title="napari-simmat")
    for data, options, kind in samples.coins():
        viewer.add_layer(napari.layers.Layer.create(data, options, kind))
    widget = SimMATWidget(viewer)
    viewer.window.add_dock_widget(widget, name="SimMAT", area="right")
    interaction = widget.segment.interaction

    def click() -> None:
        interaction.prompts.draw_points()
        if interaction.prompts.points is not None:
            interaction.prompts.points.add(FIRST_CLICK)

    QTimer.singleShot(0, click)
    if run:
        napari.run()
    return viewer

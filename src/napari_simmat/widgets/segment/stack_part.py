"""Connects the form's part for stacks with what it starts."""

from __future__ import annotations

from qtpy.QtCore import QObject

from napari_simmat.widgets.segment.ahead import Ahead
from napari_simmat.widgets.segment.interaction import Interaction
from napari_simmat.widgets.segment.propagation import Propagation
from napari_simmat.widgets.segment.stack_panel import Axis, StackPanel
from napari_simmat.widgets.segment.through import planes_of


class StackPart(QObject):
    """Propagation and encoding ahead, with the panel that shows them.

    Parameters
    ----------
    interaction
        The image that is worked on.
    """

    def __init__(self, interaction: Interaction, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._interaction = interaction
        self.panel = StackPanel()
        self.propagation = Propagation(interaction)
        self.ahead = Ahead(interaction)
        panel, ahead = self.panel, self.ahead
        panel.started.connect(self.start)
        panel.stopped.connect(self.propagation.cancel)
        panel.dropped.connect(self.propagation.drop)
        panel.committed.connect(self.propagation.commit)
        panel.ahead_chosen.connect(ahead.set_enabled)
        panel.disk_chosen.connect(ahead.keep_on_disk)
        panel.whole_asked.connect(ahead.encode_whole)
        panel.whole_stopped.connect(ahead.cancel)
        panel.cleared.connect(ahead.clear)
        ahead.told.connect(self._on_told)
        self.propagation.changed.connect(self._on_changed)
        interaction.changed.connect(self._on_changed)

    def release(self) -> None:
        """Stop what is under way."""
        self.propagation.cancel()
        self.ahead.release()

    @property
    def has_planes(self) -> bool:
        """Whether the image has more than one plane."""
        return bool(self._axes())

    def start(self) -> None:
        """Follow what is open, as the panel says."""
        work = self._interaction.work
        if work is None or not self.has_planes:
            return
        self._interaction.flush()
        planes = self.panel.planes_value(planes_of(work.asked))
        self.propagation.start(self.panel.along_value(), planes)

    def commit(self) -> None:
        """Write what was found on all planes; else what is open on the plane shown.

        In another view than the one in which it was found, what is open there goes first.
        """
        interaction, found = self._interaction, self.propagation.found
        interaction.flush()
        work, plane = interaction.work, interaction.plane_or_none()
        open_here = work is not None and plane is not None and bool(work.asked.on(plane))
        if found is None or (open_here and not found.is_seen):
            interaction.commit()
        else:
            self.propagation.commit()

    def _axes(self) -> list[Axis]:
        work = self._interaction.work
        if work is None:
            return []
        names = work.place.axis_names
        return [
            Axis(index, names[index], size)
            for index, size in enumerate(work.place.shape[:-2])
            if size > 1
        ]

    def _on_changed(self) -> None:
        work, propagation = self._interaction.work, self.propagation
        self.panel.set_axes(self._axes())
        self.panel.set_state(
            working=work is not None and bool(work.asked),
            busy=propagation.busy,
            found=propagation.found is not None,
        )

    def _on_told(self, text: str, part: float) -> None:
        self.panel.show_encoded(text, part)
        self.panel.set_encoding(self.ahead.encoding_whole)

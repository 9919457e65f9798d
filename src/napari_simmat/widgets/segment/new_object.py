"""An object that is about to be written among the finished ones: plain values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from napari_simmat.engine.footprints import Footprint
from napari_simmat.engine.views import Order, inverse
from napari_simmat.widgets.segment.operations import Made


@dataclass(frozen=True, eq=False)
class NewObject:
    """An object to be written.

    Parameters
    ----------
    seen
        Its voxels, in the coordinates of the view `order`.
    score
        The model's own estimate of its IoU.
    label
        An object that it replaces on the planes of `seen`; None for the next free number.
    category
        Name of its class; of an object that is replaced the class stays.
    made
        On which planes it was made from which prompts; the digests are filled in.
    order
        The view.
    """

    seen: Footprint
    score: float = float("nan")
    label: int | None = None
    category: str = ""
    made: tuple[Made, ...] = ()
    order: Order = ()

    @cached_property
    def footprint(self) -> Footprint:
        """Its voxels at their place in the labels layer."""
        return self.seen.transposed(inverse(self.order))

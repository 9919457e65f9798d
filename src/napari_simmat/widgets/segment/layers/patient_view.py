"""Planes of a patient as radiologists read them: the canvas is turned, pixels and places are not.

napari shows the first row at the top and the first column on the left. An axial plane of NIfTI then
has the patient's back at the top. Its camera can let rows count upward and columns to the left, in
two dimensions without any change of what a click means. Rolled axes may show a plane lying on its
side, its rows along the later axis: it is put upright when it comes into view, and the next roll
goes on from the plane as napari had it, else two rolls would lead back and the third plane never
come. Who transposes it afterwards sees it so, and reads the sides as they are seen.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
from napari import Viewer
from napari.components import Dims

from napari_simmat.widgets.placement import ImageGeometry

Convention = Literal["radiological", "neurological", "as stored"]
CONVENTIONS: dict[Convention, str] = {
    "radiological": "radiological: R on the left",
    "neurological": "neurological: L on the left",
    "as stored": "as stored",
}
_OPPOSITE = dict(zip("LRAPSI", "RLPAIS", strict=True))
_USUAL = ("down", "right")
_EXCHANGED = r"\2 on the left, \1 at the top"


class PatientView:
    """Turns the canvas by the convention, while the chosen image lies in a patient.

    Attributes
    ----------
    convention
        How planes are seen; sagittal ones have the face on the left in both.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.convention: Convention = "radiological"
        self._turned = False
        self._axes: frozenset[int] | None = None
        """The axes that are shown; None before an image of a patient, or in 3D."""
        self._upright: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        """The order of axes that put a plane upright, and that of napari before; None for none."""

    def show(self, geometry: ImageGeometry | None) -> None:
        """Turn the canvas for an image in its current view; back for any other, and in 3D."""
        wanted = _USUAL
        plane = ""
        if geometry is not None and self._viewer.dims.ndisplay == 2:
            if self._roll_on():
                return  # the plane that came instead was shown by its own event
            plane = geometry.plane_name
            self._put_upright(plane)
            wanted = self._wanted(self._as_displayed(plane))
        if not plane:
            self._axes = None
        if wanted != _USUAL or self._turned:
            self._turned = wanted != _USUAL
            if self._directions != wanted:
                self._camera.orientation2d = wanted

    def release(self) -> None:
        """Show rows downward and columns to the right, as napari does."""
        self.show(None)

    def words(self, remark: str) -> str:
        """What is said of an image, with the sides of the plane as they are seen."""
        down, right = self._directions
        remark = self._as_displayed(remark)
        for at, is_turned in (("on the left", right != "right"), ("at the top", down != "down")):
            for side in re.findall(rf"\b([LRAPSI]) {at}", remark) if is_turned else ():
                remark = remark.replace(f"{side} {at}", f"{_OPPOSITE[side]} {at}")
        return remark

    def _put_upright(self, plane: str) -> None:
        """Transpose a plane that came into view with its rows along the later axis."""
        dims = self._viewer.dims
        axes = frozenset(dims.displayed)
        is_new, self._axes = axes != self._axes, axes
        if plane and is_new and self._is_transposed and self.convention != "as stored":
            *before, rows, columns = lying = tuple(dims.order)
            self._upright = (*before, columns, rows), lying
            dims.order = self._upright[0]

    def _roll_on(self) -> bool:
        """Whether axes rolled from a plane put upright were rolled from how it lay, instead."""
        dims = self._viewer.dims
        if self._upright is None or dims.order == self._upright[0]:
            return False
        (upright, lying), self._upright = self._upright, None
        if dims.order != _rolled(dims, upright):
            return False
        dims.order = _rolled(dims, lying)
        return True

    @property
    def _is_transposed(self) -> bool:
        """Whether rows and columns of the canvas are columns and rows of the image's view."""
        dims = self._viewer.dims
        return dims.ndisplay == 2 and dims.displayed[0] > dims.displayed[1]

    def _as_displayed(self, words: str) -> str:
        """The sides of a plane, exchanged if the canvas shows it transposed."""
        if not self._is_transposed:
            return words
        return re.sub(r"\b([LRAPSI]) on the left, ([LRAPSI]) at the top", _EXCHANGED, words)

    @property
    def _camera(self) -> Any:
        return getattr(self._viewer, "scene", self._viewer).camera  # scene: from napari 0.9

    @property
    def _directions(self) -> tuple[str, str]:
        down, right = self._camera.orientation2d
        return str(getattr(down, "value", down)), str(getattr(right, "value", right))

    def _wanted(self, plane: str) -> tuple[str, str]:
        """How rows and columns count, of a plane as `World.plane_name` calls it."""
        if self.convention == "as stored" or " plane, " not in plane:
            return _USUAL
        name, sides = plane.split(" plane, ")
        left, top = (each.split()[0] for each in sides.split(", "))
        is_sagittal = name.endswith("sagittal")
        wanted_top = "A" if name.endswith("axial") else "S"
        side = "A" if is_sagittal else "R" if self.convention == "radiological" else "L"
        if {left, top} - {side, _OPPOSITE[side], wanted_top, _OPPOSITE[wanted_top]}:
            return _USUAL
        if left in (wanted_top, _OPPOSITE[wanted_top]):
            return _USUAL  # rows and columns are exchanged, which no turn of the canvas mends
        return "down" if top == wanted_top else "up", "right" if left == side else "left"


def _rolled(dims: Dims, order: tuple[int, ...]) -> tuple[int, ...]:
    """The order of axes after `Dims.roll`, which leaves axes of one plane where they are."""
    axes = np.array(order)
    moves = (np.array(dims.rollable) & (np.array(dims.nsteps) > 1))[axes]
    axes[moves] = np.roll(axes[moves], 1)
    return tuple(axes.tolist())

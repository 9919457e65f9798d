"""Polarization from four images behind a polarizer at 0, 45, 90 and 135 degrees."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TINY = 1e-4
"""What keeps the divisions finite (arXiv 2409.08083 and its authors' code)."""


class Polarization(NamedTuple):
    """What four angles say, each of their shape.

    Parameters
    ----------
    intensity
        S0, half the sum of the four: 0..510 for 8 bits.
    angle
        Angle of linear polarization in rad, -pi/4..pi/4.
    degree
        Degree of linear polarization, 0..1.
    """

    intensity: NDArray[np.float32]
    angle: NDArray[np.float32]
    degree: NDArray[np.float32]


def polarization(
    i0: NDArray[Any], i45: NDArray[Any], i90: NDArray[Any], i135: NDArray[Any]
) -> Polarization:
    """Stokes parameters S0, S1, S2 of four intensities of equal shape, as angle and degree.

    The angle is atan(S2 / S1) / 2, of one branch as the published statistics have it, not the
    arctangent of two arguments.
    """
    a, b, c, d = (np.asarray(image, dtype=np.float64) for image in (i0, i45, i90, i135))
    s0, s1, s2 = (a + b + c + d) / 2, a - c, b - d
    degree = np.minimum(1, np.hypot(s1, s2) / (s0 + TINY))
    angle = np.arctan(s2 / np.where(s1 == 0, TINY, s1)) / 2
    return Polarization(s0.astype(np.float32), angle.astype(np.float32), degree.astype(np.float32))

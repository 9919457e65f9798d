"""Names of units of length and time, as programs spell them, and the one spelling used here.

This file needs no numpy, since the command line checks its options with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from napari_simmat._text import format_shape

_NAMES = {
    "m": ("m", "meter", "meters", "metre", "metres"),
    "cm": ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    "mm": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    "um": (
        "um", "\N{MICRO SIGN}m", "\N{GREEK SMALL LETTER MU}m", "micron", "microns", "micrometer",
        "micrometers", "micrometre", "micrometres",
    ),
    "nm": ("nm", "nanometer", "nanometers", "nanometre", "nanometres"),
    "s": ("s", "sec", "second", "seconds"),
    "ms": ("ms", "millisecond", "milliseconds"),
    "min": ("min", "minute", "minutes"),
    "h": ("h", "hour", "hours"),
}  # fmt: skip
_UNITS = {name: unit for unit, names in _NAMES.items() for name in names}
TIMES = ("s", "ms", "min", "h")
"""Units of time; the others are lengths."""
UNKNOWN_UNIT = "The unit {!r} is not known here; use one of {}."


def unit_named(name: str) -> str:
    """The unit that a name of any spelling means, e.g. ``"um"`` for ``"micrometer"``.

    Raises
    ------
    ValueError
        If there is none.
    """
    unit = _UNITS.get(name.strip().lower())
    if unit is None:
        raise ValueError(UNKNOWN_UNIT.format(name, ", ".join(_NAMES)))
    return unit


def known_unit(name: str) -> str:
    """As `unit_named`, empty for a name that means none, such as napari's ``"pixel"``."""
    return _UNITS.get(name.strip().lower(), "")


NO_SIZE = (
    "The pixel size {} is none: give one number above 0, or height and width, or depth, height and "
    "width."
)
NO_UNIT = "The pixel size {} has no unit; give one, such as um."
NO_LENGTH = "The unit of a pixel size is a length, not {}."
NO_PIXEL_SIZE = "A unit needs the pixel size that it is of."


def parse_pixel_size(text: str) -> tuple[float, ...]:
    """Parse ``0.5`` or ``2,0.5,0.5``; ValueError if it is something else."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(NO_SIZE.format(text)) from None


def check_pixel_size(pixel_size: Sequence[float] | None, unit: str) -> None:
    """Refuse a size of pixels without a length as its unit; ValueError in a sentence."""
    if pixel_size is None:
        if unit:
            raise ValueError(NO_PIXEL_SIZE)
        return
    told = format_shape([f"{size:g}" for size in pixel_size])
    if not 1 <= len(pixel_size) <= 3 or not all(0 < size < math.inf for size in pixel_size):
        raise ValueError(NO_SIZE.format(told))
    if not unit:
        raise ValueError(NO_UNIT.format(told))
    if unit_named(unit) in TIMES:
        raise ValueError(NO_LENGTH.format(unit))

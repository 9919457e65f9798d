"""Names of units of length and time, as programs spell them, and the one spelling used here."""

from __future__ import annotations

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

"""The size of a pixel that microscopes write into tags of TIFF of their own.

tifffile parses the tags; here is which entry means the pixel of the image, and in which unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from xml.etree import ElementTree

Sizes = dict[str, tuple[float, str]]
"""Size of a pixel by axis letter, with its unit."""
_ZEISS_DISPLAY = 1024
"""Pixels across the display to which Zeiss's raw pixel size belongs, whatever the image has."""
_ZEISS_RAW_SIZE = 3
"""Index of that size, in meters, among the values without a name."""
_NANOMETERS = {2: 2.54e7, 3: 1e7}
"""By TIFF's unit of resolution."""


def instrument_pixel_size(tiff: Any) -> Sizes | None:
    """Size along X and Y, of LSM also along Z and T.

    None where no known instrument says it; empty where it says that there is none.
    """
    for is_own, read in _INSTRUMENTS:
        if not getattr(tiff, is_own, False):
            continue
        with suppress(ArithmeticError, LookupError, TypeError, ValueError):  # damaged tags
            sizes = {letter: each for letter, each in read(tiff).items() if _is_size(each[0])}
            if {"X", "Y"} <= sizes.keys():
                return sizes
    with suppress(TypeError, ValueError):
        if (sizes_of_gatan := _gatan(tiff)) is not None:
            return sizes_of_gatan
    return _jeol(tiff)


def _is_size(value: float) -> bool:
    return 0 < value < math.inf


def _zeiss(tiff: Any) -> Sizes:
    """SmartSEM: the raw size, of which ``Image Pixel Size`` is rounded; if they differ, the latter.

    ``Pixel Size`` is that of the display, wrong by two where the image has 512 or 2048 columns.
    """
    told: Mapping[str, Any] = tiff.sem_metadata
    raw = 0.0
    with suppress(LookupError, TypeError, ValueError):
        raw = float(told[""][_ZEISS_RAW_SIZE]) * _ZEISS_DISPLAY / tiff.pages.first.imagewidth
    if "ap_image_pixel_size" not in told:
        return dict.fromkeys("YX", (raw, "m"))
    _, size, unit = told["ap_image_pixel_size"]
    length = _ZEISS_METERS.get(str(unit).strip(), 0.0)
    if math.isclose(float(size) * length, raw, rel_tol=_ROUNDED):
        return dict.fromkeys("YX", (raw, "m"))
    return dict.fromkeys("YX", (float(size), str(unit)))


_ZEISS_METERS = {"pm": 1e-12, "nm": 1e-9, "um": 1e-6, "\N{MICRO SIGN}m": 1e-6, "mm": 1e-3}
_ROUNDED = 1e-2


def _fei(tiff: Any) -> Sizes:
    """FEI and Thermo Fisher: meters."""
    scan = tiff.fei_metadata["Scan"]
    return {letter: (float(scan[f"Pixel{side}"]), "m") for letter, side in _SIDES}


_SIDES = (("Y", "Height"), ("X", "Width"))


def _olympus(tiff: Any) -> Sizes:
    """Olympus Soft Imaging Solutions: meters."""
    return {
        letter: (float(tiff.sis_metadata[f"pixelsize{letter.lower()}"]), "m") for letter in "YX"
    }


def _tvips(tiff: Any) -> Sizes:
    """TVIPS cameras: nanometers."""
    return {letter: (float(tiff.tvips_metadata[f"PixelSize{letter}"]), "nm") for letter in "YX"}


def _zeiss_lsm(tiff: Any) -> Sizes:
    """Zeiss LSM: meters and seconds."""
    told = tiff.lsm_metadata
    sizes = {letter: (float(told[f"VoxelSize{letter}"]), "m") for letter in "ZYX"}
    return {**sizes, "T": (float(told.get("TimeIntervall") or 0), "s")}


def _metaseries(tiff: Any) -> Sizes:
    """MetaMorph and MetaXpress, where the image is calibrated."""
    told = tiff.metaseries_metadata["PlaneInfo"]
    if not told.get("spatial-calibration-state"):
        return {}
    unit = str(told["spatial-calibration-units"])
    return {letter: (float(told[f"spatial-calibration-{letter.lower()}"]), unit) for letter in "YX"}


def _gatan(tiff: Any) -> Sizes | None:
    """Pictures that Gatan's DigitalMicrograph exports, with units that it names."""
    tags = tiff.pages.first.tags
    sizes = {}
    for letter, (size, unit) in {"X": (65009, 65003), "Y": (65010, 65004)}.items():
        if size not in tags or unit not in tags:
            return None
        sizes[letter] = (float(tags[size].value), str(tags[unit].value))
    return sizes if all(_is_size(size) for size, _ in sizes.values()) else None


def _jeol(tiff: Any) -> Sizes | None:
    """JEOL SightX: the resolution is that of the camera, and the magnification stands in XML.

    A diffraction pattern has no length: it is empty.
    """
    page = tiff.pages.first
    text = page.description
    if str(page.tags.valueof("Make") or "") != "JEOL Ltd." or "<!" in text:
        return None
    with suppress(ElementTree.ParseError, ArithmeticError, LookupError, TypeError, ValueError):
        told = ElementTree.fromstring(
            "".join(line.strip(" \r\n\t\x01\0") for line in text.split("\n"))
        )
        words = {name: (told.findtext(f".//{name}") or "").strip() for name in _JEOL_ENTRIES}
        if (words["EosMode"], words["ModeString"]) != ("eosTEM", "MAG"):
            return {}
        length = _NANOMETERS[int(page.tags.valueof("ResolutionUnit"))]
        sizes = {}
        for letter in "YX":
            pixels, per = page.tags.valueof(f"{letter}Resolution")
            sizes[letter] = (length * per / pixels / float(words["SelectorValue"]), "nm")
        return sizes if all(_is_size(size) for size, _ in sizes.values()) else None
    return None


_JEOL_ENTRIES = ("EosMode", "ModeString", "SelectorValue")
_INSTRUMENTS: tuple[tuple[str, Callable[[Any], Sizes]], ...] = (
    ("is_sem", _zeiss),
    ("is_fei", _fei),
    ("is_sis", _olympus),
    ("is_tvips", _tvips),
    ("is_lsm", _zeiss_lsm),
    ("is_metaseries", _metaseries),
)
"""tifffile's flag of a kind of file, and what reads its size."""

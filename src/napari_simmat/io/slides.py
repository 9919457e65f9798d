"""What the scanners of whole slides write beside pixels: the size of a pixel, which image is meant.

tifffile reads the pyramids of Aperio (SVS), Hamamatsu (NDPI), Leica (SCN), Philips (TIFF) and
others; tiffslide, which builds on it, adds the sizes of these alone, of Hamamatsu and Ventana in
part, so that they are read here. OpenSlide reads what tifffile does not: MRXS, and BIF, whose tiles
overlap.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import Any
from xml.etree import ElementTree

SLIDE_ENDINGS = (".svs", ".ndpi", ".scn", ".qptiff")
"""Endings of the files of whole slides that are TIFF."""
_INCHES, _CENTIMETERS = 2, 3
_MICROMETERS = {_INCHES: 25400.0, _CENTIMETERS: 1e4}
"""By TIFF's unit of resolution."""
_PLAUSIBLE = (0.02, 50.0)
"""Micrometers to a pixel of a slide: a resolution for printing, 72 to 300 in an inch, is beyond."""
_NDPI_LENS = 65421
_XMP = 700
SCANNED = "A slide of {}{}{}."


def main_series(tiff: Any) -> Any:
    """The image that is meant: of Leica, whose first one may show the whole glass, the largest."""
    if tiff.is_scn:
        return max(tiff.series, key=lambda each: math.prod(each.keyframe.shape[:2]))
    return tiff.series[0]


def is_pyramid(tiff: Any) -> bool:
    """Whether the main image has coarser levels."""
    return len(main_series(tiff).levels) > 1


def slide_pixel_size(tiff: Any) -> tuple[float, float] | None:
    """Height and width of a pixel in micrometers, as the scanner's maker writes them."""
    for read in (_aperio, _leica, _philips, _ventana, _by_resolution):
        with suppress(ArithmeticError, TypeError, ValueError):  # tags of other types and counts
            size = read(tiff)
            if size is not None and all(0 < each < math.inf for each in size):
                return size
    return None


def slide_note(tiff: Any) -> str:
    """Maker and objective, where the file says them, as a sentence; empty for other images."""
    maker, power = "", None
    description = tiff.pages.first.description
    if tiff.is_svs or description.startswith("Aperio"):
        maker, power = "Aperio", _after(r"\|\s*AppMag\s*=\s*([\d.]+)", description)
    elif tiff.is_ndpi:
        lens = tiff.pages.first.tags.get(_NDPI_LENS)
        maker, power = "Hamamatsu", _after(r"([\d.]+)", "" if lens is None else str(lens.value))
    elif tiff.is_scn:
        maker, power = "Leica", _after(r"<objective>\s*([\d.]+)", description)
    elif tiff.is_philips:
        maker = "Philips"
    if not maker:
        return ""
    objective = "" if not power else f", objective {power:g}x"
    size = slide_pixel_size(tiff)
    pixel = "" if size is None else f", {size[1]:.4g} um to a pixel"
    return SCANNED.format(maker, objective, pixel)


def _after(pattern: str, text: str) -> float | None:
    """The number that a pattern finds, above 0."""
    found = re.search(pattern, text)
    with suppress(ValueError):
        number = float(found[1]) if found else 0.0
        return number if 0 < number < math.inf else None
    return None


def _aperio(tiff: Any) -> tuple[float, float] | None:
    """``MPP = 0.25`` in the description."""
    description = tiff.pages.first.description
    if not description.startswith("Aperio"):
        return None
    size = _after(r"\|\s*MPP\s*=\s*([\d.]+)", description)
    return None if size is None else (size, size)


def _leica(tiff: Any) -> tuple[float, float] | None:
    """Nanometers of the view over its pixels, in XML, of the image that is meant."""
    if not tiff.is_scn:
        return None
    images = [each for each in _xml(tiff.pages.first.description) if each.tag.endswith("}image")]
    height, width = main_series(tiff).keyframe.shape[:2]
    for image in images:
        view = next((each for each in image.iter() if each.tag.endswith("}view")), None)
        for each in image.iter():
            same = (each.get("sizeX"), each.get("sizeY")) == (str(width), str(height))
            if view is not None and each.tag.endswith("}dimension") and same:
                return _number(view, "sizeY") / height / 1e3, _number(view, "sizeX") / width / 1e3
    return None


def _philips(tiff: Any) -> tuple[float, float] | None:
    """``DICOM_PIXEL_SPACING`` of the finest level in XML, rows and columns in millimeters."""
    if not tiff.is_philips:
        return None
    for each in _xml(tiff.pages.first.description):
        if each.get("Name") == "DICOM_PIXEL_SPACING":
            numbers = re.findall(r"[\d.]+(?:[eE][+-]?\d+)?", each.text or "")
            if len(numbers) == 2:
                return float(numbers[0]) * 1e3, float(numbers[1]) * 1e3
    return None


def _ventana(tiff: Any) -> tuple[float, float] | None:
    """``ScanRes`` of the scanner's XML."""
    tag = tiff.pages.first.tags.get(_XMP)
    text = "" if tag is None else str(tag.value if isinstance(tag.value, str) else bytes(tag.value))
    size = _after(r'<iScan[^>]*\bScanRes="([\d.]+)"', text)
    return None if size is None else (size, size)


def _by_resolution(tiff: Any) -> tuple[float, float] | None:
    """The resolution of the finest page, as Hamamatsu, Akoya and libvips give it."""
    tags = tiff.pages.first.tags
    unit = tags.get("ResolutionUnit")
    length = _MICROMETERS.get(int(unit.value) if unit is not None else 0)
    if length is None:
        return None
    sizes = []
    for letter in "YX":
        tag = tags.get(f"{letter}Resolution")
        pixels, per = tag.value if tag is not None and isinstance(tag.value, tuple) else (0, 1)
        sizes.append(length * per / pixels if pixels else math.inf)
    low, high = _PLAUSIBLE
    if not all(low <= size <= high for size in sizes):
        return None
    # Inches are for printing, but in a pyramid of a slide's resolution.
    is_meant = unit is not None and (int(unit.value) == _CENTIMETERS or is_pyramid(tiff))
    return (sizes[0], sizes[1]) if is_meant else None


def _number(element: ElementTree.Element, name: str) -> float:
    return float(element.get(name, "nan"))


def _xml(text: str) -> list[ElementTree.Element]:
    """All elements of a description; none where it is no XML."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return []
    with suppress(ElementTree.ParseError):
        return list(ElementTree.fromstring(text).iter())
    return []

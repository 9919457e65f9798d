"""What TIFF says besides pixels: OME, ImageJ, GDAL; channel names, pixel size, stage position."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from xml.etree import ElementTree

from napari_simmat.io.instrument_tags import instrument_pixel_size
from napari_simmat.io.slides import slide_pixel_size
from napari_simmat.io.units import known_unit

SOFTWARE = "napari-simmat"
"""What files name as their writer."""
BAND = "band {}"
"""Name of a band that the file does not name, counted from 1 as GDAL does."""
GDAL_METADATA, GDAL_NODATA = 42112, 42113
STAGE_DIFFERS = "The positions of the stage differ between its planes, and are not kept."


def stage_position(tiff: Any, notes: list[str]) -> dict[str, tuple[float, str]]:
    """Position of the stage along X and Y, if OME-XML gives one for all planes of the image."""
    if (pixels := ome_pixels(tiff)) is None:
        return {}
    planes = [each for each in pixels if each.tag.endswith("}Plane")]
    stage = {}
    for axis in "XY":
        found = {
            (value, each.get(f"Position{axis}Unit", "reference frame"))
            for each in planes
            if (value := as_number(each.get(f"Position{axis}"))) is not None
        }
        if len(found) > 1:
            notes.append(STAGE_DIFFERS)
            return {}
        if found:
            stage[axis] = found.pop()
    return stage


def band_names(tags: Any, count: int) -> tuple[str, ...] | None:
    """Names of all bands from GDAL's metadata; None if one has none, or two are alike."""
    text = str(tags[GDAL_METADATA].value) if GDAL_METADATA in tags else ""
    if not text or "<!" in text:
        return None
    try:
        items = ElementTree.fromstring(text.strip("\0 ")).iter("Item")
    except ElementTree.ParseError:
        return None
    named = {
        each.get("sample"): (each.text or "").strip()
        for each in items
        if each.get("role") == "description" or each.get("name") == "DESCRIPTION"
    }
    names = tuple(named.get(str(n), "") for n in range(count))
    return names if count > 1 and all(names) and len(set(names)) == count else None


_XMP = 700
_BAND_NAME = re.compile(r'Camera:BandName(?:="([^"<]+)"|>(?:\s*<rdf:\w+>)*\s*([^<\s][^<]*))')
_XMP_READ = 2**16
"""Characters of XMP in which a band is looked for."""


def band_name(tiff: Any) -> str:
    """The band that a drone's camera names in XMP, e.g. ``Red edge``; empty without.

    MicaSense and DJI write it as Pix4D's specification of camera metadata has it.
    """
    tag = tiff.pages.first.tags.get(_XMP)
    value = "" if tag is None else tag.value
    text = value[:_XMP_READ].decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    found = _BAND_NAME.search(text[:_XMP_READ])
    name = (found[1] or found[2]).strip() if found else ""
    return name if name.isprintable() else ""


def image_name(tiff: Any) -> str:
    """The name of the first image in OME-XML."""
    images = (each for each in ome_elements(tiff) if each.tag.endswith("}Image"))
    return next((each.get("Name", "") for each in images), "")


_MICROMETERS = {
    "m": 1e6, "meter": 1e6, "cm": 1e4, "centimeter": 1e4, "mm": 1e3, "millimeter": 1e3,
    "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0,
    "\\u00b5m": 1.0, "nm": 1e-3, "nanometer": 1e-3, "å": 1e-4, "pm": 1e-6,
    "inch": 25400.0, "in": 25400.0,
}  # fmt: skip
_KEPT = {"nm": 1e-3, "um": 1.0, "mm": 1e3}
"""Units in which sizes and tables stay, in micrometers."""
_FINE = 0.1
"""Micrometers below which a pixel is that of an electron microscope."""
_SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0, "hour": 3600.0}


def pixel_size(tiff: Any) -> tuple[dict[str, float], dict[str, str]]:
    """Sizes along X, Y and Z in one unit, and seconds along T, if the file has physical sizes.

    A resolution in inches is for printing and ignored.
    """
    if tiff.is_ome:
        sizes = _read_ome_sizes(tiff)
    elif tiff.is_imagej:
        sizes = _imagej_sizes(tiff.imagej_metadata or {}, tiff.pages.first.tags)
    elif (told := instrument_pixel_size(tiff)) is not None:
        sizes = told
    elif (pixel := slide_pixel_size(tiff)) is not None:
        sizes = {"X": (pixel[1], "um"), "Y": (pixel[0], "um")}
    else:
        tags = tiff.pages.first.tags
        unit = tags.get("ResolutionUnit")
        in_centimeters = unit is not None and unit.value == 3
        sizes = _resolution(tags, {"X": "cm", "Y": "cm"}) if in_centimeters else {}
    lengths = {letter: each for letter, each in sizes.items() if letter != "T"}
    scale, units = _in_one_unit(lengths)
    if "T" in sizes and (factor := _SECONDS.get(sizes["T"][1].strip().lower())) is not None:
        scale["T"], units["T"] = sizes["T"][0] * factor, "s"
    return scale, units


def _in_one_unit(sizes: Mapping[str, tuple[float, str]]) -> tuple[dict[str, float], dict[str, str]]:
    """Lengths in the unit that the file names, if that is one of `_KEPT` for all of them.

    Else in micrometers, or in nanometers if all are below `_FINE`.
    """
    factors = {
        letter: _MICROMETERS.get(unit.strip().lower()) for letter, (_, unit) in sizes.items()
    }
    known = {letter: factor for letter, factor in factors.items() if factor is not None}
    scale = {letter: sizes[letter][0] * factor for letter, factor in known.items()}
    named = {known_unit(sizes[letter][1]) for letter in known}
    unit = "um"
    if len(named) == 1 and named <= set(_KEPT):
        [unit] = named
    elif scale and max(scale.values()) < _FINE:
        unit = "nm"
    scale = {letter: size / _KEPT[unit] for letter, size in scale.items()}
    return scale, dict.fromkeys(scale, unit)


def _read_ome_sizes(tiff: Any) -> dict[str, tuple[float, str]]:
    if (pixels := ome_pixels(tiff)) is None:
        return {}
    sizes = {}
    for letter, size, unit, default in [
        *((axis, f"PhysicalSize{axis}", f"PhysicalSize{axis}Unit", "um") for axis in "XYZ"),
        ("T", "TimeIncrement", "TimeIncrementUnit", "s"),
    ]:
        value = as_number(pixels.get(size))
        if value is not None:
            sizes[letter] = (value, pixels.get(unit, default))
    return sizes


def ome_elements(tiff: Any) -> list[ElementTree.Element]:
    """All elements of OME-XML; none where it is damaged, or there is none."""
    with suppress(ElementTree.ParseError):
        return list(ElementTree.fromstring(tiff.ome_metadata).iter()) if tiff.is_ome else []
    return []


def ome_pixels(tiff: Any) -> ElementTree.Element | None:
    """What OME-XML says of the pixels of the first image."""
    return next((each for each in ome_elements(tiff) if each.tag.endswith("Pixels")), None)


def _imagej_sizes(metadata: Mapping[str, Any], tags: Any) -> dict[str, tuple[float, str]]:
    unit = str(metadata.get("unit", ""))
    sizes = _resolution(tags, {"X": unit, "Y": str(metadata.get("yunit", unit))})
    if (spacing := as_number(metadata.get("spacing"))) is not None:
        sizes["Z"] = (abs(spacing), str(metadata.get("zunit", unit)))
    if (interval := as_number(metadata.get("finterval"))) is not None:
        sizes["T"] = (interval, str(metadata.get("tunit", "s")))
    return sizes


def _resolution(tags: Any, units: Mapping[str, str]) -> dict[str, tuple[float, str]]:
    """Sizes of a pixel from the tags of its resolution, each with the unit of its axis."""
    sizes = {}
    for letter, unit in units.items():
        tag = tags.get(f"{letter}Resolution")
        if tag is not None and isinstance(tag.value, tuple) and len(tag.value) == 2:
            pixels, length = tag.value
            if pixels:
                sizes[letter] = (length / pixels, unit)
    return sizes


def channel_names(tiff: Any, count: int) -> tuple[str, ...] | None:
    """The names of so many channels; None if they have none."""
    names: list[str] = []
    if tiff.is_ome:
        if (pixels := ome_pixels(tiff)) is not None:
            channels = [element for element in pixels if element.tag.endswith("Channel")]
            names = [channel.get("Name", "") for channel in channels]
    elif tiff.is_imagej:
        labels = (tiff.imagej_metadata or {}).get("Labels") or []
        names = [str(label) for label in labels] if isinstance(labels, list) else []
    else:
        return band_names(tiff.pages.first.tags, count)
    # ImageJ labels planes; they are channel names only if all planes are channels.
    return tuple(names) if count > 1 and len(names) == count and all(names) else None


def as_number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None

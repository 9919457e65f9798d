"""Write TIFF and OME-TIFF: labels, and channels."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_simmat.io.axes import distinct_axes, label_dtype
from napari_simmat.io.geotiff import ASCII, place_tags
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.tiff_metadata import GDAL_METADATA, GDAL_NODATA, SOFTWARE

OME_LENGTHS = {
    "m": ("m", 100.0),
    "cm": ("cm", 1.0),
    "mm": ("mm", 1e-1),
    "um": ("µm", 1e-4),
    "nm": ("nm", 1e-7),
}
"""Our units of length: OME's spelling, and their length in centimeters."""
OME_TIMES = {"s": "s", "ms": "ms", "us": "µs", "min": "min", "h": "h"}


def write_labels_tiff(
    path: Path,
    labels: NDArray[np.integer[Any]],
    *,
    axes: str,
    reference: ImageReference | None = None,
) -> None:
    """Write labels as OME-TIFF, zlib-compressed, with axes, pixel size, name and place on a map.

    Parameters
    ----------
    path
        The file to write; any suffix.
    labels
        Label image of any shape that ends in (Y, X).
    axes
        One letter per dimension, e.g. ``"TZYX"``. Letters unknown to OME become ``"Q"``, or
        another free letter of OME.
    reference
        What the labels keep of their image.
    """
    import tifffile

    reference = reference or ImageReference()
    scale, units = reference.scale, reference.units
    labels = np.ascontiguousarray(labels, dtype=label_dtype(int(labels.max(initial=0))))
    known = (letter if letter in "TZAPRHEQYX" else "Q" for letter in axes.upper())
    axes = distinct_axes("".join(known))
    sizes = _ome_size_attributes(scale, units)
    resolution = _pixels_per_centimeter(scale, units)
    names: dict[str, Any] = {"Name": reference.name} if reference.name else {}
    if reference.channels and reference.name:  # a label image has no channels of its own
        names["MapAnnotation"] = {f"channel {n}": c for n, c in enumerate(reference.channels)}
    tags = place_tags(reference.world)
    names |= _stage_planes(reference, math.prod(labels.shape[:-2]))
    # The UUID is one of the content, so that equal content gives equal files.
    kind: tuple[Any, ...] = (labels.shape, labels.dtype.name, axes, sorted(sizes.items()))
    kind += (*(each for each in (names, tags) if each),)
    digest = hashlib.sha256(repr(kind).encode())
    digest.update(labels.astype(labels.dtype.newbyteorder("<"), copy=False).data)
    tifffile.imwrite(
        path,
        labels,
        ome=True,
        bigtiff=labels.nbytes > 2**32 - 2**25,
        compression="zlib",
        photometric="minisblack",
        resolution=resolution,
        resolutionunit=None if resolution is None else "CENTIMETER",
        software=SOFTWARE,
        extratags=[(*tag, True) for tag in tags],
        metadata={
            "axes": axes,
            "Creator": SOFTWARE,
            "UUID": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest.hexdigest())}",
            **sizes,
            **names,
        },
    )


def write_channels_tiff(
    path: Path,
    channels: Mapping[str, NDArray[Any]],
    *,
    axes: str,
    reference: ImageReference,
    description: str = "",
    missing: int | None = None,
) -> None:
    """Write an image of several channels with their names, pixel size and place on a map.

    A plane on a map is a GeoTIFF with a band for each channel, as GDAL writes it; anything else is
    OME-TIFF.

    Parameters
    ----------
    path
        The file to write; any suffix.
    channels
        By name, (..., Y, X) of one shape and type.
    axes, reference
        A letter for each axis; what the image keeps of that which it was made from.
    description
        What was done to it.
    missing
        The value of pixels without data, if there are any.
    """
    import tifffile

    tags = [(*tag, True) for tag in place_tags(reference.world)]
    is_map = bool(tags) and axes == "YX"
    if missing is not None:
        tags.append((GDAL_NODATA, ASCII, 0, str(missing), True))
    values = np.stack(list(channels.values()), axis=-3)
    common: dict[str, Any] = {
        "photometric": "minisblack",
        "bigtiff": values.nbytes > 2**32 - 2**25,
        "software": SOFTWARE,
    }
    if is_map:
        tags.append((GDAL_METADATA, ASCII, 0, _band_descriptions(list(channels)), True))
        if len(channels) > 1:
            common["planarconfig"] = "separate"
        stored = values if len(channels) > 1 else values[0]
        about = description or None
        tifffile.imwrite(path, stored, extratags=tags, description=about, metadata=None, **common)
        return
    scale, units = reference.scale, reference.units
    resolution = _pixels_per_centimeter(scale, units)
    known = (letter if letter in "TZAPRHEQYX" else "Q" for letter in axes.upper())
    letters = distinct_axes("".join(known))
    digest = hashlib.sha256(repr((values.shape, values.dtype.name, list(channels))).encode())
    digest.update(np.ascontiguousarray(values).data)
    metadata: dict[str, Any] = {
        "axes": f"{letters[:-2]}CYX",
        "UUID": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest.hexdigest())}",
        "Channel": {"Name": list(channels)},
        **_ome_size_attributes(scale, units),
        **({"Name": reference.name} if reference.name else {}),
        **({"Description": description} if description else {}),
        **_stage_planes(reference, math.prod(values.shape[:-2])),
    }
    tifffile.imwrite(
        path,
        values,
        ome=True,
        metadata=metadata,
        extratags=tags,
        resolution=resolution,
        resolutionunit=None if resolution is None else "CENTIMETER",
        **common,
    )


def _stage_planes(reference: ImageReference, count: int) -> dict[str, Any]:
    """What tifffile takes for `count` planes at the position of the stage; empty without one."""
    known: dict[str, list[object]] = {}
    for axis, (position, unit) in reference.stage.items():
        known[f"Position{axis}"] = [position] * count
        known[f"Position{axis}Unit"] = [unit] * count
    return {"Plane": known} if known else {}


def _band_descriptions(names: Sequence[str]) -> str:
    """Names of bands as GDAL writes them."""
    root = ElementTree.Element("GDALMetadata")
    for number, name in enumerate(names):
        about = {"name": "DESCRIPTION", "sample": str(number), "role": "description"}
        ElementTree.SubElement(root, "Item", about).text = name
    return ElementTree.tostring(root, encoding="unicode")


def _ome_size_attributes(scale: Mapping[str, float], units: Mapping[str, str]) -> dict[str, object]:
    """OME attributes of the pixel size, for units that OME has."""
    sizes: dict[str, object] = {}
    for axis in "XYZ":
        unit = OME_LENGTHS.get(units.get(axis, ""))
        if axis in scale and unit is not None:
            sizes[f"PhysicalSize{axis}"] = float(scale[axis])
            sizes[f"PhysicalSize{axis}Unit"] = unit[0]
    unit_of_time = OME_TIMES.get(units.get("T", ""))
    if "T" in scale and unit_of_time is not None:
        sizes["TimeIncrement"] = float(scale["T"])
        sizes["TimeIncrementUnit"] = unit_of_time
    return sizes


def _pixels_per_centimeter(
    scale: Mapping[str, float], units: Mapping[str, str]
) -> tuple[float, float] | None:
    """TIFF's resolution (X, Y), for readers without OME; None if unknown."""
    lengths = [scale.get(a, 0) * OME_LENGTHS.get(units.get(a, ""), ("", 0.0))[1] for a in "XY"]
    # A TIFF rational holds 32 bits.
    if not all(length > 0 and 1e-4 < 1 / length < 1e9 for length in lengths):
        return None
    return 1 / lengths[0], 1 / lengths[1]

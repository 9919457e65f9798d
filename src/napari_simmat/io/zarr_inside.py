"""Labels within the OME-Zarr image that they are of, in its version: ``labels/simmat``.

As the specification has it, the group ``labels`` lists its images, and each names its source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat.io.files import atomic_write
from napari_simmat.io.limits import Limits
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.zarr import (
    BIOFORMATS_LAYOUT,
    ZarrVersion,
    attributes_of,
    axes_problem,
    complete_labels,
    create_labels,
    is_zarr,
    zarr_plane_axes,
)

NAME = "simmat"
"""Of the label image."""
VERSIONS: tuple[ZarrVersion, ...] = ("0.4", "0.5", "0.6")
NO_ZARR = "Labels are written within OME-Zarr images only; {} is none."
OLD = (
    "Labels are written within OME-Zarr of the versions {}; {} is of {}. Convert it, or write them "
    "beside it (--zarr)."
)


def place_inside(image: Path) -> Path:
    """Where the labels of an image are, if they are within it."""
    inner = image / "0"
    is_first = BIOFORMATS_LAYOUT in attributes_of(image) and inner.is_dir()
    return (inner if is_first else image) / "labels" / NAME


def inside_problem(axes: str, reference: ImageReference) -> str:
    """Why labels cannot be written within their image, in one sentence; empty if they can."""
    image = reference.file
    if image is None or not (image.is_dir() and is_zarr(image)):
        return NO_ZARR.format("the image" if image is None else image.name)
    path = place_inside(image)
    version = version_of(path.parents[1])
    if version not in VERSIONS:
        return OLD.format(", ".join(VERSIONS), image.name, version or "none")
    own = zarr_plane_axes(path.parents[1])
    # Axes of the objects are dropped where the image has one plane.
    return axes_problem(own if sorted(own) == sorted(axes) else axes)


def version_of(image: Path) -> str:
    """The version of an OME-Zarr image, its first two numbers; empty if it has none.

    Files of 0.4 may leave it out; described axes with sizes in Zarr 2 are of that version.
    """
    attributes = attributes_of(image)
    images = attributes.get("multiscales")
    first = images[0] if isinstance(images, list) and images else {}
    if not isinstance(first, Mapping):
        return ""
    stated = str(attributes.get("version") or first.get("version") or "")
    axes = first.get("axes")
    if not stated and isinstance(axes, list) and all(isinstance(axis, Mapping) for axis in axes):
        stated = "0.4" if (image / ".zattrs").is_file() else ""
    found = re.match(r"\d+\.\d+", stated)
    return found[0] if found else ""


def write_labels_inside(
    folder: Path,
    image: Path,
    labels: Any,
    axes: str,
    reference: ImageReference,
    properties: Mapping[int, Mapping[str, Any]] | None = None,
) -> None:
    """Write the labels of an image for a place within it, where `list_labels` then links them.

    Parameters
    ----------
    folder
        A new folder, which becomes `place_inside` of the image.
    image
        OME-Zarr of one of `VERSIONS`.
    labels, axes, reference, properties
        As of `write_labels_zarr`.
    """
    group = place_inside(image).parents[1]
    version = next(v for v in VERSIONS if v == version_of(group))
    own = zarr_plane_axes(group)
    if sorted(own) == sorted(axes):  # in the order of the image, on which they are shown
        labels, axes = np.transpose(labels, [axes.index(letter) for letter in own]), own
    array = create_labels(
        folder, NAME, labels.shape, axes, reference, labels.dtype, version, source="../../"
    )
    array[...] = labels
    complete_labels(folder, properties)


def list_labels(image: Path) -> None:
    """Name the labels within an image in the list of its label images.

    Where metadata is consolidated, programs see only what the copy has; it is brought up to date.
    """
    path = place_inside(image)
    group = path.parent
    version = version_of(group.parent)
    is_old = version == "0.4"
    file = group / (".zattrs" if is_old else "zarr.json")
    values = _read_json(file) if file.is_file() else {}
    if is_old:
        described = values
        if not (group / ".zgroup").is_file():
            _write_json(group / ".zgroup", {"zarr_format": 2})
    else:
        values = {"zarr_format": 3, "node_type": "group", "attributes": {}, **values}
        described = values["attributes"].setdefault("ome", {"version": version})
    names = list(described.get("labels") or ())
    if path.name not in names:
        described["labels"] = [*names, path.name]
        _write_json(file, values)
    for above in (group, *group.parents):
        if not is_zarr(above):
            break
        _bring_up_to_date(above, group)


def _bring_up_to_date(above: Path, group: Path) -> None:
    """Copy the metadata of a group into that of a group above, if that holds consolidated copies.

    Zarr 2 has them in a file of their own, by the place of each file; Zarr 3 in the description of
    the group, by the place of each group and array.
    """
    is_old = (above / ".zmetadata").is_file()
    file = above / (".zmetadata" if is_old else "zarr.json")
    values = _read_json(file) if file.is_file() else {}
    holder = values if is_old else values.get("consolidated_metadata")
    if not (isinstance(holder, dict) and isinstance(holder.get("metadata"), dict)):
        return
    root = group.relative_to(above).as_posix()
    others = {
        place: said
        for place, said in holder["metadata"].items()
        if root != "." and place != root and not place.startswith(f"{root}/")
    }
    names = (".zgroup", ".zarray", ".zattrs") if is_old else ("zarr.json",)
    found = {}
    for each in sorted(path for name in names for path in group.rglob(name)):
        place = each.relative_to(above) if is_old else each.parent.relative_to(above)
        if place != Path():
            found[place.as_posix()] = {
                key: said
                for key, said in _read_json(each).items()
                if is_old or key != "consolidated_metadata"
            }
    copied = {**others, **found}
    if copied != holder["metadata"]:
        holder["metadata"] = copied
        _write_json(file, values)


def _read_json(path: Path) -> dict[str, Any]:
    Limits().check(path.name, "metadata_bytes", path.stat().st_size, "description")
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return values


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2), encoding="utf-8")

"""Write objects for other programs and read theirs, by the ending of the file's name.

`OBJECT_FORMATS` is the table of formats; each has a module of its own. Equal objects are equal
bytes. Files are untrusted: their sizes are checked first, and nothing in them is executed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from napari_simmat._text import format_list
from napari_simmat.engine.files.coco import read_coco, write_coco
from napari_simmat.engine.files.geojson import (
    geojson_problem,
    map_problem,
    read_geojson,
    write_geojson,
)
from napari_simmat.engine.files.imagej import read_rois, rois_problem, write_rois
from napari_simmat.engine.files.label_images import (
    LABEL_WRITERS,
    label_image_problem,
    read_label_image,
    write_dicom_seg,
    write_label_image,
    write_zarr_labels,
)
from napari_simmat.engine.files.object_set import ObjectSet
from napari_simmat.engine.files.outline_reading import LARGEST_LIST, usual_axes
from napari_simmat.engine.files.spatial import spatial_problem
from napari_simmat.io.dicom_seg import seg_problem
from napari_simmat.io.files import atomic_write, check_size
from napari_simmat.io.readers import IMAGE_ENDINGS
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.refusals import RefusedFileError, unreadable
from napari_simmat.io.zarr import axes_problem, check_is_no_image

OUTLINE_ENDINGS = (".json", ".geojson", ".zip", ".roi")
"""Endings of files of objects that are no images."""
OBJECT_ENDINGS = (*IMAGE_ENDINGS, *OUTLINE_ENDINGS)
"""Endings of all files that `read_objects` reads."""


def read_objects(
    path: Path | str,
    shape: tuple[int, ...] | None = None,
    axes: str = "",
    *,
    image: str = "",
    reference: ImageReference | None = None,
) -> ObjectSet:
    """Read objects from a file, by its ending.

    ======================  ===================================================================
    file                    meaning
    ======================  ===================================================================
    label image             any that `read_labels` reads; classes and scores from
                            ``STEM_objects.csv`` beside it, or OME-Zarr's properties
    ``.json``               COCO: run lengths or polygons; or GeoJSON
    ``.geojson``            polygons; QuPath's classes, and names that are numbers as ids
    ``.zip``, ``.roi``      areas among ImageJ ROIs; names that begin with a number as ids
    ======================  ===================================================================

    Parameters
    ----------
    path
        The file.
    shape, axes
        (..., Y, X) of the image without channels, and a letter for each axis. ROIs and GeoJSON,
        which do not hold the size of their image, need it.
    image
        Name of the image, to find it in a COCO file of several.
    reference
        Where the image is, for GeoJSON in the coordinates of a map.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no object, or is of another image; one sentence says why.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}; check its name and folder.")
    if shape is not None and not axes:
        axes = usual_axes(len(shape))
    if path.suffix.lower() in OUTLINE_ENDINGS and path.is_file():
        check_size(path, LARGEST_LIST)
    try:
        objects = _read(path, shape, axes, image, reference or ImageReference())
    except Exception as error:  # a broken file makes a library raise anything
        raise unreadable(path.name, error) from error
    if not objects.sections:
        left_out = "".join(f" {note}" for note in objects.notes)
        raise ValueError(f"{path.name} has no object on this image.{left_out} Choose another file.")
    return objects


def _read(
    path: Path,
    shape: tuple[int, ...] | None,
    axes: str,
    image: str,
    reference: ImageReference,
) -> ObjectSet:
    ending = path.suffix.lower()
    if ending not in OUTLINE_ENDINGS or path.is_dir():
        return read_label_image(path, shape)
    is_json = ending in (".json", ".geojson")
    values = json.loads(path.read_text("utf-8")) if is_json else None
    if isinstance(values, Mapping) and "annotations" in values and "images" in values:
        return read_coco(path.name, values, shape, axes, image)
    if shape is None:
        raise RefusedFileError(
            f"{path.name} does not say how large its image is; give the image's shape as well."
        )
    if is_json:
        return read_geojson(path.name, values, shape, axes, reference)
    return read_rois(path, shape, axes)


@dataclass(frozen=True)
class ObjectFormat:
    """A format of objects: its title, the ending of file names, and its writer."""

    title: str
    ending: str
    write: Callable[[Path, ObjectSet], None]

    @property
    def suffix(self) -> str:
        """What file dialogs filter by, e.g. ``.ome.zarr``."""
        return self.ending[self.ending.index(".") :]


def _label_image(title: str, ending: str) -> ObjectFormat:
    write = partial(write_label_image, ending=ending)
    return ObjectFormat(f"Label image ({title})", f"_labels{ending}", write)


OBJECT_FORMATS = {
    "labels": _label_image("OME-TIFF", ".tif"),
    "nifti": _label_image("NIfTI", ".nii.gz"),
    "nrrd": _label_image("NRRD", ".nrrd"),
    "mha": _label_image("MetaImage", ".mha"),
    "zarr": ObjectFormat("Label image (OME-Zarr)", "_labels.ome.zarr", write_zarr_labels),
    "coco": ObjectFormat("COCO", "_coco.json", write_coco),
    "rois": ObjectFormat("ImageJ ROIs", "_rois.zip", write_rois),
    "geojson": ObjectFormat("GeoJSON for QuPath", "_objects.geojson", write_geojson),
    "map": ObjectFormat(
        "GeoJSON in map coordinates", "_map.geojson", partial(write_geojson, on_map=True)
    ),
    "seg": ObjectFormat("DICOM SEG", "_seg.dcm", write_dicom_seg),
}
"""Formats that are written, by kind."""
EXTRA_FORMATS = {
    kind: form for kind, form in OBJECT_FORMATS.items() if form.suffix not in LABEL_WRITERS
}
"""Those that are written beside the label image of a batch."""


def format_problem(
    kind: str, shape: Sequence[int], axes: str, reference: ImageReference | None = None
) -> str:
    """Why objects of an image cannot be written in a format, in one sentence; empty if they can."""
    problems = {
        "nifti": partial(label_image_problem, "NIfTI", axes, reference),
        "nrrd": partial(label_image_problem, "NRRD", axes, reference),
        "mha": partial(label_image_problem, "MetaImage", axes, reference),
        "zarr": partial(axes_problem, axes),
        "rois": partial(rois_problem, shape),
        "geojson": partial(geojson_problem, axes),
        "map": partial(map_problem, axes, reference),
        "seg": partial(seg_problem, axes, reference),
        "spatialdata": partial(spatial_problem, axes),
    }
    return problems[kind]() if kind in problems else ""


def write_objects(path: Path | str, objects: ObjectSet) -> None:
    """Write objects in the format of the file's ending, replacing an earlier file.

    Parameters
    ----------
    path
        Ends in ``.tif``, ``.nii.gz``, ``.nrrd``, ``.mha``, ``.ome.zarr``, ``.json`` (COCO),
        ``.zip`` (ImageJ ROIs), ``.geojson`` or ``.dcm`` (DICOM SEG).
    objects
        The objects; overlap is kept by all but the label images.

    Raises
    ------
    ValueError
        If the ending is none of these, or the format cannot hold the image's axes or size.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    kind = format_of(path)
    if problem := format_problem(kind, objects.shape, objects.axes, objects.reference):
        raise ValueError(problem)
    check_is_no_image(path)
    with atomic_write(path) as temporary:
        OBJECT_FORMATS[kind].write(temporary, objects)


def format_of(path: Path) -> str:
    """The format that a file's name means, a key of `OBJECT_FORMATS`; ValueError if none."""
    name = path.name.lower()
    for part in ("ending", "suffix"):  # two formats share a suffix
        for kind, form in OBJECT_FORMATS.items():
            if name.endswith(getattr(form, part)):
                return kind
    endings = format_list(dict.fromkeys(form.suffix for form in OBJECT_FORMATS.values()))
    raise ValueError(f"{path.name} names no format of objects; end its name in one of {endings}.")

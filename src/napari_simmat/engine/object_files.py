"""The objects of an image as values, and their files for other programs.

`ObjectSet` is what every format of objects is written from and read into. `write_objects` writes
label images, COCO, ImageJ ROIs or GeoJSON for QuPath, by the file's ending. Equal objects are equal
bytes.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, format_shape
from napari_simmat.engine.drawing import label_color
from napari_simmat.engine.masks import ObjectMask, label_windows
from napari_simmat.engine.outlines import Ring, contours, polygons
from napari_simmat.io.dicom import seg_problem, write_seg
from napari_simmat.io.files import atomic_write
from napari_simmat.io.image_file import label_dtype
from napari_simmat.io.itk import write_labels_itk
from napari_simmat.io.nifti import write_labels_nifti
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.tiff import write_labels_tiff
from napari_simmat.io.zarr import axes_problem, check_is_no_image, write_labels_zarr


@dataclass(frozen=True, eq=False)
class ObjectSection:
    """An object, or its part on one plane.

    Parameters
    ----------
    label
        The object's id, 1 or more; several sections may share it.
    mask
        Its pixels.
    category
        Its class, or empty.
    score
        The model's estimate of the IoU; NaN if unknown.
    """

    label: int
    mask: ObjectMask
    category: str = ""
    score: float = math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectSet:
    """Objects of one image, which may overlap.

    Parameters
    ----------
    sections
        Plane by plane, in the order of their labels where this program wrote them.
    shape, axes
        (..., Y, X) of the image without channels, and a letter for each axis.
    reference
        Place, pixel size and units of the image.
    classes
        Names of all classes in their order; by default those that occur.
    image
        Name of the image file.
    notes
        What was left out in reading, as sentences.
    """

    sections: Sequence[ObjectSection]
    shape: tuple[int, ...]
    axes: str
    reference: ImageReference = field(default_factory=ImageReference)
    classes: Sequence[str] = ()
    image: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of_labels(
        cls,
        labels: NDArray[Any],
        axes: str,
        *,
        scores: Mapping[Any, float] | None = None,
        categories: Mapping[int, str] | None = None,
        **more: Any,
    ) -> ObjectSet:
        """The objects of a label image (..., Y, X).

        Parameters
        ----------
        labels, axes
            0 is background; a letter for each axis.
        scores
            By label, or by ``(plane, label)``.
        categories
            Class by label.
        more
            As of the class.
        """
        scores, categories = scores or {}, categories or {}
        sections = []
        for plane in np.ndindex(*labels.shape[:-2]):
            values = np.asarray(labels[plane])
            for label, window in label_windows(values):
                corner = (*plane, *(side.start for side in window))
                mask = ObjectMask.of(values[window] == label, corner)
                score = scores.get((plane, label), scores.get(label, math.nan))
                sections.append(ObjectSection(label, mask, categories.get(label, ""), score))
        return cls(sections=sections, shape=tuple(labels.shape), axes=axes, **more)

    @property
    def class_names(self) -> list[str]:
        """The classes in their order; those that occur are never missing."""
        occurring = (section.category for section in self.sections)
        return [name for name in dict.fromkeys((*self.classes, *occurring)) if name]

    def merged(self) -> list[ObjectSection]:
        """One section for each object, over all its planes; its score is the mean."""
        parts: dict[int, list[ObjectSection]] = {}
        for section in self.sections:
            parts.setdefault(section.label, []).append(section)
        found = []
        for label, sections in parts.items():
            boxes = [section.mask.box for section in sections]
            low = np.min([box[0] for box in boxes], axis=0)
            high = np.max([box[1] for box in boxes], axis=0)
            voxels = np.zeros(high - low, bool)
            for section in sections:
                at = np.subtract(section.mask.corner, low)
                voxels[tuple(map(slice, at, at + section.mask.shape))] |= section.mask.mask
            category = next((one.category for one in sections if one.category), "")
            scores = [one.score for one in sections if not math.isnan(one.score)]
            score = sum(scores) / len(scores) if scores else math.nan
            mask = ObjectMask.of(voxels, tuple(low.tolist()))
            found.append(ObjectSection(label, mask, category, score))
        return found

    def labels(self) -> NDArray[Any]:
        """The label image; of overlapping objects that with the higher score, then the earlier."""
        highest = max((section.label for section in self.sections), default=0)
        painted = np.zeros(self.shape, label_dtype(highest))
        for section in sorted(self.sections, key=lambda one: -np.nan_to_num(one.score))[::-1]:
            painted[section.mask.region][section.mask.mask] = section.label
        return painted

    def by_plane(self) -> Iterator[tuple[tuple[int, ...], list[tuple[ObjectSection, ObjectMask]]]]:
        """Each plane, with the sections on it and their masks there."""
        on: dict[tuple[int, ...], list[tuple[ObjectSection, ObjectMask]]] = {}
        for section in self.sections:
            for plane in section.mask.planes():
                at = tuple(np.subtract(plane, section.mask.corner[:-2]).tolist())
                corner = (*plane, *section.mask.corner[-2:])
                here = ObjectMask.of(section.mask.mask[at], corner)
                on.setdefault(plane, []).append((section, here))
        for plane in np.ndindex(*self.shape[:-2]):
            yield plane, on.get(plane, [])


NO_CLASS = "object"
"""Category of COCO objects without a class."""
ROI_END = 60_536
"""ImageJ ROIs hold no coordinate above this."""
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold."""


def write_coco(path: Path, objects: ObjectSet) -> None:
    """Write objects as COCO JSON: one image per plane, run lengths that keep every pixel.

    Segmentations are uncompressed run lengths, which ``pycocotools`` reads, with ``iscrowd`` 0.
    Objects without a class are of the category `NO_CLASS`.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names = objects.class_names
    if not names or any(not section.category for section in objects.sections):
        names = [NO_CLASS, *(name for name in names if name != NO_CLASS)]
    height, width = objects.shape[-2:]
    for plane, sections in objects.by_plane():
        image: dict[str, Any] = {"id": len(images) + 1, "file_name": objects.image}
        image |= {"width": width, "height": height}
        if plane:
            image["plane"] = list(plane)
        images.append(image)
        for section, mask in sections:
            top, left = mask.corner[-2:]
            rows, columns = mask.shape[-2:]
            runs = _run_lengths(mask, height, width)
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image["id"],
                "category_id": 1 + names.index(section.category or NO_CLASS),
                "label": section.label,
                "segmentation": {"size": [height, width], "counts": runs},
                "area": mask.size,
                "bbox": [left, top, columns, rows],
                "iscrowd": 0,
            }
            if not math.isnan(section.score):
                annotation["score"] = round(section.score, 6)
            annotations.append(annotation)
    values = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }
    _write_json(path, values)


def _run_lengths(mask: ObjectMask, height: int, width: int) -> list[int]:
    """Run lengths down the columns of the image, background and object in turn."""
    top, left = mask.corner[-2:]
    columns, rows = np.nonzero(mask.mask.reshape(mask.shape[-2:]).T)
    positions = (left + columns) * height + top + rows
    breaks = np.flatnonzero(np.diff(positions) > 1)
    first = positions[np.concatenate(([0], breaks + 1))]
    last = positions[np.concatenate((breaks, [len(positions) - 1]))] + 1
    edges = np.stack([first, last], axis=1).ravel()
    runs = np.diff(np.concatenate(([0], edges, [height * width])))
    return (runs[:-1] if runs[-1] == 0 else runs).tolist()  # type: ignore[no-any-return]


def write_rois(path: Path, objects: ObjectSet) -> None:
    """Write objects as ImageJ ROIs, one for each plane of an object.

    Outlines run between the centers of inner and outer pixels, so that ImageJ fills exactly the
    object's pixels. The class is ImageJ's group, and the property ``class``.
    """
    names = objects.class_names
    with zipfile.ZipFile(path, "w") as archive:
        for plane, sections in objects.by_plane():
            where = "".join(
                f"-{letter.lower()}{i + 1:04d}"
                for letter, i in zip(objects.axes, plane, strict=False)
            )
            for section, mask in sections:
                outlines = contours(mask.mask.reshape(mask.shape[-2:]), mask.corner[-2:])
                roi = _roi(outlines, f"{section.label}{where}")
                if len(plane) == 1:  # its number in a stack; Z and T in a hyperstack
                    roi.position = plane[0] + 1
                else:
                    at = dict(zip(objects.axes, plane, strict=False))
                    roi.z_position = at.get("Z", roi.z_position - 1) + 1
                    roi.t_position = at.get("T", roi.t_position - 1) + 1
                if section.category:
                    roi.group = min(1 + names.index(section.category), 255)
                    roi.props = f"class: {' '.join(section.category.split())}\n"
                entry = zipfile.ZipInfo(f"{roi.name}.roi", _ZIP_TIME)
                archive.writestr(entry, roi.tobytes(), zipfile.ZIP_DEFLATED)


def _roi(outlines: list[Ring], name: str) -> Any:
    """A polygon (N, 2) as x, y; several polygons, as with holes, become one path."""
    import roifile

    if len(outlines) == 1:
        return roifile.ImagejRoi.frompoints(outlines[0].astype(np.float32), name=name)
    roi = roifile.ImagejRoi(name=name, roitype=roifile.ROI_TYPE.RECT)
    points = np.concatenate(outlines)
    roi.left, roi.top = (int(value) for value in np.floor(points.min(axis=0)))
    roi.right, roi.bottom = (int(value) for value in np.ceil(points.max(axis=0)))
    move, line, close = 0.0, 1.0, 4.0
    path: list[float] = []
    for outline in outlines:
        for number, (x, y) in enumerate(outline.tolist()):
            path += [line if number else move, x, y]
        path.append(close)
    roi.multi_coordinates = np.array(path, np.float32)
    roi.shape_roi_size = len(path)
    return roi


def write_geojson(path: Path, objects: ObjectSet, on_map: bool = False) -> None:
    """Write objects as GeoJSON that QuPath imports, a detection for each plane of an object.

    On a map, coordinates are those of the image's coordinate reference system, which the file
    names as QGIS and GDAL read it; else they are pixels, and for an image of a map the file's
    layer is called so.

    Polygons run along the edges of pixels, so that QuPath's areas are pixel counts. The class is
    QuPath's classification, the id its name, the score a measurement.
    """
    names, letters = objects.class_names, qupath_axes(objects.axes)
    features = []
    world = objects.reference.world
    is_of_map = world is not None and world.space == "map"

    def placed(ring: Ring) -> list[list[float]]:
        closed = [*ring.tolist(), ring[0].tolist()]
        if not on_map or world is None:
            return closed
        centers = np.array(closed) - 0.5  # edges of pixels count from a corner
        moved: list[list[float]] = (centers @ world.affine[:2, :2].T + world.affine[:2, 3]).tolist()
        return moved

    for plane, sections in objects.by_plane():
        at = dict(zip(letters, plane, strict=True))
        for section, mask in sections:
            found = polygons(mask.mask.reshape(mask.shape[-2:]), mask.corner[-2:])
            lines = [[placed(ring) for ring in each] for each in found]
            several = len(lines) > 1
            geometry: dict[str, Any] = {
                "type": "MultiPolygon" if several else "Polygon",
                "coordinates": lines if several else lines[0],
            }
            if any(at.values()):  # QuPath's default is the first plane
                geometry["plane"] = {"c": -1, "z": at.get("z", 0), "t": at.get("t", 0)}
            properties: dict[str, Any] = {"objectType": "detection", "name": str(section.label)}
            if section.category:
                color = list(label_color(1 + names.index(section.category)))
                properties["classification"] = {"name": section.category, "color": color}
            if not math.isnan(section.score):
                properties["measurements"] = {"score": round(section.score, 6)}
            features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    about: dict[str, Any] = {"type": "FeatureCollection"}
    if on_map and world is not None:
        about["crs"] = {"type": "name", "properties": {"name": CRS_NAME.format(world.epsg)}}
    elif is_of_map:
        about["name"] = f"pixels of {objects.image}"
    _write_json(path, {**about, "features": features})


CRS_NAME = "urn:ogc:def:crs:EPSG::{}"
"""How GeoJSON names a coordinate reference system."""
NOT_ON_A_MAP = (
    "{} has no coordinate reference system with an EPSG code, so its objects are not written in "
    "the coordinates of a map; give a GeoTIFF that has one."
)


def qupath_axes(axes: str) -> str:
    """Which of QuPath's axes, z and t, each axis before Y and X is."""
    leading = axes[:-2]
    if set(leading) <= {"Z", "T"}:
        return leading.lower()
    if problem := format_problem("geojson", (), axes):
        raise ValueError(problem)
    return "tz"[-len(leading) :]


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, allow_nan=False) + "\n", encoding="utf-8", newline="\n")


LABEL_WRITERS: dict[str, Callable[..., None]] = {
    ".tif": write_labels_tiff,
    ".nii.gz": write_labels_nifti,
    ".nrrd": partial(write_labels_itk, ending=".nrrd"),
    ".mha": partial(write_labels_itk, ending=".mha"),
}
"""Writers of label images by the ending of the file's name; each takes the path, the labels, and
as keywords ``axes`` and ``reference``."""


def label_writer(name: str) -> Callable[..., None]:
    """The writer of a label image by its file's name; OME-TIFF unless another ending is known."""
    known = (ending for ending in LABEL_WRITERS if name.lower().endswith(ending))
    return LABEL_WRITERS[next(known, ".tif")]


def _write_label_image(path: Path, objects: ObjectSet, ending: str) -> None:
    LABEL_WRITERS[ending](path, objects.labels(), axes=objects.axes, reference=objects.reference)


def _write_zarr(path: Path, objects: ObjectSet) -> None:
    properties: dict[int, dict[str, Any]] = {}
    for section in objects.merged():
        known: dict[str, Any] = {"class": section.category} if section.category else {}
        if not math.isnan(section.score):
            known["score"] = round(section.score, 6)
        if known:
            properties[section.label] = known
    name = Path(objects.image).stem or "labels"
    labels = objects.labels()
    write_labels_zarr(path, labels, objects.axes, objects.reference, properties, name)


def _write_seg(path: Path, objects: ObjectSet) -> None:
    classes = {section.label: section.category for section in objects.sections}
    write_seg(path, objects.labels(), objects.reference, classes)


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


OBJECT_FORMATS = {
    **{
        kind: ObjectFormat(
            f"Label image ({title})", f"_labels{ending}", partial(_write_label_image, ending=ending)
        )
        for kind, title, ending in (
            ("labels", "OME-TIFF", ".tif"),
            ("nifti", "NIfTI", ".nii.gz"),
            ("nrrd", "NRRD", ".nrrd"),
            ("mha", "MetaImage", ".mha"),
        )
    },
    "zarr": ObjectFormat("Label image (OME-Zarr)", "_labels.ome.zarr", _write_zarr),
    "coco": ObjectFormat("COCO", "_coco.json", write_coco),
    "rois": ObjectFormat("ImageJ ROIs", "_rois.zip", write_rois),
    "geojson": ObjectFormat("GeoJSON for QuPath", "_objects.geojson", write_geojson),
    "map": ObjectFormat(
        "GeoJSON in map coordinates", "_map.geojson", partial(write_geojson, on_map=True)
    ),
    "seg": ObjectFormat("DICOM SEG", "_seg.dcm", _write_seg),
}
"""Formats that are written, by kind."""
EXTRA_FORMATS = {k: each for k, each in OBJECT_FORMATS.items() if each.suffix not in LABEL_WRITERS}
"""Those that are written beside the label image of a batch."""


def format_problem(
    kind: str, shape: Sequence[int], axes: str, reference: ImageReference | None = None
) -> str:
    """Why objects of an image cannot be written in a format, in one sentence; empty if they can."""
    if kind == "map":
        world = None if reference is None else reference.world
        if world is None or world.epsg is None:
            file = None if reference is None else reference.file
            return NOT_ON_A_MAP.format("The image" if file is None else file.name)
    if kind == "seg":
        return seg_problem(axes, reference)
    if kind == "rois" and max(shape[-2:]) > ROI_END:
        return (
            f"ImageJ ROIs hold no coordinate above {ROI_END:,}, but the image has "
            f"{format_shape(shape)} pixels; choose another format."
        )
    if kind in ("geojson", "map") and len(axes) > 4:
        return (
            f"GeoJSON has planes along depth and time alone, but the image has the axes {axes}; "
            "choose COCO or a label image."
        )
    one_step = {"nifti": "NIfTI", "nrrd": "NRRD", "mha": "MetaImage"}.get(kind)
    if reference is not None and one_step and (found := reference.one_step_problem(one_step)):
        return found
    if kind in ("nrrd", "mha") and len(axes) > 4:
        return f"NRRD and MHA are written with up to four axes, not {axes}; choose OME-TIFF."
    return axes_problem(axes) if kind == "zarr" else ""


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
    for ending in ("ending", "suffix"):  # two formats share a suffix
        for kind, each in OBJECT_FORMATS.items():
            if name.endswith(getattr(each, ending)):
                return kind
    endings = format_list(dict.fromkeys(each.suffix for each in OBJECT_FORMATS.values()))
    raise ValueError(f"{path.name} names no format of objects; end its name in one of {endings}.")

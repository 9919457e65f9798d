"""Optional outputs (overlay picture, COCO JSON, ImageJ ROIs) and thumbnails for the summary.

Equal objects give equal bytes: no times, no random numbers.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.drawing import fullest_plane, overview
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.engine.linking import Lineage, track_table
from napari_simmat.engine.masks import label_windows
from napari_simmat.io.readers import read_labels

if TYPE_CHECKING:
    from napari_simmat.batch.plan import LoadedImage, SegmentedImage, TaskOutcome
    from napari_simmat.models.spec import ModelSpec

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold."""
THUMBNAIL_SIDE = 128
"""Pixels along the longer side of a thumbnail."""


def write_extra(kind: str, path: Path, segmented: SegmentedImage) -> None:
    """Write one optional output.

    Parameters
    ----------
    kind
        One of `batch.plan.EXTRA_ENDINGS`.
    path
        The file to write; any name.
    segmented
        The image and its objects.
    """
    _WRITERS[kind](path, segmented)


def write_overlay(path: Path, segmented: SegmentedImage) -> None:
    """Write a PNG of the image with its objects; of a stack, the plane most covered by them."""
    from PIL import Image

    Image.fromarray(picture_of(segmented)).save(path, format="PNG")


def picture_of(segmented: SegmentedImage) -> NDArray[np.uint8]:
    """The image with its objects (Y, X, 3), downsampled if it does not fit into memory."""
    reduced = segmented.tiles is not None
    return _draw_overlay(segmented.painting.labels, segmented.stack, reduced=reduced)


def _draw_overlay(labels: Any, stack: ChannelStack, *, reduced: bool) -> NDArray[np.uint8]:
    if not reduced:
        return fullest_plane(labels, stack.plane)[1]
    return overview(labels, lambda rows, columns: stack.part((), rows, columns).plane())


def write_coco(path: Path, segmented: SegmentedImage) -> None:
    """Write objects as COCO JSON: one image per plane, run lengths that keep every pixel.

    Segmentations are uncompressed run lengths, which ``pycocotools`` reads, with ``iscrowd`` 0.
    """
    labels, name = segmented.painting.labels, segmented.loaded.task.image.name
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    scores = {(one.plane, one.label): one.score for one in segmented.painting.found}
    height, width = labels.shape[-2:]
    for index in np.ndindex(*labels.shape[:-2]):
        image: dict[str, Any] = {"id": len(images) + 1, "file_name": name}
        image |= {"width": width, "height": height}
        if index:
            image["plane"] = list(index)
        images.append(image)
        for label, runs, box, area in run_lengths(labels[index]):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image["id"],
                "category_id": 1,
                "label": label,
                "segmentation": {"size": [height, width], "counts": runs},
                "area": area,
                "bbox": box,
                "iscrowd": 0,
            }
            if (index, label) in scores:
                annotation["score"] = round(scores[index, label], 6)
            annotations.append(annotation)
    values = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
    }
    path.write_text(json.dumps(values, allow_nan=False) + "\n", encoding="utf-8", newline="\n")


def run_lengths(
    labels: NDArray[Any],
) -> Iterator[tuple[int, list[int], list[int], int]]:
    """Yield label, run lengths, box ``[x, y, width, height]`` and area of each object (Y, X).

    The runs go down the columns and alternate between background and object, background first.
    """
    height = labels.shape[0]
    flat = labels.ravel(order="F")
    order = np.argsort(flat, kind="stable")
    values, starts = np.unique(flat[order], return_index=True)
    for value, positions in zip(values.tolist(), np.split(order, starts[1:]), strict=True):
        if value == 0:
            continue
        breaks = np.flatnonzero(np.diff(positions) > 1)
        first = positions[np.concatenate(([0], breaks + 1))]
        last = positions[np.concatenate((breaks, [len(positions) - 1]))] + 1
        edges = np.stack([first, last], axis=1).ravel()
        ends = np.concatenate(([0], edges, [flat.size]))
        runs = np.diff(ends)
        if runs[-1] == 0:
            runs = runs[:-1]
        rows, columns = positions % height, positions // height
        y0, x0 = int(rows.min()), int(columns.min())
        box = [x0, y0, int(columns.max()) - x0 + 1, int(rows.max()) - y0 + 1]
        yield value, runs.tolist(), box, len(positions)


def write_rois(path: Path, segmented: SegmentedImage) -> None:
    """Write objects as ImageJ ROIs, one for each plane of an object.

    Outlines run between the centers of inner and outer pixels, so that ImageJ fills exactly the
    object's pixels.
    """
    from skimage.measure import find_contours

    labels, axes = segmented.painting.labels, segmented.loaded.axes
    with zipfile.ZipFile(path, "w") as archive:
        for index in np.ndindex(*labels.shape[:-2]):
            where = "".join(
                f"-{letter.lower()}{i + 1:04d}" for letter, i in zip(axes, index, strict=False)
            )
            plane = labels[index]
            for label, window in label_windows(plane):
                # Contours count from pixel centers, ImageJ from pixel corners.
                lines = find_contours(np.pad(plane[window] == label, 1).astype(np.float32), 0.5)
                offset = np.array([side.start for side in window]) - 0.5
                outlines = [(line[:-1] + offset)[:, ::-1] for line in lines]
                roi = _roi(outlines, f"{label}{where}")
                _set_position(roi, axes[:-2], index)
                entry = zipfile.ZipInfo(f"{roi.name}.roi", _ZIP_TIME)
                archive.writestr(entry, roi.tobytes(), zipfile.ZIP_DEFLATED)


def write_tracks(path: Path, segmented: SegmentedImage) -> None:
    """Write the tracks of linked objects as the Cell Tracking Challenge's ``res_track.txt``.

    In an image of one frame each object is a track.
    """
    lineage = segmented.lineage or Lineage.of_labels(segmented.painting.labels[np.newaxis])
    path.write_text(track_table(lineage.tracks()), encoding="ascii", newline="\n")


def _roi(outlines: list[NDArray[np.float64]], name: str) -> Any:
    """A polygon (N, 2) as x, y; several polygons, as with holes, become one path."""
    roifile = _roifile()
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


def _set_position(roi: Any, axes: str, index: tuple[int, ...]) -> None:
    """Set the plane of a region: its number in a stack, Z and T in a hyperstack."""
    if len(index) == 1:
        roi.position = index[0] + 1
        return
    for letter, i in zip(axes, index, strict=True):
        if letter == "Z":
            roi.z_position = i + 1
        elif letter == "T":
            roi.t_position = i + 1


def _roifile() -> Any:
    try:
        return import_module("roifile")
    except ImportError:
        raise ValueError(
            "ImageJ's regions of interest need the package roifile; install it (pip install "
            '"napari-simmat[formats]"), or leave this output out.'
        ) from None


def draw_thumbnail(segmented: SegmentedImage) -> bytes:
    """A PNG of the image with its objects."""
    return _small_png(picture_of(segmented))


def with_kept_thumbnail(
    outcome: TaskOutcome,
    loaded: LoadedImage,
    spec: ModelSpec,
    channels: tuple[int | str, ...] | None,
) -> TaskOutcome:
    """The outcome of a task whose outputs were kept, with a thumbnail drawn from them."""
    stack = ChannelStack.build(
        loaded.image.data,
        inputs=spec.inputs,
        channel_axis=loaded.axis,
        channels=channels,
        names=loaded.channel_names,
    )
    files = loaded.task.files
    labels = read_labels(files.labels).data
    if not files.are_in_zarr:
        labels = np.asarray(labels).reshape(stack.shape)
    picture = _draw_overlay(labels, stack, reduced=files.are_in_zarr)
    return replace(outcome, thumbnail=_small_png(picture))


def _small_png(picture: NDArray[Any]) -> bytes:
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


_WRITERS: dict[str, Callable[[Path, SegmentedImage], None]] = {
    "overlay": write_overlay,
    "coco": write_coco,
    "rois": write_rois,
    "tracks": write_tracks,
}

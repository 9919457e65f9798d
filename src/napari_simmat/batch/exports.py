"""Optional outputs (overlay picture, objects in other formats) and thumbnails for the summary.

Equal objects give equal bytes: no times, no random numbers.
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.drawing import fullest_plane, overview
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.engine.linking import Lineage, track_table
from napari_simmat.engine.measurements import PixelSize
from napari_simmat.engine.object_set import ObjectSet
from napari_simmat.engine.object_writers import OBJECT_FORMATS
from napari_simmat.io.readers import read_labels

if TYPE_CHECKING:
    from napari_simmat.batch.plan import LoadedImage, SegmentedImage, TaskOutcome
    from napari_simmat.models.spec import ModelSpec

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
    if kind == "overlay":
        write_overlay(path, segmented)
    elif kind == "tracks":
        write_tracks(path, segmented)
    else:
        OBJECT_FORMATS[kind].write(path, objects_of(segmented))


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


def write_tracks(path: Path, segmented: SegmentedImage) -> None:
    """Write the tracks of linked objects as the Cell Tracking Challenge's ``res_track.txt``.

    In an image of one frame each object is a track.
    """
    lineage = segmented.lineage or Lineage.of_labels(segmented.painting.labels[np.newaxis])
    path.write_text(track_table(lineage.tracks()), encoding="ascii", newline="\n")


def objects_of(segmented: SegmentedImage) -> ObjectSet:
    """The objects of a segmented image, with their scores on each plane."""
    painting, loaded = segmented.painting, segmented.loaded
    return ObjectSet.of_labels(
        painting.labels,
        loaded.axes,
        scores={(one.plane, one.label): one.score for one in painting.found},
        size=PixelSize(scale=loaded.image.scale, units=loaded.image.units),
        image=loaded.task.image.name,
    )


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

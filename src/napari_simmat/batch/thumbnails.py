"""Small pictures of results for the report."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.formats.reading import read_labels
from napari_simmat.engine.images import ChannelStack
from napari_simmat.engine.jobs.extras import picture_of
from napari_simmat.engine.overlays import fullest_plane, overview

if TYPE_CHECKING:
    from napari_simmat.engine.jobs.tasks import Loaded, Outcome, Segmented
    from napari_simmat.model.spec import ModelSpec

SIDE = 128
"""Pixels along the longer side."""


def thumbnail_of(segmented: Segmented) -> bytes:
    """A PNG of the image with its objects."""
    return _small_png(picture_of(segmented))


def thumbnail_of_kept(
    outcome: Outcome, loaded: Loaded, spec: ModelSpec, channels: tuple[int | str, ...] | None
) -> Outcome:
    """The outcome of a task whose outputs were kept, with a picture made from them."""
    task, image = loaded.task, loaded.image
    stack = ChannelStack.build(
        image.data,
        inputs=spec.inputs,
        channel_axis=loaded.axis,
        channels=channels,
        names=image.channel_names if loaded.axis == image.channel_axis else None,
    )
    labels = read_labels(task.files.labels).data
    if task.files.are_in_zarr:
        picture = overview(labels, lambda rows, columns: stack.part((), rows, columns).plane())
    else:
        _, picture = fullest_plane(np.asarray(labels).reshape(stack.shape), stack.plane)
    return replace(outcome, thumbnail=_small_png(picture))


def _small_png(picture: NDArray[Any]) -> bytes:
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()

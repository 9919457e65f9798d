"""An image whose labels are not held in memory: segmented tile by tile into OME-Zarr."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_simmat.engine.files import DiskFullError, output_error, partial_path, remove
from napari_simmat.engine.formats.label_zarr import create_labels
from napari_simmat.engine.jobs.tasks import Loaded, SegmentConfig
from napari_simmat.engine.objects import Found, Painting
from napari_simmat.progress import Job

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

_UNITS = {"um": "micrometer", "nm": "nanometer", "mm": "millimeter", "cm": "centimeter"}
"""Units of length as OME-Zarr spells them."""


def segmenting_in_tiles(
    loaded: Loaded, predictor: Predictor, config: SegmentConfig
) -> Job[tuple[Painting, Path]]:
    """Segment everything in a plane of any size.

    Returns
    -------
    tuple
        The objects, and the folder beside their place where their labels lie until they are
        written.
    """
    from napari_simmat.engine.automatic.tiled import segmenting_tiles

    image, target = loaded.image, loaded.task.files.labels
    yield from opening(loaded, predictor, config)
    folder = partial_path(target)
    unit = _UNITS.get(image.units.get("X", ""), "")
    pixel = (image.scale.get("Y", 1.0), image.scale.get("X", 1.0)) if unit else (1.0, 1.0)
    height, width = loaded.shape
    labels = None
    try:
        labels = create_labels(
            folder, target.name.removesuffix(".ome.zarr"), (height, width), pixel, unit
        )
        scores = yield from segmenting_tiles(predictor, labels, loaded.automatic)
    except BaseException as error:
        with suppress(OSError):
            remove(folder)
        if isinstance(error, OSError):
            said = output_error(error, target)
            if labels is None or isinstance(said, DiskFullError):  # else perhaps the image's file
                raise said from error
        raise
    painting = Painting((height, width), labels)
    painting.found = [Found(label, float(score)) for label, score in enumerate(scores, start=1)]
    return painting, folder


def opening(loaded: Loaded, predictor: Predictor, config: SegmentConfig) -> Job[None]:
    """Hand over an image, of which nothing is encoded yet."""
    image = loaded.image
    names = image.channel_names if loaded.axis == image.channel_axis else None
    yield from predictor.opening(
        image.data, loaded.axis, config.channels, names, pixel_size=image.pixel_size
    )

"""A result of a batch run, read to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from napari_simmat.batch.record import read_record
from napari_simmat.io.axes import same_except_singletons
from napari_simmat.io.image_file import ImageFile
from napari_simmat.io.readers import read_image, read_labels, stem_of
from napari_simmat.progress import Job, Progress


class OpenedResult(NamedTuple):
    """An image and its labels (..., Y, X), ready to be shown; `made` is from their record."""

    name: str
    image: ImageFile
    labels: Any
    made: Mapping[str, Any]


def open_result_job(image: Path, labels: Path) -> Job[OpenedResult]:
    """Read an image and its labels; large ones stay on disk."""
    yield Progress(0, 0, f"Opening {image.name}")
    file = read_image(image)
    yield Progress(0, 0, f"Opening {labels.name}")
    values = read_labels(labels).data
    if values.shape != file.shape and same_except_singletons(values.shape, file.shape):
        values = np.asarray(values).reshape(file.shape)  # TIFF drops axes of length one
    made: Mapping[str, Any] = {}
    with suppress(ValueError, OSError):
        made = read_record(labels.with_name(f"{stem_of(image)}.json")).provenance()
    return OpenedResult(image.name, file, values, made)

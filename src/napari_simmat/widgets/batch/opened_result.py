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
    children: Any = None
    """Labels of the smaller objects within; None if they were not looked for."""


def open_result_job(image: Path, labels: Path, children: Path | None = None) -> Job[OpenedResult]:
    """Read an image and its labels; large ones stay on disk."""
    yield Progress(0, 0, f"Opening {image.name}")
    file = read_image(image)
    made: Mapping[str, Any] = {}
    with suppress(ValueError, OSError):
        record = read_record(labels.with_name(f"{stem_of(image)}.json"))
        made = record.provenance()
        file = record.request.settings.selection.stated(file)
    yield Progress(0, 0, f"Opening {labels.name}")
    values = _labels_of(labels, file)
    within = None if children is None else _labels_of(children, file)
    return OpenedResult(image.name, file, values, made, within)


def _labels_of(path: Path, image: ImageFile) -> Any:
    """The labels with the axes of length one that a TIFF drops."""
    values = read_labels(path).data
    if values.shape != image.shape and same_except_singletons(values.shape, image.shape):
        values = np.asarray(values).reshape(image.shape)
    return values

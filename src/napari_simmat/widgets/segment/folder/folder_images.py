"""The images of a folder, with the results beside them, and one of them read."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from napari.layers import Image

from napari_simmat.annotation.history import ObjectEntry
from napari_simmat.batch.inputs import shown_name
from napari_simmat.batch.outputs import CERTAINTY
from napari_simmat.batch.plan import EXTRA_ENDINGS, TRACKS, find_images
from napari_simmat.engine.files.label_images import LABEL_WRITERS, class_of, table_beside
from napari_simmat.engine.tracking.linking import read_parents
from napari_simmat.io.captures import found_text, home_of, propose_in
from napari_simmat.io.readers import read_image, read_labels, stem_of
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.readers import image_layer_data
from napari_simmat.widgets.worker import sentence


@dataclass(frozen=True)
class FolderImage:
    """One image of the list, a file or a folder, the folder of its results, and its usual place."""

    path: Path
    results: Path
    number: int

    @property
    def name(self) -> str:
        """Its name for the user."""
        return shown_name(self.path)

    @property
    def session(self) -> Path:
        """The file of the saved session."""
        return self.results / f"{stem_of(self.path)}_session.jsonl"

    @property
    def labels(self) -> Path:
        """The file of the saved labels, or where they will be."""
        stem = stem_of(self.path)
        paths = [self.results / f"{stem}_labels{suffix}" for suffix in LABEL_WRITERS]
        return next((path for path in paths if path.exists()), paths[0])

    def known(self) -> dict[int, ObjectEntry]:
        """What the table of an earlier result says of its objects, by their labels."""
        try:
            rows = table_beside(self.labels)
        except (OSError, ValueError, csv.Error):
            return {}
        return {label: _entry_of(row) for label, row in rows.items()}

    @property
    def is_done(self) -> bool:
        """Whether something was saved for it."""
        return self.session.exists() or self.labels.exists()


class ImageList(NamedTuple):
    """The images to go through, and the numbers of those that were done when they were listed.

    The `proposal` is a pattern of captures that the names in the folder look like, `found` says
    what it finds.
    """

    images: Sequence[FolderImage]
    done: set[int]
    proposal: str = ""
    found: str = ""


def list_folder_job(folder: Path, by_score: bool) -> Job[ImageList]:
    """List the images of a folder and its subfolders; results go beside each.

    Raises ValueError or OSError if there are none.
    """
    yield Progress(0, 1, f"Listing {folder.name}")
    images = [
        FolderImage(each.image, home_of(each.image), number)
        for number, each in enumerate(find_images([folder]))
    ]
    listed = yield from look_for_results_job(images, by_score)
    proposal = propose_in(folder) if folder.is_dir() else ""
    return listed._replace(proposal=proposal, found=found_text(proposal) if proposal else "")


def look_for_results_job(images: Sequence[FolderImage], by_score: bool) -> Job[ImageList]:
    """Look which images are done: a folder on a network may take its time.

    With `by_score` those of which the model was least certain come first, those without a result
    last.
    """
    found = []
    for number, image in enumerate(images):
        yield Progress(number, len(images), "Looking for results")
        known = image.known().values() if by_score else [ObjectEntry(0.0)]
        scores = [entry.score for entry in known if math.isfinite(entry.score)]
        score = fmean(scores) if scores else math.inf
        found.append((score, image.number, image, image.is_done))
    found.sort(key=lambda each: each[:2])
    done = {number for number, (*_, is_done) in enumerate(found) if is_done}
    return ImageList([image for _, _, image, _ in found], done)


class ReadImage(NamedTuple):
    """An image that was read and is not in the viewer yet.

    `labels` are those of an earlier result without a session, `known` what its tables say of its
    objects; `problem` says why they cannot be shown.
    """

    image: FolderImage
    layer: Image
    labels: np.ndarray | None = None
    known: Mapping[int, ObjectEntry] = MappingProxyType({})
    problem: str = ""


def open_image_job(image: FolderImage) -> Job[ReadImage]:
    """Read an image, and the labels of an earlier result."""
    yield Progress(0, 2, image.name)
    data, options, _ = image_layer_data(read_image(image.path))
    layer = Image(data, **options)
    if image.session.exists() or not image.labels.exists():
        return ReadImage(image, layer)
    yield Progress(1, 2, image.labels.name)
    try:
        labels = np.asarray(read_labels(image.labels).data)
        tracks = image.results / f"{stem_of(image.path)}{EXTRA_ENDINGS[TRACKS]}"
        parents = read_parents(tracks.read_text("ascii") if tracks.is_file() else "")
    except (ValueError, TypeError, OSError) as error:
        return ReadImage(image, layer, problem=sentence(error))
    is_small = labels.max(initial=0) <= np.iinfo(np.int32).max
    labels = labels.astype(np.int32 if is_small else np.int64)
    known = image.known()
    for label, parent in parents.items():
        known[label] = replace(known.get(label, ObjectEntry()), parent=parent)
    return ReadImage(image, layer, labels, known)


def _entry_of(row: Mapping[str, str]) -> ObjectEntry:
    """What a row of a table of objects says of one."""
    category, certainty = class_of(row), _number(row, CERTAINTY)
    is_named = bool(category) and math.isfinite(certainty)
    score = _number(row, "score")
    return ObjectEntry(score, category, certainty=certainty if is_named else None)


def _number(row: Mapping[str, str], column: str) -> float:
    """The finite number in a column; NaN if there is none."""
    try:
        value = float(row.get(column) or "nan")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan

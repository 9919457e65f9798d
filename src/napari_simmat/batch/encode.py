"""Encode images ahead of use, into the folder of embeddings that the window reads."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_simmat._text import pluralize
from napari_simmat.batch.inputs import InputImage
from napari_simmat.batch.loaded_image import OpenedImage, check_at_once
from napari_simmat.batch.plan import SegmentConfig
from napari_simmat.io.files import OutputError, format_size
from napari_simmat.io.image_file import LAZY_ABOVE
from napari_simmat.io.readers import open_image
from napari_simmat.progress import Job, Progress, within_step

if TYPE_CHECKING:
    from napari_simmat.engine.embeddings import EmbeddingStore
    from napari_simmat.engine.predictor import Predictor

TOO_MANY = (
    "The embeddings of {} need about {}, but {} are kept. Encode fewer images at a time, e.g. with "
    "--pattern."
)
TOO_LITTLE_SPACE = (
    "The embeddings need about {}, but the disk of {} has {} left. Free some space, or encode "
    "fewer images."
)


@dataclass(frozen=True)
class EncodedImage:
    """What became of one image."""

    image: Path
    planes: int = 0
    """Number of its planes; 0 if it could not be read."""
    new: int = 0
    """How many of them were encoded now; the others were there."""
    problem: str = ""
    """Why it could not be encoded, or empty."""
    note: str = ""
    """What is remarked of the file, such as the part that was read."""


def encode_images_job(
    images: Sequence[InputImage], config: SegmentConfig, store: EmbeddingStore | None = None
) -> Job[list[EncodedImage]]:
    """Encode all planes of images; planes that are stored already are skipped.

    Each plane is written when it is encoded, under a temporary name first, so that a run that was
    stopped is resumed by starting it again.

    Parameters
    ----------
    images
        From `find_images`.
    config
        Model, channels, device and precision; the window must use the same.
    store
        Where the embeddings go; by default the user's folder.

    Returns
    -------
    One result for each image. An image that cannot be used does not stop the others.

    Raises
    ------
    ValueError
        If the model cannot be used.
    OutputError
        If the embeddings need more space than `store` keeps or the disk has, or cannot be written.
    """
    from napari_simmat.checkpoints.loading import load_model_job
    from napari_simmat.engine.embeddings import EmbeddingCache, EmbeddingStore
    from napari_simmat.engine.predictor import Predictor

    store = EmbeddingStore() if store is None else store
    # One image is open at a time; here only their shapes are read, of most without the pixels.
    shapes: list[tuple[int, ...] | str] = []
    for one in images:
        yield Progress(len(shapes), len(images), f"looking at {one.image.name}")
        looked = _open(one, config, lazy_above=0)
        shapes.append(looked if isinstance(looked, str) else looked.shape[:-2])
        del looked
    model = yield from within_step(load_model_job(config.model), Progress(0, 0, "loading"))
    cache = EmbeddingCache(0, store)
    predictor = Predictor(model, cache=cache, **asdict(config.compute))
    yield from within_step(predictor.connect_job(), Progress(0, 0, "connecting"))
    total = sum(math.prod(each) for each in shapes if not isinstance(each, str))
    space = _Space(store, total)
    results = []
    done = 0
    for one, shape in zip(images, shapes, strict=True):
        opened = shape if isinstance(shape, str) else _open(one, config)
        if isinstance(opened, str):
            results.append(EncodedImage(one.image, problem=opened))
            continue
        planes = math.prod(opened.shape[:-2])
        before = predictor.encodes
        problem = ""
        try:
            yield from _encode_job(predictor, opened, space, done)
        except OutputError:
            raise
        except (ValueError, TypeError, OSError) as error:
            problem = str(error)
        done += planes
        note = " ".join(opened.image.notes)
        results.append(EncodedImage(one.image, planes, predictor.encodes - before, problem, note))
    return results


def _open(
    one: InputImage, config: SegmentConfig, lazy_above: int = LAZY_ABOVE
) -> OpenedImage | str:
    """Open an image; a sentence if that fails."""
    try:
        part = one.part.over(config.part)
        image = open_image(one.image, lazy_above=lazy_above, part=part, in_parts=True)
        opened = OpenedImage.of(image, one.selection.over(config.selection))
        check_at_once(opened, part)
        return opened
    except (ValueError, TypeError, OSError) as error:
        return str(error)


def _encode_job(predictor: Predictor, opened: OpenedImage, space: _Space, done: int) -> Job[None]:
    """Encode all planes of an image, after `done` planes of others."""
    name = opened.image.path.name
    yield Progress(done, space.planes, f"{name}: opening")
    # A new list each time: the predictor would hold the image before while it opens this one.
    job = predictor.open_image_job(**opened.as_read)
    opening = Progress(done, space.planes, f"{name}: measuring intensities")
    for _ in job:
        yield opening
    for number, plane in enumerate(np.ndindex(*opened.shape[:-2])):
        encodes = predictor.encodes
        step = Progress(done + number, space.planes, f"{name}: {space.words or 'encoding'}")
        yield from within_step(predictor.prefetch_job([plane]), step)
        if predictor.encodes > encodes:
            space.check(done + number)


class _Space:
    """Checks the disk space for `planes` embeddings once the size of one is known."""

    def __init__(self, store: EmbeddingStore, planes: int) -> None:
        self.store, self.planes = store, planes
        self.words = ""

    def check(self, done: int) -> None:
        """Refuse what does not fit, after the plane number `done` was encoded."""
        if self.store.problem:
            raise OutputError(self.store.problem)
        if self.words:
            return
        one = self.store.last_size
        needed = one * (self.planes - done)
        free = shutil.disk_usage(self.store.folder).free
        self.words = f"encoding, about {format_size(needed)} of {format_size(free)} free"
        if needed > self.store.max_bytes:
            limit = format_size(self.store.max_bytes)
            planes = pluralize(self.planes, "plane")
            raise OutputError(TOO_MANY.format(planes, format_size(needed), limit))
        if needed - one > free:
            words = format_size(needed), self.store.folder, format_size(free)
            raise OutputError(TOO_LITTLE_SPACE.format(*words))

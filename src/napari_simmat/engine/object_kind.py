"""What the objects to be found have in common, learned from a few of them in a second.

Their size says how closely a plane is prompted, which of the masks of a click is meant, and how
much less likely a mask of another size is. Where there is known ground, a pixel forest says how
likely each place shows such an object; a mask counts as much less as its pixels do. That likelihood
is compared with what objects reach that the forest has not seen, since five objects teach no
absolute one. `tiny`'s decoder of all objects is tuned on them (`decoder_tuning`) instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.engine.masks import Mask, label_windows
from napari_simmat.engine.pixel_forest import PixelForest, training_classes
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.spec import Model
from napari_simmat.models.taught_kind import GROUND, KindSpec, LooksSpec, TaughtPixels
from napari_simmat.progress import Job

if TYPE_CHECKING:
    from napari_simmat.models.object_decoder import ObjectDecoder

MIN_OBJECTS = 3
"""Objects from which a kind is learned."""
MIN_GROUND = 30
"""Pixels of known ground from which looks are learned."""
FEW = 10
"""Of so few objects the least likely one is what an object may be; of more, one in ten is not."""
MET = 0.75
"""IoU from which an object is found by itself."""
WORTHWHILE = 0.4
"""Share of the known objects found by themselves below which others are hardly found either."""
TOO_FEW = "{} to learn a kind of objects from; {} {} here. Commit more, or label more."


@dataclass(frozen=True, eq=False)
class ObjectKind:
    """A kind of objects.

    Parameters
    ----------
    size
        In pixels of the network's input.
    looks
        Says how likely a pixel is part of such an object; None if no ground is known.
    likelihood
        That of an object which was left out when the looks were learned, the least likely one.
    decoder
        `tiny`'s, tuned to find them; None if they are found by clicks.
    """

    size: ExpectedSize
    looks: PixelForest | None = None
    likelihood: float = 1.0
    decoder: ObjectDecoder | None = None

    @classmethod
    def of(
        cls,
        labels: NDArray[Any],
        enlargement: float = 1.0,
        image: NDArray[np.float32] | None = None,
        ground: Mask | None = None,
        seed: int = 0,
    ) -> ObjectKind:
        """Learn from objects.

        Parameters
        ----------
        labels
            (Y, X) ids of some of the objects; 0 where nothing is known.
        enlargement
            Pixels of the network's input for each pixel of the labels.
        image
            (C, Y, X) in 0..1, all channels that show something.
        ground
            (Y, X), where there is surely no object. On an object it does not count.
        seed
            Of the forest.

        Raises
        ------
        ValueError
            If there are fewer than `MIN_OBJECTS`.
        """
        windows = label_windows(labels)
        if (count := len(windows)) < MIN_OBJECTS:
            wanted = f"{pluralize(MIN_OBJECTS, 'object')} are needed"
            raise ValueError(TOO_FEW.format(wanted, count, is_or_are(count)))
        areas = [np.count_nonzero(labels[window] == n) * enlargement for n, window in windows]
        size = ExpectedSize.of(areas)
        if image is None or ground is None:
            return cls(size)
        objects = np.searchsorted([n for n, _ in windows], labels).astype(np.int32) + 1
        objects = np.where(labels > 0, objects, 0).astype(np.int32)
        free = ground & (objects == 0)
        if np.count_nonzero(training_classes(objects, free) == GROUND) < MIN_GROUND:
            return cls(size)
        looks = PixelForest.of(image, objects, free, seed)
        reached = list(looks.left_out().values())
        least = min(reached) if count <= FEW else float(np.quantile(reached, 1 / FEW))
        return cls(size, looks, max(least, 1e-3))

    @classmethod
    def of_model(cls, model: Model) -> ObjectKind | None:
        """The kind that a model was taught, or of which it learned the size; None if neither."""
        kind = model.spec.kind
        if kind is None:
            size = model.network.expected_size
            return None if size is None else cls(size)
        if kind.decoder:
            return cls(kind.size, decoder=cast("ObjectDecoder | None", model.decoder))
        if kind.looks is None or model.pixels is None:
            return cls(kind.size)
        return cls(kind.size, _forest(model.pixels, kind.looks.seed), kind.looks.likelihood)

    @property
    def spec(self) -> KindSpec:
        """What the description of a model says of it; `looks` holds the pixels."""
        if self.looks is None:
            return KindSpec(size=self.size, decoder=self.decoder is not None)
        looks = LooksSpec(seed=self.looks.seed, likelihood=self.likelihood)
        return KindSpec(size=self.size, looks=looks)

    @property
    def side(self) -> float:
        """Side of a typical object in pixels of the network's input."""
        return math.exp(self.size.log_side)

    def likeness_job(self, image: NDArray[np.float32]) -> Job[NDArray[np.float32] | None]:
        """How likely each place of an image (C, Y, X) shows such an object, (Y, X); None unknown.

        1 is as likely as in an object that was left out.
        """
        if self.looks is None:
            return None
        found = yield from self.looks.likelihood_job(image)
        return found / np.float32(self.likelihood)


@lru_cache(maxsize=1)
def _forest(pixels: TaughtPixels, seed: int) -> PixelForest:
    """Kept for all planes of a stack: it takes seconds to grow."""
    return PixelForest(pixels, seed)


def met_objects(found: NDArray[Any], known: NDArray[Any]) -> int:
    """How many of the known objects (Y, X) are among those that were found (Y, X), at `MET`.

    The known ones taught no more than their size, so it says how well others are found.

    Examples
    --------
    >>> met_objects(np.array([[1, 1, 0, 2, 2, 2, 2]]), np.array([[5, 5, 0, 7, 7, 0, 0]]))
    1
    """
    both = (found > 0) & (known > 0)
    pairs = np.stack([found[both].astype(np.int64), known[both].astype(np.int64)])
    (ours, theirs), shared = np.unique(pairs, axis=1, return_counts=True)
    either = _areas(found, ours) + _areas(known, theirs) - shared
    return len(np.unique(theirs[shared >= MET * either]))


def _areas(labels: NDArray[Any], wanted: NDArray[np.int64]) -> NDArray[np.intp]:
    """The areas in pixels of some of the labels."""
    ids, counts = np.unique(labels, return_counts=True)
    return np.asarray(counts[np.searchsorted(ids, wanted)])

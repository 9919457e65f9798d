"""The kind of objects that a model was taught to look for, as its file holds it.

The description says their size; the pixels that tell how they look are stored beside the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from napari_simmat.io.plain import OMIT_DEFAULT
from napari_simmat.models.expected_size import ExpectedSize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OBJECT, BORDER, GROUND = 1, 2, 3
"""Classes of pixels."""
PIXELS_PER_CLASS = 20_000
"""Pixels of a class that are learned from, at most."""
FEATURES, OWNERS = "looks.features", "looks.owners"
"""Names of the pixels in a file; the second holds classes and objects, (N, 2)."""
NOT_THERE = "it lacks the pixels that tell how its objects look"
NOT_EXPECTED = "it holds pixels of objects that its description does not name"
BROKEN = "the pixels that tell how its objects look are damaged"


@dataclass(frozen=True, kw_only=True)
class LooksSpec:
    """How a classifier of pixels is grown, and what it says of an object that it has not seen.

    Parameters
    ----------
    seed
        The same pixels and seed give the same classifier.
    likelihood
        That of an object which was left out, the least likely one.
    """

    seed: Annotated[int, {"min": 0, "max": 2**32 - 1}] = 0
    likelihood: Annotated[float, {"min": 1e-3, "max": 1}] = 1.0


@dataclass(frozen=True, kw_only=True)
class KindSpec:
    """A kind of objects.

    Parameters
    ----------
    size
        In pixels of the network's input.
    looks
        Of its pixels, if they are known.
    decoder
        Whether the file's decoder of all objects is tuned on them.
    """

    size: ExpectedSize
    looks: Annotated[LooksSpec | None, OMIT_DEFAULT] = None
    decoder: Annotated[bool, OMIT_DEFAULT] = False


@dataclass(frozen=True, eq=False)
class TaughtPixels:
    """Pixels of objects, of their border and of ground, that teach a classifier of pixels.

    Parameters
    ----------
    features
        (N, F) float32, of each pixel.
    classes
        (N,) `OBJECT`, `BORDER` or `GROUND`.
    objects
        (N,) id of the object that a pixel belongs to or borders; 0 on the ground.
    """

    features: NDArray[np.float32]
    classes: NDArray[np.uint8]
    objects: NDArray[np.int32]

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """By their names in a file, whose tensors are of floating point."""
        import numpy as np

        owners = np.stack([self.classes, self.objects], axis=1).astype(np.float32)
        return {FEATURES: self.features, OWNERS: owners}

    @classmethod
    def read(
        cls, arrays: Mapping[str, NDArray[np.float32]], kind: KindSpec | None
    ) -> TaughtPixels | None:
        """Read an untrusted file whose description tells of a `kind`; None if it has no looks.

        Raises
        ------
        ValueError
            If the two do not fit together, or the pixels are damaged.
        """
        import numpy as np

        if kind is None or kind.looks is None:
            if arrays:
                raise ValueError(NOT_EXPECTED)
            return None
        if arrays.keys() != {FEATURES, OWNERS}:
            raise ValueError(NOT_THERE)
        features, owners = arrays[FEATURES], arrays[OWNERS]
        fits = features.ndim == 2 and owners.shape == (len(features), 2)
        if not fits or len(features) > 3 * PIXELS_PER_CLASS:
            raise ValueError(BROKEN)
        classes, objects = owners.T
        known = np.isin(classes, (OBJECT, BORDER, GROUND)).all()
        whole = (objects == np.clip(np.round(objects), 0, 2**24)).all()
        both = (classes == OBJECT).any() and (classes == GROUND).any()
        if not (known and whole and both):
            raise ValueError(BROKEN)
        integers = classes.astype(np.uint8), objects.astype(np.int32)
        return cls(features.astype(np.float32), *integers)

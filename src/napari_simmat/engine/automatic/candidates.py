"""Masks that a model proposes for a plane, kept small, to be sifted again and again."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Box(NamedTuple):
    """Rows ``y0 .. y1 - 1`` and columns ``x0 .. x1 - 1`` of a plane."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The box as an index of the plane."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0


class Candidate(NamedTuple):
    """What is known of one proposed mask without looking at its pixels.

    Attributes
    ----------
    box
        Around the mask, in the plane's pixels.
    area
        Its pixels.
    quality
        The model's own estimate of its IoU; of an alternative to its answer somewhat less.
    stability
        Share of it that stays when the cutoff moves by an offset either way.
    rim
        Share of the outermost pixels of its crop that it covers.
    seed
        Number of the seed whose answer it is.
    seeds_inside
        How many seeds of the same crop lie on it.
    layer
        0 where the whole plane was encoded, higher for smaller crops.
    """

    box: Box
    area: int
    quality: float
    stability: float
    rim: float = 0.0
    seed: int = 0
    seeds_inside: int = 1
    layer: int = 0


@dataclass(eq=False)
class Candidates:
    """All masks that were proposed for one plane.

    Parameters
    ----------
    shape
        Height and width of the plane.
    known
        What is known of each.
    """

    shape: tuple[int, int]
    known: list[Candidate] = field(default_factory=list)
    _bits: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.known)

    @property
    def nbytes(self) -> int:
        """Memory of the masks in bytes."""
        return sum(map(len, self._bits))

    def add(self, candidate: Candidate, mask: NDArray[np.bool_]) -> None:
        """Keep a mask (h, w) over the candidate's box, packed and compressed."""
        self.known.append(candidate)
        self._bits.append(zlib.compress(np.packbits(mask).tobytes(), level=1))

    def mask(self, number: int) -> NDArray[np.bool_]:
        """The mask over its box."""
        height, width = self.known[number].box.size
        packed = np.frombuffer(zlib.decompress(self._bits[number]), np.uint8)
        bits = np.unpackbits(packed, count=height * width)
        return bits.reshape(height, width).astype(bool)

    def boxes(self, numbers: Sequence[int] | NDArray[np.intp]) -> NDArray[np.float32]:
        """Boxes (N, 4) as x0, y0, x1, y1, which is torchvision's order."""
        found = [self.known[number].box for number in numbers]
        return np.array(found, np.float32).reshape(-1, 4)[:, [1, 0, 3, 2]]

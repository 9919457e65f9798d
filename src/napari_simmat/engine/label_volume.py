"""`LabelVolume`: a label image into which masks are painted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MaskScore:
    """A painted mask: the object's label, the predicted IoU, and the plane's index."""

    label: int
    score: float
    plane: tuple[int, ...] = ()


class LabelVolume:
    """A label image (..., Y, X) into which masks are painted.

    Where masks overlap, the one with the higher score keeps the pixel; of equal scores the earlier.

    Attributes
    ----------
    labels
        uint32, numpy by default; or zarr if it does not fit into memory.
    masks
        The painted masks.
    """

    def __init__(self, shape: tuple[int, ...], labels: Any = None) -> None:
        self.labels: Any = np.zeros(shape, dtype=np.uint32) if labels is None else labels
        self.masks: list[MaskScore] = []
        self._best: dict[tuple[int, ...], NDArray[np.float32]] = {}

    def add(
        self, label: int, mask: NDArray[np.bool_], score: float, plane: tuple[int, ...] = ()
    ) -> None:
        """Paint `mask` (Y, X) with `label` into `plane`."""
        best = self._best.get(plane)
        if best is None:
            best = np.full(self.labels.shape[-2:], -np.inf, dtype=np.float32)
            self._best[plane] = best
        wins = mask & (np.float32(score) > best)
        best[wins] = score
        self.labels[plane][wins] = label
        self.masks.append(MaskScore(label, float(score), plane))

    def place(
        self,
        labels: NDArray[np.uint32],
        scores: NDArray[np.float32],
        plane: tuple[int, ...] = (),
    ) -> None:
        """Add the finished objects 1..N (Y, X) of an empty plane, numbered after the last one."""
        last = max((one.label for one in self.masks), default=0)
        self.labels[plane] = np.where(labels > 0, labels + np.uint32(last), 0)
        self.masks += [
            MaskScore(last + number, float(score), plane) for number, score in enumerate(scores, 1)
        ]

    def hidden(self) -> list[int]:
        """Labels without a pixel: their masks are empty or lie under better ones."""
        kept = set(np.unique(self.labels).tolist())
        return sorted({one.label for one in self.masks} - kept)

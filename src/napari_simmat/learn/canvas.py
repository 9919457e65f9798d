"""Pictures of what a model answered, or found, on one plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.learn.instance_score import Matches, figures_of
from napari_simmat.learn.object_score import Agreement, title_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from napari_simmat.engine.prompts import Prompt

LARGE = 640
"""Pictures of planes with longer sides are not enlarged."""


def matches_picture(
    under: NDArray[np.uint8], found: NDArray[Any], truth: NDArray[Any], matches: Matches
) -> Image:
    """What was found automatically on a plane.

    Parameters
    ----------
    under
        The image (Y, X, 3), 0..255.
    found, truth
        Labels (Y, X); the true ones are outlined in white.
    matches
        How they match.
    """
    from napari_simmat.learn.overlay import SCALE, overlay

    scale = 1 if max(truth.shape) > LARGE else SCALE
    first, figures = matches[0], figures_of(matches)
    caption = (
        f"{first.true_positives} matched, {first.false_positives} invented, "
        f"{first.false_negatives} missed; AP50 {figures['ap@50']:.2f}, PQ {figures['pq']:.2f}"
    )
    return overlay(under, found, (), truth, caption, scale)


class Canvas:
    """What a model answered on one plane, to be looked at.

    Parameters
    ----------
    shape
        The plane's size (Y, X).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._found: dict[str, NDArray[np.int64]] = {}
        self._prompts: dict[str, list[Prompt]] = {}
        self._reached: dict[str, list[float]] = {}

    def add(self, column: str, prompt: Prompt, mask: NDArray[np.bool_], reached: Agreement) -> None:
        """Take an answer; where answers overlap, the earlier one stays on top."""
        found = self._found.setdefault(column, np.zeros(self._shape, np.int64))
        found[mask & (found == 0)] = prompt.object or 0
        self._prompts.setdefault(column, []).append(prompt)
        self._reached.setdefault(column, []).append(reached.iou)

    def picture(self, under: NDArray[np.uint8], truth: NDArray[Any]) -> Image:
        """The answers of each column side by side.

        Parameters
        ----------
        under
            The image (Y, X, 3), 0..255.
        truth
            True labels (Y, X), outlined in white.
        """
        from napari_simmat.learn.overlay import SCALE, overlay, side_by_side

        scale = 1 if max(self._shape) > LARGE else SCALE
        return side_by_side(
            [
                overlay(under, found, self._prompts[column], truth, self._caption(column), scale)
                for column, found in self._found.items()
            ]
        )

    def _caption(self, column: str) -> str:
        return f"{title_of(column)}: mean IoU {np.mean(self._reached[column]):.2f}"

"""An image in several views, reflected and rotated, for `tiny`.

The mean over several views (`Symmetry`) errs less than the mask of one (test-time augmentation).
Maps of a view are kept in the image's own geometry, next to those of the image itself, so they are
cropped, cached and moved as these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from napari_simmat.models.network import Encoded


class Symmetry(NamedTuple):
    """One of the eight reflections and rotations of an image.

    Attributes
    ----------
    transposed
        Whether rows and columns are exchanged, before any flip.
    axes
        Axes that are flipped: -2 rows, -1 columns.
    """

    transposed: bool
    axes: tuple[int, ...]

    def apply(self, image: Tensor) -> Tensor:
        """The view of an image (..., H, W)."""
        image = image.mT if self.transposed else image
        return image.flip(self.axes) if self.axes else image

    def undo(self, seen: Tensor) -> Tensor:
        """The image (..., H, W) of a view."""
        image = seen.flip(self.axes) if self.axes else seen
        return image.mT if self.transposed else image

    def points(self, points: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Points (N, K, 2) x, y in the view; `size` is height and width of the view.

        `labels` (N, K) as for `Network.decode_batch`: a box's first corner stays its lower one.
        """
        if self.transposed:
            points = points.flip(-1)
        if self.axes:
            flipped = torch.tensor([axis in self.axes for axis in (-1, -2)], device=points.device)
            last = torch.tensor(size[::-1]).to(points) - 1
            points = torch.where(flipped, last - points, points)
        first, second = (labels == 2)[..., None], (labels == 3)[..., None]
        if bool(first.any()):
            a, b = ((points * corner).sum(1, keepdim=True) for corner in (first, second))
            points = torch.where(first, torch.minimum(a, b), points)
            points = torch.where(second, torch.maximum(a, b), points)
        return points


ALL_VIEWS = tuple(
    Symmetry(transposed, axes)
    for transposed in (False, True)
    for axes in ((), (-1,), (-2,), (-2, -1))
)
"""The eight views; the first is the image itself."""
AVERAGED_VIEWS = ALL_VIEWS[:3] + ALL_VIEWS[4:5]
"""Views that are averaged for the best quality: the image, its two reflections, its transpose."""


def joined_views(encoded: Mapping[Symmetry, Encoded]) -> Encoded:
    """The encoded image together with the other views of it, as maps in its own geometry."""
    image, *others = encoded
    maps = dict(encoded[image].maps)
    for view in others:
        prefix = f"view{ALL_VIEWS.index(view)}."
        seen = encoded[view]
        for name, each in {"embedding": seen.embedding, **seen.maps}.items():
            # In the layout of `each`, as it is stored: the decoder rounds differently in others.
            last = each.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last else torch.contiguous_format
            maps[prefix + name] = view.undo(each).contiguous(memory_format=layout)
    return replace(encoded[image], maps=maps)


def encoded_views(encoded: Encoded) -> Iterator[tuple[Symmetry, Encoded]]:
    """The encoded image itself, then its other views if `joined_views` holds some."""
    yield ALL_VIEWS[0], encoded
    height, width = encoded.input_size
    for number, view in enumerate(ALL_VIEWS):
        prefix = f"view{number}."
        if f"{prefix}embedding" in encoded.maps:
            maps = {
                name.removeprefix(prefix): view.apply(each)
                for name, each in encoded.maps.items()
                if name.startswith(prefix)
            }
            size = (width, height) if view.transposed else (height, width)
            yield (
                view,
                replace(encoded, embedding=maps.pop("embedding"), input_size=size, maps=maps),
            )

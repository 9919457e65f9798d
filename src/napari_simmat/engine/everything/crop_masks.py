"""Masks of a part of a plane that is encoded on its own, in the plane's pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.everything.candidates import MaskCandidate, PixelBox
from napari_simmat.engine.masks import bounding_box

if TYPE_CHECKING:
    from napari_simmat.engine.result import LogitPatch
    from napari_simmat.engine.settings import AutomaticSettings

NEAR_CROP_EDGE = 20
"""A mask within so many pixels of a crop's edge counts as cut by it, as in SAM."""


class CropRegion(NamedTuple):
    """A part of a plane that is encoded on its own; layer 0 is the whole plane."""

    box: PixelBox
    layer: int = 0


def crop_regions(shape: tuple[int, int], settings: AutomaticSettings) -> list[CropRegion]:
    """The whole plane, then the crops of each layer, as SAM's generator lays them out."""
    from segment_anything.utils.amg import (
        generate_crop_boxes,
    )  # loads torch; the window does without

    boxes, layers = generate_crop_boxes(shape, settings.crop_layers, settings.crop_overlap)
    return [
        CropRegion(PixelBox(y0, x0, y1, x1), layer)
        for (x0, y0, x1, y1), layer in zip(boxes, layers, strict=True)
    ]


def mask_candidate(
    patch: LogitPatch, quality: float, offset: float, crop: CropRegion, shape: tuple[int, int]
) -> tuple[MaskCandidate, NDArray[np.bool_]] | None:
    """A mask in the plane's pixels, unless it is empty or cut by the crop's edge."""
    inside = patch.logits > 0
    region = bounding_box(inside)
    if region is None:
        return None
    mask = inside[region]
    top = crop.box.y0 + patch.top + region[0].start
    left = crop.box.x0 + patch.left + region[1].start
    box = PixelBox(top, left, top + mask.shape[0], left + mask.shape[1])
    if touches_crop_edge(box, crop.box, shape):
        return None
    # SAM's stability score: IoU of the masks at two cutoffs.
    inner, outer = (np.float32(np.count_nonzero(patch.logits > cut)) for cut in (offset, -offset))
    # The share of the crop's edge that the mask covers.
    height, width = crop.box.size
    covered = 0
    for row, edge in ((0, box.y0 == crop.box.y0), (-1, box.y1 == crop.box.y1)):
        covered += int(mask[row].sum()) if edge else 0
    for column, edge in ((0, box.x0 == crop.box.x0), (-1, box.x1 == crop.box.x1)):
        covered += int(mask[:, column].sum()) if edge else 0
    candidate = MaskCandidate(
        box=box,
        area=int(np.count_nonzero(mask)),
        quality=quality,
        stability=float(inner / outer),
        rim=covered / (2 * (height + width)),
        layer=crop.layer,
    )
    return candidate, mask


def touches_crop_edge(box: PixelBox, crop: PixelBox, shape: tuple[int, int]) -> bool:
    """Whether a box is near a crop's edge beyond which the plane continues, by SAM's rule.

    See `segment_anything.utils.amg.is_box_near_crop_edge`.
    """
    sides = (
        (box.y0, crop.y0, 0),
        (box.x0, crop.x0, 0),
        (box.y1 - 1, crop.y1, shape[0]),  # SAM's boxes end at their last pixel
        (box.x1 - 1, crop.x1, shape[1]),
    )
    return any(
        abs(at - edge) <= NEAR_CROP_EDGE < abs(at - plane_edge) for at, edge, plane_edge in sides
    )

"""All objects of a plane for any model: `tiny` finds them, the model outlines each.

The model is prompted with the box and the mask of what `tiny`'s decoder found. Its own outline
counts where it shows the same object and passes the thresholds with which the model segments
everything; otherwise the mask that was found stays. So a foundation of hundreds of megabytes
needs one encoding and a prompt for each object, not one for each point of a grid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize

from napari_simmat.engine.channel_influence import foundation_colors
from napari_simmat.engine.detail_windows import MAX_SCALE, SMALL_OBJECT
from napari_simmat.engine.everything.candidates import (
    MaskCandidate,
    MaskCandidates,
    PixelBox,
)
from napari_simmat.engine.everything.crop_masks import CropRegion, mask_candidate
from napari_simmat.engine.everything.object_finder import find_objects_job
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.engine.masks import bounding_box, iou
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import MIN_PREDICTED_IOU, AutomaticSettings
from napari_simmat.progress import Job, Progress, as_part

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.models.object_decoder import ObjectDecoder

SAME_OBJECT = 0.6
"""IoU from which an outline shows the object that was found."""
FOUND = 0.4
"""Share of the work after which objects are found."""
ENCODED = 0.7
"""Share of the work after which the model has encoded the plane, too."""


def outline_objects_job(
    predictor: Predictor,
    settings: AutomaticSettings,
    plane: tuple[int, ...] = (),
    box: PixelBox | None = None,
    *,
    keep: bool = True,
    decoder: ObjectDecoder | None = None,
) -> Job[MaskCandidates]:
    """Find the objects of a plane, or of a part of it, by `tiny`; outline them by the model.

    Parameters
    ----------
    predictor
        Holds the image and any model; its current plane is the same afterwards.
    settings
        Filters are left to `masks_to_instances`.
    plane, box
        Which plane, and which part of it; by default all. The masks are in the part's pixels.
    keep
        Whether the model's embedding is cached.
    decoder
        In place of `tiny`'s own.

    Returns
    -------
    MaskCandidates
        Disjoint masks in the order of their chances by `tiny`, which are their quality.
    """
    height, width = predictor.shape[-2:]
    box = box or PixelBox(0, 0, height, width)
    seen = yield from seen_by_tiny_job(predictor, plane, box)
    found = yield from as_part(find_objects_job(*seen, decoder), 0, FOUND)
    outlined = replace(found, known=[], _bits=[])
    with predictor.keeping_plane():
        encoding = predictor.encode_tile_job(plane, *box.slices, keep=keep)
        yield from as_part(encoding, FOUND, ENCODED)
        outliner = _Outliner(predictor, settings, found)
        for number in range(len(found)):
            outlined.add(*outliner.outlined(number))
            share = ENCODED + (1 - ENCODED) * (number + 1) / len(found)
            yield Progress(round(1000 * share), 1000, "outlining")
    return outlined


class Seen(NamedTuple):
    """What `tiny` sees of a part of a plane: a predictor, and where the part is in its image."""

    finder: Predictor
    plane: tuple[int, ...]
    box: PixelBox


def seen_by_tiny_job(predictor: Predictor, plane: tuple[int, ...], box: PixelBox) -> Job[Seen]:
    """Show `tiny` the channels that a model reads, or the colors that are made of them."""
    finder = yield from predictor.finder_job()
    if finder is predictor:
        return Seen(predictor, plane, box)
    stack, inputs = predictor.stack, finder.model.spec.inputs
    if predictor.model.spec.transfer == "zeroshot":
        if finder.source != (stack,):
            yield from finder.read_job(stack.read_as(inputs), (stack,))
        return Seen(finder, plane, box)
    if finder.source != (stack, plane):  # once, as all parts are normalized as the whole
        colors = foundation_colors(predictor, stack.part(plane, slice(None), slice(None)))
        whole = ChannelStack.build(colors, inputs=inputs, channel_axis=0)
        yield from finder.read_job(whole, (stack, plane))
    colors = foundation_colors(predictor, stack.part(plane, *box.slices))
    part = ChannelStack.build(
        resize(colors, (len(colors), *box.size)),
        inputs=inputs,
        channel_axis=0,
        statistics=finder.statistics,
        pixel_size=stack.pixel_size,
    )
    beside = finder.sibling()
    yield from beside.read_job(part)
    return Seen(beside, (), PixelBox(0, 0, *box.size))


class _Outliner:
    """Outlines what was found by the model, of which the part is encoded."""

    def __init__(
        self, predictor: Predictor, settings: AutomaticSettings, found: MaskCandidates
    ) -> None:
        self._predictor, self._found, self._offset = predictor, found, settings.offset
        own = replace(settings, by="clicks", quality=None, stability=None)
        self._thresholds = own.for_model(predictor.model.spec).thresholds
        scale = min(predictor.input_transform(found.shape).scale)
        self._smallest = SMALL_OBJECT / scale if scale < MAX_SCALE else 0.0
        self._owners = np.zeros(found.shape, np.int32)
        for number, one in enumerate(found.known, start=1):
            self._owners[one.box.slices][found.mask(number - 1)] = number

    def outlined(self, number: int) -> tuple[MaskCandidate, NDArray[np.bool_]]:
        """An object with the model's outline, if that counts, else as it was found."""
        one, mask = self._found.known[number], self._found.mask(number)
        # Lower ones are never shown, and where the plane is reduced, small ones lose their detail.
        if one.quality < MIN_PREDICTED_IOU or max(one.box.size) <= self._smallest:
            return one, mask
        whole = np.zeros(self._found.shape, bool)
        whole[one.box.slices] = mask
        y0, x0, y1, x1 = one.box
        prompt = Prompt(box=(y0, x0, y1, x1), mask=whole)
        [result] = self._predictor.predict_low_res([prompt])
        quality = float(result.predicted_iou[0])  # of the single mask: a box is not ambiguous
        patch = result.patch(0, above=-self._offset)
        if patch is None or not quality > self._thresholds[0]:
            return one, mask
        shape = self._found.shape
        region = CropRegion(PixelBox(0, 0, *shape))
        outline = mask_candidate(patch, quality, self._offset, region, shape)
        if outline is None or outline[0].stability < self._thresholds[1]:
            return one, mask
        return self._without_others(number, *outline) or (one, mask)

    def _without_others(
        self, number: int, outline: MaskCandidate, mask: NDArray[np.bool_]
    ) -> tuple[MaskCandidate, NDArray[np.bool_]] | None:
        """An outline without the pixels of other objects; None if it shows another object."""
        found = self._found.known[number]
        around = _around(found.box, outline.box)
        owners = self._owners[around.slices]
        after = np.zeros(around.size, bool)
        after[_within(outline.box, around)] = mask
        after &= (owners == 0) | (owners == number + 1)
        before = owners == number + 1
        if iou(before, after) < SAME_OBJECT:
            return None
        owners[before] = 0
        owners[after] = number + 1
        window = bounding_box(after)
        assert window is not None
        rows, columns = window
        box = PixelBox(
            around.y0 + rows.start,
            around.x0 + columns.start,
            around.y0 + rows.stop,
            around.x0 + columns.stop,
        )
        return found._replace(box=box, area=int(np.count_nonzero(after))), after[window]


def _around(one: PixelBox, other: PixelBox) -> PixelBox:
    """The smallest box around two."""
    return PixelBox(
        min(one.y0, other.y0), min(one.x0, other.x0), max(one.y1, other.y1), max(one.x1, other.x1)
    )


def _within(inner: PixelBox, outer: PixelBox) -> tuple[slice, slice]:
    """Rows and columns of a box in another one."""
    return (
        slice(inner.y0 - outer.y0, inner.y1 - outer.y0),
        slice(inner.x0 - outer.x0, inner.x1 - outer.x0),
    )

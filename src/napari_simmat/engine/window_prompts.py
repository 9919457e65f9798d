"""Prompts on a plane that is too large to be read: each in a window around it, of which alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.detail_windows import PART_SIDE, PART_STEPS, DetailWindows
from napari_simmat.engine.masks import ObjectMask, Window
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import Refiner
from napari_simmat.progress import Job, Progress, with_progress

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

AROUND = 0.5
"""What a window shows beyond a prompt that does not fit into one, in sides of the prompt."""


class FoundObject(NamedTuple):
    """The mask of a prompt, None if it is empty, and its score."""

    mask: ObjectMask | None
    score: float


def predict_in_windows_job(
    predictor: Predictor, prompts: Sequence[Prompt]
) -> Job[list[FoundObject]]:
    """Predict prompts on an image of one plane, of which only windows are read.

    The clicks of a prompt refine each other in their order. Prompts in the same window are
    predicted together.

    Parameters
    ----------
    predictor
        Holds the image, from `Predictor.open_image_job`.
    prompts
        Points, boxes and masks, in the image's pixels. Logits, which have pixels of their own, do
        not count.

    Returns
    -------
    What was found, in the order of the prompts.

    Raises
    ------
    ValueError
        If a prompt lies beside the image.
    """
    height, width = predictor.shape[-2:]
    side = min(PART_SIDE, height, width)
    size, stack = predictor.model.spec.input_size, predictor.stack
    whole = InputTransform.of((height, width), size, stack.pixel_size)
    part = InputTransform.of((side, side), size, stack.pixel_size)
    stride = predictor.model.network.mask_stride
    windows = DetailWindows(whole, side, part, stride, PART_STEPS)
    places: list[Window] = []
    for prompt in prompts:
        prompt.check_inside((height, width))
        spot = _without_mask(prompt)
        places.append(windows.around(spot) or _window_of(spot, (height, width)))
    order = sorted(range(len(prompts)), key=lambda n: (places[n][0].start, places[n][1].start, n))
    found: dict[int, FoundObject] = {}
    encoded: Window | None = None
    with predictor.keeping_plane():
        for done, number in enumerate(order):
            here = Progress(done, len(prompts), f"window {done + 1} of {len(prompts)}")
            yield here
            if places[number] != encoded:
                encoded = places[number]
                encoding = predictor.encode_tile_job((), *encoded, keep=False)
                yield from with_progress(encoding, here)
            corner = encoded[0].start, encoded[1].start
            job = Refiner().refine_job(predictor, [_moved(prompts[number], encoded)], ())
            [result] = yield from with_progress(job, here)
            mask = ObjectMask.of(result.mask, corner) if result.mask.any() else None
            found[number] = FoundObject(mask, float(result.score))
    return [found[number] for number in range(len(prompts))]


def _window_of(prompt: Prompt, shape: tuple[int, int]) -> Window:
    """Rows and columns around a prompt that is larger than a usual window."""
    places = [*prompt.points]
    if prompt.box is not None:
        y0, x0, y1, x1 = prompt.box
        places += [(y0, x0), (y1, x1)]
    low, high = np.min(places, axis=0), np.max(places, axis=0)
    side = max(PART_SIDE, math.ceil(float((high - low).max()) * (1 + 2 * AROUND)))
    spans = []
    for first, last, size in zip(low, high, shape, strict=True):
        length = min(side, size)
        start = min(max(round(float(first + last) / 2 - length / 2), 0), size - length)
        spans.append(slice(start, start + length))
    return spans[0], spans[1]


def _without_mask(prompt: Prompt) -> Prompt:
    """A prompt of the same place with a box in place of its mask."""
    mask = prompt.mask
    if mask is None or mask.dtype != bool:
        return replace(prompt, mask=None) if mask is not None else prompt
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    own = (float(rows[0]), float(columns[0]), float(rows[-1]) + 1, float(columns[-1]) + 1)
    return replace(prompt, mask=None, box=prompt.box or own)


def _moved(prompt: Prompt, window: Window) -> Prompt:
    """A prompt in the pixels of a window."""
    top, left = window[0].start, window[1].start
    box = prompt.box
    mask = prompt.mask
    if mask is not None:
        mask = mask[window] if mask.dtype == bool else None
    return Prompt(
        points=tuple((y - top, x - left) for y, x in prompt.points),
        labels=prompt.labels,
        box=None if box is None else (box[0] - top, box[1] - left, box[2] - top, box[3] - left),
        mask=mask,
        object=prompt.object,
        expected_area=prompt.expected_area,
        scribbles=prompt.scribbles,
    )

"""Pictures of results: masks, outlines and prompts over an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.overlays import FILL, colour_of
from napari_simmat.engine.prompts import Prompt
from napari_simmat.learn.truth import Window, found_objects

if TYPE_CHECKING:
    from PIL.Image import Image

SCALE = 2
"""Pixels of the picture per pixel of the image, where nothing else is said."""
FINE = 3
"""Drawn so much larger and then reduced, which smooths every edge."""
GREEN, RED = (60, 230, 90), (235, 60, 60)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def overlay(
    picture: NDArray[np.uint8],
    labels: NDArray[Any],
    prompts: Sequence[Prompt] = (),
    truth: NDArray[Any] | None = None,
    caption: str = "",
    scale: int = SCALE,
) -> Image:
    """Draw objects over a picture.

    Parameters
    ----------
    picture
        (Y, X, 3), 0..255.
    labels
        (Y, X); each object gets a tint and an outline of its own colour.
    prompts
        Drawn as dots (green on the object, red not) and boxes.
    truth
        (Y, X) true labels, outlined thinly in white with dark rims.
    caption
        A line below the picture.
    scale
        Pixels of the picture per pixel of the image.
    """
    from PIL import Image, ImageDraw, ImageFont

    tinted = picture.astype(np.float32)
    objects = [(label, window, colour_of(label)) for label, window in found_objects(labels)]
    for label, window, colour in objects:
        part, inside = tinted[window], labels[window] == label
        part[inside] = (1 - FILL) * part[inside] + FILL * np.array(colour)
    factor = scale * FINE
    height, width = labels.shape
    canvas = Image.fromarray(np.asarray(np.rint(tinted), np.uint8))
    canvas = canvas.resize((width * factor, height * factor), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    if truth is not None:
        lines = [
            line
            for label, window in found_objects(truth)
            for line in _outlines(truth, label, window, factor)
        ]
        # White on bright images is seen by its dark rims.
        for fill, thickness in ((BLACK, 2 * FINE), (WHITE, FINE)):
            for line in lines:
                draw.line(line, fill=fill, width=thickness, joint="curve")
    for label, window, colour in objects:
        for line in _outlines(labels, label, window, factor):
            draw.line(line, fill=colour, width=2 * FINE, joint="curve")
    for prompt in prompts:
        _draw_prompt(draw, prompt, factor)
    result = canvas.resize((width * scale, height * scale), Image.Resampling.LANCZOS)
    if not caption:
        return result
    size = 16
    framed = Image.new("RGB", (result.width, result.height + 2 * size), "white")
    framed.paste(result, (0, 0))
    font = ImageFont.load_default(size)
    if (length := font.getlength(caption)) > result.width - size:
        font = ImageFont.load_default(size * (result.width - size) / length)
    ImageDraw.Draw(framed).text((size // 2, result.height + size // 3), caption, "black", font)
    return framed


def side_by_side(pictures: Sequence[Image]) -> Image:
    """Pictures of equal height in a row, with a gap."""
    from PIL import Image

    gap = 12
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + gap
    return row


def _draw_prompt(draw: Any, prompt: Prompt, factor: int) -> None:
    """Dots and a box; a pixel's centre lies half a pixel from its corner."""
    if prompt.box is not None:
        y0, x0, y1, x1 = (factor * edge for edge in prompt.box)
        draw.rectangle((x0, y0, x1, y1), outline=GREEN, width=FINE)
    radius = 3 * FINE
    for (y, x), label in zip(prompt.points, prompt.labels, strict=True):
        cy, cx = factor * (y + 0.5), factor * (x + 0.5)
        corners = (cx - radius, cy - radius, cx + radius, cy + radius)
        draw.ellipse(corners, fill=GREEN if label else RED, outline=WHITE, width=FINE)


def _outlines(
    labels: NDArray[Any], label: int, window: Window, factor: int
) -> list[list[tuple[float, float]]]:
    """Outlines of the object in a window as lines x, y in the large picture."""
    from skimage.measure import find_contours

    lines = find_contours(np.pad(labels[window] == label, 1).astype(np.float32), 0.5)
    # One pixel of padding, and half a pixel from a centre to its corner.
    top, left = window[0].start - 0.5, window[1].start - 0.5
    return [[(factor * (left + x), factor * (top + y)) for y, x in line] for line in lines]

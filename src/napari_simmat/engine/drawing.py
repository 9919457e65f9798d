"""Pictures of results: objects tinted and outlined on their image, with prompts and truth."""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.masks import Mask, Window, bounding_box, label_windows
from napari_simmat.engine.normalization import rescale
from napari_simmat.engine.prompts import Prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw


_STRIP = 256
"""Rows that are drawn at once."""
FILL_OPACITY = 0.28
"""Opacity of an object's color inside it."""


def to_rgb(channels: NDArray[Any]) -> NDArray[np.uint8]:
    """Channels (C, Y, X) as a picture (Y, X, 3), 0..255: three as colors, others as their mean.

    Percentiles 0.5 and 99.8 become black and white; NaN and infinity become black.
    """
    if len(channels) != 3:
        channels = channels.mean(axis=0, keepdims=True)
    finite = np.isfinite(channels)
    if not finite.all():
        lowest = channels[finite].min() if finite.any() else 0
        channels = np.where(finite, channels, lowest)
    low, high = np.percentile(channels, (0.5, 99.8))
    picture = np.empty((*channels.shape[1:], len(channels)), np.uint8)
    for y in range(0, len(picture), _STRIP):  # as floats a large picture takes a gigabyte
        stretched = rescale(channels[:, y : y + _STRIP].astype(np.float32), low, high)
        picture[y : y + _STRIP] = np.rint(np.moveaxis(stretched, 0, -1))
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


def tint_objects(
    picture: NDArray[np.uint8], labels: NDArray[Any], outlined: bool = True
) -> NDArray[np.uint8]:
    """Tint each object of `labels` (Y, X) in a picture (Y, X, 3) and outline it in its color."""
    from skimage.segmentation import find_boundaries

    values, inverse = np.unique(labels, return_inverse=True)
    colors = np.array([label_color(int(value)) for value in values], np.float32)
    color = colors[inverse.reshape(labels.shape)]
    share = np.where(labels > 0, FILL_OPACITY, 0.0)
    if outlined:
        share[find_boundaries(labels, mode="inner")] = 1.0
    mixed = picture * (1 - share[..., None]) + color * share[..., None]
    return np.asarray(np.rint(mixed), np.uint8)


def fullest_plane(
    labels: NDArray[Any], plane: Callable[[tuple[int, ...]], NDArray[Any]]
) -> tuple[tuple[int, ...], NDArray[np.uint8]]:
    """Index and picture of the `fullest` plane.

    `labels` are (..., Y, X); `plane` gives the raw values (C, Y, X) of an index before (Y, X).
    """
    index = fullest(labels)
    return index, tint_objects(to_rgb(plane(index)), labels[index])


def fullest(labels: NDArray[Any]) -> tuple[int, ...]:
    """Index of the plane with the most labeled pixels, or of the middle one if none has any."""
    counts = np.count_nonzero(labels, axis=(-2, -1)).ravel()
    flat = int(counts.argmax()) if counts.any() else counts.size // 2
    return tuple(int(i) for i in np.unravel_index(flat, labels.shape[:-2]))


OVERVIEW_SIDE = 1024
SAMPLES = 4
"""Samples at full size beside a plane that is reduced."""


def overview(
    labels: Any,
    part: Callable[[slice, slice], NDArray[Any]],
    shown: Window | None = None,
    *,
    coarser: int = 1,
    side: int = OVERVIEW_SIDE,
) -> NDArray[np.uint8]:
    """A plane of any size with its objects, reduced to at most `side` pixels.

    Every n-th pixel is taken, so that labels stay labels.

    Parameters
    ----------
    labels
        (Y, X), numpy or zarr.
    part
        Gives the raw values (C, h, w) of rows and columns.
    shown
        The rows and columns of the labels that are drawn; all by default.
    coarser
        How many pixels of the labels one of the values has, if these are a coarser level.
    side
        Longest side of the picture.
    """
    spans = shown or (slice(0, labels.shape[0]), slice(0, labels.shape[1]))
    read = [slice(span.start // coarser, -(-span.stop // coarser)) for span in spans]
    step = max(1, -(-max(span.stop - span.start for span in read) // side))
    bands = [
        part(slice(y, min(y + 64 * step, read[0].stop)), read[1])[:, ::step, ::step]
        for y in range(read[0].start, read[0].stop, 64 * step)
    ]
    picture = to_rgb(np.concatenate(bands, axis=1))
    every = [slice(span.start * coarser, span.stop * coarser, step * coarser) for span in read]
    drawn = np.asarray(labels[every[0], every[1]])
    rows, columns = (min(pair) for pair in zip(picture.shape[:2], drawn.shape, strict=True))
    picture, drawn = picture[:rows, :columns], drawn[:rows, :columns]
    tinted = np.empty((rows, columns, 3), np.uint8)
    for y in range(0, rows, _STRIP):
        around = slice(max(0, y - 1), y + _STRIP + 1)  # an outline depends on the rows beside it
        strip = tint_objects(picture[around], drawn[around])
        tinted[y : y + _STRIP] = strip[y - around.start :][:_STRIP]
    return tinted


def sample_windows(
    shown: Window, size: Sequence[int], centers: NDArray[np.floating[Any]]
) -> list[Window]:
    """Where to look at a reduced plane at full size: the square with most objects of each quarter.

    Parameters
    ----------
    shown
        Rows and columns of the plane that a picture shows.
    size
        Height and width of the picture; the quarters divide its longer side.
    centers
        (N, 2), of the objects, y and x in pixels of the plane.

    Returns
    -------
    list of windows
        In their order along the longer side; none if the picture is not reduced.
    """
    starts = np.array([span.start for span in shown])
    stops = np.array([span.stop for span in shown])
    if max(stops - starts) <= max(size):
        return []
    long = int(np.argmax(stops - starts))
    side = max(size) // SAMPLES
    found = []
    for edge in np.linspace(starts[long], stops[long], SAMPLES + 1).astype(int)[:-1]:
        low, high = starts.copy(), stops.copy()
        low[long], high[long] = edge, min(edge + (stops - starts)[long] // SAMPLES, stops[long])
        inside = centers[((centers >= low) & (centers < high)).all(axis=1)]
        corner = (low + high - side) // 2
        if len(inside):
            cells, counts = np.unique((inside - low) // side, axis=0, return_counts=True)
            corner = low + cells[counts.argmax()].astype(int) * side
        corner = np.maximum(np.minimum(corner, stops - side), starts)
        rows, columns = (
            slice(int(c), int(min(c + side, s))) for c, s in zip(corner, stops, strict=True)
        )
        found.append((rows, columns))
    return found


def with_samples(
    picture: NDArray[np.uint8],
    shown: Window,
    labels: Any,
    part: Callable[[slice, slice], NDArray[Any]],
    samples: Sequence[Window],
) -> NDArray[np.uint8]:
    """A picture of a plane with frames where `samples` are, and these at full size beside it.

    They stand below a wide picture, from left to right, and right of a tall one, from top to
    bottom. `shown` is what the picture (h, w, 3) shows of the plane, `labels` (Y, X) its objects,
    and `part` gives its raw values (C, h, w) of rows and columns.
    """
    if not samples:
        return picture
    framed = picture.copy()
    span = shown[0].stop - shown[0].start, shown[1].stop - shown[1].start
    wide = span[1] >= span[0]
    side = max(picture.shape[:2]) // SAMPLES
    tiles = []
    for window in samples:
        tile = np.full((side, side, 3), 255, np.uint8)
        drawn = tint_objects(to_rgb(part(*window)), np.asarray(labels[window]))
        tile[: drawn.shape[0], : drawn.shape[1]] = drawn
        tiles.append(_framed(tile, (slice(0, side), slice(0, side))))
        place = [
            slice(*(round((at - all_.start) * pixels / size) for at in (one.start, one.stop)))
            for one, all_, pixels, size in zip(window, shown, picture.shape, span, strict=False)
        ]
        _framed(framed, (place[0], place[1]))
    strip = np.concatenate(tiles, axis=1 if wide else 0)
    return _beside(framed, strip, axis=0 if wide else 1)


def _framed(picture: NDArray[np.uint8], window: Window) -> NDArray[np.uint8]:
    """The same picture (Y, X, 3) with a frame within a window drawn into it."""
    inside = picture[window]
    for edge in (inside[:_FRAME], inside[-_FRAME:], inside[:, :_FRAME], inside[:, -_FRAME:]):
        edge[...] = YELLOW
    return picture


def _beside(first: NDArray[np.uint8], second: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """Two pictures (Y, X, 3) along an axis, the one that is shorter along the other filled up."""
    other = 1 - axis
    length = max(first.shape[other], second.shape[other])
    filled = []
    for each in (first, second):
        missing = [(0, 0)] * 3
        missing[other] = (0, length - each.shape[other])
        filled.append(np.pad(each, missing, constant_values=255))
    return np.concatenate(filled, axis=axis)


THUMBNAIL_SIDE = 56
"""Side of a thumbnail in its own pixels."""
THUMBNAIL_CONTEXT = 1.6
"""Side of the field that a thumbnail shows, in longest sides of its mask."""
THUMBNAIL_MIN_FIELD = 24
"""Least side of that field in pixels of the image."""
YELLOW = (255, 214, 10)
_FRAME = 3
"""Pixels of the lines around samples."""


def mask_thumbnail(
    mask: Mask, part: Callable[[slice, slice], NDArray[Any]], side: int = THUMBNAIL_SIDE
) -> NDArray[np.uint8]:
    """A small picture (side, side, 3) of a mask (Y, X) on the image around it.

    `part` gives the values (C, h, w) of rows and columns, which may have a step: no more is read
    than is shown.
    """
    from PIL import Image

    height, width = mask.shape
    box = bounding_box(mask) or (slice(0, height), slice(0, width))
    longest = max(extent.stop - extent.start for extent in box)
    field = max(round(THUMBNAIL_CONTEXT * longest), THUMBNAIL_MIN_FIELD)
    step = -(-field // (2 * side))
    rows = _field(box[0], field, height, step)
    columns = _field(box[1], field, width, step)
    inside = mask[rows, columns]
    shown = [max(1, round(side * step * shape / field)) for shape in inside.shape]
    size = (min(shown[1], side), min(shown[0], side))

    def resized(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))

    picture = resized(to_rgb(part(rows, columns)))
    inside = resized(inside.astype(np.uint8) * 255) > 127
    outline = inside & ~ndi.binary_erosion(inside, border_value=1)
    share = np.where(outline, 1.0, np.where(inside, FILL_OPACITY, 0.0))[..., None]
    canvas = np.zeros((side, side, 3), np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    tinted = picture * (1 - share) + np.array(YELLOW) * share
    canvas[top : top + size[1], left : left + size[0]] = np.rint(tinted)
    return canvas


def _field(box: slice, field: int, whole: int, step: int) -> slice:
    """`field` pixels around a part of an axis, moved into the image or cut to it."""
    start = (box.start + box.stop - field) // 2
    start = min(max(start, 0), max(whole - field, 0))
    return slice(start, min(start + field, whole), step)


def label_color(label: int) -> tuple[int, int, int]:
    """A bright color; successive labels get hues far apart (steps of the golden ratio)."""
    red, green, blue = hsv_to_rgb((0.1 + label * 0.618034) % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


OVERLAY_SCALE = 2
"""Pixels of the picture per pixel of the image."""
SUPERSAMPLING = 3
"""Pictures are drawn so much larger and then reduced, which smooths the edges."""
GREEN, RED = (60, 230, 90), (235, 60, 60)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def draw_overlay(
    picture: NDArray[np.uint8],
    labels: NDArray[Any],
    prompts: Sequence[Prompt] = (),
    truth: NDArray[Any] | None = None,
    caption: str = "",
    scale: int = OVERLAY_SCALE,
) -> Image:
    """Draw objects, prompts and true outlines over a picture, `scale` times as large.

    Parameters
    ----------
    picture
        (Y, X, 3), 0..255.
    labels
        (Y, X); each object gets a tint and an outline of its own color.
    prompts
        Drawn as boxes and dots, green for positive points, red for negative ones.
    truth
        (Y, X) true labels, outlined thinly in white with dark rims.
    caption
        A line below the picture.
    """
    from PIL import Image, ImageDraw

    factor = scale * SUPERSAMPLING
    height, width = labels.shape
    canvas = Image.fromarray(tint_objects(picture, np.where(labels > 0, labels, 0), outlined=False))
    canvas = canvas.resize((width * factor, height * factor), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    if truth is not None:
        _draw_truth(draw, truth, factor)
    for label, window in label_windows(labels):
        color = label_color(label)
        for line in _outlines(labels, label, window, factor):
            draw.line(line, fill=color, width=2 * SUPERSAMPLING, joint="curve")
    for prompt in prompts:
        _draw_prompt(draw, prompt, factor)
    result = canvas.resize((width * scale, height * scale), Image.Resampling.LANCZOS)
    return _captioned(result, caption) if caption else result


def _draw_truth(draw: ImageDraw, truth: NDArray[Any], factor: int) -> None:
    """White outlines, whose dark rims make them visible on bright images."""
    lines = []
    for label, window in label_windows(truth):
        lines += _outlines(truth, label, window, factor)
    for fill, thickness in ((BLACK, 2 * SUPERSAMPLING), (WHITE, SUPERSAMPLING)):
        for line in lines:
            draw.line(line, fill=fill, width=thickness, joint="curve")


def _draw_prompt(draw: ImageDraw, prompt: Prompt, factor: int) -> None:
    radius = 3 * SUPERSAMPLING
    if prompt.box is not None:
        y0, x0, y1, x1 = (factor * edge for edge in prompt.box)
        draw.rectangle((x0, y0, x1, y1), outline=GREEN, width=SUPERSAMPLING)
    for (y, x), label in zip(prompt.points, prompt.labels, strict=True):
        cy, cx = factor * (y + 0.5), factor * (x + 0.5)  # half a pixel from its corner
        dot = (cx - radius, cy - radius, cx + radius, cy + radius)
        draw.ellipse(dot, fill=GREEN if label else RED, outline=WHITE, width=SUPERSAMPLING)


def _captioned(picture: Image, caption: str) -> Image:
    """A picture with a line below it, in smaller letters if it is too long."""
    from PIL import Image, ImageDraw, ImageFont

    size = 16
    framed = Image.new("RGB", (picture.width, picture.height + 2 * size), "white")
    framed.paste(picture, (0, 0))
    font = ImageFont.load_default(size)
    length = font.getlength(caption)
    if length > picture.width - size:
        font = ImageFont.load_default(size * (picture.width - size) / length)
    place = (size // 2, picture.height + size // 3)
    ImageDraw.Draw(framed).text(place, caption, "black", font)
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


def _outlines(
    labels: NDArray[Any], label: int, window: Window, factor: int
) -> list[list[tuple[float, float]]]:
    """Outlines of an object in its window as lines x, y in the large picture."""
    from skimage.measure import find_contours

    lines = find_contours(np.pad(labels[window] == label, 1).astype(np.float32), 0.5)
    # One pixel of padding, and half a pixel from a center to its corner.
    top, left = window[0].start - 0.5, window[1].start - 0.5
    return [[(factor * (left + x), factor * (top + y)) for y, x in line] for line in lines]

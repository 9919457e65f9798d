"""Image pixels to network input and back; axis order of views.

All coordinate maths between an image and the network's input.

Coordinates of an image are ``(y, x)`` in pixels, as napari's data coordinates: the integer is the
pixel's centre, pixel ``k`` covers ``[k - 0.5, k + 0.5)``. A box ``(y0, x0, y1, x1)`` is half-open
like `skimage.measure.regionprops`' bbox: it holds the pixels ``y0 .. y1 - 1``, so its edge ``k``
lies at ``k - 0.5`` in those coordinates.

What the network gets is ``(x, y)`` in pixels of its input. There are two rules:

================  ==============================  ===================
`InputSize`       a point at ``v``                a box's edge ``k``
================  ==============================  ===================
longest (SAM)     ``v * s``                       ``k * s``
stretch, native   ``(v + 0.5) * s - 0.5``         ``k * s - 0.5``
================  ==============================  ===================

``s`` is new size / old size of that axis. SAM's rule hands numbers on as they are, so that results
are those of the stock predictor; it puts a point off by up to half a pixel of the larger grid. The
other rule keeps pixel centres on pixel centres: the edge of a box is the point at ``k - 0.5``.

Networks have learned what round things look like on square pixels. Where an image's are not square
(a stack seen from the side, whose planes lie further apart than its pixels), the network's input is
sampled so that they are; prompts and masks stay in the image's own pixels. Only ``stretch``, the
paper's protocol, keeps no aspect at all.

An image seen with its axes in another order, as a side view of a stack shows it.

A plane of such a view is rows and columns along any two axes of the image; the others lie behind
it. Nothing is copied, and nothing is read before it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from napari_simmat.models.spec import InputSize


Size = tuple[int, int]
BoxCorners = tuple[float, float, float, float]

MAX_SQUARE_RATIO = 1.2
"""Ratio of a pixel's sides up to which it counts as square: sampling anew would gain less than it
blurs."""
MAX_PIXEL_RATIO = 16.0
"""Ratio beyond which a pixel counts as this long: there is nothing more to see between its ends."""
MAX_UPSAMPLED_PIXELS = 2048 * 2048
"""Pixels up to which an image grows where its shorter side is sampled more finely."""


@dataclass(frozen=True)
class InputTransform:
    """How one image lies in the network's input.

    The image is resized to `resized` and lies in the upper left corner of `padded`.

    Parameters
    ----------
    image, resized, padded
        Height and width in pixels.
    half_pixel
        Whether pixel centres fall on pixel centres (see the table above).
    """

    image: Size
    resized: Size
    padded: Size
    half_pixel: bool

    @classmethod
    def of(
        cls,
        shape_yx: tuple[int, ...],
        input_size: InputSize,
        pixel_size: tuple[float, float] | None = None,
    ) -> InputTransform:
        """Lay out an image of `shape_yx` as `input_size` says.

        Parameters
        ----------
        shape_yx
            The image's.
        input_size
            The model's.
        pixel_size
            Height and width of a pixel, in any unit; None where they are square, or not known.

        Raises
        ------
        ValueError
            If `shape_yx` is not two sizes of at least one pixel, or a pixel has no size.
        """
        if len(shape_yx) != 2 or min(shape_yx) < 1:
            raise ValueError(
                f"An image plane of shape {tuple(shape_yx)} cannot be laid out; "
                "give a height and a width of at least one pixel."
            )
        height, width = (int(n) for n in shape_yx)
        size, step = input_size.size, input_size.multiple
        if input_size.method == "stretch":
            resized = padded = (size, size)
        elif input_size.method == "longest":
            resized = _scaled(square_pixel_shape((height, width), pixel_size), size)
            padded = (size, size)
        else:
            square = square_pixel_shape((height, width), pixel_size)
            longest = max(square)
            bound = min(max(longest, input_size.minimum), size)
            resized = square if bound == longest else _scaled(square, bound)
            padded = (_round_up(resized[0], step), _round_up(resized[1], step))
        return cls((height, width), resized, padded, input_size.method != "longest")

    @property
    def scale(self) -> tuple[float, float]:
        """Resized size / image size, for y and x."""
        return self.resized[0] / self.image[0], self.resized[1] / self.image[1]

    @property
    def pad(self) -> tuple[int, int]:
        """Rows below and columns to the right that fill `resized` up to `padded`."""
        return self.padded[0] - self.resized[0], self.padded[1] - self.resized[1]

    def grid(self, stride: int) -> Size:
        """Size of a grid over the padded input with one cell for `stride` pixels."""
        return -(-self.padded[0] // stride), -(-self.padded[1] // stride)

    def to_input(self, points_yx: ArrayLike) -> NDArray[np.float32]:
        """Points (N, 2) as y, x in the image -> points (N, 2) as x, y in the input."""
        points = np.asarray(points_yx, dtype=np.float64).reshape(-1, 2)
        half = 0.5 if self.half_pixel else 0.0
        moved = (points + half) * self.scale - half
        return moved[:, ::-1].astype(np.float32)

    def to_image(self, points_xy: ArrayLike) -> NDArray[np.float64]:
        """Undo `to_input`: points (N, 2) as x, y in the input -> (N, 2) as y, x in the image."""
        points = np.asarray(points_xy, dtype=np.float64).reshape(-1, 2)[:, ::-1]
        half = 0.5 if self.half_pixel else 0.0
        moved: NDArray[np.float64] = (points + half) / self.scale - half
        return moved

    def box_to_input(self, box: BoxCorners) -> BoxCorners:
        """Half-open box y0, x0, y1, x1 in the image -> x0, y0, x1, y1 in the input."""
        corners = np.asarray(box, dtype=np.float64).reshape(2, 2)
        (x0, y0), (x1, y1) = self.to_input(corners - 0.5 if self.half_pixel else corners).tolist()
        return x0, y0, x1, y1

    def resize(self, image: NDArray[Any]) -> NDArray[Any]:
        """Resize an image (C, Y, X) of uint8 or float32 to (C, h, w).

        Bilinear with an antialias filter as Pillow has it. Under SAM's rule uint8 stays uint8, the
        bytes being those of SAM's own ``ResizeLongestSide.apply_image``; otherwise nothing is
        rounded, as in the paper's protocol, and the result is float32. Not padded.
        """
        if image.ndim != 3 or image.shape[1:] != self.image:
            raise ValueError(
                f"An image of shape {image.shape} does not fit a frame for {self.image}; "
                "give channels, height and width."
            )
        if image.dtype not in (np.uint8, np.float32):
            raise TypeError(f"Images to resize are uint8 or float32, this one is {image.dtype}.")
        if self.resized == self.image:
            return image
        if self.half_pixel:
            image = image.astype(np.float32, copy=False)
        from PIL import Image

        size, bilinear = (self.resized[1], self.resized[0]), Image.Resampling.BILINEAR
        channels = (Image.fromarray(np.ascontiguousarray(channel)) for channel in image)
        return np.stack([np.asarray(channel.resize(size, bilinear)) for channel in channels])


def square_pixel_shape(shape_yx: Sequence[int], pixel_size: Sequence[float] | None) -> Size:
    """Sizes of an image of `shape_yx` once its pixels are square.

    The longer side of a pixel is cut into pieces, so that nothing is lost, unless the image would
    grow beyond `MAX_UPSAMPLED_PIXELS`.

    Parameters
    ----------
    shape_yx
        Height and width in pixels.
    pixel_size
        Height and width of a pixel, in any unit; None leaves the image as it is.

    Raises
    ------
    ValueError
        If a pixel has no size.
    """
    rows, columns = shape_yx
    if pixel_size is None:
        return rows, columns
    if len(pixel_size) != 2 or not all(0 < side < math.inf for side in pixel_size):
        raise ValueError(
            f"A pixel of size {tuple(pixel_size)} has no shape; give two numbers above 0."
        )
    ratio = min(max(pixel_size[0] / pixel_size[1], 1 / MAX_PIXEL_RATIO), MAX_PIXEL_RATIO)
    if 1 / MAX_SQUARE_RATIO <= ratio <= MAX_SQUARE_RATIO:
        return rows, columns
    height, width = rows * max(ratio, 1.0), columns * max(1 / ratio, 1.0)
    shrunk = min(1.0, math.sqrt(max(MAX_UPSAMPLED_PIXELS, rows * columns) / (height * width)))
    return max(1, round(height * shrunk)), max(1, round(width * shrunk))


def check_pixel_ratio(ratio: float) -> None:
    """Refuse what cannot be a pixel's height over its width, in a sentence."""
    if not 0 < ratio < math.inf:
        raise ValueError(f"A pixel's height over its width is above 0, not {ratio}.")


def box_of_corners(corners: ArrayLike, shape_yx: tuple[int, int] | None = None) -> BoxCorners:
    """Half-open box of the pixels whose centres lie in a drawn shape's bounding rectangle.

    napari draws a rectangle around the pixels ``y0 .. y1 - 1`` with its edges at ``y0 - 0.5`` and
    ``y1 - 0.5``; any position of an edge between two pixel centres gives the same box, a centre on
    the edge counts as inside. A shape that holds no centre gives the one pixel in its middle.

    Parameters
    ----------
    corners
        Vertices (N, 2) as y, x in data coordinates.
    shape_yx
        Clip the box to an image of this size.

    Raises
    ------
    ValueError
        If nothing of the box lies within `shape_yx`.
    """
    vertices = np.asarray(corners, dtype=np.float64).reshape(-1, 2)
    box = []
    for low, high in zip(vertices.min(axis=0), vertices.max(axis=0), strict=True):
        first, end = math.ceil(low), math.floor(high) + 1
        if end <= first:
            first = math.floor((low + high) / 2 + 0.5)
            end = first + 1
        box.append((float(first), float(end)))
    (y0, y1), (x0, x1) = box
    if shape_yx is not None:
        height, width = shape_yx
        if y1 <= 0 or x1 <= 0 or y0 >= height or x0 >= width:
            raise ValueError(
                f"The box y {y0:g}..{y1:g}, x {x0:g}..{x1:g} lies outside the image of "
                f"{height} x {width} pixels; draw it on the image."
            )
        y0, x0, y1, x1 = max(y0, 0.0), max(x0, 0.0), min(y1, float(height)), min(x1, float(width))
    return y0, x0, y1, x1


def corners_of_box(box: BoxCorners) -> NDArray[np.float64]:
    """Corners (4, 2) as y, x of the rectangle that napari draws around a half-open box."""
    y0, x0, y1, x1 = (value - 0.5 for value in box)
    return np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])


def _scaled(shape_yx: Size, longest: int) -> Size:
    """Sizes with the longest side at `longest`, as SAM rounds them, but never 0."""
    scale = longest * 1.0 / max(shape_yx)
    return max(1, int(shape_yx[0] * scale + 0.5)), max(1, int(shape_yx[1] * scale + 0.5))


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step


AxisOrder = tuple[int, ...]
"""For each axis of a view the axis of the image; empty for the image as it is."""


def axis_order(plane_axes: Iterable[int], ndim: int) -> AxisOrder:
    """The view whose rows and columns lie along two axes of an image.

    Rows take the first of them and columns the second: which of them is drawn across does not
    matter to what a plane holds. The other axes keep their order.
    """
    rows_columns = sorted(plane_axes)
    order = (*(axis for axis in range(ndim) if axis not in rows_columns), *rows_columns)
    return () if order == tuple(range(ndim)) else order


def inverse_order(order: AxisOrder) -> AxisOrder:
    """The order that leads back from a view to the image."""
    return tuple(order.index(axis) for axis in range(len(order)))


def reordered(values: Iterable[Any], order: AxisOrder) -> tuple[Any, ...]:
    """One value for each axis of an image -> one for each axis of a view."""
    values = tuple(values)
    return tuple(values[axis] for axis in order) if order else values


def transposed_view(array: Any, order: AxisOrder) -> Any:
    """A view of an array (numpy, dask, zarr or alike) with its axes in another order."""
    if not order:
        return array
    if isinstance(array, np.ndarray) or type(array).__module__.startswith("dask"):
        return array.transpose(order)
    return TransposedArray(array, order)


class TransposedArray:
    """An array that takes slices, with its axes in another order; reads only what is asked for.

    Parameters
    ----------
    array
        Has ``shape`` and ``dtype`` and takes an index of whole numbers and slices.
    order
        As `numpy.transpose` has it.
    """

    def __init__(self, array: Any, order: AxisOrder) -> None:
        self._array, self._order = array, order
        self.shape = reordered((int(size) for size in array.shape), order)
        self.dtype = array.dtype
        self.ndim = len(order)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        index = index if isinstance(index, tuple) else (index,)
        whole = (*index, *(slice(None),) * (self.ndim - len(index)))
        values = np.asarray(self._array[reordered(whole, inverse_order(self._order))])
        # Whole numbers drop their axis: what is left lies in the order of the array.
        left = [axis for axis, part in zip(self._order, whole, strict=True) if _is_slice(part)]
        return values.transpose([sorted(left).index(axis) for axis in left])


def _is_slice(part: object) -> bool:
    return isinstance(part, slice)

"""All coordinate transforms between an image and the network's input; axis order of side views.

Coordinates of an image are ``(y, x)`` in pixels, as napari's data coordinates: the integer is the
pixel's center, pixel ``k`` covers ``[k - 0.5, k + 0.5)``. A box ``(y0, x0, y1, x1)`` is half-open
like `skimage.measure.regionprops`' bbox: it holds the pixels ``y0 .. y1 - 1``, so its edge ``k``
lies at ``k - 0.5`` in those coordinates.

The network's coordinates are ``(x, y)`` in pixels of its input. There are two rules:

================  ==============================  ===================
`InputSize`       a point at ``v``                a box's edge ``k``
================  ==============================  ===================
longest (SAM)     ``v * s``                       ``k * s``
stretch, native   ``(v + 0.5) * s - 0.5``         ``k * s - 0.5``
================  ==============================  ===================

``s`` is new size / old size of that axis. SAM's rule ignores pixel centers, for results equal to
the stock predictor's; it displaces a point by up to half a pixel of the larger grid. The other rule
maps pixel centers to pixel centers: the edge of a box is the point at ``k - 0.5``.

Networks have learned the shape of things on square pixels. If an image's are not square (a stack
seen from the side, whose planes are farther apart than its pixels), the network's input is
resampled so that they are; prompts and masks stay in the image's own pixels. Only ``stretch``, the
paper's protocol, does not keep the aspect.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from napari_simmat.models.spec import InputSize


Size = tuple[int, int]
BoxCorners = tuple[float, float, float, float]

MAX_SQUARE_RATIO = 1.2
"""Up to this ratio of its sides a pixel counts as square: resampling would mainly blur."""
MAX_PIXEL_RATIO = 16.0
"""Longer pixels count as this long: interpolation shows nothing new."""
MAX_UPSAMPLED_PIXELS = 2048 * 2048
"""Resampling enlarges an image up to so many pixels."""


@dataclass(frozen=True)
class InputTransform:
    """Maps one image to the network's input and back.

    The image is resized to `resized` and lies in the upper left corner of `padded`.

    Parameters
    ----------
    image, resized, padded
        Height and width in pixels.
    half_pixel
        Whether pixel centers map to pixel centers (see the table above).
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
        """The transform of an image of `shape_yx` for a model's `input_size`.

        `pixel_size` is height and width of a pixel in any unit, None if square or unknown. Raises
        ValueError if `shape_yx` is not two sizes of at least one pixel, or a pixel has no size.
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
            padded = (-(-resized[0] // step) * step, -(-resized[1] // step) * step)
        return cls((height, width), resized, padded, input_size.method != "longest")

    @property
    def scale(self) -> tuple[float, float]:
        """Resized size / image size, for y and x."""
        return self.resized[0] / self.image[0], self.resized[1] / self.image[1]

    @property
    def pad(self) -> tuple[int, int]:
        """Rows below and columns to the right that pad `resized` to `padded`."""
        return self.padded[0] - self.resized[0], self.padded[1] - self.resized[1]

    def grid(self, stride: float) -> Size:
        """Size of a grid over the padded input with a cell for every `stride` pixels."""
        return math.ceil(self.padded[0] / stride), math.ceil(self.padded[1] / stride)

    def to_input(self, points_yx: ArrayLike) -> NDArray[np.float32]:
        """Points (N, 2) as y, x in the image -> points (N, 2) as x, y in the input."""
        points = np.asarray(points_yx, dtype=np.float64).reshape(-1, 2)
        half = 0.5 if self.half_pixel else 0.0
        moved = (points + half) * self.scale - half
        return moved[:, ::-1].astype(np.float32)

    def box_to_input(self, box: BoxCorners) -> BoxCorners:
        """Half-open box y0, x0, y1, x1 in the image -> x0, y0, x1, y1 in the input."""
        corners = np.asarray(box, dtype=np.float64).reshape(2, 2)
        (x0, y0), (x1, y1) = self.to_input(corners - 0.5 if self.half_pixel else corners).tolist()
        return x0, y0, x1, y1

    def cells_within(self, rows: slice, columns: slice, stride: float) -> tuple[slice, slice]:
        """Rows and columns of `grid` whose centers lie in these rows and columns of the image."""
        x0, y0, x1, y1 = self.box_to_input((rows.start, columns.start, rows.stop, columns.stop))
        shift = 0.5 if self.half_pixel else 0.0
        first_row, first, last_row, last = (
            max(math.ceil((edge + shift) / stride - 0.5), 0) for edge in (y0, x0, y1, x1)
        )
        return slice(first_row, last_row), slice(first, last)

    def resize(self, image: NDArray[Any]) -> NDArray[Any]:
        """Resize an image (C, Y, X) of uint8 or float32 to (C, h, w).

        Bilinear with Pillow's antialias filter, not padded. Under SAM's rule uint8 stays uint8,
        with the bytes of SAM's ``ResizeLongestSide.apply_image``; otherwise nothing is rounded, as
        in the paper's protocol, and the result is float32.
        """
        if image.ndim != 3 or image.shape[1:] != self.image:
            raise ValueError(
                f"An image of shape {image.shape} does not fit a transform of {self.image}; "
                "give channels, height and width."
            )
        if image.dtype not in (np.uint8, np.float32):
            raise TypeError(f"Images to resize are uint8 or float32, this one is {image.dtype}.")
        if self.resized == self.image:
            return image
        if self.half_pixel:
            image = image.astype(np.float32, copy=False)
        from PIL import Image

        size = (self.resized[1], self.resized[0])
        bilinear = Image.Resampling.BILINEAR
        channels = (Image.fromarray(np.ascontiguousarray(channel)) for channel in image)
        return np.stack([np.asarray(channel.resize(size, bilinear)) for channel in channels])


def square_pixel_shape(shape_yx: Sequence[int], pixel_size: Sequence[float] | None) -> Size:
    """Size of an image of `shape_yx` once its pixels are square; unchanged without `pixel_size`.

    The longer side of a pixel is upsampled, so that nothing is lost, unless the image would grow
    beyond `MAX_UPSAMPLED_PIXELS`. Raises ValueError if a pixel has no size.
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
    height = rows * max(ratio, 1.0)
    width = columns * max(1 / ratio, 1.0)
    shrunk = min(1.0, math.sqrt(max(MAX_UPSAMPLED_PIXELS, rows * columns) / (height * width)))
    return max(1, round(height * shrunk)), max(1, round(width * shrunk))


def box_of_corners(corners: ArrayLike, shape_yx: tuple[int, int] | None = None) -> BoxCorners:
    """Half-open box of the pixels whose centers lie in a drawn shape's bounding rectangle.

    napari draws a rectangle around the pixels ``y0 .. y1 - 1`` with its edges at ``y0 - 0.5`` and
    ``y1 - 0.5``. Any position of an edge between two pixel centers gives the same box; a center on
    the edge is inside. A shape without a pixel center gives the pixel in its middle.

    Parameters
    ----------
    corners
        Vertices (N, 2) as y, x in data coordinates.
    shape_yx
        Clip the box to an image of this size; ValueError if it lies outside.
    """
    vertices = np.asarray(corners, dtype=np.float64).reshape(-1, 2)
    box = []
    for low, high in zip(vertices.min(axis=0), vertices.max(axis=0), strict=True):
        first = math.ceil(low)
        end = math.floor(high) + 1
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
    """Size with the longest side at `longest`, rounded as SAM does, but never 0."""
    scale = longest * 1.0 / max(shape_yx)
    return max(1, int(shape_yx[0] * scale + 0.5)), max(1, int(shape_yx[1] * scale + 0.5))


AxisOrder = tuple[int, ...]
"""For each axis of a side view the axis of the image; empty for the original order."""


def axis_order(plane_axes: Iterable[int], ndim: int) -> AxisOrder:
    """The order of a view whose rows and columns lie along two axes of an image.

    Rows take the first of the two and columns the second, however the window draws them. The other
    axes keep their order.
    """
    rows_columns = sorted(plane_axes)
    order = (*(axis for axis in range(ndim) if axis not in rows_columns), *rows_columns)
    return () if order == tuple(range(ndim)) else order


def inverse_order(order: AxisOrder) -> AxisOrder:
    """The order that maps a view back to the image."""
    return tuple(order.index(axis) for axis in range(len(order)))


def reordered(values: Iterable[Any], order: AxisOrder) -> tuple[Any, ...]:
    """One value for each axis of an image -> one for each axis of a view."""
    values = tuple(values)
    return tuple(values[axis] for axis in order) if order else values


def transposed_view(array: Any, order: AxisOrder) -> Any:
    """A lazy view of an array (numpy, dask, zarr or similar) with its axes in another order."""
    if not order:
        return array
    if isinstance(array, np.ndarray) or type(array).__module__.startswith("dask"):
        return array.transpose(order)
    return TransposedArray(array, order)


class TransposedArray:
    """An array that only takes integers and slices (e.g. zarr), lazily transposed by `order`."""

    def __init__(self, array: Any, order: AxisOrder) -> None:
        self._array, self._order = array, order
        self.shape = reordered((int(size) for size in array.shape), order)
        self.dtype = array.dtype
        self.ndim = len(order)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        index = index if isinstance(index, tuple) else (index,)
        whole = (*index, *(slice(None),) * (self.ndim - len(index)))
        values = np.asarray(self._array[reordered(whole, inverse_order(self._order))])
        # Integers drop their axis; the others are still in the order of the array.
        pairs = zip(self._order, whole, strict=True)
        left = [axis for axis, part in pairs if isinstance(part, slice)]
        return values.transpose([sorted(left).index(axis) for axis in left])


def zoomed(native: InputTransform, zoom: float) -> InputTransform:
    """The transform to an input that is `zoom` times as large, padded to multiples of 32."""
    rows, columns = (max(1, round(side * zoom)) for side in native.resized)
    padded = -(-rows // 32) * 32, -(-columns // 32) * 32
    return replace(native, resized=(rows, columns), padded=padded)

"""Channels derived from others: polarization, indices, windows, depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, pluralize

CT_WINDOWS = {"soft tissue": (50, 400), "lung": (-600, 1500), "bone": (400, 1800)}
"""Center and width in Hounsfield units, as radiologists usually set them for these tissues."""
WRONG_CHANNELS = "{} needs {}: {}; {} given. Choose them in this order."
NOT_BYTES = "Stains are told by the colors of a picture of 8 or 16 bits, not by values of type {}."
NO_FOCAL = (
    "{} needs the focal length of the depth camera in pixels, above 0; a Kinect's is 0.8 to 0.9 of "
    "the width."
)


class Derivation(NamedTuple):
    """Channels that are computed from others, pixel by pixel.

    Attributes
    ----------
    title
        What it computes, for a menu.
    inputs, outputs
        What the given channels are, in this order, and names of the new ones.
    compute
        From arrays (..., Y, X), numpy or dask, to one array for each output.
    needs_focal
        Whether `compute` takes the camera's focal length in pixels after the channels.
    """

    title: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    compute: Callable[..., Sequence[Any]]
    needs_focal: bool = False


def _polarization(*images: Any) -> tuple[Any, Any, Any]:
    """Intensity; angle of linear polarization in degrees, 0..180; degree of it, 0..1.

    By the Stokes parameters: S0 is half the sum of the four images.
    """
    i0, i45, i90, i135 = (image.astype(np.float64) for image in images)
    s0 = (i0 + i45 + i90 + i135) / 2
    s1 = i0 - i90
    s2 = i45 - i135
    angle = np.rad2deg(np.arctan2(s2, s1)) / 2 % 180
    return s0, angle, np.minimum(_ratio(np.hypot(s1, s2), s0), 1)


def _ndvi(red: Any, infrared: Any) -> tuple[Any]:
    red, infrared = red.astype(np.float64), infrared.astype(np.float64)
    return (_ratio(infrared - red, infrared + red),)


def _ct_windows(image: Any) -> list[Any]:
    """Each of `CT_WINDOWS` as 0..1."""
    return [
        np.clip((image.astype(np.float64) - center) / width + 0.5, 0, 1)
        for center, width in CT_WINDOWS.values()
    ]


def _hha(depth: Any, focal: float) -> Any:
    """Depth as disparity, height above ground and angle with gravity, (3, ..., Y, X) of 0..255.

    The code of Gupta, Girshick, Arbelaez and Malik (ECCV 2014, arXiv 1407.5736). The camera looks
    along the middle of the image. All three are 0 where there is no reading.
    """
    if not isinstance(depth, np.ndarray):
        whole = depth.rechunk({-2: -1, -1: -1})
        layout = {"new_axis": 0, "chunks": ((3,), *whole.chunks)}
        return whole.map_blocks(_hha, focal, **layout, dtype=np.float64)
    planes = depth.reshape(-1, *depth.shape[-2:])
    coded = [_hha_of_plane(plane, focal) for plane in planes]
    return np.stack(coded, axis=1).reshape(3, *depth.shape)


def _hha_of_plane(depth: NDArray[Any], focal: float) -> NDArray[np.float64]:
    meters = depth / 1000 if depth.dtype.kind in "iu" else depth.astype(np.float64)
    read = np.isfinite(meters) & (meters > 0)
    if not read.any():
        return np.zeros((3, *depth.shape))
    meters = np.where(read, meters, 1)
    middle = (np.array(read.shape).reshape(2, 1, 1) - 1) / 2
    rows, columns = (np.indices(read.shape) - middle) / focal
    rays = np.stack([columns, rows, np.ones(read.shape)])  # x, y, z at a depth of 1
    down = _gravity(_normals(rays, meters, read, 21)[:, read])
    height = -np.tensordot(down, rays * meters, 1)
    lowest = float(height[read].min())
    if lowest > -0.9:  # no ground in sight: as from a camera held at 1.3 m
        lowest = -1.3
    cosine = np.tensordot(down, _normals(rays, meters, read, 7), 1).clip(-1, 1)
    angle = np.rad2deg(np.arccos(cosine))
    code = np.stack([310 / np.maximum(meters, 1), 100 * (height - lowest), angle + 38])
    return np.where(read, np.rint(code).clip(0, 255), 0)


def _normals(
    rays: NDArray[np.float64], meters: NDArray[np.float64], read: NDArray[np.bool_], side: int
) -> NDArray[np.float64]:
    """Unit normals (3, Y, X), away from the camera, of planes fitted in squares around pixels.

    On a plane, 1 / z is linear in the direction in which a pixel looks; pixels not read have no
    weight.
    """
    from scipy.ndimage import uniform_filter

    def around(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(uniform_filter(values * read, side, mode="constant"))

    products = np.stack([[around(one * other) for one in rays] for other in rays])
    right = np.stack([around(one / meters) for one in rays])
    inverse = np.linalg.pinv(np.moveaxis(products, (0, 1), (-2, -1)), hermitian=True)
    normals = np.einsum("yxij,jyx->iyx", inverse, right)
    length = np.linalg.norm(normals, axis=0)
    return np.asarray(_ratio(normals, length))


def _gravity(normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """The direction down, a unit vector, to which floors (3, N) are parallel and walls across.

    By Gupta, Arbelaez and Malik (CVPR 2013), starting from the image's vertical.
    """
    down = np.array([0.0, 1.0, 0.0])
    for tolerance in np.deg2rad([45] * 5 + [15] * 5):
        cosine = np.abs(down @ normals)
        floor = normals[:, cosine > np.cos(tolerance)]
        wall = normals[:, cosine < np.sin(tolerance)]
        _, directions = np.linalg.eigh(wall @ wall.T - floor @ floor.T)
        down = np.copysign(1, down @ directions[:, 0]) * directions[:, 0]
    return down


def _stains(red: Any, green: Any, blue: Any) -> Any:
    """Hematoxylin, eosin and DAB (3, ..., Y, X) by color deconvolution, 0 where there is none.

    Ruifrok and Johnston (2001) with scikit-image's absorptions of the stains.
    """
    if not isinstance(red, np.ndarray):
        layout = {"new_axis": 0, "chunks": ((3,), *red.chunks)}
        return red.map_blocks(_stains, green, blue, **layout, dtype=np.float64)
    from skimage.color import rgb2hed

    colors = np.stack([red, green, blue], axis=-1)
    if colors.dtype not in (np.uint8, np.uint16):
        raise ValueError(NOT_BYTES.format(colors.dtype.name))
    return np.moveaxis(rgb2hed(colors), -1, 0)


def _ratio(part: Any, whole: Any) -> Any:
    """The quotient, 0 where there is nothing to divide by."""
    return np.where(whole == 0, 0, part / np.where(whole == 0, 1, whole))


DERIVATIONS = {
    "polarization": Derivation(
        "Intensity, AoLP and DoLP of four polarizer angles",
        ("0 deg", "45 deg", "90 deg", "135 deg"),
        ("intensity", "AoLP", "DoLP"),
        _polarization,
    ),
    "ndvi": Derivation(
        "NDVI of red and near infra-red", ("red", "near infra-red"), ("NDVI",), _ndvi
    ),
    "ct-windows": Derivation(
        "CT windows: soft tissue, lung, bone",
        ("CT in Hounsfield units",),
        tuple(CT_WINDOWS),
        _ct_windows,
    ),
    "stains": Derivation(
        "Stains: hematoxylin, eosin, DAB",
        ("red", "green", "blue"),
        ("hematoxylin", "eosin", "DAB"),
        _stains,
    ),
    "hha": Derivation(
        "HHA of depth in meters, or in whole millimeters",
        ("depth",),
        ("disparity", "height", "angle"),
        _hha,
        needs_focal=True,
    ),
}
"""For `derive_channels`, the command line and the window."""


def derive_channels(
    kind: str, channels: Sequence[Any], focal: float | None = None
) -> dict[str, Any]:
    """Channels computed from others, by name, as float32.

    Parameters
    ----------
    kind
        A name in `DERIVATIONS`.
    channels
        Arrays (..., Y, X) of the same shape, in the order of its `inputs`; dask stays lazy.
    focal
        Focal length of the camera in pixels, for those that need it.

    Raises
    ------
    ValueError
        If the kind is unknown, the channels are not as many or not of one shape, or the focal
        length is missing or not above 0.
    """
    if kind not in DERIVATIONS:
        known = format_list(list(DERIVATIONS))
        raise ValueError(f"Channels {kind!r} are unknown; use {known}.")
    made = DERIVATIONS[kind]
    if len(channels) != len(made.inputs) or len({each.shape for each in channels}) > 1:
        shapes = len({each.shape for each in channels})
        were = f"{len(channels)} of {pluralize(shapes, 'shape')} were"
        needed = pluralize(len(made.inputs), "channel"), ", ".join(made.inputs)
        raise ValueError(WRONG_CHANNELS.format(kind, *needed, were))
    if made.needs_focal and not 0 < (focal or 0) < np.inf:
        raise ValueError(NO_FOCAL.format(kind))
    values = made.compute(*channels, *([focal] if made.needs_focal else []))
    return {name: each.astype(np.float32) for name, each in zip(made.outputs, values, strict=True)}

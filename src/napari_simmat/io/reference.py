"""What labels keep of the image they belong to: pixel size, place in the world, names.

Every reader gives an `ImageReference`, every writer takes one: what a file says about where its
pixels are travels from one format to another, through the window, a batch run and a command alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_simmat.progress import Job, Progress

_MILLIMETERS = {"m": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "nm": 1e-6}
_SAME_PLACE = 1e-3
"""Affines that differ by less than this part of a voxel, over the whole image, are the same."""
_OBLIQUE = 5.0
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From DICOM's and ITK's patient axes (left, posterior, superior) to NIfTI's, and back."""


TiffTag = tuple[int, int, int, Any]
"""Code, type, count and value of a tag, as tifffile reads and writes it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Where pixels are in the world.

    Parameters
    ----------
    affine
        (4, 4), from the indices (x, y, z) of a pixel's center to the world.
    space
        ``"patient"``: millimeters to the right, anterior and superior, as NIfTI has them.
        ``"map"``: a coordinate reference system of maps.
    codes, qform
        NIfTI's codes of sform and qform, and the qform (4, 4) where it differs from the affine.
    epsg
        EPSG code of a map's coordinate reference system, where it has one.
    tags
        What a GeoTIFF says about it.
    """

    affine: NDArray[np.float64]
    space: Literal["patient", "map"]
    codes: tuple[int, int] = (1, 1)
    qform: NDArray[np.float64] | None = None
    epsg: int | None = None
    tags: tuple[TiffTag, ...] = ()

    def at_level(self, matrix: NDArray[np.floating[Any]]) -> World:
        """The world of another grid of pixels.

        Parameters
        ----------
        matrix
            (4, 4), from the indices (x, y, z) of the other grid to those of this one.
        """
        qform = None if self.qform is None else self.qform @ matrix
        return replace(self, affine=self.affine @ matrix, qform=qform, tags=())

    def plane_name(self, rows: int = 1, columns: int = 0) -> str:
        """How a radiologist calls a plane, ``"axial plane, R on the left, A at the top"``.

        It is oblique if its normal is more than `_OBLIQUE` degrees off. Empty on a map.

        Parameters
        ----------
        rows, columns
            The axes along which rows and columns of the plane count, 0 x, 1 y, 2 z.
        """
        if self.space != "patient":
            return ""
        from scipy.optimize import linear_sum_assignment  # slow to import

        turned = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        nearest = dict(zip(*linear_sum_assignment(-np.abs(turned.T)), strict=True))
        normal = 3 - rows - columns
        name = ("sagittal", "coronal", "axial")[nearest[normal]]
        if abs(turned[nearest[normal], normal]) < np.cos(np.radians(_OBLIQUE)):
            name = f"oblique {name}"
        # Where index 0 is: to the left if indices grow to the right.
        left, top = (
            ("LPI" if turned[nearest[axis], axis] > 0 else "RAS")[nearest[axis]]
            for axis in (columns, rows)
        )
        return f"{name} plane, {left} on the left, {top} at the top"

    def agrees(self, other: World, shape: Sequence[int]) -> bool:
        """Whether an image of `shape` (..., Y, X) lies at the same place in both."""
        if (self.space, self.epsg) != (other.space, other.epsg):
            return False
        sizes = (*reversed(shape[-3:]), 1)[:3]
        corners = np.array([[0, 0, 0, 1], *([*row, 1] for row in np.diag(sizes))], float)
        apart = np.abs(corners @ (self.affine - other.affine).T).max()
        return bool(apart < _SAME_PLACE * np.linalg.norm(self.affine[:3, :3], axis=0).min())


def resample_job(
    data: NDArray[Any], world: World, onto: World, shape: tuple[int, ...]
) -> Job[NDArray[np.float32]]:
    """An image on the voxels of another, trilinear; NaN where it does not reach.

    Parameters
    ----------
    data, world
        (Y, X) or (Z, Y, X), and where it is.
    onto, shape
        Where the other image is, and its shape of as many axes.
    """
    from scipy.ndimage import map_coordinates

    matrix = (np.linalg.inv(world.affine) @ onto.affine)[:3]
    volume = np.asarray(data, np.float32).reshape((1, *data.shape)[-3:])
    result = np.empty((1, *shape)[-3:], np.float32)
    last = np.subtract(volume.shape, 1)[:, np.newaxis, np.newaxis]
    y, x = np.indices(result.shape[1:])
    for z, plane in enumerate(result):
        yield Progress(z, len(result), "resampling")
        at = matrix[::-1] @ np.stack([x, y, np.full_like(x, z), np.ones_like(x)]).reshape(4, -1)
        at = at.reshape(3, *y.shape)
        map_coordinates(volume, at, plane, order=1, mode="nearest")
        plane[((at < -0.5) | (at > last + 0.5)).any(axis=0)] = np.nan  # behind the last voxel
    return result.reshape(shape)


@dataclass(frozen=True, kw_only=True)
class ImageReference:
    """What labels keep of their image.

    Parameters
    ----------
    scale, units
        Size of a pixel by axis letter, with its unit where known.
    world
        Where the pixels are.
    missing
        The value of pixels without data; `io.readers.read_image` has made them NaN.
    name
        The name that the file gives the image.
    channels
        Names of the channels.
    file
        The image's file or folder.
    """

    scale: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    world: World | None = None
    missing: float | None = None
    name: str = ""
    channels: tuple[str, ...] = ()
    file: Path | None = None

    def of(self, axis: str) -> tuple[float, str] | None:
        """Size and unit along `axis`; None unless both are known."""
        unit = self.units.get(axis, "")
        return (self.scale[axis], unit) if axis in self.scale and unit else None

    @property
    def patient(self) -> World:
        """Where voxels are in millimeters, for formats that have patient axes.

        Without such a place it is the origin, with the pixel size along the axes.
        """
        if self.world is not None and self.world.space == "patient":
            return self.world
        sizes = [
            known[0] * _MILLIMETERS.get(known[1], 1.0) if (known := self.of(letter)) else 1.0
            for letter in "XYZ"
        ]
        return World(affine=np.diag([*sizes, 1.0]), space="patient", codes=(2, 0))

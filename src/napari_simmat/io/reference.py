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
_EVEN = 0.05
"""Part of the distance between two planes by which a plane of an even stack may lie elsewhere."""
_SQUARE = 1e-6
"""Cosine of the angle between two axes up to which they are perpendicular; header values are often
floats of 32 bits."""
ONE_STEP = (
    "The planes of {} do not lie at equal distances, but {} has one distance for all; choose DICOM "
    "SEG, which keeps the place of each plane, or OME-TIFF, which keeps none."
)
OTHER_SYSTEM = (
    "{} lies in {}, but {} in {}; bring both into one coordinate system first (for maps: gdalwarp)."
)
UNEVEN_PLANES = (
    "{} cannot be brought onto the pixels of {}, as the planes of {} do not lie at equal "
    "distances; resample that first."
)
_OBLIQUE = 5.0
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From DICOM's and ITK's patient axes (left, posterior, superior) to NIfTI's, and back."""

CRS_TAGS = (34735, 34736, 34737)
"""Tags of GeoTIFF that describe a coordinate reference system: keys and their values."""
TiffTag = tuple[int, int, int, Any]
"""Code, type, count and value of a tag, as tifffile reads and writes it."""


Missing = float | tuple[float, float]
"""The value of pixels without data, or the lowest and the highest of their values."""


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Where pixels are in the world.

    Parameters
    ----------
    affine
        (4, 4), from the indices (x, y, z) of a pixel's center to the world.
    space
        ``"patient"``: lengths to the right, anterior and superior, as NIfTI has them.
        ``"map"``: a coordinate reference system of maps.
    unit
        Of the patient's space; nearly always millimeters.
    planes
        (Z, 3), where the first pixel of each plane is, if the file says so plane by plane. If they
        are not `even`, the affine holds for the plane 0, and its z column is a usual step.
    codes, qform
        NIfTI's codes of sform and qform, and the qform (4, 4) with the file's voxel sizes.
    epsg
        EPSG code of a map's coordinate reference system, where it has one.
    crs
        What the file says about a system without such a code, to compare it with others.
    tags
        What a GeoTIFF says about it.
    """

    affine: NDArray[np.float64]
    space: Literal["patient", "map"]
    unit: str = "mm"
    planes: NDArray[np.float64] | None = None
    codes: tuple[int, int] = (1, 1)
    qform: NDArray[np.float64] | None = None
    epsg: int | None = None
    crs: tuple[object, ...] = ()
    tags: tuple[TiffTag, ...] = ()

    @property
    def even(self) -> bool:
        """Whether planes lie one step apart, so that the affine holds for all of them."""
        if self.planes is None or len(self.planes) < 2:
            return True
        line = self.planes[0] + np.arange(len(self.planes))[:, np.newaxis] * self.affine[:3, 2]
        apart = np.linalg.norm(self.planes - line, axis=1).max()
        return bool(apart <= _EVEN * np.linalg.norm(self.affine[:3, 2]))

    @property
    def origins(self) -> NDArray[np.float64] | None:
        """`planes` in millimeters."""
        return None if self.planes is None else self.planes * _MILLIMETERS.get(self.unit, 1.0)

    @property
    def in_millimeters(self) -> World:
        """The same place of a patient in millimeters; a map stays as it is."""
        factor = _MILLIMETERS.get(self.unit, 1.0) if self.space == "patient" else 1.0
        if factor == 1.0:
            return replace(self, unit="mm")
        size = np.diag([factor, factor, factor, 1.0])
        qform = None if self.qform is None else size @ self.qform
        return replace(self, affine=size @ self.affine, qform=qform, planes=self.origins, unit="mm")

    @property
    def system(self) -> tuple[object, ...]:
        """What coordinates count in: two places can be compared if it is equal."""
        if self.space == "patient":
            return (self.space,)
        return (self.space, self.crs if self.epsg is None else self.epsg)

    @property
    def system_name(self) -> str:
        """`system` for the user."""
        if self.space == "patient":
            return "the space of a patient"
        return f"EPSG:{self.epsg}" if self.epsg is not None else "a map without an EPSG code"

    @property
    def tilt(self) -> float:
        """Degrees by which the stack leans over its planes, as behind a tilted gantry."""
        across, down, through = (self.affine[:3, axis] for axis in range(3))
        normal = np.cross(across, down)
        cosine = float(abs(normal @ through) / np.linalg.norm(normal) / np.linalg.norm(through))
        return float(np.degrees(np.arccos(min(1.0, cosine))))

    def edges(self, axes: str) -> NDArray[np.float64]:
        """Edges (n, n) of length 1 of a voxel along the n `axes`, letters of X, Y, Z, as columns.

        They have the angles of the voxel, and no other direction: the identity if it is a box, or
        if the affine is flat, as of a file that does not mean it.
        """
        columns = self.affine[:3, ["XYZ".index(letter) for letter in axes]]
        lengths = np.linalg.norm(columns, axis=0)
        if np.linalg.matrix_rank(columns) < len(axes):
            return np.eye(len(axes))
        cosines = (columns / lengths).T @ (columns / lengths)
        if np.abs(cosines - np.eye(len(axes))).max() <= _SQUARE:
            return np.eye(len(axes))
        return np.asarray(np.linalg.cholesky(cosines).T)

    def at_level(self, matrix: NDArray[np.floating[Any]]) -> World:
        """The world of another grid of pixels.

        Parameters
        ----------
        matrix
            (4, 4), from the indices (x, y, z) of the other grid to those of this one.
        """
        qform = None if self.qform is None else self.qform @ matrix
        planes = self.planes
        if planes is not None:
            steps = np.arange(int(len(planes) / matrix[2, 2])) * matrix[2, 2] + matrix[2, 3]
            known = np.arange(len(planes))
            planes = np.stack([np.interp(steps, known, each) for each in planes.T], axis=1)
            planes = planes + self.affine[:3, :2] @ matrix[:2, 3]
        # The system stays; writers of GeoTIFF take the place from the affine.
        tags = tuple(tag for tag in self.tags if tag[0] in CRS_TAGS)
        return replace(self, affine=self.affine @ matrix, qform=qform, planes=planes, tags=tags)

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
        if self.system != other.system:
            return False
        here, there = self.in_millimeters, other.in_millimeters
        sizes = (*reversed(shape[-3:]), 1)[:3]
        corners = np.array([[0, 0, 0, 1], *([*row, 1] for row in np.diag(sizes))], float)
        apart = np.abs(corners @ (here.affine - there.affine).T).max()
        near = _SAME_PLACE * np.linalg.norm(here.affine[:3, :3], axis=0).min()
        if not (here.even and there.even):
            ours, theirs = here.planes, there.planes
            if ours is None or theirs is None or ours.shape != theirs.shape:
                return False
            apart = max(apart, np.abs(ours - theirs).max())
        return bool(apart < near)


def nearest_box(affine: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The affine (4, 4) with perpendicular axes that is nearest, as a qform of NIfTI can hold it.

    It has the sizes of the voxel and its first corner; only the directions change.
    """
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / sizes)
    box = np.array(affine, dtype=np.float64)
    box[:3, :3] = left @ right * sizes
    return box


def readers_differ(world: World, shape: Sequence[int]) -> float:
    """The most by which programs that take an image's sform or its qform differ, in its unit.

    Parameters
    ----------
    world
        Where the image is; without a qform of its own the nearest one counts.
    shape
        (..., Y, X); more axes than three do not count.
    """
    qform = nearest_box(world.affine) if world.qform is None else world.qform
    last = np.subtract((*reversed(shape[-3:]), 1, 1)[:3], 1)
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], float)
    corners[:, :3] *= last
    return float(np.linalg.norm(corners @ (world.affine - qform).T, axis=1).max())


def resampling_problem(name: str, world: World, other: str, onto: World) -> str:
    """Why one image cannot be brought onto the pixels of another, in a sentence; empty if it can.

    Parameters
    ----------
    name, world, other, onto
        Names and places of the two.
    """
    if world.system != onto.system:
        return OTHER_SYSTEM.format(name, world.system_name, other, onto.system_name)
    uneven = name if not world.even else other if not onto.even else ""
    return UNEVEN_PLANES.format(name, other, uneven) if uneven else ""


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

    Raises
    ------
    ValueError
        If the two places cannot be compared, as `resampling_problem` says.
    """
    from scipy.ndimage import map_coordinates

    if problem := resampling_problem("An image", world, "another", onto):
        raise ValueError(problem)
    here, there = world.in_millimeters, onto.in_millimeters
    matrix = (np.linalg.inv(here.affine) @ there.affine)[:3]
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
class Within:
    """Where an image lies in the finest level of its file, of which it is a part.

    Parameters
    ----------
    offset
        Of its upper left corner, y and x in pixels of level 0, counted from the corner of the
        first one.
    factor
        How many pixels of level 0 one of its own has, along Y and X.
    shape
        Height and width of level 0.
    level
        The level that it was read from.
    """

    offset: tuple[float, float]
    factor: tuple[float, float]
    shape: tuple[int, int]
    level: int = 0

    @property
    def first_center(self) -> tuple[float, float]:
        """The center of its first pixel in level 0, y and x; 0, 0 for the whole of level 0."""
        y, x = self.to_whole(np.array([[0.5, 0.5]]))[0] - 0.5
        return float(y), float(x)

    def to_whole(self, edges: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Places (N, 2) as y, x, counted from the corner of the first pixel, in level 0."""
        return np.asarray(edges, np.float64) * self.factor + self.offset

    def from_whole(self, edges: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Places (N, 2) of level 0 in its own pixels, both counted from corners."""
        return (np.asarray(edges, np.float64) - self.offset) / self.factor


@dataclass(frozen=True, kw_only=True)
class ImageReference:
    """What labels keep of their image.

    Parameters
    ----------
    scale, units
        Size of a pixel by axis letter, with its unit where known.
    origin
        Where the center of the first pixel is, by axis letter in these units, if a file of
        OME-Zarr moves it from 0.
    world
        Where the pixels are.
    sky
        Where they are on the sky, see `io.sky`.
    stage
        Position of the microscope's stage by axis letter, with its unit, as OME names it.
    missing, valid
        The value of pixels without data, and which pixels (Y, X) have data, if the file has a mask
        of them; `io.readers.read_image` has made the others NaN.
    name
        The name that the file gives the image.
    channels
        Names of the channels.
    file
        The image's file or folder.
    within
        Where it lies in the finest level of its file, if it is a part of that.
    """

    scale: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, float] = field(default_factory=dict)
    world: World | None = None
    stage: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    missing: Missing | None = None
    valid: NDArray[np.bool_] | None = None
    name: str = ""
    channels: tuple[str, ...] = ()
    file: Path | None = None
    within: Within | None = None
    sky: str = ""

    def start(self, axis: str) -> float:
        """Where the first pixel's center is in the whole that it is a part of, in its unit."""
        if self.within is None or axis not in "YX" or axis not in self.scale:
            return 0.0
        number = "YX".index(axis)
        step = self.scale[axis] / self.within.factor[number]
        return self.within.first_center[number] * step

    def of(self, axis: str) -> tuple[float, str] | None:
        """Size and unit along `axis`; None unless both are known."""
        unit = self.units.get(axis, "")
        return (self.scale[axis], unit) if axis in self.scale and unit else None

    def voxel(self, axes: str) -> tuple[float, str] | None:
        """Area or volume of a pixel over `axes`, letters of X, Y, Z, and the unit of its lengths.

        This is the one place that knows it, for boxes and for pixels whose axes are not
        perpendicular. None unless all axes have a size in one known unit.
        """
        edges = self.edges(axes)
        if edges is None:
            return None
        skew = np.prod(np.diag(self._angles(axes)))
        return float(np.prod([self.scale[letter] for letter in axes]) * skew), self.units[axes[0]]

    def edges(self, axes: str) -> NDArray[np.float64] | None:
        """Edges (n, n) of a pixel along `axes` as columns, with its sizes and angles.

        Diagonal if the pixel is a box; None unless all axes have a size in one known unit.
        """
        known = [self.of(letter) for letter in axes]
        if None in known or len({each[1] for each in known if each is not None}) > 1:
            return None
        return self._angles(axes) * [self.scale[letter] for letter in axes]

    def _angles(self, axes: str) -> NDArray[np.float64]:
        return np.eye(len(axes)) if self.world is None else self.world.edges(axes)

    def check_one_step(self, format_name: str) -> None:
        """Raise ValueError if the planes lie unevenly, so that a format cannot hold their place."""
        if problem := self.one_step_problem(format_name):
            raise ValueError(problem)

    def one_step_problem(self, format_name: str) -> str:
        """Why a format with one distance between planes cannot hold the image; empty if it can."""
        if self.world is None or self.world.even:
            return ""
        return ONE_STEP.format("the image" if self.file is None else self.file.name, format_name)

    @property
    def patient(self) -> World:
        """Where voxels are, for formats that have patient axes, in the unit of its file.

        Without such a place it is the origin, with the pixel size along the axes.
        """
        if self.world is not None and self.world.space == "patient":
            return self.world
        sizes = [
            known[0] * _MILLIMETERS.get(known[1], 1.0) if (known := self.of(letter)) else 1.0
            for letter in "XYZ"
        ]
        return World(affine=np.diag([*sizes, 1.0]), space="patient", codes=(2, 0))

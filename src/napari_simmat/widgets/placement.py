"""Coordinates of an image: pixels, pyramid levels, the viewer's world, and other layers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import Dims
from napari.layers import Image, Labels, Layer
from napari.utils.transforms import Affine

from napari_simmat._text import format_shape
from napari_simmat.engine.coordinates import AxisOrder, axis_order, inverse_order, reordered
from napari_simmat.io.pyramid import USUAL_SIDE
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.tiff import read_tiff_reference
from napari_simmat.io.zarr import is_zarr, read_zarr_reference
from napari_simmat.widgets.shortcuts import napari_key

_LEVEL = "SimMAT level"
REFERENCE = "SimMAT reference"
IN_3D = "Prompts are drawn in 2D: leave the 3D view ({key})."
"""Key of a layer's metadata: the `ImageReference` of its file."""
_NUMBER = re.compile(r"-?\d+")
"""napari's label of an axis without a name, counted from the last one."""
_LETTERS = {"time": "T", "depth": "Z", "row": "Y", "column": "X"}
_USUAL = "TZYX"
TIME_NAMES = ("t", "time", "frame", "frames")
"""Names of a time axis."""
DEPTH_NAMES = ("z", "depth", "slice", "slices", "plane", "planes")
"""Names of an axis of depth."""
MAX_LEVEL_SIDE = USUAL_SIDE
"""By default the finest level is segmented whose planes have no longer side."""


def level_of(layer: Image) -> int:
    """The level of a layer to segment: the user's choice, or the finest that is not too large.

    A network reads about a thousand pixels across, so finer levels only cost memory.
    """
    if not layer.multiscale:
        return 0
    chosen = layer.metadata.get(_LEVEL)
    if chosen in range(len(layer.data)):
        return int(chosen)
    fits = [
        level
        for level in range(len(layer.data))
        if max(image_shape(layer, level)[-2:]) <= MAX_LEVEL_SIDE
    ]
    return fits[0] if fits else len(layer.data) - 1


def choose_level(layer: Image, level: int) -> None:
    """Segment this level of a multiscale layer from now on."""
    layer.metadata[_LEVEL] = level


def image_shape(layer: Image | Labels, level: int = 0) -> tuple[int, ...]:
    """Shape of a layer, at `level` if it is multiscale, without an RGB layer's color axis."""
    data = layer.data[level] if layer.multiscale else layer.data
    return tuple(
        int(size) for size in (data.shape[:-1] if getattr(layer, "rgb", False) else data.shape)
    )


def reference_of(layer: Layer) -> ImageReference:
    """What the file of a layer says about its place; read once, also if another plugin opened it.

    It is empty if the layer has no file, and names the file alone if that is of another format or
    shape.
    """
    known = layer.metadata.get(REFERENCE)
    if not isinstance(known, ImageReference):
        path = layer.source.path
        known = ImageReference()
        if path and str(path).lower().endswith((".tif", ".tiff", ".svs")):
            known = read_tiff_reference(Path(path))
        elif path and is_zarr(Path(path)):
            known = read_zarr_reference(Path(path))
        is_own = path and not layer.source.sample and Path(path).is_file()
        if is_own and known.file is None:
            known = replace(known, file=Path(path))  # results are offered beside it
        layer.metadata[REFERENCE] = known
    return known


def level_matrix(factors: np.ndarray) -> np.ndarray:
    """Matrix (n + 1, n + 1) from the pixels of a coarser level to those of the finest.

    A coarse pixel covers `factors` fine ones; its center lies between them.
    """
    matrix = np.eye(len(factors) + 1)
    matrix[:-1, :-1] = np.diag(factors)
    matrix[:-1, -1] = (factors - 1) / 2
    return matrix


def level_options(options: dict[str, Any], factors: np.ndarray, origin: Any = 0) -> dict[str, Any]:
    """Layer keywords for coarser pixels, the first of which begins with the pixel `origin`."""
    if np.all(factors == 1) and not np.any(origin):
        return options
    linear = {name: options[name] for name in ("scale", "rotate", "shear") if name in options}
    matrix = Affine(**linear, ndim=len(factors)).linear_matrix
    return {
        **options,
        "scale": np.asarray(options["scale"]) * factors,
        "translate": np.asarray(options["translate"]) + matrix @ (origin + (factors - 1) / 2),
    }


class ImageGeometry:
    """The axes of an image layer without its channels, and their transform to the world.

    It is a snapshot: a layer that is moved gets a new one, and until then prompts are read where
    they were drawn. Coordinates are image pixels in the order of the view: (..., y, x) at first,
    another order in another view (`seen`). Its matrix, and layers placed on it, always use the
    image's own axis order.

    Parameters
    ----------
    layer
        The image with its shape, scale, units and transform.
    channels_first
        Whether its first axis holds channels.
    level
        Level of a multiscale layer; prompts, masks and objects are in its pixels.

    Attributes
    ----------
    order
        The view: the image's axis for each axis of the coordinates; empty for the usual view.
    """

    def __init__(self, layer: Image, *, channels_first: bool = False, level: int = 0) -> None:
        lead = int(channels_first)
        self.name = layer.name
        self.order: AxisOrder = ()
        self._shape = image_shape(layer, level)[lead:]
        whole = image_shape(layer)[lead:]
        factors = np.divide(whole, self._shape)
        self.matrix = layer_matrix(layer)[lead:, lead:] @ level_matrix(factors)
        """Affine matrix (ndim + 1, ndim + 1) from pixels to the world."""
        self._level_remark = ""
        if level:
            count = len(layer.data)
            self._level_remark = (
                f"Level {level} of 0 to {count - 1} is segmented: {format_shape(self._shape)} of "
                f"{format_shape(whole)} pixels."
            )
        self._options = level_options(_options(layer, channels_first=channels_first), factors)
        self.reference = reference_of(layer)
        """What labels keep of the image's file."""
        world = self.reference.world
        if world is not None and np.any(factors != 1):
            xyz = np.ones(3)
            xyz[: min(3, len(factors))] = factors[::-1][:3]
            self.reference = replace(self.reference, world=world.at_level(level_matrix(xyz)))
        if np.any(factors != 1):
            self.reference = replace(self.reference, scale={}, units={}, origin={})

    @property
    def usual(self) -> ImageGeometry:
        """The usual view: rows and columns along the last two axes."""
        return self.seen(())

    def seen(self, order: AxisOrder) -> ImageGeometry:
        """The image in another view."""
        view = copy(self)
        view.order = order
        return view

    @property
    def remark(self) -> str:
        """What the user should know about the level and about the patient's planes, or empty."""
        name = self.plane_name
        return " ".join(
            filter(None, [self._level_remark, f"{name[:1].upper()}{name[1:]}." * bool(name)])
        )

    @property
    def plane_name(self) -> str:
        """How a radiologist calls the planes of the view, as they are stored; empty for others."""
        world, last = self.reference.world, self.ndim - 1
        rows, columns = reordered(tuple(range(self.ndim)), self.order)[-2:]
        within = min(rows, columns) > last - 3
        return world.plane_name(last - rows, last - columns) if world and within else ""

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., Y, X); the last two are the rows and columns of the view."""
        return reordered(self._shape, self.order)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a pixel along each axis, in the units of the viewer's world."""
        lengths = np.linalg.norm(self.matrix[:-1, :-1], axis=0)
        return reordered(lengths.tolist(), self.order)

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the axes: napari's labels, ``axis 0`` for one that was given none."""
        labels = enumerate(map(str, self._options["axis_labels"]))
        names = (f"axis {axis}" if _NUMBER.fullmatch(name) else name for axis, name in labels)
        return reordered(names, self.order)

    @property
    def axes(self) -> str:
        """A letter for each of the image's own axes, as in files."""
        return axis_letters([str(name) for name in self._options["axis_labels"]])

    def kept_reference(self) -> ImageReference:
        """What labels keep of the image, with the pixel size of the layer.

        If the layer has none, that of the file: a reader of another plugin may leave it out.
        """
        axes, spacing = self.axes, self.usual.spacing
        units = {
            letter: unit_symbol(unit).replace("\N{MICRO SIGN}", "u")
            for letter, unit in zip(axes, self._options["units"], strict=True)
            if str(unit) not in ("pixel", "")
        }
        bare = not units and all(size == 1 for size in spacing)
        if bare and set(self.reference.scale) <= set(axes):
            return self.reference
        sizes = {letter: spacing[axes.index(letter)] for letter in units}
        return replace(self.reference, scale=sizes, units=units, origin=self._origin(axes, units))

    def _origin(self, axes: str, units: Mapping[str, str]) -> Mapping[str, float]:
        """Where the first pixel is along axes that the layer only moves, in its `units`.

        If it is not moved, where the file says: a reader of another plugin may leave it out.
        """
        linear = self.matrix[:-1, :-1]
        moved = self.matrix[:-1, -1]
        if not np.allclose(linear, np.diag(np.diag(linear))):  # turned: no place along an axis
            return {}
        if moved.any():
            return {letter: float(moved[axes.index(letter)]) for letter in units}
        known = self.reference
        return {
            letter: at
            for letter, at in known.origin.items()
            if units.get(letter) == known.units.get(letter)
        }

    def layer_options(self) -> dict[str, Any]:
        """Keywords that place a new layer exactly on the image."""
        return dict(self._options)

    def carry(self, layer: Layer, before: ImageGeometry) -> None:
        """Place a layer that lay on the image where that lies now, in its units."""
        options = self.layer_options()
        if before.lies_on(layer) and not self.lies_on(layer):
            for name in ("scale", "translate", "rotate", "shear", "affine"):
                if name in options:
                    setattr(layer, name, options[name])
        if self.lies_on(layer) and layer.units != options["units"]:
            layer.units = options["units"]

    def on_plane(
        self, plane: Sequence[int], picture: np.ndarray
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A picture (h, w, 3) of a plane as data with all axes, and keywords that place it."""
        inverse = inverse_order(self.order) if self.order else tuple(range(self.ndim))
        data = picture.reshape(*(1 for _ in plane), *picture.shape).transpose(*inverse, self.ndim)
        shape = np.array(reordered(self.shape, inverse))
        factors = np.where(np.array(data.shape[:-1]) == 1, 1, shape / data.shape[:-1])
        origin = np.array(reordered((*plane, 0, 0), inverse))
        return data, level_options(self._options, factors, origin)

    def lies_on(self, other: Layer) -> bool:
        """Whether `other` has the image's coordinates."""
        return other.ndim == self.ndim and bool(np.allclose(layer_matrix(other), self.matrix))

    def from_layer(self, other: Layer, positions: np.ndarray, point: Sequence[float]) -> np.ndarray:
        """Transform positions (N, D) of `other` to the image (N, ndim).

        Parameters
        ----------
        other
            A layer of the same viewer.
        positions
            In the data coordinates of `other`.
        point
            The viewer's current point; it gives the plane of a layer with fewer axes.
        """
        positions = np.asarray(positions, dtype=float).reshape(-1, other.ndim)
        if not self.lies_on(other):
            world = np.array([other.data_to_world(position) for position in positions])
            world = world.reshape(-1, other.ndim)[:, -self.ndim :]
            lead = np.asarray(point[-self.ndim :], dtype=float)[: self.ndim - world.shape[1]]
            positions = self._inverse(np.hstack([np.tile(lead, (len(world), 1)), world]))
        return self._in_view(positions)

    def to_layer(self, other: Layer, positions: np.ndarray, point: Sequence[float]) -> np.ndarray:
        """Transform positions (N, ndim) of the image to `other` (N, D)."""
        positions = self._in_image(np.asarray(positions, dtype=float).reshape(-1, self.ndim))
        if self.lies_on(other):
            return positions
        matrix = self.matrix
        world = positions @ matrix[:-1, :-1].T + matrix[:-1, -1]
        if world.shape[1] < other.ndim:
            lead = np.asarray(point[-other.ndim : -self.ndim], dtype=float)
            world = np.hstack([np.tile(lead, (len(world), 1)), world])
        return np.array([other.world_to_data(row) for row in world]).reshape(-1, other.ndim)

    def to_world(self, position: Sequence[float]) -> np.ndarray:
        """Transform a position (ndim,) of the view to the world (ndim,), in image axes."""
        at = self._in_image(np.asarray([position], dtype=float))[0]
        moved: np.ndarray = self.matrix[:-1, :-1] @ at + self.matrix[:-1, -1]
        return moved

    def from_world(self, position: Sequence[float]) -> np.ndarray:
        """Transform a position of the world, in the viewer's axes, to the view (ndim,)."""
        at = self._inverse(np.asarray([position[-self.ndim :]], dtype=float))
        return self._in_view(at)[0]

    def order_shown(self, dims: Dims) -> AxisOrder:
        """Axis order of the view that the viewer shows.

        Raises
        ------
        ValueError
            If it does not show a plane along two axes of the image; the message says what to do.
        """
        if dims.ndisplay != 2:
            raise ValueError(IN_3D.format(key=napari_key("toggle_ndisplay")))
        shown = shown_axes(dims, self.ndim)
        if len(shown) < 2 or dims.ndim < self.ndim:  # fewer if the layer was just removed
            raise ValueError(
                f"Prompts are drawn on two of the axes {', '.join(self.usual.axis_names)} of "
                f"{self.name}: roll the axes with the button below the layer list."
            )
        behind = [axis for axis in range(self.ndim) if axis not in shown]
        linear = self.matrix[:-1, :-1]
        mixed = [linear[np.ix_(shown, behind)], linear[np.ix_(behind, shown)]]
        order = axis_order(shown, self.ndim)
        if order and any(np.abs(part).max() > 1e-9 * np.abs(linear).max() for part in mixed):
            raise ValueError(
                f"{self.name} is rotated relative to this view, so no plane of pixels is shown: "
                "switch back to its last two axes with the buttons below the layer list."
            )
        return order

    def plane(self, dims: Dims) -> tuple[int, ...]:
        """Indices of the plane shown.

        Raises
        ------
        ValueError
            If no plane of this view is shown; the message says what to do.
        """
        if self.order_shown(dims) != self.order:
            raise ValueError(f"Another side of {self.name} is shown: go back to this one.")
        index = tuple(int(np.round(value)) for value in self.from_world(dims.point)[:-2])
        for value, size in zip(index, self.shape[:-2], strict=True):
            if not 0 <= value < size:
                raise ValueError(
                    f"{self.name} has no plane here: move the slider to where it is shown."
                )
        return index

    def other_pixels(self, labels: Labels) -> str | None:
        """Why `labels` do not match the image pixel by pixel, or None."""
        if labels.multiscale:
            return f"{labels.name} is multiscale"
        if tuple(labels.data.shape) != self._shape:
            here = format_shape(self._shape)
            there = format_shape(labels.data.shape)
            return f"{labels.name} has {there} pixels, the image {here}"
        return None

    def misfit(self, labels: Labels) -> str | None:
        """Why objects of this image cannot be written into `labels`, or None."""
        if others := self.other_pixels(labels):
            return others
        if not self.lies_on(labels):
            return f"{labels.name} has another scale, translate or affine than the image"
        data = labels.data
        flags = getattr(data, "flags", None)
        writeable = getattr(flags, "writeable", hasattr(data, "__setitem__"))
        is_dask = type(data).__module__.startswith("dask")
        if not writeable or is_dask or getattr(data, "read_only", False):
            return f"{labels.name} is not writable"
        return None

    def _in_view(self, positions: np.ndarray) -> np.ndarray:
        return positions[:, list(self.order)] if self.order else positions

    def _in_image(self, positions: np.ndarray) -> np.ndarray:
        return positions[:, list(inverse_order(self.order))] if self.order else positions

    def _inverse(self, world: np.ndarray) -> np.ndarray:
        matrix = self.matrix
        return np.linalg.solve(matrix[:-1, :-1], (world - matrix[:-1, -1]).T).T


def _options(layer: Image, *, channels_first: bool) -> dict[str, Any]:
    """Layer keywords for the same place as `layer`, without a first axis of channels."""
    options: dict[str, Any] = {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": np.array(layer.affine),
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }
    if not channels_first:
        return options
    linear = {name: options[name] for name in ("scale", "rotate", "shear")}
    whole = Affine(**linear, ndim=layer.ndim)
    kept = Affine(linear_matrix=whole.linear_matrix[1:, 1:], ndim=layer.ndim - 1)
    turned = not np.allclose(np.diag(kept.scale), kept.linear_matrix)
    return {
        "scale": kept.scale,
        "translate": layer.translate[1:],
        "affine": options["affine"][1:, 1:],
        "units": layer.units[1:],
        "axis_labels": layer.axis_labels[1:],
        **({"rotate": kept.rotate, "shear": kept.shear} if turned else {}),
    }


def shown_axes(dims: Dims, ndim: int) -> list[int]:
    """The axes of an `ndim`-dimensional layer shown as rows and columns, in that order."""
    first = dims.ndim - ndim
    return [int(axis) - first for axis in dims.displayed[-2:] if axis >= first]


def layer_matrix(layer: Layer) -> np.ndarray:
    """Affine matrix (n + 1, n + 1) from a layer's pixels to the world."""
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)), dtype=float)
    matrix = np.eye(layer.ndim + 1)
    matrix[:-1, -1] = origin
    for axis, unit in enumerate(np.eye(layer.ndim)):
        matrix[:-1, axis] = np.asarray(layer.data_to_world(unit)) - origin
    return matrix


def unit_symbol(unit: Any) -> str:
    """Symbol of a pint unit, with the micro sign (pint >= 0.26 uses the Greek letter)."""
    return f"{unit:~}".replace("\N{GREEK SMALL LETTER MU}", "\N{MICRO SIGN}")


def axis_letters(names: Sequence[str]) -> str:
    """A letter for each axis: by the names if they mean T, Z, Y, X, else the usual ones."""
    known = [_LETTERS.get(name.casefold(), name[:1].upper()) for name in names]
    letters = "".join(known)
    usable = len(set(letters)) == len(letters) and letters.endswith("YX")
    if usable and set(letters) <= set(_USUAL):
        return letters
    usual = "QRSUVW" + _USUAL
    return usual[len(usual) - len(names) :]


def time_axis_of(geometry: ImageGeometry) -> int | None:
    """The axis of an image whose name says time; None if there is none."""
    names = [name.casefold() for name in geometry.usual.axis_names[:-2]]
    return next((axis for axis, name in enumerate(names) if name in TIME_NAMES), None)

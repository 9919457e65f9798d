"""Layer transforms and pyramid levels: from world to image pixels and back.

Levels of multiscale images: which one is segmented, and where its pixels lie.

Where an image lies: between its pixels, the viewer's world and other layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from napari.components import Dims
from napari.layers import Image, Labels, Layer
from napari.utils.transforms import Affine

from napari_simmat._text import format_shape
from napari_simmat.engine.coordinates import AxisOrder, axis_order, inverse_order, reordered

_LEVEL = "SimMAT level"
MAX_LEVEL_SIDE = 4096
"""Of a multiscale image the finest level is segmented whose planes have no longer side."""


def level_of(layer: Image) -> int:
    """The level of a layer that is segmented: the chosen one, or the finest not too large.

    A network looks at some thousand pixels across at most; a finer level would only cost memory.
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
    """Have this level of a multiscale layer segmented from now on."""
    layer.metadata[_LEVEL] = level


def image_shape(layer: Image, level: int = 0) -> tuple[int, ...]:
    """Shape of an image layer, of a multiscale one at `level`, without an RGB layer's colours."""
    data = layer.data[level] if layer.multiscale else layer.data
    return tuple(int(size) for size in (data.shape[:-1] if layer.rgb else data.shape))


def level_matrix(factors: np.ndarray) -> np.ndarray:
    """Matrix (n + 1, n + 1) from the pixels of a coarser level to those of the finest.

    A coarse pixel covers `factors` fine ones, so that its centre lies between them.
    """
    matrix = np.eye(len(factors) + 1)
    matrix[:-1, :-1] = np.diag(factors)
    matrix[:-1, -1] = (factors - 1) / 2
    return matrix


def level_options(options: dict[str, Any], factors: np.ndarray) -> dict[str, Any]:
    """Keywords of a layer whose pixels are those of a coarser level."""
    if np.all(factors == 1):
        return options
    linear = {name: options[name] for name in ("scale", "rotate", "shear") if name in options}
    matrix = Affine(**linear, ndim=len(factors)).linear_matrix
    return {
        **options,
        "scale": np.asarray(options["scale"]) * factors,
        "translate": np.asarray(options["translate"]) + matrix @ ((factors - 1) / 2),
    }


class ImageGeometry:
    """An image layer's axes without its channels, and what lies where on them.

    It keeps what the layer was when it was made: a layer that is moved gets a new place, and
    until then prompts are read where they were drawn. Coordinates are pixels of the image as it is
    seen: its own (..., y, x) without channels at first, in another order in another view (`seen`).
    Layers on it, and its matrix, always have the image's own axes.

    Parameters
    ----------
    layer
        The image that gives shape, scale, units and transform.
    channels_first
        Whether its first axis holds channels.
    level
        Of a multiscale layer, the level whose pixels are meant; prompts, masks and objects are then
        in its pixels and lie where they belong in the world.

    Attributes
    ----------
    order
        The view: for each axis of the coordinates the axis of the image; empty for the usual one.
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
        self.remark = ""
        """What should be known about the choice of pixels, or empty."""
        if level:
            count = len(layer.data)
            self.remark = (
                f"Level {level} of 0 to {count - 1} is segmented: {format_shape(self._shape)} of "
                f"{format_shape(whole)} pixels."
            )
        self._options = level_options(_options(layer, channels_first=channels_first), factors)

    @property
    def usual(self) -> ImageGeometry:
        """The image as it is, rows and columns along its last two axes."""
        return self.seen(())

    def seen(self, order: AxisOrder) -> ImageGeometry:
        """The image in another view."""
        place = copy(self)
        place.order = order
        return place

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
        """What the axes are called, as napari shows them beside its sliders."""
        return reordered((str(name) for name in self._options["axis_labels"]), self.order)

    def layer_options(self) -> dict[str, Any]:
        """Keywords that put a new layer exactly onto the image."""
        return dict(self._options)

    def lies_on(self, other: Layer) -> bool:
        """Whether the coordinates of `other` are those of the image."""
        return other.ndim == self.ndim and bool(np.allclose(layer_matrix(other), self.matrix))

    def from_layer(self, other: Layer, positions: np.ndarray, point: Sequence[float]) -> np.ndarray:
        """Positions (N, D) in the coordinates of `other` -> (N, ndim) in the image's.

        Parameters
        ----------
        other
            A layer of the same viewer.
        positions
            As its data has them.
        point
            The viewer's current point; a layer with fewer axes than the image lies on the
            plane that is shown.
        """
        positions = np.asarray(positions, dtype=float).reshape(-1, other.ndim)
        if not self.lies_on(other):
            world = np.array([other.data_to_world(position) for position in positions])
            positions = self._inverse(self._all_axes(world.reshape(-1, other.ndim), point))
        return self._in_view(positions)

    def to_layer(self, other: Layer, positions: np.ndarray, point: Sequence[float]) -> np.ndarray:
        """Positions (N, ndim) in the image's coordinates -> (N, D) in those of `other`."""
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
        """A position (ndim,) of the view -> the world (ndim,), in the order of the image's axes."""
        at = self._in_image(np.asarray([position], dtype=float))[0]
        moved: np.ndarray = self.matrix[:-1, :-1] @ at + self.matrix[:-1, -1]
        return moved

    def order_shown(self, dims: Dims) -> AxisOrder:
        """The view that the viewer shows.

        Raises
        ------
        ValueError
            If it shows no plane along two axes of the image; the sentence says what to do.
        """
        if dims.ndisplay != 2:
            raise ValueError("Prompts are drawn in 2D: leave the 3D view (Ctrl+Y).")
        shown = shown_axes(dims, self.ndim)
        if len(shown) < 2 or dims.ndim < self.ndim:  # fewer when it has just been removed
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
                f"{self.name} is turned against this view, which shows no plane of its pixels: go "
                "back to its last two axes with the buttons below the layer list."
            )
        return order

    def plane(self, dims: Dims) -> tuple[int, ...]:
        """Indices of the plane that is shown.

        Raises
        ------
        ValueError
            If no plane of this view is shown; the sentence says what to do.
        """
        if self.order_shown(dims) != self.order:
            raise ValueError(f"Another side of {self.name} is shown: go back to this one.")
        position = self._inverse(np.asarray([dims.point[-self.ndim :]], dtype=float))
        index = tuple(int(np.round(value)) for value in self._in_view(position)[0, :-2])
        for value, size in zip(index, self.shape[:-2], strict=True):
            if not 0 <= value < size:
                raise ValueError(
                    f"{self.name} has no plane here: move the slider to where it is shown."
                )
        return index

    def other_pixels(self, labels: Labels) -> str | None:
        """Why the pixels of `labels` are not those of the image one by one, or None."""
        if labels.multiscale:
            return f"{labels.name} is multiscale"
        if tuple(labels.data.shape) != self._shape:
            here, there = format_shape(self._shape), format_shape(labels.data.shape)
            return f"{labels.name} has {there} pixels, the image {here}"
        return None

    def misfit(self, labels: Labels) -> str | None:
        """Why objects of this image cannot be written into `labels`, or None."""
        if others := self.other_pixels(labels):
            return others
        if not self.lies_on(labels):
            return f"{labels.name} has another scale, translate or affine than the image"
        flags = getattr(labels.data, "flags", None)
        writeable = getattr(flags, "writeable", hasattr(labels.data, "__setitem__"))
        if not writeable or _read_only(labels.data):
            return f"{labels.name} is not writable"
        return None

    def _in_view(self, positions: np.ndarray) -> np.ndarray:
        return positions[:, list(self.order)] if self.order else positions

    def _in_image(self, positions: np.ndarray) -> np.ndarray:
        return positions[:, list(inverse_order(self.order))] if self.order else positions

    def _all_axes(self, world: np.ndarray, point: Sequence[float]) -> np.ndarray:
        if world.shape[1] >= self.ndim:
            return world[:, -self.ndim :]
        lead = np.asarray(point[-self.ndim :], dtype=float)[: self.ndim - world.shape[1]]
        return np.hstack([np.tile(lead, (len(world), 1)), world])

    def _inverse(self, world: np.ndarray) -> np.ndarray:
        matrix = self.matrix
        return np.linalg.solve(matrix[:-1, :-1], (world - matrix[:-1, -1]).T).T


def _options(layer: Image, *, channels_first: bool) -> dict[str, Any]:
    """Keywords of a layer that lies on `layer`, its first axis left out if it holds channels."""
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
    """Which axes of a layer of `ndim` axes are rows and columns of the viewer, in that order."""
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
    """A pint unit's symbol, with the micro sign; pint from 0.26 on has the Greek letter."""
    return f"{unit:~}".replace("\N{GREEK SMALL LETTER MU}", "\N{MICRO SIGN}")


def _read_only(data: Any) -> bool:
    """Whether a lazy array says that it cannot be written (dask never can)."""
    return type(data).__module__.startswith("dask") or bool(getattr(data, "read_only", False))

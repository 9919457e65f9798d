"""Where an image lies: between its pixels, the viewer's world and other layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.components import Dims
from napari.layers import Image, Labels, Layer
from napari.utils.transforms import Affine

_LEVEL = "SimMAT level"
LARGEST_SIDE = 4096
"""Of a multiscale image the finest level is segmented whose planes have no longer side."""


class Place:
    """An image layer's axes without its channels, and what lies where on them.

    It keeps what the layer was when it was made: a layer that is moved gets a new place, and
    until then prompts are read where they were drawn. Coordinates are the image's own,
    (..., y, x) in pixels, channels left out.

    Parameters
    ----------
    layer
        The image that gives shape, scale, units and transform.
    channels_first
        Whether its first axis holds channels.
    level
        Of a multiscale layer, the level whose pixels are meant; prompts, masks and objects are then
        in its pixels and lie where they belong in the world.
    """

    def __init__(self, layer: Image, *, channels_first: bool = False, level: int = 0) -> None:
        lead = int(channels_first)
        self.name = layer.name
        self.shape = image_shape(layer, level)[lead:]
        """(..., Y, X)."""
        whole = image_shape(layer)[lead:]
        factors = np.divide(whole, self.shape)
        self.matrix = matrix_of(layer)[lead:, lead:] @ _coarser(factors)
        """Affine matrix (ndim + 1, ndim + 1) from pixels to the world."""
        self.remark = ""
        """What should be known about the choice of pixels, or empty."""
        if level:
            count = len(layer.data)
            self.remark = (
                f"Level {level} of 0 to {count - 1} is segmented: {_by(self.shape)} of "
                f"{_by(whole)} pixels."
            )
        self._options = _at_level(_options(layer, channels_first=channels_first), factors)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def axis_names(self) -> tuple[str, ...]:
        """What the axes are called, as napari shows them beside its sliders."""
        return tuple(str(name) for name in self._options["axis_labels"])

    def layer_options(self) -> dict[str, Any]:
        """Keywords that put a new layer exactly onto the image."""
        return dict(self._options)

    def lies_on(self, other: Layer) -> bool:
        """Whether the coordinates of `other` are those of the image."""
        return other.ndim == self.ndim and bool(np.allclose(matrix_of(other), self.matrix))

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
        if self.lies_on(other):
            return positions
        world = np.array([other.data_to_world(position) for position in positions])
        return self._inverse(self._all_axes(world.reshape(-1, other.ndim), point))

    def to_layer(self, other: Layer, positions: np.ndarray, point: Sequence[float]) -> np.ndarray:
        """Positions (N, ndim) in the image's coordinates -> (N, D) in those of `other`."""
        positions = np.asarray(positions, dtype=float).reshape(-1, self.ndim)
        if self.lies_on(other):
            return positions
        matrix = self.matrix
        world = positions @ matrix[:-1, :-1].T + matrix[:-1, -1]
        if world.shape[1] < other.ndim:
            lead = np.asarray(point[-other.ndim : -self.ndim], dtype=float)
            world = np.hstack([np.tile(lead, (len(world), 1)), world])
        return np.array([other.world_to_data(row) for row in world]).reshape(-1, other.ndim)

    def to_world(self, position: Sequence[float]) -> np.ndarray:
        """A position (ndim,) in the image's coordinates -> the viewer's world (ndim,)."""
        moved: np.ndarray = self.matrix[:-1, :-1] @ np.asarray(position) + self.matrix[:-1, -1]
        return moved

    def plane(self, dims: Dims) -> tuple[int, ...]:
        """Indices of the plane that is shown.

        Raises
        ------
        ValueError
            If no plane of the image is shown; the sentence says what to do.
        """
        if dims.ndisplay != 2:
            raise ValueError("Prompts are drawn in 2D: leave the 3D view (Ctrl+Y).")
        if set(dims.displayed) != {dims.ndim - 2, dims.ndim - 1}:  # transposed is as good
            raise ValueError(
                "Prompts are drawn on the image's last two axes: go back to that view "
                "(roll or transpose the axes with the buttons below the layer list)."
            )
        position = self._inverse(np.asarray([dims.point[-self.ndim :]], dtype=float))[0]
        index = tuple(int(np.round(value)) for value in position[:-2])
        for value, size in zip(index, self.shape[:-2], strict=True):
            if not 0 <= value < size:
                raise ValueError(
                    f"{self.name} has no plane here: move the slider to where it is shown."
                )
        return index

    def misfit(self, labels: Labels) -> str | None:
        """Why objects of this image cannot be written into `labels`, or None."""
        if labels.multiscale:
            return f"{labels.name} is multiscale and cannot be written"
        if tuple(labels.data.shape) != self.shape:
            return f"{labels.name} has {_by(labels.data.shape)} pixels, the image {_by(self.shape)}"
        if not self.lies_on(labels):
            return f"{labels.name} has another scale, translate or affine than the image"
        flags = getattr(labels.data, "flags", None)
        writeable = getattr(flags, "writeable", hasattr(labels.data, "__setitem__"))
        if not writeable or _read_only(labels.data):
            return f"{labels.name} is not writable"
        return None

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


def _coarser(factors: np.ndarray) -> np.ndarray:
    """Matrix (n + 1, n + 1) from the pixels of a coarser level to those of the finest.

    A coarse pixel covers `factors` fine ones, so that its centre lies between them.
    """
    matrix = np.eye(len(factors) + 1)
    matrix[:-1, :-1] = np.diag(factors)
    matrix[:-1, -1] = (factors - 1) / 2
    return matrix


def _at_level(options: dict[str, Any], factors: np.ndarray) -> dict[str, Any]:
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
        if max(image_shape(layer, level)[-2:]) <= LARGEST_SIDE
    ]
    return fits[0] if fits else len(layer.data) - 1


def choose_level(layer: Image, level: int) -> None:
    """Have this level of a multiscale layer segmented from now on."""
    layer.metadata[_LEVEL] = level


def image_shape(layer: Image, level: int = 0) -> tuple[int, ...]:
    """Shape of an image layer, of a multiscale one at `level`, without an RGB layer's colours."""
    data = layer.data[level] if layer.multiscale else layer.data
    return tuple(int(size) for size in (data.shape[:-1] if layer.rgb else data.shape))


def matrix_of(layer: Layer) -> np.ndarray:
    """Affine matrix (n + 1, n + 1) from a layer's pixels to the world."""
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)), dtype=float)
    matrix = np.eye(layer.ndim + 1)
    matrix[:-1, -1] = origin
    for axis, unit in enumerate(np.eye(layer.ndim)):
        matrix[:-1, axis] = np.asarray(layer.data_to_world(unit)) - origin
    return matrix


def _read_only(data: Any) -> bool:
    """Whether a lazy array says that it cannot be written (dask never can)."""
    return type(data).__module__.startswith("dask") or bool(getattr(data, "read_only", False))


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))

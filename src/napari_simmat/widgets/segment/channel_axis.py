"""Images whose channel axis is not the first: moving it to the front is offered.

napari aligns layers of fewer axes with the last axes of others, so the objects of such an image
would lie on the wrong planes; with the channels in front they lie where they belong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image
from napari.utils.transforms import Affine
from qtpy.QtCore import QObject

from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.layer_data import channel_axis, layer_key
from napari_simmat.widgets.placement import layer_matrix
from napari_simmat.widgets.segment.inference import InferenceQueue, PredictionRequest
from napari_simmat.widgets.segment.workspace import Workspace


class ChannelAxisOffer(QObject):
    """Offers to move the channels when an image was opened and nothing was done yet."""

    def __init__(self, workspace: Workspace, inference: InferenceQueue) -> None:
        super().__init__(workspace)
        self._workspace = workspace
        inference.predicted.connect(self._on_predicted)

    def _on_predicted(self, request: PredictionRequest, *_: object) -> None:
        session = self._workspace.session
        if session is None or request.prompts or len(session.history):
            return
        for layer in self._workspace.viewer.layers:
            axis = channel_axis(layer) if isinstance(layer, Image) else 0
            if axis and layer_key(layer) in session.layers:
                self._workspace.offer(
                    Status("ready", channels_are_planes(layer, axis), offer="Move channels"),
                    lambda layer=layer, axis=axis: self.move(layer, axis),
                )
                return

    def move(self, layer: Image, axis: int) -> None:
        """Replace a layer by a view of it with its channels in front."""
        layers = self._workspace.viewer.layers
        if layer in layers:
            index = layers.index(layer)
            moved = channels_in_front(layer, axis)
            layers.remove(layer)
            layers.insert(index, moved)
            layers.selection.active = moved


def channels_are_planes(layer: Image, axis: int) -> str:
    """Message: the channels of the image are treated as planes."""
    return (
        f"The channels of {layer.name} count as planes, since {layer.axis_labels[axis]} is its "
        f"axis {axis}: move it to the front to use them together."
    )


def channels_in_front(layer: Image, axis: int) -> Image:
    """The same image with another axis in front; nothing is read or copied.

    Parameters
    ----------
    layer
        (..., C, ..., Y, X), numpy or lazy, multiscale or not.
    axis
        The axis that becomes the first.
    """
    order = [axis, *(n for n in range(layer.ndim) if n != axis)]
    levels = [
        _transposed(level, order) for level in (layer.data if layer.multiscale else [layer.data])
    ]
    kept = ("name", "colormap", "contrast_limits", "gamma", "opacity", "blending", "visible")
    return Image(
        levels if layer.multiscale else levels[0],
        multiscale=layer.multiscale,
        axis_labels=[layer.axis_labels[n] for n in order],
        units=[layer.units[n] for n in order],
        metadata=layer.metadata,
        **{name: getattr(layer, name) for name in kept},
        **_placed(layer, order),
    )


def _placed(layer: Image, order: list[int]) -> dict[str, Any]:
    """The layer's transform with its axes in another order."""
    whole = [*order, layer.ndim]
    linear = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear).linear_matrix
    if not np.allclose(linear, np.diag(layer.scale)):  # rotated or sheared: as one matrix
        return {"affine": layer_matrix(layer)[np.ix_(whole, whole)]}
    return {
        "scale": layer.scale[order],
        "translate": layer.translate[order],
        "affine": np.array(layer.affine)[np.ix_(whole, whole)],
    }


def _transposed(data: Any, order: list[int]) -> Any:
    if not isinstance(data, np.ndarray) and not type(data).__module__.startswith("dask"):
        from dask.array import from_array

        data = from_array(data)  # zarr would read all of it
    return data.transpose(order)

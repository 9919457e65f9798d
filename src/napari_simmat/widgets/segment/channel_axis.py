"""An image whose channels lie amid its axes: moving them to the front is offered.

napari lays layers of fewer axes on the last axes of others, so the objects of such an image would
lie on the wrong planes; with the channels in front they lie where they belong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from napari.utils.transforms import Affine
from qtpy.QtCore import QObject

from napari_simmat.widgets.inputs import channel_axis, key_of
from napari_simmat.widgets.place import matrix_of
from napari_simmat.widgets.segment.segmenting import Question
from napari_simmat.widgets.status import Status

if TYPE_CHECKING:
    from napari_simmat.widgets.segment.interaction import Interaction


class ChannelAxis(QObject):
    """Offers it where an image was opened and nothing was done yet.

    Parameters
    ----------
    session
        Owns the image's work and the status line.
    """

    def __init__(self, session: Interaction) -> None:
        super().__init__(session)
        self._session = session
        session.answering.answered.connect(self._on_answered)

    def _on_answered(self, question: Question, *_: object) -> None:
        work = self._session.work
        if work is None or question.prompts or len(work.operations):
            return
        for layer in self._session.viewer.layers:
            axis = channel_axis(layer) if isinstance(layer, Image) else 0
            if axis and key_of(layer) in work.layers:
                label = layer.axis_labels[axis]
                self._session.offer(
                    Status(
                        "ready",
                        f"The channels of {layer.name} count as planes, since {label} is its axis "
                        f"{axis}: move it to the front to use them together.",
                        offer="Move channels",
                    ),
                    lambda layer=layer, axis=axis: self.move(layer, axis),
                )
                return

    def move(self, layer: Image, axis: int) -> None:
        """Put a view of a layer, its channels in front, in its place."""
        layers = self._session.viewer.layers
        if layer in layers:
            index = layers.index(layer)
            moved = channels_in_front(layer, axis)
            layers.remove(layer)
            layers.insert(index, moved)
            layers.selection.active = moved


def channels_in_front(layer: Image, axis: int) -> Image:
    """The same image with another axis in front; nothing is read or copied.

    Parameters
    ----------
    layer
        (..., C, ..., Y, X), numpy or lazy, multiscale or not.
    axis
        Which axis is to be the first.
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
    """Where it lies, its axes in another order."""
    whole = [*order, layer.ndim]
    linear = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear).linear_matrix
    if not np.allclose(linear, np.diag(layer.scale)):  # turned: as one matrix
        return {"affine": matrix_of(layer)[np.ix_(whole, whole)]}
    return {
        "scale": layer.scale[order],
        "translate": layer.translate[order],
        "affine": np.array(layer.affine)[np.ix_(whole, whole)],
    }


def _transposed(data: Any, order: list[int]) -> Any:
    if not isinstance(data, np.ndarray) and not type(data).__module__.startswith("dask"):
        from dask.array import from_array

        data = from_array(data)  # zarr would read the whole of it
    return data.transpose(order)

"""What the foundation gets of a plane, and how each channel moves a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.channels.matching import GAP
from napari_simmat.engine.masks import Mask, iou
from napari_simmat.engine.prompts import Prompt
from napari_simmat.models.spec import Normalization
from napari_simmat.progress import Job, Progress, with_progress

if TYPE_CHECKING:
    from napari_simmat.engine.image_stack import ChannelStack
    from napari_simmat.engine.predictor import Predictor

NO_COLORS = (
    "{} has a new first projection in place of a transfer layer, so its foundation sees no three "
    "channels; train with another transfer layer, e.g. simmat."
)


def foundation_colors(
    predictor: Predictor, part: ChannelStack | None = None
) -> NDArray[np.float32]:
    """What the foundation sees of the current plane, or a part: (3, h, w) of standardized values.

    These are the three channels that the transfer layer makes, at the resolution of the network's
    input; of SimCMF's layer those of its pretrained projection alone, without what its new
    projections add. ValueError if there are none: baseline A replaces the first projection.
    """
    import torch

    from napari_simmat.engine.coordinates import InputTransform
    from napari_simmat.engine.device import network_input
    from napari_simmat.models.transfer import BaselineA, Projected

    spec, layer = predictor.model.spec, predictor.model.network.projection
    if isinstance(layer, BaselineA):
        raise ValueError(NO_COLORS.format(spec.name))
    if part is None:
        part = predictor.stack.part(predictor.plane, slice(None), slice(None))
    transform = InputTransform.of(part.shape, spec.input_size, part.pixel_size)
    values = network_input(spec, part.reduced((), transform), transform)
    values = values.to(layer.weight.device)
    with torch.no_grad():
        colors = layer.colors(values) if isinstance(layer, Projected) else values
    height, width = transform.resized
    return np.asarray(colors[0, :, :height, :width].cpu().numpy())


class ChannelInfluence(NamedTuple):
    """A channel of the image in one object, and what it does for the object's mask.

    Attributes
    ----------
    channel
        Its name.
    mean, std
        Of its raw values inside the mask; the means of all channels are the object's spectrum.
    influence
        1 minus the IoU of the masks with and without the channel: 0 if the mask stays the same
        without it, 1 if nothing of it stays.
    """

    channel: str
    mean: float
    std: float
    influence: float


def channel_influence_job(
    predictor: Predictor, prompts: Sequence[Prompt]
) -> Job[list[list[ChannelInfluence]]]:
    """How each channel of the current plane moves the mask that a user gets for each prompt.

    One channel after the other is hidden, each of its pixels gets its mean over the plane, and the
    plane is encoded and predicted again: one encoding for each channel (occlusion; Zeiler and
    Fergus, arXiv 1311.2901). The predictor stays as it is.
    """
    from napari_simmat.engine.embeddings import EmbeddingCache
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.refinement import Refiner

    stack, model = predictor.stack, predictor.model
    values = stack.normalized(predictor.plane).astype(np.float32)
    raw = stack.plane(predictor.plane)
    spec = replace(model.spec, normalization=Normalization(method="none"))
    how = asdict(predictor.compute)
    hiding = Predictor(replace(model, spec=spec), cache=EmbeddingCache(0), **how)
    # A repeated channel is hidden as a whole, one that lacks is hidden already.
    hidden = [each for each in dict.fromkeys(stack.selection) if each != GAP]
    masks: list[list[Mask]] = []
    for done, source in enumerate([None, *hidden]):
        here = Progress(done, len(hidden) + 1, "hiding one channel after the other")
        shown = values.copy()
        for number in (n for n, each in enumerate(stack.selection) if each == source):
            shown[number] = values[number].mean()
        job = hiding.set_image_job(shown, 0, pixel_size=stack.pixel_size)
        yield from with_progress(job, here)
        results = yield from with_progress(Refiner().refine_job(hiding, prompts, ()), here)
        masks.append([result.mask for result in results])
    return [
        [
            ChannelInfluence(
                stack.names[stack.selection.index(source)],
                *mean_and_std(raw[stack.selection.index(source)], whole),
                1 - iou(whole, without),
            )
            for source, without in zip(hidden, others, strict=True)
        ]
        for whole, *others in zip(*masks, strict=True)
    ]


def mean_and_std(values: NDArray[Any], mask: Mask) -> tuple[float, float]:
    """Mean and deviation of the finite values (Y, X) inside a mask; NaN if there are none."""
    inside = values[mask].astype(np.float64)
    inside = inside[np.isfinite(inside)]
    if not inside.size:
        return float("nan"), float("nan")
    return float(inside.mean()), float(inside.std())

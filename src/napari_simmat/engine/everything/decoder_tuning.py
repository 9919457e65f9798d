"""`tiny`'s decoder of all objects, tuned on a few objects of an image in seconds.

Crops around the objects, and on known ground, are decoded again and again, and the decoder's maps
(not its score) follow what is known there. Everywhere else they are held where they were: the
decoder shall not forget what it was not shown. The encoder stays frozen, so clicks are the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_simmat.engine.coordinates import InputTransform, zoomed
from napari_simmat.engine.device import half_precision_is_faster, precision_context
from napari_simmat.engine.everything.candidates import PixelBox
from napari_simmat.engine.masks import Mask, label_windows
from napari_simmat.models.network import Encoded
from napari_simmat.models.object_decoder import WIDTH, ObjectDecoder
from napari_simmat.models.object_targets import MapTargets, map_loss, map_targets
from napari_simmat.progress import Job, Progress, as_part

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

STEPS = 40
"""Updates of the decoder."""
TOGETHER = 3
"""Crops of each update."""
CROPS = 24
"""Crops that are cut in all."""
SIDE = 160
"""Side of a crop in the network's pixels, at its scale."""
RATE = 1e-3
"""Learning rate of AdamW."""
HELD = 1.2
"""Weight of the squared change of maps where nothing is known."""
FEATURES_HELD = 0.5
"""Weight of the squared change of the features, which the score reads, there."""
RING = 2
"""Pixels around each object that are ground, unless they are another's."""
SCALES = 2.0, 1.0, 0.5, 0.25
SEEN = 10.0, 120.0
"""Sides of objects in the network's pixels, between which a scale shows them well."""
ON_GROUND = 0.25
"""Share of the crops that are drawn around known ground."""
UNKNOWN = -1


class ObjectCrop(NamedTuple):
    """A part of the plane at a scale, as it is decoded.

    Attributes
    ----------
    encoded
        By the frozen encoder.
    targets
        What its maps shall be.
    before, features
        Its maps (1, 4, h, w) as shares, and its features (1, F, h / 2, w / 2), before the tuning.
    """

    encoded: Encoded
    targets: MapTargets
    before: Tensor
    features: Tensor


def tune_decoder_job(
    predictor: Predictor,
    labels: NDArray[np.int32],
    ground: Mask | None = None,
    plane: tuple[int, ...] = (),
    seed: int = 0,
) -> Job[ObjectDecoder]:
    """Tune the model's decoder on some objects of a plane.

    Parameters
    ----------
    predictor
        Holds the image, and a model with `tiny`'s decoder, which stays as it is.
    labels
        (Y, X) ids of the objects; 0 where nothing is known.
    ground
        (Y, X), where there is surely no object. On an object it does not count.
    plane
        Index along the image's axes before Y and X.
    seed
        Of the crops: the same seed gives the same decoder.

    Returns
    -------
    ObjectDecoder
        Another decoder, whose weights are half-precision numbers, as a file keeps them.

    Raises
    ------
    ValueError
        If the model has no such decoder.
    """
    known = known_labels(labels, ground)
    rng = np.random.default_rng(seed)
    share = CROPS / (CROPS + STEPS)
    crops = yield from as_part(draw_crops_job(predictor, known, plane, rng, CROPS), 0, share)
    return (yield from as_part(fit_decoder_job(predictor, crops, STEPS), share, 1))


def draw_crops_job(
    predictor: Predictor,
    known: NDArray[np.int32],
    plane: tuple[int, ...],
    rng: np.random.Generator,
    count: int,
) -> Job[list[ObjectCrop]]:
    """Encode crops around objects of a plane, some around known ground.

    `known` (Y, X) are as of `known_labels`.
    """
    crops = []
    for done, (box, transform) in enumerate(_places(predictor, known, rng, count)):
        yield Progress(done, count, "learning from the objects")
        crops.append(_crop(predictor, known, plane, box, transform))
    return crops


def fit_decoder_job(
    predictor: Predictor, crops: Sequence[ObjectCrop], steps: int, *, ends: bool = False
) -> Job[ObjectDecoder]:
    """The decoder of a predictor's model, another one that follows the crops.

    The learning rate stays, or `ends` at zero. Weights are half-precision numbers.
    """
    device, precision = predictor.device, predictor.precision
    if device.type == "cpu" and half_precision_is_faster():
        precision = "fast"  # in half the time; the weights stay exact
    decoder = copy.deepcopy(predictor.object_decoder).to(device).train()
    for name, each in decoder.named_parameters():
        each.requires_grad_(not name.startswith("score"))
    optimizer = torch.optim.AdamW(
        [each for each in decoder.parameters() if each.requires_grad], lr=RATE, weight_decay=0
    )
    for step in range(steps):
        yield Progress(step, steps, "learning from the objects")
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps) if ends else RATE
        chosen = [crops[(step * TOGETHER + each) % len(crops)] for each in range(TOGETHER)]
        with torch.enable_grad(), precision_context(device, precision):
            for crop in chosen:
                loss = _loss(decoder, crop) / TOGETHER
                loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return decoder.half().float().requires_grad_(False).eval()


def known_labels(labels: NDArray[np.int32], ground: Mask | None) -> NDArray[np.int32]:
    """Objects (Y, X), 0 on what is surely ground, else `UNKNOWN`."""
    from scipy.ndimage import binary_dilation

    free = binary_dilation(labels > 0, iterations=RING)
    if ground is not None:
        free = free | ground
    return np.where(labels > 0, labels, np.where(free, 0, UNKNOWN)).astype(np.int32)


def _places(
    predictor: Predictor, known: NDArray[np.int32], rng: np.random.Generator, count: int
) -> Iterator[tuple[PixelBox, InputTransform]]:
    """Boxes around pixels of objects in turn, some around known ground, each at a scale."""
    height, width = known.shape
    labels = np.maximum(known, 0)
    windows = label_windows(labels)
    areas = [np.count_nonzero(labels[window] == number) for number, window in windows]
    native = predictor.input_transform((height, width))
    enlarged = math.sqrt(math.prod(native.scale))
    side = math.sqrt(float(np.median(areas))) * enlarged
    low, high = SEEN
    zooms = [zoom for zoom in SCALES if low <= zoom * side <= high]
    if not zooms:
        zooms = [SCALES[0] if side < low else SCALES[-1]]
    free = np.flatnonzero(known == 0)
    for number in range(count):
        zoom = zooms[number % len(zooms)]
        if len(free) and rng.random() < ON_GROUND:
            row, column = divmod(int(rng.choice(free)), width)
        else:
            label, (rows, columns) = windows[number % len(windows)]
            inside = np.argwhere(labels[rows, columns] == label)
            row, column = inside[rng.integers(len(inside))] + (rows.start, columns.start)
        reach = max(1, int(SIDE / (zoom * enlarged)))
        tall, wide = min(reach, height), min(reach, width)
        top = int(np.clip(row - rng.integers(tall), 0, height - tall))
        left = int(np.clip(column - rng.integers(wide), 0, width - wide))
        box = PixelBox(top, left, top + tall, left + wide)
        yield box, zoomed(predictor.input_transform(box.size), zoom)


def _crop(
    predictor: Predictor,
    known: NDArray[np.int32],
    plane: tuple[int, ...],
    box: PixelBox,
    transform: InputTransform,
) -> ObjectCrop:
    encoded = predictor.object_features(plane, box.slices, transform)
    height, width = transform.resized
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip((height, width), box.size, strict=True)
    )
    labels = np.full(transform.padded, UNKNOWN, np.int32)
    labels[:height, :width] = known[box.slices][rows][:, columns]
    targets = MapTargets(*(each.to(predictor.device) for each in map_targets(labels[None])))
    with torch.no_grad():
        found = predictor.object_decoder.to(predictor.device)(encoded)
    return ObjectCrop(encoded, targets, found.maps[:, :WIDTH].sigmoid(), found.features)


def _loss(decoder: ObjectDecoder, crop: ObjectCrop) -> Tensor:
    """That of what is known, and of what changes elsewhere."""
    found = decoder(crop.encoded)
    loss, _ = map_loss(found.maps, crop.targets)
    elsewhere = 1 - crop.targets.known[:, None]
    change = (found.maps[:, :WIDTH].sigmoid() - crop.before) ** 2 * elsewhere
    loss = loss + HELD * change.sum() / elsewhere.sum().clamp(min=1)
    elsewhere = elsewhere[:, :, ::2, ::2]
    moved = ((found.features - crop.features) ** 2).mean(1, keepdim=True) * elsewhere
    held: Tensor = loss + FEATURES_HELD * moved.sum() / elsewhere.sum().clamp(min=1)
    return held

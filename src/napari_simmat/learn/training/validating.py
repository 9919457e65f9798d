"""How good a network is on validation planes: a click in the middle of every object."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_simmat.learn.datasets.squaring import nearest
from napari_simmat.learn.metrics import dice, iou
from napari_simmat.learn.training.batches import MULTIPLE, fitting
from napari_simmat.learn.training.planes import Plane, Planes
from napari_simmat.model.network import Encoded, Network
from napari_simmat.progress import Job, Progress

MOST = 400
"""Objects that are prompted; of more a share, spread evenly, but at least one of each plane."""
TOGETHER = 16


class Reached:
    """IoU and Dice of each object, in order."""

    def __init__(self) -> None:
        self.ious: list[float] = []
        self.dices: list[float] = []

    @property
    def iou(self) -> float:
        """Mean over the objects, 0..1."""
        return float(np.mean(self.ious))

    @property
    def dice(self) -> float:
        """Mean over the objects, 0..1."""
        return float(np.mean(self.dices))


def validating(network: Network, planes: Planes, side: int, most: int = MOST) -> Job[Reached]:
    """Prompt objects as the paper does: one click each, the single mask, on the mask's grid.

    The click is the middle one of the object's pixels in row-major order (arXiv 2409.08083,
    authors' evaluation). A native network sees the plane at the level at which it is trained on
    the object.

    Parameters
    ----------
    network
        In any mode; it is used in evaluation mode.
    planes
        Of validation or test.
    side
        As in training.
    most
        Objects in all, about; see `MOST`.
    """
    reached, was = Reached(), network.training
    network.eval()
    native = planes.native
    share = most / max(1, sum(len(planes[index].objects) for index in range(len(planes))))
    try:
        for index in range(len(planes)):
            plane = planes[index]
            objects = _spread(plane.objects, share)
            for level, labels in _levels(plane, objects, side, native):
                _measure(network, level, labels, reached, native)
            yield Progress(index + 1, len(planes), "validating")
    finally:
        network.train(was)
    return reached


def answer(
    network: Network, plane: Plane, label: int, side: int, native: bool
) -> tuple[NDArray[np.bool_], tuple[float, float]]:
    """The mask (H, W) that the protocol's click into one object yields, and the click (y, x)."""
    ((level, _),) = _levels(plane, [label], side, native)
    encoded = _encoded(network, level, native)
    masks, clicks = _masks(network, encoded, level, [label])
    stride, (height, width) = network.mask_stride, level.labels.shape
    seen = masks[0].repeat(stride, axis=0).repeat(stride, axis=1)[:height, :width]
    x, y = clicks[0].tolist()
    factor = plane.labels.shape[0] / height
    whole = nearest(seen, (plane.labels.shape[0], plane.labels.shape[1]))
    return whole, ((y + 0.5) * factor - 0.5, (x + 0.5) * factor - 0.5)


def _measure(
    network: Network, plane: Plane, labels: list[int], reached: Reached, native: bool
) -> None:
    encoded = _encoded(network, plane, native)
    half = network.mask_stride // 2
    truth = plane.labels[half :: network.mask_stride, half :: network.mask_stride]
    for start in range(0, len(labels), TOGETHER):
        some = labels[start : start + TOGETHER]
        masks, _ = _masks(network, encoded, plane, some)
        for mask, label in zip(masks, some, strict=True):
            seen = mask[: truth.shape[0], : truth.shape[1]]
            reached.ious.append(iou(seen, truth == label))
            reached.dices.append(dice(seen, truth == label))


@torch.no_grad()
def _encoded(network: Network, plane: Plane, native: bool) -> Encoded:
    image = _padded(plane.image) if native else plane.image
    return network.encode(image[None].to(network.projection.weight.device))


@torch.no_grad()
def _masks(
    network: Network, encoded: Encoded, plane: Plane, labels: list[int]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Masks (N, h, w) on the network's grid for the clicks (N, 2), x and y, into N objects."""
    clicks = np.stack([_middle(plane.labels == label) for label in labels])
    points = torch.tensor(clicks, device=encoded.embedding.device)[:, None]
    points = torch.cat([points, torch.zeros_like(points)], dim=1)
    kinds = torch.tensor([[1, -1]] * len(labels), device=points.device)
    logits, _ = network.decode_batch(encoded, points, kinds)
    return (logits[:, 0] > 0).cpu().numpy(), clicks


def _levels(
    plane: Plane, objects: list[int], side: int, native: bool
) -> Iterator[tuple[Plane, list[int]]]:
    """The plane, halved as often as objects want it, with those objects."""
    if not native:
        yield plane, objects
        return
    groups: dict[tuple[int, ...], tuple[Plane, list[int]]] = {}
    for label in objects:
        level, _ = fitting(plane, label, side)
        groups.setdefault(level.labels.shape, (level, []))[1].append(label)
    yield from groups.values()


def _middle(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The middle pixel as x, y."""
    places = np.flatnonzero(mask)
    y, x = divmod(int(places[len(places) // 2]), mask.shape[1])
    return np.array([x, y], np.float32)


def _padded(image: Tensor) -> Tensor:
    height, width = (-(-length // MULTIPLE) * MULTIPLE for length in image.shape[-2:])
    return functional.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))


def _spread(objects: tuple[int, ...], share: float) -> list[int]:
    """A share of the objects, at least one, evenly."""
    count = min(len(objects), max(1, round(len(objects) * share)))
    return [objects[i * len(objects) // count] for i in range(count)]

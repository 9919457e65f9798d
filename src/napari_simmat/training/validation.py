"""How good a network is on labeled planes: while it trains, and compared with its base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares

from napari_simmat.datasets.dataset import Dataset, Sample
from napari_simmat.datasets.labeled_image import resize_nearest
from napari_simmat.engine.masks import Window, iou, label_windows
from napari_simmat.engine.predictor import Predictor
from napari_simmat.evaluation.metrics import dice
from napari_simmat.evaluation.protocols import UserProtocol
from napari_simmat.models.network import Encoded, Network
from napari_simmat.models.spec import IoUCalibration, Model, ModelSpec, Normalization
from napari_simmat.progress import Job, Progress
from napari_simmat.training.batches import MAX_OBJECT_SHARE, halve_until_fits, pad_image, round_up
from napari_simmat.training.labeled_planes import LabeledPlane, LabeledPlanes, as_rgb, rgb_channels
from napari_simmat.training.losses import to_mask_grid

MAX_PLANES = 24
OBJECTS_PER_PLANE = 12
"""Planes compared, and objects of each, spread evenly."""
MAX_PIXELS = 2**25
"""Pixels of large planes compared, so that this takes less time than the training."""
DECODED_AT_ONCE = 16
MIN_CALIBRATED = 20
"""Masks of a validation to which the predicted IoU is fitted."""


@dataclass
class ValidationScores:
    """IoU and Dice of each object, 0..1, in order."""

    ious: list[float] = field(default_factory=list)
    dices: list[float] = field(default_factory=list)

    @property
    def iou(self) -> float:
        """Mean over the objects."""
        return float(np.mean(self.ious))


def validate_network_job(
    network: Network, planes: LabeledPlanes, side: int, max_objects: int = 400
) -> Job[ValidationScores]:
    """Prompt objects as the paper does: one click each, the single mask, on the mask's grid.

    The click is the middle one of the object's pixels in row-major order (arXiv 2409.08083,
    authors' evaluation). A native network sees the object as in training: at the level at which it
    fits, in a part of the plane of at most `side` pixels. About `max_objects` are prompted, one of
    each plane at least; 0 for all. The network is used in evaluation mode, then put back into its
    mode.
    """
    reached = ValidationScores()
    was = network.training
    network.eval()
    native = planes.native
    total = sum(len(planes[index].objects) for index in range(len(planes)))
    share = max_objects / total if max_objects and total else 1.0
    try:
        for index in range(len(planes)):
            plane = planes[index]
            count = len(plane.objects)
            kept = min(count, max(1, round(count * share)))  # spread evenly, at least one
            objects = [plane.objects[number * count // kept] for number in range(kept)]
            for level, labels in _levels_for_objects(plane, objects, side, native):
                for part, seen in _parts(level, labels, side if native else None):
                    _measure(network, part, seen, reached, planes)
            yield Progress(index + 1, len(planes), "validating")
    finally:
        network.train(was)
    return reached


def compare_with_base_job(
    base: Model,
    spec: ModelSpec,
    network: Network,
    dataset: Dataset,
    samples: Sequence[Sample],
    device: str,
) -> Job[tuple[dict[str, dict[str, float]], IoUCalibration | None]]:
    """Mean IoU in percent of a click and of a box, ``before`` with the base and ``after``.

    Also the calibration of the IoU that the trained network predicts (`fit_calibration`).
    Both networks get the data set's normalized values, standardized by its statistics, at all
    scales as in the window; the base without transfer layer gets three channels (`rgb_channels`).
    Each of the `samples` holds an object; `spec` and `network` are the checkpoint's.
    """
    given = Normalization(method="none")
    seen = replace(base.spec, channels=rgb_channels(base.spec, dataset), normalization=given)
    models = {
        "before": Model(seen, base.network, "before"),
        "after": Model(replace(spec, normalization=given), network, "after"),
    }
    predictors = {name: Predictor(model, device) for name, model in models.items()}
    reached: dict[str, dict[str, list[float]]] = {
        name: {"click": [], "box": []} for name in predictors
    }
    predicted: list[float] = []
    true: list[float] = []
    values, labels = samples[0].load()
    count = min(len(samples), MAX_PLANES, max(2, MAX_PIXELS // labels.size))
    for done in range(count):
        sample = samples[done * len(samples) // count]
        if done:
            values, labels = sample.load()
        objects = dataset.regions(labels)
        objects = objects[:: -(-len(objects) // OBJECTS_PER_PLANE)]
        for name, predictor in predictors.items():
            rgb = models[name].spec.transfer == "zeroshot"
            given_values = values[as_rgb(len(values))] if rgb else values
            yield from predictor.set_image_job(given_values, 0)
            scores = yield from UserProtocol(clicks=1).score_job(predictor, labels, objects)
            for kind, ious in reached[name].items():
                ious += [score.iou[kind] for score in scores]
                if name == "after":
                    predicted += [score.predicted[kind] for score in scores]
                    true += [score.iou[kind] for score in scores]
        yield Progress(done + 1, count, f"comparing on {sample.name}")
    means = {
        name: {kind: round(100 * float(np.mean(ious)), 2) for kind, ious in kinds.items()}
        for name, kinds in reached.items()
    }
    return means, fit_calibration(np.array(predicted), np.array(true))


def fit_calibration(
    predicted: NDArray[np.float64], true: NDArray[np.float64]
) -> IoUCalibration | None:
    """The calibration of predicted IoUs (N,) to the true ones, by least squares.

    None for fewer than `MIN_CALIBRATED` masks.
    """
    if len(predicted) < MIN_CALIBRATED:
        return None

    def calibration(values: NDArray[np.float64]) -> IoUCalibration:
        return IoUCalibration(slope=float(values[0]), offset=float(values[1]))

    fit = least_squares(
        lambda values: calibration(values).apply(predicted) - true,
        (1.0, 0.0),
        bounds=((0.05, -10), (20, 10)),
    )
    return calibration(fit.x)


def protocol_mask(
    network: Network, plane: LabeledPlane, label: int, side: int, native: bool
) -> tuple[NDArray[np.bool_], tuple[float, float]]:
    """The mask (H, W) of the protocol's click on one object, and the click (y, x)."""
    ((level, _),) = _levels_for_objects(plane, [label], side, native)
    encoded = _encoded(network, level, native)
    masks, clicks = _masks(network, encoded, level, [label])
    stride, (height, width) = network.mask_stride, level.labels.shape
    rows, columns = ((np.arange(n) // stride).astype(int) for n in (height, width))
    seen = masks[0][rows[:, None], columns]
    x, y = clicks[0].tolist()
    factor = plane.labels.shape[0] / height
    whole = resize_nearest(seen, (plane.labels.shape[0], plane.labels.shape[1]))
    return whole, ((y + 0.5) * factor - 0.5, (x + 0.5) * factor - 0.5)


def _measure(
    network: Network,
    plane: LabeledPlane,
    labels: list[int],
    reached: ValidationScores,
    planes: LabeledPlanes,
) -> None:
    encoded = _encoded(network, plane, planes.native)
    for start in range(0, len(labels), DECODED_AT_ONCE):
        some = labels[start : start + DECODED_AT_ONCE]
        masks, _ = _masks(network, encoded, plane, some)
        for mask, label in zip(masks, some, strict=True):
            own = torch.from_numpy(plane.labels == label)
            grid = to_mask_grid(own[None], network.mask_stride, planes.cell_pixel)
            truth = grid[0, 0].numpy() > 0
            seen = mask[: truth.shape[0], : truth.shape[1]]
            reached.ious.append(iou(seen, truth))
            reached.dices.append(dice(seen, truth))


@torch.no_grad()
def _encoded(network: Network, plane: LabeledPlane, native: bool) -> Encoded:
    image = plane.image
    if native:
        image = pad_image(image, round_up(image.shape[1]), round_up(image.shape[2]))
    return network.encode(image[None].to(network.projection.weight.device))


@torch.no_grad()
def _masks(
    network: Network, encoded: Encoded, plane: LabeledPlane, labels: list[int]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Masks (N, h, w) on the grid for clicks on N objects, and the clicks (N, 2) as x, y."""
    middles = []
    for label in labels:
        places = np.flatnonzero(plane.labels == label)
        y, x = divmod(int(places[len(places) // 2]), plane.labels.shape[1])
        middles.append((x, y))
    clicks = np.array(middles, np.float32)
    points = torch.tensor(clicks, device=encoded.embedding.device)[:, None]
    points = torch.cat([points, torch.zeros_like(points)], dim=1)
    kinds = torch.tensor([[1, -1]] * len(labels), device=points.device)
    logits, _ = network.decode_batch(encoded, points, kinds)
    return (logits[:, 0] > 0).cpu().numpy(), clicks


def _levels_for_objects(
    plane: LabeledPlane, objects: list[int], side: int, native: bool
) -> Iterator[tuple[LabeledPlane, list[int]]]:
    """The plane at the levels that its objects need, each with those objects."""
    if not native:
        yield plane, objects
        return
    boxes = dict(label_windows(plane.labels))
    groups: dict[tuple[int, ...], tuple[LabeledPlane, list[int]]] = {}
    for label in objects:
        fits = max(length.stop - length.start for length in boxes[label]) <= MAX_OBJECT_SHARE * side
        level = plane if fits else halve_until_fits(plane, label, side)[0]
        groups.setdefault(level.labels.shape, (level, []))[1].append(label)
    yield from groups.values()


def _parts(
    plane: LabeledPlane, objects: list[int], side: int | None
) -> Iterator[tuple[LabeledPlane, list[int]]]:
    """Parts of a plane of at most `side` pixels a side, each with the objects that it shows.

    So the cost of a validation depends on its objects, not on the size of the planes.
    """
    if side is None or max(plane.labels.shape) <= side:
        yield plane, objects
        return
    boxes, left, shape = dict(label_windows(plane.labels)), list(objects), plane.labels.shape
    margin = int((1 - MAX_OBJECT_SHARE) / 2 * side)  # around an object that just fits

    def contains(part: Window, box: Window) -> bool:
        """Whether a box lies in a part, away from edges inside the plane."""
        return all(
            seen.start <= max(length.start - margin, 0)
            and min(length.stop + margin, whole) <= seen.stop
            for seen, length, whole in zip(part, box, shape, strict=True)
        )

    while left:
        window = _part_at(boxes[left[0]], shape, side, margin)
        if not (plane.labels[window] == left[0]).any():  # too long, and too thin to be halved
            rows, columns = np.nonzero(plane.labels == left[0])
            y, x = int(rows[len(rows) // 2]), int(columns[len(rows) // 2])
            window = _part_at((slice(y, y + 1), slice(x, x + 1)), shape, side, margin)
        shown = [left[0], *(n for n in left[1:] if contains(window, boxes[n]))]
        left = [label for label in left if label not in shown]
        image = plane.image[:, window[0], window[1]]
        yield LabeledPlane(plane.name, image, plane.labels[window], tuple(shown)), shown


def _part_at(box: Window, shape: tuple[int, ...], side: int, margin: int) -> Window:
    """The part of a plane of at most `side` pixels a side with a box in its upper left corner.

    As objects are numbered by rows, others often lie to the right and below.
    """
    rows, columns = (
        max(min(length.start - margin, whole - side), 0)
        for length, whole in zip(box, shape, strict=True)
    )
    return slice(rows, rows + side), slice(columns, columns + side)

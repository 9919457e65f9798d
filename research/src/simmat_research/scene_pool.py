"""Crops of scenes for pretraining, and validation on scenes that it never draws.

Each scene serves several steps, to save time.

A step's crops depend only on the seed and the step's number, so that a resumed training continues
exactly like an unbroken one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi
from torch import Tensor
from torch.nn import functional

from napari_simmat.engine.normalization import stretch_percentiles
from napari_simmat.evaluation.drawn_prompts import PromptBatch, add_correction, draw_prompts
from napari_simmat.models.dense_prior import MASK_STRIDE, DensePixels
from napari_simmat.models.network import Encoded
from napari_simmat.models.tiny import TinyNetwork
from napari_simmat.training.batches import MIN_AREA, UNKNOWN
from napari_simmat.training.losses import mask_loss
from simmat_research.samples import draw_sample, visible_labels

CROP_SIZES = {96: 0.12, 128: 0.35, 160: 0.18, 192: 0.2, 256: 0.15}
"""Side of the crops -> how often it is drawn."""
MEAN, STD = 127.5, 64.0
"""Standardization of the input, the same for every channel."""
PADDING_VALUE = MEAN
GLARE_SHARE = 0.08
GLARE_FACTORS = (2.0, 100.0)
"""How much brighter than the rest debris is."""
COARSE_ZOOMS, FINE_ZOOMS = (1 / 6, 1 / 2), (1.5, 5.0)
"""How much smaller or larger than drawn a scene is in a crop that is off scale."""
VALIDATION_SEED = 987_654_321
Image = NDArray[np.float32]


class DrawnScene(NamedTuple):
    """An image (C, H, W) in 0..255 and its ids (H, W), some of them `UNKNOWN`.

    In a `filled` scene an object includes the objects inside it.
    """

    image: Image
    labels: NDArray[np.int32]
    filled: bool = False


class CropBatch(NamedTuple):
    """Images (B, C, S, S) in 0..255, ids (B, S, S) and masks (B, P, S, S) of P objects each.

    `off_scale` (B,) marks crops that show a scene as an unsuitable scale of the image pyramid does:
    most objects are too small to be outlined, or extend beyond the crop.
    """

    images: Tensor
    labels: Tensor
    masks: NDArray[np.bool_]
    off_scale: NDArray[np.bool_]


class ScenePool:
    """A sliding window over an endless sequence of scenes, determined by `seed`.

    `draw` draws a scene with its own generator, `vary` augments a crop's image and ids. The window
    holds `size` scenes and moves by `fresh` scenes per step. `off_scale` is the share of
    crops off scale.
    """

    pixels_per_step = 8 * 128 * 128
    """Small crops come in larger batches."""

    def __init__(
        self,
        seed: int,
        draw: Callable[[Generator], DrawnScene],
        vary: Callable[[DrawnScene, Generator], DrawnScene] | None = None,
        *,
        size: int = 320,
        fresh: float = 1.0,
        off_scale: float = 0.0,
    ) -> None:
        self.seed, self.draw, self.vary, self.size, self.fresh = seed, draw, vary, size, fresh
        self.off_scale = off_scale
        self._scenes: deque[DrawnScene] = deque(maxlen=size)
        self._next = 0

    def crops(self, step: int, objects: int, sizes: Container[int] = CROP_SIZES) -> CropBatch:
        """The crops of a step, `objects` masks for each; of none, also crops without objects."""
        # Move the window to its place at `step`.
        end = self.size + int(step * self.fresh)
        self._next = max(self._next, end - self.size)
        while self._next < end:
            scene_rng = np.random.default_rng([self.seed, 0, self._next])
            self._scenes.append(self.draw(scene_rng))
            self._next += 1
        rng = np.random.default_rng([self.seed, 1, step])
        allowed = [share if side in sizes else 0.0 for side, share in CROP_SIZES.items()]
        side = int(rng.choice(list(CROP_SIZES), p=np.array(allowed) / sum(allowed)))
        images: list[Image] = []
        labels, masks, off_scale = [], [], []
        while len(images) < max(1, round(self.pixels_per_step / side**2)):
            drawn = self._scenes[int(rng.integers(len(self._scenes)))]
            is_off = bool(self.off_scale) and rng.random() < self.off_scale
            crop = (_crop_off_scale if is_off else _crop)(drawn, side, rng)
            chosen = np.zeros(0, np.int32)
            if objects:
                found = _choose(crop.labels, objects, rng, any_size=is_off)
                if found is None:
                    continue
                chosen = found
            image, ids, filled = crop if self.vary is None else self.vary(crop, rng)
            images.append(image)
            labels.append(ids)
            masks.append(_masks(ids, chosen, filled))
            off_scale.append(is_off)
        return CropBatch(
            torch.tensor(np.stack(images)),
            torch.tensor(np.stack(labels).astype(np.int32)),
            np.stack(masks),
            np.array(off_scale),
        )


def scene_drawer(families: tuple[str, ...] = ()) -> Callable[[Generator], DrawnScene]:
    """A function that draws scenes (3, H, W) of any size of `families` (by default all)."""

    def draw(rng: Generator) -> DrawnScene:
        sides = np.exp(rng.uniform(np.log(160), np.log(420), 2)).astype(int)
        if rng.random() < 0.7:
            sides[1] = sides[0]
        image, labels = draw_sample(rng, (int(sides[0]), int(sides[1])), families or None)
        if rng.random() < 0.12:
            drawn = _window_contrast(image, labels.astype(np.int32), rng)
        else:
            drawn = DrawnScene(random_normalize(image, rng), labels.astype(np.int32))
        if rng.random() < 0.4:
            factor = np.exp(rng.uniform(np.log(0.5), np.log(2.2)))
            stretch = np.exp(rng.uniform(-0.4, 0.4)) if rng.random() < 0.3 else 1.0
            factors = factor * stretch, factor / stretch
            drawn = DrawnScene(*zoom(drawn.image, drawn.labels, factors))
        return drawn

    return draw


def with_glare(
    draw: Callable[[Generator], DrawnScene],
) -> Callable[[Generator], DrawnScene]:
    """`draw`, some scenes with debris much brighter than all else, which takes the display range.

    Debris becomes an object, too; in some scenes it lies beyond the field, and all is dim.
    """

    def glaring(rng: Generator) -> DrawnScene:
        scene = draw(rng)
        if rng.random() >= GLARE_SHARE:
            return scene
        image, labels = scene.image, scene.labels.copy()
        factor = np.exp(rng.uniform(*np.log(GLARE_FACTORS)))
        image = image / np.float32(factor)
        if rng.random() < 0.6:
            height, width = labels.shape
            debris = np.zeros((height, width), bool)
            for _ in range(int(rng.integers(1, 5))):
                y, x = rng.uniform(0, height), rng.uniform(0, width)
                radius = np.exp(rng.uniform(np.log(2), np.log(16)))
                rows, columns = np.ogrid[:height, :width]
                debris |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            soft = ndi.gaussian_filter(debris.astype(np.float32), rng.uniform(0.5, 2))
            glow = ndi.gaussian_filter(soft, rng.uniform(5, 25)) * rng.uniform(0, 0.03)
            image = np.clip(image + 255 * (soft + glow), 0, 255)
            labels[ndi.binary_dilation(debris, iterations=3)] = 0
            labels[debris] = labels.max() + 1
        return scene if labels.max() < 1 else DrawnScene(image, labels, scene.filled)

    return glaring


def augment_scene(drawn: DrawnScene, rng: Generator) -> DrawnScene:
    """Flip, transpose, change contrast, gamma and channel order, invert, or make gray."""
    image, labels, filled = drawn
    if rng.random() < 0.5:
        image, labels = image[:, :, ::-1], labels[:, ::-1]
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[::-1]
    if rng.random() < 0.5:
        image, labels = image.transpose(0, 2, 1), labels.T
    if rng.random() < 0.2:
        image = image[rng.permutation(3)]
    if rng.random() < 0.15:
        image = np.float32(255) - image
    if rng.random() < 0.3:
        gamma = np.float32(np.exp(rng.uniform(-0.6, 0.6)))
        image = np.asarray(255 * (image / 255) ** gamma, np.float32)
    if rng.random() < 0.25:
        gain = rng.uniform(0.35, 1.0)
        shift = rng.uniform(0, 255 * (1 - gain))
        image = image * np.float32(gain) + np.float32(shift)
    if rng.random() < 0.1:
        image = np.broadcast_to(image.mean(0, keepdims=True), image.shape)
    return DrawnScene(np.ascontiguousarray(image, dtype=np.float32), labels, filled)


def random_normalize(image: NDArray[np.floating], rng: Generator) -> Image:
    """Stretch the usual percentiles, or others, to 0..255; (H, W[, 3]) -> (3, H, W)."""
    exact = rng.random() < 0.6
    low, high = (0.5, 99.9) if exact else (rng.uniform(0, 2), rng.uniform(98.5, 100))
    return _rescale_percentiles(image, low, high, joint=rng.random() < 0.5)


def _window_contrast(
    image: NDArray[np.floating], labels: NDArray[np.int32], rng: Generator
) -> DrawnScene:
    """Clip as contrast limits or a saturated camera do; keep the labels still visible."""
    clipped = _rescale_percentiles(image, rng.uniform(0, 15), rng.uniform(75, 98.5), joint=True)
    seen = visible_labels(clipped[0] if image.ndim == 2 else np.moveaxis(clipped, 0, -1), labels)
    if not seen.any():
        return DrawnScene(random_normalize(image, rng), labels)
    return DrawnScene(clipped, seen.astype(np.int32))


def _rescale_percentiles(
    image: NDArray[np.floating], low: float, high: float, joint: bool
) -> Image:
    """Percentiles `low` and `high` to 0 and 255, clipped; (H, W[, 3]) -> (3, H, W)."""
    channels = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    axes = None if joint else (1, 2)
    scaled = stretch_percentiles(channels, low, high, axes=axes, minimum=1e-6, relative=1e-6)
    return np.broadcast_to(scaled, (3, *scaled.shape[1:])).astype(np.float32)


def zoom(
    image: Image, labels: NDArray[np.int32], factors: tuple[float, float], least: int = 96
) -> tuple[Image, NDArray[np.int32]]:
    """Resize an image (C, H, W) and its ids by factors along y and x, to `least` pixels or more."""
    height, width = (
        max(least, round(side * factor)) for side, factor in zip(labels.shape, factors, strict=True)
    )
    zoomed = functional.interpolate(
        torch.tensor(image)[None], (height, width), mode="bilinear", antialias=True
    )[0]
    ids = functional.interpolate(
        torch.tensor(labels)[None, None].float(), (height, width), mode="nearest-exact"
    )[0, 0]
    return zoomed.clamp(0, 255).numpy(), ids.numpy().astype(np.int32)


def _crop_off_scale(scene: DrawnScene, side: int, rng: Generator) -> DrawnScene:
    """A square of `side`, of the scene made smaller by one of `COARSE_ZOOMS`, or larger."""
    is_coarse = rng.random() < 0.5
    factor = float(np.exp(rng.uniform(*np.log(COARSE_ZOOMS if is_coarse else FINE_ZOOMS))))
    if is_coarse:
        small = zoom(scene.image, scene.labels, (factor, factor), 24)
        return _crop(_mirrored(DrawnScene(*small, scene.filled), side), side, rng)
    part = _crop(scene, round(side / factor), rng)
    factor = side / len(part.labels)
    return DrawnScene(*zoom(part.image, part.labels, (factor, factor)), scene.filled)


def _mirrored(scene: DrawnScene, side: int) -> DrawnScene:
    """The scene continued by reflections of it to `side` pixels, as padding would give it away."""
    height, width = scene.labels.shape
    missing = [(0, max(0, side - length)) for length in (height, width)]
    image = np.pad(scene.image, [(0, 0), *missing], mode="symmetric")
    labels = np.pad(scene.labels, missing, mode="symmetric")
    rows, columns = (np.arange(length) for length in labels.shape)
    copy = (rows // height)[:, None] * (1 + columns[-1] // width) + columns // width
    labels = np.where(labels > 0, labels + copy * (labels.max() + 1), labels).astype(np.int32)
    return DrawnScene(image, labels, scene.filled)


def _crop(scene: DrawnScene, side: int, rng: Generator) -> DrawnScene:
    """A square of `side`; smaller scenes are padded as by the engine."""
    image, labels, filled = scene
    short = [max(0, side - length) for length in labels.shape]
    if any(short):
        before = [int(rng.integers(0, s + 1)) for s in short]
        pads = [(b, s - b) for b, s in zip(before, short, strict=True)]
        image = np.pad(image, [(0, 0), *pads], constant_values=PADDING_VALUE)
        labels = np.pad(labels, pads)
    y, x = (int(rng.integers(0, length - side + 1)) for length in labels.shape)
    if rng.random() < 0.15:  # the image's lower right corner, padded as by the engine
        y, x = (length - side for length in labels.shape)
        extra = [int(v) for v in rng.integers(1, 32, 2)]
        image = np.pad(image, [(0, 0), (0, extra[0]), (0, extra[1])], constant_values=PADDING_VALUE)
        labels = np.pad(labels, [(0, extra[0]), (0, extra[1])])
        y, x = y + extra[0], x + extra[1]
    rows, columns = slice(y, y + side), slice(x, x + side)
    return DrawnScene(image[:, rows, columns], labels[rows, columns], filled)


def _choose(
    labels: NDArray[np.int32], objects: int, rng: Generator, any_size: bool
) -> NDArray[np.int32] | None:
    """Ids of objects to prompt, larger ones somewhat more often; None without objects."""
    area = np.bincount(np.maximum(labels, 0).ravel())
    area[0] = 0
    least, most = (1, labels.size) if any_size else (MIN_AREA, 0.9 * labels.size)
    ids = np.flatnonzero((area >= least) & (area <= most))
    if not len(ids):
        return None
    weight = np.sqrt(area[ids])
    return rng.choice(ids, objects, replace=len(ids) < objects, p=weight / weight.sum())


def _masks(labels: NDArray[np.int32], chosen: NDArray[np.int32], filled: bool) -> NDArray[np.bool_]:
    """Masks (P, S, S) of the chosen objects."""
    masks: NDArray[np.bool_] = labels[None] == chosen[:, None, None]
    if not filled:
        return masks
    # Only holes of other objects: background seen through an object is no part of it.
    return np.stack([mask | (ndi.binary_fill_holes(mask) & (labels > 0)) for mask in masks])


@torch.no_grad()
def validate_on_scenes(
    network: TinyNetwork, draw: Callable[[Generator], DrawnScene], steps: int = 40
) -> dict[str, float]:
    """Mean IoU in percent on scenes that training never draws.

    Of the first mask of a click, of a box, of both, of a click and three corrections; of the dense
    prior of a click; of the mask of a click or a box whose predicted IoU is highest, and of the
    best mask of a click.
    """
    pool = ScenePool(VALIDATION_SEED, draw, augment_scene, size=4 * steps, fresh=0)
    reached: dict[str, list[float]] = {}
    for step in range(steps):
        crops = pool.crops(step, 4, sizes=(192,))
        encoded = network.encode((crops.images - MEAN) / STD)
        flat = crops.masks.reshape(-1, *crops.masks.shape[-2:])
        known = repeated(known_cells(crops.labels), crops.masks.shape[1])
        for name, scores in _predictions(network, encoded, flat, known, step):
            reached.setdefault(name, []).extend(scores.tolist())
    return {name: round(100 * float(np.mean(values)), 2) for name, values in reached.items()}


def _predictions(
    network: TinyNetwork, encoded: Encoded, masks: Any, known: Tensor | None, seed: int
) -> Iterator[tuple[str, Tensor]]:
    target = functional.avg_pool2d(torch.tensor(masks[:, None]).float(), 2)
    rng = np.random.default_rng([VALIDATION_SEED, seed])
    box = draw_prompts("box", masks, rng)
    click = draw_prompts("click", masks, rng)
    clicks = click.points[:, 0].reshape(len(encoded.embedding), -1, 2)
    prior = DensePixels(encoded.maps["dense"]).affinity(clicks).flatten(0, 1)[:, None]
    both = PromptBatch(
        torch.cat([click.points[:, :1], box.points], 1),
        torch.cat([click.labels[:, :1], box.labels], 1),
    )

    def iou(logits: Tensor) -> Tensor:
        return mask_loss(logits, target, known=known).iou

    def answer(prompts: PromptBatch) -> Tensor:
        return network.decode_batch(encoded, *prompts)[0]

    def trusted(logits: Tensor, quality: Tensor) -> Tensor:
        return iou(logits).gather(1, quality.argmax(1, keepdim=True))[:, 0]

    yield "prior", iou(prior)[:, 0]
    boxed = network.decode_batch(encoded, *box)
    yield "box", iou(boxed[0])[:, 0]
    yield "click+box", iou(answer(both))[:, 0]
    logits, quality = network.decode_batch(encoded, *click)
    yield "click", iou(logits)[:, 0]
    yield "click, most trusted", trusted(logits, quality)
    yield "click, best of 4", iou(logits).amax(1)
    yield "box, most trusted", trusted(*boxed)
    for _ in range(3):
        click = add_correction(click, logits[:, :1], target, MASK_STRIDE, known)
        logits = answer(click)
    yield "click+3", iou(logits)[:, 0]


def known_cells(labels: Tensor) -> Tensor | None:
    """Cells of the mask grid with known truth, (B, 1, h, w) of 0 and 1; None if all are."""
    known = labels[:, None, ::MASK_STRIDE, ::MASK_STRIDE] != UNKNOWN
    return None if bool(known.all()) else known.float()


def repeated(known: Tensor | None, count: int) -> Tensor | None:
    """For each of `count` objects of every image."""
    return None if known is None else known.repeat_interleave(count, 0)

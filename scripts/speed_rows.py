"""What `speed.py` compares with stock: the same work by each, on the same random weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry
from segment_anything.modeling import Sam
from segment_anything.utils.amg import MaskData, rle_to_mask

from napari_simmat.checkpoints.catalog import sam_spec
from napari_simmat.engine.automatic_generator import propose_masks_job
from napari_simmat.engine.automatic_postprocessing import (
    MaskCandidates,
    accepted_candidates,
    masks_to_instances,
)
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.embeddings import Embedding, EmbeddingCache
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.models.network import Encoded
from napari_simmat.models.sam import SamNetwork
from napari_simmat.models.spec import Model
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import Job, finish

Afterwards = Callable[[], dict[str, float]]
"""Called when the clock has stopped: further numbers of a run, by what they are."""
Work = Callable[[], object]
CLICK = (400.0, 300.0)
MANY = 16
QUALITY, STABILITY, OFFSET = 0.88, 0.9, 0.005
"""Filters of segmenting everything; the logits of random weights are small beside SAM's offset."""

SAME = 0.99
"""IoU of two masks that count as the same: logits near 0 are many here, and round either way."""


@dataclass
class Row:
    """One thing that is done by stock and by us, exactly and fast.

    Parameters
    ----------
    title
        Said in the table.
    works
        Who -> what is timed; ``"stock"`` is what ratios refer to. What it returns is called
        afterwards, if it can be, for further numbers.
    """

    title: str
    works: dict[str, Work]


# ------------------------------------------------------------------------- the two networks


def networks() -> tuple[Sam, SamNetwork]:
    """Stock, and ours with the same numbers."""
    torch.manual_seed(0)
    stock = sam_model_registry["vit_b"]().eval().requires_grad_(False)
    with torch.no_grad():  # the default start of these is 0, and attention is even
        for name, parameter in stock.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                torch.nn.init.normal_(parameter, std=0.2)
            elif "image_encoder" in name and "qkv.weight" in name:
                parameter.mul_(3)
    network = build_network("vit_b", initialize=False)
    network.load_state_dict(stock.state_dict(), strict=True, assign=True)
    network.requires_grad_(False)
    assert isinstance(network, SamNetwork)
    return stock, network


def image(side: int) -> np.ndarray:
    """Squares of random colors, (side, side, 3) uint8."""
    coarse = np.random.default_rng(0).integers(0, 256, (side // 32, side // 32, 3), dtype=np.uint8)
    return np.asarray(coarse.repeat(32, axis=0).repeat(32, axis=1))


class Both:
    """Stock's predictor and ours, for an image of any size, with the same embedding given."""

    def __init__(self) -> None:
        stock, network = networks()
        self.model = Model(sam_spec("vit_b", "vit_b", ""), network, "random vit_b")
        self.sam, self.network = stock, network
        self.embedding = 0.5 * torch.randn(
            1, 256, 64, 64, generator=torch.Generator().manual_seed(1)
        )

    def stock(self, side: int) -> SamPredictor:
        """Stock's predictor as after ``set_image`` with an image of that many pixels a side."""
        predictor = SamPredictor(self.sam)
        predictor.features, predictor.is_image_set = self.embedding, True
        predictor.original_size, predictor.input_size = (side, side), (1024, 1024)
        return predictor

    def ours(self, side: int, precision: str) -> Predictor:
        """The same of ours."""
        predictor = Predictor(self.model, "cpu", precision, cache=EmbeddingCache(0))
        frame = InputTransform.of((side, side), self.model.spec.input_size)
        predictor._embedding = Embedding(Encoded(self.embedding, (1024, 1024)), frame)
        return predictor


# ------------------------------------------------------------------------------- the rows


def encode(both: Both) -> Row:
    """From an image in memory to its embedding, as ``set_image`` does."""
    pixels = image(1024)
    stock = SamPredictor(both.sam)
    exact, fast = both.ours(1024, "exact"), both.ours(1024, "fast")
    return Row(
        "encode 1024 x 1024",
        {
            "stock": lambda: stock.set_image(pixels),
            "exact": lambda: exact.set_image(pixels, channel_axis=-1),
            "fast": lambda: fast.set_image(pixels, channel_axis=-1),
        },
    )


def click(both: Both, side: int = 1024) -> Row:
    """From a click to a mask at the image's resolution."""
    stock = both.stock(side)
    xy, labels = np.array([CLICK[::-1]]), np.array([1])
    exact, fast = both.ours(side, "exact"), both.ours(side, "fast")
    return Row(
        f"click to mask, {side} x {side}",
        {
            "stock": lambda: stock.predict(xy, labels, multimask_output=True),
            "exact": lambda: exact.predict(points=[CLICK]),
            "fast": lambda: fast.predict(points=[CLICK]),
        },
    )


def large_click(both: Both) -> Row:
    """The same in an image that the network sees at half its size."""
    return click(both, 2048)


def prompts(both: Both) -> Row:
    """Many prompts in one call."""
    positions = np.random.default_rng(2).uniform(0, 1023, (MANY, 2))
    xy, labels = torch.tensor(positions[:, None, ::-1].copy()).float(), torch.ones(MANY, 1)
    asked = [Prompt(points=((y, x),)) for y, x in positions.tolist()]
    stock = both.stock(1024)
    exact, fast = both.ours(1024, "exact"), both.ours(1024, "fast")
    return Row(
        f"{MANY} clicks to masks",
        {
            "stock": lambda: stock.predict_torch(xy, labels, multimask_output=True),
            "exact": lambda: exact.predict_many(asked),
            "fast": lambda: fast.predict_many(asked),
        },
    )


def everything(both: Both, grid: int = 32) -> Row:
    """A grid of clicks, their masks filtered, the embedding given; see `Everything`."""
    work = Everything(both, grid)
    return Row(
        f"everything, {grid} x {grid}",
        {
            "stock": work.stock,
            "exact": lambda: work.ours("exact"),
            "fast": lambda: work.ours("fast"),
        },
    )


class Everything:
    """Stock's automatic mask generator and ours, with the same clicks and filters.

    The estimates of quality of random weights are moved and spread so that about a sixth of the
    masks passes SAM's 0.88, as on photographs. Stock's result is RLE. The masks that pass the
    filters of quality and stability are compared.
    """

    def __init__(self, both: Both, grid: int) -> None:
        self._both, self._grid = both, grid
        last = both.sam.mask_decoder.iou_prediction_head.layers[-1]
        with torch.no_grad():  # shared by both networks
            clicks = [
                Prompt(points=((y, x),)) for y in (200.0, 500.0, 800.0) for x in (150.0, 900.0)
            ]
            found = both.ours(1024, "exact").predict_low_res(clicks)
            seen = np.stack([each.predicted_iou[1:] for each in found])
            spread = 0.15 / max(float(seen.std()), 1e-6)
            last.weight.mul_(spread)
            last.bias.sub_(float(seen.mean())).mul_(spread).add_(QUALITY - 0.15)
        self._passed: list[NDArray[np.uint8]] = []

    def stock(self) -> Afterwards:
        """Run SAM's own generator."""
        generator = SamAutomaticMaskGenerator(
            self._both.sam,
            points_per_side=self._grid,
            pred_iou_thresh=QUALITY,
            stability_score_thresh=STABILITY,
            stability_score_offset=OFFSET,
            output_mode="uncompressed_rle",
        )
        predictor = self._both.stock(1024)
        predictor.set_image = predictor.reset_image = lambda *_: None  # its embedding is given
        generator.predictor = predictor
        passed: list[dict[str, object]] = []
        original = generator._process_batch

        def watched(*arguments: object) -> MaskData:
            data = original(*arguments)
            passed.extend(data["rles"])
            return data

        generator._process_batch = watched
        generator.generate(image(1024))

        def afterwards() -> dict[str, float]:
            self._passed = [np.packbits(rle_to_mask(each)) for each in passed]
            return {"masks": len(passed)}

        return afterwards

    def ours(self, precision: str) -> Afterwards:
        """Ask and sift; afterwards keep all and sift with other thresholds, as a slider does."""
        predictor = self._both.ours(1024, precision)
        embedding = predictor._embedding

        def given(*_: object) -> Job[Embedding | None]:
            yield from ()
            return embedding

        finish(predictor.open_image_job(image(1024), channel_axis=-1))
        settings = AutomaticSettings(
            points_per_side=self._grid,
            quality=QUALITY,
            stability=STABILITY,
            offset=OFFSET,
            min_area=0,
            max_area=1.0,
            background=1.0,
        )

        def proposed(keep_all: bool) -> MaskCandidates:
            with patch.object(predictor._encoder, "embedding", given):
                return finish(propose_masks_job(predictor, settings, (), keep_all=keep_all))

        candidates = proposed(keep_all=False)
        masks_to_instances(candidates, settings)

        def afterwards() -> dict[str, float]:
            every = proposed(keep_all=True)
            started = time.process_time()
            masks_to_instances(every, replace(settings, quality=QUALITY - 0.05))
            taken = time.process_time() - started
            chosen = accepted_candidates(candidates, settings)
            mine = [np.packbits(_whole(candidates, number)) for number in chosen]
            same = sum(any(_iou(one, other) > SAME for other in self._passed) for one in mine)
            return {"masks": len(chosen), "masks as stock's": same, "slider s": taken}

        return afterwards


def _whole(candidates: MaskCandidates, number: int) -> NDArray[np.bool_]:
    whole = np.zeros(candidates.shape, bool)
    whole[candidates.known[number].box.slices] = candidates.mask(number)
    return whole


def _iou(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Of two masks as packed bits."""
    return float(np.bitwise_count(one & other).sum() / np.bitwise_count(one | other).sum())


ROWS: dict[str, Callable[[Both], Row]] = {
    each.__name__: each for each in (encode, click, large_click, prompts, everything)
}

"""Segment everything compared with SAM's own automatic generator, on the same network and images.

    python scripts/everything_ap.py --data ../shared/data --output docs/data/everything.csv

The generator is `segment_anything.SamAutomaticMaskGenerator`, unchanged, with an adapter that
passes its clicks to the network and the masks back. Its masks overlap; as in SAM's own pictures the
smaller ones are painted over the larger ones. For every image the AP is given three times: over all
objects, without objects at the border, which some labels lack, and without found objects that lie
mostly where nothing is labeled, since automatic labels are incomplete.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
from skimage.data import coins
from skimage.segmentation import clear_border

from napari_simmat import AutomaticSettings, Predictor, load_model, segment_everything
from napari_simmat.engine.normalization import Statistics
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.result import Result
from napari_simmat.engine.settings import default_grid_points
from napari_simmat.evaluation.metrics import average_precision, panoptic_quality
from napari_simmat.research.samples import draw_sample

ALL, INNER, LABELED = "", " within the border", " where labeled"
SCORES = (
    "objects",
    "found",
    *(f"{ap}{of}" for of in (ALL, INNER, LABELED) for ap in ("AP50", "AP")),
    "PQ",
)
Labels = NDArray[Any]
Found = Callable[[NDArray[Any], Statistics | None], Labels]


class Case(NamedTuple):
    """Planes of one image, normalized together, and their true labels."""

    name: str
    planes: NDArray[Any]
    truth: Labels


class Adapter:
    """The part of `SamPredictor` that `SamAutomaticMaskGenerator` uses, backed by a `Predictor`."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.device = torch.device("cpu")
        self.model = SimpleNamespace(mask_threshold=0.0)
        self.transform = SimpleNamespace(apply_coords=lambda points, _size: points)
        self.statistics: Statistics | None = None
        self._image = b""
        self._kept: dict[bytes, list[Result]] = {}

    def set_image(self, image: NDArray[Any]) -> None:
        """Take an image (Y, X, 1)."""
        self.predictor.set_image(image[..., 0], statistics=self.statistics)
        if image.tobytes() != self._image:
            self._image, self._kept = image.tobytes(), {}

    def reset_image(self) -> None:
        """Does nothing."""

    def predict_torch(
        self, points: torch.Tensor, _labels: torch.Tensor, **_options: bool
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Answer clicks (N, 1, 2) x, y from the pixels' edges: logits (N, 3, Y, X), IoUs (N, 3)."""
        clicks = [Prompt(points=((float(y) - 0.5, float(x) - 0.5),)) for x, y in points[:, 0]]
        asked = points.numpy().tobytes()
        if asked not in self._kept:  # the same clicks are asked again with other thresholds
            self._kept[asked] = self.predictor.predict_low_res(clicks)
        masks, qualities = [], []
        for answer in self._kept[asked]:
            masks.append(answer.image_logits()[1:])
            qualities.append(torch.from_numpy(answer.predicted_iou[1:]))
        return torch.stack(masks), torch.stack(qualities), None


def sams(adapter: Adapter, points: int, **thresholds: float) -> Found:
    """SAM's generator with its published settings, except for the grid and `thresholds`."""
    model = sam_model_registry["vit_b"]()  # only asked whether it is there

    def found(plane: NDArray[Any], statistics: Statistics | None) -> Labels:
        generator = SamAutomaticMaskGenerator(
            model,
            points_per_side=points or default_grid_points((plane.shape[0], plane.shape[1])),
            points_per_batch=16,
            **thresholds,
        )
        generator.predictor = adapter
        adapter.statistics = statistics
        labels = np.zeros(plane.shape, np.int64)
        masks = generator.generate(plane[..., None])
        for number, mask in enumerate(sorted(masks, key=lambda one: -one["area"]), start=1):
            labels[mask["segmentation"]] = number
        return labels

    return found


def ours(predictor: Predictor, settings: AutomaticSettings) -> Found:
    """Segment everything as the plugin does."""

    def found(plane: NDArray[Any], statistics: Statistics | None) -> Labels:
        predictor.set_image(plane, statistics=statistics)
        return segment_everything(predictor, settings).labels.astype(np.int64)

    return found


def cases(data: Path, drawn: int) -> Iterator[Case]:
    """The labeled images, and new drawn scenes that no model was trained or selected on."""

    def stored(name: str) -> NDArray[Any]:
        array: NDArray[Any] = tifffile.imread(data / f"{name}.tif")
        return array if array.ndim == 3 else array[None]

    yield Case("coins", coins()[None], stored("coins_labels"))
    yield Case("bacteria", stored("phase2d_bacteria"), stored("phase2d_bacteria_labels"))
    yield Case("HeLa", stored("fluo2d_hela"), stored("fluo2d_hela_autolabels"))
    yield Case("CHO", stored("fluo3d_cho"), stored("fluo3d_cho_autolabels"))
    for number in range(drawn):
        image, truth = draw_sample(90_000 + number, 256)
        yield Case(
            f"drawn {number}", image.mean(-1)[None] if image.ndim == 3 else image[None], truth[None]
        )


def main() -> None:
    """Print and write a row for each image and method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--drawn", type=int, default=8)
    parser.add_argument(
        "--points", type=int, default=0, help="along each side, for both; 0 for our default"
    )
    parser.add_argument("--crops", action="store_true", help="also with a layer of crops")
    parser.add_argument("--only", default="", help="names of images, with commas between")
    arguments = parser.parse_args()
    predictor = Predictor(load_model("tiny"), "cpu")
    points = arguments.points
    settings = AutomaticSettings(points_per_side=points).for_model(predictor.model.spec)
    quality, stability = settings.thresholds
    adapter = Adapter(predictor)
    methods: dict[str, Found] = {
        "segment everything": ours(predictor, settings),
        "SAM's generator, as published": sams(adapter, points),
        "SAM's generator, our thresholds": sams(
            adapter, points, pred_iou_thresh=quality, stability_score_thresh=stability
        ),
    }
    if arguments.crops:
        crops = replace(settings, crop_layers=1)
        methods["segment everything, one layer of crops"] = ours(predictor, crops)
    with arguments.output.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", "method", *SCORES, "seconds"])
        for case in cases(arguments.data, arguments.drawn):
            if arguments.only and case.name not in arguments.only.split(","):
                continue
            predictor.set_image(case.planes)
            statistics = predictor.statistics
            for name, method in methods.items():
                start = time.monotonic()
                found = np.stack([method(plane, statistics) for plane in case.planes])
                seconds = time.monotonic() - start
                writer.writerow([case.name, name, *_scores(found, case.truth), f"{seconds:.1f}"])
                stream.flush()
                print(case.name, name, *_scores(found, case.truth), f"{seconds:.1f} s", flush=True)


def _scores(found: Labels, truth: Labels) -> list[str]:
    """The values of `SCORES`; the means over several planes."""
    planes = list(zip(found, truth.astype(np.int64), strict=True))
    values = []
    for counted in (
        planes,
        [(clear_border(plane), clear_border(true)) for plane, true in planes],
        [(_where_labeled(plane, true), true) for plane, true in planes],
    ):
        precision = np.mean([average_precision(*pair) for pair in counted], axis=0)
        values += [precision[0], precision.mean()]
    values.append(np.mean([panoptic_quality(*plane).pq for plane in planes]))
    counts = [str(sum(len(np.unique(plane[n])) - 1 for plane in planes)) for n in (1, 0)]
    return [*counts, *(f"{value:.3f}" for value in values)]


def _where_labeled(found: Labels, truth: Labels) -> Labels:
    """Without objects that lie more than half where nothing is labeled."""
    areas = np.bincount(found.ravel())
    labeled = np.bincount(found[truth > 0], minlength=len(areas))
    return np.where((2 * labeled >= areas)[found], found, 0)


if __name__ == "__main__":
    main()

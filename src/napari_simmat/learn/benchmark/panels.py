"""The qualitative figure: image, click, truth, and what the arms make of it (figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.checkpoints.checkpoint import read_tensors
from napari_simmat.engine.checkpoints.loading import Model
from napari_simmat.engine.files import writing
from napari_simmat.learn.benchmark.config import BenchmarkConfig
from napari_simmat.learn.benchmark.experiments import SCRATCH, SIMMAT, ZERO_SHOT, Run
from napari_simmat.learn.benchmark.plots import mark
from napari_simmat.learn.benchmark.running import checkpoint_of
from napari_simmat.learn.datasets.dataset import Dataset
from napari_simmat.learn.metrics import iou
from napari_simmat.learn.train_config import TrainConfig
from napari_simmat.learn.training.describing import student
from napari_simmat.learn.training.planes import Plane, Planes
from napari_simmat.learn.training.validating import answer
from napari_simmat.model.network import Network
from napari_simmat.model.spec import ModelSpec
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = (ZERO_SHOT, SCRATCH, SIMMAT)
PER_MODALITY = 2
"""Objects of each modality, of different test planes."""


class Panel(NamedTuple):
    """One object: picture (H, W, 3) in 0..1, click (y, x), truth and the arms' masks (H, W)."""

    title: str
    picture: NDArray[np.float32]
    click: tuple[float, float]
    truth: NDArray[np.bool_]
    masks: Mapping[str, NDArray[np.bool_]]


def drawing_panels(
    runs: Sequence[Run],
    datasets: Mapping[str, Dataset],
    base: Model,
    config: BenchmarkConfig,
    folder: Path,
    path: Path,
) -> Job[None]:
    """Draw the figure from the checkpoints that `running` kept in `folder`.

    Of the first test planes the object of median size is shown, so that nobody chose it.

    Parameters
    ----------
    runs
        Of the first seed: zero-shot, scratch and SimMAT on every modality.
    datasets, base, config
        As `running` had them.
    path
        Of the PNG file.
    """
    panels = []
    modalities = list(dict.fromkeys(run.modality for run in runs))
    for number, modality in enumerate(modalities):
        own = {run.arm: run for run in runs if run.modality == modality}
        panels += _panels(modality, own, datasets[modality], base, config, folder)
        yield Progress(number + 1, len(modalities), f"drawing {modality}")
    _draw(panels, path, config.quick)


def _panels(
    modality: str,
    runs: Mapping[str, Run],
    dataset: Dataset,
    base: Model,
    config: BenchmarkConfig,
    folder: Path,
) -> list[Panel]:
    found: dict[str, tuple[Network, ModelSpec, int]] = {}
    for arm in SHOWN:
        run = runs[arm]
        if not run.steps:
            found[arm] = (base.network, base.spec, TrainConfig().side_for(base.spec))
            continue
        how = run.config(config)
        trained = student(base, dataset, how, run.arm)
        tensors = read_tensors(checkpoint_of(run, folder))
        trained.network.load_state_dict({**trained.network.state_dict(), **tensors})
        found[arm] = (trained.network.eval(), trained.spec, how.side_for(base.spec))
    panels = []
    planes = {
        arm: Planes(dataset, dataset.test, spec, side) for arm, (_, spec, side) in found.items()
    }
    for index in range(len(dataset.test)):
        plane = planes[SIMMAT][index]
        if not plane.objects:
            continue
        label = _median_object(plane)
        masks = {}
        click = (0.0, 0.0)
        for arm, (network, _, side) in found.items():
            masks[arm], click = answer(network, planes[arm][index], label, side, planes[arm].native)
        values, labels = dataset.test[index].load()
        panels.append(Panel(modality, picture(values), click, labels == label, masks))
        if len(panels) == PER_MODALITY:
            break
    return panels


def picture(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Channels (C, H, W) as a person sees them (H, W, 3), 0..1: first, middle and last."""
    count = len(values)
    three = values[[0, count // 2, count - 1]] if count > 2 else np.repeat(values[:1], 3, axis=0)
    low, high = np.percentile(three, (0.5, 99.5), axis=(1, 2), keepdims=True)
    unit = np.clip((three - low) / np.maximum(high - low, 1e-6), 0, 1)
    return np.asarray(np.moveaxis(unit, 0, -1), np.float32)


def _median_object(plane: Plane) -> int:
    areas = [(int((plane.labels == label).sum()), label) for label in plane.objects]
    return sorted(areas)[len(areas) // 2][1]


def _draw(panels: Sequence[Panel], path: Path, quick: bool) -> None:
    from matplotlib.figure import Figure

    titles = ("image and click", "truth", *SHOWN)
    figure = Figure(figsize=(1.75 * len(titles), 1.8 * len(panels)), dpi=110, layout="constrained")
    grid = figure.subplots(len(panels), len(titles), squeeze=False)
    for row, panel in zip(grid, panels, strict=True):
        for axes, title in zip(row, titles, strict=True):
            axes.imshow(panel.picture)
            axes.set_xticks([])
            axes.set_yticks([])
            if axes in grid[0]:
                axes.set_title(title, fontsize=9)
            mask = panel.truth if title == "truth" else panel.masks.get(title)
            if mask is not None:
                _show(axes, mask)
            if title in panel.masks:
                reached = iou(panel.masks[title], panel.truth)
                axes.set_xlabel(f"IoU {reached:.2f}", fontsize=8)
            axes.plot(panel.click[1], panel.click[0], "o", color="#2ecc40", mec="w", markersize=5)
        row[0].set_ylabel(panel.title.replace("_", " "), fontsize=8)
    if quick:
        mark(figure)
    with writing(path) as temporary:
        figure.savefig(temporary, format="png")


def _show(axes: Axes, mask: NDArray[np.bool_]) -> None:
    tint = np.zeros((*mask.shape, 4), np.float32)
    tint[mask] = (1.0, 0.55, 0.0, 0.45)
    axes.imshow(tint, interpolation="nearest")
    if mask.any() and not mask.all():
        axes.contour(mask, [0.5], colors="#ff8c00", linewidths=1.0)

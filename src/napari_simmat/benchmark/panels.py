"""The qualitative figure: image, click, truth, and the masks of the arms (figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.benchmark.experiments import (
    SCRATCH,
    SIMMAT,
    ZERO_SHOT,
    BenchmarkConfig,
    ExperimentRun,
)
from napari_simmat.benchmark.runner import checkpoint_of
from napari_simmat.checkpoints.checkpoint import read_tensors
from napari_simmat.datasets.dataset import Dataset
from napari_simmat.engine.masks import iou
from napari_simmat.engine.normalization import stretch_percentiles
from napari_simmat.io.files import atomic_write
from napari_simmat.models.network import Network
from napari_simmat.models.spec import Model, ModelSpec
from napari_simmat.progress import Job, Progress
from napari_simmat.training.batches import LabelledPlane, LabelledPlanes
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.finetune import make_trainable
from napari_simmat.training.validation import protocol_mask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_ARMS = (ZERO_SHOT, SCRATCH, SIMMAT)
PER_MODALITY = 2
"""Objects of each modality, of different test planes."""
QUICK_STAMP = "quick, no result"


class Panel(NamedTuple):
    """One object: picture (H, W, 3) in 0..1, click (y, x), truth and the arms' masks (H, W)."""

    title: str
    picture: NDArray[np.float32]
    click: tuple[float, float]
    truth: NDArray[np.bool_]
    masks: Mapping[str, NDArray[np.bool_]]


def draw_panels_job(
    runs: Sequence[ExperimentRun],
    datasets: Mapping[str, Dataset],
    base: Model,
    config: BenchmarkConfig,
    folder: Path,
    path: Path,
) -> Job[None]:
    """Draw the figure as PNG from the checkpoints that `run_all_job` kept in `folder`.

    It shows the object of median size, so that nobody chose it, on the first test planes, and the
    part of the plane around it; the IoU is that of the whole plane. `runs` are those of the first
    seed: zero-shot, scratch and SimMAT on every modality.
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
    runs: Mapping[str, ExperimentRun],
    dataset: Dataset,
    base: Model,
    config: BenchmarkConfig,
    folder: Path,
) -> list[Panel]:
    found: dict[str, tuple[Network, ModelSpec, int]] = {}
    for arm in PANEL_ARMS:
        run = runs[arm]
        if not run.steps:
            found[arm] = (base.network, base.spec, TrainConfig().side_for(base.spec))
            continue
        how = run.config(config)
        trained = make_trainable(base, dataset, how, run.arm)
        tensors = read_tensors(checkpoint_of(run, folder))
        trained.network.load_state_dict({**trained.network.state_dict(), **tensors})
        found[arm] = (trained.network.eval(), trained.spec, how.side_for(base.spec))
    panels = []
    planes = {
        arm: LabelledPlanes(dataset, dataset.test, spec, side)
        for arm, (_, spec, side) in found.items()
    }
    for index in range(len(dataset.test)):
        plane = planes[SIMMAT][index]
        if not plane.objects:
            continue
        label = _median_object(plane)
        masks = {}
        click = (0.0, 0.0)
        for arm, (network, _, side) in found.items():
            masks[arm], click = protocol_mask(
                network, planes[arm][index], label, side, planes[arm].native
            )
        values, labels = dataset.test[index].load()
        panels.append(Panel(modality, as_picture(values), click, labels == label, masks))
        if len(panels) == PER_MODALITY:
            break
    return panels


def _median_object(plane: LabelledPlane) -> int:
    areas = [(int((plane.labels == label).sum()), label) for label in plane.objects]
    return sorted(areas)[len(areas) // 2][1]


def as_picture(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Channels (C, H, W) as a picture (H, W, 3), 0..1, of the first, middle and last."""
    count = len(values)
    three = values[[0, count // 2, count - 1]] if count > 2 else np.repeat(values[:1], 3, axis=0)
    unit = stretch_percentiles(three, 0.5, 99.5, axes=(1, 2), scale=1.0, least=1e-6)
    return np.asarray(np.moveaxis(unit, 0, -1), np.float32)


def square_around(truth: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The square of a plane that shows an object (H, W) and its surroundings.

    Its side is four times the object's longer side, at least a third of the plane's shorter side
    and at most all of it; it is moved into the plane.

    Returns
    -------
    top, bottom, left, right
        Edges in pixels; the first pixel begins at 0.
    """
    rows, columns = np.nonzero(truth)
    shorter = min(truth.shape)
    longest = max(np.ptp(rows), np.ptp(columns)) + 1
    side = min(max(4 * longest, shorter // 3), shorter)
    top = np.clip((rows.min() + rows.max() + 1 - side) / 2, 0, truth.shape[0] - side)
    left = np.clip((columns.min() + columns.max() + 1 - side) / 2, 0, truth.shape[1] - side)
    return float(top), float(top + side), float(left), float(left + side)


def _draw(panels: Sequence[Panel], path: Path, quick: bool) -> None:
    from matplotlib.figure import Figure

    titles = ("image and click", "truth", *PANEL_ARMS)
    modalities = list(dict.fromkeys(panel.title for panel in panels))
    size = (1.25 * len(titles) * PER_MODALITY, 1.4 * len(modalities) + 0.2)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    columns = figure.subplots(len(modalities), len(titles) * PER_MODALITY, squeeze=False)
    for axes in columns.flat:
        axes.set_axis_off()
    for number, modality in enumerate(modalities):
        own = [panel for panel in panels if panel.title == modality]
        for panel, row in zip(own, np.split(columns[number], PER_MODALITY), strict=False):
            for axes, title in zip(row, titles, strict=True):
                axes.set_axis_on()
                if number == 0:
                    axes.set_title(title, fontsize=9)
                _fill(axes, panel, title)
        columns[number][0].set_ylabel(modality.replace("_", " "), fontsize=9)
    if quick:
        stamp_quick(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _fill(axes: Axes, panel: Panel, title: str) -> None:
    axes.imshow(panel.picture, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    mask = panel.truth if title == "truth" else panel.masks.get(title)
    if mask is not None:
        _show(axes, mask)
    if title in panel.masks:
        axes.set_xlabel(f"IoU {iou(panel.masks[title], panel.truth):.2f}", fontsize=8)
    else:
        axes.plot(panel.click[1], panel.click[0], "o", color="#2ecc40", mec="w", markersize=5)
    top, bottom, left, right = square_around(panel.truth)
    axes.set_xlim(left - 0.5, right - 0.5)
    axes.set_ylim(bottom - 0.5, top - 0.5)


def _show(axes: Axes, mask: NDArray[np.bool_]) -> None:
    tint = np.zeros((*mask.shape, 4), np.float32)
    tint[mask] = (1.0, 0.55, 0.0, 0.45)
    axes.imshow(tint, interpolation="nearest")
    if mask.any() and not mask.all():
        axes.contour(mask, [0.5], colors="#ff8c00", linewidths=1.0)


def stamp_quick(figure: Figure) -> None:
    """Write across the plot that it is no result."""
    figure.text(
        0.5, 0.5, QUICK_STAMP, fontsize=34, color="#c0392b", alpha=0.35, rotation=20, ha="center"
    )

"""`simmat demo`: segment sample images, on disk or in the window.

`simmat demo`: the built-in samples segmented with stored prompts.

Samples of the demonstration: images with known objects, and one prompt for each object.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from napari_simmat.cli.terminal import (
    DEFAULT_COMPUTE,
    DEFAULT_OUTPUT,
    FLAG,
    ComputeOptions,
    OutputOptions,
)
from napari_simmat.engine.normalization import stretch_percentiles
from napari_simmat.engine.prompts import Prompt
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from napari_simmat.batch.plan import SegmentConfig, SegmentTask


MARKER_FILE = "demo.json"
"""The file that says that a folder was made by the demonstration."""


def demo(
    *,
    gui: Annotated[bool, FLAG] = False,
    output: Path = Path("simmat-demo"),
    compute: ComputeOptions = DEFAULT_COMPUTE,
    speech: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Segment built-in samples with stored clicks and boxes; works offline.

    A photograph of coins, drawn cell nuclei, and a drawn scene seen by a polarization camera (four
    channels, with a checkpoint made for them). Every object gets one click, then one box, and the
    answers are compared with the known objects:

    ```
    simmat demo
    simmat demo --output my-folder
    simmat demo --gui
    ```

    Parameters
    ----------
    gui
        Open napari with a sample, the Segment tab and prompts ready, instead of writing files.
    output
        Folder for images, prompts, labels, overlays and the table.
    """
    if gui:
        _open_window()
        return
    terminal = speech.terminal()
    if output.exists() and (
        not output.is_dir() or (any(output.iterdir()) and not _is_demo_folder(output))
    ):
        raise ValueError(
            f"{output} exists and was not made by simmat demo. Choose another folder with --output."
        )
    start = time.monotonic()
    rows = terminal.watch(_run_job(output, compute))
    table = Table("image", "model", "prompt", "objects", "mean IoU", box=None, header_style="bold")
    for row in rows:
        cells = (row.title, row.model, row.prompt, str(row.objects), f"{row.iou:.2f}")
        table.add_row(*(Text(cell) for cell in cells))
    terminal.say(table)
    terminal.say("")
    terminal.say(f"Segmented in {time.monotonic() - start:.0f} s. Look at the overlays:")
    for path in sorted((output / "overlays").glob("*.png")):
        terminal.say(f"  {path}")
    terminal.say(f"Labels, tables and records lie in {output / 'clicks'} and {output / 'boxes'},")
    terminal.say(f"the IoU of each object in {output / 'iou.csv'}. One of these runs by hand:")
    image, prompts = output / "images" / "coins.tif", output / "images" / "coins_points.csv"
    terminal.say(
        f"  simmat segment {image} --model tiny --prompts {prompts} --output results", "bold"
    )
    terminal.result({"output": str(output), "results": [row.values() for row in rows]})


@dataclass(frozen=True)
class DemoRow:
    """One line of the table: a sample with one kind of prompt."""

    sample: str
    title: str
    model: str
    prompt: str
    objects: int
    iou: float

    def values(self) -> dict[str, Any]:
        """The line for programs."""
        return {
            "sample": self.sample,
            "model": self.model,
            "prompt": self.prompt,
            "objects": self.objects,
            "mean_iou": round(self.iou, 4),
        }


def _run_job(output: Path, compute: ComputeOptions) -> Job[list[DemoRow]]:
    """Write the samples, segment them, compare, draw."""
    from napari_simmat.batch.plan import OutputFiles, SegmentConfig, SegmentTask
    from napari_simmat.batch.runner import run_tasks_job
    from napari_simmat.io.files import atomic_outputs, write_text

    yield Progress(0, 0, "drawing samples")
    found = demo_samples()
    with atomic_outputs(output / MARKER_FILE) as (mark,):
        write_text(mark, '{"made by": "simmat demo"}\n')
    tasks: dict[str, list[SegmentTask]] = {}
    for sample in found:
        yield Progress(0, 0, f"writing {sample.name}")
        image = _write_sample(sample, output / "images")
        for kind, ending in (("clicks", "points"), ("boxes", "boxes")):
            prompts = image.with_name(f"{sample.name}_{ending}.csv")
            task = SegmentTask(image, prompts, OutputFiles.of(image, output / kind))
            tasks.setdefault(sample.model, []).append(task)
    for model, group in tasks.items():
        config: SegmentConfig = SegmentConfig(
            model=model, device=compute.device, precision=compute.precision
        )
        outcomes = yield from run_tasks_job(group, config)
        for outcome in outcomes:
            if outcome.status == "failed":
                raise ValueError(outcome.note)
    rows = []
    scores = []
    for sample in found:
        yield Progress(0, 0, f"drawing the overlay of {sample.name}")
        for kind, ious in _compare(sample, output).items():
            mean = sum(ious.values()) / len(ious)
            rows.append(DemoRow(sample.name, sample.title, sample.model, kind, len(ious), mean))
            scores += [
                {"sample": sample.name, "model": sample.model, "prompt": kind}
                | {"object": label, "iou": value}
                for label, value in ious.items()
            ]
    _write_scores(output / "iou.csv", scores)
    return rows


def _write_sample(sample: DemoSample, folder: Path) -> Path:
    """Write a sample's image, its prompts and its truth; returns the image's path."""
    import tifffile

    from napari_simmat.engine.prompt_files import write_points_csv, write_shapes_csv
    from napari_simmat.io.files import atomic_write
    from napari_simmat.io.tiff import write_labels_tiff

    path = folder / f"{sample.name}.tif"
    metadata: dict[str, Any] = {"axes": "CYX" if sample.channels else "YX"}
    if sample.channels:
        metadata["Channel"] = {"Name": list(sample.channels)}
    metadata["UUID"] = "urn:uuid:00000000-0000-0000-0000-000000000000"  # equal runs, equal bytes
    with atomic_write(path) as temporary:
        tifffile.imwrite(
            temporary, sample.image, ome=True, photometric="minisblack", metadata=metadata
        )
    with atomic_write(folder / f"{sample.name}_truth.tif") as temporary:
        write_labels_tiff(temporary, sample.truth, axes="YX")
    write_points_csv(folder / f"{sample.name}_points.csv", sample.clicks())
    write_shapes_csv(folder / f"{sample.name}_boxes.csv", sample.boxes())
    return path


def _compare(sample: DemoSample, output: Path) -> dict[str, dict[int, float]]:
    """IoU of each object by kind of prompt; draws the overlay on the way."""
    import tifffile

    from napari_simmat.engine.drawing import draw_overlay, side_by_side
    from napari_simmat.io.files import atomic_write

    found: dict[str, dict[int, float]] = {}
    pictures = []
    for kind, prompts in (("clicks", sample.clicks()), ("boxes", sample.boxes())):
        labels = tifffile.imread(output / kind / f"{sample.name}_labels.tif")
        found[kind] = ious(labels, sample.truth)
        mean = sum(found[kind].values()) / len(found[kind])
        caption = f"{sample.title}: {len(prompts)} {kind}, mean IoU {mean:.2f} (white: truth)"
        pictures.append(draw_overlay(sample.picture(), labels, prompts, sample.truth, caption))
    with atomic_write(output / "overlays" / f"{sample.name}.png") as temporary:
        side_by_side(pictures).save(temporary, format="PNG")
    return found


def _write_scores(path: Path, scores: list[dict[str, Any]]) -> None:
    from napari_simmat.io.files import atomic_write, write_table

    with atomic_write(path) as temporary:
        write_table(temporary, ["sample", "model", "prompt", "object", "iou"], scores)


def _is_demo_folder(folder: Path) -> bool:
    return (folder / MARKER_FILE).is_file()


def _open_window() -> None:
    if find_spec("napari") is None:
        raise ImportError(
            'napari is not installed, so no window can open; run pip install "napari-simmat[all]".'
        )
    from napari_simmat.widgets.main import open_demo

    open_demo()


# Seeds of scenes that show what they are meant to.
FLUORESCENCE_SEED = 7
POLARIZATION_SEED = 6


@dataclass(frozen=True, eq=False)
class DemoSample:
    """An image whose objects are known.

    Parameters
    ----------
    name
        A file's stem.
    title
        What it shows, in a few words.
    model
        The model that suits it.
    image
        (Y, X) or (C, Y, X).
    truth
        (Y, X) labels, 0 is background.
    channels
        Names of the channels; empty for one channel.
    """

    name: str
    title: str
    model: str
    image: NDArray[Any]
    truth: NDArray[np.int32]
    channels: tuple[str, ...] = ()

    def clicks(self) -> list[Prompt]:
        """A click in the middle of each object."""
        from napari_simmat.engine.masks import interior_point

        return [
            Prompt(
                points=(interior_point(self.truth == label, ties="median"),),
                labels=(1,),
                object=label,
            )
            for label in self._labels()
        ]

    def boxes(self) -> list[Prompt]:
        """The bounding box of each object."""
        from skimage.measure import regionprops

        boxes = {region.label: region.bbox for region in regionprops(self.truth)}
        return [Prompt(box=boxes[label], object=label) for label in self._labels()]

    def picture(self) -> NDArray[np.uint8]:
        """The image as a person sees it: (Y, X, 3), 0..255."""
        if self.image.ndim == 2:
            return np.repeat(_to_8bit(self.image)[..., None], 3, axis=-1)
        return polarization_colours(self.image)

    def _labels(self) -> list[int]:
        return [int(label) for label in np.unique(self.truth) if label]


def demo_samples() -> list[DemoSample]:
    """The samples of the demonstration; each call makes them anew, equal to the last."""
    return [coins(), fluorescence(), polarization()]


def coins() -> DemoSample:
    """Photograph of Greek coins that scikit-image ships; the truth is found by a watershed.

    The watershed starts from pixels that are surely coin or table. It is made for this image
    alone, and its outlines were checked by eye.
    """
    from scipy import ndimage
    from skimage import data, filters, measure, morphology, segmentation

    image: NDArray[np.uint8] = data.coins()
    smooth = filters.gaussian(image, 1, preserve_range=True)
    surely = np.where(smooth < 75, 1, np.where(smooth > 150, 2, 0))
    coin = segmentation.watershed(filters.sobel(smooth), surely) == 2
    coin = morphology.opening(ndimage.binary_fill_holes(coin), morphology.disk(5))
    truth = np.zeros(image.shape, dtype=np.int32)
    for region in measure.regionprops(measure.label(coin)):
        y0, x0, y1, x1 = region.bbox
        truth[y0:y1, x0:x1][region.image_convex] = region.label
    return DemoSample("coins", "Photograph of coins", "tiny", image, truth)


def fluorescence() -> DemoSample:
    """Drawn cell nuclei under a fluorescence microscope, 16 bit."""
    from napari_simmat.scenes.renderers import render
    from napari_simmat.scenes.samples import visible_labels
    from napari_simmat.scenes.scene import draw_scene

    rng = np.random.default_rng(FLUORESCENCE_SEED)
    scene = draw_scene(rng, 320, "cells")
    image = render(scene, "fluorescence", rng)
    truth = visible_labels(image, scene.labels)
    return DemoSample("fluorescence", "Drawn cell nuclei", "tiny", _as_uint16(image), truth)


def polarization() -> DemoSample:
    """Drawn beads, some of clear glass, behind polarisers at four angles; 12 of 16 bits."""
    from napari_simmat.scenes.sensors import SENSORS, draw_sensor_sample

    image, truth, _ = draw_sensor_sample("polarization", POLARIZATION_SEED, 256, "discs")
    channels = SENSORS["polarization"].channels
    title = "Drawn beads, four polarization angles"
    return DemoSample("polarization", title, "polarization", _as_uint16(image), truth, channels)


def polarization_colours(angles: NDArray[Any]) -> NDArray[np.uint8]:
    """Intensity as brightness, angle of polarization as hue, its degree as saturation.

    Parameters
    ----------
    angles
        (4, Y, X) behind polarisers at 0, 45, 90 and 135 degrees.
    """
    from skimage.color import hsv2rgb

    i0, i45, i90, i135 = angles.astype(np.float64)
    total = np.maximum((i0 + i45 + i90 + i135) / 2, 1e-9)
    along, across = (i0 - i90) / total, (i45 - i135) / total
    hue = (np.arctan2(across, along) / (2 * np.pi)) % 1
    degree = np.hypot(along, across)
    degree = np.clip(degree / max(float(np.percentile(degree, 99)), 1e-9), 0, 1)
    # What is dark but polarises shines as well: clear glass shows in no other way.
    brightness = np.maximum((_to_8bit(total) / 255) ** 0.7, degree)
    colours = hsv2rgb(np.stack([hue, degree, brightness], axis=-1))
    return np.asarray(np.rint(255 * colours), dtype=np.uint8)


def _to_8bit(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Percentiles 0.2 and 99.8 to 0 and 255."""
    return np.asarray(np.rint(stretch_percentiles(image, 0.2, 99.8)), dtype=np.uint8)


def _as_uint16(image: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    return np.asarray(np.clip(np.rint(image), 0, 65535), dtype=np.uint16)


def ious(labels: NDArray[Any], truth: NDArray[Any]) -> dict[int, float]:
    """IoU of each object of `truth` with the same number in `labels`."""
    from napari_simmat.engine.masks import iou

    return {int(k): iou(labels == k, truth == k) for k in np.unique(truth) if k}

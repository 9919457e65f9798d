"""`simmat demo`: segment built-in samples with stored prompts, or open one in the window."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from rich.table import Table
from rich.text import Text

from napari_simmat.batch.options import FLAG
from napari_simmat.cli.terminal import (
    DEFAULT_COMPUTE,
    DEFAULT_OUTPUT,
    ComputeOptions,
    OutputOptions,
)
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_simmat.batch.plan import SegmentTask
    from napari_simmat.engine.prompts import Prompt


MARKER_FILE = "demo.json"
"""Marks a folder as made by the demo."""
STORED = (
    ("coins", "Photograph of coins", "tiny"),
    ("fluorescence", "Drawn cell nuclei", "tiny"),
    ("polarization", "Drawn beads, four polarization angles", "polarization"),
)
"""Names, titles and models of the samples; the photograph comes with scikit-image."""


def demo(
    *,
    gui: Annotated[bool, FLAG] = False,
    output: Path = Path("simmat-demo"),
    compute: ComputeOptions = DEFAULT_COMPUTE,
    console: OutputOptions = DEFAULT_OUTPUT,
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
        if find_spec("napari") is None:
            raise ImportError(
                'napari is not installed, so no window can open; run pip install "napari[all]".'
            )
        from napari_simmat.widgets.main import open_demo

        open_demo()
        return
    terminal = console.terminal()
    if output.exists() and (
        not output.is_dir() or (any(output.iterdir()) and not (output / MARKER_FILE).is_file())
    ):
        raise ValueError(
            f"{output} exists and was not made by simmat demo. Choose another folder with --output."
        )
    start = time.monotonic()
    rows = terminal.watch(_run_job(output, compute))
    table = Table("image", "model", "prompt", "objects", "mean IoU", box=None, header_style="bold")
    for row in rows:
        cells = (row.title, row.model, row.prompt, str(row.objects), f"{row.mean_iou:.2f}")
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
    results = [{**row._asdict(), "mean_iou": round(row.mean_iou, 4)} for row in rows]
    terminal.result({"output": str(output), "results": results})


class DemoRow(NamedTuple):
    """A sample segmented with one kind of prompt: a line of the table."""

    sample: str
    title: str
    model: str
    prompt: str
    objects: int
    mean_iou: float


def _run_job(output: Path, compute: ComputeOptions) -> Job[list[DemoRow]]:
    """Write the samples, segment them, compare with the truth, draw overlays."""
    from napari_simmat.batch.plan import OutputFiles, SegmentConfig, SegmentTask
    from napari_simmat.batch.tasks import run_tasks_job
    from napari_simmat.io.files import atomic_write, write_table, write_text

    yield Progress(0, 0, "drawing samples")
    samples = demo_samples()
    with atomic_write(output / MARKER_FILE) as marker:
        write_text(marker, '{"made by": "simmat demo"}\n')
    tasks: dict[str, list[SegmentTask]] = {}
    for sample in samples:
        yield Progress(0, 0, f"writing {sample.name}")
        image = _write_sample(sample, output / "images")
        for kind, ending in (("clicks", "points"), ("boxes", "boxes")):
            prompts = image.with_name(f"{sample.name}_{ending}.csv")
            task = SegmentTask(image, prompts, OutputFiles.of(image, output / kind))
            tasks.setdefault(sample.model, []).append(task)
    for model, group in tasks.items():
        config = SegmentConfig(model=model, compute=compute)
        outcomes = yield from run_tasks_job(group, config)
        for outcome in outcomes:
            if outcome.status == "failed":
                raise ValueError(outcome.note)
    rows, scores = [], []
    for sample in samples:
        yield Progress(0, 0, f"drawing the overlay of {sample.name}")
        for kind, ious in _compare(sample, output).items():
            mean = sum(ious.values()) / len(ious)
            rows.append(DemoRow(sample.name, sample.title, sample.model, kind, len(ious), mean))
            scores += [(sample.name, sample.model, kind, *each) for each in ious.items()]
    columns = ("sample", "model", "prompt", "object", "iou")
    with atomic_write(output / "iou.csv") as temporary:
        write_table(temporary, columns, [dict(zip(columns, row, strict=True)) for row in scores])
    return rows


def _write_sample(sample: DemoSample, folder: Path) -> Path:
    """Write the image, prompts and true labels of a sample; returns the image's path."""
    import tifffile

    from napari_simmat.engine.files.prompt_csv import write_points_csv, write_shapes_csv
    from napari_simmat.io.files import atomic_write
    from napari_simmat.io.tiff_writing import write_labels_tiff

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
    """The IoU of each object by kind of prompt; also draws the overlay."""
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


@dataclass(frozen=True, eq=False)
class DemoSample:
    """An image with known objects.

    Parameters
    ----------
    name
        The stem of its files.
    title
        What it shows.
    model
        The model to use.
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
        import numpy as np

        from napari_simmat.engine.masks import interior_point
        from napari_simmat.engine.prompts import Prompt

        return [
            Prompt(
                points=(interior_point(self.truth == label, ties="median"),),
                labels=(1,),
                object=label,
            )
            for label in np.unique(self.truth).tolist()
            if label
        ]

    def boxes(self) -> list[Prompt]:
        """The bounding box of each object."""
        from skimage.measure import regionprops

        from napari_simmat.engine.prompts import Prompt

        return [Prompt(box=each.bbox, object=int(each.label)) for each in regionprops(self.truth)]

    def picture(self) -> NDArray[np.uint8]:
        """The image as RGB (Y, X, 3), 0..255."""
        import numpy as np

        if self.image.ndim == 2:
            return np.repeat(_to_8bit(self.image)[..., None], 3, axis=-1)
        return polarization_colors(self.image)


def demo_samples() -> list[DemoSample]:
    """The samples of the demo; every call returns equal ones."""
    from skimage.data import coins

    from napari_simmat.io.files import SAMPLES
    from napari_simmat.io.readers import read_image

    samples = []
    for name, title, model in STORED:
        truth = read_image(SAMPLES / f"{name}_labels.tif").data.astype("int32")
        if name == "coins":
            samples.append(DemoSample(name, title, model, coins(), truth))
            continue
        image = read_image(SAMPLES / f"{name}.tif")
        several = model != "tiny"
        data, channels = (image.data, image.channel_names) if several else (image.data[0], None)
        samples.append(DemoSample(name, title, model, data, truth, channels or ()))
    return samples


def polarization_colors(angles: NDArray[Any]) -> NDArray[np.uint8]:
    """Intensity as brightness, angle of polarization as hue, its degree as saturation.

    Parameters
    ----------
    angles
        (4, Y, X) behind polarizers at 0, 45, 90 and 135 degrees.
    """
    import numpy as np
    from skimage.color import hsv2rgb

    i0, i45, i90, i135 = angles.astype(np.float64)
    total = np.maximum((i0 + i45 + i90 + i135) / 2, 1e-9)
    along, across = (i0 - i90) / total, (i45 - i135) / total
    hue = (np.arctan2(across, along) / (2 * np.pi)) % 1
    degree = np.hypot(along, across)
    degree = np.clip(degree / max(float(np.percentile(degree, 99)), 1e-9), 0, 1)
    # Dark but polarizing pixels are bright too: clear glass is visible only by polarization.
    brightness = np.maximum((_to_8bit(total) / 255) ** 0.7, degree)
    colors = hsv2rgb(np.stack([hue, degree, brightness], axis=-1))
    return np.asarray(np.rint(255 * colors), dtype=np.uint8)


def _to_8bit(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Percentiles 0.2 and 99.8 to 0 and 255."""
    import numpy as np

    from napari_simmat.engine.normalization import stretch_percentiles

    return np.asarray(np.rint(stretch_percentiles(image, 0.2, 99.8)), dtype=np.uint8)


def ious(labels: NDArray[Any], truth: NDArray[Any]) -> dict[int, float]:
    """IoU of each object of `truth` with the same number in `labels`."""
    import numpy as np

    from napari_simmat.engine.masks import iou

    return {int(k): iou(labels == k, truth == k) for k in np.unique(truth) if k}

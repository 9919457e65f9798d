"""`simmat demo`: segment built-in samples with stored prompts, or open one in the window."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
from rich.text import Text

from napari_simmat.cli.terminal import (
    DEFAULT_COMPUTE,
    DEFAULT_OUTPUT,
    FLAG,
    ComputeOptions,
    OutputOptions,
)
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from napari_simmat.batch.plan import SegmentTask
    from napari_simmat.cli.demo_samples import DemoSample


MARKER_FILE = "demo.json"
"""Marks a folder as made by the demo."""


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
        _open_window()
        return
    terminal = console.terminal()
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
    """A sample segmented with one kind of prompt: a line of the table."""

    sample: str
    title: str
    model: str
    prompt: str
    objects: int
    iou: float

    def values(self) -> dict[str, Any]:
        """The line for ``--json``."""
        return {
            "sample": self.sample,
            "model": self.model,
            "prompt": self.prompt,
            "objects": self.objects,
            "mean_iou": round(self.iou, 4),
        }


def _run_job(output: Path, compute: ComputeOptions) -> Job[list[DemoRow]]:
    """Write the samples, segment them, compare with the truth, draw overlays."""
    from napari_simmat.batch.plan import OutputFiles, SegmentConfig, SegmentTask
    from napari_simmat.batch.run import run_tasks_job
    from napari_simmat.cli.demo_samples import demo_samples
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
    """The IoU of each object by kind of prompt; also draws the overlay."""
    import tifffile

    from napari_simmat.cli.demo_samples import ious
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


def _is_demo_folder(folder: Path) -> bool:
    return (folder / MARKER_FILE).is_file()


def _open_window() -> None:
    if find_spec("napari") is None:
        raise ImportError(
            'napari is not installed, so no window can open; run pip install "napari[all]".'
        )
    from napari_simmat.widgets.main import open_demo

    open_demo()

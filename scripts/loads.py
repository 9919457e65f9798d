"""Memory over time under five loads, each in a process of its own.

    python scripts/loads.py images      # 200 images, one after the other, through one predictor
    python scripts/loads.py prompts     # 500 prompts on one image
    python scripts/loads.py channels    # 48 channels, 1024 x 1024
    python scripts/loads.py large       # everything in 8000 x 8000
    python scripts/loads.py folder      # simmat segment on 300 files
    python scripts/loads.py plot        # docs/images/loads.png and a table, of what was measured

Each load writes memory (MB, resident, child processes included) over seconds into
``docs/data/loads.csv``. The start is a predictor with its model, before the first image.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import tifffile
import torch
from skimage.data import coins

from napari_simmat import AutomaticSettings, Predictor, load_model
from napari_simmat.engine.automatic_generator import segment_tiles_job
from napari_simmat.engine.prompts import Prompt
from napari_simmat.models.spec import Channel, Model
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import finish

DOCS = Path(__file__).resolve().parents[1] / "docs"
TABLE, PICTURE = DOCS / "data" / "loads.csv", DOCS / "images" / "loads.png"
INTERVAL = 0.25
MEGABYTE = 1e6


def images(predictor: Predictor, _work: Path) -> None:
    """200 images of 256 x 256, each clicked and forgotten; the cache keeps 64 MB."""
    predictor.cache.max_bytes = 64 * 2**20
    for number in range(200):
        predictor.set_image(np.roll(coins()[:256, :256], number, axis=1))
        predictor.predict(points=[(50, 45)])


def prompts(predictor: Predictor, _work: Path) -> None:
    """500 points, boxes and points with a box on one image, in one call; the results are kept."""
    predictor.set_image(coins())
    rng = np.random.default_rng(0)
    asked = []
    for number in range(500):
        y, x = rng.uniform(30, 250, 2)
        box = (y - 25, x - 25, y + 25, x + 25) if number % 3 else None
        points = ((y, x),) if number % 3 != 1 else ()
        asked.append(Prompt(points=points, labels=(1,) * len(points), box=box))
    assert all(len(each.mask) for each in predictor.predict_many(asked))


def channels(predictor: Predictor, _work: Path) -> None:
    """Ten clicks on 48 channels of 1024 x 1024, through a transfer layer with random weights."""
    names = [f"mass {number}" for number in range(48)]
    spec = replace(
        predictor.model.spec,
        channels=tuple(Channel(name=name, mean=0.0, std=1.0) for name in names),
    )
    torch.manual_seed(0)
    model = Model(spec, build_network("tiny", channels=48, transfer="simmat"), "48 channels")
    image = np.random.default_rng(0).integers(0, 4000, (48, 1024, 1024), dtype=np.uint16)
    many = Predictor(model, device="cpu")
    many.set_image(image, channel_axis=0)
    for y in range(50, 1000, 100):
        many.predict(points=[(y, y)])


def large(predictor: Predictor, work: Path) -> None:
    """Everything in 8000 x 8000, tile by tile into a file."""
    image = np.tile(coins(), (27, 21))[:8000, :8000]
    labels = np.lib.format.open_memmap(work / "labels.npy", "w+", np.uint32, image.shape)
    finish(predictor.open_image_job(image))
    finish(segment_tiles_job(predictor, labels, AutomaticSettings(points_per_side=8)))


def folder(_predictor: Predictor, work: Path) -> None:
    """`simmat segment` on 300 files with a point and a box each."""
    (work / "in").mkdir()
    for number in range(300):
        tifffile.imwrite(work / "in" / f"{number:03}.tif", np.roll(coins()[:128, :128], number, 1))
    (work / "prompts.csv").write_text(
        "index,axis-0,axis-1,label,object\n0,50,45,1,1\n1,90,60,1,2\n"
    )
    command = [
        sys.executable,
        "-m",
        "napari_simmat",
        "segment",
        str(work / "in"),
        "--model",
        "tiny",
    ]
    command += ["--prompts", str(work / "prompts.csv"), "--output", str(work / "out")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert len(list((work / "out").glob("*_labels.tif"))) == 300


LOADS: dict[str, Callable[[Predictor, Path], None]] = {
    each.__name__: each for each in (images, prompts, channels, large, folder)
}


def measure(name: str) -> None:
    """Run a load and replace its rows in the table."""
    torch.set_num_threads(1)
    predictor = Predictor(load_model("tiny"), device="cpu")
    predictor.set_image(coins()[:64, :64])  # what the first image brings along is no growth
    predictor.predict(points=[(50, 45)])
    process, ended, rows = psutil.Process(), threading.Event(), []
    start = time.monotonic()

    def watch() -> None:
        while True:
            size = sum(_resident(each) for each in (process, *process.children(recursive=True)))
            rows.append((name, f"{time.monotonic() - start:.2f}", f"{size / MEGABYTE:.1f}"))
            if ended.wait(INTERVAL):
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with tempfile.TemporaryDirectory() as work:
            LOADS[name](predictor, Path(work))
    finally:
        ended.set()
        watching.join()
    kept = [row for row in _rows() if row[0] != name]
    with TABLE.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [("load", "seconds", "MB"), *kept, *_thinned(rows)]
        )


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _thinned(rows: list[Any]) -> Iterator[Any]:
    """At most some 200 rows: of each group the one of most memory."""
    step = max(1, len(rows) // 200)
    for first in range(0, len(rows), step):
        yield max(rows[first : first + step], key=lambda row: float(row[2]))


def _rows() -> list[tuple[str, ...]]:
    if not TABLE.exists():
        return []
    with TABLE.open(newline="") as file:
        return [tuple(row) for row in list(csv.reader(file))[1:]]


def plot() -> None:
    """Draw all loads, and print their figures."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(LOADS), figsize=(13, 2.6), sharey=False)
    print("| load | seconds | MB at the start | at half | at the end | most |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for axis, (name, load) in zip(axes, LOADS.items(), strict=True):
        seconds, memory = np.array([row[1:] for row in _rows() if row[0] == name], float).T
        axis.plot(seconds, memory, color="#1f6f8b")
        axis.set(title=name, xlabel="seconds", ylim=(0, 1.1 * memory.max()))
        middle = memory[len(memory) // 2]
        figures = (seconds[-1], memory[0], middle, memory[-1], memory.max())
        about = (load.__doc__ or "").rstrip(".")
        print(f"| {about} | " + " | ".join(f"{value:.0f}" for value in figures) + " |")
    axes[0].set_ylabel("MB")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    """Measure one load, or plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("load", choices=[*LOADS, "plot"])
    name = parser.parse_args().load
    plot() if name == "plot" else measure(name)


if __name__ == "__main__":
    main()

"""Speed of SAM here compared with stock ``segment_anything``, on the same random weights of ViT-B.

``python scripts/speed.py --output DIR`` runs both alternately in one process and appends every
number to ``DIR/speed.csv``; ``speed.md`` (medians, ratios with their range) and ``speed.png`` are
made from all numbers in it. A long measurement can thus be split: ``--rows encode click`` compares
some rows with stock, ``--alone cancel start`` measures this package alone, ``--threads 2`` uses
more threads, and without these options only the table is written again. Needs Linux
and matplotlib (group ``figures``).

With one thread CPU time is measured, so that other programs disturb it little; with more,
wall-clock time.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry
from segment_anything.modeling import Sam
from segment_anything.utils.amg import MaskData, rle_to_mask
from torch import Tensor

from napari_simmat.checkpoints.catalog import sam_spec
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.embeddings import Embedding, EmbeddingCache
from napari_simmat.engine.everything.candidates import (
    MaskCandidates,
    accepted_candidates,
    masks_to_instances,
)
from napari_simmat.engine.everything.mask_proposals import propose_masks_job
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.models.network import Encoded
from napari_simmat.models.sam import SamNetwork
from napari_simmat.models.spec import Model
from napari_simmat.models.transfer import MAT
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import Job, finish
from napari_simmat.widgets.worker import Worker

OURS = ("exact", "fast")


class Measured(NamedTuple):
    """One number: of which run and round, and of what."""

    run: str
    threads: int
    row: str
    who: str
    round: int
    quantity: str
    value: float


def read(path: Path) -> list[Measured]:
    """All numbers of a CSV."""
    with path.open(newline="") as file:
        return [
            Measured(
                row["run"],
                int(row["threads"]),
                row["row"],
                row["who"],
                int(row["round"]),
                row["quantity"],
                float(row["value"]),
            )
            for row in csv.DictReader(file)
        ]


def table(numbers: list[Measured], threads: int) -> Iterator[str]:
    """Rows compared with stock, those alone, and the peaks of matrix products, as Markdown."""
    numbers = [each for each in numbers if each.threads == threads]
    heads = "stock", "micro-sam", "exact", "times as fast", "fast", "times as fast"
    yield f"| | {' | '.join(heads)} | peak MB: stock, exact, fast | rounds |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for title in rows_of(numbers):
        cells = [title]
        for who in ("stock", "micro-sam", *OURS):
            times = seconds(numbers, title, who)
            cells.append(f"{1000 * median(times.values()):.0f} ms" if times else "")
            if who in OURS:
                cells.append(
                    "{:.2f} ({:.2f}-{:.2f})".format(*ratio(numbers, title, who)) if times else ""
                )
        peaks = (
            [
                each.value
                for each in numbers
                if (each.row, each.who, each.quantity) == (title, who, "MB")
            ]
            for who in ("stock", *OURS)
        )
        cells.append(", ".join(f"{max(each):.0f}" for each in peaks if each))
        cells.append(str(len(seconds(numbers, title, "stock"))))
        yield "| " + " | ".join(cells) + " |"
    yield ""
    yield "| | | median | least | most | count |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for each in numbers:
        if each.quantity not in ("cpu s", "wall s", "MB"):
            found[each.row, each.who, each.quantity].append(each.value)
    for (row, who, quantity), values in found.items():
        middle = (f"{value:.4g}" for value in (median(values), min(values), max(values)))
        yield f"| {row} | {who}, {quantity} | {' | '.join(middle)} | {len(values)} |"


def rows_of(numbers: list[Measured]) -> list[str]:
    """The rows that stock has too, in the order in which they were measured."""
    return list(dict.fromkeys(each.row for each in numbers if each.who == "stock"))


def seconds(numbers: list[Measured], row: str, who: str) -> dict[tuple[str, int], float]:
    """(Run, round) -> seconds: CPU time for one thread, else wall-clock time."""
    return {
        (each.run, each.round): each.value
        for each in numbers
        if each.row == row
        and each.who == who
        and each.quantity == ("cpu s" if each.threads == 1 else "wall s")
    }


def ratio(numbers: list[Measured], row: str, who: str) -> tuple[float, float, float]:
    """How many times as fast as stock in the same round: median, least and most."""
    stock, ours = seconds(numbers, row, "stock"), seconds(numbers, row, who)
    each = [stock[key] / ours[key] for key in stock if key in ours]
    return (median(each), min(each), max(each)) if each else (float("nan"),) * 3


def draw(path: Path, numbers: list[Measured]) -> None:
    """Ratios as bars, with their range over the rounds; a panel for each number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    threads = sorted({each.threads for each in numbers if each.who == "stock"})
    panels = [[each for each in numbers if each.threads == count] for count in threads]
    most = max(len(rows_of(panel)) for panel in panels)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5 + 4 * len(panels), 0.9 + 0.7 * most), squeeze=False, sharex=True,
        constrained_layout=True,
    )  # fmt: skip
    for axis, count, panel in zip(axes[0], threads, panels, strict=True):
        rows = rows_of(panel)
        for index, row in enumerate(rows):
            for shift, who, color in ((-0.2, "exact", "C0"), (0.2, "fast", "C1")):
                middle, low, high = ratio(panel, row, who)
                label = who if index == 0 else None
                axis.barh(index + shift, middle, 0.36, color=color, label=label)
                axis.plot([low, high], [index + shift] * 2, color="black", lw=1.2)
        axis.axvline(1, color="gray", lw=0.8)
        axis.set_yticks(range(len(rows)), rows)
        axis.invert_yaxis()
        axis.set_title(f"{count} thread{'s' if count > 1 else ''}")
    figure.supxlabel("times as fast as stock segment_anything (line: range of the rounds)")
    axes[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=100)


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


Numbers = list[tuple[str, str, float]]
"""Who or what, the quantity, its value."""

_IMPORT = """
import sys, time
import napari, napari.viewer, npe2
start = time.perf_counter()
import napari_simmat
from importlib.metadata import distribution
npe2.PluginManifest.from_distribution("napari-simmat")
print(time.perf_counter() - start, "torch" in sys.modules)
"""


def reopen(both: Both) -> Numbers:
    """An image that is encoded already, and its first encoding."""
    predictor = Predictor(both.model, "cpu", "exact", EmbeddingCache(2**28))
    pixels = image(1024)
    first = _taken(lambda: predictor.set_image(pixels, channel_axis=-1))
    again = [_taken(lambda: predictor.set_image(pixels, channel_axis=-1)) for _ in range(5)]
    return [("first", "s", first), *(("again", "s", each) for each in again)]


def cancel(both: Both, times: int = 12) -> Numbers:
    """From canceling an encoding until the worker is free, at random moments."""
    predictor = Predictor(both.model, "cpu", "exact", EmbeddingCache(0))
    finish(predictor.open_image_job(image(1024), channel_axis=-1))
    moments = random.Random(0)
    worker, waited = Worker(), []
    try:
        for _ in range(times):
            predictor._encoder.resumable.clear()
            task = worker.submit("encoding", lambda: predictor.set_plane_job(()))
            time.sleep(moments.uniform(0.1, 6))
            wished = time.perf_counter()
            task.cancel()
            while worker.running is task:
                time.sleep(0.001)
            waited.append(("cancel", "s", time.perf_counter() - wished))
    finally:
        worker.close()
        worker.join(30)
    return waited


def transfer(both: Both) -> Numbers:
    """The transfer layer of 16 channels compared with the encoding of the same image in three."""
    layer = MAT(both.sam.image_encoder.patch_embed.proj, 16).requires_grad_(False)
    channels = torch.randn(1, 16, 1024, 1024)
    predictor = both.ours(1024, "exact")
    numbers = []
    for _ in range(3):
        encode = _taken(lambda: predictor.set_image(image(1024), channel_axis=-1))
        with torch.no_grad():
            mixed = _taken(lambda: layer.colors(channels))
        numbers += [("encode", "s", encode), ("transfer, 16 channels", "s", mixed)]
    return numbers


def closeness(both: Both) -> Numbers:
    """Relative error of embeddings to stock's in float32, in the L2 norm."""
    stock, pixels = SamPredictor(both.sam), image(1024)
    stock.set_image(pixels)
    truth = stock.features.clone()
    with torch.autocast("cpu", torch.bfloat16):
        stock.set_image(pixels)
    numbers = [("stock under autocast", "relative error", _error(stock.features, truth))]
    for precision in ("exact", "fast"):
        predictor = both.ours(1024, precision)
        predictor.set_image(pixels, channel_axis=-1)
        found = predictor._embedding
        assert found is not None
        numbers.append((precision, "relative error", _error(found.encoded.embedding, truth)))
    return numbers


def start(both: Both) -> Numbers:
    """Importing the package and its manifest when napari is imported already."""
    del both
    numbers = []
    for _ in range(5):
        said = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True)
        seconds, has_torch = said.stdout.split()[-2:]
        numbers += [
            ("import", "s", float(seconds)),
            ("import", "loads torch", float(has_torch == "True")),
        ]
    return numbers


def _taken(work: Callable[[], object]) -> float:
    """CPU seconds."""
    started = time.process_time()
    work()
    return time.process_time() - started


def _error(found: Tensor, truth: Tensor) -> float:
    return float((found.float() - truth).norm() / truth.norm())


ALONE: dict[str, Callable[[Both], Numbers]] = {
    each.__name__: each for each in (reopen, cancel, transfer, closeness, start)
}


class Log:
    """Appends numbers to the CSV as they come."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._run = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append([*Measured._fields, "load"])

    def add(self, row: str, who: str, number: int, values: dict[str, float]) -> None:
        """Of one row, by whom, in which round: the values of some quantities."""
        load = Path("/proc/loadavg").read_text().split()[0]
        for quantity, value in values.items():
            measured = Measured(self._run, self._threads, row, who, number, quantity, value)
            self._append([*measured[:-1], f"{value:.5g}", load])

    def _append(self, cells: list[object]) -> None:
        with self._path.open("a", newline="") as file:
            csv.writer(file).writerow(cells)


def beside(rows: list[Row], rounds: int, log: Log, warm_up: bool) -> None:
    """Time rows alternately, after a warm-up round; also peaks of multiplication in each round."""
    for number in range(0 if warm_up else 1, rounds + 1):
        for row in rows:
            for who, work in row.works.items():
                values = timed(work)
                if number:
                    log.add(row.title, who, number, values)
        for dtype in (torch.float32, torch.bfloat16):
            if number:
                name = str(dtype).removeprefix("torch.")
                log.add("peak of products", name, number, {"GFLOP/s": gigaflops(dtype)})
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)


def timed(work: Work) -> dict[str, float]:
    """Seconds and peak of memory of something; a peer's process measures itself."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    rest, cpu, wall = memory("VmRSS"), time.process_time(), time.perf_counter()
    result = work()
    taken = {"cpu s": time.process_time() - cpu, "wall s": time.perf_counter() - wall}
    if isinstance(result, dict):
        return result
    values = {**taken, "MB": memory("VmHWM") - rest}
    return {**values, **result()} if callable(result) else values


def gigaflops(dtype: torch.dtype) -> float:
    """Of the encoder's largest product, (4096, 768) by (768, 3072); the best of a few."""
    rows, weight = torch.randn(4096, 768).to(dtype), torch.randn(3072, 768).to(dtype)
    best = float("inf")
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(4):
        started = clock()
        torch.nn.functional.linear(rows, weight)
        best = min(best, clock() - started)
    return 2 * 4096 * 768 * 3072 / best / 1e9


def memory(name: str) -> float:
    """A line of the process's status in megabytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def machine() -> str:
    """The machine, in words."""
    model = "unknown processor"
    for line in subprocess.run(["lscpu"], capture_output=True, text=True).stdout.splitlines():
        if line.startswith("Model name"):
            model = line.split(":")[1].strip()
    return (
        f"{model}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}."
    )


def report(folder: Path) -> None:
    """Write the tables and the figure from all numbers."""
    numbers = read(folder / "speed.csv")
    lines = [machine()]
    for threads in sorted({each.threads for each in numbers}):
        lines += ["", f"## {threads} thread(s)", "", *table(numbers, threads)]
    (folder / "speed.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if rows_of(numbers):
        draw(folder / "speed.png", numbers)


def main() -> None:
    """Measure what was requested, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=[])
    parser.add_argument("--alone", nargs="*", choices=list(ALONE), default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-warm-up", action="store_true", help="for rows of many minutes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--grid", type=int, default=32, help="clicks a side of segmenting everything"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    log = Log(options.output / "speed.csv", options.threads)
    if options.rows or options.alone:
        both = Both()
        rows = {name: ROWS[name](both) for name in options.rows if name != "everything"}
        if "everything" in options.rows:
            rows["everything"] = everything(both, options.grid)
        if rows:
            beside(list(rows.values()), options.rounds, log, not options.no_warm_up)
        for name in options.alone:
            for who, quantity, value in ALONE[name](both):
                log.add(name, who, 1, {quantity: value})
    report(options.output)


if __name__ == "__main__":
    main()

"""How fast SAM is here beside stock ``segment_anything``, on the same random weights of ViT-B.

``python scripts/speed.py --output DIR`` runs both in one process, in turns, and writes
``speed.csv`` (every round), ``speed.md`` (medians, ratios with their range) and ``speed.png``. With
one thread the processor's own time is counted, so that other programs disturb it little; with more
it is the wall clock. ``--rows encode click`` runs some rows alone. Needs matplotlib (group
``figures``).
"""

from __future__ import annotations

import argparse
import csv
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam

from napari_simmat.engine.checkpoints.loading import Model
from napari_simmat.engine.checkpoints.sam_weights import sam_spec
from napari_simmat.engine.embeddings import Embedding, EmbeddingCache
from napari_simmat.engine.frames import Frame
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.model.foundation import build_network
from napari_simmat.model.network import Encoded
from napari_simmat.model.sam import SamNetwork

Work = Callable[[], object]
CLICK = (400.0, 300.0)
MANY = 16


@dataclass
class Row:
    """One thing that is done by stock and by us, exactly and fast, and what it took in rounds.

    Parameters
    ----------
    title
        Said in the table.
    works
        Who -> what is timed; ``"stock"`` is what ratios refer to.
    """

    title: str
    works: dict[str, Work]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)


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
    """Smooth noise, (side, side, 3) uint8."""
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
        frame = Frame.of((side, side), self.model.spec.input_size)
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


ROWS: dict[str, Callable[[Both], Row]] = {
    each.__name__: each for each in (encode, click, large_click, prompts)
}


# ------------------------------------------------------------------------------ measuring


def run(rows: list[Row], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Time everything in turns, the first round only to warm up; peaks of multiplication too."""
    peaks: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for number in range(rounds + 1):
        for row in rows:
            for who, work in row.works.items():
                reset_peak()
                rest = memory("VmRSS")
                started = clock()
                work()
                taken = clock() - started
                if number:
                    row.seconds.setdefault(who, []).append(taken)
                    row.megabytes[who] = memory("VmHWM") - rest
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            peaks[name].append(gigaflops(dtype, clock))
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return peaks


def gigaflops(dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Of the encoder's largest product, (4096, 768) by (768, 3072); the best of a few."""
    rows, weight = torch.randn(4096, 768).to(dtype), torch.randn(3072, 768).to(dtype)
    best = float("inf")
    for _ in range(4):
        started = clock()
        torch.nn.functional.linear(rows, weight)
        best = min(best, clock() - started)
    return 2 * 4096 * 768 * 3072 / best / 1e9


def memory(name: str) -> float:
    """A line of the process's status in megabytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def reset_peak() -> None:
    """Let the peak of memory begin again (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def ratio(row: Row, who: str) -> tuple[float, float, float]:
    """How many times as fast as stock: median of the rounds, their least and their most."""
    each = [a / b for a, b in zip(row.seconds["stock"], row.seconds[who], strict=True)]
    return median(each), min(each), max(each)


# ------------------------------------------------------------------------------- writing


def write(folder: Path, rows: list[Row], peaks: dict[str, list[float]], how: str) -> None:
    """All rounds as CSV, the summary as Markdown, the ratios as a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "speed.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "who", "round", "seconds", "peak_mb_of_last_round"])
        for row in rows:
            for who, times in row.seconds.items():
                for number, taken in enumerate(times, start=1):
                    writer.writerow(
                        [row.title, who, number, f"{taken:.4f}", f"{row.megabytes[who]:.0f}"]
                    )
        for name, values in peaks.items():
            for number, value in enumerate(values[1:], start=1):
                writer.writerow([f"{name} GFLOP/s", "peak", number, f"{value:.1f}", ""])
    lines = "\n".join(table(rows, peaks))
    (folder / "speed.md").write_text(f"{how}\n\n{lines}\n")
    print(lines)
    draw(folder / "speed.png", rows)


def table(rows: list[Row], peaks: dict[str, list[float]]) -> Iterator[str]:
    """The lines of the summary."""
    yield "| | stock | exact | times as fast | fast | times as fast | peak MB: stock, exact, fast |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for row in rows:
        cells = [row.title]
        for who, times in row.seconds.items():
            cells.append(f"{1000 * median(times):.0f} ms")
            if who != "stock":
                cells.append("{:.2f} ({:.2f}-{:.2f})".format(*ratio(row, who)))
        cells.append(", ".join(f"{value:.0f}" for value in row.megabytes.values()))
        yield "| " + " | ".join(cells) + " |"
    said = (f"{name} {median(values[1:]):.0f} GFLOP/s" for name, values in peaks.items())
    yield ""
    yield f"Peak of matrix products in the same run: {', '.join(said)}."


def draw(path: Path, rows: list[Row]) -> None:
    """Ratios as bars, with their range over the rounds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 0.8 + 0.7 * len(rows)), constrained_layout=True)
    for index, row in enumerate(rows):
        for shift, who, colour in ((-0.2, "exact", "C0"), (0.2, "fast", "C1")):
            middle, low, high = ratio(row, who)
            label = who if index == 0 else None
            axis.barh(index + shift, middle, 0.36, color=colour, label=label)
            axis.plot([low, high], [index + shift] * 2, color="black", lw=1.2)
    axis.axvline(1, color="grey", lw=0.8)
    axis.set_yticks(range(len(rows)), [row.title for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel("times as fast as stock segment_anything (line: range of the rounds)")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=100)


def machine(threads: int) -> str:
    """What it ran on, in words."""
    model, load = "unknown processor", Path("/proc/loadavg").read_text().split()[0]
    for line in subprocess.run(["lscpu"], capture_output=True, text=True).stdout.splitlines():
        if line.startswith("Model name"):
            model = line.split(":")[1].strip()
    clock = "the processor's own time" if threads == 1 else "the wall clock"
    return (
        f"{model}, {threads} thread(s) of torch {torch.__version__}, Python "
        f"{platform.python_version()}, {clock}; load when it began {load}."
    )


def main() -> None:
    """Run the rows and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    how = machine(options.threads)
    both = Both()
    rows = [ROWS[name](both) for name in options.rows]
    clock = time.process_time if options.threads == 1 else time.perf_counter
    peaks = run(rows, options.rounds, clock)
    write(options.output, rows, peaks, how)


if __name__ == "__main__":
    main()

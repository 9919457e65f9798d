"""Run the commands whose outputs are golden: ``python -m tests.golden.commands FOLDER``.

Everything goes through the command line, in one process, on small data that are made here with
whole numbers alone. What differs from run to run (times, host, dates) is taken out afterwards, so
that two runs on one machine leave equal folders, byte for byte.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from safetensors import safe_open

TIMED = ("simmat-report.html", "simmat-summary.csv", "state.pt")
"""Files that are compared by name alone: they hold times, or what the checkpoint holds too."""
RUN = re.compile(r',\s*"run": \{[^{}]*\}')
"""Time, host and duration in a record or summary."""
DATE = re.compile(r'\s*"date": "[-0-9]*",')
TRAINING = "--steps 20 --epochs 4 --validate-every 2 --batch 2 --precision 32-true"
SEEDS = "--auto.points-per-side 8"
COMMANDS = {
    "points": "segment discs.tif --prompts points.csv --overlay --coco --rois",
    "boxes": "segment discs.tif pair.tif --prompts boxes.csv --channels 0",
    "masks": "segment discs.tif --prompts masks.tif",
    "auto": f"segment discs.tif --prompts auto {SEEDS}",
    "propagate": "segment stack.tif --prompts stack.csv --propagate",
    "evaluate": "evaluate pictures --clicks 2 --channels 0,1,1",
    "evaluate-auto": f"evaluate discs --prompts auto {SEEDS}",
    "train": f"train pictures {TRAINING}",
    "train-practical": f"train pictures {TRAINING} --practical --strategy adapter",
}
"""Folder of the outputs -> the command, without its model and output."""


def run(folder: Path) -> None:
    """Make the inputs in an empty folder, run all commands, and keep their outputs."""
    from napari_simmat.cli import main

    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    make_inputs()
    for name, words in COMMANDS.items():
        Path(name).mkdir()
        if words.startswith("train"):
            more = f"--base tiny --output {name}/net.safetensors --device cpu"
        else:
            more = f"--model tiny --output {name} --device cpu --precision exact"
        status = main([*words.split(), *more.split()])
        if status:
            raise RuntimeError(f"simmat {words} {more} ended with status {status}")
    for path in [each for name in COMMANDS for each in Path(name).rglob("*") if each.is_file()]:
        settle(path)
    for path in [each for each in Path().iterdir() if each.name not in COMMANDS]:
        path.unlink() if path.is_file() else shutil.rmtree(path)


def make_inputs() -> None:
    """Images, labels and prompt files, the same on every machine."""
    image, labels = discs((96, 112), [(30, 32, 17), (34, 80, 14), (70, 50, 15)])
    tifffile.imwrite("discs.tif", image)
    Path("discs").mkdir()
    tifffile.imwrite("discs/discs.tif", image)
    tifffile.imwrite("discs/discs_labels.tif", labels)
    masks = np.where(labels == 2, 2, 0).astype(np.uint8)
    masks[60:78, 40:58] = 5
    tifffile.imwrite("masks.tif", masks)
    pair = np.stack([image, 255 - image])
    tifffile.imwrite("pair.tif", pair, photometric="minisblack", metadata={"axes": "CYX"})
    planes = [discs((64, 64), [(24, 26, 9 + z), (46, 46, 12 - 2 * z)], z)[0] for z in range(5)]
    tifffile.imwrite("stack.tif", np.stack(planes), metadata={"axes": "ZYX"})
    rows = [(30, 32, 1, 1), (34, 80, 1, 2), (34, 66, 0, 2), (70, 50, 1, 7)]
    write_table("points.csv", ["axis-0", "axis-1", "label", "object"], rows)
    rows = [(2, 24, 26, 1, 1), (0, 46, 46, 1, 2), (4, 46, 46, 0, 2)]
    write_table("stack.csv", ["axis-0", "axis-1", "axis-2", "label", "object"], rows)
    corners = [
        (shape, "rectangle", vertex, y, x)
        for shape, (y0, x0, y1, x1) in enumerate([(12, 14, 48, 50), (19, 65, 49, 95)])
        for vertex, (y, x) in enumerate([(y0, x0), (y0, x1), (y1, x1), (y1, x0)])
    ]
    write_table("boxes.csv", ["index", "shape-type", "vertex-index", "axis-0", "axis-1"], corners)
    Path("pictures").mkdir()
    for number in range(4):
        image, labels = discs((64, 64), [(18, 20 + number, 10), (44, 42 - number, 13)], number)
        pair = np.stack([image, (image // 2 + 40).T])
        path = f"pictures/{number}.tif"
        tifffile.imwrite(path, pair, photometric="minisblack", metadata={"axes": "CYX"})
        tifffile.imwrite(f"pictures/{number}_labels.tif", labels)


def discs(
    shape: tuple[int, int], places: Sequence[tuple[int, int, int]], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Discs (y, x, radius) on noise as uint8 (Y, X), and their labels 1, 2, ..."""
    y, x = np.indices(shape)
    labels = np.zeros(shape, np.uint8)
    for number, (row, column, radius) in enumerate(places, start=1):
        labels[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = number
    noise = np.random.default_rng(seed).integers(0, 24, shape)
    return (40 + 90 * (labels > 0) + 12 * labels + noise).astype(np.uint8), labels


def write_table(name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a prompt file."""
    with open(name, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def settle(path: Path) -> None:
    """Take out of a file what varies from run to run; describe pictures and checkpoints."""
    if path.suffix in DESCRIBED:
        path.with_name(f"{path.name}.txt").write_text(DESCRIBED[path.suffix](path), "utf-8")
        path.unlink()
    elif path.name.startswith((".lock", "events.out.tfevents")):  # not there everywhere
        path.unlink()
    elif path.name in TIMED:
        path.write_text("")
    elif path.suffix in (".json", ".jsonl"):
        path.write_text(RUN.sub("", path.read_text("utf-8")), "utf-8")


def of_picture(path: Path) -> str:
    """Shape and hash of its pixels: how they are packed does not matter."""
    pixels = np.asarray(Image.open(path))
    return f"{pixels.shape} {hashlib.sha256(pixels.tobytes()).hexdigest()}\n"


def of_checkpoint(path: Path) -> str:
    """Its metadata without the date, and of each tensor type, shape, spread and hash."""
    with safe_open(path, "np") as file:
        metadata = {key: json.loads(text) for key, text in file.metadata().items()}
        lines = []
        for name in sorted(file.keys()):
            array = file.get_tensor(name)
            spread = " ".join(f"{each:.6g}" for each in (np.mean(array), np.std(array)))
            digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
            lines.append(f"{name} {array.dtype} {array.shape} {spread} {digest[:32]}")
    text = json.dumps(metadata, indent=1, sort_keys=True)
    return DATE.sub("", text) + "\n" + "\n".join(lines) + "\n"


DESCRIBED = {".png": of_picture, ".safetensors": of_checkpoint}


if __name__ == "__main__":
    run(Path(sys.argv[1]).absolute())

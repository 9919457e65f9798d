"""Segment everything of two working trees compared: CPU time, objects and AP.

    python scripts/everything_speed.py --before OLD --data development --side 512 --rounds 3

Each tree runs in a process of its own, with one thread; images and rounds alternate between them.
`--data` is a folder as made by `development_set.py`. Printed are CPU seconds with and without the
time in the kernel, page faults, the objects found, how many of them have a match of an IoU of 0.9
in the other tree, and the AP (mean over IoUs of 0.5 to 0.95).
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage.transform import resize

HERE = Path(__file__).resolve().parents[1]
Labels = NDArray[Any]


def main() -> None:
    """Print a row for each image, and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="a working tree to compare this one with")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--side", type=int, default=0, help="resize images to a square; 0: do not")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="names of images")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.model)
        return
    trees = {"before": arguments.before, "after": HERE}
    workers = {name: worker(tree, arguments.model) for name, tree in trees.items() if tree}
    names = sorted(
        path.stem.removesuffix("_labels") for path in arguments.data.glob("*_labels.tif")
    )
    rows = []
    for name in [name for name in names if name in arguments.only or not arguments.only]:
        image, truth = read(arguments.data, name, arguments.side)
        answers: dict[str, list[dict[str, Any]]] = {who: [] for who in workers}
        for _ in range(arguments.rounds):
            for who, process in workers.items():
                answers[who].append(ask(process, image, truth))
        rows.append((name, answers))
        print(row(name, answers), flush=True)
    for who in workers:
        aps = [answers[who][0]["ap"] for _, answers in rows]
        times = [statistics.median(one["cpu"] for one in answers[who]) for _, answers in rows]
        print(f"{who}: mean AP {statistics.mean(aps):.4f}, CPU {sum(times):.1f} s in total")
    for process in workers.values():
        cast(IO[bytes], process.stdin).close()
        process.wait()


def read(folder: Path, name: str, side: int) -> tuple[NDArray[Any], Labels]:
    """An image (Y, X) or (Y, X, 3) and its labels."""
    image, truth = (tifffile.imread(folder / f"{name}{end}.tif") for end in ("", "_labels"))
    if not side:
        return image, truth
    size = (side, side, *image.shape[2:])
    smooth = resize(image, size, order=1, preserve_range=True, anti_aliasing=True)
    labels = resize(truth, size[:2], order=0, preserve_range=True, anti_aliasing=False)
    return smooth.astype(image.dtype), labels.astype(truth.dtype)


def row(name: str, answers: dict[str, list[dict[str, Any]]]) -> str:
    """One image in words."""
    parts = [f"{name:26s}"]
    for who, each in answers.items():
        cpu, system = (statistics.median(one[of] for one in each) for of in ("cpu", "system"))
        first = each[0]
        parts.append(
            f"{who}: {cpu:5.2f} s ({system:.2f} s kernel, {first['faults'] / 1e3:.0f}k faults), "
            f"{first['found']} objects, AP {first['ap']:.3f}"
        )
    if len(answers) == 2:
        old, new = answers["before"], answers["after"]
        ratios = [a["cpu"] / b["cpu"] for a, b in zip(old, new, strict=True)]
        both = matched(old[0]["labels"], new[0]["labels"])
        parts.append(f"{statistics.median(ratios):.2f} times ({min(ratios):.2f}-{max(ratios):.2f})")
        parts.append(f"{both} in both")
    return " | ".join(parts)


def matched(one: Labels, other: Labels) -> int:
    """How many objects of one label image have a match of an IoU of 0.9 in the other."""
    pairs = np.stack([one.ravel(), other.ravel()])[:, (one.ravel() > 0) & (other.ravel() > 0)]
    (ours, theirs), shared = np.unique(pairs, axis=1, return_counts=True)
    union = np.bincount(one.ravel())[ours] + np.bincount(other.ravel())[theirs] - shared
    return int(np.count_nonzero(shared >= 0.9 * union))


def worker(tree: Path, model: str) -> subprocess.Popen[bytes]:
    """A process that runs `serve` with a tree's sources."""
    command = [sys.executable, __file__, "--serve", "--data", ".", "--model", model]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def ask(process: subprocess.Popen[bytes], image: NDArray[Any], truth: Labels) -> dict[str, Any]:
    """What a worker answers for an image."""
    stdin, stdout = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
    pickle.dump((image, truth), stdin)
    stdin.flush()
    answer: dict[str, Any] = pickle.load(stdout)  # noqa: S301 - our own process
    return answer


def serve(model: str) -> None:
    """Read images from standard input until it ends; answer with what was found, and the cost."""
    import torch

    from napari_simmat import Predictor, load_model, segment_everything
    from napari_simmat.evaluation.metrics import average_precision

    torch.set_num_threads(1)
    predictor = Predictor(load_model(model), "cpu")
    while True:
        try:
            image, truth = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own process
        except EOFError:
            return
        predictor.set_image(image, channel_axis=-1 if image.ndim == 3 else None)
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
        labels = segment_everything(predictor).labels
        cpu, after = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF)
        answer = {
            "cpu": cpu,
            "system": after.ru_stime - before.ru_stime,
            "faults": after.ru_minflt - before.ru_minflt,
            "labels": labels,
            "found": int(labels.max()),
            "ap": float(average_precision(labels.astype(int), truth.astype(int)).mean()),
        }
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

"""micro-sam in its own environment, for `speed.py`: run by that environment's Python.

``python speed_peer.py CHECKPOINT THREADS`` reads a line, ``encode SIDE`` or ``click SIDE``, does
it, and prints a line of JSON: CPU and wall-clock seconds, peak memory in MB.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from micro_sam.prompt_based_segmentation import segment_from_points
from micro_sam.util import get_sam_model, precompute_image_embeddings


def image(side: int) -> np.ndarray:
    """Squares of random colors, as in `speed_rows.py`."""
    coarse = np.random.default_rng(0).integers(0, 256, (side // 32, side // 32, 3), dtype=np.uint8)
    return coarse.repeat(32, axis=0).repeat(32, axis=1)


def memory(name: str) -> float:
    """A line of the process's status in megabytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Answer lines until there are no more."""
    checkpoint, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    predictor = get_sam_model("vit_b", device="cpu", checkpoint_path=checkpoint)
    pixels, point = image(1024), np.array([[400.0, 300.0]])
    works = {
        "encode": lambda: precompute_image_embeddings(predictor, pixels, ndim=2, verbose=False),
        "click": lambda: segment_from_points(predictor, point, np.array([1])),
    }
    works["encode"]()
    works["click"]()
    print("ready", flush=True)
    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")
        rest, wall, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
        works[line.strip()]()
        taken = {"cpu s": time.process_time() - cpu, "wall s": time.perf_counter() - wall}
        print(json.dumps({**taken, "MB": memory("VmHWM") - rest}), flush=True)


if __name__ == "__main__":
    main()

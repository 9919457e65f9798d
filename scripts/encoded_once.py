"""How often the planes of a stack are encoded, and how much memory the embeddings take.

Run ``python scripts/encoded_once.py``. It visits a stack of random blobs at random and clicks at
each visit: with bounded memory for embeddings, once without and once with the store on disk, which
a second process then finds. It prints the encoder runs, the most of any one plane, the embeddings
evicted to keep the bound, and the peak memory of the process above its start, when the model had
encoded one plane of another image.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from large import Memory
from scipy.ndimage import gaussian_filter

COLUMNS = ("planes", "visits", "runs", "most", "kept", "MB each", "MB kept", "evicted", "MB RSS")


def main() -> None:
    """Measure in three processes, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=256, help="bound of the memory")
    parser.add_argument("--planes", type=int, default=48)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--visits", type=int, default=200)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--once", metavar="FOLDER", help="measure here, print JSON; - for no store")
    chosen = parser.parse_args()
    if chosen.once is not None:
        print(json.dumps(measured(chosen)))
        return
    print(f"bound {chosen.megabytes} MB, {chosen.side} x {chosen.side} pixels, {chosen.model}")
    print(f"{'':<20}" + "".join(f"{name:>9}" for name in COLUMNS))
    with tempfile.TemporaryDirectory() as folder:
        for name, where in (("memory", "-"), ("and disk", folder), ("second process", folder)):
            command = [sys.executable, __file__, *sys.argv[1:], "--once", where]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            print(f"{name:<20}" + "".join(f"{row[each]:>9}" for each in COLUMNS), flush=True)


def measured(chosen: argparse.Namespace) -> dict[str, int | float]:
    """Visit planes at random in this process, and click on each."""
    from napari_simmat import Predictor, load_model
    from napari_simmat.engine.embeddings import EmbeddingCache, EmbeddingStore

    store = None if chosen.once == "-" else EmbeddingStore(Path(chosen.once))
    cache = EmbeddingCache(chosen.megabytes * 2**20, store)
    predictor = Predictor(load_model(chosen.model), cache=cache)
    values = np.random.default_rng(0)
    planes = [gaussian_filter(values.random((chosen.side,) * 2), 8) for _ in range(chosen.planes)]
    stack = np.stack([255 * (plane - plane.min()) / np.ptp(plane) for plane in planes])
    stack = stack.astype(np.uint8)
    warm = Predictor(predictor.model, cache=EmbeddingCache(0))
    warm.set_image(255 - stack[:1], plane=0)
    warm.predict(points=[(5, 5)])
    memory = Memory()
    predictor.set_image(stack, plane=0)
    runs = np.zeros(chosen.planes, int)
    runs[0] = taken = predictor.encodes
    evicted = 0
    for plane in values.integers(0, chosen.planes, chosen.visits).tolist():
        before = set(cache._kept)
        predictor.set_plane(plane)
        y, x = values.integers(0, chosen.side, 2)
        predictor.predict(points=[(int(y), int(x))])
        runs[plane] += predictor.encodes - taken
        taken = predictor.encodes
        evicted += len(before - set(cache._kept))
    most = memory.stop()
    each = cache.nbytes / max(1, len(cache))
    return {
        "planes": chosen.planes,
        "visits": chosen.visits,
        "runs": int(runs.sum()),
        "most": int(runs.max()),
        "kept": len(cache),
        "MB each": round(each / 2**20, 2),
        "MB kept": round(cache.nbytes / 2**20, 1),
        "evicted": evicted,
        "MB RSS": round(most / 2**20),
    }


if __name__ == "__main__":
    main()

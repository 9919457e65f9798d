"""Segment everything in large drawn images: are objects on seams whole, how much memory is needed.

    python scripts/large_images.py dense            # 4000 x 4000, full of objects
    python scripts/large_images.py sparse           # 20000 x 20000, 2000 objects in 40 colonies

Both images lie in a zarr file and are never in memory as a whole; the labels are written tile by
tile to another. Seeds are local maxima. Prints a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_simmat import AutomaticSettings, Predictor, load_model
from napari_simmat.engine.automatic_generator import segment_tiles_job
from napari_simmat.engine.automatic_postprocessing import tile_boxes
from napari_simmat.progress import finish

CHUNK = 1000


def main() -> None:
    """Draw, segment, compare, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["dense", "sparse"])
    parser.add_argument("--side", type=int, help="of the image, 4000 or 20000 by default")
    parser.add_argument("--objects", type=int, default=2000, help="of the sparse image")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    dense = arguments.kind == "dense"
    side = arguments.side or (4000 if dense else 20000)
    rng = np.random.default_rng(arguments.seed)
    centers = _lattice(rng, side) if dense else _colonies(rng, side, arguments.objects)
    settings = AutomaticSettings(
        seeds="maxima", maxima_distance=15, maxima_height=0.3, agreement=0, min_area=100
    )
    with tempfile.TemporaryDirectory() as folder:
        image, truth = draw(Path(folder), rng, centers, side)
        predictor = Predictor(load_model("tiny"), "cpu")
        labels = zarr.create_array(
            Path(folder) / "labels.zarr", shape=image.shape, chunks=(1024, 1024), dtype=np.uint32
        )
        start, rest = time.monotonic(), _peak()
        finish(predictor.open_image_job(image))
        scores = finish(segment_tiles_job(predictor, labels, settings))
        report = {
            "kind": arguments.kind,
            "side": side,
            "objects": len(centers),
            "found": len(scores),
            "seconds": round(time.monotonic() - start),
            "peak_memory_mb": round(_peak()),
            "peak_memory_before_mb": round(rest),
            **on_seams(labels, truth, centers, settings),
        }
    print(json.dumps(report), flush=True)


def draw(
    folder: Path, rng: np.random.Generator, centers: NDArray[np.float64], side: int
) -> tuple[Any, Any]:
    """Bright textured ellipses on a dark noisy ground, and their labels, chunk by chunk."""
    shape = (side, side)
    image = zarr.create_array(
        folder / "image.zarr", shape=shape, chunks=(CHUNK, CHUNK), dtype=np.uint16
    )
    truth = zarr.create_array(
        folder / "truth.zarr", shape=shape, chunks=(CHUNK, CHUNK), dtype=np.uint32
    )
    radii = rng.uniform(18, 32, (len(centers), 2))
    turns = rng.uniform(0, np.pi, len(centers))
    heights = rng.uniform(1500, 4000, len(centers))
    for y0, x0 in np.ndindex(-(-side // CHUNK), -(-side // CHUNK)):
        rows = slice(y0 * CHUNK, min((y0 + 1) * CHUNK, side))
        columns = slice(x0 * CHUNK, min((x0 + 1) * CHUNK, side))
        part = np.zeros((rows.stop - rows.start, columns.stop - columns.start))
        ids = np.zeros(part.shape, np.uint32)
        near = np.flatnonzero(
            (centers[:, 0] > rows.start - 40)
            & (centers[:, 0] < rows.stop + 40)
            & (centers[:, 1] > columns.start - 40)
            & (centers[:, 1] < columns.stop + 40)
        )
        for one in near:
            inside, where = _ellipse(centers[one], radii[one], turns[one], rows, columns)
            part[where][inside] = heights[one]
            ids[where][inside] = one + 1
        noise = np.random.default_rng((y0, x0)).normal(300, 60, part.shape)
        image[rows, columns] = np.clip(part * (1 + noise / 6000) + noise, 0, 65535).astype(
            np.uint16
        )
        if len(near):
            truth[rows, columns] = ids
    return image, truth


def on_seams(
    labels: Any, truth: Any, centers: NDArray[np.float64], settings: AutomaticSettings
) -> dict[str, Any]:
    """How many objects on tile edges are found as one object, and how many of all objects."""
    tiles = tile_boxes(labels.shape, settings.tile_side, settings.tile_shared)
    ys = np.array(sorted({edge for tile in tiles for edge in (tile.y0, tile.y1)})[1:-1])
    xs = np.array(sorted({edge for tile in tiles for edge in (tile.x0, tile.x1)})[1:-1])
    counts = {"crossing": 0, "crossing_one": 0, "one": 0}
    for number, (mine, found, top, left) in enumerate(_each(labels, truth, centers), start=1):
        inside = mine == number
        rows, columns = np.nonzero(inside)
        crosses = bool(
            ((ys > top + rows.min()) & (ys <= top + rows.max())).any()
            or ((xs > left + columns.min()) & (xs <= left + columns.max())).any()
        )
        ids, counted = np.unique(found[inside], return_counts=True)
        best: int = int(ids[ids > 0][np.argmax(counted[ids > 0])]) if (ids > 0).any() else 0
        union = np.count_nonzero(inside | (found == best)) if best else 1
        both = np.count_nonzero(inside & (found == best)) if best else 0
        others = counted[(ids > 0) & (ids != best)]
        is_one = both > 0.5 * union and not (others > 0.05 * inside.sum()).any()
        counts["crossing"] += int(crosses)
        counts["crossing_one"] += int(crosses and is_one)
        counts["one"] += int(is_one)
    return {name: int(count) for name, count in counts.items()}


def _each(
    labels: Any, truth: Any, centers: NDArray[np.float64]
) -> Iterator[tuple[NDArray[Any], NDArray[Any], int, int]]:
    """The surroundings of each object in truth and labels, and where they begin."""
    for cy, cx in centers:
        top, left = max(int(cy) - 80, 0), max(int(cx) - 80, 0)
        where = slice(top, top + 160), slice(left, left + 160)
        yield np.asarray(truth[where]), np.asarray(labels[where]), top, left


def _lattice(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Centers about 74 pixels apart, so that neighbors nearly touch."""
    places = np.arange(40, side - 40, 74.0)
    grid = np.stack(np.meshgrid(places, places, indexing="ij"), -1).reshape(-1, 2)
    return np.asarray(grid + rng.uniform(-4, 4, grid.shape))


def _colonies(rng: np.random.Generator, side: int, objects: int) -> NDArray[np.float64]:
    """Centers in colonies of 50 on a lattice of their own, far from each other."""
    count = -(-objects // 50)
    per_side = int(np.ceil(np.sqrt(count)))
    places = (np.arange(per_side) + 0.5) * side / per_side
    middles = np.stack(np.meshgrid(places, places, indexing="ij"), -1).reshape(-1, 2)[:count]
    middles = middles + rng.uniform(-0.2, 0.2, middles.shape) * side / per_side
    inner = np.stack(np.meshgrid(np.arange(5), np.arange(10), indexing="ij"), -1).reshape(-1, 2)
    offsets = (inner - inner.mean(0)) * 74.0
    centers = (middles[:, None] + offsets).reshape(-1, 2)[:objects]
    return np.asarray(np.clip(centers + rng.uniform(-4, 4, centers.shape), 40, side - 40))


def _ellipse(
    center: NDArray[np.float64],
    radii: NDArray[np.float64],
    turn: float,
    rows: slice,
    columns: slice,
) -> tuple[NDArray[np.bool_], tuple[slice, slice]]:
    """Pixels of an ellipse within a chunk, and the part of the chunk that they are in."""
    y0, x0 = (max(int(c) - 36, s.start) for c, s in zip(center, (rows, columns), strict=True))
    y1, x1 = (min(int(c) + 37, s.stop) for c, s in zip(center, (rows, columns), strict=True))
    y, x = np.mgrid[y0 : max(y1, y0), x0 : max(x1, x0)] - center[:, None, None]
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    inside = (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1
    where = slice(y0 - rows.start, max(y1, y0) - rows.start)
    return inside, (where, slice(x0 - columns.start, max(x1, x0) - columns.start))


def _peak() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()

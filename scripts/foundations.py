"""Time and memory of each foundation on random weights: ``python scripts/foundations.py``.

Every foundation runs in a process of its own with one thread, in rounds one after the other, so
that a busy computer slows all of them. CPU time is measured, the median of the rounds is printed
as a Markdown table: encoding an image of 1024 x 1024 pixels, a click, and, with a memory (SAM 2),
finding an object on the next plane of a stack by six planes before it. ``--planes 300`` also
measures the memory of a stack of so many planes. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

import torch

from napari_simmat.engine.tracking.object_memory import MemoryTrail
from napari_simmat.engine.tracking.propagation_tracks import (
    AnnotatedLine,
    IntervalEnd,
    SliceInterval,
)
from napari_simmat.models.sam2_memory import MOST_GIVEN, ObjectMemory
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import finish

T = TypeVar("T")
FOUNDATIONS = (
    "edgetam", "vit_t", "hiera_tiny", "hiera_small", "hiera_base_plus", "hiera_large", "vit_b"
)  # fmt: skip
ROW = (
    "| {name} | {parameters:.0f} M | {encode:.1f} s | {click:.0f} ms | {recall} "
    "| {peak:.1f} GB | {kept:.1f} MB |"
)


def main() -> None:
    """Measure all foundations, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=FOUNDATIONS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--planes", type=int, help="of a stack, whose memory is measured")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.one, given.planes)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in given.names}
    for _ in range(given.rounds):
        for name in given.names:
            words = [sys.executable, __file__, "--one", name]
            words += ["--planes", str(given.planes)] if given.planes else []
            output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            found[name].append(json.loads(output))
    print("| | parameters | encode | click | next plane | peak | cached |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, rounds in found.items():
        middle = {each: median(one[each] for one in rounds) for each in rounds[0]}
        recall = f"{middle['recall']:.1f} s" if "recall" in middle else ""
        print(ROW.format(name=name, **{**middle, "recall": recall}))
        if "trail" in middle:
            print(f"  {given.planes} planes: {middle['trail']:.1f} MB remembered of an object")


def measured(name: str, planes: int | None) -> dict[str, float]:
    """CPU seconds, parameters in millions, peak GB of the process, MB of an embedding."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build_network(name)
    image = torch.randn(1, 3, 1024, 1024)
    click = {"points": torch.tensor([[300.0, 500.0]]), "labels": torch.tensor([1])}
    found = {"parameters": sum(each.numel() for each in network.parameters()) / 1e6}
    with torch.inference_mode():
        found["encode"], encoded = timed(lambda: finish(network.encode_job(image)))
        network.decode(encoded, click)  # the first one prepares what later ones share
        found["click"] = 1000 * timed(lambda: network.decode(encoded, click))[0]
        found["kept"] = encoded.nbytes / 1e6
        if network.has_memory:
            mask = torch.zeros(1, 1, 1024, 1024)
            mask[..., 300:600, 300:700] = 1
            known = network.remember(encoded, mask)
            trail = followed(known, 7)
            found["recall"], _ = timed(lambda: network.recall(encoded, trail.seen_from(7, True)))
            if planes:
                found["trail"] = followed(known, planes).nbytes / 1e6
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return found


def timed(compute: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds and the result."""
    start = time.process_time()
    result = compute()
    return time.process_time() - start, result


def followed(known: ObjectMemory, planes: int) -> MemoryTrail:
    """The memory of an object that was annotated on the first of so many planes, and followed."""
    start = IntervalEnd(0, None)  # type: ignore[arg-type]
    interval = SliceInterval(0, (), tuple(range(1, planes)), start)
    trail = MemoryTrail(AnnotatedLine((start,), (interval,)), planes, MOST_GIVEN)
    trail.give(0, known)
    for index in interval.indices:
        trail.add(index, True, known)
    return trail


if __name__ == "__main__":
    main()

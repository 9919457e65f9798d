"""What `speed.py` measures of this package alone: waiting times, cache, start-up, errors."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from segment_anything import SamPredictor
from speed_rows import Both, image
from torch import Tensor

from napari_simmat.engine.embeddings import EmbeddingCache
from napari_simmat.engine.predictor import Predictor
from napari_simmat.models.transfer import MAT
from napari_simmat.progress import finish
from napari_simmat.widgets.worker import Worker

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
        mixed = _taken(lambda: layer._in_strips(channels))
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

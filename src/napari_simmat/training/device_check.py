"""Whether a device computes what the CPU computes, in all that the program does, and how fast.

It is for devices that nobody here has: every check runs the program's own code on a drawn image,
once on the CPU and once on the device, and says how far apart the results are.
"""

from __future__ import annotations

import csv
import hashlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_simmat import __version__
from napari_simmat.checkpoints.catalog import sam_spec
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.datasets.dataset import DataConfig, Dataset
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.datasets.split import from_arrays
from napari_simmat.engine.device import available_devices, choose_device, is_out_of_memory, release
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import Precision
from napari_simmat.models.sam2_memory import Memories
from napari_simmat.models.spec import Model, Normalization, StrategyName
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import Job, Progress, finish
from napari_simmat.training.config import Precision as TrainPrecision
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.devices import Devices
from napari_simmat.training.finetune import train_job
from napari_simmat.training.run_folder import LOG_FILE

FOUNDATIONS = ("tiny", "vit_t", "hiera_tiny", "vit_b")
"""The built-in one; the others with random weights, since no file is needed."""
APART = {"exact": 1e-2, "fast": 0.15}
"""Largest relative difference of embeddings that is no fault, by precision; TF32 has 1e-3."""
TRAINED_APART = 1e-2
"""Largest relative difference of a training's losses."""
CLICKS = 64
SIDE = 512
LEFT_FREE = 200 * 2**20
"""Bytes of a GPU that the check of full memory leaves."""
State = Literal["passed", "FAILED", "not possible here"]


@dataclass(frozen=True)
class CheckResult:
    """One line of the report.

    Parameters
    ----------
    name
        What was checked.
    state
        How it ended.
    detail
        Figures, or what went wrong.
    seconds
        The whole check took.
    """

    name: str
    state: State
    detail: str
    seconds: float = 0.0


class _NotPossibleError(Exception):
    """The check makes no sense on this device or without a package."""


def check_device_job(
    device: str = "auto",
    foundations: Sequence[str] = FOUNDATIONS,
    strategies: Sequence[StrategyName] = get_args(StrategyName),
) -> Job[list[CheckResult]]:
    """Check a device with all parts of the program; about ten minutes.

    Parameters
    ----------
    device
        As for `Predictor`.
    foundations
        Of `FOUNDATIONS`, or any architecture.
    strategies
        Of a training, each for two steps.

    Raises
    ------
    ValueError
        If there is no such device.
    """
    place = str(choose_device(device))
    checks = list(_checks(place, foundations, strategies))
    results = []
    for done, (name, check) in enumerate(checks):
        yield Progress(done, len(checks), name)
        results.append(_run(name, check))
    return results


def about_this_machine() -> dict[str, str]:
    """What a report has to say about where it was made."""
    devices = "; ".join(
        each.title + (f", {each.memory / 2**30:.0f} GiB" if each.memory else "")
        for each in available_devices()
    )
    return {
        "napari-simmat": __version__,
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}",
        "devices": devices,
        "system": f"{platform.platform()}, Python {platform.python_version()}",
    }


def report(device: str, results: Sequence[CheckResult]) -> str:
    """The results as Markdown."""
    lines = [f"# napari-simmat on {device}", ""]
    lines += [f"- {name}: {value}" for name, value in about_this_machine().items()]
    lines += ["", "| check | | what was found | s |", "| --- | --- | --- | ---: |"]
    for each in results:
        detail = " ".join(each.detail.split()).replace("|", "/")
        lines.append(f"| {each.name} | {each.state} | {detail} | {each.seconds:.0f} |")
    return "\n".join(lines) + "\n"


def _checks(
    device: str, foundations: Sequence[str], strategies: Sequence[StrategyName]
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Names of all checks, and what runs them and says what it found."""
    exact_and_fast: tuple[Precision, ...] = ("exact", "fast")
    for name in foundations:
        for precision in exact_and_fast:
            yield (
                f"{name}: encode and click, {precision}",
                partial(check_prediction, name, device, precision),
            )
    for strategy in strategies:
        yield f"train: {strategy}", partial(check_training, device, strategy=strategy)
    yield "train: half precision", partial(check_training, device, precision="auto")
    yield "memory of the device runs out", partial(check_full_memory, device)
    yield "two processes at once", partial(check_two_processes, device)


def _run(name: str, check: Callable[[], str]) -> CheckResult:
    start = time.monotonic()
    try:
        state: State = "passed"
        detail = check()
    except _NotPossibleError as reason:
        state, detail = "not possible here", str(reason)
    except Exception as error:  # any error is what the report is for
        state, detail = "FAILED", f"{type(error).__name__}: {error}"
    return CheckResult(name, state, detail, time.monotonic() - start)


def check_prediction(name: str, device: str, precision: Precision) -> str:
    """Encode, click, many clicks, and recall if the network has a memory; ValueError if unlike."""
    image, place = drawn_image(0)[0][0], (SIDE // 4, SIDE // 4)
    model = _model(name)
    there = Predictor(model, device, precision)
    if there.precision != precision:
        raise _NotPossibleError(f"{device} is no faster in half precision")
    there.set_image(image)  # the first time, kernels are chosen
    there.cache.clear()
    encoding = _timed(there.device, lambda: there.set_image(image))
    click = Prompt(points=(place,), labels=(1,))
    clicking = _timed(there.device, lambda: there.predict(points=[place], labels=[1]))
    many = _timed(there.device, lambda: there.predict_low_res([click] * CLICKS))
    found = _answers(there, place)
    release(there.device)
    here = Predictor(model, "cpu", "exact")
    here.set_image(image)
    expected = _answers(here, place)
    words = [f"encode {encoding:.2f} s, click {1000 * clicking:.0f} ms, {CLICKS} {many:.2f} s"]
    for part, ours in found.items():
        apart = _apart(ours, expected[part])
        words.append(f"{part} differs by {apart:.1e}")
        if not apart <= APART[precision]:
            raise ValueError("; ".join(words))
    return "; ".join(words)


def _answers(predictor: Predictor, place: tuple[int, int]) -> dict[str, Tensor]:
    """What is compared: the embedding, the logits of a click, and those of an object recalled."""
    found = {"embedding": predictor.encoded.embedding.float().cpu()}
    result = predictor.predict(points=[place], labels=[1])
    found["mask"] = torch.from_numpy(np.asarray(result.logits))
    if predictor.has_memory:
        given = np.zeros(predictor.shape, bool)
        given[place[0] // 2 : 2 * place[0], place[1] // 2 : 2 * place[1]] = True
        known = predictor.remember(given)
        _, memory = predictor.recall(Memories({1: known}, {}, 3))
        assert memory.features is not None  # they are dropped later, on other planes
        found["memory"] = memory.features.float().cpu()
    return found


def check_training(
    device: str, *, strategy: StrategyName = "lora", precision: TrainPrecision = "32-true"
) -> str:
    """Two steps and a validation on both, with the same losses; ValueError if they are unlike."""
    losses, seconds = [], 0.0
    for place, how in ((device, precision), ("cpu", "32-true")):
        config = TrainConfig(
            steps=2, batch=2, epochs=1, validate_every=1, strategy=strategy,
            precision=how, validation_objects=2,
        )  # fmt: skip
        with TemporaryDirectory() as folder:
            start = time.monotonic()
            run = Path(folder) / "run"
            devices = Devices(device=place)
            finish(train_job(load_model("tiny"), _dataset(), config, "check", run, devices))
            seconds = seconds or time.monotonic() - start  # of the device, which comes first
            losses.append(_logged_losses(run / LOG_FILE))
    apart = max(abs(a - b) / abs(b) for a, b in zip(*losses, strict=True))
    words = f"{seconds:.1f} s, losses differ by {apart:.1e}"
    if not apart <= (TRAINED_APART if precision == "32-true" else APART["fast"]):
        raise ValueError(words)
    return words


def check_full_memory(device: str) -> str:
    """Encode while the GPU is full: the CPU takes over; then on the GPU again."""
    place = choose_device(device)
    if place.type != "cuda":
        raise _NotPossibleError("only CUDA says how much memory is free")
    predictor = Predictor(_model("vit_b"), device, "exact")
    image = drawn_image(1)[0][0]
    free, _ = torch.cuda.mem_get_info(place)
    filled = torch.empty(max(0, free - LEFT_FREE), dtype=torch.uint8, device=place)
    try:
        predictor.set_image(image)
    except Exception as error:
        if is_out_of_memory(error):
            raise ValueError("the error of full memory reached the user") from error
        raise
    finally:
        note = predictor.note
        del filled
        release(place)
    predictor.cache.clear()
    predictor.set_image(drawn_image(2)[0][0])
    if predictor.device.type != place.type:
        raise ValueError(f"the GPU was not used again ({note or 'without a note'})")
    return note or "the memory sufficed"


def check_two_processes(device: str) -> str:
    """Two programs use the device at the same time; their masks are equal."""
    words = [sys.executable, "-c", _OTHER_PROCESS, device]
    start = time.monotonic()
    running = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [each.communicate() for each in running]
    if any(each.returncode for each in running):
        raise ValueError(answers[0][1].strip()[-300:] or answers[1][1].strip()[-300:])
    first, second = (output for output, _ in answers)
    if first != second:
        raise ValueError("the masks of two processes differ")
    return f"both done after {time.monotonic() - start:.1f} s, their masks are equal"


_OTHER_PROCESS = """
import hashlib, sys
from napari_simmat.training.device_check import digest_of_masks
print(digest_of_masks(sys.argv[1]))
"""


def digest_of_masks(device: str) -> str:
    """A digest of the masks of a few clicks on a few images, for another process to compare."""
    predictor = Predictor(load_model("tiny"), device)
    digest = hashlib.sha256()
    for number in range(3):
        predictor.set_image(drawn_image(number)[0][0])
        mask = predictor.predict(points=[(SIDE // 4, SIDE // 4)], labels=[1]).mask
        digest.update(mask.tobytes())
    return digest.hexdigest()


def drawn_image(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Discs on noise: an image (2, Y, X) and its labels."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((SIDE, SIDE))
    labels = np.zeros((SIDE, SIDE), np.uint16)
    for number, (row, column) in enumerate(np.ndindex(2, 2), start=1):
        center = SIDE // 4 + row * SIDE // 2, SIDE // 4 + column * SIDE // 2
        radius = rng.uniform(0.08, 0.18) * SIDE
        labels[np.hypot(y - center[0], x - center[1]) < radius] = number
    light = 60 + 30 * labels + rng.normal(0, 8, labels.shape)
    image = np.stack([light, 200 - 0.5 * light + rng.normal(0, 8, labels.shape)])
    return np.clip(image, 0, 255).astype(np.uint8), labels


def _dataset() -> Dataset:
    """Three images to train on, one to validate on."""
    arrays = [
        LabeledImage(f"image {number}", *drawn_image(number), channel_axis=0) for number in range(4)
    ]
    config = DataConfig(normalization=Normalization(method="none"))
    return from_arrays(arrays[:3], config, name="discs", validation=arrays[3:])


def _model(name: str) -> Model:
    """The built-in model of a name, or an architecture with random weights."""
    if name == "tiny":
        return load_model(name)
    torch.manual_seed(0)
    try:
        network = build_network(name)
    except ValueError as error:
        if "needs the package" in str(error):
            raise _NotPossibleError(str(error)) from None
        raise
    return Model(sam_spec(name, name, "0" * 64), network, f"random {name}")


def _timed(device: torch.device, compute: Callable[[], Any]) -> float:
    """Seconds until the device has done it."""
    start = time.perf_counter()
    compute()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - start


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """The difference relative to what varies; infinite if there are other shapes or no numbers."""
    if ours.shape != theirs.shape or not bool(ours.isfinite().all()):
        return float("inf")
    varies = (theirs - theirs.mean()).norm()
    return float((ours - theirs).norm() / varies)


def _logged_losses(path: Path) -> list[float]:
    with path.open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row.get("loss")]

"""Tables of the embedded foundation's model card, as Markdown.

``python scripts/foundation.py resolution --development development`` and likewise `prompts`,
`alternatives`, `normalization`, `debris`, `precision`, `parity` and `speed`. The development set is
made by ``scripts/development_set.py``; `parity` needs the folder of the training (``--training``).
``prompts --real REAL --sources SOURCES``, as for `simmat pretrain`, takes validation images of real
sources instead.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.transform import resize

from napari_simmat import Predictor, load_model
from napari_simmat.datasets.folder import LabeledFile, find_labeled_files
from napari_simmat.engine.masks import interior_point, iou, label_windows
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import Refiner
from napari_simmat.evaluation.prompting import GroundTruthObject, UserProtocol
from napari_simmat.models.spec import Model
from napari_simmat.progress import finish
from napari_simmat.research.real_scenes import RealSource, read_sources
from napari_simmat.research.renderers import render
from napari_simmat.research.scene import draw_scene
from napari_simmat.training.batches import MIN_AREA

FACTORS = (0.5, 1.0, 2.0, 3.0)
LARGEST = 2048
THINNEST = 12
"""Objects whose bounding box is thinner than that many pixels at a scale are left out."""
PROMPT_COLUMNS = (
    *("click", "+ 1", "+ 3", "box", "box + 1", "box + 3"),
    *("box and click", "both + 1", "both + 3"),
)
GOALS = (0.8, 0.85, 0.9)
CLICKS_AT_MOST = 10
IMAGES_PER_SOURCE = 10
Image = NDArray[Any]


class Sample(NamedTuple):
    """An image (Y, X) or (Y, X, C) and some of its labels; `name` is its row of the table."""

    name: str
    image: Image
    labels: NDArray[np.integer]
    channel_axis: int | None


def samples(folder: Path, most: int) -> Iterator[Sample]:
    """The images with a limited number of objects each, spread evenly over the labels."""
    for file in find_labeled_files(folder):
        yield _sample(file.name, file, most)


def validation_samples(sources: Sequence[RealSource], most: int) -> Iterator[Sample]:
    """Likewise some validation images of each source, with objects as training takes them."""
    for source in sources:
        files = source.validation
        for i in np.linspace(0, len(files) - 1, min(IMAGES_PER_SOURCE, len(files))):
            sample = _sample(source.name, files[int(i)], most, MIN_AREA)
            if sample.labels.any():
                yield sample


def _sample(name: str, file: LabeledFile, most: int, least_area: int = 1) -> Sample:
    image, labels = file.read()
    windows = label_windows(labels)
    ids = [label for label, part in windows if (labels[part] == label).sum() >= least_area]
    chosen = [ids[int(i)] for i in np.linspace(0, len(ids) - 1, min(most, len(ids)))]
    kept = np.where(np.isin(labels, chosen), labels, 0).astype(np.int32)
    values = np.asarray(image.data)
    if image.rgb and image.channel_axis is not None:
        values = np.take(values, range(3), image.channel_axis)  # without alpha
    return Sample(name, values, kept, image.channel_axis)


def scores(predictor: Predictor, sample: Sample) -> tuple[float, float, float]:
    """Mean IoU with a click, a box, and four clicks, three of which are corrections."""
    predictor.set_image(sample.image, channel_axis=sample.channel_axis)
    found = finish(UserProtocol().score_job(predictor, sample.labels))
    rows = [(each.iou["click"], each.iou["box"], each.iou["click+3"]) for each in found]
    click, box, corrected = np.mean(rows, axis=0)
    return float(click), float(box), float(corrected)


def resolution(options: argparse.Namespace) -> None:
    """The same objects in the same images at other sizes."""
    predictor = Predictor(load_model(options.model), device="cpu", quality=options.quality)
    say("image", "objects", *(f"{kind} x {f:g}" for kind in ("click", "box") for f in FACTORS))
    widest = [0.0, 0.0]
    for sample in samples(options.development, options.most):
        shape = sample.labels.shape
        factors = [f for f in FACTORS if max(shape) * f <= LARGEST]
        thin = [
            label
            for label, (rows, columns) in label_windows(sample.labels)
            if min(rows.stop - rows.start, columns.stop - columns.start) * factors[0] < THINNEST
        ]
        labels = np.where(np.isin(sample.labels, thin), 0, sample.labels)
        if not labels.any():
            continue
        rows = []
        for factor in factors:
            enlarged = sample._replace(labels=labels)
            if factor != 1:
                size = tuple(round(side * factor) for side in shape)
                enlarged = sample._replace(
                    image=_resized(sample.image, size, factor),
                    labels=resize(
                        labels, size, order=0, anti_aliasing=False, preserve_range=True
                    ).astype(np.int32),
                )
            rows.append(scores(predictor, enlarged)[:2])
        spread = np.ptp(rows, axis=0)
        widest = [max(a, float(b)) for a, b in zip(widest, spread, strict=True)]
        cells = []
        for kind in (0, 1):
            by_factor = {f: f"{row[kind]:.3f}" for f, row in zip(factors, rows, strict=True)}
            cells += [by_factor.get(f, "") for f in FACTORS]
        say(sample.name, len(np.unique(labels)) - 1, *cells)
    print(f"\nlargest difference: click {widest[0]:.3f}, box {widest[1]:.3f}")


def _resized(image: Image, size: tuple[int, ...], factor: float) -> Image:
    shape = (*size, *image.shape[2:])
    resized = resize(
        image.astype(np.float32), shape, order=1, anti_aliasing=factor < 1, preserve_range=True
    )
    return np.asarray(resized, np.float32)


def prompts(options: argparse.Namespace) -> None:
    """Clicks, boxes, both together, and corrections after each; and clicks to an IoU."""
    predictor = Predictor(load_model(options.model), device="cpu", quality=options.quality)
    say("image", "objects", *PROMPT_COLUMNS, *(f"clicks to {goal:.2f}" for goal in GOALS))
    if options.real is None:
        chosen = samples(options.development, options.most)
    else:
        sources = read_sources(options.real, options.sources)
        chosen = validation_samples(sources, options.most)
    means = []
    for name, group in groupby(chosen, attrgetter("name")):
        rows = [row for sample in group for row in prompted(predictor, sample)]
        means.append(np.mean(rows, axis=0))
        say(name, len(rows), *(f"{value:.3f}" for value in means[-1]))
    say("mean", "", *(f"{value:.3f}" for value in np.mean(means, axis=0)))


def prompted(predictor: Predictor, sample: Sample) -> Iterator[list[float]]:
    """For each object the columns of `prompts`."""
    predictor.set_image(sample.image, channel_axis=sample.channel_axis)
    for label, window in label_windows(sample.labels):
        truth = GroundTruthObject(sample.labels, label, window)
        click = Prompt(points=(truth.middle,), labels=(1,))
        box, both = Prompt(box=truth.box), replace(click, box=truth.box)
        clicked = corrected(predictor, truth, click, CLICKS_AT_MOST - 1)
        boxed, mixed = (corrected(predictor, truth, each, 3) for each in (box, both))
        needed = [
            next((n for n, reached in enumerate(clicked, 1) if reached >= goal), CLICKS_AT_MOST)
            for goal in GOALS
        ]
        each = [run[n] for run in (clicked, boxed, mixed) for n in (0, 1, 3)]
        yield [*each, *needed]


def corrected(
    predictor: Predictor, truth: GroundTruthObject, prompt: Prompt, clicks: int
) -> list[float]:
    """IoU with a prompt and after each correcting click; it stays once nothing is wrong."""
    refiner, reached = Refiner(), []
    for turn in range(clicks + 1):
        [answer] = finish(refiner.refine_job(predictor, [prompt], ()))
        reached.append(truth.agreement(answer.mask)[0])
        further = truth.correction(answer.mask) if turn < clicks else None
        if further is None:
            break
        points, labels = (*prompt.points, further[0]), (*prompt.labels, further[1])
        prompt = replace(prompt, points=points, labels=labels)
    return reached + [reached[-1]] * (clicks + 1 - len(reached))


def alternatives(options: argparse.Namespace) -> None:
    """The first mask of a click, and the best of it and the alternatives that Q cycles through."""
    predictor = Predictor(load_model(options.model), device="cpu", quality=options.quality)
    say("image", "objects", "answer", "best of two", "best of three", "best of four")
    means = []
    for sample in samples(options.development, options.most):
        predictor.set_image(sample.image, channel_axis=sample.channel_axis)
        rows = []
        for label, _ in label_windows(sample.labels):
            truth = sample.labels == label
            answer = predictor.predict(points=[interior_point(truth, ties="median")])
            reached = [iou(answer.alternative(n).mask, truth) for n in range(answer.count)]
            rows.append([max(reached[:count]) for count in (1, 2, 3, 4)])
        means.append(np.mean(rows, axis=0))
        say(sample.name, len(rows), *(f"{value:.3f}" for value in means[-1]))
    say("mean over images", "", *(f"{value:.3f}" for value in np.mean(means, axis=0)))


# ------------------------------------------------------------------------ normalization


def linear(unit: Image) -> Image:
    """Unchanged: between the percentiles 0.5 and 99.9."""
    return unit


def power(unit: Image) -> Image:
    """Gamma 0.5."""
    return np.sqrt(unit)


def adaptive(unit: Image) -> Image:
    """A gamma from 0.4 to 1 that brings the mean to 0.3."""
    gamma = np.log(0.3) / np.log(np.clip(unit.mean(), 1e-3, 0.999))
    return np.asarray(unit ** np.clip(gamma, 0.4, 1))


def tails(unit: Image) -> Image:
    """Both tails compressed: the inverse hyperbolic sine in units of the quartiles' distance."""
    low, middle_, high = np.percentile(unit, [25, 50, 75])
    return np.asarray(np.arcsinh((unit - middle_) / max(high - low, 0.02)))


def local(unit: Image) -> Image:
    """Local contrast: minus the mean, divided by the deviation, within about 15 pixels."""
    mean = gaussian_filter(unit, 15)
    deviation = np.sqrt(gaussian_filter((unit - mean) ** 2, 15))
    return np.asarray((unit - mean) / (deviation + 0.15 * unit.std()))


METHODS: dict[str, Callable[[Image], Image]] = {
    "percentiles": linear,
    "and gamma 0.5": power,
    "and adaptive gamma": adaptive,
    "and compressed tails": tails,
    "and local contrast": local,
}


def normalized(image: Image, method: Callable[[Image], Image]) -> Image:
    """The image between its percentiles, changed, as 0..255."""
    low, high = np.percentile(image, [0.5, 99.9])
    values = method(np.clip((image - low) / max(high - low, 1e-9), 0, 1).astype(np.float64))
    return np.asarray(255 * (values - values.min()) / np.ptp(values), np.float32)


def normalization(options: argparse.Namespace) -> None:
    """The gray images of the development set, normalized by the model and in several other ways."""
    say("image", *NORMALIZED)
    rows = []
    for sample in samples(options.development, options.most):
        if sample.image.ndim > 2:
            continue
        rows.append(normalized_scores(sample, options))
        say(sample.name, *(f"{value:.3f}" for value in rows[-1]))
    say("mean", *(f"{value:.3f}" for value in np.mean(rows, axis=0)))


NORMALIZED = [f"{name}: {kind}" for name in ("the model's", *METHODS) for kind in ("click", "box")]


def normalized_scores(sample: Sample, options: argparse.Namespace) -> list[float]:
    """Click and box, for each way."""
    model = load_model(options.model)
    row = [*scores(Predictor(model, device="cpu", quality=options.quality), sample)[:2]]
    plain = replace(model.spec, normalization=replace(model.spec.normalization, clip_glare=False))
    predictor = Predictor(replace(model, spec=plain), device="cpu", quality=options.quality)
    for method in METHODS.values():
        changed = sample._replace(image=normalized(sample.image, method))
        row += scores(predictor, changed)[:2]
    return row


def debris(options: argparse.Namespace) -> None:
    """Drawn nuclei next to blobs that are up to a hundred times as bright."""
    say("debris is brighter by", *NORMALIZED)
    for times in (1, 3, 10, 30, 100):
        rows = []
        for seed in range(6):
            rng = np.random.default_rng(seed)
            scene = draw_scene(rng, 320, "cells")
            image = render(scene, "fluorescence", rng)
            floor, top = np.percentile(image, [10, 99])
            y, x = np.ogrid[:320, :320]
            for _ in range(4):
                cy, cx = rng.uniform(0, 320, 2)
                blob = np.exp(-((((y - cy) ** 2 + (x - cx) ** 2) / (2 * 6.0**2)) ** 2))
                image = image + times * (top - floor) * blob
                scene.labels[blob > 0.001] = 0
            labels = np.where(
                np.isin(scene.labels, np.unique(scene.labels)[1 : 1 + options.most]),
                scene.labels,
                0,
            )
            if not labels.any():
                continue
            rows.append(normalized_scores(Sample("", image, labels, None), options))
        say(times, *(f"{value:.3f}" for value in np.mean(rows, axis=0)))


# ------------------------------------------------------------- precision, parity, speed


def precision(options: argparse.Namespace) -> None:
    """Agreement of masks in half precision with those in float32."""
    model = load_model(options.model)
    exact, fast = (Predictor(model, device="cpu", precision=p) for p in ("exact", "fast"))
    _compare("fast against exact", exact, fast, options)


def parity(options: argparse.Namespace) -> None:
    """The shipped float16 file against the averaged float32 weights of the training."""
    shipped = load_model(options.model)
    state = torch.load(options.training / "state.pt", weights_only=True)
    trained = load_model(options.model)
    trained.network.load_state_dict(state["averaged"])
    trained = Model(shipped.spec, trained.network, "training")
    _compare(
        "shipped file against training",
        Predictor(trained, device="cpu", precision="exact"),
        Predictor(shipped, device="cpu", precision="exact"),
        options,
    )


def _compare(title: str, one: Predictor, other: Predictor, options: argparse.Namespace) -> None:
    say(title, "objects", "mean IoU of click masks", "least", "of box masks", "least")
    everything: list[tuple[float, float]] = []
    for sample in samples(options.development, options.most):
        rows = []
        for predictor in (one, other):
            predictor.set_image(sample.image, channel_axis=sample.channel_axis)
        for label, (down, across) in label_windows(sample.labels):
            y, x = interior_point(sample.labels == label, ties="median")
            box = (down.start, across.start, down.stop, across.stop)
            pairs = [
                (predictor.predict(points=[(y, x)]).mask, predictor.predict(box=box).mask)
                for predictor in (one, other)
            ]
            rows.append((iou(pairs[0][0], pairs[1][0]), iou(pairs[0][1], pairs[1][1])))
        everything += rows
        _say_alike(sample.name, rows)
    _say_alike("all", everything)


def _say_alike(name: str, rows: list[tuple[float, float]]) -> None:
    mean, least = np.mean(rows, axis=0), np.min(rows, axis=0)
    say(name, len(rows), *(f"{v:.4f}" for v in (mean[0], least[0], mean[1], least[1])))


def speed(options: argparse.Namespace) -> None:
    """Median milliseconds of encoding and prompting, through the Python interface."""
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load_model(options.model)
    other = load_model(options.beside) if options.beside else None
    rest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    head = "image", "encode", "click", "box", "correction", "embedding MB", "peak above rest MB"
    say(*head, *([f"encode, of that of {other.spec.name}"] if other else []))
    from skimage.data import coins

    for size in ((128, 128), (256, 256), (512, 512), (1024, 1024), (2048, 2048)):
        image = np.tile(coins(), (8, 6))[: size[0], : size[1]]
        predictor = Predictor(
            model, device="cpu", precision=options.precision, quality=options.quality
        )
        encode = [_seconds(predictor.set_image, np.roll(image, k)) for k in range(5)]
        predictor.set_image(image)
        y, x = 53, 49  # the middle of a coin, 48 pixels across
        box, points = (y - 24, x - 24, y + 24, x + 24), [(y, x), (y + 40, x)]
        first = predictor.predict(points=points[:1])
        correction = {"points": points, "labels": [1, 0], "mask": first.logits}
        asked = {"points": points[:1]}, {"box": box}, correction
        times = [[_seconds(predictor.predict, **how) for _ in range(20)] for how in asked]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - rest
        assert predictor._embedding is not None
        say(
            f"{size[0]} x {size[1]}",
            f"{1000 * median(encode):.0f}",
            *(f"{1000 * median(values):.0f}" for values in times),
            f"{predictor._embedding.encoded.nbytes / 1e6:.0f}",
            f"{peak:.0f}",
            *([f"{_encode_ratio(predictor, other, image, options):.2f}"] if other else []),
        )


def _encode_ratio(
    predictor: Predictor, other: Model, image: Image, options: argparse.Namespace
) -> float:
    """Time of encoding relative to another model's, which encodes in turn."""
    beside = Predictor(other, device="cpu", precision=options.precision, quality=options.quality)
    pairs = []
    for k in range(9):
        shifted = np.roll(image, k + 5)
        pairs.append([_seconds(each.set_image, shifted) for each in (predictor, beside)])
    return median(ours / theirs for ours, theirs in pairs)


def _seconds(call: Callable[..., object], *given: Any, **how: Any) -> float:
    started = time.perf_counter()
    call(*given, **how)
    return time.perf_counter() - started


_width = 0


def say(*cells: object) -> None:
    """Print a row of the table; after the first one its rule."""
    global _width
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    if not _width:
        _width = len(cells)
        print("| --- |" + " ---: |" * (len(cells) - 1))


TABLES = {
    each.__name__: each
    for each in (
        *(resolution, prompts, alternatives, normalization, debris, precision, parity, speed),
    )
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--model", default="tiny", help="a name or a file")
    parser.add_argument("--development", type=Path, help="folder of the development set")
    parser.add_argument("--real", type=Path, help="folder of real sources")
    parser.add_argument("--sources", type=Path, help="their table")
    parser.add_argument("--training", type=Path, help="folder of the training")
    parser.add_argument("--most", type=int, default=10, help="objects per image")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--quality", default="fast")
    parser.add_argument("--threads", type=int, help="of torch; all by default")
    parser.add_argument("--beside", help="model whose encoding is timed in turn, for speed")
    options = parser.parse_args()
    TABLES[options.table](options)


if __name__ == "__main__":
    main()

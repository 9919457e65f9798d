"""Make the documentation's figures of results: ``python research/scripts/figures.py``.

The overlays that `simmat demo` writes and a sheet of drawn scenes; with ``--evaluation results``,
the folder of `simmat evaluate development --output results`, also some of its overlays. All with
fewer colors, to be small. ``--curves LOG.jsonl PICTURE.png`` plots the log of a pretraining
instead, ``--channels PICTURE.png`` how registration of displaced sensors changes masks,
``--rig PICTURE.png`` a camera of the tutorial's flight before and after registration,
``--slide PICTURE.webp`` the nuclei of a region of the practice slide,
``--reliability PICTURE.png MODEL ...`` how the IoU that models of drawn sensors predict
agrees with the true one; first and last need matplotlib (dependency group ``figures``).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from learn import read
from PIL import Image, ImageDraw
from skimage.segmentation import find_boundaries

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.cli import main as simmat
from napari_simmat.datasets.dataset import Dataset, Sample
from napari_simmat.engine.channel_influence import foundation_colors
from napari_simmat.engine.channels.derivation import derive_channels
from napari_simmat.engine.channels.registration import (
    matrix_of_shift,
    move_channel,
    register_channels_job,
)
from napari_simmat.engine.drawing import tint_objects, to_rgb
from napari_simmat.engine.everything.generator import segment_everything_job
from napari_simmat.engine.predictor import Predictor
from napari_simmat.evaluation.metrics import pairwise_iou
from napari_simmat.evaluation.protocols import UserProtocol
from napari_simmat.evaluation.scores import PlaneMatches, plane_matches
from napari_simmat.models.spec import Model, Normalization
from napari_simmat.progress import finish
from napari_simmat.training.validation import fit_calibration
from simmat_research.generated import GeneratedConfig, generate_job
from simmat_research.renderers import FAMILIES
from simmat_research.samples import draw_sample

DOCS = Path(__file__).resolve().parents[2] / "docs"
REPORTED = DOCS / "reports" / "images"
WIDTH = 1200
COLORS = 200
SHOWN = ("depth_motorcycle", "stereo_motorcycle")
"""Images that scikit-image ships, whose overlays the model card shows."""
SIDE, IN_A_ROW = 192, 6
SMOOTH = 5
BINS = 10
PLANES = 24
DISPLACED = 6
DISPLACED_SENSORS = (
    ("polarization", "polarization", (0, 1, 2, 3), "DoLP"),
    ("multispectral", "ndvi", (2, 3), "NDVI"),
)
"""Sensor, what is derived of which of its channels, and which of that is shown."""
GALLERY = (
    ("blood_smear", "smear_10"),
    ("nanoshapes", "Cu-s-16_0005_jpg"),
    ("development", "fluo2d_hela"),
    ("development", "phase2d_bacteria"),
    ("mars_rocks", "img_538"),
    ("leaf_microct", "grid_10"),
)
"""Images of the gallery of all objects at once: good ones, then bad ones."""
TITLES = {"fluo2d_hela": "HeLa nuclei", "phase2d_bacteria": "packed bacteria"}
SEEN, PART = 400, 400
"""Side of each in the gallery, and of what is shown of it at most."""
RIGHT, WRONG, MISSED = (0, 229, 255), (255, 90, 54), (255, 214, 10)
MEASURED = ("click", "box", "click+3")
PROMPTS = ("prior", "click", "box", "corrected", "mask")


def main() -> int:
    """Make the figures; returns the status of the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluation", type=Path, help="what simmat evaluate wrote")
    parser.add_argument("--curves", type=Path, nargs=2, metavar=("LOG", "PICTURE"))
    parser.add_argument("--reliability", nargs="+", metavar=("PICTURE", "MODEL"))
    parser.add_argument("--channels", type=Path, metavar="PICTURE")
    parser.add_argument("--rig", type=Path, metavar="PICTURE")
    parser.add_argument("--objects", type=Path, nargs=2, metavar=("PICTURE", "DEVELOPMENT"))
    parser.add_argument("--slide", type=Path, metavar="PICTURE")
    options = parser.parse_args()
    if options.slide:
        return draw_slide(options.slide)
    if options.rig:
        return draw_rig(options.rig)
    if options.objects:
        draw_objects(*options.objects)
        return 0
    if options.channels:
        draw_channels(options.channels)
        return 0
    if options.curves:
        draw_curves(*options.curves)
        return 0
    if options.reliability:
        draw_reliability(Path(options.reliability[0]), options.reliability[1:])
        return 0
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "simmat-demo")
        if status := simmat(["demo", "--output", str(output)]):
            return status
        for path in sorted((output / "overlays").glob("*.png")):
            keep(path, DOCS / "images" / f"demo-{path.name}")
    if options.evaluation:
        for name in SHOWN:
            keep(options.evaluation / f"{name}_overlay.png", REPORTED / f"development-{name}.png")
    save(scenes(), REPORTED / "scenes.png")
    return 0


def draw_rig(picture: Path) -> int:
    """The near infra-red camera on the blue one, before and after; returns the command's status."""
    with tempfile.TemporaryDirectory() as folder:
        flight = DOCS / "tutorials/flight/{capture}_{band:1=blue,4=nir}.tif"
        words = ["channels", "register", str(flight), "--output", folder, "--motion", "affine"]
        status = simmat([*words, "--overwrite"])
        with Image.open(Path(folder, "rig.webp")) as both:
            save(both.convert("RGB").resize((2 * both.width, 2 * both.height)), picture)
    return status


def draw_objects(picture: Path, development: Path) -> None:
    """What *Everything* finds on images that the decoder never saw, and what not."""
    predictor = Predictor(load_model("tiny"), "cpu")
    sheet = Image.new("RGB", (3 * SEEN, 2 * SEEN))
    for number, (source, name) in enumerate(GALLERY):
        image = read(source, name, development)
        finish(predictor.open_image_job(image.arrays, channel_axis=image.channel_axis))
        found = finish(segment_everything_job(predictor)).labels.astype(np.int32)
        truth = np.asarray(image.labels)
        overlaps = pairwise_iou(found, truth)
        met, right = overlaps.max(0, initial=0) >= 0.75, overlaps.max(1, initial=0) >= 0.75
        ids, wanted = np.unique(found)[1:], np.unique(truth)[1:]
        values = predictor.stack.normalized(())
        top, left = ((side - min(side, PART)) // 2 for side in truth.shape)
        part = slice(top, top + PART), slice(left, left + PART)
        height, width = truth[part].shape
        scale = SEEN // max(height, width)
        color = to_rgb(values[:, *part].astype(np.float32)).repeat(scale, 0).repeat(scale, 1)
        for labels, shown, rim in (
            (truth, wanted[~met], MISSED),
            (found, ids[~right], WRONG),
            (found, ids[right], RIGHT),
        ):
            kept = np.where(np.isin(labels, shown), labels, 0)[part]
            large = kept.repeat(scale, 0).repeat(scale, 1)
            color[find_boundaries(large, mode="inner")] = rim
        corner = (number % 3 * SEEN, number // 3 * SEEN)
        sheet.paste(Image.fromarray(color), corner)
        title = TITLES.get(name, source.replace("_", " "))
        words = f"{title}: {met.sum()} of {len(met)}, {(~right).sum()} wrong"
        draw = ImageDraw.Draw(sheet)
        place = (corner[0] + 6, corner[1] + 5)
        draw.text(place, words, "white", stroke_width=2, stroke_fill="black", font_size=18)
    sheet.save(picture, quality=80)


def draw_slide(picture: Path) -> int:
    """The overlay of ``docs/slides.md``, enlarged; returns the command's status."""
    with tempfile.TemporaryDirectory() as folder:
        part = ["--region", "50,50,200,250um", "--mpp", "0.5", "--auto.seeds", "hematoxylin"]
        slide = DOCS / "tutorials/stained.svs"
        status = simmat(["segment", str(slide), "--output", folder, *part, "--overlay"])
        with Image.open(Path(folder, "stained_overlay.png")) as found:
            size = (2 * found.width, 2 * found.height)
            found.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(picture, quality=80)
    return status


def draw_curves(log: Path, picture: Path) -> None:
    """The curves of a pretraining, from the ``log.jsonl`` of its folder."""
    import matplotlib.pyplot as plt

    entries = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [each for each in entries if "loss" in each]
    validations = [each for each in entries if "validation" in each]
    measured = {"other drawn scenes": [(each["step"], each["validation"]) for each in validations]}
    if real := [(each["step"], each["by_source"]) for each in entries if "by_source" in each]:
        measured["real sources"] = [
            (step, {kind: np.mean([row[kind] for row in rows.values()]) for kind in MEASURED})
            for step, rows in real
        ]
    count = 2 + len(measured)
    figure, axes = plt.subplots(1, count, figsize=(4 * count, 3.4), constrained_layout=True)
    curve(axes[0], steps, "loss")
    axes[0].set(title="loss", xlabel="step")
    for name in PROMPTS:
        curve(axes[1], steps, name)
    axes[1].set(title="IoU on the crops trained on", xlabel="step")
    axes[1].legend(fontsize=8)
    for axis, (title, rows) in zip(axes[2:], measured.items(), strict=True):
        for kind in MEASURED:
            steps_there = [step for step, _ in rows]
            axis.plot(steps_there, [row[kind] for _, row in rows], "o-", label=kind, ms=3)
        axis.set(title=f"mean IoU %: {title}", xlabel="step")
        axis.legend(fontsize=8)
    for each in axes:
        each.grid(alpha=0.3)
    figure.savefig(picture, dpi=90)


def draw_channels(picture: Path) -> None:
    """Two sensors whose channels are displaced: registered, derived, seen, and their masks.

    Prints the mean IoU of a click and of a box on all objects of the test planes, with aligned,
    displaced and registered channels. A row shows the first plane of a sensor: displaced,
    registered, a derived channel, what the foundation sees, and the masks of clicks before and
    after registration, with true outlines.
    """
    rows = []
    for sensor, kind, used, shown in DISPLACED_SENSORS:
        drawn = GeneratedConfig(sensor=sensor, side=160, train=1, validation=1, test=DISPLACED)
        model = load_model(sensor)
        dataset = finish(generate_job(drawn))
        spec = replace(model.spec, normalization=Normalization(method="none"))
        predictor = Predictor(replace(model, spec=spec))
        reached: dict[str, list[dict[str, float]]] = {}
        pictures = []
        for number, sample in enumerate(dataset.test):
            values, labels = sample.load()
            # Up to five pixels along each axis.
            away = [(0, 0), *np.random.default_rng(number).uniform(-5, 5, (len(values) - 1, 2))]
            moved = np.stack(
                [move_channel(v, matrix_of_shift(*a)) for v, a in zip(values, away, strict=True)]
            )
            found = finish(register_channels_job(list(moved)))
            registered = np.stack(
                [move_channel(v, each.matrix) for v, each in zip(moved, found, strict=True)]
            )
            for name, channels in (
                ("aligned", values),
                ("displaced", moved),
                ("registered", registered),
            ):
                predictor.set_image(channels, 0)
                scores = finish(UserProtocol(clicks=1).score_job(predictor, labels))
                reached.setdefault(name, []).extend(dict(score.iou) for score in scores)
                if number == 0 and name != "aligned":
                    pictures.append((to_rgb(channels[:3]), clicked(predictor, labels)))
            if number == 0:
                derived = derive_channels(kind, [registered[n] for n in used])[shown]
                seen = np.array(Image.fromarray(to_rgb(foundation_colors(predictor))))
                (before, mask), (after, better) = pictures
                rows.append([before, after, to_rgb(derived[None]), seen, mask, better])
        for name, ious in reached.items():
            means = (
                f"{k} {100 * np.mean([each[k] for each in ious]):.1f}" for k in ("click", "box")
            )
            print(f"{sensor} {name}: {', '.join(means)} % of {len(ious)} objects", flush=True)
    size = (SIDE, SIDE)
    sheet = Image.new("RGB", (SIDE * len(rows[0]), SIDE * len(rows)))
    for y, row in enumerate(rows):
        for x, each in enumerate(row):
            sheet.paste(Image.fromarray(each).resize(size), (x * SIDE, y * SIDE))
    sheet.quantize(COLORS).save(picture, optimize=True)


def clicked(predictor: Predictor, labels: np.ndarray) -> np.ndarray:
    """The masks of one click in the middle of each object, and the true outlines in white."""
    found = np.zeros_like(labels)
    for number in np.unique(labels[labels > 0]):
        inside = np.argwhere(labels == number)
        y, x = inside[np.abs(inside - inside.mean(0)).sum(1).argmin()]
        found[predictor.predict(points=[(y, x)]).mask] = number
    shown = tint_objects(to_rgb(predictor.stack.plane()[:3]), found)
    shown[find_boundaries(labels, mode="inner")] = 255
    return shown


def draw_reliability(picture: Path, names: list[str]) -> None:
    """True over predicted IoU before and after calibration, on planes that it was not fitted to.

    Prints the expected calibration error (mean over ten bins, weighted by their masks) of clicks
    and boxes on the test planes before and after, and what *Everything* reaches there, which does
    not use it.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(names), figsize=(4 * len(names), 4), squeeze=False, constrained_layout=True
    )
    for axis, name in zip(axes[0], names, strict=True):
        model = load_model(name)
        drawn = GeneratedConfig(
            sensor=model.spec.modality, side=160, train=1, validation=PLANES, test=PLANES
        )
        dataset = replace(finish(generate_job(drawn)), channels=model.spec.channels)
        spec = replace(model.spec, normalization=Normalization(method="none"), iou_calibration=None)
        model = replace(model, spec=spec)
        fit = fit_calibration(*agreement(model, dataset.validation))
        assert fit is not None
        predicted, true = agreement(model, dataset.test)
        print(f"{name}: slope {fit.slope:.3f}, offset {fit.offset:.3f}, {len(true)} masks")
        reached = PlaneMatches.pooled(everything(model, dataset))
        values = ", ".join(f"{kind} {100 * reached[kind]:.1f}" for kind in ("ap@50", "ap", "pq"))
        print(f"{name}, everything: {values}", flush=True)
        axis.plot([0, 1], [0, 1], color="#bbbbbb")
        for words, calibration in (("before", None), ("after", fit)):
            scores = predicted if calibration is None else calibration.apply(predicted)
            bins = np.minimum((scores * BINS).astype(int), BINS - 1)
            means = [(scores[bins == n].mean(), true[bins == n].mean()) for n in np.unique(bins)]
            weights = np.bincount(bins)[np.unique(bins)] / len(true)
            error = float(weights @ np.abs(np.subtract(*np.array(means).T)))
            axis.plot(*np.array(means).T, "o-", label=f"{words}: error {100 * error:.1f} %")
            print(f"{name} {words}: calibration error {100 * error:.1f} %", flush=True)
        axis.set(title=name, xlabel="predicted IoU", ylabel="true IoU", xlim=(0, 1), ylim=(0, 1))
        axis.legend()
    figure.savefig(picture, dpi=90)


def agreement(model: Model, samples: tuple[Sample, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true IoU of a click and of a box on each object of the samples."""
    predictor, pairs = Predictor(model), []
    for sample in samples:
        values, labels = sample.load()
        predictor.set_image(values, 0)
        scores = finish(UserProtocol(clicks=1).score_job(predictor, labels))
        pairs += [(s.predicted[kind], s.iou[kind]) for s in scores for kind in s.predicted]
    predicted, true = np.array(pairs).T
    return predicted, true


def everything(model: Model, dataset: Dataset) -> list[PlaneMatches]:
    """How *Everything* matches the objects of each test plane."""
    predictor, matches = Predictor(model), []
    for sample in dataset.test:
        values, labels = sample.load()
        predictor.set_image(values, 0)
        found = finish(segment_everything_job(predictor)).labels
        matches.append(plane_matches(found, labels, np.zeros(labels.shape, bool)))
    return matches


def curve(axis: Any, steps: list[dict[str, float]], name: str) -> None:
    """A quantity over the steps, averaged over some entries of the log."""
    known = [(each["step"], each[name]) for each in steps if name in each]
    if len(known) < SMOOTH:
        return
    x, y = np.array(known).T
    smooth = np.convolve(y, np.ones(SMOOTH) / SMOOTH, mode="valid")
    axis.plot(x[SMOOTH - 1 :], smooth, label=name)


def scenes() -> Image.Image:
    """Two samples of every family with the outlines of their objects."""
    rows = -(-2 * len(FAMILIES) // IN_A_ROW)
    sheet = Image.new("RGB", (IN_A_ROW * SIDE, rows * SIDE))
    draw = ImageDraw.Draw(sheet)
    for number in range(2 * len(FAMILIES)):
        family = list(FAMILIES)[number // 2]
        image, labels = draw_sample(1000 + number, SIDE, [family])
        low, high = np.percentile(image, [0.5, 99.9])
        unit = np.clip((image - low) / (high - low), 0, 1)
        color = unit if unit.ndim == 3 else np.repeat(unit[..., None], 3, axis=2)
        if number % 2:
            color[find_boundaries(labels, mode="inner")] = (1, 0.3, 0.1)
        corner = (number % IN_A_ROW * SIDE, number // IN_A_ROW * SIDE)
        sheet.paste(Image.fromarray((255 * color).astype(np.uint8)), corner)
        if not number % 2:
            draw.text(
                (corner[0] + 4, corner[1] + 3), family, "white", stroke_width=2, stroke_fill="black"
            )
    return sheet


def keep(path: Path, target: Path) -> None:
    """Copy a picture."""
    with Image.open(path) as opened:
        save(opened.convert("RGB"), target)


def save(picture: Image.Image, target: Path) -> None:
    """Write a picture for the documentation."""
    if picture.width > WIDTH:
        size = (WIDTH, round(picture.height * WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    picture.quantize(COLORS).save(target, optimize=True)
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())

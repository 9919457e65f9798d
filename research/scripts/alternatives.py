"""What other programs find, given five objects of an image and three strokes on the ground.

``python research/scripts/alternatives.py draw --output alternatives --development development``
writes the images of ``finish.py`` on which all objects are labeled, their true objects, and what
each program is given: five true objects, exactly as they are labeled (``taught``), and classes of
pixels (``classes``: 1 these objects, 2 their border, 3 the strokes), both as
`simmat_research.finishing` draws them. ``run --output alternatives --programs NAME ...``
writes a folder of label images for each of the `PROGRAMS`; images that are there are not repeated,
so that it resumes. ``table`` scores the folders as ``simmat evaluate --labels --taught`` does,
prints the report's tables, and writes ``alternatives.csv`` and ``alternatives.png``.

Convpaint's programs run where ``pip install napari-convpaint pyqt6`` was run; ``run`` needs nothing
else there.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

    from napari_simmat.evaluation.scores import Scores
    from simmat_research.finishing import Setting

GROUPS, GIVEN = ("held_out", "development"), ("taught", "classes")
OBJECT, BORDER, GROUND = 1, 2, 3
SEED = 0
TREES = 100
ILASTIK_SCALES = (0.7, 1.0, 1.6, 3.5, 5.0, 10.0)
"""Of all filters; smoothing is also done at 0.3."""
PICTURED = (
    "blood_smear-smear_01", "leaf_microct-grid_00", "mars_rocks-img_332",
    "nanoshapes-Cu-s-16_0009_jpg",
)  # fmt: skip
"""An image of each held-out source, in the figure."""
SHOWN, STEP, COLORS = 440, 2, 128
"""Rows and columns of an image in the figure, of which every second is drawn; its colors."""
Labels = NDArray[np.int32]


class Given(NamedTuple):
    """What a program is given of an image.

    Attributes
    ----------
    folder, stem
        Where it is.
    image
        (Y, X, C).
    taught, classes
        (Y, X) five objects; OBJECT, BORDER and GROUND where that is known.
    """

    folder: Path
    stem: str
    image: NDArray[np.float32]
    taught: Labels
    classes: NDArray[np.uint8]

    @property
    def area(self) -> float:
        """Median area of the five objects."""
        return float(np.median(np.unique(self.taught[self.taught > 0], return_counts=True)[1]))


def main() -> None:
    """Draw, run, or print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("draw", "run", "table"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--development", type=Path, default=Path("development"))
    parser.add_argument("--programs", nargs="*", default=list(PROGRAMS), choices=list(PROGRAMS))
    options = parser.parse_args()
    if options.what == "draw":
        draw(options.output, options.development)
    elif options.what == "run":
        for program in options.programs:
            run(options.output, program)
    else:
        show(options.output)


def draw(output: Path, development: Path) -> None:
    """Write images, true objects, and what programs are given."""
    from finish import COMPLETE, DEVELOPMENT
    from learn import held_out_images, read

    from napari_simmat.engine.pixel_forest import training_classes
    from simmat_research.finishing import SimulatedUser

    images = [("held_out", *each) for each in held_out_images() if each[0] in COMPLETE]
    images += [("development", "development", name) for name in DEVELOPMENT]
    for group, source, name in images:
        image = read(source, name, development)
        user = SimulatedUser(np.asarray(image.labels), SEED)
        taught = np.where(np.isin(user.labels, user.taught), user.labels, 0)
        files = {
            "data/images": np.asarray(image.arrays),
            "data/labels": user.labels.astype(np.uint16),
            "taught": taught.astype(np.uint16),
            "classes": training_classes(taught, user.strokes()),
        }
        for folder, values in files.items():
            path = output / group / folder / f"{source}-{name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = "rgb" if values.ndim == 3 else "minisblack"
            tifffile.imwrite(path, values, photometric=kind, compression="zlib")


def run(output: Path, program: str) -> None:
    """Write the label images of a program that are not there, and how long each took."""
    for group in GROUPS:
        for given in given_images(output / group):
            path = output / group / program / f"{given.stem}.tif"
            if path.exists():
                continue
            path.parent.mkdir(exist_ok=True)
            began, wall = time.process_time(), time.monotonic()
            labels = PROGRAMS[program](given)
            row = {
                "group": group,
                "image": given.stem,
                "program": program,
                "CPU seconds": round(time.process_time() - began, 2),
                "seconds": round(time.monotonic() - wall, 2),
            }
            partial = path.with_suffix(".part")
            tifffile.imwrite(partial, labels.astype(np.uint16), compression="zlib")
            with (output / "times.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            os.replace(partial, path)
            print(row, "objects", labels.max(), flush=True)


def given_images(folder: Path) -> Iterator[Given]:
    """What programs are given of the images of a group, in order."""
    for path in sorted((folder / "data/images").glob("*.tif")):
        values = tifffile.imread(path)
        image = values.reshape(*values.shape[:2], -1).astype(np.float32)
        taught, classes = (tifffile.imread(folder / each / path.name) for each in GIVEN)
        yield Given(folder, path.stem, image, taught.astype(np.int32), classes)


def by_forest(given: Given) -> Labels:
    """Extremely randomized trees on scikit-image's features."""
    from napari_simmat.engine.pixel_forest import segment_by_forest

    return segment_by_forest(given.image, given.taught, given.classes == GROUND, SEED)


def by_ilastik_filters(given: Given) -> Labels:
    """A random forest on ilastik's filters, all at all scales; objects are divided as above.

    ilastik itself has VIGRA's forest of as many trees, and leaves the objects to a second workflow.
    """
    from sklearn.ensemble import RandomForestClassifier

    from napari_simmat.engine.pixel_forest import divide_touching

    planes = np.moveaxis(given.image, -1, 0)
    features = np.stack([each for plane in planes for each in ilastik_filters(plane)], axis=-1)
    forest = RandomForestClassifier(TREES, random_state=SEED)
    known = given.classes > 0
    forest.fit(features[known], given.classes[known])
    likely = forest.predict(features.reshape(-1, features.shape[-1])).reshape(known.shape)
    return divide_touching(likely == OBJECT, given.area)


def ilastik_filters(plane: NDArray[np.float32]) -> Iterator[NDArray[Any]]:
    """The filters of ilastik's pixel classification (Y, X) of a channel (Y, X)."""
    from scipy import ndimage as ndi

    def smoothed(values: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
        return np.asarray(ndi.gaussian_filter(values, scale), np.float32)

    yield smoothed(plane, 0.3)
    for scale in ILASTIK_SCALES:
        yield smoothed(plane, scale)
        yield ndi.gaussian_laplace(plane, scale)
        yield ndi.gaussian_gradient_magnitude(plane, scale)
        yield smoothed(plane, scale) - smoothed(plane, 0.66 * scale)
        dy, dx = (ndi.gaussian_filter(plane, scale, order) for order in ((1, 0), (0, 1)))
        yield from eigenvalues(
            *(smoothed(each, 0.5 * scale) for each in (dy * dy, dy * dx, dx * dx))
        )
        second = (ndi.gaussian_filter(plane, scale, order) for order in ((2, 0), (1, 1), (0, 2)))
        yield from eigenvalues(*second)


def eigenvalues(yy: NDArray[Any], yx: NDArray[Any], xx: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Both eigenvalues (Y, X) of symmetric matrices, the larger first."""
    middle, root = (yy + xx) / 2, np.sqrt(((yy - xx) / 2) ** 2 + yx**2)
    yield middle + root
    yield middle - root


def by_convpaint(given: Given) -> Labels:
    """Convpaint with its Gaussian feature, as it is offered."""
    return convpaint(given, [1])


def by_convpaint_pyramid(given: Given) -> Labels:
    """The same at the four scales of a pyramid."""
    return convpaint(given, [1, 2, 4, 8])


def convpaint(given: Given, scalings: list[int]) -> Labels:
    """Train convpaint on the classes, and divide its objects as it does itself."""
    from napari_convpaint.convpaint_model import ConvpaintModel

    model = ConvpaintModel(fe_name="gaussian_features", fe_scalings=scalings)
    model.set_params(channel_mode="multi", ignore_warnings=True)
    # Convpaint's first class is the ground.
    classes = np.array([0, 2, 3, 1], np.uint8)[given.classes]
    image = np.moveaxis(given.image, -1, 0)
    model.train(image, classes)
    smallest = math.ceil(given.area / 4)
    found = model.get_instances(image, classes=[2], min_size=smallest, warn=False)
    return np.asarray(found, np.int32).reshape(given.classes.shape)


def by_everything(given: Given) -> Labels:
    """*Everything* of this package; it is given nothing."""
    from napari_simmat.engine.everything.generator import segment_everything

    return segment_everything(setting(given).predictor()).labels.astype(np.int32)


def by_kind(given: Given) -> Labels:
    """*Everything* of the kind that the five objects and the strokes teach."""
    from napari_simmat.engine.everything.generator import segment_everything
    from napari_simmat.engine.everything.kind_learning import learn_kind

    predictor = setting(given).predictor()
    kind = learn_kind(predictor, given.taught, given.classes == GROUND, seed=SEED)
    return segment_everything(predictor, kind=kind).labels.astype(np.int32)


def by_learning(given: Given) -> Labels:
    """*Learn* from the five objects, then *Everything* by what was learned, if it is offered."""
    from napari_simmat.engine.everything.generator import segment_everything
    from napari_simmat.training.adapting import FewShotConfig
    from napari_simmat.training.few_shot import learn_objects

    own = setting(given)
    result = learn_objects(
        own.model,
        own.image.arrays,
        given.taught,
        own.image.channel_axis,
        channel_names=own.image.channel_names,
        config=FewShotConfig(seed=SEED),
        device="cpu",
    )
    return segment_everything(own.predictor(result.model)).labels.astype(np.int32)


def setting(given: Given) -> Setting:
    """The image with the foundation."""
    from napari_simmat import load_model
    from napari_simmat.datasets.folder import find_labeled_files
    from simmat_research.finishing import Setting, SimulatedUser

    files = {file.name: file for file in find_labeled_files(given.folder / "data")}
    image = files[given.stem].read()
    return Setting(load_model("tiny"), image, SimulatedUser(np.asarray(image.labels)))


PROGRAMS: dict[str, Callable[[Given], Labels]] = {
    "forest": by_forest,
    "ilastik_filters": by_ilastik_filters,
    "convpaint_gaussian": by_convpaint,
    "convpaint_gaussian_pyramid": by_convpaint_pyramid,
    "everything": by_everything,
    "everything_of_the_kind": by_kind,
    "learning": by_learning,
}
"""Folder of the labels -> how they are made. A new program is a new row."""
COLUMNS = {
    "found@75": "found at .75", "found@50": "found at .5", "wrong": "wrong", "iou": "mean IoU",
    "ap@50": "AP50", "ap@75": "AP75", "actions": "actions per object, at least",
}  # fmt: skip


def show(output: Path) -> None:
    """Print a table for each group, and write the figures of each image and the picture.

    Programs that are not through with a group are left out.
    """
    rows: list[dict[str, Any]] = []
    for group in GROUPS:
        lines = [f"| program | {' | '.join(COLUMNS.values())} | CPU, s |"]
        lines.append("| --- |" + (len(COLUMNS) + 1) * " ---: |")
        for program in PROGRAMS:
            if complete(output / group, program):
                scores, times = score(output / group, program), seconds(output, group, program)
                means = (f"{scores.over_images[name]:.2f}" for name in COLUMNS)
                mean = sum(times.values()) / len(times)
                lines.append(f"| {program} | {' | '.join(means)} | {mean:.0f} |")
                rows += [
                    {"group": group, "image": image.name, "program": program, **image.counts}
                    | image.figures
                    | {"CPU seconds": times[image.name]}
                    for image in scores.images
                ]
        print(f"\n{group}\n\n" + "\n".join(lines))
    with (output / "alternatives.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {
                name: round(each, 4) if isinstance(each, float) else each
                for name, each in row.items()
            }
            for row in rows
        )
    picture(output / GROUPS[0]).quantize(COLORS).save(output / "alternatives.png", optimize=True)


def complete(folder: Path, program: str) -> bool:
    """Whether a program has been run on all images of a group."""
    images = (folder / "data/images").glob("*.tif")
    return all((folder / program / path.name).exists() for path in images)


def score(folder: Path, program: str) -> Scores:
    """What ``simmat evaluate data --labels PROGRAM --taught taught`` finds."""
    from napari_simmat.datasets.folder import find_labeled_files
    from napari_simmat.datasets.label_folder import check_complete, match_label_files
    from napari_simmat.evaluation.evaluate_labels import evaluate_labels_job
    from napari_simmat.progress import finish

    files = find_labeled_files(folder / "data")
    labels = match_label_files(folder / program, files)
    check_complete(folder / program, labels, files)
    return finish(evaluate_labels_job(files, labels, match_label_files(folder / "taught", files)))


def seconds(output: Path, group: str, program: str) -> Mapping[str, float]:
    """Processor seconds of each image."""
    rows = map(json.loads, (output / "times.jsonl").read_text().splitlines())
    mine = (row for row in rows if (row["group"], row["program"]) == (group, program))
    return {row["image"]: row["CPU seconds"] for row in mine}


def picture(folder: Path) -> Image:
    """A row for each of the images pictured: the five objects, then each program's labels."""
    from PIL import Image

    from napari_simmat.engine.drawing import draw_overlay, to_rgb

    columns = ["taught", *(name for name in PROGRAMS if complete(folder, name))]
    part = np.s_[:SHOWN:STEP, :SHOWN:STEP]
    tiles = []
    for given in given_images(folder):
        if given.stem in PICTURED:
            under = to_rgb(np.moveaxis(given.image[part], -1, 0))
            truth = tifffile.imread(folder / "data/labels" / f"{given.stem}.tif")[part]
            for name in columns:
                labels = tifffile.imread(folder / name / f"{given.stem}.tif")[part]
                said = name.replace("_", " ")
                tiles.append(draw_overlay(under, labels.astype(int), (), truth, said, scale=1))
    width, height = (max(tile.size[axis] for tile in tiles) + 4 for axis in (0, 1))
    rows = -(-len(tiles) // len(columns))
    whole = Image.new("RGB", (width * len(columns), height * rows), "white")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, len(columns))
        whole.paste(tile, (column * width, row * height))
    return whole


if __name__ == "__main__":
    main()

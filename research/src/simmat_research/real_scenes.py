"""Labeled real images as scenes for pretraining, at every scale and in many appearances."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from napari_simmat._text import format_list, pluralize
from napari_simmat.datasets.folder import LabeledFile, find_labeled_files
from napari_simmat.datasets.labeled_image import ImageCache, LabeledImage, as_ids
from napari_simmat.datasets.split import series_of
from napari_simmat.engine.normalization import rescale
from napari_simmat.training.batches import MIN_AREA, UNKNOWN, is_known
from simmat_research.renderers import degrade
from simmat_research.scene_pool import DrawnScene, random_normalize, zoom

SPLIT_FILE = "split.csv"
"""In a source's folder: columns ``file`` (the image's name) and ``split`` (train, validation)."""
SOURCES_FILE = "sources.csv"
"""Beside the sources' folders: the table of `read_sources`."""
COLUMNS = ("folder", "kind", "share", "complete", "filled", "license", "source")
VALIDATION_PERCENT = 10
"""Images kept for validation where a source has no `SPLIT_FILE`."""
OBJECT_SIDES = (10.0, 120.0)
"""Range of the square root of an object's area in pixels after zooming, log-uniform."""
ZOOMS = (1 / 8, 3.0)
SCENE_SIDES = (160, 420)
OPTICAL_DENSITY_FLOOR = 1 / 256
MAX_EMPTY = 100
"""Images without objects that are passed over in a row."""
_NO = {"", "0", "no", "false"}


@dataclass(frozen=True, kw_only=True)
class RealSource:
    """A folder of labeled images of one kind.

    Parameters
    ----------
    share
        How often its images are drawn, relative to the other sources.
    complete
        Whether all objects of its kind are labeled. Otherwise pixels farther from labeled objects
        than a ring (`batches.RING`) are unknown, not background.
    filled
        Whether an object includes the objects inside it, as a leaf its spots.
    kind, license, source
        In words, for the model card.
    """

    name: str
    share: float
    complete: bool = False
    filled: bool = False
    kind: str = ""
    license: str = ""
    source: str = ""
    train: tuple[LabeledFile, ...]
    validation: tuple[LabeledFile, ...]

    @property
    def recipe(self) -> list[float | str]:
        """What a training depends on, to compare it with another: plain values."""
        names = "\n".join(file.image.name for file in self.train)
        digest = f"{zlib.crc32(names.encode(errors='surrogateescape')):08x}"
        return [self.share, self.complete, self.filled, len(self.train), digest]

    @property
    def card(self) -> dict[str, Any]:
        """What a model card says about it."""
        names = "source", "kind", "license", "share", "complete"
        counts = {"images": len(self.train), "validation images": len(self.validation)}
        return {name: getattr(self, name) for name in names} | counts


def read_sources(folder: Path, table: Path | None = None) -> tuple[RealSource, ...]:
    """The sources in the subfolders of `folder`.

    `table`, by default ``sources.csv`` in the folder, is a CSV file with a row for each source and
    the columns ``folder``, ``kind``, ``share``, ``complete`` (yes or no), ``filled`` (yes or no),
    ``license`` and ``source``. Without a table all subfolders are sources; a source's share is the
    square root of its number of images, and none is complete. Files are paired as for
    `find_labeled_files`, and split by `SPLIT_FILE` or, without one, a tenth of the series is kept
    for validation.

    Raises
    ------
    ValueError, OSError
        If a folder, the table or a pair of files cannot be used.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; check its name.")
    path = table or folder / SOURCES_FILE
    if table is not None or path.exists():
        rows = _table(path)
    else:
        rows = [{"folder": each.name} for each in sorted(folder.iterdir()) if each.is_dir()]
    sources = tuple(_source(folder, row, path.name) for row in rows)
    if not sources:
        raise ValueError(
            f"{folder} has no subfolder; put each source of labeled images in a folder of its own."
        )
    return sources


def real_drawer(
    sources: Sequence[RealSource], *, validation: bool = False
) -> Callable[[Generator], DrawnScene]:
    """A function that draws scenes of `sources` by their shares.

    A scene is a part of an image around one of its objects, resized so that this object has a
    random size (`OBJECT_SIDES`).
    """
    usable = [each for each in sources if (each.validation if validation else each.train)]
    shares = np.array([each.share for each in usable])
    cache = ImageCache()

    def draw(rng: Generator) -> DrawnScene:
        source = usable[rng.choice(len(usable), p=shares / shares.sum())]
        files = source.validation if validation else source.train
        for _ in range(MAX_EMPTY):
            file = files[int(rng.integers(len(files)))]
            # Names need to be unique among the sources.
            content = cache.read(replace(file, name=f"{source.name}/{file.name}"))
            if (content.labels > 0).any():
                return _scene(source, content, rng)
        raise ValueError(
            f"{MAX_EMPTY} images of {source.name} drawn at random have no labeled object; take "
            "the images without objects out."
        )

    return draw


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in ("folder", "share") if name not in (reader.fieldnames or ())]
        unknown = [name for name in reader.fieldnames or () if name not in COLUMNS]
        if missing or unknown:
            raise ValueError(
                f"{path.name} needs the columns {format_list(COLUMNS)}, of which folder and share "
                f"are required; it has {format_list(reader.fieldnames or ['none'])}."
            )
        return list(reader)


def _source(folder: Path, row: Mapping[str, str], table: str) -> RealSource:
    name = row["folder"]
    files = find_labeled_files(folder / name)
    split = _split(folder / name / SPLIT_FILE, files)
    train = tuple(file for file in files if split[file.image.name] == "train")
    if not train:
        raise ValueError(f"{name} has no image to train on; {SPLIT_FILE} keeps all for validation.")
    try:
        share = float(row.get("share") or len(files) ** 0.5)
    except ValueError:
        share = 0.0
    if not 0 < share < float("inf"):
        raise ValueError(
            f"The share of {name} in {table} is {row['share']}; give a number above 0."
        )
    return RealSource(
        name=name,
        share=share,
        complete=(row.get("complete") or "").lower() not in _NO,
        filled=(row.get("filled") or "").lower() not in _NO,
        kind=row.get("kind") or "",
        license=row.get("license") or "",
        source=row.get("source") or "",
        train=train,
        validation=tuple(file for file in files if split[file.image.name] == "validation"),
    )


def _split(path: Path, files: Sequence[LabeledFile]) -> dict[str, str]:
    """``train`` or ``validation`` by image name."""
    names = [file.image.name for file in files]
    if not path.exists():
        series = {file.image.name: series_of(file.name) for file in files}
        kept = {s for s in series.values() if zlib.crc32(s.encode()) % 100 < VALIDATION_PERCENT}
        return {name: "validation" if series[name] in kept else "train" for name in names}
    with path.open(newline="", encoding="utf-8") as file:
        split = {row.get("file", ""): row.get("split", "") for row in csv.DictReader(file)}
    if wrong := [name for name in names if split.get(name) not in ("train", "validation")]:
        raise ValueError(
            f"{path.parent.name}/{path.name} gives no split for {wrong[0]} and "
            f"{pluralize(len(wrong) - 1, 'other image')}; "
            "each image needs a row with train or validation."
        )
    return split


def _scene(source: RealSource, content: LabeledImage, rng: Generator) -> DrawnScene:
    values, labels = image_plane(content, rng)
    area = np.bincount(labels.ravel())
    area[0] = 0
    ids = np.flatnonzero(area >= MIN_AREA)
    if not len(ids):
        ids = np.array([int(area.argmax())])
    chosen = int(rng.choice(ids))
    wanted = np.exp(rng.uniform(*np.log(OBJECT_SIDES)))
    factor = float(np.clip(wanted / np.sqrt(area[chosen]), *ZOOMS))
    values = _appearance(values, rng)
    part = _part(labels, chosen, factor, rng)
    image, ids_there = values[:, *part], labels[part].astype(np.int32)
    if not source.complete:
        ids_there = np.where(is_known(labels, part), ids_there, UNKNOWN)
    stretch = float(np.exp(rng.uniform(-0.2, 0.2))) if rng.random() < 0.3 else 1.0
    image = rescale(image, image.min(), image.max())
    image, factors = np.ascontiguousarray(image, np.float32), (factor * stretch, factor / stretch)
    image, ids_there = zoom(image, ids_there, factors)
    changed = degrade(rng, np.moveaxis(image, 0, -1) if len(image) > 1 else image[0])
    return DrawnScene(random_normalize(changed, rng), ids_there, source.filled)


def image_plane(
    content: LabeledImage, rng: Generator
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Values (C, H, W) and ids (H, W) of a random plane with objects; alpha is left out."""
    labels = content.labels
    planes = [plane for plane in np.ndindex(*labels.shape[:-2]) if (labels[plane] > 0).any()]
    plane = planes[int(rng.integers(len(planes)))]
    arrays: Any = content.arrays
    if isinstance(arrays, list | tuple):
        channels = [np.asarray(each[plane]) for each in arrays]
    elif content.channel_axis is None:
        channels = [np.asarray(arrays[plane])]
    else:
        whole = np.moveaxis(np.asarray(arrays), content.channel_axis, 0)
        channels = [channel[plane] for channel in whole]
        if content.channel_names is not None and content.channel_names[-1] == "alpha":
            channels.pop()
    values = np.nan_to_num(np.stack(channels).astype(np.float32), nan=0, posinf=0, neginf=0)
    return values, as_ids(labels[plane])


def _appearance(values: NDArray[np.float32], rng: Generator) -> NDArray[np.float32]:
    """One or three channels of an image: itself, a channel, gray, or optical density."""
    count = len(values)
    if count > 3 or count == 2:
        chosen = rng.integers(count, size=1)
        if rng.random() < 0.5:
            chosen = rng.choice(count, 3, replace=count < 3)
        return values[chosen]
    if count == 1 or rng.random() < 0.5:
        return values
    if rng.random() < 0.3:  # Beer-Lambert: stains add up in optical density
        top = max(float(np.percentile(values[:, ::4, ::4], 99.5)), 1e-6)
        density = -np.log(np.clip(values / top, OPTICAL_DENSITY_FLOOR, 1))
        values = density.astype(np.float32)
        if rng.random() < 0.3:
            return values
    weights = np.eye(3)[rng.integers(3)] if rng.random() < 0.5 else rng.dirichlet([2, 2, 2])
    gray: NDArray[np.float32] = np.tensordot(weights.astype(np.float32), values, 1)
    return gray[None]


def _part(
    labels: NDArray[np.int32], chosen: int, factor: float, rng: Generator
) -> tuple[slice, slice]:
    """Rows and columns around an object that have the sides of a scene after zooming."""
    low, high = np.log(SCENE_SIDES)
    sides = np.exp(rng.uniform(low, high, 2)) / factor
    part = []
    for axis, side in enumerate(sides):
        places = np.flatnonzero((labels == chosen).any(1 - axis))
        length = labels.shape[axis]
        size = min(int(side), length)
        middle = (places[0] + places[-1]) / 2 + rng.uniform(-0.3, 0.3) * size
        start = int(np.clip(middle - size / 2, 0, length - size))
        part.append(slice(start, start + size))
    return part[0], part[1]

"""The AIMS benchmark as data sets: 13 modalities on five folder layouts.

Facts from arXiv 2409.08083 and its authors' public code.
"""

from __future__ import annotations

import csv
import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape
from napari_simmat.datasets.dataset import Dataset, Sample
from napari_simmat.datasets.labeled_image import ImageCache, LabeledImage, LabeledStack
from napari_simmat.io.readers import read_image, read_labels
from napari_simmat.progress import Job
from simmat_research.authors import MODALITIES, find_modality

logger = logging.getLogger(__name__)


AIMS = {
    "zju-rgbp": "zju-rgbp",
    "pgsnet_p": "pgsnet",
    "pgsnet_rgbp": "pgsnet",
    "d": "NYUDepthv2",
    "rgbd": "NYUDepthv2",
    "hha": "NYUDepthv2",
    "rgbhha": "NYUDepthv2",
    "nir": "IVRG_RGBNIR",
    "rgbnir": "IVRG_RGBNIR",
    "t": "RGB-Thermal-Glass",
    "rgbt": "RGB-Thermal-Glass",
    "t_500": "RGB-Thermal-Glass",
    "rgbt_500": "RGB-Thermal-Glass",
}
"""Layouts by the authors' keys; the modalities: `checkpoints.authors.MODALITIES`."""
STRIDES_OF_500 = {"train": 10, "test": 2}
"""Of all images, those of the keys that end in ``_500``."""


def from_aims(folder: Path | str, key: str) -> Dataset:
    """A modality of the benchmark from its folder, or from the folder of all of them.

    Training and test images are those of the published lists; as in the paper, the test images
    also serve for validation. Lists and the presence of files are checked here, the files' content
    when a sample is loaded.

    Parameters
    ----------
    folder
        Has the layout of the key, see `LAYOUTS`.
    key
        One of `AIMS`.

    Raises
    ------
    ValueError, OSError
        If the key is unknown or the folder has another layout; the message says what is missing.
    """
    modality = find_modality(key)
    layout = LAYOUTS[AIMS[key]]
    root = find_layout(Path(folder), layout, key)
    test = _samples(root, key, "test")
    known = {sample.group for sample in test}
    listed = _samples(root, key, "train")
    train = [sample for sample in listed if sample.group not in known]
    if len(train) < len(listed):
        logger.warning(
            "%s: %d images to train on are also among those to test on and are left out.",
            key,
            len(listed) - len(train),
        )
    if not train:
        raise ValueError(f"{root} has no image to train on; take the data set as published.")
    return Dataset(
        name=key,
        modality=modality.words,
        channels=modality.channels,
        normalization=modality.normalization,
        train=tuple(train),
        validation=test,
        test=test,
        min_size=layout.min_size,
    )


def read_job(said: str) -> Job[Dataset]:
    """The data set ``aims:KEY:FOLDER`` of `simmat train`, `said` from the key on.

    Raises what `from_aims` raises, and ValueError if there is no folder.
    """
    yield from ()
    key, _, folder = said.partition(":")
    if not folder:
        raise ValueError(f"aims:{key} lacks its folder; write aims:KEY:FOLDER.")
    return from_aims(folder, key)


def keys_in(folder: Path | str, keys: Iterable[str] = tuple(AIMS)) -> tuple[str, ...]:
    """Those of the keys whose layout is in a folder, so that `from_aims` can read them.

    Raises ValueError for an unknown key, FileNotFoundError if there is no such folder.
    """
    there = []
    for key in keys:
        find_modality(key)
        with suppress(_NoLayoutError):
            find_layout(Path(folder), LAYOUTS[AIMS[key]], key)
            there.append(key)
    return tuple(there)


def _samples(root: Path, key: str, split: AimsSplit) -> tuple[Sample, ...]:
    modality = MODALITIES[key]
    layout = LAYOUTS[AIMS[key]]
    stride = STRIDES_OF_500[split] if key.endswith("_500") else 1
    taken = list(layout.items(root, split))[::stride]
    items = list({item.name: item for item in taken}.values())  # a line may stand twice
    if not items:
        raise ValueError(
            f"{root} lists no image for {split}; take the data set's lists and files as published."
        )
    files = POLARIZER_ANGLES if layout.folder == "zju-rgbp" else tuple(modality.parts)
    check_files(items, files)
    names = tuple(channel.name for channel in modality.channels)
    cache = ImageCache(0)  # images of one plane need no cache
    samples = []
    for item in items:
        image = replace(item, parts=tuple(modality.parts))
        stack = LabeledStack(image, names, None, modality.normalization, cache)
        samples.append(Sample(item.name, stack.group, stack.load))
    return tuple(samples)


AimsSplit = Literal["train", "test"]
ItemLister = Callable[[Path, AimsSplit], Iterator["AimsItem"]]
PGSNET_BROKEN = ("20210808013065", "20210811002205")
NYU_BROKEN = ("1133", "398")
THERMAL_FOLDER = "RGB-Thermal-Glass"
POLARIZER_ANGLES = ("0", "45", "90", "135")


@dataclass(frozen=True)
class AimsItem:
    """One image of the benchmark: its files by part (``"RGB"``, ``"depth"``, ...) and its labels.

    The files may be missing; `name` is the path that they have in common. Those of `parts` are
    read.
    """

    name: str
    files: dict[str, Path]
    labels: Path
    parts: tuple[str, ...] = ()

    def read(self) -> LabeledImage:
        """One array for each channel of all parts, and the labels; ValueError if a file is bad."""
        if "45" in self.files:
            images = [np.stack(_read_color(self.files[angle])) for angle in POLARIZER_ANGLES]
            for path, image in zip(self.files.values(), images, strict=True):
                if image.shape != images[0].shape:
                    raise ValueError(
                        f"{path.name} has another size than the picture at 0 degrees; take the "
                        "files as published."
                    )
            intensity, angle, degree = polarization(*images)
            parts = {"intensity": list(intensity), "AoLP": list(angle), "DoLP": list(degree)}
        else:
            parts = {part: _READERS[part](self.files[part]) for part in self.parts}
        arrays = [channel for part in self.parts for channel in parts[part]]
        return LabeledImage(self.name, arrays, np.asarray(read_labels(self.labels).data)).read()


@dataclass(frozen=True)
class AimsLayout:
    """How a part of the benchmark is stored.

    Parameters
    ----------
    folder
        Name of its folder.
    needs
        Entries by which the folder is recognized.
    items
        Lists the images of a split, without broken ones.
    min_size
        Regions have more pixels than this at 1024 x 1024.
    """

    folder: str
    needs: tuple[str, ...]
    items: ItemLister
    min_size: int = 0


def _zju(folder: Path, split: AimsSplit) -> Iterator[AimsItem]:
    """{train,val}/{0,45,90,135}/NAME_{angle} and a degree sign.png, label_sam/NAME.png."""
    side = folder / ("train" if split == "train" else "val")
    by_angle = {}
    for angle in POLARIZER_ANGLES:
        # Programs that unpack archives spell the degree sign in several ways.
        pattern = re.compile(rf"(.+)_{angle}[^0-9A-Za-z]*[.]png", re.IGNORECASE)
        names = {}
        for path in _sorted_files(side / angle):
            if found := pattern.fullmatch(unicodedata.normalize("NFC", path.name)):
                names[found[1]] = path
        by_angle[angle] = names
    for name in by_angle["0"]:
        files = {
            angle: by_angle[angle].get(name, side / angle / f"{name}_{angle}\N{DEGREE SIGN}.png")
            for angle in POLARIZER_ANGLES
        }
        yield AimsItem(f"{side.name}/{name}", files, side / "label_sam" / f"{name}.png")


def _pgsnet(folder: Path, split: AimsSplit) -> Iterator[AimsItem]:
    """{train,test}/image/*_rgb.tiff; next to it aolp, dolp and instance_mask. Two are broken."""
    side = folder / split
    for path in _sorted_files(side / "image"):
        name = path.name.removesuffix("_rgb.tiff")
        if name == path.name or any(broken in name for broken in PGSNET_BROKEN):
            continue
        files = {
            "RGB": path,
            "AoLP": side / "aolp" / f"{name}_aolp.tiff",
            "DoLP": side / "dolp" / f"{name}_dolp.tiff",
        }
        yield AimsItem(
            f"{split}/{name}", files, side / "instance_mask" / f"{name}_instance_mask.png"
        )


def _nyu(folder: Path, split: AimsSplit) -> Iterator[AimsItem]:
    """{train,test}.txt, tab separated, first column RGB/ID.jpg. Two are broken."""
    for line in _read_text(folder / f"{split}.txt", "utf-8-sig").splitlines():
        if not line.strip():
            continue
        path = _relative_path(line.split("\t")[0], folder / f"{split}.txt")
        name = path.stem
        if name in NYU_BROKEN:
            continue
        files = {
            "RGB": folder / path,
            "depth": folder / "Depth" / f"{name}.npy",
            "HHA": folder / "HHA" / f"{name}.jpg",
        }
        yield AimsItem(name, files, folder / "Mask_gt" / f"{name}.png")


def _ivrg(folder: Path, split: AimsSplit) -> Iterator[AimsItem]:
    """IVRG-nir_{train,test}_GroundTruth.csv: NIR image and mask below Outdoor_dataset."""
    root = folder / "Outdoor_dataset"
    for image, mask in _read_csv_pairs(
        folder / f"IVRG-nir_{split}_GroundTruth.csv", "Outdoor_dataset"
    ):
        rgb = image.as_posix().replace("NIRimages", "RGBimages").replace("_nir", "_rgb")
        files = {"NIR": root / image, "RGB": root / rgb}
        yield AimsItem(image.with_suffix("").as_posix(), files, root / mask)


def _thermal(folder: Path, split: AimsSplit) -> Iterator[AimsItem]:
    """RGB_T_Glass_{train,test}_GroundTruth.csv: ...rgb.png and mask, next to ...temperature.npy."""
    for image, mask in _read_csv_pairs(
        folder / f"RGB_T_Glass_{split}_GroundTruth.csv", THERMAL_FOLDER
    ):
        name = image.as_posix().removesuffix("rgb.png")
        files = {"RGB": folder / image, "thermal": folder / f"{name}temperature.npy"}
        yield AimsItem(name.rstrip("_-./ "), files, folder / mask)


LAYOUTS: dict[str, AimsLayout] = {
    "zju-rgbp": AimsLayout("zju-rgbp", ("train", "val"), _zju, 10_000),
    "pgsnet": AimsLayout("pgsnet", ("train/image", "test/image"), _pgsnet, 100),
    "NYUDepthv2": AimsLayout("NYUDepthv2", ("train.txt", "test.txt", "Mask_gt"), _nyu),
    "IVRG_RGBNIR": AimsLayout(
        "IVRG_RGBNIR",
        ("IVRG-nir_train_GroundTruth.csv", "IVRG-nir_test_GroundTruth.csv", "Outdoor_dataset"),
        _ivrg,
        1000,
    ),
    THERMAL_FOLDER: AimsLayout(
        THERMAL_FOLDER,
        ("RGB_T_Glass_train_GroundTruth.csv", "RGB_T_Glass_test_GroundTruth.csv"),
        _thermal,
    ),
}
"""By the name of the folder."""


def find_layout(folder: Path, layout: AimsLayout, key: str) -> Path:
    """The folder with the layout: `folder`, or the one of the layout's name in it.

    Raises
    ------
    ValueError, OSError
        If neither has it; the message names what is missing.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; check its name.")
    inside = folder / layout.folder
    chosen = inside if inside.is_dir() else folder
    missing = [name for name in layout.needs if not (chosen / name).exists()]
    if missing:
        raise _NoLayoutError(
            f"{chosen} has no {', '.join(missing)}, so it is not laid out as the benchmark's "
            f"{layout.folder}, which {key} is read from; give the folder that holds "
            f"{', '.join(layout.needs)}."
        )
    return chosen


class _NoLayoutError(ValueError):
    """A folder without the layout that is looked for."""


def check_files(items: Sequence[AimsItem], parts: Iterable[str]) -> None:
    """Raise FileNotFoundError if files of the `parts` of listed images, or labels, are missing."""
    needed = tuple(parts)
    missing = [
        path
        for item in items
        for path in (*(item.files[part] for part in needed), item.labels)
        if not path.is_file()
    ]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FileNotFoundError(
            f"{missing[0]}{more} should be there but {'are' if more else 'is'} missing; complete "
            "the data set, or take the image out of its list."
        )


def _sorted_files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _read_csv_pairs(path: Path, root: str) -> Iterator[tuple[PurePosixPath, PurePosixPath]]:
    """Image and mask of each row below the heading: columns 1 and 2, counted from 0."""
    rows = list(csv.reader(_read_text(path, "gbk").splitlines()))
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) < 3:
            raise ValueError(
                f"{path.name}, line {number}, has {len(row)} columns; the second holds an image "
                "and the third its mask. Take the file as it was published."
            )
        yield _relative_path(row[1], path, root), _relative_path(row[2], path, root)


def _relative_path(text: str, file: Path, root: str = "") -> PurePosixPath:
    """A path in a list, relative to the data set.

    The published lists were written on other machines: folders up to `root` are dropped.
    """
    path = PurePosixPath(text.strip().replace("\\", "/"))
    if root and root in path.parts:
        path = PurePosixPath(*path.parts[path.parts.index(root) + 1 :])
    if path.is_absolute() or ".." in path.parts or ":" in path.as_posix()[:2]:
        raise ValueError(
            f"{file.name} names {text.strip()[:200]!r}, which lies outside the data set's folder; "
            "a list's paths stay within it."
        )
    if not path.name:
        raise ValueError(f"{file.name} has a line without a path; take the file as published.")
    return path


def _read_text(path: Path, encoding: str) -> str:
    try:
        return path.read_text(encoding)
    except UnicodeDecodeError:
        raise ValueError(
            f"{path.name} is not text in {encoding.removesuffix('-sig')}; take the file as it was "
            "published."
        ) from None


ChannelArrays = list[NDArray[Any]]
"""One array (Y, X) for each."""


def _read_8bit(path: Path) -> NDArray[np.uint8]:
    """Channels (C, Y, X) of an 8-bit picture, without alpha."""
    file = read_image(path)
    data = np.asarray(file.data)
    if data.dtype != np.uint8 or len(file.shape) != 2:
        raise ValueError(
            f"{path.name} holds {data.dtype.name} values of shape "
            f"{format_shape(data.shape)}; in the benchmark it is a picture of 8 bits. Take "
            "the file as published."
        )
    axis = file.channel_axis
    channels = data[None] if axis is None else np.moveaxis(data, axis, 0)
    return channels[:3] if len(channels) == 4 else channels


def _read_color(path: Path) -> ChannelArrays:
    channels = _read_8bit(path)
    if len(channels) == 1:  # a picture in gray
        channels = np.repeat(channels, 3, axis=0)
    if len(channels) != 3:
        raise ValueError(
            f"{path.name} has {len(channels)} channels, in the benchmark it has 3; take the file "
            "as published."
        )
    return list(channels)


def _read_gray(path: Path) -> ChannelArrays:
    """One channel; of a color picture its luma, as computed by Pillow."""
    channels = _read_8bit(path)
    if len(channels) == 3:  # ITU-R 601-2, rounded to the nearest
        weights = np.array([19595, 38470, 7471])[:, None, None]
        channels = (((channels * weights).sum(axis=0) + 2**15) >> 16).astype(np.uint8)[None]
    return [channels[0]]


def _read_npy(path: Path) -> ChannelArrays:
    """A .npy of real numbers (Y, X), never 8 bits: it is scaled by its own range."""
    file = read_image(path)
    if file.channel_axis is not None or file.data.dtype.kind not in "iuf":
        raise ValueError(
            f"{path.name} holds {file.data.dtype.name} values of shape "
            f"{format_shape(file.data.shape)}; in the benchmark it is one number for each "
            "pixel. Take the file as published."
        )
    data = np.asarray(file.data, dtype=np.float32)
    return [data[0] if data.ndim == 3 and len(data) == 1 else data]


_READERS = {
    "RGB": _read_color,
    "AoLP": _read_color,
    "DoLP": _read_color,
    "HHA": _read_color,
    "NIR": _read_gray,
    "depth": _read_npy,
    "thermal": _read_npy,
}


EPSILON = 1e-4
"""Keeps divisions finite (arXiv 2409.08083 and its authors' code)."""


def polarization(
    i0: NDArray[Any], i45: NDArray[Any], i90: NDArray[Any], i135: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Intensity, angle and degree of linear polarization of images behind four polarizers.

    The intensity is S0, half the sum of the four (0..510 for 8 bits); the angle in rad is
    -pi/4..pi/4, the degree 0..1. S0, S1, S2 are the Stokes parameters.

    The angle is atan(S2 / S1) / 2, of one branch as the published statistics have it, not the
    arctangent of two arguments.
    """
    a, b, c, d = (np.asarray(image, dtype=np.float64) for image in (i0, i45, i90, i135))
    s0 = (a + b + c + d) / 2
    s1 = a - c
    s2 = b - d
    degree = np.minimum(1, np.hypot(s1, s2) / (s0 + EPSILON))
    angle = np.arctan(s2 / np.where(s1 == 0, EPSILON, s1)) / 2
    return s0.astype(np.float32), angle.astype(np.float32), degree.astype(np.float32)

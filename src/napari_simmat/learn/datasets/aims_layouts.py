"""The five folder layouts of the AIMS benchmark: which files are one image (arXiv 2409.08083)."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

Split = Literal["train", "test"]
Lister = Callable[[Path, Split], Iterator["Item"]]

PGSNET_BROKEN = ("20210808013065", "20210811002205")
NYU_BROKEN = ("1133", "398")
THERMAL = "RGB-Thermal-Glass"
ANGLES = ("0", "45", "90", "135")


@dataclass(frozen=True)
class Item:
    """One image of the benchmark.

    Parameters
    ----------
    name
        Its path without what tells its files apart.
    files
        By part: ``"RGB"``, ``"depth"``, ...; whether they exist was not looked at.
    labels
        Its instance ids.
    """

    name: str
    files: dict[str, Path]
    labels: Path


@dataclass(frozen=True)
class Layout:
    """How a part of the benchmark lies on disk.

    Parameters
    ----------
    folder
        What its folder is called.
    needs
        What lies in it, by which it is known.
    items
        Lists the images of a split that are not broken.
    smallest
        Regions have more pixels than this at 1024 x 1024.
    """

    folder: str
    needs: tuple[str, ...]
    items: Lister
    smallest: int = 0


def _zju(folder: Path, split: Split) -> Iterator[Item]:
    """{train,val}/{0,45,90,135}/NAME_{angle} and a degree sign.png, label_sam/NAME.png."""
    side = folder / ("train" if split == "train" else "val")
    by_angle = {}
    for angle in ANGLES:
        # Programs that unpack archives spell the degree sign in several ways.
        pattern = re.compile(rf"(.+)_{angle}[^0-9A-Za-z]*[.]png", re.IGNORECASE)
        names = {}
        for path in _listed(side / angle):
            if found := pattern.fullmatch(unicodedata.normalize("NFC", path.name)):
                names[found[1]] = path
        by_angle[angle] = names
    for name in by_angle["0"]:
        files = {
            angle: by_angle[angle].get(name, side / angle / f"{name}_{angle}\N{DEGREE SIGN}.png")
            for angle in ANGLES
        }
        yield Item(f"{side.name}/{name}", files, side / "label_sam" / f"{name}.png")


def _pgsnet(folder: Path, split: Split) -> Iterator[Item]:
    """{train,test}/image/*_rgb.tiff; beside it aolp, dolp and instance_mask. Two are broken."""
    side = folder / split
    for path in _listed(side / "image"):
        name = path.name.removesuffix("_rgb.tiff")
        if name == path.name or any(broken in name for broken in PGSNET_BROKEN):
            continue
        files = {
            "RGB": path,
            "AoLP": side / "aolp" / f"{name}_aolp.tiff",
            "DoLP": side / "dolp" / f"{name}_dolp.tiff",
        }
        yield Item(f"{split}/{name}", files, side / "instance_mask" / f"{name}_instance_mask.png")


def _nyu(folder: Path, split: Split) -> Iterator[Item]:
    """{train,test}.txt, tab separated, first column RGB/ID.jpg. Two are broken."""
    for line in _text(folder / f"{split}.txt", "utf-8-sig").splitlines():
        if not line.strip():
            continue
        path = _inside(line.split("\t")[0], folder / f"{split}.txt")
        name = path.stem
        if name in NYU_BROKEN:
            continue
        files = {
            "RGB": folder / path,
            "depth": folder / "Depth" / f"{name}.npy",
            "HHA": folder / "HHA" / f"{name}.jpg",
        }
        yield Item(name, files, folder / "Mask_gt" / f"{name}.png")


def _ivrg(folder: Path, split: Split) -> Iterator[Item]:
    """IVRG-nir_{train,test}_GroundTruth.csv: NIR image and mask below Outdoor_dataset."""
    root = folder / "Outdoor_dataset"
    for image, mask in _table(folder / f"IVRG-nir_{split}_GroundTruth.csv", "Outdoor_dataset"):
        rgb = image.as_posix().replace("NIRimages", "RGBimages").replace("_nir", "_rgb")
        files = {"NIR": root / image, "RGB": root / rgb}
        yield Item(image.with_suffix("").as_posix(), files, root / mask)


def _thermal(folder: Path, split: Split) -> Iterator[Item]:
    """RGB_T_Glass_{train,test}_GroundTruth.csv: ...rgb.png and mask, beside ...temperature.npy."""
    for image, mask in _table(folder / f"RGB_T_Glass_{split}_GroundTruth.csv", THERMAL):
        name = image.as_posix().removesuffix("rgb.png")
        files = {"RGB": folder / image, "thermal": folder / f"{name}temperature.npy"}
        yield Item(name.rstrip("_-./ "), files, folder / mask)


LAYOUTS: dict[str, Layout] = {
    "zju-rgbp": Layout("zju-rgbp", ("train", "val"), _zju, 10_000),
    "pgsnet": Layout("pgsnet", ("train/image", "test/image"), _pgsnet, 100),
    "NYUDepthv2": Layout("NYUDepthv2", ("train.txt", "test.txt", "Mask_gt"), _nyu),
    "IVRG_RGBNIR": Layout(
        "IVRG_RGBNIR",
        ("IVRG-nir_train_GroundTruth.csv", "IVRG-nir_test_GroundTruth.csv", "Outdoor_dataset"),
        _ivrg,
        1000,
    ),
    THERMAL: Layout(
        THERMAL,
        ("RGB_T_Glass_train_GroundTruth.csv", "RGB_T_Glass_test_GroundTruth.csv"),
        _thermal,
    ),
}
"""By the name of the folder."""


def find_layout(folder: Path, layout: Layout, key: str) -> Path:
    """The folder that has the layout: `folder` or the one of the layout's name in it.

    Raises
    ------
    ValueError, OSError
        If neither has; the sentence names what is missing.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; check its name.")
    inside = folder / layout.folder
    chosen = inside if inside.is_dir() else folder
    missing = [name for name in layout.needs if not (chosen / name).exists()]
    if missing:
        raise ValueError(
            f"{chosen} has no {', '.join(missing)}, so it is not laid out as the benchmark's "
            f"{layout.folder}, which {key} is read from; give the folder that holds "
            f"{', '.join(layout.needs)}."
        )
    return chosen


def check_files(items: Sequence[Item], parts: Iterable[str]) -> None:
    """Refuse a list of images of which files are missing.

    Raises
    ------
    FileNotFoundError
        If files of the `parts`, or labels, are not there.
    """
    wanted = tuple(parts)
    missing = [
        path
        for item in items
        for path in (*(item.files[part] for part in wanted), item.labels)
        if not path.is_file()
    ]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FileNotFoundError(
            f"{missing[0]}{more} should be there but {'are' if more else 'is'} missing; complete "
            "the data set, or take the image out of its list."
        )


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _table(path: Path, root: str) -> Iterator[tuple[PurePosixPath, PurePosixPath]]:
    """Image and mask of each row below the heading: columns 1 and 2, counted from 0."""
    rows = list(csv.reader(_text(path, "gbk").splitlines()))
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) < 3:
            raise ValueError(
                f"{path.name}, line {number}, has {len(row)} columns; the second holds an image "
                "and the third its mask. Take the file as it was published."
            )
        yield _inside(row[1], path, root), _inside(row[2], path, root)


def _inside(text: str, file: Path, root: str = "") -> PurePosixPath:
    """A path that a list names, relative to the data set; what leads up to `root` is dropped.

    The published lists were written on other machines, so that paths may start with their folders.
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


def _text(path: Path, encoding: str) -> str:
    try:
        return path.read_text(encoding)
    except UnicodeDecodeError:
        raise ValueError(
            f"{path.name} is not text in {encoding.removesuffix('-sig')}; take the file as it was "
            "published."
        ) from None

"""Folders of images and label images: pairs of files, and data sets of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape
from napari_simmat.datasets.dataset import DataConfig, Dataset
from napari_simmat.datasets.labeled_image import LabeledImage, LabeledSource
from napari_simmat.datasets.split import SplitImages, assemble_dataset_job
from napari_simmat.engine.channels.matching import RGB
from napari_simmat.engine.image_stack import check_one_shape
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.io.axes import UNKNOWN_AXES, same_except_singletons
from napari_simmat.io.captures import (
    find_captures,
    home_of,
    names_captures,
    proposal_text,
    propose_in,
)
from napari_simmat.io.dicom import holds_dicom
from napari_simmat.io.elsewhere import is_read_elsewhere
from napari_simmat.io.files import sha256_of
from napari_simmat.io.image_file import ImageFile, drop_singleton_channel
from napari_simmat.io.readers import (
    is_image_file,
    is_image_folder,
    read_image,
    read_labels,
    stem_of,
)
from napari_simmat.progress import Job, finish

logger = logging.getLogger(__name__)
SPLIT_FOLDERS = ("train",), ("validation", "val"), ("test",)
"""Names of subfolders that split a data set."""
LABELS_SUFFIX = "_labels"
"""Follows an image's stem in the name of its label image."""
AS_IN_FILE = ChannelSelection()
HOW_TO_PAIR = (
    f"save each label image as STEM{LABELS_SUFFIX}.tif next to its image STEM.tif, or put the "
    "images in a folder images and the labels, with the same names, in a folder labels"
)


def from_folder(folder: Path | str, config: DataConfig | None = None) -> Dataset:
    """The data set of a folder; see `read_folder_job`."""
    return finish(read_folder_job(folder, config))


def read_folder_job(folder: Path | str, config: DataConfig | None = None) -> Job[Dataset]:
    """Make a data set of a folder of labeled images; every plane with objects is a sample.

    Images and labels belong together as for `find_labeled_files`: STEM.tif and STEM_labels.tif, or
    images/ and labels/. The channels of an image may also lie in one file each: then the folder is
    a pattern, ``{capture}_{band}.tif``, or `config.selection` names them, STEM_CHANNEL.tif.

    Subfolders train, validation (or val) and test, if they exist, define the split; otherwise
    groups of images are kept for validation. The planes of a stack, and of a series of files
    numbered STEM_t01, STEM_z02 and alike, are one group.

    Parameters
    ----------
    folder
        The folder, or a pattern of captures in it (`io.captures`).
    config
        Channels, normalization, split.

    Raises
    ------
    ValueError, TypeError, OSError
        If it cannot be used; the message says what was found, what is expected and what to do.
    """
    folder = Path(folder)
    config = config or DataConfig()
    home = home_of(folder) if names_captures(folder) else folder
    train, validation, test = (
        next((_within(folder, name) for name in names if (home / name).is_dir()), None)
        for names in SPLIT_FOLDERS
    )
    if train is None and validation is None:
        images = SplitImages(find_images(folder, config))
    elif train is None:
        assert validation is not None
        raise ValueError(
            f"{home} has a folder {_split_name(validation)} but none for training; put the "
            f"images to train on into {home / 'train'}."
        )
    else:
        images = SplitImages(
            find_images(train, config, "train/"),
            [] if validation is None else find_images(validation, config, "validation/"),
            [] if test is None else find_images(test, config, "test/"),
        )
        if validation is None:
            logger.info("%s has no folder validation; a part of train is kept for it.", folder)
    return (yield from assemble_dataset_job(images, config, home.resolve().name))


def _split_name(folder: Path) -> str:
    """The name of a subfolder, also where captures in it are meant."""
    return (home_of(folder) if names_captures(folder) else folder).name


def _within(folder: Path, name: str) -> Path:
    """A subfolder, or the pattern of captures there."""
    return home_of(folder) / name / folder.name if names_captures(folder) else folder / name


def find_images(folder: Path, config: DataConfig, prefix: str = "") -> list[LabeledSource]:
    """The labeled images of a folder, one file each or one file per channel.

    The channels of `config`, if they are names, may be endings of files. Subfolders other than
    images/ and labels/ are ignored; `prefix` goes before the images' names.
    """
    chosen = config.selection.channels or ()
    names = [channel.strip() for channel in chosen if isinstance(channel, str)]
    if names and len(names) == len(chosen) and not names_captures(folder):
        images, labels = files_by_stem(folder)
        by_ending = {stem.casefold(): path for stem, path in images.items()}
        there = [[f"{stem}_{name}".casefold() in by_ending for name in names] for stem in labels]
        alone = not any(stem in images for stem in labels)
        if any(all(row) for row in there) or (alone and any(any(row) for row in there)):
            return _one_file_per_channel(by_ending, labels, names, prefix)
    return [
        replace(file, name=prefix + file.name, selection=config.selection)
        for file in find_labeled_files(folder)
    ]


@dataclass(frozen=True)
class ChannelFiles:
    """An image with one file for each channel; `name` is their stem without the channel."""

    name: str
    channels: tuple[tuple[str, Path], ...]
    labels: Path

    def read(self) -> LabeledImage:
        """All channels and the labels.

        Raises
        ------
        ValueError
            If a file cannot be read, has several channels, or another shape than the others.
        """
        files = [drop_singleton_channel(read_image(path)) for _, path in self.channels]
        for file in files:
            if file.channel_axis is not None:
                raise ValueError(
                    f"{file.path.name} has {file.data.shape[file.channel_axis]} channels, but "
                    f"where each channel has its file (STEM_CHANNEL) it holds one; save it in gray."
                )
        check_one_shape([file.path.name for file in files], [file.shape for file in files])
        labels = read_labels(self.labels)
        if not same_except_singletons(labels.shape, files[0].shape):
            raise ValueError(
                f"{self.labels.name} has the shape {format_shape(labels.shape)}, "
                f"{files[0].path.name} has {format_shape(files[0].shape)}; give labels of the "
                "image's size."
            )
        names = tuple(name for name, _ in self.channels)
        arrays, pixel_size = [file.data for file in files], files[0].pixel_size
        values = np.asarray(labels.data).reshape(files[0].shape)
        return LabeledImage(self.name, arrays, values, None, names, pixel_size).read()


def known_names(file: ImageFile, channel_axis: int | None) -> tuple[str, ...] | None:
    """The file's names of the channels along an axis, if that is its own channel axis."""
    if channel_axis is None or channel_axis % file.data.ndim != file.channel_axis:
        return None
    if file.rgb:
        return (*RGB, "alpha")[: file.data.shape[file.channel_axis]]
    return file.channel_names


def _one_file_per_channel(
    by_ending: dict[str, Path], labels: dict[str, Path], names: Sequence[str], prefix: str
) -> list[LabeledSource]:
    found: list[LabeledSource] = []
    for stem, path in labels.items():
        channels = {name: by_ending.pop(f"{stem}_{name}".casefold(), None) for name in names}
        missing = [name for name, file in channels.items() if file is None]
        if missing:
            raise ValueError(
                f"{stem} has labels ({path.name}) but no file for channel {', '.join(missing)}; "
                f"every image needs {', '.join(f'{stem}_{name}' for name in names)}. Add the "
                "missing file, or take the labels out."
            )
        files = tuple((name, file) for name, file in channels.items() if file is not None)
        found.append(ChannelFiles(prefix + stem, files, path))
    endings = tuple(f"_{name}".casefold() for name in names)
    alone = [file.name for stem, file in by_ending.items() if stem.endswith(endings)]
    if alone:
        logger.warning(
            "%d files without labels left out: %s.", len(alone), ", ".join(sorted(alone)[:5])
        )
    return found


@dataclass(frozen=True)
class LabeledFile:
    """An image in a file and its true objects in another.

    Parameters
    ----------
    name
        The image's stem.
    image, labels
        Files, or folders that are one image (OME-Zarr, DICOM).
    selection
        Where the channels are, and the shape of a pixel; by default as the file says.
    """

    name: str
    image: Path
    labels: Path
    selection: ChannelSelection = AS_IN_FILE

    def read(self) -> LabeledImage:
        """The image with the channel names that the file has, and labels of its shape.

        Leading axes of length one, which some programs write and others do not, are ignored. If
        NIfTI headers give the two different orientations, a warning is logged once.

        Raises
        ------
        ValueError
            If a file cannot be read, or the shapes differ.
        """
        image, labels = self.selection.stated(read_image(self.image)), read_labels(self.labels)
        axis = self.selection.over(ChannelSelection(channel_axis=image.channel_axis)).channel_axis
        sizes = [int(size) for size in image.data.shape]
        if axis is not None and -len(sizes) <= axis < len(sizes):
            del sizes[axis]
        if not same_except_singletons(sizes, labels.shape):
            letters = [each for n, each in enumerate(image.axes) if n != axis]
            raise ValueError(
                size_misfit(
                    self.labels.name, labels.shape, self.image.name, sizes, "".join(letters)
                )
            )
        if image.affine is not None and labels.affine is not None:
            _compare_directions(self.image, image.affine, self.labels, labels.affine)
        values = np.asarray(labels.data).reshape(sizes)
        names = known_names(image, axis)
        return LabeledImage(self.name, image.data, values, axis, names, image.pixel_size).read()


def size_misfit(
    labels: str, found: Sequence[int], image: str, shape: Sequence[int], axes: str = ""
) -> str:
    """What is said of labels of another size than their image, and what may be the cause.

    Parameters
    ----------
    labels, found, image, shape
        Names and shapes, of the image without channels.
    axes
        The image's letters for these, if they are known.
    """
    axes = axes if len(axes) == len(shape) else "Q" * (len(shape) - 2) + "YX"
    left_out = [
        axes[n]
        for n in range(len(shape) - 2)
        if same_except_singletons((*shape[:n], *shape[n + 1 :]), found)
    ]
    advice = "say with --channel-axis which axis holds channels"
    if left_out and left_out[0] not in UNKNOWN_AXES:
        advice = f"say which plane or projection they are of, e.g. with --plane {left_out[0]}=max"
    return (
        f"{labels} has the shape {format_shape(found)}, the image {image} without channels "
        f"{format_shape(shape)}; give labels of the image's size, or {advice}."
    )


def find_labeled_files(folder: Path) -> list[LabeledFile]:
    """Images with labels, sorted by name: STEM.tif and STEM_labels.tif, or images/ and labels/.

    STEM may be a folder that is one image, too. Images without labels and labels without image are
    left out with a warning.

    Raises
    ------
    ValueError, OSError
        If there are none, or two images share a name; the message says what to do.
    """
    images, labels = files_by_stem(folder)
    pairs = [
        LabeledFile(stem, path, labels[stem]) for stem, path in images.items() if stem in labels
    ]
    if not pairs:
        proposal = propose_in(folder)
        hint = f" {proposal_text(proposal)}" if proposal else ""
        raise ValueError(f"No image in {folder} has labels; {HOW_TO_PAIR}.{hint}")
    for these, others, lack in ((images, labels, "labels"), (labels, images, "an image")):
        if alone := [path.name for stem, path in these.items() if stem not in others]:
            listed = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
            logger.warning("%d without %s left out: %s.", len(alone), lack, listed)
    return pairs


def files_by_stem(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The images and the label images of a folder by the image's stem, matching or not.

    Raises
    ------
    ValueError, OSError
        If there is no image, or two have one stem.
    """
    if names_captures(folder):
        return _captures_by_stem(folder)
    if not folder.exists():
        raise FileNotFoundError(f"There is no folder {folder}; check its name.")
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is a file; give the folder that holds images, and {HOW_TO_PAIR}."
        )
    inside, labels_inside = folder / "images", folder / "labels"
    if inside.is_dir() and labels_inside.is_dir():
        files, label_files = _entries(inside), _entries(labels_inside)
    else:
        files, label_files = [], []
        for path in _entries(folder):
            (label_files if stem_of(path).endswith(LABELS_SUFFIX) else files).append(path)
    labels = _by_stem(filter(_is_image, label_files), without=LABELS_SUFFIX)
    images = _by_stem(filter(_is_image, files))
    # Other files of the same stem may be notes, so readers for any kind of file come last.
    missing = labels.keys() - images.keys()
    others = _by_stem(
        path for path in files if stem_of(path) in missing and is_read_elsewhere(path)
    )
    images = dict(sorted({**images, **others}.items(), key=lambda item: item[1]))
    if not images:
        raise ValueError(f"There is no image in {folder}; {HOW_TO_PAIR}.")
    return images, labels


def _captures_by_stem(pattern: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """`files_by_stem` of captures, whose labels lie beside their bands, or in labels/."""
    captures = find_captures(pattern).images
    labels: list[Path] = []
    for home in sorted({home_of(path) for path in captures}):
        aside = home.parent / "labels"
        apart = home.name == "images" and aside.is_dir()
        there = _entries(aside if apart else home)
        labels += [path for path in there if apart or stem_of(path).endswith(LABELS_SUFFIX)]
    return _by_stem(captures), _by_stem(filter(_is_image, labels), without=LABELS_SUFFIX)


def fingerprint(files: Sequence[LabeledFile]) -> str:
    """SHA-256 of a set: names and contents of images and labels, in order."""
    digest = hashlib.sha256()
    for file in files:
        hashes = [
            sha256_of(path) if path.is_file() else read_image(path).sha256()
            for path in (file.image, file.labels)
        ]
        text = f"{file.name}\0{''.join(hashes)}"
        digest.update(text.encode(errors="surrogateescape"))  # a name's bytes need not be text
    return digest.hexdigest()


def image_entries(folder: Path) -> list[Path]:
    """The images of a folder by name: files, and folders that are one image."""
    return [path for path in _entries(folder) if _is_image(path)]


def _entries(folder: Path) -> list[Path]:
    """A folder's entries by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    """Whether a file is an image by its name, or a folder by its content."""
    if path.is_dir():
        return is_image_folder(path) or holds_dicom(path)
    return path.is_file() and is_image_file(path)


def _by_stem(paths: Iterable[Path], without: str = "") -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        stem = stem_of(path).removesuffix(without)
        if stem in found:
            raise ValueError(
                f"{found[stem].name} and {path.name} have the same stem, so it is not clear what "
                "belongs together; keep one of them in the folder, or rename it."
            )
        found[stem] = path
    return found


def _compare_directions(
    image: Path, image_affine: NDArray[Any], labels: Path, labels_affine: NDArray[Any]
) -> None:
    """Warn of labels that may be mirrored; headers are too often wrong to turn them by these."""
    nibabel: Any = import_module("nibabel")  # it has no types
    affines = image_affine, labels_affine
    ours, theirs = ("".join(way or "?" for way in nibabel.aff2axcodes(each)) for each in affines)
    if ours != theirs:
        _warn_once(
            f"By their headers, the voxels of {labels.name} run {theirs}, those of {image.name} "
            f"{ours}. They are used as stored: check whether they match."
        )


@cache
def _warn_once(words: str) -> None:
    """Log a message once, as training reads a file many times."""
    logger.warning(words)

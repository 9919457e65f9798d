"""A folder of images and label images as a data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_simmat.engine.formats.image_file import same_but_for_ones, without_lone_channel
from napari_simmat.engine.formats.reading import read_image, read_labels
from napari_simmat.learn.datasets.assembling import Images, assembling
from napari_simmat.learn.datasets.channels import known_names
from napari_simmat.learn.datasets.content import Content, LabelledImage
from napari_simmat.learn.datasets.dataset import DataConfig, Dataset
from napari_simmat.learn.labelled import LabelledFile, files_by_stem, find_labelled
from napari_simmat.progress import Job, finish
from napari_simmat.words import format_shape

logger = logging.getLogger(__name__)

TRAIN, VALIDATION, TEST = ("train",), ("validation", "val"), ("test",)
"""Names of subfolders that split a data set."""


def from_folder(folder: Path | str, config: DataConfig | None = None) -> Dataset:
    """The data set of a folder; see `reading_folder`."""
    return finish(reading_folder(folder, config))


def reading_folder(folder: Path | str, config: DataConfig | None = None) -> Job[Dataset]:
    """Read a folder of labelled images, 2D or stacks, of which every plane with objects counts.

    Images and labels belong together as for `find_labelled`: STEM.tif and STEM_labels.tif, or
    images/ and labels/. The channels of an image may also lie in one file each, STEM_CHANNEL.tif,
    if `config.channels` names them. Subfolders train and validation (or val), and test, where they
    exist, are the split; else groups of images are kept for validation: the planes of a stack,
    and of a series of files numbered STEM_t01, STEM_z02 and alike, are one group.

    Parameters
    ----------
    folder
        The folder.
    config
        Channels, normalisation, split.

    Raises
    ------
    ValueError, TypeError, OSError
        If it cannot be used; one sentence says what was met, what would be right, what to do.
    """
    folder, config = Path(folder), config or DataConfig()
    train = _subfolder(folder, TRAIN)
    validation = _subfolder(folder, VALIDATION)
    test = _subfolder(folder, TEST)
    if train is None and validation is None:
        images = Images(find_images(folder, config))
    elif train is None:
        assert validation is not None
        raise ValueError(
            f"{folder} has a folder {validation.name} but none for training; put the images to "
            f"train on into {folder / 'train'}."
        )
    else:
        images = Images(
            find_images(train, config, "train/"),
            [] if validation is None else find_images(validation, config, "validation/"),
            [] if test is None else find_images(test, config, "test/"),
        )
        if validation is None:
            logger.info("%s has no folder validation; a part of train is kept for it.", folder)
    return (yield from assembling(images, config, folder.resolve().name))


def find_images(folder: Path, config: DataConfig, prefix: str = "") -> list[LabelledImage]:
    """The labelled images of a folder, one file each or one file per channel.

    Parameters
    ----------
    folder
        Without subfolders but images/ and labels/.
    config
        Its channels, if they are names, may be endings of files.
    prefix
        Put before the images' names.
    """
    names = _endings(config)
    if names:
        images, labels = files_by_stem(folder)
        by_ending = {_plain(stem): path for stem, path in images.items()}
        there = [[_plain(f"{stem}_{name}") in by_ending for name in names] for stem in labels]
        alone = not any(stem in images for stem in labels)
        if any(all(row) for row in there) or (alone and any(any(row) for row in there)):
            return _one_file_per_channel(by_ending, labels, names, prefix)
    return [ImageOfFile(file, config.channel_axis, prefix) for file in find_labelled(folder)]


@dataclass(frozen=True)
class ImageOfFile:
    """An image in one file.

    Parameters
    ----------
    file
        Image and labels.
    channel_axis
        Which axis holds the channels, if the file does not say.
    prefix
        Put before the name.
    """

    file: LabelledFile
    channel_axis: int | None = None
    prefix: str = ""

    @property
    def name(self) -> str:
        """The image's stem, after the prefix."""
        return self.prefix + self.file.name

    def read(self) -> Content:
        """Image and labels; the channels' names are those that the file has."""
        image, labels = self.file.read(self.channel_axis)
        axis = image.channel_axis if self.channel_axis is None else self.channel_axis
        names = known_names(image, axis)
        return Content(image.data, labels, axis, names, image.pixel_size)


@dataclass(frozen=True)
class ImageOfChannelFiles:
    """An image whose channels lie in one file each.

    Parameters
    ----------
    name
        The stem without the channel.
    channels
        Name and file of each channel.
    labels
        The label image.
    """

    name: str
    channels: tuple[tuple[str, Path], ...]
    labels: Path

    def read(self) -> Content:
        """All channels and the labels.

        Raises
        ------
        ValueError
            If a file cannot be read, or is not of one channel and the others' shape.
        """
        files = [without_lone_channel(read_image(path)) for _, path in self.channels]
        for file in files:
            if file.channel_axis is not None:
                raise ValueError(
                    f"{file.path.name} has {file.data.shape[file.channel_axis]} channels, but "
                    f"where each channel has its file (STEM_CHANNEL) it holds one; save it in grey."
                )
            if file.shape != files[0].shape:
                raise ValueError(
                    f"{file.path.name} has the shape {format_shape(file.shape)}, "
                    f"{files[0].path.name} has {format_shape(files[0].shape)}; all channels of an "
                    "image need one shape."
                )
        labels = read_labels(self.labels)
        if not same_but_for_ones(labels.shape, files[0].shape):
            raise ValueError(
                f"{self.labels.name} has the shape {format_shape(labels.shape)}, "
                f"{files[0].path.name} has {format_shape(files[0].shape)}; give labels of the "
                "image's size."
            )
        names = tuple(name for name, _ in self.channels)
        arrays, pixel_size = [file.data for file in files], files[0].pixel_size
        values = np.asarray(labels.data).reshape(files[0].shape)
        return Content(arrays, values, names=names, pixel_size=pixel_size)


def _one_file_per_channel(
    by_ending: dict[str, Path], labels: dict[str, Path], names: Sequence[str], prefix: str
) -> list[LabelledImage]:
    found: list[LabelledImage] = []
    for stem, path in labels.items():
        channels = {name: by_ending.pop(_plain(f"{stem}_{name}"), None) for name in names}
        missing = [name for name, file in channels.items() if file is None]
        if missing:
            raise ValueError(
                f"{stem} has labels ({path.name}) but no file for channel {', '.join(missing)}; "
                f"every image needs {', '.join(f'{stem}_{name}' for name in names)}. Add the "
                "missing file, or take the labels out."
            )
        files = tuple((name, file) for name, file in channels.items() if file is not None)
        found.append(ImageOfChannelFiles(prefix + stem, files, path))
    endings = tuple(_plain(f"_{name}") for name in names)
    alone = [file.name for stem, file in by_ending.items() if stem.endswith(endings)]
    if alone:
        logger.warning(
            "%d files without labels left out: %s.", len(alone), ", ".join(sorted(alone)[:5])
        )
    return found


def _endings(config: DataConfig) -> list[str]:
    """The channels' names, if all are names."""
    channels = config.channels or ()
    names = [str(channel).strip() for channel in channels if isinstance(channel, str)]
    return names if len(names) == len(channels) else []


def _subfolder(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _plain(stem: str) -> str:
    return stem.casefold()

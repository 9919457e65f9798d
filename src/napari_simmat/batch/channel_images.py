"""Images made from the channels of others, file by file: derived, or registered."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.batch.inputs import InputImage, shown_name
from napari_simmat.batch.loaded_image import OpenedImage
from napari_simmat.batch.plan import find_images
from napari_simmat.engine.channels.matching import channel_index
from napari_simmat.engine.channels.registration import (
    ChannelMotion,
    Motion,
    agreement,
    register_channels_job,
)
from napari_simmat.engine.channels.rig import Rig, in_type
from napari_simmat.engine.drawing import to_rgb
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.io.channel_files import (
    CHANNEL_FORMATS,
    check_channel_format,
    keeps_missing,
    write_channels,
)
from napari_simmat.io.part import WHOLE, ImagePart
from napari_simmat.io.readers import open_image, stem_of
from napari_simmat.io.reference import ImageReference
from napari_simmat.progress import Job, Progress

ONE_FILE = "{} is {} images, and {} is one file; give a folder for their results."
EXISTS = "{} exists already. Use --overwrite to replace it, or another output."
OVER_INPUT = "{} would be overwritten by an output. Choose another output folder."
TWICE = "{} and {} would both be written to {}. Rename one, or register them separately."
MOVED_SINCE = (
    "{} agrees with {} less than on {}, where the rig was measured: {:.2f}, not {:.2f}. Look at "
    "the result; if the cameras have moved against each other, measure anew."
)
_LESS = 0.5
"""Of the agreement on the image that was measured, from which on that is said."""
ALL_TAKEN = "Its pixels have all values of their type, so it is written as float, NaN without data."
NO_REFERENCE = "There is no channel {}; give --reference by name, or from 0 to {}."


class ChannelSource(NamedTuple):
    """Which channels of an image are read, and of which part of it."""

    selection: ChannelSelection
    part: ImagePart = WHOLE


@dataclass(frozen=True, eq=False)
class ChannelImage:
    """The chosen channels of an image.

    Parameters
    ----------
    name
        The image's, for the user.
    planes
        For each channel (..., Y, X).
    names
        Of the channels; their numbers where the file has none.
    axes
        A letter for each axis of `planes`.
    reference
        What files made from them keep of the image.
    notes
        What was left out of the file, or is missing in it.
    """

    name: str
    planes: tuple[NDArray[Any], ...]
    names: tuple[str, ...]
    axes: str
    reference: ImageReference
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path, source: ChannelSource, output: Path) -> ChannelImage:
        """Read what a command needs, once it is known that its output can hold it."""
        opened = OpenedImage.of(open_image(path, part=source.part), source.selection)
        reference = opened.image.reference
        lost = check_channel_format(output, opened.axes, reference)
        data = np.asarray(opened.image.data)
        planes = [data] if opened.axis is None else list(np.moveaxis(data, opened.axis, 0))
        known = opened.channel_names
        wanted = range(len(planes)) if opened.channels is None else opened.channels
        chosen = [channel_index(channel, len(planes), known) for channel in wanted]
        return cls(
            shown_name(path),
            tuple(planes[n] for n in chosen),
            tuple(known[n] if known else str(n) for n in chosen),
            opened.axes,
            reference,
            (*opened.image.notes, *filter(None, [lost])),
        )


class MadeChannels(NamedTuple):
    """What is made from an image: channels by name, what was done, the value without data."""

    channels: Mapping[str, NDArray[Any]]
    description: str = ""
    missing: int | None = None
    notes: tuple[str, ...] = ()


class MadeImage(NamedTuple):
    """What became of an image: its file and channels, or the problem."""

    image: Path
    file: Path
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""


def plan_targets(image: Path, output: Path, *, overwrite: bool) -> dict[Path, Path]:
    """The file that is written for each image: `output`, or one for each image of a folder there.

    Parameters
    ----------
    image
        An image; or a folder, a pattern or a manifest of images, as for `batch.plan.find_inputs`.
    output
        A file, or for several images a folder, in which theirs are called STEM.tif.
    overwrite
        Whether files that exist may be replaced.

    Raises
    ------
    ValueError, OSError
        If there is no image, or a file exists, is an input, or of two images.
    """
    found = find_images([image])
    is_file = output.name.lower().endswith(tuple(CHANNEL_FORMATS))
    if is_file and len(found) > 1:
        raise ValueError(ONE_FILE.format(image, len(found), output))
    if is_file or (len(found) == 1 and found[0].named):
        targets = {found[0].image: output}
    else:
        targets = {one.image: _target(one, output) for one in found}
    owners: dict[str, Path] = {}
    inputs = {os.path.realpath(one.image) for one in found}
    for source, target in targets.items():
        key = os.path.realpath(target).casefold()
        if os.path.realpath(target) in inputs:
            raise ValueError(OVER_INPUT.format(target))
        if key in owners:
            raise ValueError(TWICE.format(owners[key], source, target))
        owners[key] = source
        if target.exists() and not overwrite:
            raise ValueError(EXISTS.format(target))
    return targets


def _target(one: InputImage, output: Path) -> Path:
    return output / one.folder / f"{stem_of(one.image)}.tif"


def make_images_job(
    targets: Mapping[Path, Path],
    read: ChannelSource,
    make: Callable[[ChannelImage, Path], MadeChannels],
) -> Job[list[MadeImage]]:
    """Make a file of each image; one that cannot be made is reported, and the others go on."""
    made = []
    for number, (source, target) in enumerate(targets.items()):
        yield Progress(number, len(targets), shown_name(source))
        try:
            image = ChannelImage.read(source, read, target)
            result = make(image, target)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_channels(
                target,
                result.channels,
                image.axes,
                image.reference,
                result.description,
                result.missing,
            )
        except (ValueError, OSError) as error:
            if len(targets) == 1:
                raise
            made.append(MadeImage(source, target, problem=str(error)))
        else:
            notes = (*image.notes, *result.notes)
            made.append(MadeImage(source, target, tuple(result.channels), notes))
    return made


def reference_number(image: ChannelImage, reference: str) -> int:
    """Which channel is called, or has the number, `reference`; ValueError if there is none."""
    try:
        return channel_index(reference, len(image.planes), image.names)
    except ValueError:
        raise ValueError(NO_REFERENCE.format(reference, len(image.planes) - 1)) from None


def measure_rig_job(image: ChannelImage, reference: str, motion: Motion) -> Job[Rig]:
    """Measure how the channels of an image lie to each other, on the middle plane of a stack.

    Raises ValueError if there is no channel called, or numbered, `reference`.
    """
    number = reference_number(image, reference)
    middle = tuple(size // 2 for size in image.planes[0].shape[:-2])
    planes = [plane[middle] for plane in image.planes]
    motions: Sequence[ChannelMotion]
    motions = yield from register_channels_job(planes, number, motion)
    return Rig(
        reference=image.names[number],
        motion=motion,
        shape=(planes[0].shape[0], planes[0].shape[1]),
        channels=dict(zip(image.names, motions, strict=True)),
        measured_on=image.name,
    )


def register_image(image: ChannelImage, rig: Rig, target: Path) -> MadeChannels:
    """The channels of an image on the pixels of the rig's reference, in the image's type.

    Raises ValueError if the image is not of the rig.
    """
    rig.check(image.name, image.names, image.planes[0].shape[-2:])
    moved = rig.register(image.planes)
    dtype = np.result_type(*image.planes)
    missing = None
    notes = _moved_since(image, moved, rig)
    if keeps_missing(target):
        moved, missing = in_type(moved, dtype)
        if moved[0].dtype != dtype:
            notes += (ALL_TAKEN,)
    common = np.result_type(*moved)
    channels = {
        name: plane.astype(common, copy=False)
        for name, plane in zip(image.names, moved, strict=True)
    }
    return MadeChannels(channels, rig.words, missing, notes)


def _moved_since(image: ChannelImage, moved: Sequence[NDArray[Any]], rig: Rig) -> tuple[str, ...]:
    """What is to be said of channels that do not lie on the reference as they did when measured."""
    middle = tuple(size // 2 for size in image.planes[0].shape[:-2])
    fixed = moved[image.names.index(rig.reference)][middle]
    notes = []
    for name, plane in zip(image.names, moved, strict=True):
        known = rig.channels[name].after
        if name == rig.reference or known is None:
            continue
        found = agreement(fixed, plane[middle])
        if found < _LESS * known:
            notes.append(MOVED_SINCE.format(name, rig.reference, rig.measured_on, found, known))
    return tuple(notes)


_CAPTION = 14
"""Height in pixels of the words above each pair of pictures."""
_SHOWN = 384
"""Pixels of the middle of an image that `draw_rig` shows: a shift is seen in full size only."""


def draw_rig(image: ChannelImage, rig: Rig) -> NDArray[np.uint8]:
    """A picture of each channel (cyan) on the reference (red): on the left before, then after.

    Where both show the same edges, these are gray. Of a stack it shows the middle plane.
    """
    middle = tuple(size // 2 for size in image.planes[0].shape[:-2])
    planes = [plane[middle] for plane in image.planes]
    fixed = planes[image.names.index(rig.reference)]
    window = tuple(
        slice(max(0, (size - _SHOWN) // 2), (size + _SHOWN) // 2) for size in fixed.shape
    )
    gap = 4
    rows = []
    for name, before, after in zip(image.names, planes, rig.register(planes), strict=True):
        if name != rig.reference:
            pair = [_on_reference(fixed[window], each[window]) for each in (before, after)]
            row = np.concatenate([np.pad(each, ((0, gap), (0, gap), (0, 0))) for each in pair], 1)
            words = f"{name} on {rig.reference}: before, after"
            rows += [_caption(words, row.shape[1]), row]
    return np.concatenate(rows) if rows else _on_reference(fixed[window], fixed[window])


def _caption(words: str, width: int) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (width, _CAPTION))
    ImageDraw.Draw(picture).text((2, 1), words, "white")
    return np.asarray(picture)


def _on_reference(fixed: NDArray[Any], channel: NDArray[Any]) -> NDArray[np.uint8]:
    red, cyan = (to_rgb(each[np.newaxis])[..., 0] for each in (fixed, channel))
    return np.stack([red, cyan, cyan], axis=-1)

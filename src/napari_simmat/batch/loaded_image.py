"""Read what one image of a run needs: the image, its prompts, its tissue; all settings together."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_simmat._text import format_shape
from napari_simmat.batch.plan import INSIDE, OutputFiles, SegmentConfig, SegmentTask
from napari_simmat.batch.record import RecordedInput, RecordedSettings, is_record, read_record
from napari_simmat.engine.channels.registration import farthest_shift
from napari_simmat.engine.everything.tissue import AUTO, TissueMask, find_tissue
from napari_simmat.engine.files.objects import format_problem
from napari_simmat.engine.files.prompts import read_prompts
from napari_simmat.engine.image_stack import ArraySource, ChannelStack
from napari_simmat.engine.measuring.measured_image import MeasuredImage, column_names
from napari_simmat.engine.prompts import LazyPrompts, Prompt
from napari_simmat.engine.settings import ChannelSelection, LinkSettings
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.io.captures import home_of, is_capture
from napari_simmat.io.description import ImageDescription
from napari_simmat.io.image_file import LAZY_ABOVE, ImageFile
from napari_simmat.io.part import WHOLE, ImagePart
from napari_simmat.io.pyramid import (
    describe_levels,
    level_shapes,
    levels_note,
    smaller_part,
    usual_level,
)
from napari_simmat.io.readers import add_channels, open_image
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.refusals import check_memory
from napari_simmat.io.zarr import is_zarr
from napari_simmat.io.zarr_inside import inside_problem

if TYPE_CHECKING:
    from napari_simmat.models.spec import InputChannels

_APART = 1.0
"""Pixels between bands from which on that is said."""
BANDS_APART = (
    "Its bands do not lie on each other: {} is some {:.0f} pixels from {}. Register them first "
    "(simmat channels register), or masks and indices are wrong at borders."
)
OTHER_PART = "The prompts of {} are of a part of the image ({}), and {} is another; leave it out."
TISSUE_MISSED = (
    "{} was made within the tissue of {}, which is not beside the record; copy it there, or name "
    "it with --tissue."
)
TISSUE_OF_PROMPTS = (
    "{} has prompts, which say where its objects are; leave out --tissue, or segment everything "
    "with --prompts auto."
)
TISSUE_OF_STACK = (
    "{} has the axes {}, and --tissue is for slides, of one plane; leave it out, or give one plane."
)
_MANY_TILES = 100
"""Tiles from which on a remark says how many there are."""
MANY_TILES = "Its {} pixels make some {} tiles, which takes a while."
FEWER_TILES = " Of a slide, --tissue auto leaves out glass, and --mpp 0.5 reads larger pixels."
WHOLE_SLIDE = (
    "{} is large: {}. Give the level that the Segment tab chooses for it (--level {}), or another "
    "one, a size of pixels (--mpp) or a --region."
)
_MOST_MASKED = 2**28
"""Pixels of a plane that a mask prompt, which is as large, can have."""
MASKS_TOO_LARGE = (
    "Outlines and labels are masks as large as {}, of {} pixels, which do not fit. Read a part of "
    "it (--region), or larger pixels (--mpp), or give rectangles, which are boxes."
)
CHANNELS_MISSED = (
    "{} was made with the channels of {}, which is beside neither {} nor the record; copy it "
    "there, or name the file with --channel-files."
)
LABELS_IN_TIFF = (
    "Its labels are written as OME-TIFF, which keeps no place, since NIfTI has one distance for "
    "all planes; DICOM SEG (--seg) keeps that of each."
)
NO_DEPTH_AXIS = (
    "{} has the axes {}, of which not exactly one can be depth. Segment one time point at a time, "
    "or give the axis of the planes, e.g. --link-axis 0."
)
NOTHING_TO_PROPAGATE = (
    "{} has no prompts whose objects could be propagated. Leave out --propagate; with --prompts "
    "auto, --objects 3d joins what is found from plane to plane."
)
IDS_ARE_GIVEN = (
    "The prompts of {} say which object is which, and --objects 3d would number them anew. Leave "
    "it out: prompts of one object on several planes share an id, and --propagate carries objects "
    "through the planes."
)
NO_TIME_AXIS = (
    "{} has the axes {}, none of them time. If its planes are the frames of a series, give their "
    "axis, e.g. --link-axis 0."
)
PROPAGATED_THROUGH_TIME = (
    "The objects of {} are propagated through time, so they have one id on all frames already. "
    "Leave out --link or --propagate."
)


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """An image with the axis of its channels."""

    image: ImageFile
    axis: int | None
    """Axis of the channels, None for one channel."""
    axes: str
    shape: tuple[int, ...]
    """Letters and sizes of the other axes, (..., Y, X)."""
    channels: tuple[int | str, ...] | None
    """Those that are chosen."""

    @classmethod
    def of(cls, image: ImageFile, selection: ChannelSelection) -> OpenedImage:
        """As the selection says, where it does; ValueError if the image has no such axis."""
        image = selection.stated(image)
        axis = selection.channel_axis
        if axis is None:
            axis = image.channel_axis
        if axis is None:
            return cls(image, None, image.axes, image.shape, selection.channels)
        count = len(image.axes)
        if not -count <= axis < count:
            raise ValueError(
                f"{image.path.name} has {count} axes ({image.axes}), so channel axis {axis} does "
                f"not exist; give one from 0 to {count - 1}."
            )
        axis %= count
        axes = image.axes[:axis] + image.axes[axis + 1 :]
        if not axes.endswith("YX"):
            raise ValueError(
                f"{image.path.name} has the axes {image.axes}; without channel axis {axis} they do "
                "not end in YX. Give the axis that holds channels, or none."
            )
        sizes = tuple(int(size) for size in image.data.shape)
        return cls(image, axis, axes, sizes[:axis] + sizes[axis + 1 :], selection.channels)

    @property
    def description(self) -> ImageDescription:
        """What it holds; the chosen axis of channels counts."""
        told = self.image.description
        count = 1 if self.axis is None else int(self.image.data.shape[self.axis])
        return replace(told, channels=count, channel_names=self.channel_names or ())

    @property
    def channel_names(self) -> tuple[str, ...] | None:
        """The file's names along the channel axis, if the file means the same axis."""
        return self.image.channel_names if self.axis == self.image.channel_axis else None

    @property
    def is_rgb(self) -> bool:
        """Whether the channels are the colors of a picture."""
        return self.image.rgb and self.axis == self.image.channel_axis

    @property
    def has_channels(self) -> bool:
        """Whether it has several channels, other than the colors of a picture."""
        return not self.is_rgb and len(self.all_channels) > 1

    @property
    def is_large(self) -> bool:
        """Whether a plane is too large to be read as a whole without need."""
        data = self.image.data
        if isinstance(data, np.ndarray):
            return False
        channels = 1 if self.axis is None else int(data.shape[self.axis])
        return bool(math.prod(self.shape[-2:]) * channels * data.dtype.itemsize > LAZY_ABOVE)

    @property
    def all_channels(self) -> list[int]:
        """All channels, of a picture its colors alone."""
        count = 1 if self.axis is None else int(self.image.data.shape[self.axis])
        return list(range(min(count, 3) if self.is_rgb else count))

    def measured(self, chosen: Sequence[int], table: TableSettings) -> MeasuredImage:
        """What is measured of its values: the `chosen` channels, and the indices of the table.

        Raises ValueError if an index needs a band that the image lacks.
        """
        source = ArraySource.of(self.image.data, self.axis, self.image.path.name)
        names = column_names(self.channel_names, source.n_channels, rgb=self.is_rgb)
        return MeasuredImage.of([source], names, chosen, table, self.image.path.name)

    @property
    def as_read(self) -> dict[str, Any]:
        """What `Predictor.set_image_job` wants to know about the image."""
        return {
            "array": self.image.data,
            "channel_axis": self.axis,
            "channels": self.channels,
            "channel_names": self.channel_names,
            "pixel_size": self.image.pixel_size,
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedImage(OpenedImage):
    """A task whose files were read."""

    task: SegmentTask
    config: SegmentConfig
    """The settings for this image: those of the run, the manifest and a replayed record together.
    """
    prompts: Sequence[Prompt] | None
    """None to segment everything."""
    sha256: str
    """Hash of the image file."""
    seconds: float
    """Time it took."""
    note: str = ""
    """A remark for the user."""
    categories: Mapping[int, str] = field(default_factory=dict)
    """The class of an object by its label, from the prompt file."""
    tissue: TissueMask | None = None
    """Where alone objects are looked for and intensities measured; None everywhere."""

    @property
    def as_read(self) -> dict[str, Any]:
        """As of `OpenedImage`, and where intensities are measured."""
        blocks = None if self.tissue is None else self.tissue.blocks()
        return {**super().as_read, "measured_on": blocks}

    @property
    def in_tiles(self) -> bool:
        """Whether everything is segmented tile by tile."""
        is_plane = self.prompts is None and len(self.shape) == 2
        is_large = max(self.shape) > 2 * self.config.automatic.tile_side
        return is_plane and (is_large or self.task.files.are_in_zarr or self.tissue is not None)

    @property
    def in_windows(self) -> bool:
        """Whether prompts are predicted in windows of a plane that is not read as a whole."""
        is_plane = self.prompts is not None and len(self.shape) == 2
        return is_plane and (self.task.files.are_in_zarr or self.is_large)


def described(path: Path, selection: ChannelSelection, part: ImagePart = WHOLE) -> ImageDescription:
    """What is in an image as a run would read it, without its pixels where the format allows it.

    Raises ValueError or OSError if it cannot be read, or is not as the selection says.
    """
    image = open_image(path, lazy_above=0, part=part, in_parts=True)
    return OpenedImage.of(image, selection).description


def check_at_once(opened: OpenedImage, part: ImagePart) -> None:
    """Refuse a plane that cannot be encoded at once, and a large slide of which no part is chosen.

    Segmenting goes through such planes in tiles or windows; encoding ahead does not.

    Parameters
    ----------
    opened
        An image that was opened to be read in parts.
    part
        What the user asked for of it.

    Raises
    ------
    ValueError
        With the levels and regions that would do.
    """
    image = opened.image
    if not opened.is_large:
        return
    shapes = level_shapes(image)
    if image.levels and part == WHOLE:
        words = image.path.name, describe_levels(image), usual_level(shapes)
        raise ValueError(WHOLE_SLIDE.format(*words))
    _check_plane_fits(opened)


def _check_plane_fits(opened: OpenedImage) -> None:
    """Refuse an image of which a plane does not fit into memory, with what would."""
    image = opened.image
    nbytes = image.data.dtype.itemsize * math.prod(image.data.shape)
    planes = math.prod(opened.shape[:-2])
    check_memory(nbytes // planes, image.path.name, smaller_part(level_shapes(image)))


def load_task(task: SegmentTask, config: SegmentConfig) -> LoadedImage:
    """Read a task's image and prompts; needs no model, so it can run ahead of the predictor.

    A record in place of prompts is replayed: it gives all settings that are unset.
    """
    start = time.monotonic()
    loaded = _open_task(task, config)
    return replace(loaded, sha256=loaded.image.sha256(), seconds=time.monotonic() - start)


def check_task(
    task: SegmentTask, config: SegmentConfig, inputs: InputChannels | None
) -> tuple[LoadedImage, str]:
    """Find out what a run would refuse, without the model, and without hashing the image.

    Parameters
    ----------
    task, config
        As for `load_task`.
    inputs
        The channels that the model reads; None if nobody knows before it is loaded.

    Returns
    -------
    tuple of LoadedImage and str
        The image, and the levels of a pyramid and what a run would remark.

    Raises
    ------
    ValueError, TypeError, OSError
        As the run would.
    """
    loaded = _open_task(task, config, lazy_above=0)
    if inputs is not None:
        read = loaded.as_read
        ChannelStack.build(read.pop("array"), inputs=inputs, **read)
    check_inside(loaded)
    whole, part = loaded.image, loaded.config.part
    if part:  # of which no other level is kept
        whole = open_image(task.image, lazy_above=0, in_parts=True)
    return loaded, " ".join(filter(None, (levels_note(whole, part), loaded.note)))


def _open_task(
    task: SegmentTask, config: SegmentConfig, lazy_above: int = LAZY_ABOVE
) -> LoadedImage:
    """A task's image and prompts, all settings merged, not hashed yet."""
    task.files.check_replaceable()
    config = replace(
        config,
        selection=task.selection.over(config.selection),
        part=task.part.over(config.part),
    )
    segments_everything = task.prompts is None
    recorded = task.prompts
    if recorded is not None and _is_replayed(recorded):
        request = read_record(recorded).request
        segments_everything = request.settings.automatic is not None
        if not task.channel_files:
            task = replace(task, channel_files=_recorded_channels(task, request.input))
        config = _with_recorded(config, request.settings, recorded)
    opened = OpenedImage.of(_open_with_channels(task, config.part, lazy_above), config.selection)
    prompts: Sequence[Prompt] | None = None
    categories: Mapping[int, str] = {}
    if task.prompts is not None and not segments_everything:
        reference = opened.image.reference
        prompts, categories = read_task_prompts(task.prompts, opened.shape, reference)
    if prompts is None and config.propagation is not None:
        raise ValueError(NOTHING_TO_PROPAGATE.format(task.name))
    if len(opened.shape) < 3:
        config = replace(config, propagation=None)
    config, opened = linked_along(config, opened, task.name, has_prompts=prompts is not None)
    tissue = _tissue_of(task, config, opened, prompts)
    files, notes = _suitable(task.files, opened, prompts, config)
    notes += _apart_note(task, opened)
    notes += opened.measured((), config.table).notes
    loaded = LoadedImage(
        **vars(opened),
        task=replace(task, files=files),
        config=config,
        prompts=prompts,
        sha256="",
        seconds=0.0,
        note=" ".join([*opened.image.notes, *notes, *([tissue.sentence()] if tissue else [])]),
        categories=categories,
        tissue=tissue,
    )
    if loaded.in_windows and _have_masks(prompts) and math.prod(opened.shape) > _MOST_MASKED:
        raise ValueError(MASKS_TOO_LARGE.format(task.name, format_shape(opened.shape)))
    if loaded.in_tiles and (words := _tiles_note(loaded)):
        loaded = replace(loaded, note=f"{loaded.note} {words}".strip())
    if loaded.is_large and not (loaded.in_tiles or loaded.in_windows):
        _check_plane_fits(opened)
    return loaded


def _have_masks(prompts: Sequence[Prompt] | None) -> bool:
    return isinstance(prompts, LazyPrompts) and prompts.has_masks


def _tiles_note(loaded: LoadedImage) -> str:
    """How many tiles a large plane makes, before somebody waits for hours; empty for few."""
    settings = loaded.config.automatic
    step = settings.tile_side - settings.tile_shared
    count = math.prod(math.ceil(size / step) for size in loaded.shape)
    if count < _MANY_TILES:
        return ""
    advice = "" if loaded.tissue is not None or not loaded.image.levels else FEWER_TILES
    return f"{MANY_TILES.format(format_shape(loaded.shape), count)}{advice}"


def _tissue_of(
    task: SegmentTask,
    config: SegmentConfig,
    opened: OpenedImage,
    prompts: Sequence[Prompt] | None,
) -> TissueMask | None:
    """Where the image holds tissue, if the run is told to look there alone."""
    if not config.tissue:
        return None
    if prompts is not None:
        raise ValueError(TISSUE_OF_PROMPTS.format(task.name))
    if len(opened.shape) > 2:
        raise ValueError(TISSUE_OF_STACK.format(task.name, opened.axes))
    return find_tissue(config.tissue, task.image, opened.image)


def _apart_note(task: SegmentTask, opened: OpenedImage) -> list[str]:
    """What is to be said of a capture whose bands, each in a file, do not lie on each other."""
    if opened.axis is None or not is_capture(task.image) or opened.image.world is not None:
        return []
    bands = np.moveaxis(np.asarray(opened.image.data), opened.axis, 0)
    middle = tuple(size // 2 for size in opened.shape[:-2])
    number, distance = farthest_shift([band[middle] for band in bands])
    names = opened.channel_names or tuple(map(str, range(len(bands))))
    if distance < _APART:
        return []
    return [BANDS_APART.format(names[number], distance, names[0])]


def _with_recorded(config: SegmentConfig, recorded: RecordedSettings, path: Path) -> SegmentConfig:
    """Settings of a run that replays a record: what is unset is as the record says.

    Raises ValueError if another part of the image is asked for than the record's prompts are of.
    """
    if recorded.automatic is None and config.part and config.part != recorded.part:
        part = str(recorded.part) or "the whole of level 0"
        raise ValueError(OTHER_PART.format(path.name, part, config.part))
    tissue = config.tissue or recorded.tissue
    if tissue not in ("", AUTO) and not config.tissue:
        beside = path.with_name(tissue)
        if Path(tissue).name != tissue or not beside.exists():
            raise FileNotFoundError(TISSUE_MISSED.format(path.name, tissue))
        tissue = str(beside)
    automatic = recorded.automatic or config.automatic
    if recorded.automatic is not None and automatic.by == "auto":
        automatic = replace(automatic, by="clicks")  # it was the only way
    return replace(
        config,
        part=config.part.over(recorded.part),
        tissue=tissue,
        selection=config.selection.over(recorded.selection),
        automatic=automatic,
        propagation=recorded.propagation,
        link=recorded.link or config.link,
        table=recorded.table if config.table == TableSettings() else config.table,
    )


def _open_with_channels(task: SegmentTask, part: ImagePart, lazy_above: int) -> ImageFile:
    """The part of a task's image that is read, with the channels of its other files."""
    if not task.channel_files:
        return open_image(task.image, lazy_above=lazy_above, part=part, in_parts=True)
    image = open_image(task.image, lazy_above=lazy_above, part=part)
    others = [open_image(path, lazy_above=lazy_above, part=part) for path in task.channel_files]
    return add_channels(image, others)


def _suitable(
    files: OutputFiles,
    opened: OpenedImage,
    prompts: Sequence[Prompt] | None,
    config: SegmentConfig,
) -> tuple[OutputFiles, list[str]]:
    """The outputs that suit an image, and what is to be said of those replaced or left out."""
    image = opened.image
    notes: list[str] = []
    # Labels are uint32.
    is_too_large = 4 * math.prod(opened.shape) > config.labels_in_memory * 1e9
    fits_tiles = len(opened.shape) == 2 and image.affine is None
    fits_tiles = fits_tiles and not _have_masks(prompts)  # which are as large as the plane
    if is_too_large and fits_tiles:
        in_zarr = files.in_zarr()
        if len(in_zarr.extras) < len(files.extras):
            notes.append("Objects in other formats are not written for labels in OME-Zarr.")
        files = in_zarr
    if files.labels.name.endswith(".nii.gz") and image.reference.one_step_problem("NIfTI"):
        files = files.in_tiff()
        notes.append(LABELS_IN_TIFF)
    extras = {}
    for kind, path in files.extras.items():
        problem = (
            inside_problem(opened.axes, image.reference)
            if kind == INSIDE
            else format_problem(kind, opened.shape, opened.axes, image.reference)
        )
        if problem and kind == INSIDE and is_zarr(image.path):
            raise ValueError(problem)
        if problem:
            notes.append(problem)
        else:
            extras[kind] = path
    return replace(files, extras=extras), notes


def _recorded_channels(task: SegmentTask, recorded: RecordedInput) -> tuple[Path, ...]:
    """The channel files of a record that is replayed: beside the image, or beside the record."""
    found = []
    for name in recorded.channel_files:
        near = [home_of(path) / name for path in (task.image, task.prompts) if path is not None]
        existing = [path for path in near if path.exists() and Path(name).name == name]
        if not existing:
            assert task.prompts is not None
            raise FileNotFoundError(CHANNELS_MISSED.format(task.prompts.name, name, task.name))
        found.append(existing[0])
    return tuple(found)


def linked_along(
    config: SegmentConfig, opened: OpenedImage, name: str, *, has_prompts: bool
) -> tuple[SegmentConfig, OpenedImage]:
    """The settings with the axis along which objects are linked, and the image with its name.

    Raises ValueError if the image cannot be linked so.
    """
    if config.link is None:
        return config, opened
    is_along_depth = config.link.along == "depth"
    if has_prompts and is_along_depth:
        raise ValueError(IDS_ARE_GIVEN.format(name))
    config = replace(config, link=_on_time_axis(config, opened, name))
    if config.link is not None and is_along_depth and len(opened.axes) == 3:
        opened = replace(opened, axes="ZYX")  # planes whose axis the file does not name
    return config, opened


def _on_time_axis(config: SegmentConfig, opened: OpenedImage, name: str) -> LinkSettings | None:
    """How objects are linked, with the time axis; None for an image of one frame.

    Raises ValueError if the image does not say which axis is time, or objects are propagated
    through time.
    """
    from napari_simmat.engine.tracking.propagation import propagation_axis

    link = config.link
    axes = opened.axes
    shape = opened.shape
    if link is None or all(size == 1 for size in shape[:-2]):
        return None
    if link.along == "depth":
        is_ambiguous = link.axis is None and len(shape) > 3
        if config.propagation or "T" in axes or is_ambiguous:
            raise ValueError(NO_DEPTH_AXIS.format(opened.image.path.name, axes))
        link = replace(link, axis=link.axis or 0)
    axis = axes.find("T") if link.axis is None else link.axis
    if not 0 <= axis < len(shape) - 2:
        raise ValueError(NO_TIME_AXIS.format(opened.image.path.name, axes))
    if shape[axis] == 1:
        return None
    if config.propagation and propagation_axis(axes, shape) == axis:
        raise ValueError(PROPAGATED_THROUGH_TIME.format(name))
    return replace(link, axis=axis)


def _is_replayed(path: Path) -> bool:
    """Whether prompts are the record of an earlier result."""
    return path.suffix.lower() == ".json" and is_record(path)


def read_task_prompts(
    path: Path, shape: tuple[int, ...], reference: ImageReference | None = None
) -> tuple[Sequence[Prompt], Mapping[int, str]]:
    """Prompts and the classes of their objects, from a prompt file or a record to be replayed."""
    if not _is_replayed(path):
        found = read_prompts(path, shape, reference)
        return found, found.categories if isinstance(found, LazyPrompts) else {}
    record = read_record(path)
    pixels = shape[-2] * shape[-1]
    recorded = record.request.prompts
    prompts = LazyPrompts(len(recorded), lambda n: Prompt.from_plain(recorded[n], pixels))
    for prompt in prompts:
        fits = len(prompt.plane) == len(shape) - 2 and all(
            0 <= index < size for index, size in zip(prompt.plane, shape[:-2], strict=True)
        )
        if not fits:
            raise ValueError(
                f"{path.name} has prompts on plane {prompt.plane}, but the image has shape "
                f"{format_shape(shape)}. Use it with an image like the one it was made on."
            )
    return prompts, {one["label"]: one["class"] for one in record.objects if "class" in one}


def check_inside(loaded: LoadedImage) -> None:
    """Refuse prompts outside the image."""
    height, width = loaded.image.shape[-2:]
    for prompt in loaded.prompts or ():
        prompt.check_inside((height, width))

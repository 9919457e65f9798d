"""Segment one image: read it and its prompts, and predict; `outputs` writes the result."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_simmat._text import format_list, format_shape, pluralize
from napari_simmat.batch.plan import INSIDE, OutputFiles, SegmentConfig, SegmentTask
from napari_simmat.batch.record import (
    RecordedInput,
    RecordedSettings,
    Request,
    UsedModel,
    is_record,
    read_record,
)
from napari_simmat.engine.channels.registration import farthest_shift
from napari_simmat.engine.files.objects import format_problem
from napari_simmat.engine.files.prompts import read_prompts
from napari_simmat.engine.files.tables import TABLE_FORMATS
from napari_simmat.engine.image_stack import ArraySource, ChannelStack
from napari_simmat.engine.linking import Lineage, Node, link_objects_job, relabel_job
from napari_simmat.engine.measured_image import MeasuredImage, column_names
from napari_simmat.engine.measurements import LabelVolume, MaskScore
from napari_simmat.engine.prompts import LazyPrompts, Prompt
from napari_simmat.engine.refinement import Refiner, pixel_of
from napari_simmat.engine.settings import ChannelSelection, LinkSettings
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.engine.tile_journal import TileJournal
from napari_simmat.engine.tissue import AUTO, TissueMask, find_tissue
from napari_simmat.io.captures import home_of, is_capture
from napari_simmat.io.files import (
    DiskFullError,
    disk_errors_explained,
    output_error,
    partial_path,
    remove,
    sha256_of,
)
from napari_simmat.io.image_file import LAZY_ABOVE, ImageFile, check_memory
from napari_simmat.io.part import ImagePart
from napari_simmat.io.plain import to_plain
from napari_simmat.io.pyramid import level_shapes, smaller_part
from napari_simmat.io.readers import add_channels, open_image
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.zarr import complete_labels, create_labels
from napari_simmat.io.zarr_inside import inside_problem
from napari_simmat.progress import Job, Progress, as_part

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.models.spec import InputChannels

_APART = 1.0
"""Pixels between bands from which on that is said."""
BANDS_APART = (
    "Its bands do not lie on each other: {} is some {:.0f} pixels from {}. Register them first "
    "(simmat channels register), or masks and indices are wrong at borders."
)
OPENING_SHARE = 0.05
"""The part of a file's work that counts for opening it: its intensities are measured."""

CHANGED_SINCE = (
    "{} is missing or was changed since it was made, by hand perhaps. Leave its image out to keep "
    "it, or use --overwrite to replace it, corrections included, or another output folder."
)
MARKS_MISSED = "{} with the mask of the same object (label {}): add points, or a box."
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
RENUMBERED = "Linked objects have the id of their track in place of that of their prompts: {}."
_TOLD = 3
"""Ids that are listed at most."""
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
        image = replace(image, pixel_ratio=selection.pixel_ratio)
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
    def channel_names(self) -> tuple[str, ...] | None:
        """The file's names along the channel axis, if the file means the same axis."""
        return self.image.channel_names if self.axis == self.image.channel_axis else None

    @property
    def is_rgb(self) -> bool:
        """Whether the channels are the colors of a picture."""
        return self.image.rgb and self.axis == self.image.channel_axis

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
        return MeasuredImage.of(source, names, chosen, table, self.image.path.name)

    @property
    def as_read(self) -> dict[str, Any]:
        """What `Predictor.set_image_job` wants to know about the image."""
        return {
            "array": self.image.data,
            "channel_axis": self.axis,
            "channels": self.channels,
            "names": self.channel_names,
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

    @property
    def is_large(self) -> bool:
        """Whether a plane is too large to be read as a whole without need."""
        data = self.image.data
        if isinstance(data, np.ndarray):
            return False
        channels = 1 if self.axis is None else int(data.shape[self.axis])
        return bool(math.prod(self.shape[-2:]) * channels * data.dtype.itemsize > LAZY_ABOVE)


@dataclass(frozen=True, eq=False)
class SegmentedImage:
    """A segmented image before its outputs are written."""

    loaded: LoadedImage
    request: Request
    """The image, and everything that the result depends on."""
    volume: LabelVolume
    """The label image and its objects."""
    stack: ChannelStack
    """The image as the model read it."""
    note: str
    """A remark for the user, e.g. that memory ran out and how that was handled."""
    seconds: float
    """Time it took so far."""
    tiles: Path | None = None
    """Temporary folder with the label image, if that is not in memory."""
    lineage: Lineage | None = None
    """The links of its objects over time, if they were linked."""


@dataclass(frozen=True)
class TaskOutcome:
    """The outcome of a task."""

    task: SegmentTask
    status: Literal["written", "kept", "failed"]
    """``"kept"`` if a resumed run found the outputs complete."""
    objects: int = 0
    """Number of labels in the label image."""
    hidden: tuple[int, ...] = ()
    """Labels whose mask is empty or completely covered by better ones."""
    seconds: float = 0.0
    """Time it took."""
    note: str = ""
    """A remark for the user; for a failed task the reason."""
    thumbnail: bytes = b""
    """A small PNG; empty if none was drawn."""


def load_task(task: SegmentTask, config: SegmentConfig) -> LoadedImage:
    """Read a task's image and prompts; needs no model, so it can run ahead of the predictor.

    A record in place of prompts is replayed: it gives all settings that are unset.
    """
    start = time.monotonic()
    loaded = _open_task(task, config)
    return replace(loaded, sha256=loaded.image.sha256(), seconds=time.monotonic() - start)


def check_task(task: SegmentTask, config: SegmentConfig, inputs: InputChannels | None) -> str:
    """Find out what a run would refuse, without the model, and without hashing the image.

    Parameters
    ----------
    task, config
        As for `load_task`.
    inputs
        The channels that the model reads; None if nobody knows before it is loaded.

    Returns
    -------
    str
        What a run would remark.

    Raises
    ------
    ValueError, TypeError, OSError
        As the run would.
    """
    loaded = _open_task(task, config, lazy_above=0)
    if inputs is not None:
        read = loaded.as_read
        ChannelStack.build(read.pop("array"), inputs=inputs, **read)
    _check_inside(loaded)
    return loaded.note


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
    is_along_depth = config.link is not None and config.link.along == "depth"
    if prompts is not None and is_along_depth:
        raise ValueError(IDS_ARE_GIVEN.format(task.name))
    if len(opened.shape) < 3:
        config = replace(config, propagation=None)
    if config.link is not None:
        config = replace(config, link=_on_time_axis(config, opened, task.name))
        if config.link is not None and is_along_depth and len(opened.axes) == 3:
            opened = replace(opened, axes="ZYX")  # planes whose axis the file does not name
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
    if loaded.is_large and not (loaded.in_tiles or loaded.in_windows):
        nbytes = opened.image.data.dtype.itemsize * math.prod(opened.image.data.shape)
        planes = math.prod(opened.shape[:-2])
        words = smaller_part(level_shapes(opened.image))
        check_memory(nbytes // planes, opened.image.path.name, words)
    return loaded


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
    return replace(
        config,
        part=config.part.over(recorded.part),
        tissue=tissue,
        selection=config.selection.over(recorded.selection),
        automatic=recorded.automatic or config.automatic,
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
    fits_tiles = fits_tiles and not isinstance(prompts, LazyPrompts)  # masks of the whole plane
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


def _on_time_axis(config: SegmentConfig, opened: OpenedImage, name: str) -> LinkSettings | None:
    """How objects are linked, with the time axis; None for an image of one frame.

    Raises ValueError if the image does not say which axis is time, or objects are propagated
    through time.
    """
    from napari_simmat.engine.propagation import propagation_axis

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


def segment_loaded_job(
    loaded: LoadedImage, predictor: Predictor, *, resume: bool = False
) -> Job[SegmentedImage | TaskOutcome]:
    """Segment an image from `load_task` with its prompts, or everything in it.

    Parameters
    ----------
    loaded, predictor
        The image and the model.
    resume
        Keep outputs whose record has the same input, model, prompts and settings, and return
        their `TaskOutcome`. Outputs of which the table alone is to be another are made anew.

    Raises
    ------
    ValueError, TypeError, OSError
        If the image, its prompts or its outputs cannot be used, or, with `resume`, the outputs
        were made differently.
    """
    start = time.monotonic()
    task, config, prompts = loaded.task, loaded.config, loaded.prompts
    request = _request(loaded, predictor)
    if resume and any(path.exists() for path in task.files):
        kept = _kept_outcome(task, request, loaded.seconds + time.monotonic() - start)
        if kept is not None:
            return kept

    predictor.note = ""
    # Measured but not encoded: a large plane is encoded tile by tile.
    opening = predictor.open_image_job(**loaded.as_read)
    name = f"{task.name}: "
    yield from as_part(opening, 0.0, OPENING_SHARE, before=name, default="opening")
    tiles = partial_path(task.files.labels) if task.files.are_in_zarr else None
    segmenting: Job[LabelVolume]
    if loaded.in_tiles:
        segmenting = _segment_tiles_job(loaded, predictor, tiles, request)
    elif prompts is not None and loaded.in_windows:
        segmenting = _segment_windows_job(loaded, prompts, predictor, tiles)
    elif prompts is None:
        segmenting = _segment_everything_job(loaded, predictor)
    elif config.propagation is not None:
        from napari_simmat.engine.propagation import propagate_prompts_job

        labels = label_numbers([prompt.object for prompt in prompts])
        segmenting = propagate_prompts_job(
            predictor, prompts, labels, config.propagation, loaded.axes, loaded.image.scale
        )
    else:
        segmenting = _segment_prompts_job(prompts, loaded.shape, predictor)
    volume = yield from as_part(segmenting, OPENING_SHARE, 1.0, before=name, default="encoding")
    remark = "" if prompts is None else marks_missed(prompts, volume)
    lineage = None
    if config.link is not None:
        linking = _link_job(volume, loaded, config.link)
        unlinked = volume
        volume, lineage = yield from as_part(linking, 1.0, 1.0, before=name, default="linking")
        if prompts is not None:
            remark = " ".join(filter(None, (remark, _renumbered(unlinked, volume))))
    return SegmentedImage(
        loaded,
        request,
        volume,
        stack=predictor.stack,
        note=" ".join(filter(None, (loaded.note, predictor.note, remark))),
        seconds=loaded.seconds + time.monotonic() - start,
        tiles=tiles,
        lineage=lineage,
    )


def _segment_prompts_job(
    prompts: Sequence[Prompt], shape: tuple[int, ...], predictor: Predictor
) -> Job[LabelVolume]:
    """Predict prompts plane by plane, so that each plane is encoded once, in the given order.

    The clicks of a prompt refine each other in their order, as in the window.
    """
    from napari_simmat.engine.mask_proposals import ENCODING_WORK

    labels = label_numbers([prompt.object for prompt in prompts])
    volume = LabelVolume(shape)
    encoded: tuple[int, ...] | None = None
    encoding = ENCODING_WORK[predictor.model.spec.base.embedded]
    total = encoding * len({prompt.plane for prompt in prompts}) + len(prompts)
    done = 0
    for number in sorted(range(len(prompts)), key=lambda number: prompts[number].plane):
        prompt = prompts[number]
        if prompt.plane != encoded:
            job = predictor.set_plane_job(prompt.plane)
            end = done + encoding
            yield from as_part(job, done / total, end / total, after=_on_plane(prompt.plane))
            encoded = prompt.plane
            done = end
        yield Progress(done, total, "predicting")
        done += 1
        if prompt.points or prompt.box is not None:
            [result] = Refiner().refine(predictor, [prompt])
        else:  # of a mask alone the refiner gives that mask
            [result] = predictor.predict_many([prompt])
        volume.add(labels[number], result.mask, result.score, prompt.plane)
    return volume


def marks_missed(prompts: Sequence[Prompt], volume: LabelVolume) -> str:
    """Which objects do not agree with their own points, as a sentence; empty for none."""
    if isinstance(prompts, LazyPrompts):  # masks, or the replay of what was told before
        return ""
    numbers = label_numbers([prompt.object for prompt in prompts])
    wrong = []
    shape = volume.labels.shape[-2:]
    for number, prompt in zip(numbers, prompts, strict=True):
        for point, label in zip(prompt.points, prompt.labels, strict=True):
            there = volume.labels[(*prompt.plane, *pixel_of(point, shape))]
            if (int(there) == number) != bool(label):
                wrong.append(number)
    if not wrong:
        return ""
    points = f"{pluralize(len(wrong), 'point')} {'disagrees' if len(wrong) == 1 else 'disagree'}"
    return MARKS_MISSED.format(points, format_list(dict.fromkeys(wrong)))


def _segment_everything_job(loaded: LoadedImage, predictor: Predictor) -> Job[LabelVolume]:
    """Segment everything in each plane by itself; labels count on from plane to plane."""
    from napari_simmat.engine.automatic_generator import segment_everything_job

    volume = LabelVolume(loaded.shape)
    planes = list(np.ndindex(*loaded.shape[:-2]))
    for number, plane in enumerate(planes):
        job = segment_everything_job(predictor, loaded.config.automatic, plane)
        start = number / len(planes)
        end = (number + 1) / len(planes)
        instances = yield from as_part(job, start, end, after=_on_plane(plane))
        volume.place(instances.labels, instances.scores, plane)
    return volume


def _on_plane(plane: tuple[int, ...]) -> str:
    return f" plane {format_list(plane)}" if plane else ""


def _segment_tiles_job(
    loaded: LoadedImage, predictor: Predictor, folder: Path | None, request: Request
) -> Job[LabelVolume]:
    """Segment everything in a plane of any size: into OME-Zarr in `folder`, or into memory.

    What is done is kept beside the output, and a run with --resume goes on there.
    """
    from napari_simmat.engine.automatic_tiles import segment_tiles_job

    files, shape = loaded.task.files, (loaded.shape[0], loaded.shape[1])
    text = json.dumps(to_plain(request), sort_keys=True)
    journal = None
    with _labels_in(folder, loaded) as labels:
        try:
            with disk_errors_explained(files.labels):
                digest = hashlib.sha256(text.encode()).hexdigest()
                journal = TileJournal(files.journal, shape, digest)
            scores = yield from segment_tiles_job(
                predictor,
                labels,
                loaded.config.automatic,
                tissue=loaded.tissue,
                journal=journal,
            )
        except BaseException as error:
            if journal is None or not journal.done:
                with suppress(OSError):
                    remove(files.journal)
            _explain(error, files.labels)
            raise
    volume = LabelVolume(shape, labels)
    volume.masks = [MaskScore(label, float(score)) for label, score in enumerate(scores, start=1)]
    return volume


def _segment_windows_job(
    loaded: LoadedImage, prompts: Sequence[Prompt], predictor: Predictor, folder: Path | None
) -> Job[LabelVolume]:
    """Predict prompts in windows of a plane of any size, of which nothing else is read."""
    from napari_simmat.engine.window_prompts import predict_in_windows_job

    numbers = label_numbers([prompt.object for prompt in prompts])
    with _labels_in(folder, loaded) as labels:
        try:
            found = yield from predict_in_windows_job(predictor, prompts)
            volume = LabelVolume((loaded.shape[0], loaded.shape[1]), labels)
            # The better mask keeps a pixel; of equal ones the earlier.
            order = sorted(range(len(found)), key=lambda n: (found[n].score, -n))
            for number in order:
                mask = found[number].mask
                if mask is not None:
                    window = np.array(labels[mask.region])
                    window[mask.mask] = numbers[number]
                    labels[mask.region] = window
            volume.masks = [
                MaskScore(label, one.score) for label, one in zip(numbers, found, strict=True)
            ]
        except BaseException as error:
            _explain(error, loaded.task.files.labels)
            raise
    return volume


@contextmanager
def _labels_in(folder: Path | None, loaded: LoadedImage) -> Iterator[Any]:
    """Empty labels (Y, X): OME-Zarr in a folder, which is complete after the block; or in memory.

    If the block fails nothing is left of the folder.
    """
    shape, target = (loaded.shape[0], loaded.shape[1]), loaded.task.files.labels
    if folder is None:
        yield np.zeros(shape, np.uint32)
        return
    try:
        with disk_errors_explained(target):
            name = target.name.removesuffix(".ome.zarr")
            labels = create_labels(folder, name, shape, "YX", loaded.image.reference)
        yield labels
        with disk_errors_explained(target):
            complete_labels(folder)
    except BaseException:
        with suppress(OSError):
            remove(folder)
        raise


def _explain(error: BaseException, target: Path) -> None:
    """Raise a full disk as such; other errors may come from reading the image."""
    if isinstance(error, OSError):
        explained = output_error(error, target)
        if isinstance(explained, DiskFullError):
            raise explained from error


def _link_job(
    volume: LabelVolume, loaded: LoadedImage, link: LinkSettings
) -> Job[tuple[LabelVolume, Lineage]]:
    """Link objects over time; their ids then follow the tracks."""
    from napari_simmat.engine.propagation import axis_spacing

    axis = link.axis or 0
    spacing = axis_spacing(loaded.axes, loaded.image.scale)
    spacing = (*spacing[:axis], *spacing[axis + 1 :])
    lineage = yield from link_objects_job(volume.labels, link, axis, spacing)
    ids = lineage.ids()
    linked = LabelVolume(loaded.shape, (yield from relabel_job(volume.labels, lineage, axis)))
    hidden: dict[int, int] = {}
    free = max((*ids.values(), *(one.label for one in volume.masks)), default=0) + 1
    for one in volume.masks:
        label = ids.get(Node(one.plane[axis], one.label))
        if label is None:  # without a pixel: its number may be another object's id now
            label = hidden.setdefault(one.label, free + len(hidden))
        linked.masks.append(replace(one, label=label))
    return linked, lineage.relabeled()


def _renumbered(before: LabelVolume, after: LabelVolume) -> str:
    """Which ids of prompts linking has changed, as a sentence; empty for none."""
    pairs = zip(before.masks, after.masks, strict=True)
    changed = dict.fromkeys((one.label, other.label) for one, other in pairs)
    told = [f"{old} is {new}" for old, new in changed if old != new]
    if not told:
        return ""
    more = ", ..." if len(told) > _TOLD else ""
    return RENUMBERED.format(format_list(told[:_TOLD]) + more)


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


def label_numbers(ids: Sequence[int | None]) -> list[int]:
    """The label of each prompt from the ids of their objects.

    Ids are labels. If the ids count from 0, like the shapes in napari's CSV, all are raised by
    one, since 0 is the background. Prompts without an id get the lowest free labels.

    Raises ValueError if an id is negative or too large for a label image.
    """
    numbers = {number for number in ids if number is not None}
    shift = 1 if 0 in numbers else 0
    if numbers and (min(numbers) < 0 or max(numbers) + shift > 2**32 - 1):
        wrong = min(numbers) if min(numbers) < 0 else max(numbers)
        raise ValueError(
            f"Object {wrong} cannot be a label; number objects upwards from 0 or 1, below 2^32."
        )
    used = {number + shift for number in numbers}
    free = (number for number in range(1, len(ids) + len(used) + 1) if number not in used)
    return [next(free) if number is None else number + shift for number in ids]


def _request(loaded: LoadedImage, predictor: Predictor) -> Request:
    """Everything that the result depends on; refuses prompts outside the image."""
    image, model, config = loaded.image, predictor.model, loaded.config
    _check_inside(loaded)
    return Request(
        input=RecordedInput(
            file=loaded.task.image.name,
            sha256=loaded.sha256,
            shape=tuple(int(size) for size in image.data.shape),
            axes=image.axes,
            dtype=np.dtype(image.data.dtype).name,
            plane=image.world.plane_name() if image.world else "",
            channel_files=tuple(each.name for each in loaded.task.channel_files),
        ),
        model=UsedModel(
            name=model.spec.name, fingerprint=model.fingerprint, base=model.spec.base.name
        ),
        prompts=tuple(prompt.to_plain() for prompt in loaded.prompts or ()),
        settings=RecordedSettings(
            selection=config.selection,
            compute=replace(predictor.compute, **predictor.encoder_kind._asdict()),
            automatic=config.automatic.for_model(model.spec) if loaded.prompts is None else None,
            propagation=config.propagation,
            link=config.link,
            table=config.table,
            part=config.part,
            tissue=config.tissue if config.tissue in ("", AUTO) else Path(config.tissue).name,
            tissue_sha256="" if loaded.tissue is None else loaded.tissue.sha256(),
        ),
    )


def _check_inside(loaded: LoadedImage) -> None:
    height, width = loaded.image.shape[-2:]
    for prompt in loaded.prompts or ():
        prompt.check_inside((height, width))


def _kept_outcome(task: SegmentTask, request: Request, seconds: float) -> TaskOutcome | None:
    """Keep existing outputs if they are complete and were made the same way, else refuse.

    None if all but the table was made the same way, or the table is to be in another format as
    well, so that they can be made anew: nobody has changed them.
    """
    files = task.files
    advice = "Use --overwrite to replace it, or another output folder."
    if not files.record.is_file():
        existing = next(path for path in files if path.exists())
        raise ValueError(f"{existing} exists without a record of how it was made. {advice}")
    record = read_record(files.record)
    asked = replace(record.request.settings, table=request.settings.table)
    has_other_table = asked != record.request.settings
    if differences := replace(record.request, settings=asked).differences(request):
        what = format_list(differences)
        raise ValueError(f"{files.labels} was made differently; what differs: {what}. {advice}")
    added = {
        kind
        for kind, path in files.extras.items()
        if kind in TABLE_FORMATS and kind not in record.outputs and not path.exists()
    }
    for kind, path in files.recorded.items():
        if kind in added:
            continue
        expected = record.outputs.get(kind, {}).get("sha256")
        if not path.exists() or sha256_of(path) != expected:
            raise ValueError(CHANGED_SINCE.format(path))
    if has_other_table or added:
        return None
    labels = {int(one["label"]) for one in record.objects}
    visible = {int(one["label"]) for one in record.objects if one["pixels"]}
    hidden = tuple(sorted(labels - visible))
    return TaskOutcome(task, "kept", objects=len(visible), hidden=hidden, seconds=seconds)

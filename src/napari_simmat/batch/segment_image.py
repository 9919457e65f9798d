"""Segment one image: read it and its prompts, predict, write the outputs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from napari_simmat._text import format_list, format_shape
from napari_simmat.batch.outputs import write_result
from napari_simmat.batch.plan import (
    LoadedImage,
    SegmentConfig,
    SegmentedImage,
    SegmentTask,
    TaskOutcome,
)
from napari_simmat.batch.record import (
    Record,
    RecordedInput,
    RecordedSettings,
    Request,
    UsedModel,
    is_record,
    read_record,
)
from napari_simmat.engine.linking import Lineage, Node, link_objects_job, relabel_job
from napari_simmat.engine.measurements import LabelVolume, MaskScore
from napari_simmat.engine.object_files import format_problem
from napari_simmat.engine.prompt_files import read_prompts
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import Refiner
from napari_simmat.io.files import DiskFullError, output_error, partial_path, remove, sha256_of
from napari_simmat.io.image_file import ImageFile
from napari_simmat.io.readers import open_image
from napari_simmat.io.zarr import complete_labels, create_labels
from napari_simmat.progress import Job, Progress, map_progress

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.settings import LinkSettings, PropagationSettings

T = TypeVar("T")

OPENING_SHARE = 0.05
"""The part of a file's work that counts for opening it: its intensities are measured."""
_PARTS = 1000
"""Into how many parts the progress of a file is divided."""


def segment_image_job(
    task: SegmentTask, predictor: Predictor, config: SegmentConfig, *, resume: bool = False
) -> Job[TaskOutcome]:
    """Segment one image, reading and writing its files; writes all outputs or none.

    Parameters
    ----------
    task
        What to read and write; existing outputs are replaced.
    predictor, config
        The model and the settings.
    resume
        Keep outputs whose record has the same input, model, prompts and settings.

    Raises
    ------
    ValueError, TypeError, OSError
        If the image, its prompts or its outputs cannot be used, or, with `resume`, the outputs
        were made differently.
    """
    yield Progress(0, 0, f"{task.name}: reading")
    loaded = load_task(task, config)
    result = yield from segment_loaded_job(loaded, predictor, resume=resume)
    if isinstance(result, TaskOutcome):
        return result
    yield Progress(_PARTS, _PARTS, f"{task.name}: measuring and writing")
    return write_segmented(result)


def load_task(task: SegmentTask, config: SegmentConfig) -> LoadedImage:
    """Read a task's image and prompts; needs no model, so it can run ahead of the predictor.

    A record in place of prompts is replayed: it gives all settings that are unset.
    """
    start = time.monotonic()
    record = _replayed_record(task)
    selection = task.selection.over(config.selection)
    automatic, propagation, link = config.automatic, config.propagation, config.link
    if record is not None:
        made = record.request.settings
        selection = selection.over(made.selection)
        automatic, propagation = made.automatic or automatic, made.propagation
        link = made.link or link
    image = replace(open_image(task.image), pixel_ratio=selection.pixel_ratio)
    axis, axes, shape = without_channels(image, selection.channel_axis)
    prompts = None
    if task.prompts is not None and (record is None or made.automatic is None):
        prompts = read_task_prompts(task.prompts, shape)
    notes = list(image.notes)
    too_large = 4 * math.prod(shape) > config.labels_in_memory * 1e9  # labels are uint32
    if too_large and prompts is None and len(shape) == 2 and image.affine is None:
        files = task.files.in_zarr()
        if len(files.extras) < len(task.files.extras):
            notes.append("Objects in other formats are not written for labels in OME-Zarr.")
        task = replace(task, files=files)
    propagation = None if prompts is None or len(shape) < 3 else propagation
    if link is not None:
        from napari_simmat.engine.propagation import propagation_axis

        link = _on_time_axis(link, image, axes, shape)
        along = propagation_axis(axes, shape) if propagation else None
        if link is not None and along == link.axis:
            raise ValueError(followed_already(task.name))
    extras = dict(task.files.extras)
    for kind in task.files.extras:
        if problem := format_problem(kind, shape, axes):
            notes.append(problem)
            del extras[kind]
    task = replace(task, files=replace(task.files, extras=extras))
    return LoadedImage(
        task,
        image,
        selection,
        axis,
        axes,
        shape,
        prompts,
        automatic,
        propagation,
        image.sha256(),
        time.monotonic() - start,
        " ".join(notes),
        link,
    )


def _on_time_axis(
    link: LinkSettings, image: ImageFile, axes: str, shape: tuple[int, ...]
) -> LinkSettings | None:
    """The settings with the time axis; None for an image of one plane, which has nothing to link.

    Raises ValueError if the image does not say which axis is time.
    """
    if all(size == 1 for size in shape[:-2]):
        return None
    axis = axes.find("T") if link.axis is None else link.axis
    if not 0 <= axis < len(shape) - 2:
        raise ValueError(no_time_axis(image.path.name, axes))
    return replace(link, axis=axis) if shape[axis] > 1 else None


def no_time_axis(name: str, axes: str) -> str:
    """Message: which axis is time is neither given nor in the file."""
    return (
        f"{name} has the axes {axes}, none of them time. If its planes are the frames of a series, "
        "give their axis, e.g. --link-axis 0."
    )


def followed_already(name: str) -> str:
    """Message: linking and propagation would both give ids over time."""
    return (
        f"The objects of {name} are propagated through time, so they have one id on all frames "
        "already. Leave out --link or --propagate."
    )


def segment_loaded_job(
    loaded: LoadedImage, predictor: Predictor, *, resume: bool = False
) -> Job[SegmentedImage | TaskOutcome]:
    """Segment an image from `load_task` with its prompts, or everything in it.

    Returns a `TaskOutcome` if its outputs are kept. Parameters as in `segment_image_job`.
    """
    start = time.monotonic()
    task = loaded.task
    request = _request(loaded, predictor)
    if resume and task.files.existing():
        return _kept_outcome(task, request, loaded.seconds + time.monotonic() - start)

    predictor.note = ""
    tiles = None
    segmenter = _Segmenter(loaded, predictor, request)
    if task.files.are_in_zarr:
        painting, tiles = yield from segmenter.segment_tiles_job()
    elif loaded.prompts is None:
        painting = yield from segmenter.segment_everything_job()
    elif loaded.propagation is not None:
        painting = yield from segmenter.propagate_job(loaded.prompts, loaded.propagation)
    else:
        painting = yield from segmenter.segment_prompts_job(loaded.prompts)
    lineage = None
    if loaded.link is not None:
        painting, lineage = yield from segmenter.link_job(painting, loaded.link)
    return SegmentedImage(
        loaded,
        request,
        painting,
        stack=predictor.stack,
        note=" ".join(filter(None, (loaded.note, predictor.note))),
        seconds=loaded.seconds + time.monotonic() - start,
        tiles=tiles,
        lineage=lineage,
    )


class _Segmenter:
    """The ways to segment one loaded image."""

    def __init__(self, loaded: LoadedImage, predictor: Predictor, request: Request) -> None:
        self.loaded, self.predictor = loaded, predictor
        self._objects = [values.get("object") for values in request.prompts]

    def segment_prompts_job(self, prompts: Sequence[Prompt]) -> Job[LabelVolume]:
        """Predict prompts plane by plane, so that each plane is encoded once, in the given order.

        The clicks of a prompt refine each other in their order, and of a box the main pieces are
        kept, as in the window.
        """
        from napari_simmat.engine.automatic_generator import ENCODING_WORK

        labels = label_numbers(self._objects)
        painting = LabelVolume(self.loaded.shape)
        encoded: tuple[int, ...] | None = None
        order = sorted(range(len(prompts)), key=lambda number: prompts[number].plane)
        encoding = ENCODING_WORK[self.predictor.model.spec.base.embedded]
        total = encoding * len({prompt.plane for prompt in prompts}) + len(prompts)
        done = 0
        yield from self._open_image_job()
        for number in order:
            prompt = prompts[number]
            if prompt.plane != encoded:
                job = self.predictor.set_plane_job(prompt.plane)
                parts = done / total, (done + encoding) / total
                yield from self._named(job, prompt.plane, parts)
                encoded, done = prompt.plane, done + encoding
            yield self._segmented(done / total, "predicting")
            done += 1
            if prompt.points or prompt.box is not None:
                [answer] = Refiner().refine(self.predictor, [prompt])
            else:  # of a mask alone the refiner gives that mask
                [answer] = self.predictor.predict_many([prompt])
            painting.add(labels[number], answer.mask, answer.score, prompt.plane)
        return painting

    def propagate_job(
        self, prompts: Sequence[Prompt], settings: PropagationSettings
    ) -> Job[LabelVolume]:
        """Propagate the objects of prompts through the stack."""
        from napari_simmat.engine.propagation import propagate_prompts_job

        loaded, labels = self.loaded, label_numbers(self._objects)
        yield from self._open_image_job()
        return (
            yield from self._named(
                propagate_prompts_job(
                    self.predictor, prompts, labels, settings, loaded.axes, loaded.image.scale
                )
            )
        )

    def segment_everything_job(self) -> Job[LabelVolume]:
        """Segment everything in each plane by itself; labels count on from plane to plane."""
        from napari_simmat.engine.automatic_generator import segment_everything_job

        painting = LabelVolume(self.loaded.shape)
        yield from self._open_image_job()  # not encoded: a large plane is encoded tile by tile
        planes = list(np.ndindex(*self.loaded.shape[:-2]))
        for number, plane in enumerate(planes):
            job = segment_everything_job(self.predictor, self.loaded.automatic, plane)
            parts = number / len(planes), (number + 1) / len(planes)
            instances = yield from self._named(job, plane, parts)
            painting.place(instances.labels, instances.scores, plane)
        return painting

    def link_job(
        self, painting: LabelVolume, link: LinkSettings
    ) -> Job[tuple[LabelVolume, Lineage]]:
        """Link objects over time; their ids then follow the tracks."""
        from napari_simmat.engine.propagation import axis_spacing

        axis, loaded, whole = link.axis or 0, self.loaded, (1.0, 1.0)
        spacing = axis_spacing(loaded.axes, loaded.image.scale)
        spacing = (*spacing[:axis], *spacing[axis + 1 :])
        job = link_objects_job(painting.labels, link, axis, spacing)
        lineage = yield from self._named(job, part=whole)
        ids = lineage.ids()
        relabel = relabel_job(painting.labels, lineage, axis)
        linked = LabelVolume(loaded.shape, (yield from self._named(relabel, part=whole)))
        hidden: dict[int, int] = {}
        free = max((*ids.values(), *(one.label for one in painting.masks)), default=0) + 1
        for one in painting.masks:
            label = ids.get(Node(one.plane[axis], one.label))
            if label is None:  # without a pixel: its number may be another object's id now
                label = hidden.setdefault(one.label, free + len(hidden))
            linked.masks.append(replace(one, label=label))
        return linked, lineage.relabeled()

    def segment_tiles_job(self) -> Job[tuple[LabelVolume, Path]]:
        """Segment everything in a plane of any size into OME-Zarr.

        Returns the objects, and a temporary folder beside the output with their labels.
        """
        from napari_simmat.engine.automatic_generator import segment_tiles_job

        image, target = self.loaded.image, self.loaded.task.files.labels
        yield from self._open_image_job()
        folder = partial_path(target)
        height, width = self.loaded.shape
        labels = None
        try:
            name = target.name.removesuffix(".ome.zarr")
            labels = create_labels(folder, name, (height, width), "YX", image.scale, image.units)
            job = segment_tiles_job(self.predictor, labels, self.loaded.automatic)
            scores = yield from self._named(job)
            complete_labels(folder)
        except BaseException as error:
            with suppress(OSError):
                remove(folder)
            if isinstance(error, OSError):
                said = output_error(error, target)
                # Later errors that are not about space may come from reading the image.
                if labels is None or isinstance(said, DiskFullError):
                    raise said from error
            raise
        painting = LabelVolume((height, width), labels)
        painting.masks = [
            MaskScore(label, float(score)) for label, score in enumerate(scores, start=1)
        ]
        return painting, folder

    def _open_image_job(self) -> Job[None]:
        """Give the image to the predictor without encoding it."""
        image, axis, names = self.loaded.image, self.loaded.axis, self.loaded.channel_names
        job = self.predictor.open_image_job(
            image.data,
            axis,
            self.loaded.selection.channels,
            names=names,
            pixel_size=image.pixel_size,
        )
        yield from map_progress(
            job,
            lambda step: self._progress(OPENING_SHARE * (step.fraction or 0.0), step.message),
        )

    def _named(
        self,
        job: Job[T],
        plane: tuple[int, ...] = (),
        part: tuple[float, float] = (0.0, 1.0),
    ) -> Job[T]:
        """Report a job as `part` of the segmentation, with the names of image and plane."""
        where = f" plane {format_list(plane)}" if plane else ""
        start, end = part

        def change(step: Progress) -> Progress:
            done = start + (end - start) * (step.fraction or 0.0)
            return self._segmented(done, f"{step.message or 'encoding'}{where}")

        return map_progress(job, change)

    def _segmented(self, done: float, what: str) -> Progress:
        """Progress when `done` of the segmentation, 0 to 1, is completed."""
        return self._progress(OPENING_SHARE + (1 - OPENING_SHARE) * done, what)

    def _progress(self, done: float, what: str) -> Progress:
        message = f"{self.loaded.task.name}: {what or 'opening'}"
        return Progress(round(_PARTS * done), _PARTS, message)


def write_segmented(segmented: SegmentedImage) -> TaskOutcome:
    """Measure and write a result; needs no model, so it can run behind the predictor."""
    start = time.monotonic()
    try:
        write_result(segmented, start)
    finally:
        if segmented.tiles is not None:
            remove(segmented.tiles)  # moved if the outputs were written
    painting = segmented.painting
    hidden = [] if segmented.tiles else painting.hidden()  # tiled objects do not overlap
    return TaskOutcome(
        segmented.loaded.task,
        "written",
        objects=len({one.label for one in painting.masks}) - len(hidden),
        hidden=tuple(hidden),
        seconds=segmented.seconds + time.monotonic() - start,
        note=segmented.note,
    )


def _replayed_record(task: SegmentTask) -> Record | None:
    """The record of an earlier result, if a task has one in place of a prompt file."""
    if task.prompts is None or not _is_replayed(task.prompts):
        return None
    return read_record(task.prompts)


def _is_replayed(path: Path) -> bool:
    return path.suffix.lower() == ".json" and is_record(path)


def read_task_prompts(path: Path, shape: tuple[int, ...]) -> Sequence[Prompt]:
    """Read prompts from a prompt file, or from the record of an earlier result to replay it."""
    if not _is_replayed(path):
        return read_prompts(path, shape)
    prompts = [Prompt.from_plain(values) for values in read_record(path).request.prompts]
    for prompt in prompts:
        fits = len(prompt.plane) == len(shape) - 2 and all(
            0 <= index < size for index, size in zip(prompt.plane, shape[:-2], strict=True)
        )
        if not fits:
            raise ValueError(
                f"{path.name} has prompts on plane {prompt.plane}, but the image has shape "
                f"{format_shape(shape)}. Use it with an image like the one it was made on."
            )
    return prompts


def label_numbers(ids: Sequence[int | None]) -> list[int]:
    """The label of each prompt from the ids of their objects.

    Ids are labels. If the ids count from 0, like the shapes in napari's CSV, all are raised by
    one, since 0 is the background. Prompts without an id get the lowest free labels.

    Raises ValueError if an id is negative or too large for a label image.
    """
    given = {number for number in ids if number is not None}
    shift = 1 if 0 in given else 0
    if given and (min(given) < 0 or max(given) + shift > 2**32 - 1):
        wrong = min(given) if min(given) < 0 else max(given)
        raise ValueError(
            f"Object {wrong} cannot be a label; number objects upwards from 0 or 1, below 2^32."
        )
    used = {number + shift for number in given}
    free = (number for number in range(1, len(ids) + len(used) + 1) if number not in used)
    return [next(free) if number is None else number + shift for number in ids]


def without_channels(
    image: ImageFile, chosen: int | None
) -> tuple[int | None, str, tuple[int, ...]]:
    """The channel axis, and letters and sizes of the other axes."""
    count = len(image.axes)
    axis = image.channel_axis if chosen is None else chosen
    if axis is None:
        return None, image.axes, image.shape
    if not -count <= axis < count:
        raise ValueError(
            f"{image.path.name} has {count} axes ({image.axes}), so channel axis {axis} does not "
            f"exist; give one from 0 to {count - 1}."
        )
    axis %= count
    axes = image.axes[:axis] + image.axes[axis + 1 :]
    if not axes.endswith("YX"):
        raise ValueError(
            f"{image.path.name} has the axes {image.axes}; without channel axis {axis} they do "
            "not end in YX. Give the axis that holds channels, or none."
        )
    sizes = tuple(int(size) for size in image.data.shape)
    return axis, axes, sizes[:axis] + sizes[axis + 1 :]


def _request(loaded: LoadedImage, predictor: Predictor) -> Request:
    """Everything that the result depends on; refuses prompts outside the image."""
    image, model = loaded.image, predictor.model
    for prompt in loaded.prompts or ():
        prompt.check_inside((image.shape[-2], image.shape[-1]))
    return Request(
        input=RecordedInput(
            file=loaded.task.image.name,
            sha256=loaded.sha256,
            shape=tuple(int(size) for size in image.data.shape),
            axes=image.axes,
            dtype=np.dtype(image.data.dtype).name,
        ),
        model=UsedModel(
            name=model.spec.name, fingerprint=model.fingerprint, base=model.spec.base.name
        ),
        prompts=tuple(prompt.to_plain() for prompt in loaded.prompts or ()),
        settings=RecordedSettings(
            selection=loaded.selection,
            compute=replace(predictor.compute, device=predictor.device.type),
            automatic=loaded.automatic.for_model(model.spec) if loaded.prompts is None else None,
            propagation=loaded.propagation,
            link=loaded.link,
        ),
    )


def _kept_outcome(task: SegmentTask, request: Request, seconds: float) -> TaskOutcome:
    """Keep existing outputs if they are complete and were made the same way, else refuse."""
    files = task.files
    advice = "Use --overwrite to replace it, or another output folder."
    if not files.record.is_file():
        existing = files.existing()[0]
        raise ValueError(f"{existing} exists without a record of how it was made. {advice}")
    record = read_record(files.record)
    if differences := record.request.differences(request):
        what = format_list(differences)
        raise ValueError(f"{files.labels} was made differently; what differs: {what}. {advice}")
    for kind, path in files.recorded.items():
        expected = record.outputs.get(kind, {}).get("sha256")
        if not path.exists() or sha256_of(path) != expected:
            raise ValueError(f"{path} is missing or was changed since it was made. {advice}")
    labels = {int(one["label"]) for one in record.objects}
    seen = {int(one["label"]) for one in record.objects if one["pixels"]}
    hidden = tuple(sorted(labels - seen))
    return TaskOutcome(task, "kept", objects=len(seen), hidden=hidden, seconds=seconds)

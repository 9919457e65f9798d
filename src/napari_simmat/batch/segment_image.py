"""Segment one image, also one that does not fit in memory.

An image whose labels are not held in memory: segmented tile by tile into OME-Zarr.

One image file and its prompts in; label image, table and record out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from napari_simmat._text import format_shape
from napari_simmat.batch.outputs import write_result
from napari_simmat.batch.plan import (
    LoadedImage,
    SegmentConfig,
    SegmentedImage,
    SegmentTask,
    TaskOutcome,
)
from napari_simmat.batch.record import (
    RecordedInput,
    RecordedSettings,
    Request,
    UsedModel,
    prompt_from_dict,
    prompt_to_dict,
    read_record,
)
from napari_simmat.engine.automatic_settings import AutomaticSettings
from napari_simmat.engine.measurements import LabelVolume, MaskScore
from napari_simmat.engine.prompt_files import read_prompts
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.propagation_tracks import PropagationSettings
from napari_simmat.engine.refinement import RefinedMask, Refiner
from napari_simmat.io.files import DiskFullError, output_error, partial_path, remove, sha256_of
from napari_simmat.io.image_file import ImageFile
from napari_simmat.io.readers import read_image
from napari_simmat.io.zarr import create_labels
from napari_simmat.progress import Job, Progress, map_progress

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.result import Result


_UNITS = {"um": "micrometer", "nm": "nanometer", "mm": "millimeter", "cm": "centimeter"}
"""Units of length as OME-Zarr spells them."""


def segment_in_tiles_job(
    loaded: LoadedImage, predictor: Predictor, config: SegmentConfig
) -> Job[tuple[LabelVolume, Path]]:
    """Segment everything in a plane of any size.

    Returns
    -------
    tuple
        The objects, and the folder beside their place where their labels lie until they are
        written.
    """
    from napari_simmat.engine.automatic_generator import segment_tiles_job

    image, target = loaded.image, loaded.task.files.labels
    yield from open_image_job(loaded, predictor, config)
    folder = partial_path(target)
    unit = _UNITS.get(image.units.get("X", ""), "")
    pixel = (image.scale.get("Y", 1.0), image.scale.get("X", 1.0)) if unit else (1.0, 1.0)
    height, width = loaded.shape
    labels = None
    try:
        labels = create_labels(
            folder, target.name.removesuffix(".ome.zarr"), (height, width), pixel, unit
        )
        scores = yield from segment_tiles_job(predictor, labels, loaded.automatic)
    except BaseException as error:
        with suppress(OSError):
            remove(folder)
        if isinstance(error, OSError):
            said = output_error(error, target)
            if labels is None or isinstance(said, DiskFullError):  # else perhaps the image's file
                raise said from error
        raise
    painting = LabelVolume((height, width), labels)
    painting.found = [MaskScore(label, float(score)) for label, score in enumerate(scores, start=1)]
    return painting, folder


def open_image_job(loaded: LoadedImage, predictor: Predictor, config: SegmentConfig) -> Job[None]:
    """Hand over an image, of which nothing is encoded yet."""
    image = loaded.image
    names = image.channel_names if loaded.axis == image.channel_axis else None
    yield from predictor.open_image_job(
        image.data, loaded.axis, config.channels, names, pixel_size=image.pixel_size
    )


T = TypeVar("T")


def segment_image_job(
    task: SegmentTask, predictor: Predictor, config: SegmentConfig, *, resume: bool = False
) -> Job[TaskOutcome]:
    """Segment one image from its files to its files, whole or not at all.

    Parameters
    ----------
    task
        What to read and write; an existing output is replaced.
    predictor
        With the model loaded.
    config
        How to segment.
    resume
        Keep outputs that a record says were made from the same input, model, prompts and
        settings.

    Raises
    ------
    ValueError, TypeError, OSError
        If the image, its prompts or its outputs cannot be used, or (to resume) the outputs were
        made otherwise; one sentence says why.
    """
    yield Progress(0, 0, f"{task.name}: reading")
    loaded = load_task(task, config)
    result = yield from segment_loaded_job(loaded, predictor, config, resume=resume)
    if isinstance(result, TaskOutcome):
        return result
    yield Progress(1, 1, f"{task.name}: measuring and writing")
    return write_segmented(result)


def load_task(task: SegmentTask, config: SegmentConfig) -> LoadedImage:
    """Read a task's image and prompts; needs no model, so that it can be done ahead.

    Raises
    ------
    ValueError, OSError
        If one cannot be read; one sentence says why.
    """
    start = time.monotonic()
    task, ratio = _with_recorded_settings(task, config)
    image = replace(read_image(task.image), pixel_ratio=ratio)
    axis, axes, shape = _without_channels(image, task.settings(config).channel_axis)
    automatic = recorded_automatic(task.prompts) or config.automatic
    prompts = None
    if task.prompts is not None and recorded_automatic(task.prompts) is None:
        prompts = read_task_prompts(task.prompts, shape)
    note = ""
    if prompts is None and _is_large(image, shape, config):
        files = task.files.in_zarr()
        if len(files.extras) < len(task.files.extras):
            note = "COCO and ImageJ's regions are not made of labels in OME-Zarr."
        task = replace(task, files=files)
    sha256 = image.sha256()
    seconds = time.monotonic() - start
    return LoadedImage(task, image, axis, axes, shape, prompts, automatic, sha256, seconds, note)


def segment_loaded_job(
    loaded: LoadedImage, predictor: Predictor, config: SegmentConfig, *, resume: bool = False
) -> Job[SegmentedImage | TaskOutcome]:
    """Answer the prompts of an image that was read, or segment everything in it.

    An `TaskOutcome` where nothing is to be done.

    Parameters
    ----------
    loaded
        From `load_task`.
    predictor, config, resume
        As `segment_image_job` takes them.
    """
    start = time.monotonic()
    task = loaded.task
    config = task.settings(config)
    request = _request(loaded, predictor, config)
    if resume and task.files.existing():
        return _kept_outcome(task, request, loaded.seconds + time.monotonic() - start)

    predictor.note = ""
    tiles = None
    if task.files.are_in_zarr:
        job = segment_in_tiles_job(loaded, predictor, config)
        painting, tiles = yield from _with_image_name(job, loaded, ())
    elif loaded.prompts is None:
        painting = yield from _segment_all_job(loaded, predictor, config)
    elif request.settings.propagation is not None:
        painting = yield from _propagate_prompts_job(
            loaded, loaded.prompts, request, predictor, config
        )
    else:
        painting = yield from _segment_prompts_job(
            loaded, loaded.prompts, request, predictor, config
        )
    return SegmentedImage(
        loaded,
        request,
        painting,
        stack=predictor.stack,
        note=" ".join(filter(None, (loaded.note, predictor.note))),
        seconds=loaded.seconds + time.monotonic() - start,
        tiles=tiles,
    )


def _segment_prompts_job(
    loaded: LoadedImage,
    prompts: Sequence[Prompt],
    request: Request,
    predictor: Predictor,
    config: SegmentConfig,
) -> Job[LabelVolume]:
    """Answer prompts plane by plane, so that each is encoded once, within it in their order.

    Clicks refine one another in their order, as in the window.
    """
    labels = label_numbers([values.get("object") for values in request.prompts])
    planes = [tuple(values.get("plane", ())) for values in request.prompts]
    painting = LabelVolume(loaded.shape)
    encoded: tuple[int, ...] | None = None
    order = sorted(range(len(planes)), key=planes.__getitem__)
    for done, number in enumerate(order):
        plane = planes[number]
        if plane != encoded:
            yield from _encode_plane_job(loaded, predictor, config, plane, first=encoded is None)
            encoded = plane
        yield Progress(done, len(order), f"{loaded.task.image.name}: predicting")
        answer: Result | RefinedMask
        if prompts[number].points:
            [answer] = Refiner().refine(predictor, [prompts[number]])
        else:
            [answer] = predictor.predict_many([prompts[number]])
        painting.add(labels[number], answer.mask, answer.score, plane)
    return painting


def _propagate_prompts_job(
    loaded: LoadedImage,
    prompts: Sequence[Prompt],
    request: Request,
    predictor: Predictor,
    config: SegmentConfig,
) -> Job[LabelVolume]:
    """Follow the objects of prompts through the stack."""
    from napari_simmat.engine.propagation import propagate_prompts_job

    settings = request.settings.propagation
    assert settings is not None
    labels = label_numbers([values.get("object") for values in request.prompts])
    first = min((prompt.plane for prompt in prompts), default=(0,) * (len(loaded.shape) - 2))
    yield from _encode_plane_job(loaded, predictor, config, first, first=True)
    scale = loaded.image.scale
    job = propagate_prompts_job(predictor, prompts, labels, settings, loaded.axes, scale)
    return (yield from _with_image_name(job, loaded, ()))


def _segment_all_job(
    loaded: LoadedImage, predictor: Predictor, config: SegmentConfig
) -> Job[LabelVolume]:
    """Segment everything in each plane by itself; ids go on from plane to plane."""
    from napari_simmat.engine.automatic_generator import segment_everything_job

    painting = LabelVolume(loaded.shape)
    # Not encoded here: a large plane is only in tiles.
    yield from _with_image_name(open_image_job(loaded, predictor, config), loaded, ())
    for plane in np.ndindex(*loaded.shape[:-2]):
        job = segment_everything_job(predictor, loaded.automatic, plane)
        instances = yield from _with_image_name(job, loaded, plane)
        painting.place(instances.labels, instances.scores, plane)
    return painting


def _encode_plane_job(
    loaded: LoadedImage,
    predictor: Predictor,
    config: SegmentConfig,
    plane: tuple[int, ...],
    first: bool,
) -> Job[None]:
    """Encode a plane; the first time the image is handed over."""
    image = loaded.image
    if first:
        names = image.channel_names if loaded.axis == image.channel_axis else None
        job = predictor.set_image_job(
            image.data,
            loaded.axis,
            config.channels,
            plane,
            names,
            pixel_size=image.pixel_size,
        )
    else:
        job = predictor.set_plane_job(plane)
    yield from _with_image_name(job, loaded, plane)


def _with_image_name(job: Job[T], loaded: LoadedImage, plane: tuple[int, ...]) -> Job[T]:
    """A job whose progress names the image and the plane."""
    where = f" plane {', '.join(map(str, plane))}" if plane else ""
    name = loaded.task.name
    return map_progress(
        job,
        lambda step: replace(step, message=f"{name}: {step.message or 'encoding'}{where}"),
    )


def write_segmented(segmented: SegmentedImage) -> TaskOutcome:
    """Measure and write what an image became; needs no model, so that it can be done behind."""
    start = time.monotonic()
    try:
        write_result(segmented, start)
    finally:
        if segmented.tiles is not None:
            remove(segmented.tiles)  # not there once they were written
    painting = segmented.painting
    hidden = [] if segmented.tiles else painting.hidden()  # objects of tiles hide none
    return TaskOutcome(
        segmented.loaded.task,
        "written",
        objects=len({one.label for one in painting.found}) - len(hidden),
        hidden=tuple(hidden),
        seconds=segmented.seconds + time.monotonic() - start,
        note=segmented.note,
    )


def _with_recorded_settings(task: SegmentTask, config: SegmentConfig) -> tuple[SegmentTask, float]:
    """The task and the pixels' ratio; a record that is replayed says what the user does not."""
    if task.prompts is None or task.prompts.suffix.lower() != ".json":
        return task, config.pixel_ratio
    made, asked = read_record(task.prompts).request.settings, task.settings(config)
    task = replace(
        task,
        channels=made.channels if asked.channels is None else asked.channels,
        channel_axis=made.channel_axis if asked.channel_axis is None else asked.channel_axis,
    )
    return task, made.pixel_ratio if config.pixel_ratio == 1 else config.pixel_ratio


def recorded_automatic(path: Path | None) -> AutomaticSettings | None:
    """How everything was segmented, if a prompt file is the record of such a result."""
    if path is None or path.suffix.lower() != ".json":
        return None
    return read_record(path).request.settings.automatic


def read_task_prompts(path: Path, shape: tuple[int, ...]) -> Sequence[Prompt]:
    """Prompts from a prompt file, or from the record of an earlier result, which replays it."""
    if path.suffix.lower() != ".json":
        return read_prompts(path, shape)
    prompts = [prompt_from_dict(values) for values in read_record(path).request.prompts]
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
    """The number in the label image for each prompt, from the ids of their objects.

    An object's id is its label. If the ids count from 0, as the shapes in napari's CSV do, all are
    one higher, since 0 is the background. Prompts without an id get the lowest free numbers.

    Raises
    ------
    ValueError
        If an id is negative or too large for a label image.
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


def _is_large(image: ImageFile, shape: tuple[int, ...], config: SegmentConfig) -> bool:
    """Whether an image's labels are to be written tile by tile; NIfTI and stacks never are."""
    needed = 4 * math.prod(shape)  # uint32
    return len(shape) == 2 and image.affine is None and needed > config.labels_in_memory * 1e9


def _without_channels(
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


def _request(loaded: LoadedImage, predictor: Predictor, config: SegmentConfig) -> Request:
    """All that the result depends on; refuses prompts outside the image on the way."""
    image, path = loaded.image, loaded.task.image
    values = []
    for prompt in loaded.prompts or ():
        prompt.check_inside((image.shape[-2], image.shape[-1]))
        values.append(prompt_to_dict(prompt))
    model = predictor.model
    return Request(
        input=RecordedInput(
            file=path.name,
            sha256=loaded.sha256,
            shape=tuple(int(size) for size in image.data.shape),
            axes=image.axes,
            dtype=np.dtype(image.data.dtype).name,
        ),
        model=UsedModel(
            name=model.spec.name, fingerprint=model.fingerprint, base=model.spec.base.name
        ),
        prompts=tuple(values),
        settings=RecordedSettings(
            channels=config.channels,
            channel_axis=config.channel_axis,
            pixel_ratio=image.pixel_ratio,
            device=predictor.device.type,
            precision=predictor.precision,
            automatic=(loaded.automatic.for_model(model.spec) if loaded.prompts is None else None),
            propagation=_propagation(loaded, config),
        ),
    )


def _propagation(loaded: LoadedImage, config: SegmentConfig) -> PropagationSettings | None:
    """How objects are followed: as a record that is replayed says, else as the run says."""
    path = loaded.task.prompts
    if loaded.prompts is None or path is None or len(loaded.shape) < 3:
        return None
    if path.suffix.lower() == ".json":
        return read_record(path).request.settings.propagation
    return config.propagation


def _kept_outcome(task: SegmentTask, request: Request, seconds: float) -> TaskOutcome:
    """Keep what exists if it was made the same way and is whole, else say what is not."""
    files = task.files
    advice = "Use --overwrite to make it anew, or another output folder."
    if not files.record.is_file():
        existing = files.existing()[0]
        raise ValueError(f"{existing} exists without a record of how it was made. {advice}")
    record = read_record(files.record)
    if differences := record.request.differences(request):
        raise ValueError(
            f"{files.labels} was made otherwise; what differs: {', '.join(differences)}. {advice}"
        )
    for kind, path in files.recorded.items():
        expected = record.outputs.get(kind, {}).get("sha256")
        if not path.exists() or sha256_of(path) != expected:
            raise ValueError(f"{path} is missing or was changed since it was made. {advice}")
    labels = {int(one["label"]) for one in record.objects}
    seen = {int(one["label"]) for one in record.objects if one["pixels"]}
    hidden = tuple(sorted(labels - seen))
    return TaskOutcome(task, "kept", objects=len(seen), hidden=hidden, seconds=seconds)

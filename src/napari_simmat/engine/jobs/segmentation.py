"""One image file and its prompts in; label image, table and record out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from napari_simmat.engine.automatic.settings import AutomaticSettings
from napari_simmat.engine.files import remove, sha256_of
from napari_simmat.engine.formats.image_file import ImageFile
from napari_simmat.engine.formats.promptfiles import read_prompts
from napari_simmat.engine.formats.reading import read_image
from napari_simmat.engine.jobs.large import opening, segmenting_in_tiles
from napari_simmat.engine.jobs.outputs import write_result
from napari_simmat.engine.jobs.record import (
    Input,
    Request,
    Settings,
    UsedModel,
    prompt_from_dict,
    prompt_to_dict,
    read_record,
)
from napari_simmat.engine.jobs.tasks import Loaded, Outcome, SegmentConfig, Segmented, Task
from napari_simmat.engine.objects import Painting
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.propagation_settings import PropagationSettings
from napari_simmat.engine.refining import Refined, Refiner
from napari_simmat.progress import Job, Progress, relayed
from napari_simmat.words import format_shape

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.results import Result

T = TypeVar("T")


def segmenting(
    task: Task, predictor: Predictor, config: SegmentConfig, *, resume: bool = False
) -> Job[Outcome]:
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
    result = yield from answering(loaded, predictor, config, resume=resume)
    if isinstance(result, Outcome):
        return result
    yield Progress(1, 1, f"{task.name}: measuring and writing")
    return write_segmented(result)


def load_task(task: Task, config: SegmentConfig) -> Loaded:
    """Read a task's image and prompts; needs no model, so that it can be done ahead.

    Raises
    ------
    ValueError, OSError
        If one cannot be read; one sentence says why.
    """
    start = time.monotonic()
    task, ratio = _as_recorded(task, config)
    image = replace(read_image(task.image), pixel_ratio=ratio)
    axis, axes, shape = _without_channels(image, task.settings(config).channel_axis)
    automatic = automatic_of(task.prompts) or config.automatic
    prompts = None
    if task.prompts is not None and automatic_of(task.prompts) is None:
        prompts = read_task_prompts(task.prompts, shape)
    note = ""
    if prompts is None and _is_large(image, shape, config):
        files = task.files.in_zarr()
        if len(files.extras) < len(task.files.extras):
            note = "COCO and ImageJ's regions are not made of labels in OME-Zarr."
        task = replace(task, files=files)
    sha256 = image.sha256()
    seconds = time.monotonic() - start
    return Loaded(task, image, axis, axes, shape, prompts, automatic, sha256, seconds, note)


def answering(
    loaded: Loaded, predictor: Predictor, config: SegmentConfig, *, resume: bool = False
) -> Job[Segmented | Outcome]:
    """Answer the prompts of an image that was read, or segment everything in it.

    An `Outcome` where nothing is to be done.

    Parameters
    ----------
    loaded
        From `load_task`.
    predictor, config, resume
        As `segmenting` takes them.
    """
    start = time.monotonic()
    task = loaded.task
    config = task.settings(config)
    request = _request(loaded, predictor, config)
    if resume and task.files.existing():
        return _kept(task, request, loaded.seconds + time.monotonic() - start)

    predictor.note = ""
    tiles = None
    if task.files.are_in_zarr:
        job = segmenting_in_tiles(loaded, predictor, config)
        painting, tiles = yield from _told(job, loaded, ())
    elif loaded.prompts is None:
        painting = yield from _everything(loaded, predictor, config)
    elif request.settings.propagation is not None:
        painting = yield from _followed(loaded, loaded.prompts, request, predictor, config)
    else:
        painting = yield from _prompted(loaded, loaded.prompts, request, predictor, config)
    return Segmented(
        loaded,
        request,
        painting,
        stack=predictor.stack,
        note=" ".join(filter(None, (loaded.note, predictor.note))),
        seconds=loaded.seconds + time.monotonic() - start,
        tiles=tiles,
    )


def _prompted(
    loaded: Loaded,
    prompts: Sequence[Prompt],
    request: Request,
    predictor: Predictor,
    config: SegmentConfig,
) -> Job[Painting]:
    """Answer prompts plane by plane, so that each is encoded once, within it in their order.

    Clicks refine one another in their order, as in the window.
    """
    labels = labels_of([values.get("object") for values in request.prompts])
    planes = [tuple(values.get("plane", ())) for values in request.prompts]
    painting = Painting(loaded.shape)
    encoded: tuple[int, ...] | None = None
    order = sorted(range(len(planes)), key=planes.__getitem__)
    for done, number in enumerate(order):
        plane = planes[number]
        if plane != encoded:
            yield from _encoding(loaded, predictor, config, plane, first=encoded is None)
            encoded = plane
        yield Progress(done, len(order), f"{loaded.task.image.name}: predicting")
        answer: Result | Refined
        if prompts[number].points:
            [answer] = Refiner().refine(predictor, [prompts[number]])
        else:
            [answer] = predictor.predict_many([prompts[number]])
        painting.add(labels[number], answer.mask, answer.score, plane)
    return painting


def _followed(
    loaded: Loaded,
    prompts: Sequence[Prompt],
    request: Request,
    predictor: Predictor,
    config: SegmentConfig,
) -> Job[Painting]:
    """Follow the objects of prompts through the stack."""
    from napari_simmat.engine.volume.painting import painting_through

    settings = request.settings.propagation
    assert settings is not None
    labels = labels_of([values.get("object") for values in request.prompts])
    first = min((prompt.plane for prompt in prompts), default=(0,) * (len(loaded.shape) - 2))
    yield from _encoding(loaded, predictor, config, first, first=True)
    scale = loaded.image.scale
    job = painting_through(predictor, prompts, labels, settings, loaded.axes, scale)
    return (yield from _told(job, loaded, ()))


def _everything(loaded: Loaded, predictor: Predictor, config: SegmentConfig) -> Job[Painting]:
    """Segment everything in each plane by itself; ids go on from plane to plane."""
    from napari_simmat.engine.automatic.everything import segmenting_everything

    painting = Painting(loaded.shape)
    # Not encoded here: a large plane is only in tiles.
    yield from _told(opening(loaded, predictor, config), loaded, ())
    for plane in np.ndindex(*loaded.shape[:-2]):
        job = segmenting_everything(predictor, loaded.automatic, plane)
        instances = yield from _told(job, loaded, plane)
        painting.place(instances.labels, instances.scores, plane)
    return painting


def _encoding(
    loaded: Loaded,
    predictor: Predictor,
    config: SegmentConfig,
    plane: tuple[int, ...],
    first: bool,
) -> Job[None]:
    """Encode a plane; the first time the image is handed over."""
    image = loaded.image
    if first:
        names = image.channel_names if loaded.axis == image.channel_axis else None
        job = predictor.encoding(
            image.data,
            loaded.axis,
            config.channels,
            plane,
            names,
            pixel_size=image.pixel_size,
        )
    else:
        job = predictor.moving(plane)
    yield from _told(job, loaded, plane)


def _told(job: Job[T], loaded: Loaded, plane: tuple[int, ...]) -> Job[T]:
    """A job whose progress names the image and the plane."""
    where = f" plane {', '.join(map(str, plane))}" if plane else ""
    name = loaded.task.name
    return relayed(
        job,
        lambda step: replace(step, message=f"{name}: {step.message or 'encoding'}{where}"),
    )


def write_segmented(segmented: Segmented) -> Outcome:
    """Measure and write what an image became; needs no model, so that it can be done behind."""
    start = time.monotonic()
    try:
        write_result(segmented, start)
    finally:
        if segmented.tiles is not None:
            remove(segmented.tiles)  # not there once they were written
    painting = segmented.painting
    hidden = [] if segmented.tiles else painting.hidden()  # objects of tiles hide none
    return Outcome(
        segmented.loaded.task,
        "written",
        objects=len({one.label for one in painting.found}) - len(hidden),
        hidden=tuple(hidden),
        seconds=segmented.seconds + time.monotonic() - start,
        note=segmented.note,
    )


def _as_recorded(task: Task, config: SegmentConfig) -> tuple[Task, float]:
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


def automatic_of(path: Path | None) -> AutomaticSettings | None:
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


def labels_of(ids: Sequence[int | None]) -> list[int]:
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


def _request(loaded: Loaded, predictor: Predictor, config: SegmentConfig) -> Request:
    """All that the result depends on; refuses prompts outside the image on the way."""
    image, path = loaded.image, loaded.task.image
    values = []
    for prompt in loaded.prompts or ():
        prompt.check_inside((image.shape[-2], image.shape[-1]))
        values.append(prompt_to_dict(prompt))
    model = predictor.model
    return Request(
        input=Input(
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
        settings=Settings(
            channels=config.channels,
            channel_axis=config.channel_axis,
            pixel_ratio=image.pixel_ratio,
            device=predictor.device.type,
            precision=predictor.precision,
            automatic=(loaded.automatic.for_model(model.spec) if loaded.prompts is None else None),
            propagation=_propagation(loaded, config),
        ),
    )


def _propagation(loaded: Loaded, config: SegmentConfig) -> PropagationSettings | None:
    """How objects are followed: as a record that is replayed says, else as the run says."""
    path = loaded.task.prompts
    if loaded.prompts is None or path is None or len(loaded.shape) < 3:
        return None
    if path.suffix.lower() == ".json":
        return read_record(path).request.settings.propagation
    return config.propagation


def _kept(task: Task, request: Request, seconds: float) -> Outcome:
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
    return Outcome(task, "kept", objects=len(seen), hidden=hidden, seconds=seconds)

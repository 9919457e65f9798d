"""Segment one image: predict what `loaded_image` has read; `outputs` writes the result."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_simmat._text import format_list, pluralize
from napari_simmat.batch.loaded_image import LoadedImage, check_inside
from napari_simmat.batch.plan import SegmentTask
from napari_simmat.batch.record import (
    RecordedInput,
    RecordedSettings,
    Request,
    UsedModel,
    read_record,
)
from napari_simmat.checkpoints.advice import better_model
from napari_simmat.engine.everything.candidates import Unsure
from napari_simmat.engine.everything.next_step import SeenPlane
from napari_simmat.engine.everything.tile_journal import TileJournal
from napari_simmat.engine.everything.tissue import AUTO
from napari_simmat.engine.files.tables import TABLE_FORMATS
from napari_simmat.engine.image_stack import ArraySource, ChannelStack
from napari_simmat.engine.label_volume import LabelVolume, MaskScore
from napari_simmat.engine.prompts import LazyPrompts, Prompt
from napari_simmat.engine.refinement import Refiner, pixel_of
from napari_simmat.engine.settings import BY_TINY, Compute, LinkSettings
from napari_simmat.engine.tracking.linking import Lineage, Node, link_objects_job, relabel_job
from napari_simmat.io.files import (
    DiskFullError,
    disk_errors_explained,
    output_error,
    partial_path,
    remove,
    sha256_of,
)
from napari_simmat.io.plain import to_plain
from napari_simmat.io.zarr import complete_labels, create_labels
from napari_simmat.progress import Job, Progress, as_part

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.models.spec import ModelSpec

OPENING_SHARE = 0.05
"""The part of a file's work that counts for opening it: its intensities are measured."""

CHANGED_SINCE = (
    "{} is missing or was changed since it was made, by hand perhaps. Leave its image out to keep "
    "it, or use --overwrite to replace it, corrections included, or another output folder."
)
REPLACE_IT = "Use --overwrite to replace it, or another output folder."
MARKS_MISSED = "{} with the mask of the same object (label {}): add points, or a box."
RENUMBERED = "Linked objects have the id of their track in place of that of their prompts: {}."
_TOLD = 3
"""Ids that are listed at most."""


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
    better_model: str = ""
    """As of `TaskOutcome`."""


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
    is_in_pixels: bool = False
    """Whether its table was written without a pixel size."""
    better_model: str = ""
    """The name of a model made for such images that is not here, if there is one."""


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
    request = yield from _request_job(loaded, predictor)
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
    unsure: list[Unsure] = []
    if loaded.in_tiles:
        segmenting = _segment_tiles_job(loaded, predictor, tiles, request)
    elif prompts is not None and loaded.in_windows:
        segmenting = _segment_windows_job(loaded, prompts, predictor, tiles)
    elif prompts is None:
        segmenting = _segment_everything_job(loaded, predictor, unsure)
    elif config.propagation is not None:
        from napari_simmat.engine.tracking.propagation import propagate_prompts_job

        labels = label_numbers([prompt.object for prompt in prompts])
        segmenting = propagate_prompts_job(
            predictor, prompts, labels, config.propagation, loaded.axes, loaded.image.scale
        )
    else:
        segmenting = _segment_prompts_job(prompts, loaded.shape, predictor)
    volume = yield from as_part(segmenting, OPENING_SHARE, 1.0, before=name, default="encoding")
    remark = _next_step(loaded, predictor, volume, unsure)
    if prompts is not None:
        remark = marks_missed(prompts, volume)
    lineage = None
    if config.link is not None:
        linking = _link_job(volume, loaded, config.link)
        unlinked = volume
        volume, lineage = yield from as_part(linking, 1.0, 1.0, before=name, default="linking")
        if prompts is not None:
            remark = " ".join(filter(None, (remark, _renumbered(unlinked, volume))))
    return SegmentedImage(
        _classed(loaded, volume),
        request,
        volume,
        stack=predictor.stack,
        note=" ".join(filter(None, (loaded.note, predictor.note, remark))),
        seconds=loaded.seconds + time.monotonic() - start,
        tiles=tiles,
        lineage=lineage,
        better_model=_better_model(loaded, predictor),
    )


def _better_model(loaded: LoadedImage, predictor: Predictor) -> str:
    """As of `TaskOutcome`; of a stack the middle plane tells whether it is bright.

    A size that was stated says nothing of the instrument.
    """
    if loaded.config.selection.pixel_size is not None:
        return ""
    rgb = loaded.is_rgb and loaded.image.data.dtype == np.uint8
    plane = tuple(size // 2 for size in loaded.shape[:-2])
    bright = rgb and SeenPlane.of(predictor.stack, plane).is_bright_field
    return better_model(loaded.image.reference, predictor.model.spec, rgb=rgb, bright=bright)


def _next_step(
    loaded: LoadedImage, predictor: Predictor, volume: LabelVolume, unsure: Sequence[Unsure]
) -> str:
    """What to try where everything was looked for and too little found, in sentences.

    `unsure` is what was left out of each plane; of planes in tiles that is not known.

    Of a stack the middle plane is looked at, or that of most objects if it has none; where words or
    tissue say what counts, nothing is said unless nothing was found.
    """
    automatic = loaded.config.automatic
    if loaded.prompts is not None or automatic.words or (loaded.tissue and volume.masks):
        return ""
    plane = tuple(size // 2 for size in loaded.shape[:-2])
    counts = Counter(mask.plane for mask in volume.masks)
    if counts and not counts[plane]:  # a stack need not show objects in the middle
        plane = max(counts, key=counts.__getitem__)
    seen = SeenPlane.of(predictor.stack, plane)
    names = loaded.channel_names or tuple(map(str, loaded.all_channels))
    numbers = [n for n in loaded.all_channels if n not in predictor.stack.selection]
    unread = ArraySource.of(loaded.image.data, loaded.axis)
    values = unread.read(numbers, plane, *seen.where) if numbers else []
    others = dict(zip((names[n] for n in numbers), values, strict=True))
    left_out = reduce(Unsure.with_plane, unsure, Unsure())
    step = replace(seen, others=others).next_step(volume.labels[plane], automatic, left_out)
    return "" if step is None else step.in_options


def _classed(loaded: LoadedImage, volume: LabelVolume) -> LoadedImage:
    """The same with the class of the settings for objects that have none by their prompts."""
    if not (name := loaded.config.table.object_class):
        return loaded
    usual = dict.fromkeys((one.label for one in volume.masks), name)
    return replace(loaded, categories=usual | dict(loaded.categories))


def _segment_prompts_job(
    prompts: Sequence[Prompt], shape: tuple[int, ...], predictor: Predictor
) -> Job[LabelVolume]:
    """Predict prompts plane by plane, so that each plane is encoded once, in the given order.

    The clicks of a prompt refine each other in their order, as in the window.
    """
    from napari_simmat.engine.everything.mask_proposals import ENCODING_WORK

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


def _segment_everything_job(
    loaded: LoadedImage, predictor: Predictor, unsure: list[Unsure]
) -> Job[LabelVolume]:
    """Segment everything in each plane by itself; labels count on from plane to plane.

    `unsure` gets what was left out of each.
    """
    from napari_simmat.engine.everything.generator import segment_everything_job

    volume = LabelVolume(loaded.shape)
    planes = list(np.ndindex(*loaded.shape[:-2]))
    for number, plane in enumerate(planes):
        job = segment_everything_job(predictor, loaded.config.automatic, plane)
        start = number / len(planes)
        end = (number + 1) / len(planes)
        instances = yield from as_part(job, start, end, after=_on_plane(plane))
        volume.place(instances.labels, instances.scores, plane)
        unsure.append(instances.unsure)
    return volume


def _on_plane(plane: tuple[int, ...]) -> str:
    return f" plane {format_list(plane)}" if plane else ""


def _segment_tiles_job(
    loaded: LoadedImage, predictor: Predictor, folder: Path | None, request: Request
) -> Job[LabelVolume]:
    """Segment everything in a plane of any size: into OME-Zarr in `folder`, or into memory.

    What is done is kept beside the output, and a run with --resume goes on there.
    """
    from napari_simmat.engine.everything.tiles import segment_tiles_job

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
    """Link objects over time or depth; their ids then follow the tracks.

    These count from 1 unless prompts have ids, which only objects over time may have.
    """
    from napari_simmat.engine.tracking.propagation import axis_spacing

    axis = link.axis or 0
    spacing = axis_spacing(loaded.axes, loaded.image.scale)
    spacing = (*spacing[:axis], *spacing[axis + 1 :])
    lineage = yield from link_objects_job(volume.labels, link, axis, spacing)
    in_order = loaded.prompts is None or link.along == "depth"
    lineage = replace(lineage, is_numbered=in_order)
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


def _request_job(loaded: LoadedImage, predictor: Predictor) -> Job[Request]:
    """Everything that the result depends on; refuses prompts outside the image."""
    image, model, config = loaded.image, predictor.model, loaded.config
    check_inside(loaded)
    finder = predictor
    if loaded.prompts is None and config.automatic.by == BY_TINY:
        finder = yield from predictor.finder_job()
    return Request(
        input=RecordedInput(
            file=loaded.task.image.name,
            sha256=loaded.sha256,
            shape=tuple(int(size) for size in image.data.shape),
            axes=image.axes,
            dtype=np.dtype(image.data.dtype).name,
            plane=image.world.plane_name() if image.world else "",
            read_by=image.read_by,
            channel_files=tuple(each.name for each in loaded.task.channel_files),
        ),
        model=UsedModel(
            name=model.spec.name,
            fingerprint=model.fingerprint,
            base=model.spec.base.name,
            finder="" if finder is predictor else finder.model.fingerprint,
        ),
        prompts=tuple(prompt.to_plain() for prompt in loaded.prompts or ()),
        settings=_settings_of(
            loaded,
            model.spec,
            replace(predictor.compute, **predictor.encoder_kind._asdict()),
            "" if loaded.tissue is None else loaded.tissue.sha256(),
        ),
    )


def _settings_of(
    loaded: LoadedImage, spec: ModelSpec, compute: Compute, tissue_sha256: str
) -> RecordedSettings:
    config = loaded.config
    return RecordedSettings(
        selection=config.selection,
        compute=compute,
        automatic=config.automatic.for_model(spec) if loaded.prompts is None else None,
        propagation=config.propagation,
        link=config.link,
        table=config.table,
        part=config.part,
        tissue=config.tissue if config.tissue in ("", AUTO) else Path(config.tissue).name,
        tissue_sha256=tissue_sha256,
    )


def check_resumed(loaded: LoadedImage, spec: ModelSpec) -> None:
    """Raise ValueError if a resumed run would refuse the outputs, without model and hashes.

    Device, precision and contents of files are taken to be those of the record.
    """
    task = loaded.task
    if not any(path.exists() for path in task.files):
        return
    if not task.files.record.is_file():
        raise ValueError(_without_record(task))
    made = read_record(task.files.record).request
    compute = replace(made.settings.compute, quality=loaded.config.compute.quality)
    asked = replace(
        made,
        model=replace(made.model, name=spec.name, base=spec.base.name)
        if made.model.name == spec.name
        else UsedModel(name=spec.name, fingerprint="", base=spec.base.name),
        prompts=tuple(prompt.to_plain() for prompt in loaded.prompts or ()),
        settings=_settings_of(loaded, spec, compute, made.settings.tissue_sha256),
    )
    _refuse_differences(task, made, asked)


def _kept_outcome(task: SegmentTask, request: Request, seconds: float) -> TaskOutcome | None:
    """Keep existing outputs if they are complete and were made the same way, else refuse.

    None if all but the table was made the same way, or the table is to be in another format as
    well, so that they can be made anew: nobody has changed them.
    """
    files = task.files
    if not files.record.is_file():
        raise ValueError(_without_record(task))
    record = read_record(files.record)
    has_other_table = record.request.settings.table != request.settings.table
    _refuse_differences(task, record.request, request)
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


def _without_record(task: SegmentTask) -> str:
    existing = next(path for path in task.files if path.exists())
    return f"{existing} exists without a record of how it was made. {REPLACE_IT}"


def _refuse_differences(task: SegmentTask, made: Request, asked: Request) -> None:
    """Raise ValueError if more than the table is to be another than what was made."""
    settings = replace(made.settings, table=asked.settings.table)
    if differences := replace(made, settings=settings).differences(asked):
        what = format_list(differences)
        raise ValueError(
            f"{task.files.labels} was made differently; what differs: {what}. {REPLACE_IT}"
        )

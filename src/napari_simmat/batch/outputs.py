"""Write the outputs of a task, and recover those of a run that was killed.

Optional outputs (overlay picture, objects in other formats) and thumbnails for the summary.

Equal objects give equal bytes: no times, no random numbers.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_simmat import __version__
from napari_simmat.batch.loaded_image import LoadedImage
from napari_simmat.batch.overlays import overlay, overlay_plane, small_overlay, thumbnail
from napari_simmat.batch.plan import INSIDE, SPATIAL, OutputFiles
from napari_simmat.batch.record import Record, read_record
from napari_simmat.batch.segment_image import SegmentedImage, TaskOutcome
from napari_simmat.engine.channels.indices import parse_index
from napari_simmat.engine.channels.matching import GAP, RGB
from napari_simmat.engine.files.label_images import LABEL_WRITERS, label_writer, zarr_properties
from napari_simmat.engine.files.object_set import ObjectSet, ObjectsInTiles
from napari_simmat.engine.files.objects import (
    EXTRA_FORMATS,
    OBJECT_FORMATS,
    format_of,
    format_problem,
)
from napari_simmat.engine.files.spatial import write_spatialdata
from napari_simmat.engine.files.tables import TABLE_FORMATS, TableAbout
from napari_simmat.engine.image_stack import ArraySource, ChannelStack
from napari_simmat.engine.label_volume import LabelVolume
from napari_simmat.engine.measuring.measured_image import MeasuredImage, MeasuredTable
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.engine.tracking.linking import Lineage, LineageTrack, track_table
from napari_simmat.io.axes import label_dtype
from napari_simmat.io.files import (
    atomic_outputs,
    move_into_place,
    partial_paths,
    remove,
    sha256_of,
    write_table,
    write_text,
)
from napari_simmat.io.plain import to_plain
from napari_simmat.io.readers import read_labels
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.zarr import check_is_no_image
from napari_simmat.io.zarr_inside import list_labels, write_labels_inside
from napari_simmat.models.spec import ModelSpec
from napari_simmat.progress import Job, Progress

CLASSES = "_classes.tif"
"""End of the name of the image of classes, which is in the format of the labels."""
CERTAINTY = "class_certainty"
"""Column of tables with classes that the program gave; empty for those by hand."""
FORMATS = (*EXTRA_FORMATS, *TABLE_FORMATS, SPATIAL)
"""What is written of objects and their table alone, by kind."""
OVERLAY_SHOWS = "The overlay shows {}, where most is labeled."


def write_result(segmented: SegmentedImage) -> TaskOutcome:
    """Write label image, table, optional outputs and record, all or none.

    It measures the objects first; it needs no model, so it can run behind the predictor.
    """
    begun = time.monotonic() - segmented.seconds
    volume, tiles = segmented.volume, segmented.tiles
    try:
        # The picture comes first, since writing moves labels that are in a file.
        in_parts = _is_in_parts(segmented)
        labels = segmented.volume.labels
        loaded = segmented.loaded
        if "overlay" in loaded.task.files.extras and (shown := overlay_plane(loaded.axes, labels)):
            note = f"{segmented.note} {OVERLAY_SHOWS.format(shown)}".lstrip()
            segmented = replace(segmented, note=note)
        small = small_overlay(segmented.loaded, segmented.stack, labels, in_parts=in_parts)
        table = _write_files(segmented, begun)
        remove(segmented.loaded.task.files.journal)
    finally:
        if tiles is not None:
            remove(tiles)  # moved if the outputs were written
    if not _is_in_parts(segmented):
        hidden = volume.hidden()
    else:  # what has pixels has a row
        hidden = sorted(
            {m.label for m in volume.masks} - {int(str(r["label"])) for r in table.rows}
        )
    reference = segmented.loaded.image.reference
    return TaskOutcome(
        segmented.loaded.task,
        "written",
        objects=len({one.label for one in volume.masks}) - len(hidden),
        hidden=tuple(hidden),
        seconds=time.monotonic() - begun,
        note=segmented.note,
        thumbnail=thumbnail(small),
        is_in_pixels=reference.of("X") is None and not reference.sky,
        better_model=segmented.better_model,
    )


def _write_files(segmented: SegmentedImage, begun: float) -> MeasuredTable:
    loaded = segmented.loaded
    files = loaded.task.files
    table, pixels = object_table(segmented)
    # The record comes first: `recover_partial` relies on it after a kill.
    targets = (files.record, *files.recorded.values())
    outdated = files.outdated()
    with atomic_outputs(*targets) as (record, *parts):
        temporary = dict(zip(files.recorded, parts, strict=True))
        write_table(temporary["objects"], table.columns, table.rows)
        for kind in files.extras:
            write_extra(kind, temporary[kind], segmented, table)
        if segmented.tiles is not None:
            segmented.tiles.rename(temporary["labels"])
        else:
            write = label_writer(files.labels.name)
            labels = segmented.volume.labels
            write(temporary["labels"], labels, axes=loaded.axes, reference=loaded.image.reference)
        write_text(record, record_of(segmented, pixels, temporary, begun).to_json())
    if INSIDE in files.extras:
        list_labels(loaded.task.image)
    for path in outdated:
        remove(path)
    return table


def _objects_in_tiles(segmented: SegmentedImage, table: MeasuredTable) -> ObjectsInTiles:
    """The objects of labels that are in a file, for formats that are written one by one."""
    loaded = segmented.loaded
    sides = [f"bbox_{letter}{end}_px" for end in (0, 1) for letter in "yx"]
    return ObjectsInTiles(
        sections=(),
        shape=loaded.shape,
        axes=loaded.axes,
        reference=loaded.image.reference,
        image=loaded.task.image.name,
        classes=sorted(set(loaded.categories.values())),
        labels_file=segmented.volume.labels,
        boxes={
            int(str(row["label"])): tuple(int(str(row[side])) for side in sides)
            for row in table.rows
        },
        scores={one.label: one.score for one in segmented.volume.masks},
        categories=loaded.categories,
    )


def _is_in_parts(segmented: SegmentedImage) -> bool:
    """Whether image or labels are a plane that is not to be in memory as a whole."""
    loaded = segmented.loaded
    return segmented.tiles is not None or (loaded.is_large and len(loaded.shape) == 2)


MaskPixels = Mapping[tuple[tuple[int, ...], object], object]
"""Number of pixels of a mask by its plane and label."""


def about_table(
    image: str = "", size: ImageReference | None = None, indices: Sequence[str] = ()
) -> TableAbout:
    """What Parquet and AnnData say of a table.

    Parameters
    ----------
    image, size
        The image that all objects are of, and the size of its pixels.
    indices
        As of `TableSettings`.
    """
    names = dict.fromkeys(parse_index(text).name for text in indices)
    program = f"napari-simmat {__version__}"
    return TableAbout(
        program=program, image=image, size=size or ImageReference(), indices=tuple(names)
    )


class MeasuredObjects(NamedTuple):
    """What is measured of the objects of an image."""

    table: MeasuredTable
    pixels: MaskPixels


def object_table(segmented: SegmentedImage) -> MeasuredObjects:
    """Measure the objects of an image as its settings say."""
    loaded, stack, volume = segmented.loaded, segmented.stack, segmented.volume
    chosen = loaded.all_channels if loaded.config.table.all_channels else stack.selection
    image = loaded.measured([n for n in chosen if n != GAP], loaded.config.table)
    table = image.table(
        volume.labels,
        loaded.axes,
        loaded.image.reference,
        lambda label: {"class": loaded.categories.get(label, "")},
        masks=volume.masks,
    )
    pixels: MaskPixels
    if _is_in_parts(segmented):
        pixels = {((), row["label"]): row["area_px"] for row in table.rows}
    else:
        pixels = _pixels_on_planes(volume)
    return MeasuredObjects(table, pixels)


def _pixels_on_planes(volume: LabelVolume) -> MaskPixels:
    """How many pixels each label has on the planes with masks."""
    pixels: dict[tuple[tuple[int, ...], object], object] = {}
    for plane in {one.plane for one in volume.masks}:
        labels, counts = np.unique(volume.labels[plane], return_counts=True)
        for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
            pixels[plane, label] = count
    return pixels


def record_of(
    segmented: SegmentedImage, pixels: MaskPixels, written: Mapping[str, Path], begun: float
) -> Record:
    """The record of outputs that are in temporary files yet; `written` has them by kind.

    Without any it is of a result that is in memory alone.
    """
    files = segmented.loaded.task.files
    objects = []
    for one in segmented.volume.masks:
        entry: dict[str, Any] = {
            "label": one.label,
            "plane": list(one.plane),
            "score": one.score,
            "pixels": pixels.get((one.plane, one.label), 0),
        }
        category = segmented.loaded.categories.get(one.label)
        if category:
            entry["class"] = category
        objects.append(entry)
    tracks = segmented.lineage.tracks() if segmented.lineage else []
    run: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "duration_s": round(time.monotonic() - begun, 3),
        "version": __version__,
    }
    if segmented.note:
        run["note"] = segmented.note
    return Record(
        request=segmented.request,
        normalization=to_plain(segmented.stack.statistics),
        objects=tuple(objects),
        outputs={
            kind: {"file": target.name, "sha256": sha256_of(written[kind])}
            for kind, target in files.recorded.items()
            if kind in written
        },
        tracks=tuple(track._asdict() for track in tracks),
        run=run,
    )


def write_extra(kind: str, path: Path, segmented: SegmentedImage, table: MeasuredTable) -> None:
    """Write one optional output of a run.

    Parameters
    ----------
    kind
        One of `batch.plan.EXTRA_ENDINGS`. The overlay is a PNG of the image with its objects, of a
        stack the plane most covered by them; tracks are the Cell Tracking Challenge's
        ``res_track.txt``, where in an image of one frame each object is a track.
    path
        The file to write; any name.
    segmented
        The image and its objects.
    table
        Of its objects; samples of a slide are chosen by it, too.
    """
    volume, loaded = segmented.volume, segmented.loaded
    if kind == "overlay":
        from PIL import Image

        in_parts = _is_in_parts(segmented)
        picture = overlay(loaded, segmented.stack, volume.labels, table.rows, in_parts=in_parts)
        Image.fromarray(picture).save(path, format="PNG")
    elif kind == "tracks":
        lineage = segmented.lineage or Lineage.of_labels(volume.labels[None])
        path.write_text(track_table(lineage.tracks()), encoding="ascii", newline="\n")
    elif kind == "ctc":
        frames = _frames(segmented)
        lineage = segmented.lineage or Lineage.of_labels(frames)
        _write_ctc(path, frames, track_table(lineage.tracks()))
    elif kind == INSIDE:
        objects = _object_set(segmented)
        reference, properties = loaded.image.reference, zarr_properties(objects)
        labels = objects.labels()
        write_labels_inside(path, loaded.task.image, labels, loaded.axes, reference, properties)
    else:
        indices = loaded.config.table.indices
        about = about_table(loaded.task.image.name, loaded.image.reference, indices)
        if segmented.tiles is None:
            write_format(kind, path, volume.labels, lambda: _object_set(segmented), table, about)
        else:
            in_tiles = _objects_in_tiles(segmented, table)
            write_format(kind, path, volume.labels, lambda: in_tiles, table, about)


def _object_set(segmented: SegmentedImage) -> ObjectSet:
    loaded = segmented.loaded
    return ObjectSet.of_labels(
        segmented.volume.labels,
        loaded.axes,
        scores={(one.plane, one.label): one.score for one in segmented.volume.masks},
        categories=loaded.categories,
        reference=loaded.image.reference,
        image=loaded.task.image.name,
        has_channels=loaded.has_channels,
    )


def write_format(
    kind: str,
    path: Path,
    labels: Any,
    objects: Callable[[], ObjectSet],
    table: MeasuredTable,
    about: TableAbout,
) -> None:
    """Write a format that is made of objects and their table alone.

    Parameters
    ----------
    kind
        One of `FORMATS`.
    path
        The file to write; any name.
    labels, objects, table, about
        The objects as labels (..., Y, X), as their formats take them, and as a table.
    """
    if kind in TABLE_FORMATS:
        TABLE_FORMATS[kind].write(path, table.columns, table.rows, about)
    elif kind == SPATIAL:
        about = replace(about, indices=())
        write_spatialdata(path, np.asarray(labels), table.columns, table.rows, about)
    else:
        EXTRA_FORMATS[kind].write(path, objects())


def _frames(segmented: SegmentedImage) -> NDArray[Any]:
    """The labels with time as the first axis; without time they are one frame."""
    labels = segmented.volume.labels
    axes = segmented.loaded.axes
    link = segmented.loaded.config.link
    axis = axes[:-2].find("T") if link is None or link.axis is None else link.axis
    return np.moveaxis(labels, axis, 0) if axis >= 0 else labels[np.newaxis]


def _write_ctc(folder: Path, frames: NDArray[Any], table: str) -> None:
    """A result folder of the Cell Tracking Challenge: a mask for each frame, and the tracks."""
    folder.mkdir()
    digits = max(3, len(str(len(frames) - 1)))
    for number, frame in enumerate(frames):
        name = f"mask{number:0{digits}}.tif"
        tifffile.imwrite(folder / name, frame.astype(label_dtype(int(frame.max(initial=0)))))
    (folder / "res_track.txt").write_text(table, encoding="ascii", newline="\n")


def with_kept_thumbnail(outcome: TaskOutcome, loaded: LoadedImage, spec: ModelSpec) -> TaskOutcome:
    """The outcome of a task whose outputs were kept, with a thumbnail drawn from them."""
    stack = ChannelStack.build(
        loaded.image.data,
        inputs=spec.inputs,
        channel_axis=loaded.axis,
        channels=loaded.config.selection.channels,
        channel_names=loaded.channel_names,
    )
    files = loaded.task.files
    if INSIDE in files.extras:
        list_labels(loaded.task.image)  # a run may have been killed just before
    labels = read_labels(files.labels).data
    if not files.are_in_zarr:
        labels = np.asarray(labels).reshape(stack.shape)
    picture = small_overlay(loaded, stack, labels, in_parts=files.are_in_zarr)
    return replace(outcome, thumbnail=thumbnail(picture))


def recover_partial(files: OutputFiles, *, finish: bool) -> None:
    """Clean up after a run that was killed while it wrote these files.

    The record is renamed first. If it exists, all temporary files were complete, and those whose
    hash it holds can still be renamed; if it does not, no file was.

    Parameters
    ----------
    files
        Of one image; no other process may be writing them.
    finish
        Rename complete files to their targets, and leave what is done of tiles; else only remove
        what is left.
    """
    if not finish or files.record.is_file():  # nothing goes on there
        remove(files.journal)
    for outputs in (files, files.in_zarr(), files.in_tiff()):
        left = {target: partial_paths(target) for target in outputs}
        if finish and any(left.values()) and files.record.is_file():
            with suppress(ValueError, OSError):
                _finish_renaming(outputs, read_record(files.record), left)
        for paths in left.values():
            for path in paths:
                remove(path)


def _finish_renaming(
    files: OutputFiles, record: Record, left: Mapping[Path, Sequence[Path]]
) -> None:
    """Rename the temporary files that are `left` of each target, if they are what was recorded."""
    for kind, target in files.recorded.items():
        digest = record.outputs.get(kind, {}).get("sha256")
        if target.exists() and sha256_of(target) == digest:
            continue
        whole = [path for path in left[target] if sha256_of(path) == digest]
        if whole:
            move_into_place(whole[0], target)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabeledObjects:
    """Objects with their scores and classes."""

    labels: NDArray[np.integer[Any]]
    """(..., Y, X) integers, 0 is background."""
    axes: str
    """One letter for each axis of `labels`, ending in YX."""
    reference: ImageReference = field(default_factory=ImageReference)
    """The pixel size."""
    scores: Mapping[int, float] = field(default_factory=dict)
    """The model's estimate of the IoU, by label."""
    categories: Mapping[int, str] = field(default_factory=dict)
    """The class by label, for objects that have one."""
    certainties: Mapping[int, float] = field(default_factory=dict)
    """Of classes that the program gave: how certain they are, 0..1, by label."""
    classes: Sequence[str] = ()
    """Names of all classes; the class image holds their positions here, counted from 1."""
    image: str = ""
    """The image's name."""
    channels: Sequence[str] = ()
    sources: Sequence[ArraySource] = ()
    """Names of all channels of the image, and arrays of them; none to measure no values."""
    measured: int | None = None
    """How many of the channels, from the first; the others may be bands of indices. None for all.
    """
    table: TableSettings = field(default_factory=TableSettings)
    """Which statistics and indices of these channels."""
    time_axis: int | None = None
    parents: Mapping[int, int] = field(default_factory=dict)
    """The axis along which the objects have one id over time, None for none; and for those that
    came from a division the object that divided."""

    def tracks(self) -> list[LineageTrack]:
        """The tracks of a time series; none if no object is on several frames."""
        if self.time_axis is None:
            return []
        tracks = Lineage.of_labels(self.labels, self.time_axis, self.parents).tracks()
        return tracks if any(track.last > track.first for track in tracks) else []


def save_objects_job(
    folder: Path, stem: str, objects: LabeledObjects, path: Path | None = None
) -> Job[list[Path]]:
    """Write ``STEM_labels.tif``, ``STEM_objects.csv`` and, with classes, ``STEM_classes.tif``.

    Objects of a time series also get ``STEM_res_track.txt``.

    All or none are written; existing files are replaced.

    Parameters
    ----------
    folder, stem
        Where, and how all names begin.
    objects
        The objects.
    path
        A file in place of ``STEM_labels.tif``, in the format of its ending, which holds classes
        itself; see `engine.files.objects`.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    OutputError
        If a file cannot be written.
    ValueError
        If the format cannot hold the objects.
    """
    path = path or folder / f"{stem}_labels.tif"
    kind = format_of(path)
    problem = format_problem(kind, objects.labels.shape, objects.axes, objects.reference)
    if problem:
        raise ValueError(problem)
    check_is_no_image(path)
    endings = [ending for ending in LABEL_WRITERS if path.name.lower().endswith(ending)]
    targets = {"labels": path, "table": folder / f"{stem}_objects.csv"}
    if endings and objects.categories:
        targets["classes"] = folder / f"{stem}{CLASSES.replace('.tif', endings[0])}"
    steps = len(targets)
    yield Progress(0, steps, "measuring the objects")
    tracks = objects.tracks()
    if tracks:
        targets["tracks"] = folder / f"{stem}_res_track.txt"
    columns, rows = saved_table(objects)
    axes, reference = objects.axes, objects.reference
    with atomic_outputs(*targets.values()) as parts:
        temporary = dict(zip(targets, parts, strict=True))
        yield Progress(1, steps, "writing the labels")
        if endings:
            write = label_writer(path.name)
            write(temporary["labels"], objects.labels, axes=axes, reference=reference)
        else:
            OBJECT_FORMATS[kind].write(temporary["labels"], object_set_of(objects))
        write_table(temporary["table"], columns, rows)
        if "classes" in targets:
            yield Progress(2, steps, "writing the classes")
            write = label_writer(path.name)
            write(temporary["classes"], classes_of(objects), axes=axes, reference=reference)
        if "tracks" in targets:
            write_text(temporary["tracks"], track_table(tracks))
    return list(targets.values())


def saved_table(objects: LabeledObjects) -> MeasuredTable:
    """The table beside saved objects.

    Raises ValueError if an index of it does not exist, or the image lacks a band of it.
    """
    image = MeasuredImage()
    if objects.sources or objects.table.indices:
        chosen = range(len(objects.channels))[: objects.measured]
        names, table = objects.channels, objects.table
        image = MeasuredImage.of(objects.sources, names, chosen, table, objects.image)

    def known(label: int) -> dict[str, object]:
        row: dict[str, object] = {"class": objects.categories.get(label, "")}
        row["score"] = objects.scores.get(label, float("nan"))
        if objects.certainties:
            row[CERTAINTY] = objects.certainties.get(label, "")
        return row

    columns, rows = image.table(objects.labels, objects.axes, objects.reference, known)
    if objects.certainties:
        columns.insert(columns.index("class") + 1, CERTAINTY)
    return MeasuredTable(columns, rows)


def object_set_of(objects: LabeledObjects) -> ObjectSet:
    """The objects as formats other than label images take them."""
    channels = objects.reference.channels or objects.channels[: objects.measured]
    return ObjectSet.of_labels(
        objects.labels,
        objects.axes,
        scores=objects.scores,
        categories=objects.categories,
        reference=objects.reference,
        classes=objects.classes,
        image=objects.image,
        has_channels=len(channels) > 1 and tuple(channels) != RGB,
    )


def classes_of(objects: LabeledObjects) -> NDArray[np.uint16]:
    """The class number of each voxel; 0 if its object has none."""
    values, where = np.unique(objects.labels, return_inverse=True)
    names = list(objects.classes)
    numbers = [
        names.index(objects.categories[label]) + 1 if objects.categories.get(label) else 0
        for label in values.tolist()
    ]
    return np.array(numbers, dtype=np.uint16)[where].reshape(objects.labels.shape)

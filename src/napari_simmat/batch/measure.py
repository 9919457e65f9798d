"""Measure the objects of label images that any program wrote: the table of `simmat measure`."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, pluralize
from napari_simmat.batch.inputs import shown_name
from napari_simmat.batch.loaded_image import OpenedImage
from napari_simmat.batch.outputs import about_table
from napari_simmat.batch.plan import find_images
from napari_simmat.datasets.folder import LabeledFile
from napari_simmat.datasets.label_folder import check_complete, labels_of_shape, match_label_files
from napari_simmat.engine.channels.matching import channel_index
from napari_simmat.engine.files.label_images import class_of, label_properties
from napari_simmat.engine.files.objects import OUTLINE_ENDINGS, read_objects
from napari_simmat.engine.files.tables import ALL_TABLES
from napari_simmat.engine.measuring.measured_image import column_names
from napari_simmat.engine.measuring.measurements import SPATIAL, with_shares
from napari_simmat.engine.measuring.object_children import CHILDREN, count_children
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.io.captures import is_capture, names_captures
from napari_simmat.io.files import atomic_write
from napari_simmat.io.readers import is_image_folder, open_image, read_labels, stem_of
from napari_simmat.io.reference import ImageReference
from napari_simmat.progress import Job, Progress

TABLE_ENDINGS = {each.ending: kind for kind, each in ALL_TABLES.items()}
"""Formats of the table by the ending of its file's name."""
NO_TABLE = "{} names no format of tables; end its name in one of {}."
EXISTS = "{} exists already. Use --overwrite to replace it, or give another name."
IS_INPUT = "{} is what is to be measured; give the table another name."
ONE_FOLDER = (
    "{} is a folder of images, so give one folder of labels (and of --parents and --children), "
    "which hold a label image for each."
)
IS_FOLDER = "{} is a folder; give one label image for the one image, or a folder of images as well."
OTHER_PLACE = (
    "{} lies elsewhere than {} according to their headers; pixels are taken as they are stored, so "
    "check that the objects are where they should be."
)
OVERLAP = (
    "Of {}, objects share pixels; each of these pixels counts for one of them alone, that with the "
    "higher score or the earlier."
)


@dataclass(frozen=True, kw_only=True)
class MeasureTask:
    """An image and the label images of its objects.

    Parameters
    ----------
    image, labels
        Files, or folders that are one image. Labels may be any that `engine.files.objects` reads.
    parents, children
        Labels of objects that hold the others, and of those that these hold.
    of_folder
        Whether the image is one of a folder, whose table has a column for it.
    name
        Its name there: with its subfolder.
    """

    image: Path
    labels: tuple[Path, ...]
    parents: Path | None = None
    children: Path | None = None
    of_folder: bool = False
    name: str = ""

    @property
    def title(self) -> str:
        """The image's name for the user, and in tables."""
        return self.name or shown_name(self.image)


@dataclass(frozen=True, kw_only=True)
class MeasuredTask:
    """What was measured of an image.

    Attributes
    ----------
    columns, rows
        Of all its objects; with a column ``labels`` if it has several label images.
    counts
        How many objects each label image has.
    reference
        The size of a pixel, of the image or else of its labels.
    notes
        For the user, as sentences.
    """

    task: MeasureTask
    columns: tuple[str, ...]
    rows: Sequence[dict[str, object]]
    counts: Mapping[Path, int]
    reference: ImageReference
    notes: tuple[str, ...] = ()


def find_tasks(
    image: Path, labels: Sequence[Path], parents: Path | None, children: Path | None = None
) -> list[MeasureTask]:
    """What is to be measured: one image with its labels, or each of a folder.

    Parameters
    ----------
    image
        An image; or a folder or a pattern of images, as for `batch.plan.find_inputs`, of which
        `labels`, and `parents` and `children` if given, is a folder with files named alike, see
        `datasets.label_folder`; in subfolders of the same names, or in none.
    labels, parents, children
        As of `MeasureTask`.

    Raises
    ------
    ValueError, OSError
        If a file or folder is missing, or an image of a folder has no labels.
    """
    others = [path for path in (parents, children) if path is not None]
    for path in (*labels, *others):
        if not path.exists():
            raise FileNotFoundError(f"There is no file {path}; check its name and folder.")
    is_one = is_capture(image) or (image.exists() and not _holds_images(image))
    if not (is_one or image.exists() or names_captures(image) or glob.has_magic(str(image))):
        raise FileNotFoundError(f"There is no file {image}; check its name and folder.")
    if is_one:
        for path in (*labels, *others):
            if _holds_images(path):
                raise ValueError(IS_FOLDER.format(path))
        one = MeasureTask(image=image, labels=tuple(labels), parents=parents, children=children)
        return [one]
    folders = [*labels, *others]
    if len(labels) != 1 or not all(map(_holds_images, folders)):
        raise ValueError(ONE_FOLDER.format(image))
    tasks: list[MeasureTask] = []
    found = find_images([image])
    for folder in dict.fromkeys(one.folder for one in found):
        files = [
            LabeledFile(stem_of(one.image), one.image, one.image)
            for one in found
            if one.folder == folder
        ]
        matched = _matched(labels[0], folder, files)
        above, below = (
            {} if path is None else _matched(path, folder, files) for path in (parents, children)
        )
        tasks += [
            MeasureTask(
                image=file.image,
                labels=(matched[file.name],),
                parents=above.get(file.name),
                children=below.get(file.name),
                of_folder=True,
                name=(folder / shown_name(file.image)).as_posix(),
            )
            for file in files
        ]
    return tasks


def _matched(root: Path, folder: Path, files: Sequence[LabeledFile]) -> dict[str, Path]:
    """The label image of each image of a subfolder: in that of the labels, if there is one."""
    there = root / folder if (root / folder).is_dir() else root
    matched = match_label_files(there, files)
    check_complete(there, matched, files)
    return matched


def _holds_images(path: Path) -> bool:
    """Whether a path is a folder of images, and not one image."""
    return path.is_dir() and not is_image_folder(path)


def check_output(output: Path, tasks: Sequence[MeasureTask], *, overwrite: bool) -> str:
    """The format of a table, a key of `ALL_TABLES`.

    Raises ValueError if its name says none, a package lacks, or it must not be written.
    """
    kind = TABLE_ENDINGS.get(output.suffix.lower())
    if kind is None:
        raise ValueError(NO_TABLE.format(output.name, format_list(TABLE_ENDINGS)))
    ALL_TABLES[kind].check()
    if output.exists() and not overwrite:
        raise ValueError(EXISTS.format(output))
    read = {
        path
        for task in tasks
        for path in (task.image, *task.labels, task.parents, task.children)
        if path
    }
    if output.resolve() in {path.resolve() for path in read}:
        raise ValueError(IS_INPUT.format(output))
    return kind


def measure_tasks_job(
    tasks: Sequence[MeasureTask],
    output: Path,
    *,
    table: TableSettings | None = None,
    selection: ChannelSelection | None = None,
    overwrite: bool = False,
    kept: Sequence[dict[str, str]] = (),
) -> Job[list[MeasuredTask]]:
    """Measure the objects of all tasks, and write one table, or none if a file cannot be used.

    Parameters
    ----------
    tasks
        From `find_tasks`.
    output
        Ends in ``.csv``, ``.parquet`` or ``.h5ad``.
    table
        Statistics and indices; the usual ones by default.
    selection
        Which channels are measured, all by default, and which axis holds them.
    overwrite
        Whether the table may replace another.
    kept
        Rows of other images, with the column ``image``, that the table is to hold as well.

    Raises
    ------
    ValueError, TypeError, OSError
        If a file cannot be used; the message names it.
    """
    table = table or TableSettings()
    kind = check_output(output, tasks, overwrite=overwrite)
    done: list[MeasuredTask] = []
    for number, task in enumerate(tasks):
        yield Progress(number, len(tasks), f"{task.title}: measuring")
        done.append(measure_task(task, table, selection or ChannelSelection()))
    yield Progress(len(tasks), len(tasks), "writing the table")
    columns = list(dict.fromkeys(name for each in done for name in each.columns))
    columns += [name for name in (kept[0] if kept else ()) if name not in ("image", *columns)]
    if any(task.of_folder for task in tasks):
        columns = ["image", *columns]
    rows: Iterator[dict[str, object]] = (
        {"image": each.task.title, **with_shares(row, columns)}
        for each in done
        for row in each.rows
    )
    rows = chain(rows, ({**row} for row in kept))
    with atomic_write(output) as path:
        one = done[0] if len(done) == 1 else None
        about = about_table(
            "" if one is None else one.task.title,
            None if one is None else one.reference,
            table.indices,
        )
        ALL_TABLES[kind].write(path, columns, rows, about)
    return done


def measure_task(
    task: MeasureTask, table: TableSettings, selection: ChannelSelection
) -> MeasuredTask:
    """Measure the objects of one image.

    Raises
    ------
    ValueError, TypeError, OSError
        If a file cannot be used; the message names it.
    """
    opened = OpenedImage.of(open_image(task.image), selection)
    measured = opened.measured(_chosen(opened), table)
    parents = None if task.parents is None else _read(task.parents, opened)
    children = None if task.children is None else _read(task.children, opened)
    several = len(task.labels) > 1
    columns: dict[str, None] = dict.fromkeys(["labels"] * several)
    rows: list[dict[str, object]] = []
    counts: dict[Path, int] = {}
    notes = [*opened.image.notes, *measured.notes, *([] if parents is None else parents.notes)]
    reference = opened.image.reference
    for path in task.labels:
        objects = _read(path, opened)
        reference = objects.reference
        above = None if parents is None else parents.labels
        names, found = measured.table(
            objects.labels, opened.axes, reference, objects.known, parents=above
        )
        columns |= dict.fromkeys(names)
        if children is not None:
            held = count_children(objects.labels, children.labels, opened.axes)
            frames = [letter.lower() for letter in opened.axes if letter not in SPATIAL]
            columns[CHILDREN] = None
            for row in found:
                frame = tuple(int(str(row[letter])) for letter in frames)
                row[CHILDREN] = held[frame, int(str(row["label"]))]
        for row in found:
            row |= {"labels": path.name} if several else {}
        rows += found
        counts[path] = len(found)
        notes += objects.notes
    return MeasuredTask(
        task=task,
        columns=tuple(columns),
        rows=rows,
        counts=counts,
        reference=reference,
        notes=tuple(dict.fromkeys(notes)),
    )


def _chosen(opened: OpenedImage) -> list[int]:
    """The channels that are measured: those that were selected, or all but transparency."""
    if opened.channels is None:
        return opened.all_channels
    count = 1 if opened.axis is None else int(opened.image.data.shape[opened.axis])
    names = column_names(opened.channel_names, count, rgb=opened.is_rgb)
    return [channel_index(channel, count, names) for channel in opened.channels]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Objects:
    """The objects of a file, painted into labels of the image's shape."""

    labels: NDArray[Any]
    classes: Mapping[int, str] = field(default_factory=dict)
    scores: Mapping[int, float] = field(default_factory=dict)
    reference: ImageReference
    notes: tuple[str, ...] = ()

    def known(self, label: int) -> dict[str, object]:
        """What a row takes from the file."""
        return {
            "class": self.classes.get(label, ""),
            "score": self.scores.get(label, float("nan")),
        }


def _read(path: Path, opened: OpenedImage) -> _Objects:
    """The objects of a label image, or of outlines in a file."""
    image = opened.image
    if path.suffix.lower() in OUTLINE_ENDINGS and path.is_file():
        found = read_objects(
            path, opened.shape, opened.axes, image=image.path.name, reference=image.reference
        )
        labels = found.labels()
        drawn = sum(int(np.count_nonzero(each.mask.mask)) for each in found.sections)
        overlap = [OVERLAP.format(path.name)] if drawn > np.count_nonzero(labels) else []
        return _Objects(
            labels=labels,
            classes={each.label: each.category for each in found.sections},
            scores={each.label: each.score for each in found.sections},
            reference=image.reference,
            notes=(*found.notes, *overlap),
        )
    file = read_labels(path)
    labels = labels_of_shape(file, opened.shape, image.path.name, opened.axes)
    here, there = image.world, file.world
    lies_elsewhere = here is not None and there is not None and not here.agrees(there, opened.shape)
    known = label_properties(path)
    return _Objects(
        labels=labels,
        classes={label: class_of(row) for label, row in known.items()},
        scores={label: float(row.get("score") or "nan") for label, row in known.items()},
        reference=image.reference if image.scale else file.reference,
        notes=(OTHER_PLACE.format(path.name, image.path.name),) if lies_elsewhere else (),
    )


def summary_line(measured: MeasuredTask) -> str:
    """What was measured of an image, for the user."""
    parts = [
        f"{path.name}: {pluralize(count, 'object')}" for path, count in measured.counts.items()
    ]
    return f"{measured.task.title}: {format_list(parts)}"

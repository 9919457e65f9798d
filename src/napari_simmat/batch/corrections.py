"""Files of a batch that follow what is corrected afterwards, image by image."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from napari_simmat.batch.outputs import (
    FORMATS,
    LabeledObjects,
    about_table,
    object_set_of,
    saved_table,
    write_format,
)
from napari_simmat.batch.plan import EXTRA_ENDINGS, TRACKS
from napari_simmat.batch.summary import (
    ALL_OBJECTS,
    COLUMNS,
    SUMMARY_PAGE,
    SUMMARY_TABLE,
    corrected_page,
)
from napari_simmat.engine.files.objects import format_problem
from napari_simmat.engine.files.tables import TABLE_FORMATS
from napari_simmat.engine.measuring.measurements import with_shares
from napari_simmat.io.files import atomic_write, read_table_file, write_table, write_text
from napari_simmat.progress import Job, Progress

log = logging.getLogger(__name__)


def follow_image_job(folder: Path, stem: str, objects: LabeledObjects) -> Job[list[Path]]:
    """Write the optional outputs of an image anew that lie beside its labels.

    These are the formats of objects and of tables, and the SpatialData store. Each is the old file
    or the new one.

    Parameters
    ----------
    folder, stem
        Where the outputs are, and how their names begin.
    objects
        The objects as they are now.

    Returns
    -------
    list of Path
        Outputs that are older than the objects, since they need more than these, or could not be
        written.
    """
    beside = {kind: folder / f"{stem}{ending}" for kind, ending in EXTRA_ENDINGS.items()}
    beside = {kind: path for kind, path in beside.items() if path.exists()}
    if objects.tracks():
        beside.pop(TRACKS, None)  # saved with the labels
    older = []
    for number, (kind, path) in enumerate(beside.items()):
        yield Progress(number, len(beside), f"writing {path.name}")
        try:
            _write_extra(kind, path, objects)
        except (OSError, ValueError, ImportError) as error:
            log.warning("%s is left as it was: %s", path, error)
            older.append(path)
    return older


def _write_extra(kind: str, path: Path, objects: LabeledObjects) -> None:
    """Write an optional output; ValueError if it is made of more than objects, or cannot be."""
    if problem := format_problem(kind, objects.labels.shape, objects.axes, objects.reference):
        raise ValueError(problem)
    if kind not in FORMATS:
        raise ValueError("it is not made of the objects alone")
    about = about_table(objects.image, objects.reference, objects.table.indices)
    table = saved_table(objects)
    with atomic_write(path) as part:
        write_format(kind, part, objects.labels, lambda: object_set_of(objects), table, about)


def batch_files(output: Path, image: str) -> list[Path]:
    """The files in a batch's output folder that are about several images, this one among them.

    Each shard has files of its own; `image` is named as in their column ``image``.
    """
    endings = [each.ending for each in TABLE_FORMATS.values()]
    tables = [Path(ALL_OBJECTS).with_suffix(ending).name for ending in endings]
    names = [Path(name) for name in (ALL_OBJECTS, SUMMARY_TABLE, SUMMARY_PAGE, *tables)]
    found = [
        output / f"{name.stem}{part}{name.suffix}"
        for part in ("", *_shards_with(output, image))
        for name in names
    ]
    return [path for path in found if path.is_file()]


def _shards_with(output: Path, image: str) -> list[str]:
    """What the names of the files end with that belong to the shards with an image."""
    summary = Path(SUMMARY_TABLE)
    return [
        path.stem.removeprefix(summary.stem)
        for path in sorted(output.glob(f"{summary.stem}-*-of-*{summary.suffix}"))
        if any(row.get("image") == image for row in _read(path)[1])
    ]


def follow_batch_job(
    output: Path, image: str, objects: Path, indices: Sequence[str] = ()
) -> Job[list[Path]]:
    """Let the files of `batch_files` follow the table of one image, which was just saved.

    Parameters
    ----------
    output
        The output folder of the batch.
    image
        As the column ``image`` names it.
    objects
        The image's own table; none if it has no objects.
    indices
        Spectral indices that are measured, as of `TableSettings`.

    Returns
    -------
    list of Path
        Files that could not be written, and are older than the table.
    """
    older = []
    found = batch_files(output, image)
    for number, path in enumerate(found):
        yield Progress(number, len(found), f"writing {path.name}")
        try:
            _follow_batch(path, image, objects, indices)
        except (OSError, ValueError, KeyError, ImportError) as error:
            log.warning("%s is left as it was: %s", path, error)
            older.append(path)
    return older


def _follow_batch(path: Path, image: str, objects: Path, indices: Sequence[str]) -> None:
    """Let one file of all images follow."""
    count = len({row["label"] for row in _read(objects)[1]}) if objects.is_file() else 0
    if path.suffix == Path(SUMMARY_PAGE).suffix:
        page = corrected_page(path.read_text(encoding="utf-8"), image, count)
        with atomic_write(path) as temporary:
            write_text(temporary, page)
    elif path.name.startswith(Path(SUMMARY_TABLE).stem):
        columns, rows = _read(path)
        # Images that were skipped come last, and without their folder: another may have the name.
        for row in [row for row in rows if row["image"] == image][:1]:
            row.update(objects=str(count), hidden="0")
            if row["state"] != "done":  # it had failed, and was labeled by hand
                row.update(state="done", labels=_labels_of(objects, path.parent), message="")
        with atomic_write(path) as temporary:
            write_table(temporary, columns or COLUMNS, rows)
    elif path.suffix == Path(ALL_OBJECTS).suffix:
        _follow_table(path, image, objects)
    else:
        columns, rows = _read(path.with_suffix(Path(ALL_OBJECTS).suffix))  # followed before
        kind = next(kind for kind, each in TABLE_FORMATS.items() if each.ending == path.suffix)
        with atomic_write(path) as temporary:
            TABLE_FORMATS[kind].write(temporary, columns, rows, about_table(indices=indices))


def _labels_of(objects: Path, output: Path) -> str:
    """The labels beside a table of objects, as a summary in the folder `output` names them."""
    stem = objects.name.removesuffix("_objects.csv")
    found = sorted(objects.parent.glob(f"{glob.escape(stem)}_labels.*"))
    return found[0].relative_to(output).as_posix() if found else ""


def _follow_table(table: Path, image: str, objects: Path) -> None:
    """Replace the rows of one image in a table of all by those of its own table."""
    columns, rows = _read(table)
    new_columns, new = _read(objects) if objects.is_file() else ([], [])
    all_columns = list(dict.fromkeys([*columns, *new_columns]))
    own = [{"image": image, **with_shares(row, new_columns)} for row in new]
    kept = list(_replaced(rows, image, own))
    with atomic_write(table) as temporary:
        write_table(
            temporary,
            all_columns,
            ({name: row.get(name, "") for name in all_columns} for row in kept),
        )


def _replaced(
    rows: Iterable[dict[str, str]], image: str, own: Sequence[dict[str, object]]
) -> Iterable[dict[str, object]]:
    """The rows with those of one image in their old place, at the end if it had none."""
    is_there = False
    for row in rows:
        if row["image"] != image:
            yield {**row}
        elif not is_there:
            is_there = True
            yield from own
    if not is_there:
        yield from own


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    columns, rows = read_table_file(path)
    return columns, list(rows)

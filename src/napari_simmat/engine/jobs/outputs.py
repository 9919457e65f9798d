"""Write the outputs of an image; recover those of a run that was killed."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.files import (
    atomic_outputs,
    move_into_place,
    partial_paths,
    remove,
    sha256_of,
    write_table,
    write_text,
)
from napari_simmat.engine.formats.labelfiles import write_labels_nifti, write_labels_tiff
from napari_simmat.engine.formats.reading import is_nifti
from napari_simmat.engine.jobs.extras import write_extra
from napari_simmat.engine.jobs.record import Record, read_record
from napari_simmat.engine.objects import PixelSize, columns_of, measure
from napari_simmat.engine.objects_in_parts import measure_in_parts
from napari_simmat.words import __version__

if TYPE_CHECKING:
    from napari_simmat.engine.formats.image_file import ImageFile
    from napari_simmat.engine.images import ChannelStack
    from napari_simmat.engine.jobs.tasks import OutputFiles, Segmented


def write_result(segmented: Segmented, start: float) -> None:
    """Label image, table and record, together or not at all.

    Parameters
    ----------
    segmented
        What to write, and where.
    start
        When writing began, of `time.monotonic`.
    """
    loaded, stack, painting = segmented.loaded, segmented.stack, segmented.painting
    files, image, axes = loaded.task.files, loaded.image, loaded.axes
    size = PixelSize(scale=image.scale, units=image.units)
    positions, names = _distinct_channels(stack)
    kept: dict[tuple[tuple[int, ...], object], object]
    if files.are_in_zarr:
        rows = measure_in_parts(
            painting.labels,
            channels=names,
            part=lambda rows, columns: stack.part((), rows, columns).plane()[positions],
            size=size,
            found=painting.found,
        )
        kept = {((), row["label"]): row["area_px"] for row in rows}
    else:
        rows = measure(
            painting.labels,
            axes=axes,
            channels=names,
            plane=lambda index: stack.plane(index)[positions],
            size=size,
            found=painting.found,
        )
        kept = {
            (plane, label): count
            for plane in {one.plane for one in painting.found}
            for label, count in _counted(painting.labels[plane])
        }
    # The record first: what a kill leaves unfinished is known by it (`recover_partial`).
    targets = (files.record, *files.recorded.values())
    outdated = files.outdated()
    with atomic_outputs(*targets) as (record, *parts):
        temporary = dict(zip(files.recorded, parts, strict=True))
        write_table(temporary["objects"], columns_of(axes, names, size), rows)
        for kind in files.extras:
            write_extra(kind, temporary[kind], segmented)
        if segmented.tiles is not None:
            segmented.tiles.rename(temporary["labels"])
        else:
            _write_labels(temporary["labels"], files.labels, image, axes, painting.labels)
        made = Record(
            request=segmented.request,
            normalization=stack.statistics.to_dict(),
            objects=[
                {
                    "label": one.label,
                    "plane": list(one.plane),
                    "score": one.score,
                    "pixels": kept.get((one.plane, one.label), 0),
                }
                for one in painting.found
            ],
            outputs={
                kind: {"file": target.name, "sha256": sha256_of(temporary[kind])}
                for kind, target in files.recorded.items()
            },
            run=_run(segmented.seconds + time.monotonic() - start, segmented.note),
        )
        write_text(record, made.to_json())
    for path in outdated:
        remove(path)


def recover_partial(files: OutputFiles, *, finish: bool) -> None:
    """Clean up after a run that was killed while it wrote these files.

    The record is renamed first. If it exists, all temporary files were complete, and those whose
    hash it holds can still be renamed; if it does not, no file was.

    Parameters
    ----------
    files
        Of one image; no other process may be writing them.
    finish
        Rename complete files to their targets; else only remove what is left.
    """
    for each in (files, files.in_zarr()):
        left = {target: partial_paths(target) for target in each}
        if any(left.values()) and finish and files.record.is_file():
            with suppress(ValueError, OSError):
                _place_whole(each, read_record(files.record), left)
        for path in (path for paths in left.values() for path in paths):
            remove(path)


def _place_whole(files: OutputFiles, record: Record, left: Mapping[Path, Sequence[Path]]) -> None:
    for kind, target in files.recorded.items():
        wanted = record.outputs.get(kind, {}).get("sha256")
        if target.exists() and sha256_of(target) == wanted:
            continue
        for path in left[target]:
            if sha256_of(path) == wanted:
                move_into_place(path, target)
                break


def _write_labels(
    path: Path, target: Path, image: ImageFile, axes: str, labels: NDArray[np.uint32]
) -> None:
    if not is_nifti(target):
        write_labels_tiff(path, labels, axes=axes, scale=image.scale, units=image.units)
        return
    if image.affine is None:
        raise ValueError(f"{image.path.name} is no NIfTI, whatever its name says. Rename it.")
    write_labels_nifti(
        path,
        labels.T,  # NIfTI's order is x, y, z, t
        affine=image.affine,
        zooms=[image.scale.get(letter, 1.0) for letter in reversed(axes)],
        units=(image.units.get("X", ""), image.units.get("T", "")),
    )


def _distinct_channels(stack: ChannelStack) -> tuple[list[int], list[str]]:
    """Positions and column names of the selected channels, each once."""
    first = {channel: n for n, channel in reversed(list(enumerate(stack.selection)))}
    positions = sorted(first.values())
    names = [stack.names[n] for n in positions]
    names = [f"channel{name}" if name.isdecimal() else name for name in names]
    if len(set(names)) < len(names):
        names = [f"{name}_{stack.selection[n]}" for n, name in zip(positions, names, strict=True)]
    return positions, names


def _counted(labels: NDArray[np.uint32]) -> list[tuple[int, int]]:
    """Each label of a plane with its number of pixels."""
    values, counts = np.unique(labels, return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def _run(seconds: float, note: str) -> dict[str, Any]:
    """What may differ between two equal runs."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "duration_s": round(seconds, 3),
        "version": __version__,
        **({"note": note} if note else {}),
    }

"""What an image becomes: the names of its files, and what is written into them."""

from __future__ import annotations

import csv
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.files import remove, sha256_of
from napari_simmat.engine.formats.labelfiles import write_labels_nifti, write_labels_tiff
from napari_simmat.engine.formats.reading import is_nifti, stem_of
from napari_simmat.engine.jobs.extras import write_extra
from napari_simmat.engine.jobs.record import Record, read_record
from napari_simmat.engine.jobs.staging import staged
from napari_simmat.engine.objects import PixelSize, columns_of, measure
from napari_simmat.engine.objects_in_parts import measure_in_parts

if TYPE_CHECKING:
    from napari_simmat.engine.formats.image_file import ImageFile
    from napari_simmat.engine.images import ChannelStack
    from napari_simmat.engine.jobs.tasks import Segmented

LABEL_SUFFIXES = (".tif", ".nii.gz", ".ome.zarr")
EXTRA_ENDINGS = {"overlay": "_overlay.png", "coco": "_coco.json", "rois": "_rois.zip"}
"""Optional outputs by their kind, and what follows the image's stem in their names."""
_NO_TEXT = "backslashreplace"
"""How bytes of a file's name that are no text are written: JSON reads them back as they were."""


@dataclass(frozen=True)
class OutputFiles:
    """The files that one image becomes; `extras` holds the optional ones by their kind."""

    labels: Path
    objects: Path
    record: Path
    extras: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, image: Path, folder: Path, extras: Sequence[str] = ()) -> OutputFiles:
        """Name the outputs of `image` in `folder` after the image's stem.

        Parameters
        ----------
        image, folder
            The image, and where its outputs go.
        extras
            Which of `EXTRA_ENDINGS` are written as well.
        """
        stem = stem_of(image)
        suffix = ".nii.gz" if is_nifti(image) else ".tif"
        return cls(
            labels=folder / f"{stem}_labels{suffix}",
            objects=folder / f"{stem}_objects.csv",
            record=folder / f"{stem}.json",
            extras={kind: folder / f"{stem}{EXTRA_ENDINGS[kind]}" for kind in extras},
        )

    def in_zarr(self) -> OutputFiles:
        """The same with labels as OME-Zarr, for an image whose labels are not held in memory.

        Of the optional outputs only the picture can be made then.
        """
        name = f"{self.record.name.removesuffix('.json')}_labels.ome.zarr"
        extras = {kind: path for kind, path in self.extras.items() if kind == "overlay"}
        return replace(self, labels=self.labels.with_name(name), extras=extras)

    @property
    def are_in_zarr(self) -> bool:
        """Whether labels are OME-Zarr."""
        return self.labels.suffix == ".zarr"

    @property
    def recorded(self) -> dict[str, Path]:
        """By their kind, the files that the record vouches for."""
        return {"labels": self.labels, "objects": self.objects, **self.extras}

    def __iter__(self) -> Iterator[Path]:
        return iter((self.labels, self.objects, *self.extras.values(), self.record))

    def possible(self) -> tuple[Path, ...]:
        """The files, and what stands for the labels if the image turns out to be large."""
        return (*self, self.in_zarr().labels)

    def existing(self) -> list[Path]:
        """Those of the files that are already there."""
        return [path for path in self if path.exists()]

    def outdated(self) -> list[Path]:
        """Files beside these that an earlier run wrote for the image, as the record there says.

        Such are labels in another format, and optional outputs that are not wanted any more; what
        was changed since is somebody's work and none of them.
        """
        try:
            earlier = read_record(self.record).outputs.values()
        except (ValueError, OSError):  # there is none, or one of another program
            return []
        stem = self.record.name.removesuffix(".json")
        endings = *(f"_labels{suffix}" for suffix in LABEL_SUFFIXES), *EXTRA_ENDINGS.values()
        possible = {f"{stem}{ending}" for ending in endings} - {path.name for path in self}
        written = {output["file"]: output.get("sha256") for output in earlier}
        paths = {name: self.record.with_name(name) for name in sorted(possible & set(written))}
        return [
            path
            for name, path in paths.items()
            if path.exists() and sha256_of(path) == written[name]
        ]


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV with a header line; what a row lacks stays empty."""
    with path.open("w", newline="", encoding="utf-8", errors=_NO_TEXT) as stream:
        writer = csv.DictWriter(stream, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _cell(value) for name, value in row.items()})


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 with plain line ends on every system."""
    path.write_text(text, encoding="utf-8", errors=_NO_TEXT, newline="\n")


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
    # The record first: what a kill leaves unfinished is known by it (`settle`).
    targets = (files.record, *files.recorded.values())
    outdated = files.outdated()
    with staged(*targets) as (record, *parts):
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


def _cell(value: object) -> object:
    """A float with eight digits, so that the text is the same everywhere; missing is empty."""
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{float(value):.8g}"
    return value


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
    from napari_simmat import __version__

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "duration_s": round(seconds, 3),
        "version": __version__,
        **({"note": note} if note else {}),
    }

"""Tables of objects: CSV, and for other programs Parquet, and AnnData for spatial omics.

These two are made from the columns and rows of the CSV file, types and units from the names of
columns.
Equal tables are equal bytes: neither format gets a time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_simmat.engine.table_settings import NAMED_STATISTICS, percentile_of
from napari_simmat.io.files import write_table
from napari_simmat.io.reference import ImageReference

if TYPE_CHECKING:
    from numpy.typing import NDArray

Row = Mapping[str, object]
TEXTS = ("image", "labels", "class")
"""Columns of text."""
NEEDS_PACKAGE = (
    "A table in {} needs the package {}; install it (pip install {}), or write the table as CSV "
    "alone."
)
_COUNTS = re.compile(r"label|parent|children|[a-z]|area_px|volume_voxels|bbox_[zyx][01]_px")
"""Columns of whole numbers; a single letter is the index along an axis such as time."""
_LENGTHS = re.compile(
    r"(area|volume|surface|perimeter|feret_max|feret_min|equivalent_diameter|(major|middle|minor)_axis"
    r"|orientation|centroid_[zyx]|bbox_[zyx][01])_"
)
"""How columns with a unit begin."""
_CENTROID = re.compile(r"centroid_([zyx])_(.+)")
_ROWS = 10_000
"""Rows that are written at once."""


@dataclass(frozen=True, kw_only=True)
class TableAbout:
    """What a table says of itself, besides its columns.

    Parameters
    ----------
    program
        Name and version.
    image
        The image's file, if all objects are of one.
    size
        Of its pixels.
    indices
        Names of the spectral indices, which are measured like channels, but are none.
    """

    program: str
    image: str = ""
    size: ImageReference = field(default_factory=ImageReference)
    indices: Sequence[str] = ()


@dataclass(frozen=True)
class TableFormat:
    """A format of tables: its title, the ending of file names, what it needs, and its writer.

    The writer takes the columns out of rows that may hold more.
    """

    title: str
    ending: str
    package: str
    write: Callable[[Path, Sequence[str], Iterable[Row], TableAbout], None]

    def check(self) -> None:
        """Raise ValueError with a sentence for the user if its package is not installed."""
        if self.package and find_spec(self.package) is None:
            raise ValueError(NEEDS_PACKAGE.format(self.title, self.package, self.package))


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row], _about: TableAbout) -> None:
    write_table(path, columns, ({name: row.get(name, "") for name in columns} for row in rows))


def write_parquet(
    path: Path, columns: Sequence[str], rows: Iterable[Row], about: TableAbout
) -> None:
    """Write rows as Parquet, ten thousand at a time; the unit is in the metadata of each field.

    Parameters
    ----------
    path
        The file to write; any name.
    columns, rows
        As of `io.files.write_table`; numbers may be text. What is missing is null.
    about
        Goes into the metadata of the file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    types = {"text": pa.string(), "count": pa.int64(), "number": pa.float64()}
    fields = [pa.field(name, types[kind_of(name)]) for name in columns]
    fields = [
        each.with_metadata({"unit": unit}) if (unit := unit_of(each.name)) else each
        for each in fields
    ]
    known = {"program": about.program, "image": about.image}
    schema = pa.schema(fields, metadata={key: value for key, value in known.items() if value})
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for some in _in_groups(rows):
            cells = {
                each: [_value(row.get(each.name), kind_of(each.name)) for row in some]
                for each in fields
            }
            arrays = [pa.array(values, each.type) for each, values in cells.items()]
            writer.write_table(pa.table(arrays, schema=schema))


def write_anndata(
    path: Path, columns: Sequence[str], rows: Iterable[Row], about: TableAbout
) -> None:
    """Write rows as AnnData (``.h5ad``): objects are observations, channels variables.

    ``X`` is the mean, or the first of the statistics that were chosen; `layers` has the others,
    `obs` all other columns and ``obsm["spatial"]`` the centroid, x first, in the unit if it is
    known. ``uns["simmat"]`` says which statistic X is, the unit, the size of a pixel, the program.
    HDF5 would hold times only if it was asked to.

    Parameters
    ----------
    path, columns, rows, about
        As of `write_parquet`.
    """
    table_as_anndata(columns, rows, about).write_h5ad(path, compression="gzip")


def table_as_anndata(columns: Sequence[str], rows: Iterable[Row], about: TableAbout) -> Any:
    """The `AnnData` that `write_anndata` writes."""
    import anndata
    import pandas as pd

    table = _as_arrays(columns, rows)
    count = len(next(iter(table.values()), ()))
    statistics, channels = _channels_of(columns, about.indices)
    unknown = np.full(count, np.nan)
    layers = {
        each: np.column_stack([table.get(f"{each}_{channel}", unknown) for channel in channels])
        for each in statistics
    }
    first = "mean" if "mean" in layers else next(iter(layers), "")
    values = layers.pop(first) if first else np.empty((count, 0))
    measured = {f"{each}_{channel}" for each in statistics for channel in channels}
    others = {name: each for name, each in table.items() if name not in measured}
    if about.image and "image" not in others:
        others = {"image": np.full(count, about.image, object), **others}
    names = pd.Index(_names_of(others, count), dtype=object)
    obs = pd.DataFrame(
        {name: _of_text(each) if name in TEXTS else each for name, each in others.items()},
        index=names,
    )
    spatial, unit = _spatial(others, columns)
    places: dict[str, Any] = {"spatial": spatial}
    return anndata.AnnData(
        X=values,
        obs=obs,
        var=pd.DataFrame(index=pd.Index(channels, dtype=object)),
        layers=layers,
        obsm=places,
        uns={"simmat": _about_values(about, first, unit)},
    )


TABLE_FORMATS = {
    "parquet": TableFormat("Parquet", ".parquet", "pyarrow", write_parquet),
    "anndata": TableFormat("AnnData", ".h5ad", "anndata", write_anndata),
}
"""Formats of tables besides CSV, by kind."""
ALL_TABLES = {"csv": TableFormat("CSV", ".csv", "", _write_csv), **TABLE_FORMATS}
"""All formats of tables, by kind."""


def kind_of(column: str) -> str:
    """What a column holds, by its name: ``"text"``, ``"count"`` or ``"number"``."""
    if column in TEXTS:
        return "text"
    return "count" if _COUNTS.fullmatch(column) else "number"


def unit_of(column: str) -> str:
    """The unit of a column, which ends its name: ``"um2"``; empty if it has none."""
    if column == "volume_voxels":
        return "voxels"
    found = _LENGTHS.match(column)
    return column[found.end() :] if found else ""


def statistic_of(column: str) -> tuple[str, str] | None:
    """Statistic and channel or index of a column such as ``p5_DAPI``; None for any other."""
    statistic, line, name = column.partition("_")
    known = statistic in NAMED_STATISTICS or percentile_of(statistic) is not None
    return (statistic, name) if line and known else None


def _channels_of(columns: Sequence[str], indices: Sequence[str]) -> tuple[list[str], list[str]]:
    """The statistics and the channels that columns are of, both in their order."""
    pairs = [pair for name in columns if (pair := statistic_of(name)) and pair[1] not in indices]
    statistics = list(dict.fromkeys(statistic for statistic, _ in pairs))
    return statistics, list(dict.fromkeys(channel for _, channel in pairs))


def _in_groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(rows)
    while some := list(islice(left, _ROWS)):
        yield some


def _value(value: object, kind: str) -> Any:
    """A value of a row, which may be text from a CSV file; None if it is missing."""
    if value is None or value == "":
        return None
    if kind == "text":
        return str(value)
    number = float(str(value)) if kind == "number" else int(str(value))
    return None if kind == "number" and math.isnan(number) else number


def _as_arrays(columns: Sequence[str], rows: Iterable[Row]) -> dict[str, NDArray[Any]]:
    """A column for each name: text as objects, counts as integers unless some are missing."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in columns}
    for some in _in_groups(rows):
        for name, found in parts.items():
            found.append(_array([row.get(name) for row in some], kind_of(name)))
    empty = {name: _array([], kind_of(name)) for name in columns}
    whole = {name: np.concatenate([empty[name], *found]) for name, found in parts.items()}
    for name, values in whole.items():
        if kind_of(name) == "count" and not np.isnan(values).any():
            whole[name] = values.astype(np.int64)
    return whole


def _array(values: Sequence[object], kind: str) -> NDArray[Any]:
    """Values of one kind; what is missing is empty or NaN."""
    missing = "" if kind == "text" else math.nan
    known = [_value(value, kind) for value in values]
    filled = [missing if value is None else value for value in known]
    return np.array(filled, object if kind == "text" else np.float64)


def _of_text(values: NDArray[Any]) -> Any:
    """Text as categories, the empty one missing."""
    import pandas as pd

    names = sorted(set(values.tolist()) - {""})
    return pd.Categorical([value or None for value in values.tolist()], categories=names)


def _names_of(others: Mapping[str, NDArray[Any]], count: int) -> list[str]:
    """A name for each object: the image if there are several, the label, and the frame."""
    several = "image" in others and len(set(others["image"].tolist())) > 1
    names = [""] * count
    for name, values in others.items():
        is_frame = len(name) == 1
        if name in ("label", "labels") or is_frame or (name == "image" and several):
            before = name if is_frame else ""
            words = (
                f"{before}{value:g}" if isinstance(value, float) else f"{before}{value}"
                for value in values.tolist()
            )
            names = [
                f"{one}:{word}" if one else word for one, word in zip(names, words, strict=True)
            ]
    return names


def _spatial(
    table: Mapping[str, NDArray[Any]], columns: Sequence[str]
) -> tuple[NDArray[np.float64], str]:
    """Centroids (N, 2 or 3), x first, and their unit: the first that all axes have."""
    found: dict[str, dict[str, str]] = {}
    for name in columns:
        if match := _CENTROID.fullmatch(name):
            found.setdefault(match[2], {})[match[1]] = name
    most = max(map(len, found.values()), default=0)
    units = [unit for unit, axes in found.items() if len(axes) == most]
    units.sort(key=lambda unit: unit == "px")
    for unit in units:
        axes = found[unit]
        places = np.column_stack([table[axes[letter]] for letter in "xyz" if letter in axes])
        if unit == units[-1] or not np.isnan(places).any():
            return places, unit
    return np.empty((len(next(iter(table.values()), ())), 0)), ""


def _about_values(about: TableAbout, statistic: str, unit: str) -> dict[str, Any]:
    """What ``uns`` holds."""
    known = {"program": about.program, "image": about.image, "X": statistic, "spatial_unit": unit}
    values: dict[str, Any] = {key: value for key, value in known.items() if value}
    sizes = {letter.lower(): each for letter in "ZYX" if (each := about.size.of(letter))}
    if sizes:
        values["pixel_size"] = {letter: size for letter, (size, _) in sizes.items()}
        values["pixel_unit"] = {letter: unit for letter, (_, unit) in sizes.items()}
    return values

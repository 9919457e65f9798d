"""SpatialData: labels, their outlines and the table of one image in one store, with coordinates.

Coordinates are those of the system ``global``: pixels, or the unit if the size of a pixel is known.
As SpatialData has it, a pixel begins at its index: its center is half a pixel further.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.files.polygons import polygons
from napari_simmat.engine.files.tables import Row, TableAbout, table_as_anndata
from napari_simmat.engine.masks import label_windows
from napari_simmat.io.files import OutputError

SPATIAL_ENDING = "_spatial.zarr"
LABELS, OUTLINES, TABLE = "labels", "outlines", "table"
"""Names of the elements of a store."""
NEEDS_SPATIALDATA = (
    "A store of SpatialData needs the package spatialdata; install it (pip install spatialdata), "
    "or leave it out."
)
NO_SUCH_AXES = (
    "SpatialData holds planes and volumes, but the image has the axes {}; its store is left out."
)

OTHER_ELEMENTS = (
    "{} holds more than labels, outlines and table, so it is not replaced; choose another output "
    "folder."
)


def check_spatialdata() -> None:
    """Raise ValueError with a sentence for the user if its package is not installed."""
    if find_spec("spatialdata") is None:
        raise ValueError(NEEDS_SPATIALDATA)


def spatial_problem(axes: str) -> str:
    """Why labels cannot be written as SpatialData, in one sentence; empty if they can."""
    return "" if axes in ("YX", "ZYX") else NO_SUCH_AXES.format(axes)


def check_is_own_store(path: Path) -> None:
    """Refuse to replace a store with elements that are not of this module; OutputError says so."""
    if not path.is_dir():
        return
    own = {"labels": {LABELS}, "shapes": {OUTLINES}, "tables": {TABLE}}
    for folder in (each for each in path.iterdir() if each.is_dir()):
        names = {each.name for each in folder.iterdir() if each.is_dir()}
        if not names <= own.get(folder.name, set()):
            raise OutputError(OTHER_ELEMENTS.format(path))
    if not any((path / name).is_file() for name in ("zarr.json", ".zgroup")):
        raise OutputError(OTHER_ELEMENTS.format(path))


def write_spatialdata(
    path: Path,
    labels: NDArray[Any],
    columns: Sequence[str],
    rows: Iterable[Row],
    about: TableAbout,
) -> None:
    """Write a store of SpatialData.

    It has ``labels``; ``outlines``, a polygon along the pixel edges for each object of a plane;
    and ``table``, as `tables.write_anndata` has it, whose rows are of ``labels`` by their column
    ``label``. Equal objects are equal bytes.

    Parameters
    ----------
    path
        The folder to write.
    labels
        (Y, X) or (Z, Y, X), 0 is background.
    columns, rows, about
        As of `tables.write_anndata`.
    """
    with warnings.catch_warnings():
        # Its family deprecates what it still uses itself; nobody here can change that.
        warnings.simplefilter("ignore")
        _write_store(path, labels, table_as_anndata(columns, rows, about), about)


def _write_store(path: Path, labels: NDArray[Any], table: Any, about: TableAbout) -> None:
    import spatialdata as sd
    from spatialdata.models import Labels2DModel, Labels3DModel, TableModel
    from spatialdata.transformations import Scale

    axes = ("z", "y", "x")[-labels.ndim :]
    sizes = pixel_sizes(about, axes)
    to_global = {"global": Scale([sizes[axis] for axis in axes], axes=axes)}
    model = Labels2DModel if labels.ndim == 2 else Labels3DModel
    elements: dict[str, Any] = {
        LABELS: model.parse(np.asarray(labels), dims=axes, transformations=to_global)
    }
    if labels.ndim == 2 and (outlines := _outlines(labels, sizes)) is not None:
        elements[OUTLINES] = outlines
    if table.n_obs:
        center = [sizes[axis] / 2 for axis in "xyz" if axis in axes]
        table.obsm["spatial"] = table.obsm["spatial"] + np.array(center)
        table.obs["region"] = _constant(LABELS, table.n_obs)
        table = TableModel.parse(table, region=LABELS, region_key="region", instance_key="label")
        elements[TABLE] = table
    sd.SpatialData.init_from_elements(elements).write(path)


def pixel_sizes(about: TableAbout, axes: Sequence[str]) -> dict[str, float]:
    """Size of a pixel along each axis in the unit that centroids are in; 1 if it is not known."""
    known = {axis: about.size.of(axis.upper()) for axis in axes}
    units = {each[1] for each in known.values() if each}
    if len(units) != 1 or not all(known.values()):
        return dict.fromkeys(axes, 1.0)
    return {axis: each[0] for axis, each in known.items() if each}


def _outlines(labels: NDArray[Any], sizes: Mapping[str, float]) -> Any:
    """The polygons of all objects (Y, X), by label; None if there is no object."""
    import geopandas
    import shapely
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Scale

    shapes: dict[int, Any] = {}
    for label, window in label_windows(labels):
        corner = tuple(side.start for side in window)
        rings = polygons(labels[window] == label, corner)
        parts = [shapely.Polygon(outer, holes) for outer, *holes in rings]
        shapes[label] = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    if not shapes:
        return None
    frame = geopandas.GeoDataFrame(geometry=list(shapes.values()), index=list(shapes))
    scale = Scale([sizes["x"], sizes["y"]], axes=("x", "y"))
    return ShapesModel.parse(frame, transformations={"global": scale})


def _constant(text: str, count: int) -> Any:
    import pandas as pd

    return pd.Categorical([text] * count)

"""Label images that do not fit into memory, as OME-Zarr."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHUNK = 1024


@contextmanager
def label_zarr(
    path: Path, shape: tuple[int, int], pixel: tuple[float, float] = (1.0, 1.0), unit: str = ""
) -> Iterator[Any]:
    """An empty OME-Zarr label image (0.5, one resolution) to be filled within the block.

    It appears under its name when the block ends well; else nothing stays behind.

    Parameters
    ----------
    path
        Ends in ``.ome.zarr``.
    shape
        Height and width.
    pixel, unit
        Height and width of a pixel in `unit`, e.g. ``"micrometer"``.

    Yields
    ------
    zarr array (Y, X) of uint32, in chunks of 1024 x 1024; empty ones take no space.

    Raises
    ------
    FileExistsError
        If there is something of that name.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists already. Remove it, or choose another name.")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield create_labels(part, path.name.removesuffix(".ome.zarr"), shape, pixel, unit)
        os.replace(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def create_labels(
    folder: Path,
    name: str,
    shape: tuple[int, int],
    pixel: tuple[float, float] = (1.0, 1.0),
    unit: str = "",
) -> Any:
    """Make an empty OME-Zarr label image called `name` in a new folder; as `label_zarr`."""
    import zarr

    root = zarr.open_group(folder, mode="w-", zarr_format=3)
    chunks = (min(CHUNK, shape[0]), min(CHUNK, shape[1]))
    array = root.create_array("0", shape=shape, chunks=chunks, dtype="uint32", fill_value=0)
    root.attrs["ome"] = _described(name, pixel, unit)
    return array


def _described(name: str, pixel: tuple[float, float], unit: str) -> dict[str, Any]:
    axes = [
        {"name": axis, "type": "space", **({"unit": unit} if unit else {})} for axis in ("y", "x")
    ]
    scale = [{"type": "scale", "scale": list(pixel)}]
    dataset = {"path": "0", "coordinateTransformations": scale}
    return {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": [dataset]}],
    }

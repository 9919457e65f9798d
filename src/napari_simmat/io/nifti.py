"""NIfTI: images are read; labels and images of several channels are written."""

from __future__ import annotations

import gzip
import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.io.axes import labels_in_file_order, names_of_channels
from napari_simmat.io.image_file import ImageFile, Reader, ReadOptions
from napari_simmat.io.limits import DEFLATE_RATIO, Limits
from napari_simmat.io.reference import ImageReference, World, readers_differ
from napari_simmat.io.refusals import (
    RefusedFileError,
    check_memory,
    needed_module,
    overflow_refused,
)

_UNITS = {"m": "meter", "mm": "mm", "um": "micron", "s": "sec", "ms": "msec", "us": "usec"}
"""Our units and those of NIfTI."""
NO_UNIT = "The file names no unit of length; its voxel sizes are read as millimeters."
READERS_DIFFER = (
    "Readers differ by up to {:.4g} {} on where it lies: sizes and places here are those of the "
    "sform (as in nibabel and FSL); ITK and 3D Slicer take the qform or the voxel sizes."
)
_DIFFERENT = 0.01
"""Part of a voxel above which places differ."""


def is_nifti(path: Path) -> bool:
    """Whether the file's name is that of a NIfTI file."""
    return path.name.lower().endswith(NIFTI.endings)


def read_nifti(path: Path, options: ReadOptions) -> ImageFile:
    """Read NIfTI with reversed axes; voxels are neither flipped nor resampled."""
    nibabel = needed_module("nibabel", path, "NIfTI")
    start = _start_of_voxels(path, _is_packed(path))
    options.limits.check(path.name, "metadata_bytes", start, "header")
    image = nibabel.load(path)
    _check_claims(path, image, options.limits)
    data = _voxels(path, image)
    axes = "XYZTC"[: data.ndim]
    if data.ndim == 5 and data.shape[3] == 1:  # a placeholder before the channels of a volume
        data, axes = data[:, :, :, 0], axes.replace("T", "")
    space, time = image.header.get_xyzt_units()
    named = {"X": space, "Y": space, "Z": space, "T": time}
    short = {name: unit for unit, name in _UNITS.items()}
    units = {letter: short[name] for letter, name in named.items() if name in short}
    world = _world_of(image.header, units.get("X", "mm"))
    # A patient's space is in millimeters to other programs; the identity is an array's, of no size.
    is_placed = any(world.codes) and not np.array_equal(world.affine, np.eye(4))
    sizes = list(map(float, image.header.get_zooms()[:4]))
    if is_placed:  # as nibabel: the sform before the voxel sizes, if the file has one
        sizes[:3] = np.linalg.norm(world.affine[:3, : len(sizes[:3])], axis=0).tolist()
    scale = {letter: size for letter, size in zip("XYZT", sizes, strict=False) if letter in axes}
    notes = []
    if space == "unknown" and is_placed:
        units |= dict.fromkeys("XYZ", "mm")
        notes.append(NO_UNIT)
    apart = readers_differ(world, data.T.shape[-3:]) if is_placed and world.codes[0] else 0.0
    if apart > _DIFFERENT * min(sizes[:3]):
        notes.append(READERS_DIFFER.format(apart, world.unit))
    return ImageFile(
        path,
        data.T,
        axes[::-1],
        channel_names=_channel_names(image.header, data.shape[-1]) if "C" in axes else None,
        scale=scale,
        units=units,
        world=world,
        notes=tuple(notes),
        are_labels=image.header.get_intent()[0] == "label",
    )


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _check_claims(path: Path, image: Any, limits: Limits) -> None:
    """Refuse what a header claims, if it is more than limits or the file hold."""
    stored = image.dataobj
    if not 2 <= len(image.shape) <= 5 or stored.dtype.kind not in "iufc":
        raise RefusedFileError(
            f"{path.name} holds {stored.dtype.name} values along {len(image.shape)} axes; save a "
            "NIfTI image of integers or floats with 2 to 5 axes."
        )
    limits.check_array(path.name, image.shape, stored.dtype)
    nbytes = math.prod(image.shape) * stored.dtype.itemsize
    available = path.stat().st_size
    if _is_packed(path):
        most = DEFLATE_RATIO * available
        # Only a claim that may be true is worth unpacking.
        available = most if most < nbytes else _unpacked_size(path, stored.offset + nbytes)
    limits.check_stored(path.name, nbytes, available - stored.offset)
    limits.check_holes(path)


def _voxels(path: Path, image: Any) -> NDArray[Any]:
    """The voxels as stored, or as float32 if the header scales them; memory-mapped if possible."""
    stored = image.dataobj
    slope, intercept = float(stored.slope), float(stored.inter)
    scaled = (slope, intercept) != (1.0, 0.0)
    if scaled or _is_packed(path):
        size = max(8, stored.dtype.itemsize) if scaled else stored.dtype.itemsize
        check_memory(math.prod(image.shape) * size, path.name)
    if not scaled:
        return np.asanyarray(stored.get_unscaled())
    with overflow_refused(path.name, slope, intercept):
        return np.asarray(stored, dtype=np.float32)


def _channel_names(header: Any, count: int) -> tuple[str, ...] | None:
    """Names of the channels from the comment of `write_channels_nifti`; None without it."""
    for extension in header.extensions:
        with suppress(ValueError, AttributeError, TypeError):
            names = json.loads(extension.text.strip("\0 "))["channels"]
            if len(names) == count and all(isinstance(name, str) for name in names):
                return names_of_channels(names, count)
    return None


def _world_of(header: Any, unit: str) -> World:
    """Where the voxels are: the affine that nibabel prefers, both codes, and the qform.

    Some programs take the qform, or the voxel sizes, which it holds, in any case.
    """
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    codes = int(header["sform_code"]), int(header["qform_code"])
    qform = np.asarray(header.get_qform(), dtype=np.float64)
    return World(affine=affine, space="patient", unit=unit, codes=codes, qform=qform)


def _start_of_voxels(path: Path, packed: bool) -> int:
    """Bytes before the voxels, header extensions included, which nibabel reads at once."""
    with gzip.open(path) if packed else path.open("rb") as stream:
        head = stream.read(540)
    for order in "<>":
        size = struct.unpack_from(f"{order}i", head)[0] if len(head) == 540 else 0
        if size in (348, 540):  # NIfTI-1, NIfTI-2
            form, at = ("f", 108) if size == 348 else ("q", 168)
            (start,) = struct.unpack_from(f"{order}{form}", head, at)
            return int(start) if math.isfinite(start) else 0
    return 0


def _unpacked_size(path: Path, claimed: int) -> int:
    """Bytes in a gzip file; unpacks it unless its last four bytes agree with `claimed`.

    These are the size of the last member modulo 2^32, and most files have one member. A file that
    is cut short has anything there.
    """
    with path.open("rb") as raw:
        raw.seek(-4, os.SEEK_END)
        if int.from_bytes(raw.read(4), "little") == claimed % 2**32:
            return claimed
    size = 0
    with gzip.open(path) as stream:
        while size < claimed and (part := stream.read(2**22)):
            size += len(part)
    return size


def write_labels_nifti(
    path: Path,
    labels: NDArray[np.integer[Any]],
    *,
    axes: str,
    reference: ImageReference | None = None,
) -> None:
    """Write labels as gzip-compressed NIfTI where their image is, with its codes.

    It is NIfTI-1, or NIfTI-2 where an axis is too long for that.

    Parameters
    ----------
    path
        The file to write; any suffix.
    labels, axes
        (..., Y, X), and a letter for each axis. NIfTI's axes are X, Y, Z, T; another before
        them is written where time would be.
    reference
        Place, pixel size and units of the image.

    Raises
    ------
    RefusedFileError
        If nibabel is not installed.
    ValueError
        If the planes of the image do not lie at equal distances.
    """
    nibabel, reference = needed_module("nibabel", path, "NIfTI"), reference or ImageReference()
    data, order = labels_in_file_order(labels, axes)
    if "Z" not in axes and len(axes) > 2:  # NIfTI's third axis is depth
        data, order = data[..., np.newaxis, :, :], [*order[:-2], "Z", *order[-2:]]
    image = _placed(nibabel, data.T, order[::-1], reference)
    image.header.set_intent("label")
    _save(image, path)


def write_channels_nifti(
    path: Path,
    channels: Mapping[str, NDArray[Any]],
    *,
    axes: str,
    reference: ImageReference,
    description: str = "",
) -> None:
    """Write an image of several channels as NIfTI; their names are in a comment of its header.

    Parameters
    ----------
    path
        The file to write; any suffix.
    channels
        By name, (..., Y, X) of one shape and type.
    axes, reference
        A letter for each axis, of T, Z, Y, X in any order; where the image is.
    description
        What was done to it.

    Raises
    ------
    RefusedFileError
        If nibabel is not installed.
    ValueError
        If the planes do not lie at equal distances.
    """
    nibabel = needed_module("nibabel", path, "NIfTI")
    values = np.stack(list(channels.values()))
    order = [letter for letter in "TZYX" if letter in axes]
    values = values.transpose([0, *(1 + axes.index(letter) for letter in order)])
    # NIfTI's axes are X, Y, Z, T, and behind them what a voxel holds; those that lack have size 1.
    lacking = [1 + number for number, letter in enumerate("TZ") if letter not in axes]
    values = np.expand_dims(values, tuple(lacking))
    image = _placed(nibabel, values.T, [*"XYZT"], reference)
    image.header.set_intent("vector")
    about = json.dumps({"channels": list(channels), "description": description})
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", about.encode()))
    _save(image, path)


def _placed(
    nibabel: Any, data: NDArray[Any], order: Sequence[str], reference: ImageReference
) -> Any:
    """NIfTI-1 or NIfTI-2 of `data`, with a letter of `order` for each axis, where its image is."""
    reference.check_one_step("NIfTI")
    world = reference.patient
    if world.unit not in _UNITS:
        world = world.in_millimeters
    qform = world.affine if world.qform is None else world.qform
    # NIfTI-1 counts along an axis in 16 bits.
    kind = nibabel.Nifti1Image if max(data.shape) < 2**15 else nibabel.Nifti2Image
    image = kind(data, world.affine)
    header = image.header
    header.set_sform(world.affine, world.codes[0])
    header.set_qform(qform, world.codes[1], strip_shears=True)  # sets the voxel sizes as well
    space = world.unit if reference.units.get("X") else ""
    units = (space, reference.units.get("T", ""))
    header.set_xyzt_units(*(_UNITS.get(unit, "unknown") for unit in units))
    zooms = list(header.get_zooms())
    if "T" in order and "T" in reference.scale:
        zooms[order.index("T")] = float(reference.scale["T"])
    header.set_zooms(zooms)
    return image


def _save(image: Any, path: Path) -> None:
    """Write a file whose bytes depend on the image alone, not on name and time."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream:
        stream.write(image.to_bytes())


NIFTI = Reader(
    ("NIfTI (.nii, .nii.gz)",),
    (".nii", ".nii.gz"),
    lambda path, _: is_nifti(path) and path.is_file(),
    read_nifti,
)

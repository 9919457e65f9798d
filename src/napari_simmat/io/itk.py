"""NRRD and MetaImage (MHA, MHD), read and written by SimpleITK."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list
from napari_simmat.io.axes import labels_in_file_order, names_of_channels, planes_last
from napari_simmat.io.files import format_size
from napari_simmat.io.image_file import ImageFile, Reader, ReadOptions
from napari_simmat.io.limits import DEFLATE_RATIO, Limits
from napari_simmat.io.reference import LPS, ImageReference, World
from napari_simmat.io.refusals import RefusedFileError, check_memory, needed_module
from napari_simmat.io.units import TIMES, known_unit

ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
_FORMATS = "NRRD or MetaImage"
_NRRD = b"NRRD0"
_LABELS = "labels_of"
"""Key in the header of label images that this program wrote."""
_CHANNELS = "channels"
"""Key in the header of images that this program wrote: the names of their channels, as JSON."""
_HEADER = 2**16
"""Bytes in which the fields of a header that matter here must be."""
_NRRD_UNIT_FIELD = re.compile(rb"^(space units|units): *(.+?)\r?$", re.M)
_QUOTED = re.compile(rb'"([^"]*)"')
_META_UNITS = "ITK_VoxelUnits"
"""SimpleITK's key of the unit of MetaImage (``DistanceUnits``), which it reads and writes."""
_WRITTEN_UNITS = {".nrrd": ("m", "mm", "um", "cm", "nm"), ".mha": ("um", "mm", "cm")}
"""Units that a file can state, by its ending."""
UNKNOWN_UNIT = (
    "Its unit of length, {}, is not known here, so its sizes have none; save it with space units "
    "such as mm or um."
)
DAMAGED = "{} is damaged: it {}; copy it again."
_TEXTS = (b"comment", b"name", b"objecttype", b"objectsubtype")
_LONGEST_TEXT = 250
_META_FIELD = re.compile(rb"^[ \t]*(CompressedData|CompressedDataSize)[ \t]*[=:][ \t]*(\w+)", re.M)
_META_DATA = re.compile(rb"ElementDataFile[^\n]*\n")
_AT_ONCE = 2**20
"""Bytes that are unpacked at a time."""
_TYPES = {
    f"{bits}-bit {name}": np.dtype(f"{kind}{bits // 8}")
    for kind, name, sizes in (
        ("i", "signed integer", (8, 16, 32, 64)),
        ("u", "unsigned integer", (8, 16, 32, 64)),
        ("f", "float", (32, 64)),
    )
    for bits in sizes
}
"""SimpleITK's names of pixel types."""


def is_itk(path: Path, start: bytes) -> bool:
    """Whether a file is NRRD by its first bytes, or MetaImage by its name."""
    return path.is_file() and (
        start.startswith(_NRRD) or path.name.lower().endswith((".mha", ".mhd"))
    )


def read_itk(path: Path, options: ReadOptions) -> ImageFile:
    """Read NRRD or MetaImage with reversed axes; voxels are neither flipped nor resampled."""
    sitk = needed_module("SimpleITK", path, _FORMATS)
    files = _files(path)
    reader = _read_header(sitk, path)
    size, channels = reader.GetSize(), reader.GetNumberOfComponents()
    nbytes = _check_claims(sitk, files, reader, options.limits)
    check_memory(2 * nbytes, path.name)
    if _io_of(path) == "MetaImageIO":
        _check_packed(path, files[-1], nbytes)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        problem = f"does not hold {format_size(nbytes)} of voxels that SimpleITK can read"
        raise RefusedFileError(DAMAGED.format(path.name, problem)) from error
    axes = "TZYX"[-len(size) :] + ("C" if channels > 1 else "")
    spacing = image.GetSpacing()
    scale = dict(zip("XYZT", map(float, spacing), strict=False))
    unit, note = _unit_of(path, image)
    data, axes = planes_last(sitk.GetArrayFromImage(image), axes)
    return ImageFile(
        path,
        data,
        axes,
        channel_names=_channel_names(image, channels) if channels > 1 else None,
        scale=scale,
        units=dict.fromkeys([letter for letter in scale if letter != "T"], unit) if unit else {},
        world=World(affine=LPS @ _affine_of(image), space="patient", unit=unit or "mm"),
        notes=(note,) if note else (),
        are_labels=image.HasMetaDataKey(_LABELS),
        files=tuple(files) if len(files) > 1 else (),
    )


def _read_header(sitk: Any, path: Path) -> Any:
    """A reader that has read the header alone."""
    if _io_of(path) == "MetaImageIO":
        _check_meta_header(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_io_of(path))
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        problem = "has a header that SimpleITK cannot read"
        raise RefusedFileError(DAMAGED.format(path.name, problem)) from error
    return reader


def _check_claims(sitk: Any, files: Sequence[Path], reader: Any, limits: Limits) -> int:
    """Refuse what a header claims, if it is more than limits or files hold; returns its bytes.

    The first of the files has the header.
    """
    name = files[0].name
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    dtype = _TYPES.get(kind.removeprefix("vector of "))
    if dtype is None or not 2 <= reader.GetDimension() <= 4:
        raise RefusedFileError(
            f"{name} holds {kind} values along {reader.GetDimension()} axes; save an image of "
            "integers or floats with 2 to 4 axes."
        )
    channels = reader.GetNumberOfComponents()
    shape = (*reversed(reader.GetSize()), *([channels] if channels > 1 else []))
    limits.check_array(name, shape, dtype)
    nbytes: int = math.prod(shape) * dtype.itemsize
    limits.check_stored(name, nbytes, DEFLATE_RATIO * sum(f.stat().st_size for f in files))
    for file in files:
        limits.check_holes(file)
    return nbytes


def _channel_names(image: Any, channels: int) -> tuple[str, ...] | None:
    """Names of the channels, as `write_channels_itk` writes them; None without them."""
    if not image.HasMetaDataKey(_CHANNELS):
        return None
    with suppress(ValueError):
        found = json.loads(image.GetMetaData(_CHANNELS))
        if isinstance(found, list) and len(found) == channels:
            return names_of_channels(list(map(str, found)), channels)
    return None


def _affine_of(image: Any) -> NDArray[np.float64]:
    """(4, 4), from (x, y, z) to ITK's physical points."""
    count = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(count, count)
    known = min(3, count)
    affine = np.eye(4)
    linear = direction * np.array(image.GetSpacing())
    affine[:known, :known] = linear[:known, :known]
    affine[:known, 3] = image.GetOrigin()[:known]
    return affine


def _unit_of(path: Path, image: Any) -> tuple[str, str]:
    """The unit of length of an image, and a sentence if it is unknown here, or axes have several.

    It is millimeters where the file names none, and empty if it is unknown.
    """
    names = _nrrd_units(path)
    if image.HasMetaDataKey(_META_UNITS):
        names = [image.GetMetaData(_META_UNITS).strip()]
    named = dict.fromkeys(name.lower() for name in names if name not in ("", "?"))
    if not named:
        return "mm", ""
    units = {known_unit(name) for name in named} - set(TIMES)
    [unit] = units if len(units) == 1 else [""]
    return unit, "" if unit else UNKNOWN_UNIT.format(format_list(named))


def _nrrd_units(path: Path) -> list[str]:
    """Names of the units of the axes of space in the header of NRRD, which ITK leaves out."""
    head = _head_of(path)
    if not head.startswith(_NRRD):
        return []
    fields = dict(_NRRD_UNIT_FIELD.findall(head))
    stated = fields.get(b"space units") or fields.get(b"units") or b""
    return [each.decode("utf-8", "replace").strip() for each in _QUOTED.findall(stated)[:3]]


def _state_unit(path: Path, unit: str, count: int) -> None:
    """Add the unit of length of `count` axes of space to a NRRD of SimpleITK, which writes none."""
    head, blank, voxels = path.read_bytes().partition(b"\n\n")
    units = " ".join([f'"{unit}"'] * count)
    path.write_bytes(head + f"\nspace units: {units}".encode() + blank + voxels)


def _files(path: Path) -> list[Path]:
    """The header and the file of voxels that it names; refuses one that lies elsewhere.

    SimpleITK opens whatever is named: a path, a list, a pattern.
    """
    fields = _fields_of(path)
    names = {value.strip() for key, value in fields if key in (b"datafile", b"elementdatafile")}
    if len(names) > 1 or (not names and _io_of(path) == "MetaImageIO"):
        raise RefusedFileError(DAMAGED.format(path.name, "does not say where its voxels are"))
    name = names.pop().decode("utf-8", "replace") if names else "LOCAL"
    if name.upper() == "LOCAL":
        return [path]
    beside = path.with_name(Path(name).name)
    plain = Path(name).name == name and "\\" not in name and "%" not in name
    if not plain or name.upper().startswith("LIST") or not beside.is_file():
        raise RefusedFileError(
            f"{path.name} keeps its voxels in {name[:80]}, which is not one file beside it; save "
            "header and voxels as one file (.nrrd, .mha)."
        )
    if beside.resolve().parent != path.resolve().parent:
        raise RefusedFileError(f"{name} leads out of the folder of {path.name}; copy it there.")
    return [path, beside]


def _fields_of(path: Path) -> list[tuple[bytes, bytes]]:
    """The fields of a header: keys in lower case without spaces, up to a null byte; and values.

    More is a field here than for SimpleITK, so that nothing is a field for it alone.
    """
    lines = re.split(rb"[\r\n]+", _head_of(path))
    pairs = (re.split(rb"[=:]", line, maxsplit=1) for line in lines)
    fields = (pair for pair in pairs if len(pair) == 2)
    return [(re.sub(rb"\s|\0.*", b"", key).lower(), value) for key, value in fields]


def _check_meta_header(path: Path) -> None:
    """Refuse a header of MetaImage that would end the process.

    SimpleITK writes more axes, or longer texts, than it has room for behind that room.
    """
    for key, value in _fields_of(path):
        if key == b"ndims" and value.strip() not in (b"2", b"3", b"4"):
            raise RefusedFileError(DAMAGED.format(path.name, "does not have 2 to 4 axes"))
        if key in _TEXTS and len(value) > _LONGEST_TEXT:
            problem = f"has a {key.decode()} of more than {_LONGEST_TEXT} characters"
            raise RefusedFileError(DAMAGED.format(path.name, problem))


def _head_of(path: Path) -> bytes:
    """The header's text; of MetaImage, which does not mark its end, also what follows."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER)
    if not head.startswith(_NRRD):
        return head
    fields, *voxels = re.split(rb"\r?\n\r?\n", head, maxsplit=1)
    if len(head) == _HEADER and not voxels:
        raise RefusedFileError(DAMAGED.format(path.name, "has no end"))
    return fields


def _check_packed(path: Path, file: Path, nbytes: int) -> None:
    """Refuse a MetaImage whose packed voxels, in `file`, do not unpack to `nbytes`.

    SimpleITK prints a line, and gives whatever is in memory for those that it cannot unpack.
    """
    head = _head_of(path)
    fields = dict(_META_FIELD.findall(head))
    if not fields.get(b"CompressedData", b"").upper().startswith((b"T", b"1")):
        return
    start = _META_DATA.search(head)
    left = int(fields.get(b"CompressedDataSize", 0))
    unpacker = zlib.decompressobj()
    count = 0
    with file.open("rb") as stream, suppress(zlib.error):
        stream.seek(start.end() if file == path and start is not None else 0)
        while count < nbytes:
            packed = unpacker.unconsumed_tail
            if not packed:
                packed = stream.read(min(left, _AT_ONCE))
                left -= len(packed)
            if not packed:
                break
            count += len(unpacker.decompress(packed, _AT_ONCE))
    if count < nbytes:
        problem = f"holds {format_size(count)} of {format_size(nbytes)} of voxels"
        raise RefusedFileError(DAMAGED.format(path.name, problem))


def _io_of(path: Path) -> str:
    with path.open("rb") as stream:
        return "NrrdImageIO" if stream.read(5) == _NRRD else "MetaImageIO"


def write_labels_itk(
    path: Path,
    labels: NDArray[np.integer[Any]],
    *,
    axes: str,
    reference: ImageReference | None = None,
    ending: str = ".nrrd",
) -> None:
    """Write labels as compressed NRRD or MHA where their image is.

    Parameters
    ----------
    path
        The file to write; any suffix.
    labels, axes
        (..., Y, X) of two to four axes, and a letter for each.
    reference
        Place and pixel size of the image.
    ending
        ``".nrrd"`` or ``".mha"``.

    Raises
    ------
    RefusedFileError
        If SimpleITK is not installed.
    ValueError
        If the planes of the image do not lie at equal distances.
    """
    sitk = needed_module("SimpleITK", path, _FORMATS)
    data, _ = labels_in_file_order(labels, axes)
    image = sitk.GetImageFromArray(np.ascontiguousarray(data), isVector=False)
    image.SetMetaData(_LABELS, "napari-simmat")
    _write(sitk, path, image, axes, reference or ImageReference(), ending)


def write_channels_itk(
    path: Path,
    channels: Mapping[str, NDArray[Any]],
    *,
    axes: str,
    reference: ImageReference,
    description: str = "",
    ending: str = ".nrrd",
) -> None:
    """Write an image of several channels as NRRD or MHA, with their names in its header.

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
    ending
        ``".nrrd"`` or ``".mha"``.

    Raises
    ------
    RefusedFileError
        If SimpleITK is not installed.
    ValueError
        If the planes do not lie at equal distances.
    """
    sitk = needed_module("SimpleITK", path, _FORMATS)
    order = [axes.index(letter) for letter in "TZYX" if letter in axes]
    values = np.stack([each.transpose(order) for each in channels.values()], axis=-1)
    several = len(channels) > 1
    stored = np.ascontiguousarray(values if several else values[..., 0])
    image = sitk.GetImageFromArray(stored, isVector=several)
    image.SetMetaData(_CHANNELS, json.dumps(list(channels)))
    if description:
        image.SetMetaData("description", description)
    _write(sitk, path, image, axes, reference, ending)


def _write(
    sitk: Any, path: Path, image: Any, axes: str, reference: ImageReference, ending: str
) -> None:
    """Place an image of SimpleITK, with axes of `axes`, and write it to `path`."""
    reference.check_one_step("NRRD or MetaImage")
    world = reference.patient
    if world.unit not in _WRITTEN_UNITS[ending]:
        world = world.in_millimeters
    affine = LPS @ world.affine
    count = image.GetDimension()
    spatial = 3 if "Z" in axes else 2
    lengths = np.linalg.norm(affine[:spatial, :spatial], axis=0)
    linear, origin = np.eye(count), np.zeros(count)
    linear[:spatial, :spatial] = affine[:spatial, :spatial] / lengths
    origin[:spatial] = affine[:spatial, 3]
    spacing = np.ones(count)
    spacing[:spatial] = lengths
    if "T" in axes:
        spacing[-1] = reference.scale.get("T", 1.0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    image.SetDirection(linear.ravel().tolist())
    states_unit = world.unit != "mm"  # which is what everybody takes it for
    if states_unit and ending == ".mha":
        image.SetMetaData(_META_UNITS, world.unit)
    # SimpleITK takes the format from the ending.
    written = path.with_name(f"{path.name}{ending}")
    try:
        sitk.WriteImage(image, str(written), useCompression=True)
        if states_unit and ending == ".nrrd":
            _state_unit(written, world.unit, spatial)
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)


ITK = Reader(("NRRD", "MetaImage (.mha, .mhd)"), ENDINGS, is_itk, read_itk)

"""Images of several named channels, written where the image lies that they were made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from napari_simmat._text import format_list
from napari_simmat.io.files import atomic_outputs
from napari_simmat.io.itk import write_channels_itk
from napari_simmat.io.nifti import write_channels_nifti
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.tiff_writing import write_channels_tiff

NO_FORMAT = "{} names no format of channels; end its name in one of {}."
OTHER_AXES = (
    "{} has axes of T, Z, Y, X, but the image has {}; write its channels as OME-TIFF (.ome.tif)."
)
PLACE_LOST = "{} does not hold where the image lies in {}, so its labels will not know it either."
KEEPING = "To keep it, end the name in one of {}."


class ChannelFormat(NamedTuple):
    """A format of images of several channels.

    Attributes
    ----------
    title
        Its name for the user.
    write
        Takes the path and the channels, as keywords ``axes``, ``reference`` and ``description``.
    space
        The kind of place that it keeps, as of `World`.
    """

    title: str
    write: Callable[..., None]
    space: str


_TIFF = ChannelFormat("TIFF", write_channels_tiff, "map")
_NIFTI = ChannelFormat("NIfTI", write_channels_nifti, "patient")
CHANNEL_FORMATS = {
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".nii.gz": _NIFTI,
    ".nrrd": ChannelFormat("NRRD", partial(write_channels_itk, ending=".nrrd"), "patient"),
    ".mha": ChannelFormat("MetaImage", partial(write_channels_itk, ending=".mha"), "patient"),
}
"""By the ending of the file's name."""


def check_channel_format(path: Path, axes: str, reference: ImageReference) -> str:
    """Check that a file can hold the channels of an image; returns a remark if it loses its place.

    Raises
    ------
    ValueError
        If its name is of no format, or the format has other axes, or one distance between planes
        that the image has not.
    """
    form, world = _format_of(path), reference.world
    if form.space == "patient":
        if not set(axes) <= set("TZYX"):
            raise ValueError(OTHER_AXES.format(form.title, axes))
        reference.check_one_step(form.title)
    if world is None or world.space == form.space:
        return ""
    keeping = [end for end, each in CHANNEL_FORMATS.items() if each.space == world.space]
    where = "a patient" if world.space == "patient" else "a map"
    lost = PLACE_LOST.format(form.title, where)
    return f"{lost} {KEEPING.format(format_list(keeping))}" if world.even else lost


def write_channels(
    path: Path,
    channels: Mapping[str, NDArray[Any]],
    axes: str,
    reference: ImageReference,
    description: str = "",
    missing: int | None = None,
) -> None:
    """Write channels in the format of the file's ending, replacing an earlier file.

    Parameters
    ----------
    path
        Its name ends in one of `CHANNEL_FORMATS`.
    channels
        By name, (..., Y, X) of one shape and type.
    axes, reference
        A letter for each axis; what the channels keep of the image that they were made from.
    description
        What was done to it.
    missing
        The value of pixels without data, in a format that `keeps_missing`.

    Raises
    ------
    ValueError
        As `check_channel_format`.
    """
    check_channel_format(path, axes, reference)
    about: dict[str, Any] = {"reference": reference, "description": description}
    if missing is not None:
        about["missing"] = missing
    with atomic_outputs(path) as (temporary,):
        _format_of(path).write(temporary, channels, axes=axes, **about)


def keeps_missing(path: Path) -> bool:
    """Whether a format names the value of pixels without data; the others have NaN for them."""
    return _format_of(path) is _TIFF


def _format_of(path: Path) -> ChannelFormat:
    for ending, form in CHANNEL_FORMATS.items():
        if path.name.lower().endswith(ending):
            return form
    raise ValueError(NO_FORMAT.format(path.name, format_list(list(CHANNEL_FORMATS))))

"""Images, prompts and settings as programmers have them, turned into what the engine reads.

An image may be a path, an array (numpy, dask, zarr), an xarray DataArray, or a napari layer.
"""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.engine.files.prompts import label_prompts
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.axes import same_except_singletons, unnamed_axes
from napari_simmat.io.image_file import ImageFile
from napari_simmat.io.readers import read_image, read_labels, stem_of
from napari_simmat.io.stated import SIZE_AXES
from napari_simmat.io.units import known_unit, unit_named

S = TypeVar("S")
GivenPrompts = str | Path | NDArray[Any] | Sequence[Any]
"""``"auto"``, a prompt file, labels, or a list of prompts."""
GivenSize = float | Sequence[float] | Mapping[str, float] | None
COLORS = (3, 4)
AXES_MISFIT = (
    "The axes {} are {} letters, but the array has {} axes ({}); give one letter for each, e.g. "
    "CYX or ZYX."
)
NO_PROMPT = (
    "A prompt is a Prompt, a table of its parts, a click of {clicks} numbers ({axes}) or a box of "
    "{boxes}, not {given}."
)
NO_PART = "A prompt has no part {!r}; its parts are {}."
NO_PROMPT_LIST = (
    "Prompts are 'auto', a list of clicks, boxes or Prompts, labels of the image's shape, or a "
    "file, not {}."
)
NO_PROMPTS = "The list of prompts is empty; give one, or 'auto' for all objects."
NOT_WHOLE = (
    "The labels are {} values; labels are integers, 0 for the background and another one for each "
    "object. Convert them, e.g. astype('uint16')."
)
NO_SETTINGS = "Settings are given as {}(...), not as {}."
NO_CHANNELS = "Channels are a list of names or numbers, not {!r}; write [{!r}]."
NO_IMAGE = (
    "An image is a path, an array, an xarray DataArray or a napari layer, not {}; convert it with "
    "numpy.asarray."
)
NO_LABELS = (
    "Give the labels of the image too, (..., Y, X) with a number for each object; or a folder with "
    "the labels beside the images."
)
SIZE_MISFIT = "A size of pixels is one number, one for each of {}, or a table by letter, not {!r}."
_MEANINGS = {"channel": "C", "band": "C", "wavelength": "C", "time": "T", "depth": "Z"}
"""Names of dimensions that do not begin with their letter, or are longer."""


def image_of(
    given: Any,
    *,
    axes: str = "",
    channel_axis: int | None = None,
    channel_names: Sequence[str] | None = None,
    pixel_size: GivenSize = None,
    unit: str = "",
    name: str = "image",
) -> ImageFile:
    """An array, a DataArray or a layer as an image with named axes.

    Parameters
    ----------
    given
        (..., Y, X) with channels on any axis. An array (Y, X, 3 or 4) is a color picture unless
        axes say otherwise.
    axes
        One letter for each axis, C for channels: ``"CYX"``, ``"TZYX"``. By default those that the
        DataArray or the layer names, else Y and X are the last ones.
    channel_axis
        The axis of the channels, in place of `axes`.
    channel_names
        Their names.
    pixel_size
        One number, one for each of the axes without channels, or a table by letter.
    unit
        Of these sizes, in any usual spelling (``"um"``, ``"µm"``, ``"micrometer"``); by default
        those of the layer.
    name
        For messages, tables and files.

    Raises
    ------
    ValueError, TypeError
        If the axes do not fit, or the unit is unknown.
    """
    data, found_axes, names, sizes, found_units = _parts_of(given)
    shape = tuple(int(size) for size in data.shape)
    axes = (axes or ("" if channel_axis is not None else found_axes)).upper()
    is_picture = not axes and channel_axis is None and len(shape) == 3 and shape[-1] in COLORS
    if is_picture:
        axes = "YXC"
    elif not axes:
        plain = unnamed_axes(Path(name), len(shape) - (channel_axis is not None))
        at = None if channel_axis is None else channel_axis % len(shape)
        axes = plain if at is None else f"{plain[:at]}C{plain[at:]}"
    if len(axes) != len(shape) or len(set(axes)) < len(axes):
        words = (axes, len(axes), len(shape), format_shape(shape))
        raise ValueError(AXES_MISFIT.format(*words))
    given_names = names if channel_names is None else tuple(channel_names)
    scale = _scale(sizes if pixel_size is None else pixel_size, axes.replace("C", ""))
    letters = axes.replace("C", "")
    units = {}
    if unit:
        units = dict.fromkeys(scale, unit_named(unit))
    elif pixel_size is None and len(found_units) == len(letters):
        units = {letter: each for letter, each in zip(letters, found_units, strict=True) if each}
    rgb = is_picture or bool(getattr(given, "rgb", False))
    return ImageFile(Path(name), data, axes, given_names, scale=scale, units=units, rgb=rgb)


def _parts_of(
    given: Any,
) -> tuple[Any, str, tuple[str, ...] | None, GivenSize, tuple[str, ...]]:
    """The array, letters of its axes, names of its channels, sizes of its pixels, and units."""
    if hasattr(given, "dims") and hasattr(given, "coords"):  # an xarray.DataArray
        axes = "".join(_letter(str(each)) for each in given.dims)
        channel = next((each for each in given.dims if _letter(str(each)) == "C"), None)
        names = None
        if channel is not None and channel in given.coords:
            names = tuple(str(each) for each in given.coords[channel].values)
        return given.data, axes, names, None, ()
    if hasattr(given, "data") and hasattr(given, "scale") and hasattr(given, "ndim"):  # a layer
        data = given.data[0] if getattr(given, "multiscale", False) else given.data
        rgb = bool(getattr(given, "rgb", False))
        scale = [abs(float(each)) for each in given.scale]
        labels = "".join(_letter(str(each)) for each in getattr(given, "axis_labels", ()))
        named = labels if labels.endswith("YX") and len(set(labels)) == len(labels) else ""
        plain = named or unnamed_axes(Path("layer"), len(scale))
        # Without a unit napari's layers count in pixels.
        units = tuple(known_unit(str(each)) for each in getattr(given, "units", ()))
        return data, f"{plain}C" if rgb else plain, None, scale, units
    if not hasattr(given, "shape") or not hasattr(given, "dtype"):
        raise TypeError(NO_IMAGE.format(type(given).__name__))
    return given, "", None, None, ()


def _letter(name: str) -> str:
    """The letter of an axis called `name`."""
    lowered = name.lower()
    return _MEANINGS.get(lowered, lowered[:1].upper() or "Q")


def _scale(given: GivenSize, axes: str) -> dict[str, float]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        sizes = {str(letter).upper(): float(size) for letter, size in given.items()}
    elif isinstance(given, (int, float)):
        sizes = dict.fromkeys("YX", float(given))
    elif len(given) in (2, len(axes)):
        sizes = dict(zip(axes[-len(given) :], (float(each) for each in given), strict=True))
    else:
        raise ValueError(SIZE_MISFIT.format(axes, given))
    if not set(sizes) <= set(axes) or not all(0 < each < float("inf") for each in sizes.values()):
        raise ValueError(SIZE_MISFIT.format(axes, given))
    return sizes


def sizes_of(given: GivenSize) -> tuple[float, ...] | None:
    """A size of pixels as `ChannelSelection` has it, of the last axes of an image.

    Raises ValueError for a table that names others than Z, Y, X.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        named = {str(letter).upper(): float(size) for letter, size in given.items()}
        letters = SIZE_AXES[-len(named) :] if len(named) > 1 else ""
        if set(named) != set(letters):
            raise ValueError(SIZE_MISFIT.format(SIZE_AXES, given))
        return tuple(named[letter] for letter in letters)
    return tuple(map(float, given)) if isinstance(given, Sequence) else (float(given),)


def channels_of(given: Sequence[int | str] | None) -> tuple[int | str, ...] | None:
    """Names or numbers of channels; TypeError for a single one, of which a name has letters."""
    if given is None:
        return None
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(NO_CHANNELS.format(given, given))
    return tuple(given)


def settings_of(given: S | None, kind: type[S]) -> S:
    """Settings of a kind, by default its own; TypeError for anything else."""
    if given is None:
        return kind()
    if not isinstance(given, kind):
        raise TypeError(NO_SETTINGS.format(kind.__name__, reprlib.repr(given)))
    return given


def prompts_of(given: Any, shape: tuple[int, ...], axes: str) -> Sequence[Prompt]:
    """Prompts from labels or a list, for an image of `shape` and `axes`, both without channels.

    Raises ValueError or TypeError if they are none.
    """
    if hasattr(given, "dtype") and hasattr(given, "shape"):
        array = np.asarray(given)
        if _are_labels(array, shape):
            return _label_prompts(array, shape)
        given = array.tolist()
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        raise TypeError(NO_PROMPT_LIST.format(type(given).__name__))
    made = [_prompt(each, axes) for each in given]
    if not made:
        raise ValueError(NO_PROMPTS)
    return made


def _are_labels(array: NDArray[Any], shape: tuple[int, ...]) -> bool:
    """Whether an array is an image of labels, not a list of clicks or boxes."""
    if array.shape == shape and array.dtype.kind in "uib":
        return True
    is_list = array.ndim == 2 and array.shape[1] in (len(shape), len(shape) + 2)
    return array.ndim >= 2 and not is_list


def _label_prompts(labels: NDArray[Any], shape: tuple[int, ...]) -> Sequence[Prompt]:
    if labels.dtype.kind not in "uib":
        raise TypeError(NOT_WHOLE.format(labels.dtype.name))
    if same_except_singletons(shape, labels.shape):
        labels = labels.reshape(shape)
    return label_prompts(labels.astype(np.int64), shape)


def _prompt(given: Any, axes: str) -> Prompt:
    if isinstance(given, Prompt):
        return given
    if isinstance(given, Mapping):
        parts = [each.name for each in fields(Prompt) if each.init]
        for part in given:
            if part not in parts:
                raise TypeError(NO_PART.format(part, ", ".join(parts)))
        return Prompt(**given)
    count = len(axes)
    try:
        numbers = [float(each) for each in given]
    except (TypeError, ValueError):
        numbers = []
    leading = count - 2
    plane = tuple(round(each) for each in numbers[:leading])
    if len(numbers) == count:
        return Prompt(points=[(numbers[-2], numbers[-1])], plane=plane)
    if len(numbers) == count + 2:
        return Prompt(box=numbers[leading:], plane=plane)
    letters, shown = ", ".join(axes.lower()), reprlib.repr(given)
    raise ValueError(NO_PROMPT.format(clicks=count, boxes=count + 2, axes=letters, given=shown))


def content_digest(image: ImageFile) -> str:
    """SHA-256 of an array's values, shape and type; empty for one that is not in memory."""
    if not isinstance(image.data, np.ndarray):
        return ""
    about = f"{image.data.dtype.str} {image.data.shape} {image.axes}".encode()
    return hashlib.sha256(about + np.ascontiguousarray(image.data).tobytes()).hexdigest()


def labeled_image_of(image: Any, labels: Any, name: str, **about: Any) -> LabeledImage:
    """An image and its true objects, each a path, an array or a layer.

    Parameters
    ----------
    image
        As for `image_of`, or a path.
    labels
        (..., Y, X) whole numbers, 0 for the background.
    name
        Of the image if it has none itself.
    **about
        As for `image_of`; not of a path, which says it itself.

    Raises
    ------
    ValueError, TypeError, OSError
        If labels are missing, or do not have the image's shape.
    """
    if labels is None:
        raise ValueError(NO_LABELS)
    if isinstance(image, (str, Path)):
        path = Path(image).expanduser()
        file, name = read_image(path), stem_of(path)
    else:
        name = str(getattr(image, "name", None) or name)
        file = image_of(image, **about, name=name)
    if isinstance(labels, (str, Path)):
        values = read_labels(Path(labels).expanduser()).data
    else:
        is_layer = hasattr(labels, "scale") and hasattr(labels, "data")
        values = labels.data if is_layer else labels
    sizes = [size for at, size in enumerate(file.data.shape) if at != file.channel_axis]
    if hasattr(values, "shape") and same_except_singletons(sizes, values.shape):
        values = np.asarray(values).reshape(sizes)
    names = file.channel_names
    return LabeledImage(name, file.data, values, file.channel_axis, names, file.pixel_size).read()


def labeled_images_of(
    pairs: Sequence[tuple[Any, Any]], name: str = "image", **about: Any
) -> list[LabeledImage]:
    """Pairs of an image and its labels as `labeled_image_of` takes them, with a name each."""
    found: list[LabeledImage] = []
    for number, (image, labels) in enumerate(pairs, start=1):
        one = labeled_image_of(image, labels, f"{name} {number}", **about)
        if one.name in {each.name for each in found}:
            one = replace(one, name=f"{one.name} {number}")
        found.append(one)
    return found

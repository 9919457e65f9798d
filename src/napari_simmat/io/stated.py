"""What the user says of an image whose file does not, or says it wrongly: axes, pixel size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from napari_simmat._text import format_shape
from napari_simmat.io.image_file import ImageFile
from napari_simmat.io.units import unit_named

SIZE_AXES = "ZYX"
NO_DEPTH = "{} has the axes {}, none of them Z; give height and width of its pixels alone."
PLACED = (
    "{} says where its pixels lie, and how large they are by that ({}); another pixel size would "
    "contradict it, so leave it out."
)
OTHER_SIZE = "Its file says pixels of {}, and {} was given, which counts."
AXES_MISFIT = (
    "{} has {} axes ({}, {}), but {!r} names {}; give a letter for each, Y and X where they are."
)
PLACED_DEPTH = "{} says where its planes lie in space, so its axis Z stays depth."


def as_stated(
    image: ImageFile,
    *,
    axes: str = "",
    pixel_size: Sequence[float] | None = None,
    unit: str = "",
) -> ImageFile:
    """An image with the axes and the size of a pixel that the user states.

    Parameters
    ----------
    image
        As its file says it.
    axes
        A letter for each axis of its data, such as ``"TYX"`` for a film that its file takes for a
        stack; empty for those of the file. Y and X stay where they are.
    pixel_size
        Of the finest level: one number for height and width, two for them, three with depth.
    unit
        Of these, in any usual spelling.

    Raises
    ------
    ValueError
        If the axes do not fit, or the file says where the pixels lie.
    """
    if axes:
        image = _with_axes(image, axes.upper())
    if pixel_size is None:
        return image
    if image.world is not None:
        raise ValueError(PLACED.format(image.path.name, image.world.system_name))
    sizes = [*pixel_size] * 2 if len(pixel_size) == 1 else pixel_size
    stated = dict(zip(SIZE_AXES[-len(sizes) :], map(float, sizes), strict=True))
    if not set(stated) <= set(image.axes):
        raise ValueError(NO_DEPTH.format(image.path.name, image.plane_axes))
    if image.within is not None:  # the pixels of a level, or a reduced one
        for letter, factor in zip("YX", image.within.factor, strict=True):
            stated[letter] *= factor
    name = unit_named(unit)
    told = {letter: (size, name) for letter, size in stated.items()}
    before = {letter: image.reference.of(letter) for letter in stated}
    notes = image.notes
    if any(known is not None and known != told[letter] for letter, known in before.items()):
        words = [
            format_shape([f"{size:g} {unit}" for size, unit in filter(None, each.values())])
            for each in (before, told)
        ]
        notes = (*notes, OTHER_SIZE.format(*words))
    return replace(
        image,
        scale={**image.scale, **stated},
        units={**image.units, **dict.fromkeys(stated, name)},
        notes=notes,
    )


def _with_axes(image: ImageFile, axes: str) -> ImageFile:
    """The same data under other letters; sizes of an axis go with its letter, not its place."""
    fits = (
        len(axes) == len(image.axes) == len(set(axes))
        and axes.isalpha()
        and all(axes.find(letter) == image.axes.find(letter) for letter in "YX")
    )
    if not fits:
        shape = format_shape(image.data.shape)
        count = len(image.axes)
        raise ValueError(
            AXES_MISFIT.format(image.path.name, count, image.axes, shape, axes, len(axes))
        )
    if "Z" in image.axes and "Z" not in axes and image.world is not None:
        raise ValueError(PLACED_DEPTH.format(image.path.name))
    kept = {new for old, new in zip(image.axes, axes, strict=True) if old == new}
    is_same_channel = axes.find("C") == image.axes.find("C")
    return replace(
        image,
        axes=axes,
        scale={letter: size for letter, size in image.scale.items() if letter in kept},
        units={letter: unit for letter, unit in image.units.items() if letter in kept},
        channel_names=image.channel_names if is_same_channel else None,
        rgb=image.rgb and "S" in axes,
    )

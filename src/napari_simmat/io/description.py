"""What is in an image file, in words and as values: for commands, the window and Python alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from napari_simmat._text import format_list, format_shape
from napari_simmat.io.plain import OMIT_DEFAULT

MOST_NAMES = 12
"""Channels that a sentence names."""


@dataclass(frozen=True, kw_only=True)
class ImageDescription:
    """Axes, sizes, type, channels, and what the file says of pixels and place.

    Attributes
    ----------
    file
        Its name.
    axes, shape, dtype
        Of its data, a letter and a size for each axis; C or S are channels.
    channels
        Their number; `channel_names` where the file has them.
    pixel_size, units
        By letter of an axis: the size of a pixel, the distance of planes or frames.
    levels
        Shapes of the coarser levels of a pyramid.
    place
        The system that says where pixels lie; empty without one.
    format, read_by
        The format; the package and version that read it, if that is another one.
    labels
        Whether the file says that its values are labels.
    notes
        What is left out or missing, as sentences.
    """

    file: str
    axes: str
    shape: tuple[int, ...]
    dtype: str
    channels: int = 1
    channel_names: tuple[str, ...] = ()
    pixel_size: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    levels: tuple[tuple[int, ...], ...] = ()
    place: str = ""
    format: str = ""
    read_by: str = ""
    labels: Annotated[bool, OMIT_DEFAULT] = False
    notes: tuple[str, ...] = ()

    @property
    def sizes(self) -> str:
        """``YX 4 x 6, uint8, pixels of 0.5 um x 0.5 um, Z 2 um, channels DAPI, GFP``."""
        said = [f"{self.axes} {format_shape(self.shape)}, {self.dtype}"]
        plane = [self._size(letter) for letter in "YX" if self.pixel_size.get(letter)]
        said += [f"pixels of {format_shape(plane)}"] if plane else []
        others = [each for each in self.axes if each in self.pixel_size and each not in "YX"]
        said += [f"{letter} {self._size(letter)}" for letter in others]
        said += [f"channels {self._names()}"] if self.channel_names else []
        return ", ".join(said)

    @property
    def sentence(self) -> str:
        """`sizes`, and the levels."""
        rows, columns = self.axes.index("Y"), self.axes.index("X")
        sides = [format_shape((each[rows], each[columns])) for each in self.levels]
        return f"{self.sizes}, coarser levels {', '.join(sides)}" if sides else self.sizes

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each part that the file has, for people."""
        sizes = zip(self.axes, self.shape, strict=True)
        known = [f"{a} {self._size(a)}" for a in self.axes if a in self.pixel_size]
        names = format_list(f"{n} {name}" for n, name in enumerate(self.channel_names))
        reader = f", read by {self.read_by}" if self.read_by else ""
        rows = (
            ("size", format_list(f"{letter} {size}" for letter, size in sizes)),
            ("values", self.dtype + (", labels" if self.labels else "")),
            ("channels", names or self._count()),
            ("pixel", format_list(known) or "size unknown"),
            ("levels", format_list(map(format_shape, self.levels))),
            ("place", self.place),
            ("format", f"{self.format}{reader}".removeprefix(", ")),
            *(("note", each) for each in self.notes),
        )
        return [(name, value) for name, value in rows if value]

    def _size(self, letter: str) -> str:
        return f"{self.pixel_size[letter]:.4g} {self.units.get(letter, '')}".strip()

    def _count(self) -> str:
        """How many channels, where they have no names; colors are told as such."""
        if "S" in self.axes:
            return "red, green, blue" + ", alpha" * (self.channels == 4)
        return str(self.channels) if self.channels > 1 else ""

    def _names(self) -> str:
        more = len(self.channel_names) - MOST_NAMES
        shown = format_list(self.channel_names[:MOST_NAMES])
        return f"{shown} and {more} more" if more > 0 else shown

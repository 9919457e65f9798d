"""Slides that tifffile does not read, by OpenSlide: MRXS, BIF and VMS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.io.image_file import ImageFile, LazyArray, Reader, ReadOptions
from napari_simmat.io.pyramid import read_spans, smaller_part
from napari_simmat.io.refusals import check_memory, needed_module

OPENSLIDE_ENDINGS = (".mrxs", ".bif", ".vms", ".vmu")
"""Files whose content says nothing of what they are: an MRXS is a JPEG, a VMS a text."""
SCANNED = "A slide of {}{}{}."
_GLASS = 255
"""Where nothing was scanned OpenSlide gives a transparent pixel, which is drawn as glass."""
_TILE = 512


class SlideLevel:
    """A level of a slide (Y, X, 3) of which parts are read on access.

    Parameters
    ----------
    slide
        An ``openslide.OpenSlide``.
    level
        Its number.

    Attributes
    ----------
    at
        Which of its axes are Y and X.
    """

    at = (0, 1)

    def __init__(self, slide: Any, level: int) -> None:
        self._slide, self._level = slide, level
        width, height = slide.level_dimensions[level]
        self._factor = float(slide.level_downsamples[level])
        self.shape = int(height), int(width), 3
        self.ndim = 3
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)
        self.chunks = (min(_TILE, self.shape[0]), min(_TILE, self.shape[1]), 3)

    def __getitem__(self, where: Any) -> NDArray[Any]:
        """Read a part."""
        return read_spans(self, self._span, where)

    def _span(self, index: Sequence[Any], rows: slice, columns: slice) -> NDArray[Any]:
        place = round(columns.start * self._factor), round(rows.start * self._factor)
        size = columns.stop - columns.start, rows.stop - rows.start
        colors = np.asarray(self._slide.read_region(place, self._level, size))
        alpha = colors[..., 3:].astype(np.uint16)
        mixed = (colors[..., :3] * alpha + _GLASS * (255 - alpha) + 127) // 255
        return np.asarray(mixed.astype(np.uint8)[..., index[2]])


def read_openslide(path: Path, options: ReadOptions) -> ImageFile:
    """Read a slide with OpenSlide, lazily; it needs the packages of ``napari-simmat[slides]``."""
    openslide: Any = needed_module("openslide", path, "a slide that OpenSlide reads")
    slide = openslide.OpenSlide(path)
    levels = [LazyArray(SlideLevel(slide, n), path.name) for n in range(slide.level_count)]
    data: Any = levels[0]
    options.limits.check_array(path.name, data.shape, data.dtype)
    nbytes = math.prod(data.shape)
    if not (options.part or options.in_parts):
        check_memory(nbytes, path.name, smaller_part([level.shape[:2] for level in levels]))
    if nbytes <= options.lazy_above and not options.part:
        data = data[...]
    known = slide.properties
    scale = {}
    for letter in "XY":
        text = known.get(f"openslide.mpp-{letter.lower()}")
        if text is not None:
            scale[letter] = float(text)
    power = known.get("openslide.objective-power")
    maker = known.get("openslide.vendor", "an unknown maker")
    objective = f", objective {power}x" if power else ""
    pixel = f", {scale['X']:.4g} um to a pixel" if "X" in scale else ""
    beside = path.with_suffix("")
    files = sorted(beside.iterdir()) if beside.is_dir() else []
    return ImageFile(
        path,
        data,
        "YXS",
        levels=tuple(levels[1:]),
        scale=scale,
        units=dict.fromkeys(scale, "um"),
        rgb=True,
        files=(path, *(each for each in files if each.is_file())) if files else (),
        notes=(SCANNED.format(maker, objective, pixel),),
    )


OPENSLIDE = Reader(
    ("MRXS", "BIF"),
    OPENSLIDE_ENDINGS,
    lambda path, _: path.is_file() and path.suffix.lower() in OPENSLIDE_ENDINGS,
    read_openslide,
)

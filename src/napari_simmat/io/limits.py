"""`Limits`: what a file may ask for.

They are checked on what a header claims, before anything it describes is read, so that a file that
is damaged, or made to do harm, is refused at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat._text import format_shape
from napari_simmat.io.files import format_size
from napari_simmat.io.refusals import RefusedFileError

VARIABLE = "NAPARI_SIMMAT_LIMITS"
"""Environment variable that changes limits: ``picture_pixels=4e8,pages=1e6``."""
DEFLATE_RATIO = 1032
"""The most that deflate (gzip, zlib) unpacks from a byte."""
_SMALL_PIECE = 64 * 64
"""Values of a piece that takes longer to find than to unpack, if it has fewer."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file may ask for.

    Parameters
    ----------
    image_bytes
        Bytes of an image unpacked. 200 bytes of header can claim more than any disk holds; the
        largest light-sheet volumes have some terabytes.
    axes
        Axes of an image: T, Z, C, Y, X, S, and two of unknown meaning. No microscope writes more,
        and a header can name hundreds.
    pages
        Pages of a TIFF, frames of a DICOM file, planes that a description claims. Each has a
        directory that is read before the first pixel, and a page can be 6 bytes.
    pieces
        Chunks, tiles or strips of less than 64 x 64 values that are unpacked for one plane, or for
        an image that is read as a whole. Each costs 0.1 ms whatever its size, and can be one pixel.
    picture_pixels
        Pixels of a PNG, JPEG or BMP. These cannot be read in part, and 160 KB of zeros unpack to
        13,000 x 13,000.
    metadata_bytes
        Bytes of a tag such as OME-XML, of a header, of the attributes of Zarr. They are read at
        once, and parsed they take ten times as much; OME-XML of 100,000 planes has 20 MB.
    hole_ratio
        How many times longer a file may be than what the disk holds of it. A hole reads as zeros
        for hours, as after a copy that broke off; compressing file systems reach some tens.
    """

    image_bytes: int = 2**43
    axes: int = 8
    pages: int = 2**18
    pieces: int = 2**16
    picture_pixels: int = 2**27
    metadata_bytes: int = 2**25
    hole_ratio: int = 1000

    @classmethod
    def from_environment(cls) -> Limits:
        """The limits, changed by the environment variable `VARIABLE`; ValueError if it is wrong."""
        names = [each.name for each in fields(cls)]
        changes = {}
        for part in filter(str.strip, os.environ.get(VARIABLE, "").split(",")):
            name, _, text = part.partition("=")
            try:
                changes[name.strip()] = int(float(text))
            except (ValueError, OverflowError):
                changes[name.strip()] = 0
            if name.strip() not in names or changes[name.strip()] < 1:
                raise ValueError(
                    f"{VARIABLE} has the entry {part.strip()!r}; write NAME=NUMBER with a number "
                    f"above 0 and a name of {', '.join(names)}."
                )
        return cls(**changes)

    def check(self, name: str, limit: str, claimed: int, what: str) -> None:
        """Refuse the file `name` if it claims more than `limit` allows; `what` names the things."""
        allowed: int = getattr(self, limit)
        if claimed <= allowed:
            return
        digits = len(str(claimed))
        tenths = claimed // 10 ** max(0, digits - 2) + 1
        above = f"{tenths / 10}e{digits - 1}" if digits > 4 else str(claimed)  # a round number
        numbers = f"{_number(claimed)} {what}, more than the {_number(allowed)}"
        if limit.endswith("bytes"):
            numbers = f"{format_size(claimed)} of {what}, more than the {format_size(allowed)}"
        raise RefusedFileError(
            f"{name} claims {numbers} that are read from one file; unless it is damaged, set the "
            f"environment variable {VARIABLE} to {limit}={above}."
        )

    def check_array(self, name: str, shape: Sequence[int], dtype: Any) -> None:
        """Refuse an image without pixels, of anything but numbers, or of absurd size."""
        self.check(name, "axes", len(shape), "axes")
        dtype = np.dtype(dtype)
        if dtype.kind not in "biufc":
            kinds = {"S": "text", "U": "text", "T": "text", "V": "records", "M": "dates"}
            raise RefusedFileError(
                f"{name} holds {kinds.get(dtype.kind, f'values of type {dtype}')}, but the pixels "
                "of an image are numbers; save plain numbers."
            )
        if not all(size > 0 for size in shape):
            raise RefusedFileError(
                f"{name} has no pixel (shape {format_shape(shape)}); an image has at least one "
                "along every axis, so save it again."
            )
        self.check(name, "image_bytes", math.prod(map(int, shape)) * dtype.itemsize, "pixels")

    def check_pieces(
        self, name: str, count: int, piece: Sequence[int], stored: int | None = None
    ) -> None:
        """Refuse a plane in `count` small pieces of the shape `piece`.

        Of very many pieces, all but a few must be `stored`: each that is missing is looked for.
        """
        if math.prod(piece) < _SMALL_PIECE:
            self.check(name, "pieces", count, f"pieces (of {format_shape(piece)}) to a plane")
        if stored is not None and count > max(2**12, self.hole_ratio * stored):
            raise RefusedFileError(
                f"{name} is a hole: of its {_number(count)} pieces the disk holds "
                f"{_number(stored)}, as after a copy that broke off; copy it again."
            )

    def check_holes(self, path: Path) -> None:
        """Refuse a file most of which was never written; not where the system does not tell."""
        size = path.stat().st_size
        if size < 2**24 or not hasattr(os, "SEEK_DATA"):
            return
        written = at = 0
        file = os.open(path, os.O_RDONLY)
        try:
            while written * self.hole_ratio < size:
                start = os.lseek(file, at, os.SEEK_DATA)
                at = os.lseek(file, start, os.SEEK_HOLE)
                written += at - start
        except OSError:  # no data behind
            raise RefusedFileError(
                f"{path.name} is a hole: of its {format_size(size)} the disk holds "
                f"{format_size(written)}, as after a copy that broke off; copy it again."
            ) from None
        finally:
            os.close(file)

    def check_stored(self, name: str, needed: int, available: int) -> None:
        """Refuse a file that holds (or can unpack to) fewer bytes than its header claims."""
        if needed > available:
            raise RefusedFileError(
                f"{name} claims {format_size(needed)} of pixels but holds at most "
                f"{format_size(max(0, available))}, so it is cut short or damaged; copy it again."
            )


def _number(value: int) -> str:
    return f"{value:,}" if value < 10**15 else f"{float(value):.2g}"

"""Pictures: PNG, JPEG, BMP, GIF, WebP and JPEG 2000, by Pillow."""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.io.image_file import TURNED, ImageFile, Reader, ReadOptions
from napari_simmat.io.refusals import check_memory

_GRAY16 = ("I", "I;16", "I;16B")
_STRIP_PIXELS = 2**20
CALLED = "It is a picture in the format {}, though its name ends in {}."
OTHER_FRAMES = "Of its {} frames the first is read; save them as TIFF to read all."
_PNG, _JPEG, _GIF = b"\x89PNG", b"\xff\xd8\xff", b"GIF8"
_JP2, _JPEG_2000 = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
"""How JPEG 2000 begins, as a file and as its codestream alone."""


def _is_webp(start: bytes) -> bool:
    return start[:4] == b"RIFF" and start[8:12] == b"WEBP"


def _is_jpeg_2000(start: bytes) -> bool:
    return start.startswith((_JP2, _JPEG_2000))


def _bits(start: bytes) -> int:
    """Bits of a value, which PNG and JPEG 2000 have at a fixed place of the header."""
    if start.startswith(_PNG):
        return start[24]
    box = start.find(b"ihdr")
    at = box + 14 if box >= 0 else 42
    return (start[at] & 0x7F) + 1 if _is_jpeg_2000(start) and at < len(start) else 8


def _kind_of(start: bytes) -> Any:
    """The class of Pillow that reads a picture: only these formats.

    Other readers of Pillow call external programs. Opened by its own class, a picture above
    Pillow's limit raises no warning; ours is checked.
    """
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        Jpeg2KImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        WebPImagePlugin,
    )

    if start.startswith(_PNG):
        return PngImagePlugin.PngImageFile
    if start.startswith(_JPEG):
        return JpegImagePlugin.JpegImageFile
    if start.startswith(_GIF):
        return GifImagePlugin.GifImageFile
    if _is_webp(start):
        return WebPImagePlugin.WebPImageFile
    return (
        Jpeg2KImagePlugin.Jpeg2KImageFile if _is_jpeg_2000(start) else BmpImagePlugin.BmpImageFile
    )


def read_picture(path: Path, options: ReadOptions) -> ImageFile:
    """Read a picture in gray, RGB or RGBA as stored; a note says if EXIF turns or mirrors it."""
    with path.open("rb") as file:
        start = file.read(132)
    kind, bits = _kind_of(start), _bits(start)
    with kind(path) as picture:
        deep = bits > 8 and picture.mode not in _GRAY16
        channels = len(picture.getbands())
        shape = (*picture.size[::-1], channels)
        options.limits.check_array(path.name, shape, np.uint16 if bits > 8 else np.uint8)
        pixels = math.prod(picture.size)
        turned = _orientation(picture)
        options.limits.check(path.name, "picture_pixels", pixels, "pixels of a picture")
        check_memory(pixels * max(4, channels * -(-bits // 8)), path.name)
        if deep:  # Pillow would cut these colors to 8 bits
            imagecodecs: Any = import_module("imagecodecs")
            is_png = start.startswith(_PNG)
            decode = imagecodecs.png_decode if is_png else imagecodecs.jpeg2k_decode
            data: NDArray[Any] = decode(path.read_bytes())
        elif picture.mode in ("1", "L", "RGB", "RGBA", "F", "LA", *_GRAY16):  # 1: bool
            data = _pixels(picture)
        elif picture.mode in ("P", "PA"):
            colors = "RGBA" if picture.has_transparency_data else "RGB"
            data = _pixels(picture if options.palette else picture.convert(colors))
        else:
            data = _pixels(picture.convert("RGB"))
        frames = getattr(picture, "n_frames", 1) if getattr(picture, "is_animated", False) else 1
    notes: tuple[str, ...] = () if turned == 1 else (TURNED.format(turned),)
    if frames > 1:
        notes = (*notes, OTHER_FRAMES.format(frames))
    if path.suffix.lower() not in PICTURES.endings:
        notes = (*notes, CALLED.format(kind.format, path.suffix or "nothing"))
    if data.ndim == 3 and data.shape[2] == 2:
        notes = (*notes, "Its alpha channel is left out.")
        data = data[..., 0]
    rgb = data.ndim == 3
    return ImageFile(path, data, "YXS" if rgb else "YX", rgb=rgb, notes=notes)


def _orientation(picture: Any) -> int:
    """The orientation of 1 to 8 that EXIF states, 1 as stored; damaged EXIF states none."""
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        turned = picture.getexif().get(0x0112, 1)
        return turned if turned in range(1, 9) else 1
    return 1


def _pixels(picture: Any) -> NDArray[Any]:
    """The picture as an array, copied in strips: as a whole it would be copied three times."""
    width, height = picture.size
    row = np.asarray(picture.crop((0, 0, width, 1)))
    data = np.empty((height, *row.shape[1:]), row.dtype)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        below = min(top + rows, height)
        data[top:below] = picture.crop((0, top, width, below))
    return data


PICTURES = Reader(
    ("PNG", "JPEG", "BMP", "GIF", "WebP", "JPEG 2000"),
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2", ".j2k", ".jpx"),
    lambda _, start: (
        start.startswith((_PNG, _JPEG, b"BM", _GIF)) or _is_webp(start) or _is_jpeg_2000(start)
    ),
    read_picture,
)

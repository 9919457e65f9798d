"""PNG, JPEG and BMP: what Pillow reads, and the colour PNG of 16 bits that it would cut to 8."""

from __future__ import annotations

import logging
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.formats.image_file import (
    ImageFile,
    Reader,
    ReadOptions,
    RefusedFileError,
    check_memory,
)

logger = logging.getLogger(__name__)

_GREY16 = ("I", "I;16", "I;16B")


def read_picture(path: Path, options: ReadOptions) -> ImageFile:
    """Read a picture in grey, RGB or RGBA as stored; its EXIF orientation is not applied."""
    from PIL import Image

    try:
        # Only these: others of Pillow's readers call programs.
        picture = Image.open(path, formats=("PNG", "JPEG", "BMP"))
    except Image.DecompressionBombError as error:
        raise RefusedFileError(
            f"{path.name} claims more pixels than a picture is trusted with ({error}); save it as "
            "TIFF if it really is that large."
        ) from error
    with picture:
        bits = _bits_of_png(path) if picture.format == "PNG" else 8
        deep = bits == 16 and picture.mode not in _GREY16
        channels = len(picture.getbands())
        check_memory(math.prod(picture.size) * max(4, channels * bits // 8), path.name)
        data = (
            _read_deep_png(path) if deep else np.asarray(_in_plain_mode(picture, options.palette))
        )
    if data.ndim == 3 and data.shape[2] == 2:
        logger.warning("The alpha channel of %s is left out.", path.name)
        data = data[..., 0]
    colours = data.ndim == 3
    return ImageFile(path, data, "YXS" if colours else "YX", rgb=colours)


def _in_plain_mode(picture: Any, palette: bool) -> Any:
    """Convert to grey, RGB or RGBA; a palette picture to its indices if `palette`."""
    if picture.mode in ("L", "RGB", "RGBA", "F", "LA", *_GREY16):
        return picture
    if picture.mode in ("P", "PA"):
        if palette:
            return picture
        return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    return picture.convert("L" if picture.mode == "1" else "RGB")


def _bits_of_png(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[24]  # the bit depth stands at a fixed place of the header


def _read_deep_png(path: Path) -> NDArray[Any]:
    try:
        imagecodecs: Any = import_module("imagecodecs")
    except ImportError:
        raise RefusedFileError(
            f"{path.name} is a PNG of 16 bits in colour, which needs the package imagecodecs; "
            "install it (pip install imagecodecs), or save the image as TIFF."
        ) from None
    data: NDArray[Any] = imagecodecs.png_decode(path.read_bytes())
    return data


PICTURES = Reader(
    ("PNG", "JPEG", "BMP"),
    (".png", ".jpg", ".jpeg", ".bmp"),
    lambda _, start: start.startswith((b"\x89PNG", b"\xff\xd8\xff", b"BM")),
    read_picture,
)

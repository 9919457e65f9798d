"""Slides as scanners write them, drawn: dark nuclei on pink tissue, glass around it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

GLASS, TISSUE, NUCLEUS = (243, 243, 243), (225, 165, 195), (95, 60, 130)
NUCLEI = ((300, 300), (300, 420), (420, 360), (700, 900), (760, 900))
"""Centers y, x of the nuclei of `drawn_slide`, in tissue."""
RADIUS = 16
MPP = 0.25
APERIO = (
    "Aperio Image Library v12.0.15 \r\n{1}x{0} [0,0 {1}x{0}] (256x256) JPEG/RGB Q=90"
    "|AppMag = 40|MPP = {2}"
)


@cache
def drawn_slide(shape: tuple[int, int] = (1024, 1536)) -> NDArray[np.uint8]:
    """Two pieces of tissue (Y, X, 3) with `NUCLEI` on glass; noise of one gray level; read-only."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    colors = np.empty((*shape, 3), np.int16)
    colors[:] = GLASS
    for top, left, bottom, right in ((150, 150, 600, 700), (600, 780, 900, 1100)):
        colors[top:bottom, left:right] = TISSUE
    for cy, cx in NUCLEI:
        colors[(y - cy) ** 2 + (x - cx) ** 2 <= RADIUS**2] = NUCLEUS
    noise = np.random.default_rng(0).integers(-1, 2, colors.shape)
    slide = np.clip(colors + noise, 0, 255).astype(np.uint8)
    slide.flags.writeable = False
    return slide


def halved(colors: NDArray[np.uint8], times: int) -> NDArray[np.uint8]:
    """Means of squares; the rest of the division is cut off, as scanners do."""
    height, width = (size // times * times for size in colors.shape[:2])
    blocks = colors[:height, :width].reshape(height // times, times, width // times, times, 3)
    return blocks.mean((1, 3)).astype(np.uint8)


def write_svs(
    path: Path, colors: NDArray[np.uint8], steps: Sequence[int] = (4, 16), mpp: float = MPP
) -> Path:
    """A slide of Aperio: tiles of JPEG, a thumbnail, coarser levels."""
    described = APERIO.format(*colors.shape[:2], mpp)
    options: dict[str, Any] = {
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": 90},
        "tile": (256, 256),
        "metadata": None,
        "description": described,
    }
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(colors, **options)
        file.write(colors[::8, ::8], photometric="rgb", metadata=None, description=described)
        for step in steps:
            file.write(halved(colors, step), **options)
    return path


def write_generic(path: Path, colors: NDArray[np.uint8], mpp: float = MPP) -> Path:
    """A pyramid as libvips writes it: levels as pages, a resolution in centimeters."""
    options: dict[str, Any] = {
        "photometric": "rgb",
        "tile": (256, 256),
        "metadata": None,
        "resolutionunit": "CENTIMETER",
    }
    with tifffile.TiffWriter(path) as file:
        for step in (1, 4, 16):
            size = 1e4 / (mpp * step)
            page = colors if step == 1 else halved(colors, step)
            kind = {} if step == 1 else {"subfiletype": 1}
            file.write(page, resolution=(size, size), **options, **kind)
    return path


def write_ome(path: Path, colors: NDArray[np.uint8], mpp: float = MPP) -> Path:
    """An OME-TIFF whose levels are in SubIFDs, as QuPath and Bio-Formats write it."""
    size = {f"PhysicalSize{axis}": mpp for axis in "XY"}
    options: dict[str, Any] = {"photometric": "rgb", "tile": (256, 256)}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(colors, subifds=2, metadata={"axes": "YXS", **size}, **options)
        for step in (4, 16):
            file.write(halved(colors, step), subfiletype=1, **options)
    return path


def write_zarr(path: Path, colors: NDArray[np.uint8], mpp: float = MPP) -> Path:
    """An OME-Zarr 0.5 of channels, rows and columns."""
    import zarr

    root = zarr.open_group(path, mode="w", zarr_format=3)
    levels = []
    for number, step in enumerate((1, 4, 16)):
        page = np.moveaxis(colors if step == 1 else halved(colors, step), -1, 0)
        chunks = (3, min(256, page.shape[1]), min(256, page.shape[2]))
        array = root.create_array(str(number), shape=page.shape, chunks=chunks, dtype="u1")
        array[...] = page
        scale = {"type": "scale", "scale": [1.0, mpp * step, mpp * step]}
        levels.append({"path": str(number), "coordinateTransformations": [scale]})
    space = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    axes = [{"name": "c", "type": "channel"}, *space]
    multiscales = [{"name": "slide", "axes": axes, "datasets": levels}]
    root.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    return path


LEICA = """<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">
<collection name="slide" sizeX="26564529" sizeY="76734863">
<image name="macro" uuid="1"><pixels sizeX="{small[1]}" sizeY="{small[0]}">
<dimension sizeX="{small[1]}" sizeY="{small[0]}" r="0" ifd="0" /></pixels>
<view sizeX="26564529" sizeY="76734863" offsetX="0" offsetY="0" /></image>
<image name="tissue" uuid="2"><pixels sizeX="{large[1]}" sizeY="{large[0]}">
<dimension sizeX="{large[1]}" sizeY="{large[0]}" r="0" ifd="1" />
<dimension sizeX="{low[1]}" sizeY="{low[0]}" r="1" ifd="2" /></pixels>
<view sizeX="{nm[1]}" sizeY="{nm[0]}" offsetX="1000" offsetY="1000" />
<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings></scanSettings>
</image></collection></scn>"""


def write_scn(path: Path, colors: NDArray[np.uint8], mpp: float = MPP) -> Path:
    """A slide of Leica: an overview of the glass first, sizes in nanometers in its XML."""
    low, small = halved(colors, 4), colors[::16, ::16]
    nm = [round(size * mpp * 1e3) for size in colors.shape[:2]]
    shapes = {"small": small.shape, "large": colors.shape, "low": low.shape, "nm": nm}
    options: dict[str, Any] = {"photometric": "rgb", "tile": (256, 256), "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(small, description=LEICA.format(**shapes), **options)
        for page in (colors, low):
            file.write(page, **options)
    return path


def write_ndpi(path: Path, colors: NDArray[np.uint8], mpp: float = MPP) -> Path:
    """A slide with Hamamatsu's directories, whose offsets have 64 bits; its pixels are tiles."""
    content = bytearray(b"II*\0" + struct.pack("<Q", 0))
    link = 4
    for step in (1, 4, 16):
        page = colors if step == 1 else halved(colors, step)
        height, width = page.shape[:2]
        tiles = []
        for y in range(0, height, 256):
            for x in range(0, width, 256):
                tile = np.zeros((256, 256, 3), np.uint8)
                part = page[y : y + 256, x : x + 256]
                tile[: part.shape[0], : part.shape[1]] = part
                tiles.append(len(content))
                content += zlib.compress(tile.tobytes())
        sizes = np.diff([*tiles, len(content)]).tolist()
        at = {}
        for name, values in {
            "offsets": struct.pack(f"<{len(tiles)}I", *tiles),
            "sizes": struct.pack(f"<{len(sizes)}I", *sizes),
            "bits": struct.pack("<3H", 8, 8, 8),
            "make": b"Hamamatsu\0",
            "resolution": struct.pack("<2I", round(1e8 / (mpp * step)), 10_000),
        }.items():
            at[name] = len(content)
            content += values
        lens = int.from_bytes(struct.pack("<f", 40.0 / step), "little")
        count = len(tiles)
        if count == 1:
            at["offsets"], at["sizes"] = tiles[0], sizes[0]
        tags = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, at["bits"]), (259, 3, 1, 8),
            (262, 3, 1, 2), (271, 2, 10, at["make"]), (277, 3, 1, 3),
            (282, 5, 1, at["resolution"]), (283, 5, 1, at["resolution"]), (296, 3, 1, 3),
            (322, 3, 1, 256), (323, 3, 1, 256), (324, 4, count, at["offsets"]),
            (325, 4, count, at["sizes"]), (65420, 4, 1, 1), (65421, 11, 1, lens),
        ]  # fmt: skip
        struct.pack_into("<Q", content, link, len(content))
        content += struct.pack("<H", len(tags))
        content += b"".join(struct.pack("<HHII", *tag) for tag in tags)
        link = len(content)
        content += bytes(8) + bytes(4 * len(tags))  # the next directory, and high halves
    path.write_bytes(content)
    return path

"""Slides of gigapixels: never called damaged; what does not fit into memory says its size."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from napari_simmat.io import memory
from napari_simmat.io.limits import Limits
from napari_simmat.io.part import ImagePart
from napari_simmat.io.readers import read_image

HEIGHT, WIDTH = 80_000, 100_000
LEVELS = (1, 4, 16)
SCANNER = b"Aperio Image Library v12|AppMag = 40|MPP = 0.25\0"


def write_slide(path: Path, tile: int) -> Path:
    """A BigTIFF of RGB tiles with a pyramid, as of a slide at 40x; all tiles are the same bytes."""
    pixels = np.full((tile, tile, 3), (200, 150, 180), np.uint8)
    packed = zlib.compress(pixels.tobytes())
    content = bytearray(b"II+\0" + struct.pack("<HHQ", 8, 0, 0))
    first = len(content)
    content += packed.ljust(-(-len(packed) // 8) * 8, b"\0")
    described = len(content)
    content += SCANNER.ljust(-(-len(SCANNER) // 8) * 8, b"\0")
    link = 8
    for level in LEVELS:
        height, width = HEIGHT // level, WIDTH // level
        count = -(-height // tile) * -(-width // tile)
        offsets = len(content)
        content += struct.pack("<Q", first) * count
        sizes = len(content)
        content += struct.pack("<Q", len(packed)) * count
        bits = int.from_bytes(struct.pack("<4H", 8, 8, 8, 0), "little")
        tags = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, bits), (259, 3, 1, 8),
            (262, 3, 1, 2), (270, 2, len(SCANNER), described), (277, 3, 1, 3), (322, 3, 1, tile),
            (323, 3, 1, tile), (324, 16, count, offsets), (325, 16, count, sizes),
        ]  # fmt: skip
        struct.pack_into("<Q", content, link, len(content))
        content += struct.pack("<Q", len(tags))
        content += b"".join(struct.pack("<HHQQ", *tag) for tag in tags)
        link = len(content)
        content += bytes(8)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("tile", [240, 256, 512])
def test_slide_that_does_not_fit_says_its_size_and_what_to_do(tmp_path, monkeypatch, tile):
    path = write_slide(tmp_path / "slide.svs", tile)
    monkeypatch.setattr(memory, "available_memory", lambda: 16 * 10**9)
    with pytest.raises(ValueError, match=r"^slide\.svs needs 24 GB of memory") as refused:
        read_image(path)
    sentence = str(refused.value)
    assert (
        "read a region of its 80000 x 100000 pixels (--region 38976,48976,41024,51024)" in sentence
    )
    assert "a coarser level (--level 1, 5000 x 6250)" in sentence
    assert "damaged" not in sentence


def test_what_the_refusal_of_a_slide_names_is_read(tmp_path, monkeypatch):
    path = write_slide(tmp_path / "slide.svs", 256)
    monkeypatch.setattr(memory, "available_memory", lambda: 16 * 10**9)
    region = read_image(path, part=ImagePart(region="38976,48976,41024,51024"))
    assert region.data.shape == (2048, 2048, 3)
    coarse = read_image(path, part=ImagePart(level=1), lazy_above=10**6)
    assert coarse.data.shape == (5000, 6250, 3)
    assert coarse.scale == {"Y": 4.0, "X": 4.0}


def test_slide_that_fits_is_read_tile_by_tile(tmp_path, monkeypatch):
    path = write_slide(tmp_path / "slide.svs", 256)
    monkeypatch.setattr(memory, "available_memory", lambda: 64 * 10**9)
    file = read_image(path)
    assert file.shape == (HEIGHT, WIDTH)
    assert file.scale == {"Y": 0.25, "X": 0.25}
    assert file.rgb
    region = file.data[70_000:70_300, 90_000:90_400]
    assert (region == (200, 150, 180)).all()
    assert region.shape == (300, 400, 3)


def test_zarr_of_gigapixels_is_read_chunk_by_chunk(tmp_path):
    import zarr

    path = tmp_path / "slide.zarr"
    array = zarr.create_array(path, shape=(HEIGHT, WIDTH), chunks=(256, 256), dtype="u1")
    for row in range(0, 20 * 256, 256):  # a hole is refused, so that a part is there
        array[row : row + 256, : 10 * 256] = 7
    data = read_image(path, limits=Limits(hole_ratio=10_000)).data
    assert (data[5000:5100, 2000:2100] == 7).all()

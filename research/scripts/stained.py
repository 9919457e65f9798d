"""Make the practice slide of docs/slides.md: four stained tiles on glass, as Aperio writes slides.

``python research/scripts/stained.py DSB2018 docs/tutorials`` writes ``stained.svs``, and
``stained_labels.tif``, its nuclei as outlined by hand. The tiles are of stage1_train of the Data
Science Bowl 2018 (BBBC038, CC0), corrected by K. Lopuhin and others; how large their pixels are is
not known, and half a micrometer was made up.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

TILES = (("79fe4194", "0e4c2e27"), ("c0f17283", "0c2550a2"))
"""How the names of the tiles begin, as they lie on the slide; each has 256 x 320 pixels."""
MARGIN = 128
"""Pixels of glass around them."""
GLASS = 243
DESCRIPTION = "Aperio Image Library v12\r\n{1}x{0} (256x256) JPEG/RGB Q=85|AppMag = 20|MPP = 0.5"


def mosaic(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Colors (Y, X, 3) and labels (Y, X) of the tiles on glass, labels counted through."""
    colors: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.uint16]] = []
    for row in TILES:
        files = [next(folder.glob(f"{name}*_labels.png")) for name in row]
        drawn = [np.asarray(Image.open(file)) for file in files]
        pictures = [file.with_name(file.name.replace("_labels", "")) for file in files]
        found = [np.asarray(Image.open(file))[..., :3] for file in pictures]
        colors.append(np.concatenate(found, axis=1))
        labels.append(np.concatenate(_counted_through(drawn, labels), axis=1))
    margins = ((MARGIN, MARGIN), (MARGIN, MARGIN))
    picture = np.pad(np.concatenate(colors), (*margins, (0, 0)), constant_values=GLASS)
    return picture, np.pad(np.concatenate(labels), margins)


def _counted_through(
    drawn: list[NDArray[np.uint16]], before: list[NDArray[np.uint16]]
) -> list[NDArray[np.uint16]]:
    """The same labels, numbered after the highest `before`."""
    last = max((int(each.max()) for each in before), default=0)
    counted = []
    for one in drawn:
        values, inverse = np.unique(one, return_inverse=True)
        numbers = np.arange(len(values)) + (0 if values[0] == 0 else 1)
        numbers = np.where(numbers > 0, numbers + last, 0)
        counted.append(numbers[inverse].reshape(one.shape).astype(np.uint16))
        last = int(numbers.max())
    return counted


def write_slide(path: Path, colors: NDArray[np.uint8]) -> None:
    """Two levels in tiles of JPEG, and a thumbnail between them, as Aperio does."""
    described = DESCRIPTION.format(*colors.shape[:2])
    with tifffile.TiffWriter(path) as file:
        for level in (colors, colors[::4, ::4], colors[::2, ::2]):
            file.write(
                level,
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 85},
                description=described,
                metadata=None,
            )


def main() -> None:
    """Make both files."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    colors, labels = mosaic(source)
    write_slide(target / "stained.svs", colors)
    tifffile.imwrite(target / "stained_labels.tif", labels, compression="zlib")


if __name__ == "__main__":
    main()

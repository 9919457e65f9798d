"""Make the documentation's pictures of results: ``python scripts/figures.py``.

They are the overlays that `simmat demo` writes, with fewer colours to be small.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from napari_simmat.cli import main as simmat

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTH = 1200
COLOURS = 200


def main() -> int:
    """Run the demonstration and keep its overlays; the demonstration's status."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "simmat-demo")
        if status := simmat(["demo", "--output", str(output)]):
            return status
        for path in sorted((output / "overlays").glob("*.png")):
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
            if picture.width > WIDTH:
                size = (WIDTH, round(picture.height * WIDTH / picture.width))
                picture = picture.resize(size, Image.Resampling.LANCZOS)
            target = IMAGES / f"demo-{path.name}"
            picture.quantize(COLOURS).save(target, optimize=True)
            print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The documentation's pictures of the Batch tab, taken in the real window.

Run ``python scripts/with_screen.py python scripts/batch_screenshots.py``; it writes
``docs/images/``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

FILES = 12
SIDE = 130


def main() -> int:
    """A run half-way, then a result opened from the table."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_SIMMAT_HOME"] = home
        os.environ["NAPARI_CONFIG"] = str(Path(home) / "napari.yaml")
        os.chdir(home)
        write_images(Path("plates"))
        from pictures import save, wait, window

        from napari_simmat.widgets.batch.run import BatchRequest

        with window() as (viewer, widget):
            tab = widget.batch
            widget.tabs.setCurrentWidget(tab)
            request = BatchRequest(images="plates", output="results", extras=("overlay", "coco"))
            tab.form.set_value(request)
            wait(lambda: not tab.busy)
            save(viewer, tab, "window-batch-ready")
            tab.start.click()
            wait(lambda: done(tab) >= FILES // 2)
            save(viewer, tab, "window-batch")
            wait(lambda: not tab.busy)
            tab.table.clicked.emit(tab.table.files.index(2, 0))
            wait(lambda: not tab.busy and len(viewer.layers) > 1)
            save(viewer, tab, "window-batch-opened")
    return 0


def done(tab: Any) -> int:
    """How many files of the table are done."""
    return sum(row.state == "written" for row in tab.table.files.rows)


def write_images(folder: Path) -> None:
    """Crops of a photograph of coins in two subfolders, and a file that is no image."""
    import tifffile
    from skimage.data import coins

    for number in range(FILES):
        plate = folder / f"plate{1 + number // 6}"
        plate.mkdir(parents=True, exist_ok=True)
        top, left = 80 * (number % 3), 120 * (number // 3 % 3)
        piece = coins()[top : top + SIDE, left : left + SIDE]
        tifffile.imwrite(plate / f"field{number + 1:02d}.tif", piece)
    (folder / "plate1" / "field03b.tif").write_text("this is no image")


if __name__ == "__main__":
    sys.exit(main())

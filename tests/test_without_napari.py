"""Where napari and Qt are not installed, all but the window is there and works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tifffile

from tests.widgets.scenes import gray

PROGRAM = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("napari", "qtpy", "PyQt6", "magicgui", "superqt", "npe2"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import napari_simmat

parts = pkgutil.walk_packages(napari_simmat.__path__, "napari_simmat.", onerror=lambda name: None)
names = [part.name for part in parts if not part.name.startswith("napari_simmat.widgets")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
assert len(names) > 50
from napari_simmat.cli import main

sys.exit(main(["segment", "image.tif", "--model", "tiny", "--prompts", "auto", "--output", "."]))
"""


def test_every_module_but_the_windows_loads_and_an_image_is_segmented(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "image.tif", gray()[::2, ::2])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert tifffile.imread(tmp_path / "image_labels.tif").max() >= 3

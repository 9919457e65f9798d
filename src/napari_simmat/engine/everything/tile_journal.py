"""What a segmentation tile by tile has done, kept beside its output until that is written.

A tile's labels overlap those of its neighbors and may change them, so a kill while they are written
must not count. Each tile is noted before its labels are written (a redo log): going on writes the
labels of the last noted tile again, which changes nothing if they were written.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.io.files import remove

if TYPE_CHECKING:
    from napari_simmat.engine.everything.candidates import PixelBox
    from napari_simmat.engine.everything.stitching import Stitcher

CHUNK = 1024
_DONE, _NOTED, _LABELS = "done.json", "noted.npz", "labels.zarr"


class TileJournal:
    """Labels of a plane as far as they are known, on disk, with what the stitcher knows of them.

    Parameters
    ----------
    folder
        Where it is kept; made if it does not exist.
    shape
        Height and width of the plane.
    request
        What the result depends on, as text; a folder of another request is begun anew.

    Attributes
    ----------
    labels
        (Y, X) uint32, zarr; not numbered yet.
    done
        How many tiles need not be looked at again.
    """

    def __init__(self, folder: Path, shape: tuple[int, int], request: str) -> None:
        import zarr

        self.folder = folder
        self.done = _tiles_done(folder, request)
        if not self.done:
            remove(folder)
            folder.mkdir(parents=True)
        self._request = request
        chunks = tuple(min(CHUNK, size) for size in shape)
        if self.done:
            self.labels: Any = zarr.open_array(folder / _LABELS, mode="r+")
        else:
            self.labels = zarr.create_array(
                folder / _LABELS, shape=shape, chunks=chunks, dtype="uint32", fill_value=0
            )

    def restore(self, stitcher: Stitcher) -> int:
        """Bring a stitcher, and the labels, to where the run before ended; the tiles done."""
        noted = self.folder / _NOTED
        if self.done and noted.is_file():
            with np.load(noted, allow_pickle=False) as state:
                y0, x0, y1, x1 = state["box"].tolist()
                self.labels[y0:y1, x0:x1] = state["window"]
                stitcher.restore(state)
                self.done = max(self.done, int(state["tiles"]))  # noted, and killed behind that
        return self.done

    def keep(
        self, stitcher: Stitcher, box: PixelBox, tiles: int, window: NDArray[np.uint32]
    ) -> None:
        """Note what the labels of a part will be, and what the stitcher knows then.

        `tiles` are done with it.
        """
        part = self.folder / f"{_NOTED}.part"
        with part.open("wb") as file:
            known = {"box": np.array(box), "tiles": np.array(tiles), **stitcher.state()}
            np.savez(file, allow_pickle=False, window=window, **known)
        os.replace(part, self.folder / _NOTED)

    def end(self, done: int) -> None:
        """Note how many tiles are done."""
        part = self.folder / f"{_DONE}.part"
        part.write_text(json.dumps({"request": self._request, "tiles": done}), encoding="utf-8")
        os.replace(part, self.folder / _DONE)
        self.done = done

    def remove(self) -> None:
        """Delete it; the output is written."""
        remove(self.folder)


def _tiles_done(folder: Path, request: str) -> int:
    """How many tiles a folder holds of a request; 0 if it is of another one, or damaged."""
    try:
        known = json.loads((folder / _DONE).read_text("utf-8"))
        is_whole = known["request"] == request and (folder / _LABELS / "zarr.json").is_file()
        return int(known["tiles"]) if is_whole else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0

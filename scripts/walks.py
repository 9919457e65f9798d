"""What a reader of the code goes through: ``python tests/with_screen.py python scripts/walks.py``.

Each walk runs one thing that users do, and notes each function of the package when it first runs,
not what an import runs. A *stay* is a run of such functions in one file, *rooms* are the files, and
a *climb* is a step into a file of a higher layer than that before: there the reader has to keep in
mind where he came from.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from types import CodeType, FrameType

import numpy as np
import tifffile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the tests' hands and scenes

PACKAGE = "/napari_simmat/"
LAYERS = (
    *("_text.py", "progress.py", "io", "models", "engine", "checkpoints", "datasets"),
    *("evaluation", "training", "batch", "annotation", "widgets", "cli", "__main__.py"),
)
"""From the lowest to the highest, as `import-linter` checks them."""


@dataclass
class Walk:
    """The functions of the package in the order in which they first ran."""

    seen: dict[CodeType, None] = field(default_factory=dict)

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        """Note a call; for `sys.setprofile`."""
        if event == "call" and PACKAGE in frame.f_code.co_filename:
            self.seen.setdefault(frame.f_code)

    @property
    def stays(self) -> list[str]:
        """The files in the order in which they are entered."""
        functions = [code for code in self.seen if code.co_flags & inspect.CO_OPTIMIZED]
        named = [code for code in functions if not code.co_name.startswith("<")]
        files = [code.co_filename.rsplit(PACKAGE, 1)[1] for code in named]
        return [file for file, _ in groupby(files)]

    def report(self, name: str, *, listed: bool) -> None:
        """Print the figures, and perhaps each stay."""
        stays = self.stays
        climbs = sum(_layer(after) > _layer(before) for before, after in pairwise(stays))
        print(f"{name}: {len(stays)} stays, {len(set(stays))} rooms, {climbs} climbs")
        if listed:
            print(*(f"  {stay}" for stay in stays), sep="\n")


def _layer(file: str) -> int:
    """How high the layer of a file is; what is in none is the lowest."""
    first = file.split("/", 1)[0]
    return LAYERS.index(first) if first in LAYERS else -1


@contextmanager
def walking() -> Iterator[Walk]:
    """Context in which all threads are watched that start in it, and this one."""
    walk = Walk()
    threading.setprofile(walk)
    sys.setprofile(walk)
    try:
        yield walk
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def click() -> Walk:
    """A third click on an encoded image, in the window."""
    from qtpy.QtWidgets import QApplication

    from tests.widgets.hands import Headless
    from tests.widgets.scenes import CENTERS, gray

    class Patience:
        """Takes the place of pytest-qt's robot."""

        @staticmethod
        def waitUntil(condition: Callable[[], bool], timeout: int = 60_000) -> None:  # noqa: N802
            deadline = time.monotonic() + timeout / 1000
            while not condition():
                QApplication.processEvents()
                time.sleep(0.002)
                assert time.monotonic() < deadline, "it takes too long"

    application = QApplication.instance() or QApplication([])
    with walking():  # so that the worker's thread is watched, which starts now
        hands = Headless(Patience)
        hands.viewer.add_image(gray(), name="discs")
        hands.open_widget()
        hands.idle()
        for center in CENTERS[:2]:
            hands.click(*center)
        walk = sys.getprofile()
        assert isinstance(walk, Walk)
        walk.seen.clear()
        hands.click(*CENTERS[2])
        hands.idle()
        seen = Walk(dict(walk.seen))
    hands.close()
    del application
    return seen


def segment() -> Walk:
    """`simmat segment` of a folder of two images with clicks beside them."""
    from napari_simmat.cli import main
    from tests.widgets.scenes import CENTERS, gray

    with tempfile.TemporaryDirectory() as folder:
        for name in "ab":
            tifffile.imwrite(Path(folder) / f"{name}.tif", gray())
            clicks = "index,axis-0,axis-1\n0,{},{}\n".format(*CENTERS[0])
            (Path(folder) / f"{name}.csv").write_text(clicks)
        words = ["segment", folder, "--model", "tiny", "--prompts", "same-stem"]
        with walking() as walk:
            main([*words, "--output", str(Path(folder) / "out")])
    return walk


def train() -> Walk:
    """`simmat train` of two steps on two images."""
    from napari_simmat.cli import main
    from tests.widgets.scenes import CENTERS, gray

    labels = np.zeros(gray().shape, np.uint16)
    for number, (y, x) in enumerate(CENTERS, start=1):
        labels[int(y) - 6 : int(y) + 6, int(x) - 6 : int(x) + 6] = number
    with tempfile.TemporaryDirectory() as folder:
        for name in "ab":
            tifffile.imwrite(Path(folder) / f"{name}.tif", gray())
            tifffile.imwrite(Path(folder) / f"{name}_labels.tif", labels)
        words = ["train", folder, "--output", str(Path(folder) / "c.safetensors")]
        with walking() as walk:
            main([*words, "--practical", "--steps", "2"])
    return walk


def learn() -> Walk:
    """Learning from four objects, two steps each time."""
    from napari_simmat.checkpoints.loading import load_model
    from napari_simmat.training.adapting import FewShotConfig
    from napari_simmat.training.few_shot import learn_objects
    from tests.widgets.scenes import discs

    image, labels = discs()
    base = load_model("tiny")
    with walking() as walk:
        learn_objects(base, image.astype(np.float32), labels, config=FewShotConfig(steps=2))
    return walk


WALKS = {each.__name__: each for each in (click, segment, train, learn)}


def main() -> None:
    """Print the walks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("walks", nargs="*", default=[*WALKS], help=f"of {', '.join(WALKS)}")
    parser.add_argument("--list", action="store_true", help="print each stay")
    given = parser.parse_args()
    for name in given.walks:
        WALKS[name]().report(name, listed=given.list)


if __name__ == "__main__":
    main()

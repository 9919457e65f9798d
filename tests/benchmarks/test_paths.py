"""How many files a click, a folder and a training run through: `pytest -m slow -s` prints them."""

import sys
import threading
from types import CodeType, FrameType

import numpy as np
import pytest
import tifffile

from napari_simmat.cli import main

pytest.importorskip("napari")
from tests.widgets.hands import Headless
from tests.widgets.scenes import CENTERS, gray

pytestmark = pytest.mark.slow
PACKAGE = "/napari_simmat/"


class Trace:
    """Code of the package that runs while `on`, in this thread and all that it starts."""

    def __init__(self) -> None:
        self.on = False
        self.codes: set[CodeType] = set()
        self.hops: set[tuple[str, str]] = set()
        """Pairs of files of which the first calls the second."""

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if not self.on or event != "call" or PACKAGE not in frame.f_code.co_filename:
            return
        self.codes.add(frame.f_code)
        caller = frame.f_back.f_code.co_filename if frame.f_back else ""
        if PACKAGE in caller and caller != frame.f_code.co_filename:
            self.hops.add((caller, frame.f_code.co_filename))

    def report(self, path: str) -> int:
        """Print files, functions and hops; returns the number of files."""
        files: dict[str, int] = {}
        for code in self.codes:
            if not code.co_name.startswith("<"):
                name = code.co_filename.split(PACKAGE)[1]
                files[name] = files.get(name, 0) + 1
        counts = f"{len(files)} files, {sum(files.values())} functions, {len(self.hops)} hops"
        lines = [f"{path}: {counts}", *(f"  {name} {files[name]}" for name in sorted(files))]
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
        return len(files)


@pytest.fixture
def trace():
    trace = Trace()
    threading.setprofile(trace)
    sys.setprofile(trace)
    yield trace
    sys.setprofile(None)
    threading.setprofile(None)


def test_click_on_an_encoded_image_runs_through_few_files(trace, qtbot):
    hands = Headless(qtbot)
    hands.viewer.add_image(gray(), name="discs")
    hands.open_widget()
    hands.idle()
    for center in CENTERS[:2]:
        hands.click(*center)
    trace.on = True
    hands.click(*CENTERS[2])
    hands.idle()
    trace.on = False
    hands.close()
    assert trace.report("click") <= 50


def test_folder_of_two_images_runs_through_few_files(trace, tmp_path):
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", gray())
        (tmp_path / f"{name}.csv").write_text("index,axis-0,axis-1\n0,{},{}\n".format(*CENTERS[0]))
    words = ["segment", str(tmp_path), "--model", "tiny", "--prompts", "same-stem"]
    trace.on = True
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    trace.on = False
    assert trace.report("folder") <= 48


def test_training_of_two_steps_runs_through_few_files(trace, tmp_path):
    labels = np.zeros(gray().shape, np.uint16)
    for number, (y, x) in enumerate(CENTERS, start=1):
        labels[int(y) - 6 : int(y) + 6, int(x) - 6 : int(x) + 6] = number
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", gray())
        tifffile.imwrite(tmp_path / f"{name}_labels.tif", labels)
    trace.on = True
    words = ["train", str(tmp_path), "--output", str(tmp_path / "c.safetensors"), "--practical"]
    assert main([*words, "--steps", "2"]) == 0
    trace.on = False
    assert trace.report("training") <= 49

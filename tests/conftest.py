"""Small labeled images, and the choice to open napari's window for all tests."""

import numpy as np
import pytest
import tifffile

pytest_plugins = [
    "tests.model_files",
    "tests.quick_models",
    "tests.sam2_models",
    "tests.sam3_models",
    "tests.surroundings",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--real-windows",
        action="store_true",
        help="open napari's window for all tests of the widgets, not only for those marked",
    )


@pytest.fixture
def labeled(tmp_path):
    """Two images: in `a` an 8 x 8 and a 4 x 4 square and a speck, in `b` two planes with one."""
    labels = np.zeros((40, 50), np.uint16)
    labels[4:12, 4:12], labels[20:24, 30:34], labels[30:33, 40:43] = 7, 300, 9
    stack = np.zeros((3, 40, 50), np.uint16)
    stack[0, 4:12, 4:12] = stack[2, 20:28, 20:28] = 1
    for name, values in (("a", labels), ("b", stack)):
        for end, written in (("", (values > 0).astype(np.uint8)), ("_labels", values)):
            tifffile.imwrite(tmp_path / f"{name}{end}.tif", written, photometric="minisblack")
    return tmp_path


@pytest.fixture
def brief_lessons(monkeypatch):
    """The decoder is taught by a few updates, where what it finds then does not matter."""
    from tests.lessons import shorten  # torch only where it is needed

    shorten(monkeypatch)


@pytest.fixture
def angles(tmp_path):
    """A folder `polarization`: two images of four angles, each with two labeled discs."""
    folder = tmp_path / "polarization"
    folder.mkdir()
    y, x = np.indices((64, 64))
    about = {"axes": "CYX", "Channel": {"Name": ("0 deg", "45 deg", "90 deg", "135 deg")}}
    for number in range(2):
        labels = (np.hypot(y - 20, x - 20) < 9) + 2 * (np.hypot(y - 42, x - 40 - number) < 11)
        image = np.stack([40 + (60 + 20 * angle) * (labels > 0) for angle in range(4)])
        path = folder / f"{number}.ome.tif"
        tifffile.imwrite(path, image.astype(np.uint8), metadata=about, photometric="minisblack")
        tifffile.imwrite(folder / f"{number}_labels.tif", labels.astype(np.uint8))
    return folder

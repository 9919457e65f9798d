"""LIF by liffile, here by a stand-in that gives what it gave of real files."""

import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from napari_simmat.io.readers import read_image


def lines(name, count, step):
    return {name: step * np.arange(count)}


def image(name, dims, shape, coords, colors=("Green", "Red")):
    channels = "".join(f'<ChannelDescription LUTName="{color}"/>' for color in colors)
    values = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    return SimpleNamespace(
        name=name, dims=dims, shape=shape, dtype=values.dtype, nbytes=values.nbytes,
        coords=coords, xml_element=ElementTree.fromstring(f"<Image>{channels}</Image>"),
        asarray=lambda: values,
    )  # fmt: skip


@pytest.fixture
def lif(tmp_path, monkeypatch):
    """A file that holds the images which the test gives."""
    path = tmp_path / "a.lif"
    path.write_bytes(b"p\0\0\0 of Leica")

    def holds(*images):
        class LifFile:
            def __init__(self, _):
                self.images = images

            def __enter__(self):
                return self

            def __exit__(self, *what):
                pass

        module = SimpleNamespace(LifFile=LifFile, __spec__=object())
        monkeypatch.setitem(sys.modules, "liffile", module)
        return path

    return holds


def test_a_stack_has_size_time_and_names(lif):
    sizes = lines("T", 3, 2.5) | lines("Z", 4, 1e-6) | lines("Y", 5, 2e-7) | lines("X", 6, 1e-7)
    found = read_image(lif(image("cells", tuple("TCZYX"), (3, 2, 4, 5, 6), sizes)))
    assert (found.axes, found.channel_names) == ("TCZYX", ("Green", "Red"))
    assert found.scale == pytest.approx({"T": 2.5, "Z": 1, "Y": 0.2, "X": 0.1})
    assert found.units == {"T": "s", "Z": "um", "Y": "um", "X": "um"}
    assert (found.name, found.notes) == ("cells", ())
    assert found.read_by.startswith("liffile")


def test_a_scan_from_the_side_has_rows_and_columns(lif):
    """Of real files the usual reader fails on these."""
    sizes = lines("T", 3, 0.5) | lines("Z", 4, 3e-7) | lines("X", 6, 1e-7)
    scan = image("xzt", tuple("TCZX"), (3, 2, 4, 6), sizes)
    found = read_image(lif(scan, image("another", ("Y", "X"), (2, 2), {})))
    assert (found.axes, found.shape) == ("TCYX", (3, 4, 6))
    assert found.scale == pytest.approx({"T": 0.5, "Y": 0.3, "X": 0.1})
    assert found.notes == (
        "Of its images the first, xzt, is read; 1 other is left out.",
        "It is a scan of X and Z, whose rows lie along Z; they are read as rows and columns.",
    )


def test_planes_that_lie_apart_are_put_in_order(lif):
    sizes = lines("Y", 5, 2e-7) | lines("Z", 4, 3e-7) | lines("X", 6, 1e-7)
    found = read_image(lif(image("xzy", tuple("YCZX"), (5, 2, 4, 6), sizes)))
    assert (found.axes, found.shape) == ("CZYX", (4, 5, 6))
    assert found.scale == pytest.approx({"Z": 0.3, "Y": 0.2, "X": 0.1})


def test_wavelengths_are_channels(lif):
    sizes = lines("\u03bb", 7, 1e-8) | lines("Y", 5, 1e-7) | lines("X", 6, 1e-7)
    found = read_image(lif(image("lambda", ("\u03bb", "Y", "X"), (7, 5, 6), sizes, ("Green",))))
    assert (found.axes, found.channel_names) == ("CYX", None)
    assert set(found.scale) == {"Y", "X"}


def test_a_file_without_an_image_is_refused(lif):
    with pytest.raises(ValueError, match=r"a\.lif holds no image"):
        read_image(lif())

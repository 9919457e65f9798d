"""One plane of a stack, or a projection, in place of all: values, places, refusals."""

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile

from napari_simmat.engine.settings import PLANE_AND_AXIS, ChannelSelection
from napari_simmat.io.image_file import ImageFile, LazyArray
from napari_simmat.io.planes import OF_CHANNELS, parse_plane, with_plane
from napari_simmat.io.readers import open_image
from napari_simmat.io.reference import World

VALUES = np.random.default_rng(5).integers(0, 60000, (3, 4, 5, 6), np.uint16)


class Chunked:
    """What a `LazyArray` wraps."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.chunks = (1, 1, *values.shape[-2:])

    def __getitem__(self, where):
        return self.values[where]


def stack(data=VALUES, axes="TZYX", **about):
    return ImageFile(Path("a.tif"), data, axes, **about)


@pytest.mark.parametrize(
    "data",
    [VALUES, da.from_array(VALUES, chunks=(1, 2, 5, 6)), LazyArray(Chunked(VALUES), "a.tif")],
    ids=["numpy", "dask", "lazy"],
)
@pytest.mark.parametrize(
    ("plane", "axes", "expected"),
    [
        ("Z=2", "TYX", VALUES[:, 2]),
        ("z = max", "TYX", VALUES.max(1)),
        ("Z=min", "TYX", VALUES.min(1)),
        ("Z=mean", "TYX", VALUES.astype(float).mean(1).astype(np.float32)),
        ("T=1,Z=max", "YX", VALUES[1].max(0)),
        ("", "TZYX", VALUES),
    ],
)
def test_plane_is_that_of_numpy(data, plane, axes, expected):
    found = with_plane(stack(data, scale={"Z": 2.0, "Y": 0.5}, units={"Z": "um"}), plane)
    assert found.axes == axes
    assert np.dtype(found.data.dtype) == expected.dtype
    assert isinstance(found.data, np.ndarray) == isinstance(data, np.ndarray)
    np.testing.assert_array_equal(np.asarray(found.data), expected)
    assert found.scale == ({"Z": 2.0, "Y": 0.5} if not plane else {"Y": 0.5})


@pytest.mark.parametrize("how", ["max", "mean", "min"])
@pytest.mark.parametrize("make", [np.asarray, da.from_array])
def test_projection_leaves_out_what_is_missing(how, make):
    values = np.random.default_rng(2).normal(size=(4, 3, 3)).astype(np.float32)
    values[1, 0, 0] = values[:, 2, 2] = np.nan
    found = np.asarray(with_plane(stack(make(values), "ZYX"), f"Z={how}").data)
    assert found.dtype == np.float32
    assert np.isnan(found[2, 2])
    known = np.ones((3, 3), bool)
    known[2, 2] = False
    oracle = getattr(np, f"nan{how}")(values[:, known].astype(float), axis=0)
    np.testing.assert_allclose(found[known], oracle, rtol=1e-6)


def test_plane_of_a_pyramid_is_that_of_all_its_levels():
    coarse = VALUES[0, ::2, ::2, ::2]
    image = stack(VALUES[0], "ZYX", levels=(coarse,))
    found = with_plane(image, "Z=3")
    np.testing.assert_array_equal(found.data, VALUES[0, 3])
    np.testing.assert_array_equal(found.levels[0], coarse[1])


def test_plane_lies_where_it_lay_in_the_stack():
    affine = np.array([[-2.0, 0, 0, 10], [0, 2, 0, 20], [0, 0, 5, 30], [0, 0, 0, 1]])
    world = World(affine=affine, space="patient", qform=affine)
    image = stack(VALUES[0], "ZYX", world=world)
    assert with_plane(image, "Z=3").world.affine[:3, 3].tolist() == [10, 20, 45]
    assert with_plane(image, "Z=3").world.qform[:3, 3].tolist() == [10, 20, 45]
    assert with_plane(image, "Z=max").world.affine[:3, 3].tolist() == [10, 20, 40]
    uneven = World(
        affine=affine, space="patient", planes=np.array([[0, 0, z] for z in (0, 1, 7, 9)])
    )
    placed = with_plane(stack(VALUES[0], "ZYX", world=uneven), "Z=2").world
    assert placed.even
    assert placed.affine[:3, 3].tolist() == [0, 0, 7]


@pytest.mark.parametrize("text", ["Z", "Z=", "Z=-1", "Z=sum", "Y=3", "Z=1,Z=2", "12", "Z=1.5"])
def test_plane_that_means_nothing_is_refused(text):
    with pytest.raises(ValueError, match="names no axis with an index or a projection"):
        ChannelSelection(plane=text)


def test_plane_of_what_is_no_stack_is_refused():
    with pytest.raises(ValueError, match=r"has the axes ZYX, none of them T .* or name one of Z"):
        with_plane(stack(VALUES[0], "ZYX"), "T=0")
    with pytest.raises(ValueError, match=r"has 4 planes along Z, so there is no Z=4; .* 0 to 3"):
        with_plane(stack(VALUES[0], "ZYX"), "Z=4")
    with pytest.raises(ValueError, match=OF_CHANNELS.format("C")):
        parse_plane("C=0")
    with pytest.raises(ValueError, match=PLANE_AND_AXIS):
        ChannelSelection(plane="Z=1", channel_axis=0)


def test_plane_counts_along_the_stated_axes(tmp_path):
    path = tmp_path / "film.tif"
    tifffile.imwrite(path, VALUES[0], photometric="minisblack", metadata={"axes": "ZYX"})
    found = ChannelSelection(axes="TYX", plane="T=1").stated(open_image(path))
    assert found.axes == "YX"
    np.testing.assert_array_equal(found.data, VALUES[0, 1])

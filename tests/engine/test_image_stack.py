import logging
import tracemalloc
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils.transforms import ResizeLongestSide

from napari_simmat.engine import image_stack as image_stack_module
from napari_simmat.engine import normalization as normalization_module
from napari_simmat.engine.channels.matching import GAP
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.engine.normalization import Statistics
from napari_simmat.io.plain import from_plain
from napari_simmat.models.spec import InputChannels, InputSize, Normalization


def inputs_of(channels=1, is_rgb=False, **normalization):
    names = ("red", "green", "blue") if is_rgb else tuple("abcdefghi"[:channels])
    return InputChannels(
        names=names, normalization=Normalization(**normalization), is_rgb=is_rgb, reader="test"
    )


ONE = inputs_of()
SAM = inputs_of(is_rgb=True, keep_uint8=True)
RNG = np.random.default_rng(0)
STACK = RNG.integers(100, 60000, (4, 30, 40, 3)).astype(np.uint16)  # Z, Y, X, C
HUGE = 1e39  # beyond float32


def as_dask(array):
    return da.from_array(array, chunks=(1, 15, 40, 3))


def as_zarr(array):
    return zarr.array(array, chunks=(1, 15, 40, 1))


def as_memmap(array, tmp_path):
    path = tmp_path / "stack.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def of_kind(kind, array, tmp_path):
    makers = {"dask": as_dask, "zarr": as_zarr, "numpy": np.array, "fortran": np.asfortranarray}
    if kind == "memmap":
        return as_memmap(array, tmp_path)
    if kind == "big-endian":
        return array.astype(array.dtype.newbyteorder(">"))
    if kind == "non-contiguous":
        return np.repeat(array, 2, axis=1)[:, ::2]
    return makers[kind](array)


KINDS = ["numpy", "dask", "zarr", "memmap", "fortran", "big-endian", "non-contiguous"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_channel_stack_of_any_array_type_reads_the_same(kind, axis, tmp_path):
    inputs = inputs_of(3)
    expected = ChannelStack.build(STACK, channel_axis=-1, inputs=inputs)
    array = of_kind(kind, STACK, tmp_path)
    array = array[...] if kind == "zarr" and axis != -1 else array
    moved = (da if isinstance(array, da.Array) else np).moveaxis(array, -1, axis)
    stack = ChannelStack.build(array if axis == -1 else moved, channel_axis=axis, inputs=inputs)
    assert (stack.shape, stack.n_channels) == ((4, 30, 40), 3)
    assert np.array_equal(stack.plane((2,)), STACK[2].transpose(2, 0, 1))
    assert stack.plane((2,)).dtype == np.uint16
    assert stack.statistics == expected.statistics
    assert np.array_equal(stack.normalized((2,)), expected.normalized((2,)))
    assert stack.key((2,)) == expected.key((2,))


@pytest.mark.parametrize("selection", [[2], [2, 0, 0], [1, 2, 0]])
def test_channel_stack_selects_and_repeats_channels(selection):
    for array in (STACK, as_dask(STACK), as_zarr(STACK)):
        stack = ChannelStack.build(
            array, channel_axis=-1, channels=selection, channel_names=["r", "s", "t"], inputs=SAM
        )
        expected = selection if len(selection) == 3 else selection * 3
        assert stack.selection == tuple(expected)
        assert stack.names == tuple("rst"[index] for index in expected)
        assert np.array_equal(stack.plane((1,)), STACK[1][..., expected].transpose(2, 0, 1))


def test_channel_stack_reads_only_the_selected_channels():
    array = zarr.array(np.arange(60 * 6, dtype=np.int32).reshape(60, 2, 3), chunks=(1, 2, 3))
    stack = ChannelStack.build(array, channel_axis=0, channels=[50, 0, 20], inputs=inputs_of(3))
    assert np.array_equal(stack.plane(), array[...][[50, 0, 20]])


def test_channel_stack_of_arrays_of_different_types():
    parts = [
        RNG.integers(0, 255, (20, 30)).astype(np.uint8),
        as_dask(STACK)[0, :20, :30, 0],
        RNG.normal(size=(20, 30)).astype(np.float32),
    ]
    stack = ChannelStack.build(parts, inputs=inputs_of(3))
    assert stack.plane().dtype == np.float32
    normal = stack.normalized()
    assert (normal.min(), normal.max()) == (0, 255)
    for channel, part in enumerate(parts):
        alone = ChannelStack.build(part, inputs=ONE)
        assert np.array_equal(normal[channel], alone.normalized()[0])
        assert stack.statistics.low[channel] == alone.statistics.low[0]


def test_channel_stack_sorts_arrays_by_name():
    parts = [np.full((4, 5), value, dtype=np.uint8) for value in (30, 10, 20)]
    stack = ChannelStack.build(parts, channel_names=["C", "a", "b "], inputs=inputs_of(3))
    assert stack.plane()[:, 0, 0].tolist() == [10, 20, 30]
    assert stack.names == ("a", "b ", "C")


def test_channel_stack_never_changes_the_users_array(monkeypatch):
    monkeypatch.setattr(normalization_module, "MAX_VOXELS_MEASURED", 1000)
    array = RNG.normal(size=(3, 50, 60))
    array[0, 0] = np.nan
    array.flags.writeable = False
    stack = ChannelStack.build(array, inputs=ONE)
    plane = stack.plane((0,))
    plane[:] = 0  # what comes out is the caller's own
    normal = stack.normalized((0,))
    normal[:] = 0
    assert stack.normalized((0,)).any()
    kept = np.zeros((4, 5), dtype=np.uint8)
    ChannelStack.build(kept, inputs=SAM).normalized()[:] = 7
    assert not kept.any()


def test_channel_stack_takes_masked_pixels_as_missing():
    array = np.ma.masked_greater(np.arange(100, dtype=np.int16).reshape(10, 10), 89)
    stack = ChannelStack.build(array, inputs=inputs_of(low=0, high=100))
    assert stack.statistics == Statistics((0,), (89,))
    assert stack.normalized()[0, 9].tolist() == [0] * 10


class Watched:
    """An array in a file: tells what was read of it."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, []

    def __getitem__(self, where):
        part = self.array[where]
        self.read.append(part.size)
        return part.copy()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(5, "Input/output error"), r"could not be read \(.*output error\); its file may"),
        (
            TypeError("no number"),
            r"could not be read: tests failed \(TypeError: no number\)\. That",
        ),
    ],
)
def test_channel_stack_with_an_unreadable_plane_says_so(error, words):
    def broken(block):
        raise error

    array = da.zeros((3, 4, 5), chunks=(1, 4, 5)).map_blocks(broken, dtype=float)
    stack = ChannelStack.build(array, inputs=ONE)
    with pytest.raises(ValueError, match=words):
        stack.plane((0,))


def test_channel_stack_reads_only_the_plane_and_once():
    array = Watched(RNG.integers(0, 9, (50, 20, 30)).astype(np.uint16))
    stack = ChannelStack.build(array, inputs=SAM, statistics=Statistics((0,) * 3, (9,) * 3))
    assert array.read == []
    stack.key((7,))
    stack.normalized((7,))
    stack.plane((7,))
    assert array.read == [20 * 30]
    stack.normalized((8,))
    assert array.read == [20 * 30] * 2


@pytest.mark.parametrize(
    ("array", "options", "sentence"),
    [
        (np.zeros(5), {}, r"has shape 5; an image needs at least a Y and an X axis"),
        (np.zeros(()), {}, r"has shape \(\); an image needs"),
        (np.zeros((5, 3)), {"channel_axis": 1}, "shape 5 x 3 with channels along axis 1; an image"),
        (np.zeros((0, 5)), {}, r"The image is empty \(shape 0 x 5\); give one with at least one"),
        (np.zeros((4, 5, 3)), {"channel_axis": 3}, "has 3 axes .*, so channel axis 3 does not exi"),
        (np.zeros((4, 5, 3)), {"channel_axis": -4}, "give one from -3 to 2"),
        ([], {}, "There is no image; give an array, or a list"),
        ([np.zeros((4, 5))], {"channel_axis": 0}, "so it has no channel axis 0; leave it out"),
        (
            [np.zeros((4, 5)), np.zeros((4, 6))], {"channel_names": ["DAPI", "GFP"]},
            "Channel GFP has the shape 4 x 6, Channel DAPI has 4 x 5; all channels of an image nee",
        ),
        ([np.zeros((4, 5)), np.zeros(4)], {}, "Channel 1 has shape 4; an image needs"),
        (np.zeros((4, 5)), {"channels": [1]}, "no channel 1; the image has 1 channel, counted"),
        (np.zeros((4, 5, 2)), {"channel_axis": 2}, "was trained on 1 channel .a., but 2 are given"),
        (
            da.from_array(np.arange(20.0).reshape(4, 5))[da.from_array(np.arange(4)) > 1], {},
            r"axis of unknown length \(shape nan x 5\); compute the sizes",
        ),
        (np.zeros((4, 5)), {"statistics": Statistics((0, 0), (1, 1))}, "are of 2 channels, but te"),
    ],
)  # fmt: skip
def test_channel_stack_refuses_what_is_no_image(array, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ChannelStack.build(array, inputs=ONE, **options)


def zarr_group():
    group = zarr.group()
    group.create_array("labels", shape=(4, 5), dtype="u1")
    group.create_array("image", shape=(4, 5), dtype="u1")
    return group


def foreign_tensor():
    import torch

    return torch.zeros(4, 5)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((4, 5), dtype=bool), "has values of type bool; images are integers or floats: c"),
        (np.zeros((4, 5), dtype=np.complex64), r"complex64; .* give real numbers, e\.g\. its magn"),
        (np.zeros((4, 5), dtype=object), "values of type object; .* convert it to numbers first"),
        (np.full((4, 5), "a"), "values of type str32; images are"),
        (np.zeros((4, 5), dtype="f4,f4"), "values of type void64"),
        (np.ma.zeros((4, 5), dtype=object), "values of type object"),
        ([[1, 2], [3, 4]], "Channel 0 is a list, not an array; give a numpy, dask or zarr array"),
        ("image.tif", "The image is a str, not an array"),
        (
            zarr_group,
            r"is a zarr group, not an array; open an array of it \(it holds image, labels",
        ),
        (zarr.group, r"is a zarr group, not an array; open an array of it\."),
        (foreign_tensor, r"type torch\.float32; convert it to a numpy array first"),
    ],
)
def test_channel_stack_refuses_other_types(array, sentence):
    array = array() if callable(array) else array
    with pytest.raises(TypeError, match=sentence):
        ChannelStack.build(array, inputs=ONE)


def test_channel_stack_refuses_a_pickle_codec_before_reading():
    numcodecs = pytest.importorskip("numcodecs")
    array = zarr.create(shape=(4, 5), dtype="f4", zarr_format=2, filters=[numcodecs.Pickle()])
    with pytest.raises(ValueError, match="a pickle codec, which can run code when it is read"):
        ChannelStack.build(array, inputs=ONE)


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        ((), "shape 4 x 30 x 40 without channels, so a plane is chosen by 1 numbers, not 0"),
        ((1, 2), "not 2"),
        ((4,), "There is no plane 4; the image has 4 planes along that axis, counted from 0 to 3"),
        ((-1,), "There is no plane -1"),
    ],
)
def test_channel_stack_refuses_a_plane_that_is_not_there(index, sentence):
    stack = ChannelStack.build(STACK, channel_axis=-1, inputs=inputs_of(3))
    with pytest.raises(ValueError, match=sentence):
        stack.normalized(index)


def test_channel_stack_hints_at_colors_in_the_last_axis(caplog):
    ChannelStack.build(np.zeros((20, 30, 3), dtype=np.uint8), inputs=SAM)
    assert "stack of planes of 3 columns; if the last axis holds colors, give channel_axis=-1" in (
        caplog.text
    )


def test_channel_stack_of_rgba_drops_alpha_and_says_so(caplog):
    image = RNG.integers(0, 255, (20, 30, 4)).astype(np.uint8)
    stack = ChannelStack.build(image, channel_axis=-1, inputs=SAM)
    assert np.array_equal(stack.normalized(), image[..., :3].transpose(2, 0, 1))
    assert "alpha channel is left out" in caplog.text
    with pytest.raises(ValueError, match="there are 4 channels\\. Choose one"):
        ChannelStack.build(image.transpose(2, 0, 1), channel_axis=0, inputs=SAM)


def test_normalized_maps_percentiles_of_the_stack_to_0_and_255():
    stack = ChannelStack.build(STACK, channel_axis=-1, inputs=inputs_of(3, low=1, high=98))
    low, high = np.percentile(STACK.reshape(-1, 3), (1, 98), axis=0)
    assert np.allclose(stack.statistics.low, low)
    assert np.allclose(stack.statistics.high, high)
    for z in range(4):  # the same numbers for every plane
        expected = np.clip((STACK[z] - low) / (high - low), 0, 1).transpose(2, 0, 1) * 255
        normal = stack.normalized((z,))
        assert normal.dtype == np.float32
        assert np.allclose(normal, expected, atol=1e-4)
        assert not np.array_equal(normal, np.round(normal))  # 16 bits are not cut to 8


def test_normalized_joint_keeps_ratios_of_channels():
    array = np.stack([STACK[..., 0] // 2, STACK[..., 0]])
    stack = ChannelStack.build(
        array, channel_axis=0, inputs=inputs_of(2, joint=True, low=0, high=100)
    )
    assert stack.statistics == Statistics((array.min(),) * 2, (array.max(),) * 2)
    apart = ChannelStack.build(array, channel_axis=0, inputs=inputs_of(2))
    assert apart.statistics.high[0] < apart.statistics.high[1]


@given(
    dtype=st.sampled_from(["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]),
    big_endian=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_normalized_of_any_real_type_spans_the_range(dtype, big_endian, seed):
    info = np.finfo(dtype) if dtype[0] == "f" else np.iinfo(dtype)
    share = np.random.default_rng(seed).random((17, 19))
    ends = float(info.min) / 2, float(info.max) / 2
    array = (ends[0] * (1 - share) + ends[1] * share).astype(dtype)
    array = array.astype(array.dtype.newbyteorder(">")) if big_endian else array
    normal = ChannelStack.build(array, inputs=inputs_of(low=0, high=100)).normalized()
    assert normal.dtype == np.float32
    assert (normal.min(), normal.max()) == (0, 255)
    order = np.argsort(share, axis=None)
    assert (np.diff(normal.ravel()[order]) >= 0).all()


def test_normalized_keeps_bytes_for_sam():
    image = RNG.integers(10, 200, (20, 30, 3)).astype(np.uint8)
    stack = ChannelStack.build(image, channel_axis=2, inputs=SAM)
    assert stack.normalized().dtype == np.uint8
    assert np.array_equal(stack.normalized(), image.transpose(2, 0, 1))
    assert stack.statistics == Statistics((0,) * 3, (255,) * 3)
    stretched = ChannelStack.build(image, channel_axis=2, inputs=inputs_of(3)).normalized()
    assert stretched.dtype == np.float32
    assert stretched.min() == 0


def test_normalized_of_bytes_beside_other_types():
    parts = [np.full((4, 5), 77, dtype=np.uint8), *(RNG.random((2, 4, 5)))]
    normal = ChannelStack.build(parts, inputs=SAM).normalized()
    assert (normal[0] == 77).all()
    assert normal[1].max() == 255
    joint = inputs_of(is_rgb=True, keep_uint8=True, joint=True, low=0, high=100)
    assert ChannelStack.build(parts, inputs=joint).statistics.high == (77,) * 3


def test_normalized_with_method_none_keeps_values():
    array = np.array([[1.5, -2], [np.nan, HUGE]])
    normal = ChannelStack.build(array, inputs=inputs_of(method="none")).normalized()
    assert normal.tolist() == [[[1.5, -2], [0, 0]]]
    assert normal.dtype == np.float32


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_normalized_takes_non_finite_values_as_missing(bad):
    image = np.linspace(0, 1, 1000).reshape(20, 50)
    expected = ChannelStack.build(image, inputs=inputs_of(low=0, high=100)).normalized()
    broken = image.copy()
    broken[5, 5:9] = bad
    normal = ChannelStack.build(broken, inputs=inputs_of(low=0, high=100)).normalized()
    assert normal[0, 5, 5:9].tolist() == [0] * 4
    expected[0, 5, 5:9] = 0
    assert np.array_equal(normal, expected)


def test_statistics_without_a_finite_value_are_refused():
    image = np.full((3, 20, 30), np.nan)
    stack = ChannelStack.build(
        [np.zeros_like(image), image], channel_names="ab", inputs=inputs_of(2)
    )
    with pytest.raises(ValueError, match="Channel b holds no finite value, only NaN or infinity"):
        stack.normalized((0,))


def test_normalized_plane_without_a_finite_value_is_black():
    image = RNG.random((3, 20, 30))
    image[1] = np.nan
    assert not ChannelStack.build(image, inputs=ONE).normalized((1,)).any()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_statistics_clip_glare_at_five_times_the_brightness(dtype):
    plane = np.tile(np.arange(100, 110), (100, 10))  # ground
    plane[:, :10] = 300
    plane[:8, 10:20] = 9000  # 0.8 % of the image
    plane = plane.astype(dtype)
    rule = {"low": 0, "high": 99.9}
    ends = [
        ChannelStack.build(plane, inputs=inputs_of(**rule, clip_glare=clipped)).statistics
        for clipped in (False, True)
    ]
    assert [each.low for each in ends] == [(100,), (100,)]
    assert [each.high for each in ends] == [(9000,), (100 + 5 * (300 - 100),)]


def test_statistics_take_few_bright_objects_for_no_glare():
    plane = np.tile(np.arange(100, 110), (100, 10)).astype(np.uint16)
    plane[:2, :50] = 9000  # 1 % of the image, and all that is in it
    stack = ChannelStack.build(plane, inputs=inputs_of(low=0, high=99.9, clip_glare=True))
    assert stack.statistics.high == (9000,)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float64])
def test_normalized_constant_image_is_black_and_said_once(caplog, dtype):
    stack = ChannelStack.build(
        np.full((2, 20, 30), 7, dtype=dtype), channel_names=["DAPI"], inputs=SAM
    )
    assert not stack.normalized((0,)).any()
    assert not stack.normalized((1,)).any()
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said == ["Channel DAPI is constant (7 everywhere); it tells the model nothing."]


def test_normalized_keeps_few_bright_pixels_on_an_even_ground():
    image = np.zeros((100, 100), dtype=np.uint16)
    image[40:45, 40:45] = 900
    image[42, 42] = 1000
    stack = ChannelStack.build(image, inputs=ONE)
    assert stack.statistics == Statistics((0,), (1000,))
    assert stack.normalized()[0, 42, 42] == 255


@pytest.mark.parametrize("size", [(13, 16), (30, 16), (13, 40), (60, 80)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
@pytest.mark.parametrize("inputs", [inputs_of(3), inputs_of(3, method="none"), SAM])
@pytest.mark.parametrize("half_pixel", [True, False])
def test_reduced_equals_the_normalized_plane_resized(size, dtype, inputs, half_pixel, monkeypatch):
    monkeypatch.setattr(image_stack_module, "STRIP", 500)
    transform = InputTransform((30, 40), size, size, half_pixel)
    values = (STACK / 60000 * 255).astype(dtype)
    stack = ChannelStack.build(values, channel_axis=-1, inputs=inputs)
    found, whole = stack.reduced((1,), transform), stack.normalized((1,))
    expected = whole if size == (60, 80) else transform.resize(whole)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("shape", [(150, 70), (70, 150), (300, 40)])
def test_reduced_of_bytes_is_that_of_stock_sam(shape, monkeypatch):
    """Whichever axis Pillow resizes first: it rounds bytes after each."""
    monkeypatch.setattr(image_stack_module, "STRIP", 500)
    image = RNG.integers(0, 256, shape, np.uint8)
    found = ChannelStack.build(image, inputs=SAM).reduced((), of_side(shape, 64))
    stock = ResizeLongestSide(64).apply_image(np.stack([image] * 3, axis=-1))
    np.testing.assert_array_equal(found, stock.transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(150, 70), (70, 150), (300, 40)])
def test_reduced_of_floats_is_that_of_the_whole_up_to_rounding(shape, monkeypatch):
    monkeypatch.setattr(image_stack_module, "STRIP", 500)
    transform = of_side(shape, 64)
    stack = ChannelStack.build(RNG.normal(0, 50, shape), inputs=ONE)
    found, whole = stack.reduced((), transform), transform.resize(stack.normalized())
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-4)


def of_side(shape, side):
    return InputTransform.of(shape, InputSize(size=side))


def test_reduced_holds_no_float_of_a_large_plane(monkeypatch):
    monkeypatch.setattr(image_stack_module, "STRIP", 2**16)
    image = np.arange(1200 * 1000, dtype=np.uint16).reshape(1200, 1000)
    stack = ChannelStack.build(image, inputs=ONE, statistics=Statistics((0,), (65535,)))
    transform = InputTransform(image.shape, (60, 50), (60, 50), True)
    stack.reduced((), transform)  # imports Pillow
    tracemalloc.start()
    stack.reduced((), transform)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < image.nbytes


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "The statistics lacks 'low'"),
        ({"low": 1, "high": 2}, "low must be a list"),
        ({"low": [1], "high": [2, 3]}, "one low and one high value for each channel, got 1 and 2"),
        ({"low": [3], "high": [2]}, "must be finite with low <= high, got 3.0 and 2.0"),
        ({"low": [float("nan")], "high": [2]}, "must be finite"),
    ],
)
def test_statistics_of_foreign_values_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_plain(Statistics, values, "The statistics")


def test_statistics_of_a_large_stack_measure_a_sample(monkeypatch):
    monkeypatch.setattr(normalization_module, "MAX_VOXELS_MEASURED", 40_000)
    monkeypatch.setattr(normalization_module, "SAMPLE_SIDE", 32)
    ramp = np.arange(100, dtype=np.float32)[:, None, None] + RNG.random((100, 64, 96))
    array = Watched(ramp)
    stack = ChannelStack.build(array, inputs=inputs_of(low=1, high=99))
    low, high = np.percentile(ramp, (1, 99))
    assert stack.statistics.low[0] == pytest.approx(low, abs=3)
    assert stack.statistics.high[0] == pytest.approx(high, abs=3)
    assert sum(array.read) == pytest.approx(40_000, rel=0.03)
    assert max(array.read) == 32 * 32
    again = ChannelStack.build(da.from_array(ramp, chunks=(1, 32, 32)), inputs=stack.inputs)
    assert again.statistics == stack.statistics


def test_statistics_of_a_large_plane_measure_a_sample(monkeypatch):
    monkeypatch.setattr(normalization_module, "MAX_VOXELS_MEASURED", 10_000)
    monkeypatch.setattr(normalization_module, "SAMPLE_SIDE", 10)
    plane = np.linspace(0, 1, 200)[:, None] + np.linspace(0, 1, 300)
    array = Watched(plane)
    stack = ChannelStack.build(array, inputs=inputs_of(low=5, high=95))
    low, high = np.percentile(plane, (5, 95))
    assert stack.statistics.low[0] == pytest.approx(low, abs=0.05)
    assert stack.statistics.high[0] == pytest.approx(high, abs=0.05)
    assert sum(array.read) == 10_000


def test_statistics_joint_share_one_sample_size(monkeypatch):
    monkeypatch.setattr(normalization_module, "MAX_VOXELS_MEASURED", 3000)
    monkeypatch.setattr(normalization_module, "SAMPLE_SIDE", 10)
    array = Watched(STACK)
    ChannelStack.build(array, channel_axis=-1, inputs=inputs_of(3, joint=True)).statistics  # noqa: B018
    assert sum(array.read) == 3000


def test_statistics_of_a_slide_of_glass_find_the_tissue(monkeypatch, caplog):
    monkeypatch.setattr(normalization_module, "MAX_VOXELS_MEASURED", 1000)
    monkeypatch.setattr(normalization_module, "SAMPLE_SIDE", 10)
    slide = np.full((200, 300), 243, np.uint8)
    slide[150:160, 40:50] = np.arange(100, 200, dtype=np.uint8).reshape(10, 10)
    stack = ChannelStack.build(slide, inputs=inputs_of(low=1, high=99))
    assert 100 <= stack.statistics.low[0] < 200
    assert stack.statistics.high[0] == 243
    assert "constant" not in caplog.text


def test_statistics_say_where_a_channel_is_constant(monkeypatch, caplog):
    monkeypatch.setattr(normalization_module, "MAX_VOXELS_MEASURED", 1000)
    monkeypatch.setattr(normalization_module, "SAMPLE_SIDE", 10)
    array = Watched(np.full((200, 300), 7, np.uint8))
    ChannelStack.build(array, inputs=inputs_of(low=1, high=99)).statistics  # noqa: B018
    assert "constant (7 wherever it was looked at)" in caplog.text
    assert sum(array.read) == pytest.approx(16 * 1000, rel=0.02)


def test_statistics_of_a_sample_of_nan_look_on(monkeypatch):
    monkeypatch.setattr(normalization_module, "MAX_VOXELS_MEASURED", 100)
    monkeypatch.setattr(normalization_module, "SAMPLE_SIDE", 10)
    image = np.full((40, 20, 20), np.nan)
    image[33, 7, 7:9] = 3, 5
    assert ChannelStack.build(image, inputs=inputs_of(low=0, high=100)).statistics == Statistics(
        (3,), (5,)
    )


def test_key_tells_content_and_normalization():
    def key(array=STACK, index=(1,), inputs=None, **options):
        inputs = inputs or inputs_of(3)
        return ChannelStack.build(array, channel_axis=-1, inputs=inputs, **options).key(index)

    fixed = Statistics((0,) * 3, (60000,) * 3)
    changed = STACK.copy()
    changed[1, 2, 3, 0] += 1
    elsewhere = STACK.copy()
    elsewhere[0, 2, 3, 0] += 1
    assert key() == key(STACK.copy())
    assert len(key()) == 32
    assert key(elsewhere, statistics=fixed) == key(statistics=fixed)
    different = [
        key(),
        key(index=(2,)),
        key(statistics=fixed),
        key(changed, statistics=fixed),
        key(STACK.astype(np.int32), statistics=fixed),
        key(channels=[0, 2, 1], statistics=fixed),
        key(STACK.reshape(4, 40, 30, 3), statistics=fixed),
        key(inputs=SAM, channels=[0, 0, 1], statistics=fixed),
        key(inputs=SAM, channels=[0, 1, 1], statistics=fixed),
    ]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("rule", [{}, {"joint": False}, {"keep_uint8": True}])
def test_channel_stack_with_a_gap_reads_zeros_there(several, rule):
    inputs = replace(inputs_of(3, **rule), may_lack=True)
    image = RNG.integers(20, 250, (2, 30, 40)).astype(np.uint8)
    given = {"channel_names": ("c", "a"), **({} if several else {"channel_axis": 0})}
    stack = ChannelStack.build(list(image) if several else image, inputs=inputs, **given)
    assert (stack.selection, stack.names) == ((1, GAP, 0), ("a", "b", "c"))
    any_order = replace(SAM, normalization=inputs.normalization)
    plain = ChannelStack.build(image, inputs=any_order, channels=[1, 0, 0], channel_axis=0)
    values, whole = stack.normalized(), plain.normalized()
    assert np.array_equal(values[[0, 2]], whole[[0, 2]])
    assert not values[1].any()
    assert values.dtype == whole.dtype
    assert not stack.plane()[1].any()
    part = stack.part((), slice(3, 9), slice(4, 20))
    assert np.array_equal(part.normalized(), values[:, 3:9, 4:20])
    assert stack.key() != plain.key()

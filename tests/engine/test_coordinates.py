import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_simmat.engine.coordinates import (
    InputTransform,
    box_of_corners,
    corners_of_box,
    square_pixel_shape,
)
from napari_simmat.models.spec import InputSize

SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))
RULES = {
    "longest": InputSize(method="longest", size=1024),
    "stretch": InputSize(method="stretch", size=1024),
    "native": InputSize(method="native", size=1024, minimum=64, multiple=32),
}


@pytest.fixture(scope="module")
def stock():
    transforms = pytest.importorskip("segment_anything.utils.transforms")
    return transforms.ResizeLongestSide(1024)


def to_image(transform, points_xy):
    """Points (N, 2) as x, y in the input -> points (N, 2) as y, x in the image."""
    half = 0.5 if transform.half_pixel else 0.0
    return (points_xy[:, ::-1].astype(float) + half) / transform.scale - half


@pytest.mark.parametrize("method", RULES)
@given(
    shape=SIZES, points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=4),
    ratio=st.just(1.0) | st.floats(0.05, 20),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_to_input_can_be_inverted(method, shape, points, ratio):
    transform = InputTransform.of(shape, RULES[method], (ratio, 1.0))
    on_image = np.array(points, dtype=float).reshape(-1, 2) * shape
    back = to_image(transform, transform.to_input(on_image))
    # float32 on the way, and a side that became one pixel magnifies its rounding
    tolerance = 1e-3 * max(1.0, *(1 / np.array(transform.scale)))
    assert np.abs(back - on_image).max(initial=0) < tolerance
    assert max(transform.resized) <= 1024


@given(shape=SIZES)
@settings(max_examples=100, deadline=None)
def test_input_transform_sizes_are_those_of_stock_sam(stock, shape):
    transform = InputTransform.of(shape, RULES["longest"])
    new = stock.get_preprocess_shape(*shape, 1024)
    assert transform.resized == tuple(max(1, side) for side in new)  # stock's 0 cannot be an image
    assert transform.padded == (1024, 1024)
    assert transform.pad == (1024 - transform.resized[0], 1024 - transform.resized[1])


@given(shape=SIZES, points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1))
@settings(max_examples=100, deadline=None)
def test_to_input_is_that_of_stock_sam(stock, shape, points):
    if 0 in stock.get_preprocess_shape(*shape, 1024):
        return
    transform = InputTransform.of(shape, RULES["longest"])
    yx = np.array(points) * shape
    theirs = stock.apply_coords(yx[:, ::-1], shape).astype(np.float32)
    assert np.array_equal(transform.to_input(yx), theirs)
    y, x = yx[0]
    (box,) = stock.apply_boxes(np.array([[x, y, x + 7, y + 5]]), shape).astype(np.float32)
    assert transform.box_to_input((y, x, y + 5, x + 7)) == tuple(box.tolist())


@pytest.mark.parametrize(
    "shape", [(1, 1), (1500, 700), (37, 50), (1024, 1024), (1024, 3), (600, 1024), (1, 900)]
)
def test_resize_of_bytes_is_that_of_stock_sam(stock, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    ours = InputTransform.of(shape, RULES["longest"]).resize(image.transpose(2, 0, 1))
    assert np.array_equal(ours, stock.apply_image(image).transpose(2, 0, 1))
    assert ours.dtype == np.uint8


def test_input_transform_of_a_line_keeps_one_pixel(stock):
    assert stock.get_preprocess_shape(3000, 1, 1024) == (1024, 0)
    transform = InputTransform.of((3000, 1), RULES["longest"])
    assert transform.resized == (1024, 1)
    image = np.zeros((1, 3000, 1), dtype=np.float32)
    image[0, 1500:] = 100
    resized = transform.resize(image)
    assert resized.shape == (1, 1024, 1)
    assert (resized[0, 0, 0], resized[0, -1, 0]) == (0, 100)


def test_resize_of_floats_rounds_nothing():
    image = np.random.default_rng(1).integers(0, 256, (2, 90, 60), dtype=np.uint8)
    transform = InputTransform.of((90, 60), InputSize(method="longest", size=33, minimum=1))
    smooth = transform.resize(image.astype(np.float32))
    assert smooth.dtype == np.float32
    # Bytes are rounded after each axis.
    assert np.abs(smooth - transform.resize(image)).max() <= 1.01
    assert not np.array_equal(smooth, np.round(smooth))


@pytest.mark.parametrize("rule", ["stretch", "native"])
def test_resize_rounds_bytes_under_sams_rule_alone(rule):
    image = np.random.default_rng(1).integers(0, 256, (2, 90, 60), dtype=np.uint8)
    transform = InputTransform.of((90, 60), InputSize(method=rule, size=33, minimum=1))
    resized = transform.resize(image)
    assert resized.dtype == np.float32
    assert np.array_equal(resized, transform.resize(image.astype(np.float32)))


def test_resize_to_the_same_size_returns_the_image():
    image = np.random.default_rng(2).random((3, 96, 64), dtype=np.float32)
    assert np.array_equal(InputTransform.of((96, 64), RULES["native"]).resize(image), image)


@pytest.mark.parametrize(
    ("shape", "resized", "padded"),
    [
        ((96, 100), (96, 100), (96, 128)),  # within the bounds: as it is
        ((1024, 64), (1024, 64), (1024, 64)),
        ((2048, 1000), (1024, 500), (1024, 512)),  # too large: to the upper bound
        ((16, 32), (32, 64), (32, 64)),  # too small: to the lower bound
        ((1, 1), (64, 64), (64, 64)),
        ((5000, 1), (1024, 1), (1024, 32)),
    ],
)
def test_input_transform_native_sizes(shape, resized, padded):
    transform = InputTransform.of(shape, RULES["native"])
    assert (transform.resized, transform.padded) == (resized, padded)


def test_input_transform_stretch_fills_the_square():
    transform = InputTransform.of((100, 300), InputSize(method="stretch", size=200))
    assert (transform.resized, transform.padded, transform.pad) == ((200, 200), (200, 200), (0, 0))
    assert transform.scale == (2.0, pytest.approx(2 / 3))


@pytest.mark.parametrize("method", ["native", "stretch"])
def test_to_input_points_at_the_resized_pixel(method):
    """Resampling and coordinates agree, also after a shift by one pixel."""
    size = InputSize(method=method, size=256, minimum=256, multiple=32)
    found = []
    for x in (20, 21):
        image = np.zeros((1, 64, 64), dtype=np.float32)
        image[0, 30, x] = 1
        transform = InputTransform.of((64, 64), size)
        resized = transform.resize(image)[0]
        ys, xs = np.indices(resized.shape)
        center = (xs * resized).sum() / resized.sum(), (ys * resized).sum() / resized.sum()
        assert np.allclose(transform.to_input([(30, x)])[0], center, atol=1e-3)
        found.append(center[0])
    assert found[1] - found[0] == pytest.approx(4)


@pytest.mark.parametrize("method", RULES)
def test_box_to_input_of_the_whole_image_is_the_input(method):
    transform = InputTransform.of(
        (100, 50), InputSize(method=method, size=200, minimum=200, multiple=8)
    )
    x0, y0, x1, y1 = transform.box_to_input((0, 0, 100, 50))
    edge = 0.5 if transform.half_pixel else 0
    assert (x0 + edge, y0 + edge) == (0, 0)
    assert (y1 + edge, x1 + edge) == transform.resized


def test_grid_covers_the_padded_input():
    assert InputTransform.of((300, 200), RULES["longest"]).grid(4) == (256, 256)
    assert InputTransform.of((300, 200), RULES["native"]).grid(4) == (80, 56)
    assert InputTransform.of((300, 200), RULES["native"]).grid(3) == (107, 75)


@pytest.mark.parametrize(
    ("corners", "box"),
    [
        ([(9.5, 4.5), (9.5, 7.5), (20.5, 7.5), (20.5, 4.5)], (10, 5, 21, 8)),
        ([(20.4, 7.1), (9.6, 4.9)], (10, 5, 21, 8)),  # any order, edges between the same centers
        ([(10, 5), (20, 7)], (10, 5, 21, 8)),  # a center on the edge counts
        ([(10.1, 5.1), (10.2, 5.2)], (10, 5, 11, 6)),  # no center: the pixel in the middle
        ([(-3, -9), (2, 300)], (-3, -9, 3, 301)),
    ],
)
def test_box_of_corners_holds_the_pixel_centers_within(corners, box):
    assert box_of_corners(corners) == box
    clipped = tuple(np.clip(box, 0, (50, 60) * 2))
    assert box_of_corners(corners, (50, 60)) == clipped


@pytest.mark.parametrize(
    "corners",
    [
        [(-30, 0), (-20, 10)],
        [(-3, 0), (-1, 10)],  # up to the last pixel before the image, and from the first behind it
        [(0, -3), (10, -1)],
        [(50, 0), (52, 10)],
        [(0, 60), (10, 62)],
    ],
)
def test_box_of_corners_outside_the_image_is_refused(corners):
    with pytest.raises(ValueError, match=r"outside the image of 50 x 60 pixels; draw it on the im"):
        box_of_corners(corners, (50, 60))


@given(
    y0=st.integers(-9, 50), x0=st.integers(-9, 50), height=st.integers(1, 50),
    width=st.integers(1, 50),
)  # fmt: skip
def test_corners_of_box_give_the_box_back(y0, x0, height, width):
    box = (float(y0), float(x0), float(y0 + height), float(x0 + width))
    assert box_of_corners(corners_of_box(box)) == box


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 5)])
def test_input_transform_refuses_what_is_no_plane(shape):
    with pytest.raises(ValueError, match="cannot be laid out; give a height and a width"):
        InputTransform.of(shape, RULES["native"])


def test_resize_refuses_other_shapes_and_types():
    transform = InputTransform.of((10, 20), RULES["native"])
    with pytest.raises(
        ValueError, match=r"shape \(1, 20, 10\) does not fit a transform of \(10, 20"
    ):
        transform.resize(np.zeros((1, 20, 10), dtype=np.float32))
    with pytest.raises(TypeError, match="are uint8 or float32, this one is uint16"):
        transform.resize(np.zeros((1, 10, 20), dtype=np.uint16))


@pytest.mark.parametrize(
    ("shape", "pixel", "square"),
    [
        ((50, 100), (3.0, 1.0), (150, 100)),
        ((50, 100), (0.5, 2.0), (50, 400)),
        ((50, 100), (2.0, 2.0), (50, 100)),
        ((50, 100), (1.15, 1.0), (50, 100)),  # as good as square
        ((50, 100), None, (50, 100)),
        ((5, 10), (1000.0, 1.0), (80, 10)),  # the time of a recording, perhaps
        ((5, 10), (1.0, 1000.0), (5, 160)),
        ((2048, 2048), (4.0, 1.0), (4096, 1024)),  # as many pixels as before
        ((4000, 4000), (1.0, 4.0), (2000, 8000)),
        ((1024, 1024), (2.0, 1.0), (2048, 1024)),
    ],
)
def test_square_pixel_shape_upsamples_the_longer_side(shape, pixel, square):
    assert square_pixel_shape(shape, pixel) == square


@pytest.mark.parametrize(
    "size", [(0.0, 1.0), (1.0, -2.0), (float("nan"), 1.0), (1.0, float("inf")), (1.0, 1.0, 2.0)]
)
def test_square_pixel_shape_refuses_a_pixel_without_size(size):
    with pytest.raises(ValueError, match=r"has no shape; give two numbers above 0\.$"):
        square_pixel_shape((5, 5), size)


def test_input_transform_of_long_pixels():
    native = InputTransform.of((50, 100), RULES["native"], (3.0, 1.0))
    assert (native.image, native.resized, native.padded) == ((50, 100), (150, 100), (160, 128))
    # The middle of row 2, three rows high now, is the middle of row 7; its box is rows 6 to 8.
    assert native.to_input([(2, 10)]).tolist() == [[10.0, 7.0]]
    assert native.box_to_input((2, 10, 3, 11)) == (9.5, 5.5, 10.5, 8.5)
    sam = InputTransform.of((50, 100), RULES["longest"], (4.0, 1.0))
    assert (sam.resized, sam.padded) == ((1024, 512), (1024, 1024))
    papers = InputTransform.of((50, 100), RULES["stretch"], (4.0, 1.0))
    assert papers.resized == (1024, 1024)
    large = InputTransform.of((50, 900), RULES["native"], (1.0, 2.0))
    assert large.resized == (28, 1024)  # 50 x 1800 beyond the largest

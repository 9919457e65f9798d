"""What other programs read: COCO through pycocotools, ImageJ's regions filled as ImageJ does."""

import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import roifile
from PIL import Image

from napari_simmat.batch.outputs import write_extra
from napari_simmat.engine.drawing import fullest_plane, label_color, tint_objects, to_rgb
from napari_simmat.engine.label_volume import MaskScore
from napari_simmat.engine.measuring.measured_image import MeasuredTable
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.io.reference import ImageReference

LABELS = np.zeros((3, 12, 16), np.uint32)  # Z, Y, X
LABELS[1, 2:6, 3:9] = 1
LABELS[1, 3:5, 5:7] = 0  # a hole
LABELS[1, 8:10, 0:4] = 7
LABELS[1, 8:10, 12:16] = 7  # in two parts, at the border
LABELS[2, 11, 15] = 300  # one pixel, in the corner
NOTHING = MeasuredTable([], [])


def segmented(labels: np.ndarray = LABELS, axes: str = "ZYX") -> Any:
    image = np.random.default_rng(0).integers(0, 255, (3, *labels.shape)).astype(np.uint8)
    return SimpleNamespace(
        volume=SimpleNamespace(labels=labels, masks=[MaskScore(1, 0.9, (1,))]),
        tiles=None,
        stack=SimpleNamespace(plane=lambda index: image[(slice(None), *index)]),
        loaded=SimpleNamespace(
            axes=axes,
            is_large=False,
            has_channels=False,
            image=SimpleNamespace(reference=ImageReference()),
            config=SimpleNamespace(table=TableSettings()),
            categories={},
            task=SimpleNamespace(image=Path("a.tif")),
        ),
    )


def filled(roi: Any, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centers lie inside an odd number of the region's outlines."""
    from skimage.measure import points_in_poly

    lines = roi.coordinates(multi=True)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    centers = np.stack([x.ravel(), y.ravel()], axis=1)
    inside = np.zeros(len(centers), int)
    for line in lines if isinstance(lines, list) else [lines]:
        inside += points_in_poly(centers, line)
    return (inside % 2 == 1).reshape(shape)


def test_write_extra_rois_fill_exactly_the_pixels(tmp_path):
    write_extra("rois", tmp_path / "a.zip", segmented(), NOTHING)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        rois = [roifile.ImagejRoi.frombytes(archive.read(name)) for name in names]
    assert names == ["1-z0002.roi", "7-z0002.roi", "300-z0003.roi"]
    for roi, label in zip(rois, (1, 7, 300), strict=True):
        plane = roi.position - 1
        np.testing.assert_array_equal(filled(roi, LABELS.shape[1:]), LABELS[plane] == label)


def test_write_extra_overlay_shows_the_fullest_plane(tmp_path):
    write_extra("overlay", tmp_path / "a.png", segmented(), NOTHING)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (16, 12)
        assert picture.getpixel((3, 2)) == label_color(1), "an outline has the object's color"
    index, _ = fullest_plane(LABELS, segmented().stack.plane)
    assert index == (1,)
    assert fullest_plane(np.zeros_like(LABELS), segmented().stack.plane)[0] == (1,)


def test_overlay_background_stays_as_it_is():
    picture = to_rgb(np.arange(12 * 16, dtype=np.float32).reshape(1, 12, 16))
    mixed = tint_objects(picture, LABELS[1])
    np.testing.assert_array_equal(mixed[LABELS[1] == 0], picture[LABELS[1] == 0])


def test_overlay_missing_values_are_black():
    values = np.array([[[np.nan, 1.0, 2.0, np.inf]]])
    assert to_rgb(values)[0, :, 0].tolist() == [0, 0, 255, 0]

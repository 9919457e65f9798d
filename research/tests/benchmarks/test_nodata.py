"""Pixels without data: mean IoUs that `pytest -m slow -s` prints for this file."""

import sys

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from napari_simmat import Predictor, load_model
from napari_simmat.io.readers import open_image
from simmat_research.sensors import draw_sensor_sample
from tests.io.places import make_geotiff

pytestmark = pytest.mark.slow
SEEDS, SIDE, NODATA = range(4), 160, -9999


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("name", ["multispectral", "tiny"])
def test_pixels_with_nodata_count_as_nan(name, tmp_path, capsys):
    predictor, scores = Predictor(load_model(name), "cpu", "exact"), {}
    bands = len(predictor.model.spec.channels)
    y, x = np.indices((SIDE, SIDE))
    inside = y + x > 0.79 * SIDE  # 31 % toward a corner have none
    for seed in SEEDS:
        image, labels, _ = draw_sensor_sample("multispectral", seed, SIDE)
        values = np.round(image[:bands] / image.max() * 10_000).astype(np.int16)
        holes = np.where(inside, values, NODATA).astype(np.int16)
        path = make_geotiff(tmp_path, bands, values=holes, dtype="int16", nodata=NODATA)
        read = open_image(path)
        versions = {
            "all data": values,
            "NaN": np.where(inside, values, np.nan).astype(np.float32),
            "nodata taken for data": holes,
            "nodata now": np.moveaxis(np.asarray(read.data), read.channel_axis, 0),
        }
        for version, data in versions.items():
            predictor.set_image(data, channel_axis=0)
            for label in np.unique(labels[inside & (labels > 0)]):
                truth = labels == label
                if not inside[truth].all() or truth.sum() < 100:
                    continue
                depth = distance_transform_edt(np.pad(truth, 1))[1:-1, 1:-1]
                at = np.unravel_index(depth.argmax(), depth.shape)
                scores.setdefault(version, []).append(iou(predictor.predict([at]).mask, truth))
    means = {version: np.mean(each) for version, each in scores.items()}
    assert abs(means["nodata now"] - means["NaN"]) < 0.02
    with capsys.disabled():
        listed = ", ".join(f"{version} {mean:.3f}" for version, mean in means.items())
        sys.stdout.write(f"\n{name}, {len(scores['NaN'])} objects: {listed}\n")

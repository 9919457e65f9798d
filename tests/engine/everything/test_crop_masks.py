"""Parts of a plane that are encoded on their own, against segment-anything."""

import numpy as np
import torch
from segment_anything.utils.amg import is_box_near_crop_edge

from napari_simmat.engine.everything.candidates import PixelBox
from napari_simmat.engine.everything.crop_masks import crop_regions, touches_crop_edge
from napari_simmat.engine.settings import AutomaticSettings


def test_crop_regions_and_edges_are_those_of_sam():
    settings = AutomaticSettings(crop_layers=2)
    crops = crop_regions((300, 400), settings)
    assert [crop.layer for crop in crops] == [0] + [1] * 4 + [2] * 16
    assert crops[0].box == (0, 0, 300, 400)
    covered = np.zeros((300, 400), int)
    for crop in crops[1:5]:
        covered[crop.box.slices] += 1
    assert covered.min() >= 1
    crop = PixelBox(0, 100, 200, 300)
    rng = np.random.default_rng(0)
    for _ in range(200):
        y0, x0 = rng.integers(0, 180), rng.integers(100, 280)
        box = PixelBox(
            int(y0), int(x0), int(rng.integers(y0 + 1, 201)), int(rng.integers(x0 + 1, 301))
        )
        tight = torch.tensor([[box.x0 - 100, box.y0, box.x1 - 101, box.y1 - 1]])  # in the crop
        theirs = is_box_near_crop_edge(tight, [100, 0, 300, 200], [0, 0, 400, 300])
        assert touches_crop_edge(box, crop, (300, 400)) == bool(theirs)

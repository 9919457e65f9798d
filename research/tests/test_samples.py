import numpy as np
import pytest
from skimage.measure import label

from simmat_research.layouts import LAYOUTS
from simmat_research.renderers import FAMILIES, render
from simmat_research.samples import MIN_BORDER_CONTRAST, border_contrast, draw_sample
from simmat_research.scene import draw_scene


@pytest.mark.parametrize("family", FAMILIES)
def test_draw_sample_gives_visible_connected_objects(family):
    for seed, size in ((0, 64), (1, (96, 160)), (2, 128)):
        image, labels = draw_sample(seed, size, [family])
        shape = (size, size) if isinstance(size, int) else size
        assert labels.shape == shape
        assert image.shape in (shape, (*shape, 3))
        assert image.dtype == np.float32
        assert labels.dtype == np.int32
        assert np.isfinite(image).all()
        assert image.std() > 0
        assert set(np.unique(labels)) - {0} == set(range(1, labels.max() + 1))
        assert label(labels, connectivity=1).max() == labels.max() >= 1
        assert (border_contrast(image, labels)[1:] >= MIN_BORDER_CONTRAST * 0.9).mean() > 0.9


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_renders_in_every_family(layout):
    scene = draw_scene(1, (64, 80), layout)
    for family in FAMILIES:
        image = render(scene, family, np.random.default_rng(0))
        assert np.isfinite(image).all(), family
        assert image.shape[:2] == (64, 80), family


def test_every_layout_belongs_to_a_family():
    used = {name for family in FAMILIES.values() for name in family.layouts}
    assert used == set(LAYOUTS)


def test_draw_sample_of_unknown_family_is_refused():
    with pytest.raises(ValueError, match="radar"):
        draw_sample(0, 64, ["plain", "radar"])
    with pytest.raises(ValueError, match="none"):
        draw_sample(0, 64, [])

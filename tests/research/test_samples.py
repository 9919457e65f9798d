import numpy as np
import pytest
from skimage.measure import label

from napari_simmat.research.layouts import LAYOUTS
from napari_simmat.research.renderers import FAMILIES, render
from napari_simmat.research.samples import MIN_BORDER_CONTRAST, border_contrast, draw_sample
from napari_simmat.research.scene import draw_scene


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


@pytest.mark.parametrize("family", FAMILIES)
def test_draw_sample_depends_on_its_seed_alone(family):
    (image, labels), (image_again, labels_again), (other, _) = (
        draw_sample(np.random.default_rng(seed), 96, [family]) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(image, image_again)
    np.testing.assert_array_equal(labels, labels_again)
    assert image.shape != other.shape or (image != other).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_draw_sample_hardly_hides_objects(family):
    drawn, seen = 0, 0
    for seed in range(4):
        rng = np.random.default_rng((seed, 7))
        layouts = list(FAMILIES[family].layouts)
        scene = draw_scene(rng, 128, layouts[seed % len(layouts)])
        contrast = border_contrast(render(scene, family, rng), scene.labels)
        drawn += len(contrast) - 1
        seen += int((contrast >= MIN_BORDER_CONTRAST).sum())
    assert seen >= 0.7 * drawn


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


def test_draw_sample_advances_its_generator():
    rng = np.random.default_rng(0)
    first, second = draw_sample(rng, 64, ["plain"])[0], draw_sample(rng, 64, ["plain"])[0]
    assert first.shape != second.shape or (first != second).any()


def test_draw_sample_of_unknown_family_is_refused():
    with pytest.raises(ValueError, match="radar"):
        draw_sample(0, 64, ["plain", "radar"])
    with pytest.raises(ValueError, match="radar"):
        render(draw_scene(0, 64), "radar", np.random.default_rng(0))
    with pytest.raises(ValueError, match="none"):
        draw_sample(0, 64, [])

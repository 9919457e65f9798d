"""Which masks become objects, counted by hand."""

from dataclasses import asdict

import numpy as np
import pytest

from napari_simmat.engine.everything.candidates import (
    MaskCandidate,
    MaskCandidates,
    PixelBox,
    Unsure,
    accepted_candidates,
    masks_to_instances,
)
from napari_simmat.engine.settings import AutomaticSettings

SHAPE = (40, 60)
LOOSE = AutomaticSettings(
    quality=0.3, stability=0, agreement=0, box_overlap=0.7, min_area=1, max_area=1, background=1
)


def candidates(*masks: tuple[tuple[int, int, int, int], dict[str, object]]) -> MaskCandidates:
    """Rectangles of a plane, each with what is known of it."""
    found = MaskCandidates(SHAPE)
    for seed, (box, known) in enumerate(masks):
        mask = known.pop("mask", np.ones((box[2] - box[0], box[3] - box[1]), bool))
        known = {"quality": 0.9, "stability": 1.0, "seed": seed, **known}
        found.add(MaskCandidate(box=PixelBox(*box), area=int(mask.sum()), **known), mask)
    return found


def changed(**values: object) -> AutomaticSettings:
    return AutomaticSettings(**{**asdict(LOOSE), **values})


def test_mask_candidates_return_the_masks_added():
    rng = np.random.default_rng(0)
    found, masks = MaskCandidates(SHAPE), []
    for size in ((1, 1), (3, 5), (40, 60), (7, 8)):
        masks.append(rng.random(size) > 0.5)
        found.add(MaskCandidate(PixelBox(0, 0, *size), int(masks[-1].sum()), 1.0, 1.0), masks[-1])
    for number, mask in enumerate(masks):
        np.testing.assert_array_equal(found.mask(number), mask)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"quality": 0.5}, [0, 2, 3]),
        ({"quality": 0.9}, [3]),  # above, as SAM's
        ({"stability": 0.8}, [0, 1, 3]),  # from, as SAM's
        ({"min_area": 26}, [1, 2, 3]),
        ({"min_area": 25}, [0, 1, 2, 3]),
        ({"max_area": 0.5}, [0, 1, 2]),
        ({"background": 0.6}, [0, 1, 2]),
        ({"keep_border": False}, [0, 1]),
    ],
)
def test_masks_to_instances_applies_each_filter(settings, kept):
    found = candidates(
        ((5, 5, 10, 10), {"quality": 0.9, "stability": 0.8}),
        ((20, 5, 30, 15), {"quality": 0.5, "stability": 0.9}),
        ((20, 50, 30, 60), {"quality": 0.9, "stability": 0.7}),
        ((0, 0, 40, 59), {"quality": 0.95, "stability": 0.95, "rim": 0.6}),
    )
    assert accepted_candidates(found, changed(**settings)) == kept


def test_masks_to_instances_of_like_boxes_keeps_the_best():
    found = candidates(
        ((5, 5, 15, 15), {"quality": 0.8}),
        ((5, 5, 15, 16), {"quality": 0.9}),  # IoU 100 / 110
        ((5, 25, 15, 35), {"quality": 0.7}),
        ((5, 25, 15, 35), {"quality": 0.7}),  # the same again: the earlier one stays
    )
    instances = masks_to_instances(found, LOOSE)
    assert len(instances) == 2
    assert instances.scores.tolist() == pytest.approx([0.9, 0.7])
    assert (instances.labels == 1).sum() == 110


def test_masks_to_instances_gives_a_pixel_to_the_better_mask():
    found = candidates(((10, 10, 20, 20), {"quality": 0.7}), ((10, 17, 20, 27), {"quality": 0.8}))
    labels = masks_to_instances(found, LOOSE).labels
    assert labels[15, 18] == labels[15, 26]
    assert (labels == labels[15, 11]).sum() == 70
    assert (labels == labels[15, 26]).sum() == 100


@pytest.mark.parametrize(("overlap", "objects"), [(0.39, 1), (0.4, 2)])
def test_masks_to_instances_drops_a_mask_under_better_ones(overlap, objects):
    found = candidates(((10, 10, 20, 20), {"quality": 0.7}), ((10, 16, 20, 26), {"quality": 0.8}))
    assert len(masks_to_instances(found, changed(overlap=overlap))) == objects


def test_masks_to_instances_fills_holes_and_drops_islands():
    mask = np.ones((20, 20), bool)
    mask[4:6, 4:6] = False  # 4 pixels
    mask[10:15, 10:15] = False  # 25
    mask[0, :] = mask[:, 19] = False
    mask[0, 19] = True  # an island
    labels = masks_to_instances(
        candidates(((5, 5, 25, 25), {"mask": mask})), changed(min_area=20)
    ).labels
    assert (labels[9:11, 9:11] == 1).all()
    assert (labels[15:20, 15:20] == 0).all()
    assert labels[5, 24] == 0
    assert (labels > 0).sum() == 19 * 19 - 25
    bay = np.ones((5, 5), bool)
    bay[0, 2] = False  # open: no hole
    found = candidates(((5, 5, 10, 10), {"mask": bay}))
    assert (masks_to_instances(found, changed(min_area=9)).labels > 0).sum() == 24


def test_masks_to_instances_drops_a_mask_that_others_compose():
    rods = [((10, 10 + 8 * n, 30, 17 + 8 * n), {"quality": 0.6}) for n in range(3)]
    colony = ((10, 10, 30, 33), {"quality": 0.95})
    assert len(masks_to_instances(candidates(*rods, colony), LOOSE)) == 3
    speckle = [((12, 12, 15, 15), {"quality": 0.6}), ((20, 20, 23, 23), {"quality": 0.6})]
    assert len(masks_to_instances(candidates(*speckle, colony), LOOSE)) == 1
    one_part = masks_to_instances(candidates(rods[0], colony), LOOSE)
    assert len(one_part) == 1, "it makes up nothing"


def test_masks_to_instances_needs_agreeing_seeds():
    lonely = ((10, 10, 20, 20), {"seeds_inside": 4})
    agreed = [((10, 30, 20, 40 + n), {"seeds_inside": 4, "quality": 0.9 - n / 100}) for n in (0, 1)]
    found = candidates(lonely, *agreed)
    assert len(masks_to_instances(found, changed(agreement=0.25))) == 2
    [score] = masks_to_instances(found, changed(agreement=0.5)).scores
    assert score == pytest.approx(0.9)
    assert len(masks_to_instances(found, changed(agreement=0.51))) == 0
    twice = [((10, 30, 20, 40 + n), {"seeds_inside": 4, "seed": 7}) for n in (0, 1)]
    assert len(masks_to_instances(candidates(*twice), changed(agreement=0.5))) == 0


def test_masks_to_instances_lets_masks_of_an_object_vote():
    ragged = np.ones((20, 20), bool)
    ragged[:1, :] = False
    narrow = np.ones((20, 20), bool)
    narrow[:, :8] = False  # IoU with the others below 0.95: of another object, no voice
    found = candidates(
        ((10, 10, 30, 30), {"quality": 0.9, "mask": ragged}),  # the best, but a row short
        ((10, 10, 30, 30), {"quality": 0.8}),
        ((10, 10, 30, 30), {"quality": 0.8}),
        ((10, 10, 30, 30), {"quality": 0.8, "mask": narrow}),
    )
    instances = masks_to_instances(found, LOOSE)
    assert (instances.labels > 0).sum() == 400
    assert instances.scores.tolist() == pytest.approx([0.9])


def test_masks_to_instances_numbers_by_the_first_pixel():
    found = candidates(
        ((30, 5, 35, 10), {"quality": 0.95}),
        ((5, 40, 10, 45), {"quality": 0.5}),
        ((5, 5, 10, 10), {"quality": 0.7}),
    )
    instances = masks_to_instances(found, LOOSE)
    assert [instances.labels[y, x] for y, x in ((7, 7), (7, 42), (32, 7))] == [1, 2, 3]
    assert instances.scores.tolist() == pytest.approx([0.7, 0.5, 0.95])
    assert instances.labels.dtype == np.uint32


def test_masks_to_instances_of_nothing_is_empty():
    instances = masks_to_instances(MaskCandidates(SHAPE), LOOSE)
    assert len(instances) == 0
    assert not instances.labels.any()


@pytest.mark.parametrize(
    "settings",
    [
        {"quality": 0.2}, {"stability": 1.5}, {"crop_layers": 9}, {"overlap": float("nan")},
        {"tile": 64, "tile_overlap": 0}, {"tile": 128, "tile_overlap": 64},
        {"tile": 0, "tile_overlap": 512},
    ],
)  # fmt: skip
def test_automatic_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=r"choose|must be between"):
        AutomaticSettings(**settings)


def test_what_a_decoder_is_unsure_of_is_counted():
    """Of disjoint masks, whose quality is a chance; what other filters reject is no doubt."""
    found = MaskCandidates(SHAPE, (0.5, 0.0), disjoint=True)
    for at, chance in enumerate((0.9, 0.5, 0.4, 0.2)):
        box = PixelBox(10, 10 * at, 16, 10 * at + 6)
        found.add(MaskCandidate(box, 36, chance, 1.0), np.ones((6, 6), bool))
    found.add(MaskCandidate(PixelBox(30, 0, 31, 2), 2, 0.4, 1.0), np.ones((1, 2), bool))
    usual = masks_to_instances(found, AutomaticSettings()).unsure
    assert (usual.kept, usual.masks) == (1, 2)
    assert usual.objects == pytest.approx(1.1)
    assert usual.share == pytest.approx(1.1 / 2.1)
    both = usual.with_plane(Unsure(3, 1, 0.4))
    assert (both.kept, both.masks) == (4, 3)
    lower = masks_to_instances(found, AutomaticSettings(quality=0.3)).unsure
    assert (lower.kept, lower.masks) == (3, 0)
    assert masks_to_instances(found, AutomaticSettings(quality=0.95)).unsure == Unsure(0), (
        "who raises the threshold wants fewer"
    )

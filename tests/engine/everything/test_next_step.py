"""What to try where too little was found: a star field, a constant channel, glass, dark spots."""

import numpy as np
import pytest
from scipy import ndimage as ndi
from skimage.data import immunohistochemistry

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.everything.candidates import Unsure
from napari_simmat.engine.everything.generator import segment_everything
from napari_simmat.engine.everything.next_step import MANY, NARROWEST, SeenPlane, middle
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.settings import AutomaticSettings


def star_field(count=120, side=320, seed=0, brightest=300):
    """Sources of a median of 11 pixels above three times the noise, and where they are."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side))
    at = rng.uniform(6, side - 6, (count, 2))
    y, x = np.mgrid[:side, :side]
    for (top, left), peak in zip(
        at, np.exp(rng.uniform(*np.log((50, brightest)), count)), strict=True
    ):
        image += peak * np.exp(-((y - top) ** 2 + (x - left) ** 2) / 2)
    return image + 1000 + rng.normal(0, 10, image.shape), at


def seen(values, others=None):
    values = np.atleast_3d(values.T).T
    return SeenPlane(values, middle(values.shape), others or {})


def nothing(values):
    return np.zeros(values.shape[-2:], np.uint32)


def test_dim_stars_beside_bright_ones_are_advised_for():
    """By default a spot has at least a fifth of the range, of which bright stars take most."""
    image, at = star_field(count=60, side=200, brightest=3000)
    step = seen(image).next_step(nothing(image), AutomaticSettings())
    assert 0 < step.settings["maxima_height"] < 0.1
    assert (
        "maxima_height"
        not in seen(star_field()[0])
        .next_step(nothing(star_field()[0]), AutomaticSettings())
        .settings
    )
    predictor = Predictor(load_model("tiny"))
    predictor.set_image(image)
    usual = {name: value for name, value in step.settings.items() if name != "maxima_height"}
    met = [
        sum(labels[tuple(np.round(point).astype(int))] > 0 for point in at)
        for labels in (
            segment_everything(predictor, AutomaticSettings(**settings)).labels
            for settings in (usual, step.settings)
        )
    ]
    assert met[0] < 0.5 * len(at)
    assert met[1] > 0.7 * len(at)


def test_sources_of_a_star_field_have_a_median_of_11_pixels():
    image, _ = star_field()
    regions, _ = ndi.label(image > 1030)
    areas = np.bincount(regions.ravel())[1:]
    assert np.median(areas[areas >= 4]) == pytest.approx(11, abs=1.5)


def test_what_is_advised_for_a_star_field_finds_its_sources():
    image, at = star_field(count=60, side=224)
    predictor = Predictor(load_model("tiny"))
    predictor.set_image(image)
    before = segment_everything(predictor)
    step = seen(image).next_step(before.labels, AutomaticSettings())
    assert step is not None
    assert "bright spots of some 4 pixels across have no object" in step.in_options
    assert f"{NARROWEST} pixels across" in step.in_options
    assert step.settings["seeds"] == "maxima"
    after = segment_everything(predictor, AutomaticSettings(**step.settings))

    def met(labels):
        return sum(labels[tuple(np.round(point).astype(int))] > 0 for point in at)

    assert met(before.labels) < 0.25 * len(at)
    assert met(after.labels) > 0.9 * len(at)
    assert seen(image).next_step(after.labels, AutomaticSettings(**step.settings)) is None


def test_the_step_is_told_in_the_words_of_command_and_window():
    image, _ = star_field()
    step = seen(image).next_step(nothing(image), AutomaticSettings())
    assert "--auto.seeds maxima --auto.maxima-distance 3" in step.in_options
    assert "--auto.min-area 2" in step.in_options or "--auto.min-area 3" in step.in_options
    assert "Where to look: at bright spots, Between spots: 3, Certainty: 0.3" in step.in_controls
    assert "--" not in step.in_controls


def test_dark_spots_are_looked_for_at_minima():
    image, _ = star_field()
    step = seen(2000 - image).next_step(nothing(image), AutomaticSettings())
    assert step.settings["seeds"] == "minima"
    assert "dark spots" in step.in_controls


def test_what_was_tried_in_vain_is_not_advised_again():
    image, _ = star_field()
    first = seen(image).next_step(nothing(image), AutomaticSettings())
    again = seen(image).next_step(nothing(image), AutomaticSettings(**first.settings))
    assert "--auto.seeds" not in again.in_options
    assert "Enlarge the image" in again.in_options
    assert "--prompts" in again.in_options


@pytest.mark.parametrize(
    ("others", "advice"),
    [
        ({}, "Read another channel or plane."),
        ({"DAPI": np.eye(90), "empty": np.ones((90, 90))}, "shows something: --channels DAPI."),
    ],
)
def test_a_constant_image_asks_for_another_channel(others, advice):
    image = np.full((90, 90), 7, np.uint8)
    step = seen(image, others).next_step(nothing(image), AutomaticSettings())
    assert step.in_options.startswith("What the model reads is 7 everywhere.")
    assert step.in_options.endswith(advice)


def test_fields_seen_from_above_are_no_glass():
    """Patches all over: no pixel is far from the background, since that differs everywhere."""
    rng = np.random.default_rng(0)
    fields = ndi.gaussian_filter(rng.normal(0, 1, (1, 300, 300)), (0, 9, 9))
    land = 100 + 20 * fields / fields.std() + rng.normal(0, 2, fields.shape)
    step = seen(land).next_step(nothing(land), AutomaticSettings())
    assert "glass" not in step.in_options
    assert "Nothing here looks like an object to the model." in step.in_options


def test_glass_of_a_slide_asks_for_another_region():
    rng = np.random.default_rng(0)
    glass = np.clip(rng.normal(242, 1.5, (3, 200, 200)), 0, 255).astype(np.uint8)
    step = seen(glass).next_step(nothing(glass), AutomaticSettings())
    assert "as on the glass of a slide" in step.in_options
    assert "region" in step.in_controls


def test_where_objects_were_found_nothing_is_advised():
    image, at = star_field()
    labels = nothing(image)
    for number, point in enumerate(at, start=1):
        top, left = np.round(point).astype(int)
        labels[top - 2 : top + 3, left - 2 : left + 3] = number
    assert seen(image).next_step(labels, AutomaticSettings()) is None


def test_a_large_object_of_which_nothing_is_found_is_to_be_shown():
    y, x = np.mgrid[:200, :200]
    image = 100.0 * (np.hypot(y - 100, x - 80) < 40) + np.random.default_rng(0).normal(
        0, 5, y.shape
    )
    step = seen(image).next_step(nothing(image), AutomaticSettings())
    assert step.shows_one
    assert "--auto.object-side" in step.in_options
    assert "draw a stroke" in step.in_controls


def test_few_spots_beside_an_object_are_no_reason():
    image, _ = star_field(count=MANY - 5)
    labels = nothing(image)
    labels[100:120, 100:120] = 1
    assert seen(image).next_step(labels, AutomaticSettings()) is None


def test_no_more_than_the_middle_of_a_plane_is_looked_at():
    rows, columns = middle((3, 5000, 800))
    assert (rows.stop - rows.start, rows.start, columns.start) == (1024, 1988, 0)


def test_stained_tissue_is_bright_and_fluorescence_is_not():
    tissue = np.moveaxis(immunohistochemistry(), -1, 0)
    y, x = np.indices((200, 200))
    cells = np.hypot(y % 50 - 25, x % 50 - 25) < 16  # a third of the picture
    composite = np.stack([np.where(cells, 220, 25), np.where(cells, 160, 20), 0 * y])
    assert SeenPlane(tissue, middle(tissue.shape)).is_bright_field
    assert not SeenPlane(composite, middle(composite.shape)).is_bright_field


@pytest.mark.parametrize(
    ("unsure", "says"),
    [
        (Unsure(kept=12, masks=9, objects=3.7), True),
        (Unsure(kept=0, masks=4, objects=2.1), True),
        (Unsure(kept=70, masks=12, objects=5.0), False),  # few of many
        (Unsure(kept=2, masks=3, objects=1.4), False),  # hardly one
    ],
)
def test_objects_that_were_left_out_are_told(unsure, says):
    noise = np.random.default_rng(0).normal(0, 1, (120, 120))
    labels = nothing(noise)
    labels[10:30, 10:30] = 1
    step = seen(noise).next_step(labels, AutomaticSettings(), unsure)
    assert (step is not None) == says
    if says:
        assert f"unsure of some {round(unsure.objects)} more objects" in step.in_options
        assert "Try --auto.quality 0.3, or teach it five objects (simmat models teach)." in (
            step.in_options
        )
        assert "Certainty: 0.3" in step.in_controls
        assert "--" not in step.in_controls


def test_the_lowest_threshold_is_not_advised_to_who_has_it():
    noise = np.random.default_rng(0).normal(0, 1, (120, 120))
    step = seen(noise).next_step(
        nothing(noise), AutomaticSettings(quality=0.3), Unsure(kept=2, masks=0, objects=3.0)
    )
    assert "quality" not in step.in_options
    assert step.in_options.endswith("Teach it five objects (simmat models teach).")


def test_a_size_that_was_given_is_not_asked_for_again():
    y, x = np.mgrid[:200, :200]
    image = 100.0 * (np.hypot(y - 100, x - 80) < 40) + np.random.default_rng(0).normal(
        0, 5, y.shape
    )
    step = seen(image).next_step(nothing(image), AutomaticSettings(object_side=20))
    assert step.shows_one
    assert "--auto.object-side" not in step.in_options
    assert "Show one: a click or a box with --prompts" in step.in_options
    assert "Side of an object" not in step.in_controls

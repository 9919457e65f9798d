"""All objects by the decoder of `tiny`, on discs that can be counted."""

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_simmat import Predictor, load_model, segment_everything
from napari_simmat.engine.everything import object_finder
from napari_simmat.engine.everything.candidates import MaskCandidates, PixelBox
from napari_simmat.engine.everything.object_finder import Look, find_objects_job, zoomed
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.evaluation.metrics import pairwise_iou
from napari_simmat.models.spec import Model
from napari_simmat.progress import finish
from tests.nightly import nightly_but


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("tiny")


def discs(radius: float, rows: int = 3, columns: int = 4) -> tuple[NDArray, NDArray[np.int32]]:
    """Bright discs in rows on noisy ground, and their ids."""
    pitch = 3 * radius + 6
    y, x = np.indices((int(rows * pitch), int(columns * pitch)))
    labels = np.zeros(y.shape, np.int32)
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        middle = (row + 0.5) * pitch, (column + 0.5) * pitch
        labels[(y - middle[0]) ** 2 + (x - middle[1]) ** 2 <= radius**2] = number + 1
    noise = np.random.default_rng(0).normal(0, 6, y.shape)
    return (60 + 120 * (labels > 0) + noise).clip(0, 255).astype(np.uint8), labels


@pytest.mark.parametrize("radius", nightly_but((5, 12, 40, 90), 5, 40))
def test_discs_of_any_size_are_found(model: Model, radius: float) -> None:
    image, labels = discs(radius)
    predictor = Predictor(model, "cpu")
    predictor.set_image(image)
    found = segment_everything(predictor)
    overlaps = pairwise_iou(found.labels.astype(np.int32), labels)
    assert len(found) == 12
    assert (overlaps.max(0) > 0.8).all()


def test_object_that_fills_much_of_the_image_is_found(model: Model) -> None:
    """Dim and in noise, it is seen at a half or a quarter of its size alone."""
    y, x = np.indices((700, 700))
    disc = (y - 350) ** 2 + (x - 350) ** 2 < 230**2
    noise = np.random.default_rng(0).normal(0, 20, disc.shape)
    predictor = Predictor(model, "cpu")
    predictor.set_image((60 + 25 * disc + noise).clip(0, 255).astype(np.uint8))
    found = segment_everything(predictor)
    overlaps = pairwise_iou(found.labels.astype(np.int32), disc.astype(np.int32))
    assert overlaps.max(initial=0) > 0.9


def test_image_without_objects_has_none(model: Model) -> None:
    predictor = Predictor(model, "cpu")
    predictor.set_image(np.full((96, 128), 7, np.uint8))
    assert not len(segment_everything(predictor))


def proposals(model: Model, image: NDArray, box: PixelBox | None = None) -> MaskCandidates:
    predictor = Predictor(model, "cpu")
    finish(predictor.open_image_job(image))
    return finish(find_objects_job(predictor, (), box))


def test_proposals_share_no_pixel_and_come_again_the_same(model: Model) -> None:
    image, _ = discs(12)
    first, again = proposals(model, image), proposals(model, image)
    assert first.known == again.known
    covered = np.zeros(image.shape, int)
    for number, each in enumerate(first.known):
        covered[each.box.slices] += first.mask(number)
    assert covered.max() == 1
    assert first.disjoint


def test_part_of_a_plane_is_seen_by_itself(model: Model) -> None:
    image, labels = discs(12)
    box = PixelBox(0, 0, image.shape[0], image.shape[1] // 2)
    found = proposals(model, image, box)
    assert found.shape == box.size
    assert sum(each.quality > 0.5 for each in found.known) == 6
    assert labels[box.slices].max() > 0


def test_threshold_is_the_chance(model: Model) -> None:
    image, _ = discs(12)
    predictor = Predictor(model, "cpu")
    predictor.set_image(image)
    scores = segment_everything(predictor, AutomaticSettings(quality=0.3)).scores
    strict = segment_everything(predictor, AutomaticSettings(quality=0.9))
    assert len(strict) == np.count_nonzero(scores > 0.9)


def test_clicks_find_them_as_before_when_asked(model: Model) -> None:
    image, labels = discs(12)
    predictor = Predictor(model, "cpu")
    predictor.set_image(image)
    found = segment_everything(predictor, AutomaticSettings(by="clicks"))
    overlaps = pairwise_iou(found.labels.astype(np.int32), labels)
    assert (overlaps.max(0) > 0.8).all()
    assert predictor.encodes > 0


def test_input_of_a_scale_is_padded(model: Model) -> None:
    predictor = Predictor(model, "cpu")
    finish(predictor.open_image_job(np.zeros((200, 301), np.uint8)))
    half = zoomed(predictor.input_transform((200, 301)), 0.5)
    assert half.resized == (100, 150)
    assert half.padded == (128, 160)


def test_narrow_objects_are_enlarged_by_parts_and_found_once(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, labels = discs(4, rows=8, columns=9)  # 8 pixels wide
    enlarged: list[tuple[int, int]] = []

    def noting(predictor, plane, box, transform, decoder):
        if transform.resized == (2 * box.size[0], 2 * box.size[1]):
            enlarged.append(box.size)
        return (yield from regions_job(predictor, plane, box, transform, decoder))

    regions_job = object_finder._regions_job
    monkeypatch.setattr(object_finder, "_regions_job", noting)
    whole = proposals(model, image)
    assert enlarged == [image.shape]
    monkeypatch.setattr(object_finder, "PART_SIDE", 256)
    monkeypatch.setattr(object_finder, "PART_SHARED", 64)
    parts = proposals(model, image)
    assert set(enlarged[1:]) == {(128, 128)}
    for found in (whole, parts):
        likely = [number for number, each in enumerate(found.known) if each.quality > 0.5]
        met = {int(labels[found.known[one].box.slices][found.mask(one)].max()) for one in likely}
        assert len(likely) == len(met) == 72


def test_what_the_edge_of_a_part_cuts_is_left_to_the_next(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts are rows and columns 0 to 44 and 27 to 71; each cuts four discs of a row or column."""
    image, _ = discs(4, rows=4, columns=4)
    predictor = Predictor(model, "cpu")
    finish(predictor.open_image_job(image))
    scale = predictor.input_transform(image.shape).scale[0]  # so small an image is enlarged
    monkeypatch.setattr(object_finder, "PART_SIDE", 2 * 45 * scale)
    monkeypatch.setattr(object_finder, "PART_SHARED", 0)
    look = Look.at(predictor)
    look.left = look._pieces(predictor, 2.0)
    finish(look.on_job(predictor))
    found = look._found
    assert len([one for one in found if one.chance > 0.5]) >= 16
    assert not [one for one in found if 45 in (one.box.y1, one.box.x1)]
    assert not [one for one in found if 27 in (one.box.y0, one.box.x0)]


def test_wide_objects_are_not_enlarged(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_finder, "FINE_ZOOM", None)  # it would fail
    image, _ = discs(12)
    assert sum(each.quality > 0.5 for each in proposals(model, image).known) == 12


def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_finder, "PART_SIDE", 128)
    monkeypatch.setattr(object_finder, "PART_SHARED", 32)


def test_look_begins_where_one_is_and_coarsely(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 216 x 288 pixels the last corner: first the piece of each scale that holds it."""
    small_pieces(monkeypatch)
    image, _ = discs(22)
    predictor = Predictor(model, "cpu")
    finish(predictor.open_image_job(image))
    height, width = image.shape
    look = Look.at(predictor, near=(height - 1, width - 1))
    first = look.left[:3]
    assert [piece.zoom for piece in first] == sorted(piece.zoom for piece in first)
    assert all((piece.box.y1, piece.box.x1) == image.shape for piece in first)
    assert look.left[-1].box.y0 == look.left[-1].box.x0 == 0
    finish(look.on_job(predictor, most=1))
    assert len(look.left) == len(Look.at(predictor).left) - 1, "one piece at least"


@pytest.mark.slow
def test_many_looks_find_the_same_as_one_wherever_they_begin(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The objects are narrow, so that the plane is enlarged in the end, too."""
    small_pieces(monkeypatch)
    image, _ = discs(4, rows=8, columns=9)
    predictor = Predictor(model, "cpu")
    finish(predictor.open_image_job(image))
    assert not object_finder.looks_coarsely(predictor)
    whole = proposals(model, image)
    look = Look.at(predictor, near=(100, 100))
    looks = 0
    while look.left:
        before = len(look.left)
        finish(look.on_job(predictor, most=20_000))
        assert len(look.left) < before or look.left[0].zoom == object_finder.FINE_ZOOM
        looks += 1
        assert look.candidates.disjoint
    assert looks > 3
    found = look.candidates
    assert found.known == whole.known
    for number in range(len(found)):
        assert np.array_equal(found.mask(number), whole.mask(number))

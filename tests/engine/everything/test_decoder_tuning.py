"""The decoder of all objects, tuned on a few."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_simmat import load_model
from napari_simmat.engine.everything.decoder_tuning import tune_decoder_job
from napari_simmat.engine.everything.object_finder import find_objects_job
from napari_simmat.engine.predictor import Predictor
from napari_simmat.models.object_decoder import ObjectDecoder
from napari_simmat.progress import finish


def large_and_small() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (160, 200) of ten large and ten small discs; their labels, in this order."""
    y, x = np.indices((160, 200))
    large, small = np.zeros((2, 160, 200), np.int32)
    for number, (row, column) in enumerate(np.ndindex(4, 5), start=1):
        target, radius = (large, 13) if (row + column) % 2 else (small, 6)
        place = (y - 20 - 40 * row) ** 2 + (x - 20 - 40 * column) ** 2 <= radius**2
        target[place] = number
    noise = np.random.default_rng(0).normal(0, 4, large.shape)
    image = gaussian_filter(((large + small) > 0) * 120.0, 1) + 60 + noise
    return image.astype(np.uint8), large, small


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    found = Predictor(load_model("tiny"), "cpu")
    found.set_image(large_and_small()[0])
    return found


def met(predictor: Predictor, labels: np.ndarray, decoder: ObjectDecoder | None = None) -> int:
    """How many of the objects have a draft that is likelier than not, at IoU .75."""
    found = finish(find_objects_job(predictor, decoder=decoder))
    count = 0
    for number, each in enumerate(found.known):
        if each.quality > 0.5:
            under = labels[each.box.slices][found.mask(number)]
            best = np.bincount(under).argmax()
            either = len(under) + np.count_nonzero(labels == best) - np.count_nonzero(under == best)
            count += bool(best) and np.count_nonzero(under == best) >= 0.75 * either
    return count


@pytest.fixture(scope="module")
def shown() -> tuple[np.ndarray, np.ndarray]:
    """Three of the large discs, and five of the small ones as ground."""
    _, large, small = large_and_small()
    three = np.unique(large)[1:4]
    five = np.unique(small)[1:6]
    return np.where(np.isin(large, three), large, 0), np.isin(small, five)


@pytest.mark.slow
def test_what_is_marked_as_ground_and_its_like_is_found_less(
    predictor: Predictor, shown: tuple[np.ndarray, np.ndarray]
) -> None:
    tuned = finish(tune_decoder_job(predictor, *shown))
    _, large, small = large_and_small()
    assert (met(predictor, large), met(predictor, small)) == (10, 10)
    assert met(predictor, large, tuned) == 10
    assert met(predictor, small, tuned) < 5


@pytest.mark.usefixtures("brief_lessons")
def test_the_same_lesson_gives_the_same_decoder_in_half(
    predictor: Predictor, shown: tuple[np.ndarray, np.ndarray]
) -> None:
    once, again = (finish(tune_decoder_job(predictor, *shown)).state_dict() for _ in range(2))
    for name, each in once.items():
        assert torch.equal(each, again[name])
        assert torch.equal(each, each.half().float())


@pytest.mark.usefixtures("brief_lessons")
def test_the_models_own_decoder_and_its_score_stay(
    predictor: Predictor, shown: tuple[np.ndarray, np.ndarray]
) -> None:
    tuned = finish(tune_decoder_job(predictor, *shown))
    own, stock = predictor.object_decoder.state_dict(), load_model("tiny").decoder.state_dict()
    assert all(torch.equal(each, stock[name]) for name, each in own.items())
    changed = {
        name for name, each in tuned.state_dict().items() if not torch.equal(each, own[name])
    }
    assert changed
    assert not [name for name in changed if name.startswith("score")]


def test_tuning_is_shown_step_by_step_and_can_be_left(
    predictor: Predictor, shown: tuple[np.ndarray, np.ndarray]
) -> None:
    job = tune_decoder_job(predictor, *shown)
    first, second = next(job), next(job)
    assert first.done == 0 < second.done < 0.05 * second.total
    job.close()


def test_a_model_without_the_decoder_is_refused() -> None:
    model = replace(load_model("tiny"), decoder=None)
    predictor = Predictor(model, "cpu")
    image, large, _ = large_and_small()
    predictor.set_image(image)
    with pytest.raises(ValueError, match="has no decoder that finds all objects"):
        finish(tune_decoder_job(predictor, large))

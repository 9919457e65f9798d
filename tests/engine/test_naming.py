"""Objects named by a few whose class is known."""

import numpy as np
import pytest

from napari_simmat.engine.measuring.object_properties import ObjectFeatures
from napari_simmat.engine.naming import (
    DOUBTFUL,
    IN_DOUBT,
    NamedObjects,
    check_known,
    name_by_features_job,
    name_objects,
    name_objects_job,
)
from napari_simmat.engine.predictor import Predictor
from napari_simmat.progress import finish

ROUND, LONG = "round", "long"


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """25 objects of about equal area, every third a bar, the others disks; with their classes."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:200, :200]
    labels, classes = np.zeros((200, 200), np.int32), {}
    for number in range(25):
        y, x = 20 + 40 * (number // 5), 20 + 40 * (number % 5)
        is_long = number % 3 == 0
        away = np.abs(rows - y) / 4 + np.abs(columns - x) / 16
        disk = (rows - y) ** 2 + (columns - x) ** 2 <= rng.uniform(6, 7) ** 2
        labels[away <= 1 if is_long else disk] = number + 1
        classes[number + 1] = LONG if is_long else ROUND
    image = rng.normal(10, 2, labels.shape) + 30 * (labels > 0)
    return image, labels, classes


def first_of_each(classes: dict[int, str], count: int = 3) -> dict[int, str]:
    kinds = sorted(set(classes.values()))
    return {n: kind for kind in kinds for n in [m for m in classes if classes[m] == kind][:count]}


def told(named: NamedObjects) -> tuple[object, ...]:
    return named.names, named.certainties, named.right, named.tested


def on_a_line(*values: float) -> ObjectFeatures:
    """Objects 1, 2, ... with a single feature."""
    ids = tuple(range(1, len(values) + 1))
    return ObjectFeatures(ids, ("place",), np.array(values, float)[:, None])


def test_others_get_the_class_that_they_look_like():
    image, labels, classes = scene()
    known = first_of_each(classes)
    named = name_objects(labels, known, [image])
    assert set(named.names) == set(classes) - set(known), "known ones are left alone"
    assert named.sure == {n: classes[n] for n in named.sure}
    assert len(named.sure) == 25 - len(known)
    assert dict(named.known) == {LONG: 3, ROUND: 3}
    assert all(DOUBTFUL <= certainty <= 1 for certainty in named.certainties.values())
    assert named.sentence == (
        "Named 19 objects by 3 long, 3 round; left out one by one, 6 of these 6 are named right."
    )


def test_brightness_alone_tells_objects_of_one_shape_apart():
    _, labels, _ = scene()
    labels = np.where(np.isin(labels, range(1, 26, 3)), 0, labels)  # disks alone
    left = [n for n in np.unique(labels).tolist() if n]
    classes = {n: "bright" if n % 2 else "dim" for n in left}
    image = np.random.default_rng(1).normal(10, 1, labels.shape)
    image[np.isin(labels, [n for n in left if n % 2])] += 40
    image[np.isin(labels, [n for n in left if n % 2 == 0])] += 20
    named = name_objects(labels, first_of_each(classes), [image])
    assert named.names == {n: classes[n] for n in named.names}
    blind = name_objects(labels, first_of_each(classes))
    assert blind.names != {n: classes[n] for n in blind.names}


def test_known_objects_are_left_out_one_by_one():
    """Of 1, 2, 9 (low) and 11, 12, 13 (high), the 9 alone is nearer to the other class."""
    features = on_a_line(1, 2, 9, 11, 12, 13, 1.5, 12.5)
    known = {1: "low", 2: "low", 3: "low", 4: "high", 5: "high", 6: "high"}
    named = finish(name_by_features_job(features, known))
    assert (named.right, named.tested) == (5, 6)
    assert named.names == {7: "low", 8: "high"}


def test_an_object_between_two_classes_is_doubtful():
    named = finish(
        name_by_features_job(
            on_a_line(1, 2, 3, 11, 12, 13, 7, 1),
            {1: "low", 2: "low", 3: "low", 4: "high", 5: "high", 6: "high"},
        )
    )
    assert named.doubtful == (7,)
    assert named.sure == {8: "low"}
    assert named.certainties[7] == pytest.approx(0.5, abs=0.02)
    assert IN_DOUBT.format(count=1, are="is", stay="stays") in named.sentence


def test_the_same_objects_get_the_same_names():
    image, labels, classes = scene()
    known = first_of_each(classes)
    one = name_objects(labels, known, [image])
    again = name_objects(labels, dict(reversed(known.items())), [image])
    assert told(one) == told(again), "the order in which they were classed does not matter"


@pytest.mark.parametrize(
    ("known", "so_far"),
    [
        ({}, "so far there are none."),
        ({1: "a", 2: "a", 3: "a"}, "so far there are 3 a."),
        ({1: "a", 2: "a", 3: "a", 4: "b", 5: "b"}, "so far there are 3 a, 2 b."),
        ({1: "a"}, "so far there is 1 a."),
    ],
)
def test_too_few_known_objects_are_refused_in_a_sentence(known, so_far):
    with pytest.raises(ValueError, match=so_far):
        check_known(known)


def test_known_objects_that_are_gone_do_not_count():
    features = on_a_line(1, 2, 3, 11, 12)
    known = {1: "low", 2: "low", 3: "low", 4: "high", 5: "high", 99: "high"}
    with pytest.raises(ValueError, match="3 low, 2 high"):
        finish(name_by_features_job(features, known))


def test_nan_and_infinity_do_not_count():
    image, labels, classes = scene()
    known = first_of_each(classes)
    holes, empty = image.copy(), np.full_like(image, np.nan)
    holes[::7] = np.nan
    holes[labels == 4] = np.inf  # all of one object
    named = name_objects(labels, known, [holes, empty])
    assert named.sure == {n: classes[n] for n in named.sure}
    assert len(named.sure) > 15
    assert all(np.isfinite(certainty) for certainty in named.certainties.values())


def test_an_object_on_several_planes_has_one_name():
    image, labels, classes = scene()
    stack = np.stack([labels, labels, np.where(labels % 2, labels, 0)])
    named = name_objects(stack, first_of_each(classes), [np.stack([image] * 3)])
    assert named.names == {n: classes[n] for n in named.names}


def test_channels_of_another_shape_are_refused():
    image, labels, classes = scene()
    with pytest.raises(ValueError, match="Channels and labels need one shape"):
        name_objects(labels, first_of_each(classes), [image[:-1]])


def test_naming_stops_at_a_step():
    image, labels, classes = scene()
    job = name_objects_job(labels, first_of_each(classes), [image])
    assert next(job).message == "measuring objects"
    job.close()


@pytest.mark.usefixtures("nano")
def test_a_model_looks_at_the_objects_too(nano_base):
    image, labels, classes = scene()
    predictor = Predictor(nano_base, "cpu")
    predictor.set_image(image)
    seen = name_objects(labels, first_of_each(classes), [image], predictor)
    unseen = name_objects(labels, first_of_each(classes), [image])
    assert seen.names == {n: classes[n] for n in seen.names}
    assert seen.certainties != unseen.certainties

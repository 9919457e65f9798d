"""Predictors in several threads, and many images one after the other."""

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from napari_simmat.engine.embeddings import EmbeddingCache
from napari_simmat.engine.predictor import OTHER_IMAGE, Predictor

IMAGES = np.random.default_rng(0).integers(0, 255, (4, 64, 80)).astype(np.uint8)
CLICKS = [(20, 30), (40, 50), (10, 70), (60, 5)]


pytestmark = pytest.mark.usefixtures("nano")


@pytest.fixture
def model(nano_base):
    return nano_base


@pytest.fixture
def short_turns():
    """Threads take turns after a twentieth of a millisecond, so that they meet everywhere."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


def logits(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    predictor.set_image(image)
    return np.stack([predictor.predict(points=[click]).logits for click in CLICKS])


def test_predictor_shared_by_threads_gives_the_same_masks(model, short_turns):
    predictor = Predictor(model, "cpu")
    alone = logits(predictor, IMAGES[0])

    def ask(turn):
        predictor.set_image(IMAGES[0])
        return predictor.predict(points=[CLICKS[turn % 4]]).logits

    for _ in range(2):
        predictor.cache = EmbeddingCache()  # both threads encode
        with ThreadPoolExecutor(4) as threads:
            for turn, found in enumerate(threads.map(ask, range(16))):
                assert np.array_equal(found, alone[turn % 4])


@pytest.mark.slow
def test_predictors_in_threads_share_model_and_cache(model, short_turns):
    alone = [logits(Predictor(model, "cpu"), image) for image in IMAGES]
    cache = EmbeddingCache()
    predictors = [Predictor(model, "cpu", cache=cache) for _ in IMAGES]
    with ThreadPoolExecutor(4) as threads:
        for found, expected in zip(threads.map(logits, predictors, IMAGES), alone, strict=True):
            assert np.array_equal(found, expected)


@pytest.mark.slow
def test_predictor_of_many_images_keeps_its_memory(model):
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("this system does not say how much memory is in use")
    predictor = Predictor(model, "cpu", cache=EmbeddingCache(max_bytes=2**21))
    resident = []
    for turn in range(200):
        predictor.set_image(np.roll(IMAGES[turn % 4], turn))
        predictor.predict(points=[CLICKS[0]]).mask.any()
        if turn % 10 == 0:
            gc.collect()
        resident.append(int(status.read_text().split()[1]) * 4096)
    early, late = max(resident[30:60]), max(resident[-30:])
    assert late < early + 8e6, [round(each / 1e6) for each in resident[::20]]


FORKS = """
import os, sys
import numpy as np
from napari_simmat import Predictor, load_model

image = np.random.default_rng(0).integers(0, 255, (64, 80)).astype(np.uint8)
predictor = Predictor(load_model("tiny"), "cpu")
predictor.set_image(image)
expected = predictor.predict(points=[(20, 30)]).mask
child = os.fork()
if child == 0:
    other = Predictor(predictor.model, "cpu")
    other.set_image(image)
    os._exit(0 if np.array_equal(other.predict(points=[(20, 30)]).mask, expected) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_predictor_in_a_forked_process_predicts():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        timeout=120,
    )
    assert done.returncode == 0


@pytest.mark.slow
def test_predictor_shared_for_images_refuses_others_masks(model, short_turns):
    """Of 40 masks 17 were of another thread's image."""
    alone = [logits(Predictor(model, "cpu"), image)[0] for image in IMAGES]
    predictor = Predictor(model, "cpu")
    refused = []

    def ask(turn):
        predictor.set_image(IMAGES[turn % 4])
        try:
            found = predictor.predict(points=[CLICKS[0]]).logits
        except RuntimeError as error:
            refused.append(str(error))
            return True
        return np.array_equal(found, alone[turn % 4])

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(40)))
    assert set(refused) <= {OTHER_IMAGE}


def test_predictor_of_another_threads_plane_refuses_until_set(model):
    predictor = Predictor(model, "cpu")
    predictor.set_image(IMAGES, plane=0)
    first = predictor.predict(points=[CLICKS[0]]).logits
    with ThreadPoolExecutor(1) as other:
        assert np.array_equal(
            other.submit(predictor.predict, points=[CLICKS[0]]).result().logits, first
        ), "a thread that set none predicts on what there is"
        other.submit(predictor.set_plane, 1).result()
        with pytest.raises(RuntimeError, match="One image at a time"):
            predictor.predict(points=[CLICKS[0]])
        predictor.set_plane(0)
        assert np.array_equal(predictor.predict(points=[CLICKS[0]]).logits, first)

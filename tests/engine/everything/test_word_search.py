"""Objects that words mean, as *Everything* gives them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_simmat.engine.everything.candidates import masks_to_instances
from napari_simmat.engine.everything.generator import segment_everything
from napari_simmat.engine.everything.word_search import boxes_of_objects, find_named_job
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.models.network import FoundMasks
from napari_simmat.progress import finish
from tests.sam3_models import CELLS, SIDE

pytest.importorskip("transformers")
SCENE = (2 * SIDE, SIDE)
LEAF = AutomaticSettings(words="leaf")


@pytest.fixture
def predictor(sam3_model):
    predictor = Predictor(sam3_model, "cpu", "exact")
    image = np.random.default_rng(0).integers(0, 256, (*SCENE, 3), dtype=np.uint8)
    predictor.set_image(image, channel_axis=-1)
    return predictor


@pytest.fixture
def asked(predictor, monkeypatch):
    """The network finds two squares, of scores 0.8 and 0.4; what it was asked."""
    asked = []

    def find(encoded, concept, minimum):
        asked.append((concept, minimum, encoded.maps["tokens"].shape))
        logits = torch.full((2, CELLS, CELLS), -9.0)
        logits[0, 4:12, 4:12] = logits[1, 20:28, 20:28] = 9.0
        scores = torch.tensor([0.8, 0.4])
        return FoundMasks(logits[scores >= minimum], scores[scores >= minimum])

    monkeypatch.setattr(predictor.model.network, "find", find)
    return asked


def test_objects_of_the_network_are_objects_of_the_plane(predictor, asked):
    """A cell is 7 x 3.5 pixels of the plane: cells 4..11 are rows 28..83, columns 14..41."""
    found = segment_everything(predictor, LEAF)
    assert len(found) == 1
    assert found.scores.tolist() == [pytest.approx(0.8)]
    rows, columns = np.nonzero(found.labels)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (28, 83, 14, 41)
    ((concept, minimum, tokens),) = asked
    assert concept.pieces.tolist() == [298, 54, 299]
    assert (minimum, len(concept.boxes), tokens) == (0.5, 0, (1, 32, 8, 8))


def test_lower_thresholds_need_no_new_search(predictor, asked):
    candidates = finish(find_named_job(predictor, LEAF))
    assert len(candidates) == 2
    assert len(masks_to_instances(candidates, LEAF)) == 1
    assert len(masks_to_instances(candidates, replace(LEAF, quality=0.35))) == 2
    assert asked[0][1] == pytest.approx(0.3)


def test_examples_are_boxes_of_the_networks_input(predictor, asked):
    labels = np.zeros(SCENE, int)
    labels[20:60, 30:50] = 7
    labels[100:112, 0:4] = 2
    boxes = boxes_of_objects(labels)
    assert boxes == [(100, 0, 112, 4), (20, 30, 60, 50)]
    segment_everything(predictor, AutomaticSettings(words="visual"), examples=boxes[1:])
    concept, *_ = asked[0]
    # Half as many rows, and pixel centers on pixel centers.
    assert concept.boxes.tolist() == [[29.5, 9.5, 49.5, 29.5]]
    assert concept.alike.tolist() == [1]


def test_search_of_the_network_itself_gives_objects(predictor):
    """Random numbers find something; the plane that was current is so afterwards."""
    low = replace(LEAF, quality=0.3)
    before = predictor.predict(points=[(50, 50)]).score
    found = predictor.find_named("leaf")
    assert len(found) == 200
    assert found[0].score >= found[-1].score > 0
    assert found[0].mask.shape == SCENE
    candidates = finish(find_named_job(predictor, low))
    assert len(candidates) == sum(each.score >= 0.3 and each.mask.any() for each in found)
    assert predictor.predict(points=[(50, 50)]).score == before


def test_large_planes_are_searched_tile_by_tile(predictor, asked):
    tiled = replace(LEAF, tile=128)
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    predictor.set_image(image, channel_axis=-1)
    found = segment_everything(predictor, tiled)
    assert len(asked) > 3
    assert len(found) >= len(asked)  # one in each tile, which overlap


def test_visual_without_an_example_is_refused(predictor):
    with pytest.raises(ValueError, match="there are none on this plane"):
        segment_everything(predictor, AutomaticSettings(words="visual"))


def test_example_beside_the_plane_is_refused(predictor):
    with pytest.raises(ValueError, match="outside the image"):
        segment_everything(predictor, LEAF, examples=[(900, 0, 910, 9)])


def test_model_that_reads_no_words_says_so(tiny_predictor):
    for tile in (0, 128):
        with pytest.raises(ValueError, match=r"tiny-\d+ reads no words.*SAM 3"):
            segment_everything(tiny_predictor, replace(LEAF, tile=tile))


@pytest.mark.parametrize("words", ["a\nb", "x" * 201])
def test_words_of_several_lines_are_refused(words):
    with pytest.raises(ValueError, match="one line of up to 200 letters"):
        AutomaticSettings(words=words)


@pytest.fixture
def tiny_predictor():
    from napari_simmat.checkpoints.loading import load_model

    predictor = Predictor(load_model("tiny"), "cpu")
    predictor.set_image(np.random.default_rng(0).random((300, 300)))
    return predictor

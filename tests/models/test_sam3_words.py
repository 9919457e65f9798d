"""What SAM 3 finds by words and examples, against `transformers.Sam3Model`."""

import pytest
import torch

from napari_simmat.models.network import Concept
from napari_simmat.models.sam3_words import relative_boxes
from napari_simmat.progress import finish
from tests.sam3_models import CELLS, SIDE, SMALL

pytest.importorskip("transformers")

START, END = SMALL.vocabulary - 2, SMALL.vocabulary - 1
PIECES = torch.tensor([START, 7, 42, END])
NO_BOXES = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
BOXES = torch.tensor([[14.0, 28.0, 42.0, 70.0], [0.0, 0.0, 112.0, 56.0]]), torch.tensor([1, 0])


@pytest.fixture(scope="module")
def image():
    torch.manual_seed(3)
    return torch.randn(1, 3, SIDE, SIDE)


@pytest.mark.parametrize("boxes", [NO_BOXES, BOXES], ids=["words", "words and examples"])
@torch.no_grad()
def test_objects_equal_those_of_the_library(sam3_trio, image, boxes):
    """The library pads the words to 32 pieces and masks them; we do not.

    Meta's code always reads a token of the image, the library with a box, if only a padding.
    """
    padded = torch.nn.functional.pad(PIECES, (0, 32 - len(PIECES)), value=END)[None]
    given = {
        "input_boxes": torch.zeros(1, 1, 4),
        "input_boxes_labels": torch.full((1, 1), -10),
    }
    if len(boxes[0]):
        # Center x, y, width and height as shares of 112 pixels.
        shares = torch.tensor([[[0.25, 0.4375, 0.25, 0.375], [0.5, 0.25, 1.0, 0.5]]])
        given = {"input_boxes": shares, "input_boxes_labels": boxes[1][None]}
    expected = sam3_trio.detector(
        pixel_values=image,
        input_ids=padded,
        attention_mask=(torch.arange(32) < len(PIECES)).long()[None],
        **given,
    )
    scores = expected.pred_logits[0].sigmoid() * expected.presence_logits[0].sigmoid()
    encoded = finish(sam3_trio.ours.encode_job(image))
    found = sam3_trio.ours.find(encoded, Concept(PIECES, *boxes), minimum=0.0)
    assert found.logits.shape == (200, CELLS, CELLS)
    order = scores.argsort(descending=True)
    torch.testing.assert_close(found.scores, scores[order], rtol=1e-3, atol=1e-4)
    # Scores that are nearly equal may change places.
    masks = expected.pred_masks[0][order]
    assert (found.logits - masks).flatten(1).norm(dim=1).median() < 1e-2 * masks[0].norm()
    ranked = scores[order]
    count = int((ranked[:-1] - ranked[1:]).argmax()) + 1  # no rounding crosses the widest gap
    between = float(ranked[count - 1] + ranked[count]) / 2
    fewer = sam3_trio.ours.find(encoded, Concept(PIECES, *boxes), minimum=between)
    assert len(fewer.scores) == count


@torch.no_grad()
def test_words_and_examples_both_count(sam3_trio, image):
    ours = sam3_trio.ours
    encoded = finish(ours.encode_job(image))

    def scores(pieces, boxes=NO_BOXES):
        return ours.find(encoded, Concept(pieces, *boxes), minimum=0.0).scores

    plain = scores(PIECES)
    assert not torch.allclose(plain, scores(torch.tensor([START, 8, END])))
    assert not torch.allclose(plain, scores(PIECES, BOXES))
    assert not torch.allclose(scores(PIECES, (BOXES[0], 1 - BOXES[1])), scores(PIECES, BOXES))


def test_relative_boxes_have_centers_and_sides():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert relative_boxes(boxes, (100, 200)).tolist() == [pytest.approx([0.1, 0.4, 0.1, 0.4])]

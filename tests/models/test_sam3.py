"""SAM 3's masks and memory against the models of `transformers`."""

import pytest
import torch

from napari_simmat.models.sam2_memory import Memories, ObjectMemory
from napari_simmat.progress import finish
from tests.sam2_models import library_masks
from tests.sam3_models import CELLS, SIDE

pytest.importorskip("transformers")

POINTS, LABELS = torch.tensor([[33.0, 44.0], [55.0, 11.0]]), torch.tensor([1, 0])
BOX = torch.tensor([10.0, 15.0, 44.0, 60.0])
MASK = torch.linspace(-3, 3, CELLS**2).view(1, 1, CELLS, CELLS)
PROMPTS = {
    "points": {"points": POINTS, "labels": LABELS},
    "box": {"box": BOX},
    "box and point": {"box": BOX, "points": POINTS[:1], "labels": LABELS[:1]},
    "point and mask": {"points": POINTS[:1], "labels": LABELS[:1], "mask": MASK},
}


@pytest.fixture(scope="module")
def image():
    torch.manual_seed(3)
    return torch.randn(2, 3, SIDE, SIDE)


@pytest.fixture(scope="module")
def encoded(sam3_trio, image):
    with torch.no_grad():
        return sam3_trio.ours.encode(image[:1])


@torch.no_grad()
def test_embedding_and_maps_equal_those_of_the_library(sam3_trio, image):
    encoded = sam3_trio.ours.encode(image)
    *finer, coarse = sam3_trio.tracker.get_image_embeddings(image[1:])
    torch.testing.assert_close(encoded.embedding[1:], coarse, rtol=1e-4, atol=1e-4)
    for name, expected in zip(("s0", "s1"), finer, strict=True):
        torch.testing.assert_close(encoded.maps[name][1:], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PROMPTS)
@torch.no_grad()
def test_masks_equal_those_of_the_library(sam3_trio, encoded, name):
    expected, iou = library_masks(sam3_trio.tracker, encoded, PROMPTS[name])
    decoded = sam3_trio.ours.decode(encoded, PROMPTS[name])
    assert decoded.logits.shape == (4, CELLS, CELLS)
    assert (decoded.logits - expected).abs().max() < 1e-2 * expected.std()
    torch.testing.assert_close(decoded.predicted_iou, iou, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_mask_alone_is_a_prompt(sam3_trio, encoded):
    logits = sam3_trio.ours.decode(encoded, {"mask": MASK}).logits
    assert logits.shape == (4, CELLS, CELLS)
    assert not torch.allclose(logits, sam3_trio.ours.decode(encoded, PROMPTS["points"]).logits)


def test_with_and_without_gradients_it_is_the_same(sam3_trio, image):
    ours = sam3_trio.ours
    points, labels = torch.stack([POINTS, POINTS + 9]), LABELS.expand(2, -1)
    with torch.no_grad():
        encoded = ours.encode(image)
        prompt = {"points": points[1], "labels": LABELS}
        alone = ours.decode(encoded.image(1), prompt)
    logits, quality = ours.decode_batch(encoded, points, labels)
    torch.testing.assert_close(logits[1, 1:], alone.logits[1:], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(quality[1, 1:], alone.predicted_iou[1:], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_training_keeps_no_tokens_that_only_words_need(sam3_trio, image):
    ours = sam3_trio.ours
    assert set(ours.features(image).maps) == {"s0", "s1"}
    assert set(finish(ours.encode_job(image)).maps) == {"s0", "s1", "tokens"}


LENGTH, START = 5, 1


@torch.inference_mode()
def test_film_equals_that_of_the_library(sam3_trio):
    """The memory reads masks with 16 pixels a cell of the embedding, on inputs of 14."""
    from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import (
        Sam3TrackerVideoInferenceSession,
    )

    torch.manual_seed(5)
    film = torch.randn(1, 3, SIDE, SIDE) + 0.3 * torch.randn(LENGTH, 3, SIDE, SIDE)
    library, ours = sam3_trio.tracker, sam3_trio.ours
    session = Sam3TrackerVideoInferenceSession(
        video=film, video_height=SIDE, video_width=SIDE, dtype=torch.float32
    )
    click = {
        "point_coords": torch.tensor([[[[33.0, 44.0]]]]),
        "point_labels": torch.tensor([[[1]]], dtype=torch.int32),
    }
    session.add_point_inputs(session.obj_id_to_idx(1), START, click)
    session.obj_with_new_inputs = [1]
    library(session, frame_idx=START)

    def kept(index, kind="non_cond_frame_outputs"):
        found = session.output_dict_per_obj[0][kind][index]
        return ObjectMemory(found["maskmem_features"], found["object_pointer"][0])

    given = kept(START, "cond_frame_outputs")
    found: dict[int, ObjectMemory] = {}
    for step, index in enumerate(range(START + 1, LENGTH), start=1):
        expected = library(session, frame_idx=index).pred_masks[0, 0]
        before = {step - other: each for other, each in found.items()}
        encoded = ours.encode(film[index : index + 1])
        masks, found[step] = ours.recall(encoded, Memories({step: given}, before, LENGTH))
        torch.testing.assert_close(masks.logits[0], expected, rtol=2e-2, atol=2e-2)
        theirs = kept(index)
        difference = (found[step].features - theirs.features).float()
        assert difference.norm() < 0.02 * theirs.features.float().norm()


@torch.inference_mode()
def test_given_mask_is_remembered_and_found_again(sam3_trio, encoded):
    ours = sam3_trio.ours
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 28:70, 14:56] = 1
    one, nothing = ours.remember(encoded, mask), ours.remember(encoded, torch.zeros_like(mask))
    assert one.features.shape == (64, 1, 64)
    assert torch.equal(nothing.pointer, ours.memory.no_pointer)
    masks, _ = ours.recall(encoded, Memories({1: one}, {}, 2))
    assert masks.logits.shape == (4, CELLS, CELLS)

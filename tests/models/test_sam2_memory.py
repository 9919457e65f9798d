"""SAM 2's memory against a film in `transformers`, image by image."""

import pytest
import torch

from napari_simmat.models.sam2_memory import ABSENT_LOGIT, Memories, ObjectMemory
from tests.nightly import nightly_but
from tests.sam2_models import SIDE

pytest.importorskip("transformers")
LENGTH, START = 6, 2


@pytest.fixture(scope="module")
def film():
    torch.manual_seed(5)
    return torch.randn(1, 3, SIDE, SIDE) + 0.3 * torch.randn(LENGTH, 3, SIDE, SIDE)


def session_with_a_click(library, film):
    """A session of the library in which an object is clicked on image `START`."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    session = Sam2VideoInferenceSession(
        video=film, video_height=SIDE, video_width=SIDE, dtype=torch.float32
    )
    number = session.obj_id_to_idx(1)
    click = {
        "point_coords": torch.tensor([[[[75.0, 100.0]]]]),
        "point_labels": torch.tensor([[[1]]], dtype=torch.int32),
    }
    session.add_point_inputs(number, START, click)
    session.obj_with_new_inputs = [1]
    library(session, frame_idx=START)
    return session


def kept(session, index, kind="non_cond_frame_outputs"):
    found = session.output_dict_per_obj[0][kind][index]
    return ObjectMemory(found["maskmem_features"], found["object_pointer"][0])


@pytest.mark.parametrize("reverse", nightly_but((False, True), True))
@torch.inference_mode()
def test_film_equals_that_of_the_library(sam2_pair, film, reverse):
    library, ours = sam2_pair
    session = session_with_a_click(library, film)
    clicked = kept(session, START, "cond_frame_outputs")
    found: dict[int, ObjectMemory] = {}
    indices = range(START - 1, -1, -1) if reverse else range(START + 1, LENGTH)
    for step, index in enumerate(indices, start=1):
        expected = library(session, frame_idx=index, reverse=reverse).pred_masks[0, 0]
        before = {step - other: each for other, each in found.items()}
        encoded = ours.encode(film[index : index + 1])
        masks, found[step] = ours.recall(encoded, Memories({step: clicked}, before, LENGTH))
        torch.testing.assert_close(masks.logits[0], expected, rtol=5e-3, atol=5e-3)
        theirs = kept(session, index)
        torch.testing.assert_close(found[step].pointer, theirs.pointer, rtol=1e-3, atol=1e-3)
        difference = (found[step].features - theirs.features).float()
        assert difference.norm() < 0.01 * theirs.features.float().norm()
    assert len({float(each.pointer.sum()) for each in found.values()}) == len(found)


@torch.inference_mode()
def test_given_mask_is_remembered_as_in_the_library(sam2_pair, film, monkeypatch):
    """Its pointer is that of the single mask, as in Meta's code; the library takes one of three."""
    library, ours = sam2_pair
    forward = library._single_frame_forward
    monkeypatch.setattr(
        library, "_single_frame_forward", lambda **given: forward(multimask_output=False, **given)
    )
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 64:128, 80:160] = 1
    encoded = ours.encode(film[:1])
    image = ours._without_memory(encoded)
    expected = library._use_mask_as_output(image, [encoded.maps["s0"], encoded.maps["s1"]], mask)
    found = ours.remember(encoded, mask)
    torch.testing.assert_close(found.pointer, expected.object_pointer[0], rtol=1e-3, atol=1e-3)
    features, _ = library._encode_new_memory(
        image.flatten(2).permute(2, 0, 1), mask * 20 - 10, torch.ones(1, 1), True
    )
    difference = (found.features - features).float()
    assert difference.norm() < 0.05 * features.float().norm()  # the library's edge is sharper


@torch.inference_mode()
def test_absent_object_has_no_mask_and_is_remembered_so(sam2_pair, film):
    ours = sam2_pair.ours
    encoded = ours.encode(film[:1])
    nothing = ours.remember(encoded, torch.zeros(1, 1, SIDE, SIDE))
    assert torch.equal(nothing.pointer, ours.memory.no_pointer)
    bias = ours.mask_decoder.pred_obj_score_head.layers[-1].bias
    before = bias.clone()
    bias.fill_(-50)
    try:
        masks, memory = ours.recall(encoded, Memories({1: nothing}, {}, LENGTH))
    finally:
        bias.copy_(before)
    assert (masks.logits == ABSENT_LOGIT).all()
    assert torch.equal(memory.pointer, ours.memory.no_pointer)


@torch.inference_mode()
def test_only_the_last_images_are_recalled(sam2_pair, film):
    """Features of six, pointers of fifteen; memories beyond change nothing."""
    ours = sam2_pair.ours
    encoded = ours.encode(film[:1])
    masks = torch.zeros(2, 1, 1, SIDE, SIDE)
    masks[0, ..., 64:128, 80:160] = masks[1, ..., 10:50, 10:50] = 1
    one, other = (ours.remember(encoded, mask) for mask in masks)

    def seen(**found):
        memories = Memories({20: one}, {int(k[1:]): each for k, each in found.items()}, 40)
        return ours.memory.conditioned(ours._without_memory(encoded), memories)

    plain = seen()
    assert not torch.equal(seen(_6=other), plain)
    assert not torch.equal(seen(_15=other), plain)
    assert torch.equal(seen(_16=other), plain)
    of_pointer = ObjectMemory(one.features, other.pointer)
    assert torch.equal(seen(_7=ObjectMemory(other.features, other.pointer)), seen(_7=of_pointer))


@torch.inference_mode()
def test_images_ahead_lend_their_features_but_no_pointer(sam2_pair, film):
    ours = sam2_pair.ours
    encoded = ours.encode(film[:1])
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 64:128, 80:160] = 1
    known = ours.remember(encoded, mask)
    other = ObjectMemory(known.features, known.pointer + 1)
    image = ours._without_memory(encoded)

    def seen(back, memory):
        return ours.memory.conditioned(image, Memories({1: known, back: memory}, {}, LENGTH))

    assert torch.equal(seen(-2, known), seen(-2, other))
    assert not torch.equal(seen(2, known), seen(2, other))


def test_memory_of_an_object_takes_half_a_megabyte(sam2_pair, film):
    with torch.inference_mode():
        encoded = sam2_pair.ours.encode(film[:1])
        known = sam2_pair.ours.remember(encoded, torch.ones(1, 1, SIDE, SIDE))
    cells = (SIDE // 16) ** 2
    assert known.nbytes == cells * 64 * 2 + 256 * 4  # at 1024 pixels: 4096 cells, 525 kB

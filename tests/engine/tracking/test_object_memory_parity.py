"""Propagation by memory against a film of `transformers`: annotated planes, directions, sizes.

The library is shown the program's own pixels, and changed where it differs from Meta's code in
what it remembers of a mask (docs/reports/sam2.md).
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_simmat import Predictor, Prompt
from napari_simmat.engine.settings import PropagationSettings
from napari_simmat.engine.tracking.propagation import Propagator
from napari_simmat.models.sam2_memory import full_mask, on_mask_grid
from tests.engine.tracking.test_propagation import BRIGHT, ball
from tests.nightly import nightly_but
from tests.sam2_models import SIDE, sam2_model

pytest.importorskip("transformers")
LENGTH = 10
SIZES = [(128, 128), (SIDE, SIDE), (120, 213), (75, 175), (341, 256)]
"""Of planes; at Meta's 1024 pixels instead of `SIDE` 512 x 512 to 1365 x 1024."""
NEVER_ENDS = PropagationSettings(
    min_score=0.0, min_overlap=0.0, max_change=1e6, min_contrast=0.0, min_evidence=0.0, reach=1e3
)


def stack_of(size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(0)
    center = (5, size[0] / 2, size[1] / 2)
    shown = 60 * ball((LENGTH, *size), center) / BRIGHT + rng.normal(80, 4, (LENGTH, *size))
    return shown.astype(np.uint8)


def outline_of(size: tuple[int, int], plane: int) -> np.ndarray:
    """A mask whose rim falls between the pixels of the network's input."""
    mask = np.zeros(size, bool)
    mask[size[0] // 5 : size[0] // 2 + plane, size[1] // 4 : 2 * size[1] // 3 + 1] = True
    return mask


def recalled_logits(predictor: Predictor, planes: list[int]) -> dict[int, np.ndarray]:
    """The logits of the object on each plane that is found from masks on some `planes`."""
    found: dict[int, np.ndarray] = {}
    recall = predictor.recall

    def noting(memories: Any) -> Any:
        result, memory = recall(memories)
        found[predictor.plane[0]] = result.logits
        return result, memory

    predictor.recall = noting  # type: ignore[method-assign]
    size = predictor.shape[-2:]
    prompts = [Prompt(mask=outline_of(size, at), object=1, plane=(at,)) for at in planes]
    [track] = Propagator(predictor, NEVER_ENDS).propagate(prompts)
    assert set(found) | set(planes) == set(range(LENGTH))
    assert len(track.sections) == LENGTH
    return found


def resized(mask: np.ndarray) -> torch.Tensor:
    """A mask as the library's processor shows it to the network."""
    given = torch.from_numpy(mask)[None, None].float()
    size = (SIDE, SIDE)
    if mask.shape != size:
        given = functional.interpolate(given, size=size, mode="bilinear", antialias=True)
    return (given >= 0.5).float()


def film_logits(library: Any, frames: torch.Tensor, masks: dict[int, np.ndarray]) -> dict[int, Any]:
    """The same of the library: forwards from the first mask, and backwards from it."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    session = Sam2VideoInferenceSession(
        video=frames, video_height=SIDE, video_width=SIDE, dtype=torch.float32
    )
    number = session.obj_id_to_idx(1)
    for index, mask in masks.items():
        session.add_mask_inputs(number, index, resized(mask))
        session.obj_with_new_inputs = [1]
        library(session, frame_idx=index)
    first = min(masks)
    found = {}
    for reverse in (False, True):
        for shown in library.propagate_in_video_iterator(session, first, reverse=reverse):
            found[shown.frame_idx] = shown.pred_masks[0, 0].numpy()
    return found


@pytest.fixture
def as_meta(sam2_pair, monkeypatch):
    """The library, with a given mask remembered as Meta's code does."""
    library = sam2_pair.library
    forward, encode = library._single_frame_forward, library._encode_new_memory

    def decoded(**given: Any) -> Any:
        several = {} if given.get("input_masks") is None else {"multimask_output": False}
        return forward(**given, **several)

    def remembered(pred_masks_high_res: Any, is_mask_from_pts: bool, **given: Any) -> Any:
        masks = pred_masks_high_res
        if is_mask_from_pts:
            masks = full_mask(on_mask_grid((masks > 0).float()), SIDE)
        return encode(pred_masks_high_res=masks, is_mask_from_pts=is_mask_from_pts, **given)

    monkeypatch.setattr(library, "_single_frame_forward", decoded)
    monkeypatch.setattr(library, "_encode_new_memory", remembered)
    return library


@pytest.mark.parametrize(("height", "width"), nightly_but(SIZES, *SIZES[3:]))
@torch.inference_mode()
def test_planes_equal_those_of_the_library(sam2_pair, as_meta, monkeypatch, height, width):
    """Three annotated planes, so that one lies beyond the ends of an interval."""
    planes, size = [2, 4, 7], (height, width)
    predictor = Predictor(sam2_model(sam2_pair), "cpu", "exact")
    shown: dict[int, torch.Tensor] = {}
    encode = sam2_pair.ours.encode_job

    def noting(image: torch.Tensor, *others: Any) -> Any:
        shown[len(shown)] = image
        return encode(image, *others)

    monkeypatch.setattr(sam2_pair.ours, "encode_job", noting)
    predictor.set_image(stack_of(size))
    for at in range(1, LENGTH):
        predictor.set_plane(at)
    frames = torch.cat([*shown.values()])
    assert len(frames) == LENGTH
    found = recalled_logits(predictor, planes)
    expected = film_logits(as_meta, frames, {at: outline_of(size, at) for at in planes})
    for plane, logits in found.items():
        assert np.abs(logits - expected[plane]).max() < 1e-3 * np.abs(expected[plane]).max(), plane
        differ = (logits > 0) != (expected[plane] > 0)
        assert differ.sum() <= 8, plane  # of 4096; random weights leave logits near 0


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_remembered_masks_have_no_rim(sam2_pair, monkeypatch, height, width):
    predictor = Predictor(sam2_model(sam2_pair), "cpu", "exact")
    predictor.set_image(stack_of((height, width))[:1])
    seen = []
    remember = sam2_pair.ours.remember

    def noting(encoded: Any, mask: torch.Tensor) -> Any:
        seen.append(mask)
        return remember(encoded, mask)

    monkeypatch.setattr(sam2_pair.ours, "remember", noting)
    outline = outline_of((height, width), 0)
    predictor.remember(outline)
    assert torch.equal(seen[0], resized(outline))

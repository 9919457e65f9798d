"""SAM 3 with a shrunk encoder for small images, and models of `transformers` with its tensors."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from napari_simmat.checkpoints.sam3_names import renamed_sam3
from napari_simmat.models import sam3_encoder
from napari_simmat.models.sam3 import Sam3Network, build_sam3
from napari_simmat.models.sam3_encoder import Sam3Shape, build_detector, build_tracker
from tests.sam2_models import with_random_numbers

SIDE = 112
"""8 x 8 tokens in windows of 4 x 4, and 32 x 32 cells of masks."""
CELLS = 32
SMALL = Sam3Shape(
    width=32,
    hidden=48,
    depth=3,
    heads=2,
    window=4,
    global_blocks=(1,),
    text_width=16,
    text_hidden=24,
    text_depth=2,
    text_heads=2,
    vocabulary=300,
    detector_depth=1,
)


def shrink_sam3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build ``sam3`` with a few narrow blocks, for images of `SIDE` pixels."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(sam3_encoder, "SHAPE", SMALL)
    monkeypatch.setattr(sam3_encoder, "SIDE", SIDE)


class Sam3Trio(NamedTuple):
    """The same tensors: in the library's tracker and detector, and in our network."""

    tracker: Any
    detector: Any
    ours: Sam3Network

    def hub_file(self) -> dict[str, Tensor]:
        """The tensors as the Hub's ``model.safetensors`` holds them."""
        held = {f"detector_model.{name}": each for name, each in self.detector.state_dict().items()}
        for name, each in self.tracker.state_dict().items():
            if name.startswith("vision_encoder.neck."):
                held[name.replace("vision_encoder.neck", "tracker_neck")] = each
            elif not name.startswith("vision_encoder."):
                held[f"tracker_model.{name}"] = each
        return {name: each.clone() for name, each in held.items()}


@pytest.fixture(scope="session")
def sam3_trio() -> Sam3Trio:
    """Shrunk networks with random numbers, whose object is present."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink_sam3(monkeypatch)
        tracker: Any = with_random_numbers(build_tracker()).eval()
        detector: Any = with_random_numbers(build_detector()).eval()
        detector.vision_encoder.backbone = tracker.vision_encoder.backbone
        with torch.no_grad():
            tracker.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(5)
        trio = Sam3Trio(tracker, detector, build_sam3(initialize=False))
        trio.ours.load_state_dict(renamed_sam3(trio.hub_file()), strict=True, assign=True)
        trio.ours.requires_grad_(False)
        return trio

"""SAM 3 with a shrunk encoder for small images, and models of `transformers` with its tensors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from napari_simmat.checkpoints.catalog import PREPROCESSING
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.checkpoints.sam3_names import renamed_sam3
from napari_simmat.models import sam3_encoder
from napari_simmat.models.sam3 import Sam3Network, build_sam3
from napari_simmat.models.sam3_encoder import Sam3Shape, build_detector, build_tracker
from napari_simmat.models.spec import Model
from napari_simmat.models.vocabulary import END, START
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


@pytest.fixture
def small_sam3(monkeypatch: pytest.MonkeyPatch) -> None:
    """``sam3`` is shrunk, also where files are read."""
    shrink_sam3(monkeypatch)
    row = PREPROCESSING["sam3"]
    size = replace(row.input_size, size=SIDE, minimum=SIDE)
    monkeypatch.setitem(PREPROCESSING, "sam3", row._replace(input_size=size))


@pytest.fixture
def sam3_hub_file(sam3_trio: Sam3Trio, tmp_path: Path, small_sam3: None) -> Path:
    """A file as on the Hub, without a vocabulary."""
    path = tmp_path / "model.safetensors"
    save_file(sam3_trio.hub_file(), path, {"format": "pt"})
    return path


@pytest.fixture
def sam3_model(sam3_hub_file: Path) -> Model:
    """The shrunk network with a vocabulary, loaded from files."""
    write_vocabulary(sam3_hub_file.with_name("tokenizer.json"))
    return load_model(sam3_hub_file)


def write_vocabulary(path: Path, **more: int) -> None:
    """A ``tokenizer.json`` of letters, which end words as those of CLIP do, and a few words."""
    letters = [f"{letter}{end}" for letter in ascii_lowercase for end in ("", "</w>")]
    pieces = {piece: number for number, piece in enumerate([*letters, "le", "lea", "leaf</w>"])}
    merges = ["l e", "le a", "lea f</w>"]
    pieces |= {START: SMALL.vocabulary - 2, END: SMALL.vocabulary - 1, **more}
    content = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {
            "type": "BPE",
            "end_of_word_suffix": "</w>",
            "vocab": pieces,
            "merges": merges,
        },
    }
    path.write_text(json.dumps(content))

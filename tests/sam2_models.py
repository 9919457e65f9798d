"""SAM 2 with a shrunk encoder on small images, and the model of `transformers` with its tensors."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from napari_simmat.checkpoints.sam2_names import renamed_sam2
from napari_simmat.models import hiera_encoder
from napari_simmat.models.hiera_encoder import HieraVariant, build_video_model
from napari_simmat.models.network import Encoded
from napari_simmat.models.sam2 import Sam2Network, build_sam2
from napari_simmat.models.spec import Base, Channel, InputSize, Model, ModelSpec, Normalization

SIDE = 256
SMALL = HieraVariant(8, 1, (1, 1, 2, 1), (8, 4, 14, 7), (3,), (7, 7))


def shrink_sam2(monkeypatch: pytest.MonkeyPatch, side: int = SIDE) -> None:
    """Build ``hiera_tiny`` with a few narrow blocks, for images of `side` pixels."""
    pytest.importorskip("transformers")
    monkeypatch.setitem(hiera_encoder.VARIANTS, "hiera_tiny", SMALL)
    monkeypatch.setattr(hiera_encoder, "SIDE", side)


def with_random_numbers(model: torch.nn.Module) -> torch.nn.Module:
    """Also where networks start with zeros and ones, which would hide mistakes."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, each in model.named_parameters():
            if each.ndim > 1 and "embed" not in name:
                each.mul_(1.5)
            elif "norm" in name or name.endswith(("bias", "scale")):
                each.add_(0.1 * torch.randn_like(each))
            if (
                not each.any()
                or "embed" in name
                or name.startswith(("no_", "occlusion", "memory_t"))
            ):
                each.normal_(0, 0.3)
    return model


class Sam2Pair(NamedTuple):
    """The same tensors twice: in the library's model and in ours."""

    library: Any
    ours: Sam2Network


@pytest.fixture(scope="module")
def sam2_pair() -> Sam2Pair:
    """A shrunk network with random numbers, whose object is present; for the whole module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink_sam2(monkeypatch)
        library: Any = with_random_numbers(build_video_model("hiera_tiny")).eval()
        with torch.no_grad():
            library.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(5)
        ours = build_sam2("hiera_tiny", initialize=False)
        ours.load_state_dict(renamed_sam2(library.state_dict()), strict=True, assign=True)
        ours.requires_grad_(False)
        return Sam2Pair(library, ours)


def sam2_model(pair: Sam2Pair) -> Model:
    """A model of the shrunk network, on images as large as its input."""
    spec = ModelSpec(
        name="sam2",
        modality="RGB",
        channels=tuple(Channel(name=each, mean=120.0, std=60.0) for each in ("r", "g", "b")),
        normalization=Normalization(keep_uint8=True),
        input_size=InputSize(method="stretch", size=SIDE, minimum=SIDE),
        base=Base(name="sam2", architecture="hiera_tiny", sha256="0" * 64),
        mask_choice="stock",
    )
    return Model(spec, pair.ours, "fingerprint")


def library_masks(
    library: Any, encoded: Encoded, prompt: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """All four masks and IoUs: as the library answers one, and three."""
    points, box = prompt.get("points"), prompt.get("box")
    sparse, dense = library.prompt_encoder(
        input_points=None if points is None else points[None, None],
        input_labels=None if points is None else prompt["labels"][None, None],
        input_boxes=None if box is None else box[None, None],
        input_masks=prompt.get("mask"),
    )
    found = []
    for several in (False, True):
        masks, quality, _, _ = library.mask_decoder(
            image_embeddings=encoded.embedding,
            image_positional_embeddings=library.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
            high_resolution_features=[encoded.maps["s0"], encoded.maps["s1"]],
        )
        found.append((masks[0, 0], quality[0, 0]))
    (one, its), (three, theirs) = found
    return torch.cat([one, three]), torch.cat([its, theirs])

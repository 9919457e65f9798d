"""micro-sam's decoder with random weights, and models that have it, for tests."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_simmat.checkpoints.catalog import PUBLISHED_WEIGHTS
from napari_simmat.io.files import hash_job
from napari_simmat.models import instance_decoder, mobile_encoder
from napari_simmat.models.instance_decoder import InstanceDecoder
from napari_simmat.models.sam import build_sam
from napari_simmat.progress import finish

NARROW_MOBILE = {"WIDTHS": (8, 16, 16, 32), "DEPTHS": (1, 1, 1, 1), "HEADS": (1, 2, 2, 2)}
State = dict[str, torch.Tensor]


def random_decoder(transposed: bool = False) -> InstanceDecoder:
    """A decoder in evaluation mode; equal each time, and no layer leaves its input as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = InstanceDecoder(transposed)
        for name, values in decoder.named_buffers():
            if name.endswith("running_mean"):
                values.normal_()
            elif name.endswith("running_var"):
                values.uniform_(0.5, 2)
    return decoder.eval()


def narrow_states(monkeypatch: pytest.MonkeyPatch) -> tuple[State, State]:
    """Tensors of MobileSAM and of a decoder of few channels, which alone are known from now on."""
    for name, value in NARROW_MOBILE.items():
        monkeypatch.setattr(mobile_encoder, name, value)
    monkeypatch.setattr(instance_decoder, "FEATURES", (32, 16, 8, 4))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sam = build_sam("vit_t").state_dict()
    decoder = random_decoder().state_dict()
    decoder["out_conv.bias"][0] += 5  # all of an image is foreground
    return sam, decoder


def put_published(monkeypatch: pytest.MonkeyPatch, bases: Path, name: str = "vit_t_lm") -> None:
    """Let both files of a published model lie among the user's, as if they were downloaded."""
    row = PUBLISHED_WEIGHTS[name]
    assert row.decoder is not None
    bases.mkdir(exist_ok=True)
    checksums = []
    for file, state in zip((row.file, row.decoder.file), narrow_states(monkeypatch), strict=True):
        torch.save(state, bases / file)
        checksums.append(f"xxh128:{finish(hash_job(bases / file, 'xxh128'))}")
    decoder = row.decoder._replace(checksum=checksums[1])
    monkeypatch.setitem(
        PUBLISHED_WEIGHTS, name, replace(row, checksum=checksums[0], decoder=decoder)
    )

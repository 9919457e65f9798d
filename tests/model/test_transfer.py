"""The transfer slot: any number of channels, base weights untouched, names kept."""

from __future__ import annotations

import pytest
import torch

from napari_simmat.model.foundation import build_network
from napari_simmat.model.transfer import TRANSFERS, transfer_layer


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 9, 48])
@torch.no_grad()
def test_mat_takes_any_number_of_channels(channels):
    network = build_network("tiny", channels=channels, transfer="simmat")
    encoded = network.encode(torch.randn(1, channels, 64, 64))
    assert encoded.embedding.shape == (1, 128, 8, 8)


def test_mat_has_the_papers_parameters_and_keeps_the_names_of_the_base():
    """Conv 3x3 C -> 64 and 64 -> 3: 576 C + 64 + 1731 numbers (METHOD: arXiv 2409.08083)."""
    base, tuned = build_network("tiny"), build_network("tiny", channels=4, transfer="simmat")
    names = set(tuned.state_dict())
    assert tuned.transfer_names() == names - set(base.state_dict())
    assert set(base.state_dict()) < names
    own = [tuned.state_dict()[name] for name in tuned.transfer_names()]
    assert sum(each.numel() for each in own) == 576 * 4 + 64 + 1731


@torch.no_grad()
def test_mat_is_two_convolutions_before_the_bases_projection():
    torch.manual_seed(0)
    network = build_network("tiny", channels=5, transfer="simmat")
    state = network.state_dict()
    slot = "image_encoder.patch_embed.proj."
    image = torch.randn(2, 5, 32, 32)
    x = torch.conv2d(image, state[slot + "mat.0.weight"], state[slot + "mat.0.bias"], padding=1)
    x = x.clamp(min=0)
    x = torch.conv2d(x, state[slot + "mat.2.weight"], state[slot + "mat.2.bias"], padding=1)
    assert x.shape == (2, 3, 32, 32)
    x = torch.conv2d(x, state[slot + "weight"], state[slot + "bias"], stride=2, padding=1)
    torch.testing.assert_close(network.projection(image), x)


def test_zeroshot_is_the_base_itself():
    network = build_network("tiny")
    projection = network.projection
    assert transfer_layer("zeroshot", projection, 3) is projection
    assert network.transfer_names() == set()


def test_errors_say_what_to_do():
    projection = build_network("tiny").projection
    with pytest.raises(ValueError, match=r"takes 3 channels, not 4; use the transfer .*'simmat'"):
        transfer_layer("zeroshot", projection, 4)
    with pytest.raises(ValueError, match="'magic' is unknown; choose from zeroshot, simmat"):
        transfer_layer("magic", projection, 3)
    with pytest.raises(ValueError, match="at least one channel, got 0"):
        transfer_layer("simmat", projection, 0)
    assert list(TRANSFERS) == ["zeroshot", "simmat"]

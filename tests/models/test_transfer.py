"""The transfer slot: any number of channels, base weights untouched, names kept."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_simmat.models.transfer import TRANSFERS, transfer_layer
from napari_simmat.models.tuning import build_network
from tests.nightly import nightly_but


@pytest.mark.parametrize("channels", nightly_but((1, 2, 3, 4, 6, 9, 48, 580), 1, 2, 3, 4, 6, 9, 48))
@pytest.mark.parametrize("transfer", [*TRANSFERS][1:])
@torch.no_grad()
def test_transfer_layer_takes_any_number_of_channels(transfer, channels):
    network = build_network("tiny", channels=channels, transfer=transfer)
    encoded = network.encode(torch.randn(1, channels, 64, 64))
    assert encoded.embedding.shape == (1, 128, 8, 8)


def test_mat_has_the_papers_parameters_and_the_bases_names():
    """Conv 3x3 C -> 64 and 64 -> 3: 576 C + 64 + 1731 numbers (METHOD: arXiv 2409.08083)."""
    base, tuned = build_network("tiny"), build_network("tiny", channels=4, transfer="simmat")
    names = set(tuned.state_dict())
    assert tuned.transfer_names() == names - set(base.state_dict())
    assert set(base.state_dict()) < names
    own = [tuned.state_dict()[name] for name in tuned.transfer_names()]
    assert sum(each.numel() for each in own) == 576 * 4 + 64 + 1731


@torch.no_grad()
def test_mat_is_two_convolutions_before_the_projection():
    torch.manual_seed(0)
    network = build_network("tiny", channels=5, transfer="simmat")
    state = network.state_dict()
    slot = "image_encoder.patch_embed.proj."
    image = torch.randn(2, 5, 70, 32)  # three strips, the last of a few rows
    x = torch.conv2d(image, state[slot + "mat.0.weight"], state[slot + "mat.0.bias"], padding=1)
    x = x.clamp(min=0)
    x = torch.conv2d(x, state[slot + "mat.2.weight"], state[slot + "mat.2.bias"], padding=1)
    assert x.shape == (2, 3, 70, 32)
    x = torch.conv2d(x, state[slot + "weight"], state[slot + "bias"], stride=2, padding=1)
    torch.testing.assert_close(network.projection(image), x)


@torch.no_grad()
def test_mat_that_passes_channels_on_is_the_foundation():
    """One hidden channel keeps what is positive of a color, another one what is negative."""
    torch.manual_seed(0)
    base, tuned = build_network("tiny"), build_network("tiny", channels=3, transfer="simmat")
    tuned.load_state_dict(base.state_dict(), strict=False)
    tuned.projection.pass_on((0, 1, 2), torch.ones(3), torch.zeros(3))
    image = torch.randn(1, 3, 64, 64)
    click = {"points": torch.tensor([[30.0, 20.0]]), "labels": torch.tensor([1])}
    ours, theirs = (
        tuned.decode(tuned.encode(image), click),
        base.decode(base.encode(image), click),
    )
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.predicted_iou, theirs.predicted_iou)


@torch.no_grad()
def test_baseline_a_is_a_new_projection_of_the_same_shape():
    base, tuned = build_network("tiny"), build_network("tiny", channels=5, transfer="baseline_a")
    assert set(tuned.state_dict()) == set(base.state_dict())
    slot = "image_encoder.patch_embed.proj."
    assert tuned.transfer_names() == {slot + "weight", slot + "bias"}
    assert tuned.projection.weight.shape == (32, 5, 3, 3)
    sam = build_network("vit_b", channels=4, transfer="baseline_a", initialize=False)
    assert sam.projection.weight.shape == (768, 4, 16, 16)
    assert sam.projection.stride == (16, 16)


@torch.no_grad()
def test_baseline_b_is_a_mix_before_the_bases_projection():
    torch.manual_seed(0)
    network = build_network("tiny", channels=5, transfer="baseline_b")
    state = network.state_dict()
    slot = "image_encoder.patch_embed.proj."
    assert network.transfer_names() == {
        slot + name for name in ("weight", "bias", "squeeze.weight", "squeeze.bias")
    }
    image = torch.randn(2, 5, 70, 32)  # three strips, the last of a few rows
    mix = torch.einsum("oc,bchw->bohw", state[slot + "squeeze.weight"][..., 0, 0], image)
    mix = mix + state[slot + "squeeze.bias"][:, None, None]
    x = torch.conv2d(mix, state[slot + "weight"], state[slot + "bias"], stride=2, padding=1)
    torch.testing.assert_close(network.projection(image), x)


@torch.no_grad()
def test_simcmf_starts_as_its_old_branch():
    """The linear mix of the new branch starts at zero; its projections as the base's."""
    torch.manual_seed(0)
    layer = build_network("tiny", channels=5, transfer="simcmf").projection
    image = torch.randn(2, 5, 64, 32)
    old = torch.conv2d(
        layer.squeeze(image * layer.gate(image).sigmoid()), layer.weight, layer.bias, 2, 1
    )
    torch.testing.assert_close(layer(image), old)
    for own in layer.own:
        torch.testing.assert_close(own.weight[:, 0], layer.weight.sum(1))
    layer.mix.weight[0, 3] = 1
    assert (layer(image) - old).abs().max() > 0.01


@pytest.mark.parametrize(("name", "count"), [("preconvk3n1d9", 1), ("preconvk5n4d8", 4)])
def test_preconv_has_as_many_convolutions_as_its_name_says(name, count):
    layer = build_network("tiny", channels=2, transfer=name).projection
    convs = [each for each in layer.squeeze if isinstance(each, torch.nn.Conv2d)]
    assert len(convs) == count
    assert len(layer.squeeze) - count == max(count - 2, 0)  # the first has no ReLU
    assert convs[0].kernel_size == (int(name[8]),) * 2


def test_zeroshot_is_the_base_itself():
    network = build_network("tiny")
    projection = network.projection
    assert transfer_layer("zeroshot", projection, 3) is projection
    assert network.transfer_names() == set()


def test_transfer_layer_refuses_what_it_cannot_do():
    projection = build_network("tiny").projection
    with pytest.raises(ValueError, match=r"takes 3 channels, not 4; use the transfer .*'simmat'"):
        transfer_layer("zeroshot", projection, 4)
    for name in ("magic", "preconvk0n1d3", "preattnk3n1d8", "simcmfk1n1d1", "preconvk3n3d1000"):
        with pytest.raises(ValueError, match=f"'{name}' is unknown; use one of zeroshot, simmat"):
            transfer_layer(name, projection, 3)
    with pytest.raises(ValueError, match="a patch that divides 32, not 16 and 12"):
        transfer_layer("preattnp12n1d16", projection, 3)
    with pytest.raises(ValueError, match="at least one channel, got 0"):
        transfer_layer("simmat", projection, 0)


@pytest.mark.parametrize("name", [n for n in TRANSFERS if n not in ("zeroshot", "baseline_a")])
def test_colors_are_what_the_pretrained_projection_gets(name):
    """Of simcmf as it starts: its own projections are mixed with weight zero."""
    projection = nn.Conv2d(3, 8, 16, 16)
    layer, image = transfer_layer(name, projection, 5), torch.randn(2, 5, 64, 96)
    with torch.no_grad():
        colors = layer.colors(image)
        expected = functional.conv2d(colors, layer.weight, layer.bias, layer.stride)
        assert colors.shape == (2, 3, 64, 96)
        assert torch.allclose(layer(image), expected, atol=1e-5)

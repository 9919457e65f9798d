"""micro-sam's decoder: names, and numbers as torch_em computes them."""

import pytest
import torch
from torch.nn import functional

from napari_simmat.models.instance_decoder import InstanceDecoder, is_transposed
from napari_simmat.progress import finish
from tests.decoders import random_decoder

EMBEDDING = torch.randn(2, 256, 4, 5, generator=torch.Generator().manual_seed(1))


def plain(state: dict[str, torch.Tensor], embedding: torch.Tensor) -> torch.Tensor:
    """The decoder by formulas, in the order of ``UNETR.forward`` of torch_em."""

    def convolved(name, values, **more):
        bias = state.get(f"{name}.bias")
        return functional.conv2d(values, state[f"{name}.weight"], bias, **more)

    def enlarged(name, values):
        if f"{name}.block.weight" in state:
            weight, bias = state[f"{name}.block.weight"], state[f"{name}.block.bias"]
            return functional.conv_transpose2d(values, weight, bias, stride=2)
        larger = functional.interpolate(values, scale_factor=2, mode="bilinear")
        return convolved(f"{name}.conv", larger)

    def twice(name, values):
        for layer in (1, 4):
            normed = functional.instance_norm(values)
            values = convolved(f"{name}.block.{layer}", normed, padding=1).relu()
        return values

    def deconv(number, values):
        name = f"deconv{number}.block"
        values = convolved(f"{name}.1.block", enlarged(f"{name}.0", values), padding=1)
        parts = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(values, *(state[f"{name}.2.{part}"] for part in parts)).relu()

    z9 = deconv(1, embedding)
    z6 = deconv(2, z9)
    z3 = deconv(3, z6)
    z0 = deconv(4, z3)
    values = twice("base", embedding)
    for number, beside in enumerate([z9, z6, z3]):
        values = enlarged(f"decoder.samplers.{number}", values)
        half = beside.shape[1] // 4
        joined = torch.cat([values, beside[:, half:-half]], 1)  # _crop cuts channels as well
        values = twice(f"decoder.blocks.{number}", joined)
    joined = torch.cat([enlarged("deconv_out", values), z0], 1)
    return convolved("out_conv", twice("decoder_head", joined)).sigmoid()


@pytest.mark.parametrize("transposed", [False, True])
@torch.no_grad()
def test_maps_are_those_of_the_plain_formulas(transposed):
    decoder = random_decoder(transposed)
    maps = decoder(EMBEDDING)
    assert maps.shape == (2, 3, 64, 80)
    expected = plain(decoder.state_dict(), EMBEDDING)
    assert expected.std() > 0.01  # it is no constant
    assert torch.allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
@torch.no_grad()
def test_maps_are_those_of_torch_em(transposed):
    unetr = pytest.importorskip("torch_em.model.unetr")
    encoder = torch.nn.Module()
    encoder.img_size, encoder.in_chans = 64, 3
    theirs = unetr.UNETR(
        encoder=encoder,
        out_channels=3,
        final_activation="Sigmoid",
        use_skip_connection=False,
        embed_dim=256,
        use_conv_transpose=transposed,
    )
    decoder = random_decoder(transposed)
    theirs.load_state_dict(decoder.state_dict(), strict=True)
    encoder.forward = lambda image: EMBEDDING[:1, :, :4, :4]
    ours = decoder(EMBEDDING[:1, :, :4, :4])
    assert torch.allclose(theirs.eval()(torch.zeros(1, 3, 64, 64)), ours, atol=1e-5)


def test_names_tell_how_a_decoder_enlarges():
    assert is_transposed(InstanceDecoder(transposed=True).state_dict())
    assert not is_transposed(InstanceDecoder().state_dict())


@torch.no_grad()
def test_decoding_can_be_stopped_at_each_scale():
    steps = []
    job = random_decoder().decode_job(EMBEDDING)
    finish(job, lambda progress: steps.append((progress.done, progress.total)))
    assert steps == [(done, 9) for done in range(1, 10)]

"""The optimizer of the foundation moves every parameter, each as its own rule says."""

import pytest
import torch

from napari_simmat.models.tiny import build_tiny
from simmat_research.pretrain import MIN_MUON_SIDE, MuonAdamW

RATE, DECAY = 1e-2, 0.1
ENDS = ("image_encoder.patch_embed.proj.weight", "image_encoder.dense.weight")

pytestmark = pytest.mark.usefixtures("nano")


def network():
    torch.manual_seed(1)
    return build_tiny().train().to(memory_format=torch.channels_last)


def give_gradients(net, seed=2):
    rng = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        grad = torch.randn(parameter.shape, generator=rng)
        if parameter.ndim == 4:
            grad = grad.to(memory_format=torch.channels_last)
        parameter.grad = grad


def inner(name, parameter):
    """A matrix or kernel of at least 16 outputs and inputs that is no table and no end."""
    within = name.startswith(("image_encoder.", "mask_decoder.", "prompt_encoder.mask_downscaling"))
    table = "token" in name and "to_tokens" not in name and "cross_attn" not in name
    table = table and "final_attn" not in name
    transposed = "output_upscaling" in name
    large = parameter.ndim in (2, 4) and min(parameter.shape[:2]) >= MIN_MUON_SIDE
    return large and within and not table and not transposed and name not in ENDS


def expected(parameter, matrix):
    """What torch's own optimizers make of a parameter in one step."""
    copy = parameter.detach().clone()
    if matrix:
        flat = torch.nn.Parameter(
            copy.permute(0, 2, 3, 1).reshape(len(copy), -1) if copy.ndim == 4 else copy
        )
        grad = parameter.grad
        flat.grad = grad.permute(0, 2, 3, 1).reshape(len(grad), -1) if grad.ndim == 4 else grad
        torch.optim.Muon([flat], lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw").step()
        if copy.ndim == 2:
            return flat.detach()
        out, into, high, wide = copy.shape
        return flat.detach().reshape(out, high, wide, into).permute(0, 3, 1, 2)
    own = torch.nn.Parameter(copy)
    own.grad = parameter.grad.clone()
    decay = DECAY if copy.ndim > 1 else 0.0
    torch.optim.AdamW([own], lr=RATE, betas=(0.9, 0.98), weight_decay=decay).step()
    return own.detach()


def ends_of(net):
    encoder = net.image_encoder
    return encoder.patch_embed.proj, encoder.dense


def test_optimizer_step_is_that_of_muon_or_adamw():
    net = network()
    optimizer = MuonAdamW(net, 1.0, DECAY, ends_of(net))
    optimizer.param_groups[0]["lr"] = RATE
    give_gradients(net)
    wanted = {name: expected(p, inner(name, p)) for name, p in net.named_parameters()}
    optimizer.step()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.detach(), wanted[name], msg=lambda m, n=name: n + m)


def test_optimizer_keeps_parameters_without_gradient():
    net = network()
    optimizer = MuonAdamW(net, RATE, DECAY, ends_of(net))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    give_gradients(net)
    for name, parameter in net.named_parameters():
        if name.startswith("mask_decoder"):
            parameter.grad = None
    optimizer.step()
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("mask_decoder"), name
    optimizer.zero_grad()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer.step()
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_optimizer_restored_goes_on_as_before(tmp_path):
    net, other = network(), network()
    optimizer = MuonAdamW(net, RATE, DECAY, ends_of(net))
    give_gradients(net)
    optimizer.step()
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "s")
    state = torch.load(tmp_path / "s", weights_only=True)
    successor = MuonAdamW(
        other, RATE, DECAY, ends_of(other)
    )  # before the weights come, as in a training
    other.load_state_dict(state["net"])
    successor.load_state_dict(state["optimizer"])
    for each, stepping in ((net, optimizer), (other, successor)):
        give_gradients(each, 3)
        stepping.step()
    for (name, mine), theirs in zip(other.named_parameters(), net.parameters(), strict=True):
        assert torch.equal(mine, theirs), name

"""What a training begins with, and what describes it."""

from __future__ import annotations

import pytest
import torch

from napari_simmat.models.spec import Model
from napari_simmat.training.batches import LabeledPlanes
from napari_simmat.training.finetune import make_trainable
from tests.training.squares import pictures, short


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@torch.no_grad()
def test_a_layer_that_starts_as_zero_shot_answers_as_the_base_alone(
    channels: int, base: Model
) -> None:
    dataset = pictures(channels=channels)
    begun = make_trainable(base, dataset, short(start="zeroshot"), "mine")
    ours = LabeledPlanes(dataset, dataset.train, begun.spec, 256)[0].image
    theirs = LabeledPlanes(dataset, dataset.train, base.spec, 256)[0].image
    assert ours.shape[0] == channels
    assert theirs.shape[0] == 3
    torch.testing.assert_close(begun.network.projection.mat(ours[None])[0], theirs)
    click = {"points": torch.tensor([[30.0, 20.0]]), "labels": torch.tensor([1])}
    begun.network.eval()
    answers = [
        network.decode(network.encode(image[None]), click).logits
        for network, image in ((begun.network, ours), (base.network, theirs))
    ]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-3, atol=1e-3)
    random = make_trainable(base, dataset, short(), "mine").network.projection.mat(ours[None])[0]
    assert (random - theirs).abs().max() > 0.1


def test_all_of_its_units_can_be_trained_though_it_starts_as_zero_shot(base: Model) -> None:
    dataset = pictures()
    begun = make_trainable(base, dataset, short(start="zeroshot"), "mine")
    layer = begun.network.projection.mat
    layer(
        LabeledPlanes(dataset, dataset.train, begun.spec, 256)[0].image[None]
    ).square().sum().backward()
    per_unit = layer[2].weight.grad.abs().amax((0, 2, 3))
    assert (per_unit > 0).float().mean() > 0.7  # those that some pixel makes positive

"""The batched decoding of SAM that training uses, against the stock decoder."""

import pytest
import torch
from torch import Tensor

from napari_simmat.models.network import Encoded
from napari_simmat.models.sam import SamNetwork, build_sam


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_sam("vit_b")


@pytest.fixture(scope="module")
def encoded():
    torch.manual_seed(1)
    return Encoded(torch.randn(2, 256, 64, 64), (1024, 1024))


POINTS = torch.tensor([[300.0, 200.0], [700.0, 650.0], [10.0, 1000.0], [512.0, 512.0]])


def stock(network: SamNetwork, encoded: Encoded, index: int, **prompt: Tensor) -> Tensor:
    one = Encoded(encoded.embedding[index : index + 1], encoded.input_size)
    return network.decode(one, prompt).logits


@pytest.mark.slow
@torch.no_grad()
def test_decode_batch_of_two_images_equals_stock(network, encoded):
    padded = torch.stack([POINTS, torch.zeros(4, 2)], dim=1)
    labels = torch.tensor([[1, -1], [0, -1], [1, -1], [1, -1]])
    logits, quality = network.decode_batch(encoded, padded, labels)
    assert logits.shape == (4, 4, 256, 256)
    assert quality.shape == (4, 4)
    for index in range(4):
        expected = stock(
            network, encoded, index // 2, points=POINTS[[index]], labels=labels[index, :1]
        )
        torch.testing.assert_close(logits[index], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_decode_batch_of_box_and_mask_equals_stock(network, encoded):
    corners = torch.tensor([[[100.0, 120.0], [400.0, 500.0]], [[0.0, 0.0], [90.0, 80.0]]])
    mask = torch.randn(2, 1, 256, 256)
    logits, _ = network.decode_batch(encoded, corners, torch.tensor([[2, 3], [2, 3]]), mask)
    for index in range(2):
        expected = stock(
            network, encoded, index, box=corners[index].flatten(), mask=mask[index : index + 1]
        )
        torch.testing.assert_close(logits[index], expected, rtol=1e-4, atol=1e-4)


def test_decode_batch_of_a_crop_is_refused(network, encoded):
    with pytest.raises(ValueError, match="a crop has no origin"):
        network.decode_batch(encoded, POINTS[:2, None], torch.ones(2, 1), origin=(8.0, 0.0))

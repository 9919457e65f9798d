"""What SAM costs here, in counted operations and sizes: no clock, so equal on every machine."""

from typing import Any

import pytest
import torch
from segment_anything.modeling.image_encoder import Block
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from napari_simmat.models import sam_encoder
from napari_simmat.models.network import Encoded
from napari_simmat.models.sam import build_sam
from napari_simmat.models.sam_encoder import ViTAttention, ViTBlock

pytestmark = pytest.mark.slow


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that is made, in elements."""

    elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.untyped_storage().nbytes() // 4)
        return made


def operations(compute: Any) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        compute()
    return counter.get_total_flops()


def largest(compute: Any) -> int:
    with torch.no_grad(), Largest() as seen:
        compute()
    return seen.elements


def both(window: int, side: int, width: int = 96, heads: int = 3) -> tuple[ViTBlock, Block]:
    stock = Block(
        width, heads, use_rel_pos=True, window_size=window, input_size=(side, side)
    ).eval()
    ours = ViTBlock(stock)
    ours.attn = ViTAttention(stock.attn)
    return ours, stock


def test_tokens_beyond_the_border_are_not_projected():
    ours, stock = both(window=14, side=16)
    tokens = torch.randn(1, 16, 16, 96)  # stock: four windows of 14 x 14
    assert operations(lambda: ours(tokens)) < 0.75 * operations(lambda: stock(tokens))


@pytest.mark.parametrize("window", [0, 14])
def test_nothing_as_large_as_all_pairs_of_tokens_is_made(window, monkeypatch):
    monkeypatch.setattr(sam_encoder, "MAX_LOGITS", 2**14)
    ours, stock = both(window, side=42)
    tokens = torch.randn(1, 42, 42, 96)
    pairs = 3 * 42**4 if not window else 3 * 9 * 14**4
    assert largest(lambda: stock(tokens)) >= pairs
    allowed = 4 * tokens.numel()  # the projection to queries, keys and values; the MLP's inside
    assert largest(lambda: ours(tokens)) <= allowed < pairs


@pytest.fixture(scope="module")
def network():
    return build_sam("vit_b").requires_grad_(False)


@pytest.fixture(scope="module")
def encoded():
    return Encoded(torch.randn(1, 256, 64, 64), (1024, 1024))


CLICKS = torch.tensor([[300.0, 200.0], [700.0, 650.0], [10.0, 1000.0]])


def test_click_takes_little_more_than_half_of_stock_operations(network, encoded):
    def stock():
        sparse, dense = network.prompt_encoder((CLICKS[:1, None], torch.ones(1, 1)), None, None)
        decoder = network.mask_decoder
        decoder(encoded.embedding, network.prompt_encoder.get_dense_pe(), sparse, dense, True)

    ours = operations(
        lambda: network.decode(encoded, {"points": CLICKS[:1], "labels": torch.ones(1)})
    )
    assert ours < 0.6 * operations(stock)


def test_more_prompts_cost_as_much_each_and_no_more_memory(network, encoded):
    def decode(count):
        for _ in network.decode_clicks(encoded, CLICKS[:count]):
            pass

    assert operations(lambda: decode(3)) <= 3 * operations(lambda: decode(1))
    assert largest(lambda: decode(3)) == largest(lambda: decode(1))

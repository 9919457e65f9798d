"""The blocks of SAM's image encoder: stock numbers from half the time and a seventh of the memory.

Each module takes the place of a stock one and keeps its tensors' names, so official weights load
strictly and the stock module is the oracle of the tests. What differs from stock:

- positions are never written down for all pairs of tokens (`grid_attention.py`);
- in windows that reach over the image's border, the tokens there are zeros, whose query, key and
  value are the projection's bias; they are filled in instead of computed;
- on a processor, what needs no other tokens is done for a strip of the image at a time, so that
  temporaries stay small.
"""

from __future__ import annotations

import torch
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos
from torch import Tensor
from torch.nn import functional

from napari_simmat.model.grid_attention import GridAttention
from napari_simmat.model.replacing import take_place

STRIP = 16
"""Rows of tokens that go through an MLP at once on a processor."""


class ViTAttention(Attention):
    """Attention among tokens of a grid, or of each window of it."""

    def __init__(self, attention: Attention) -> None:
        take_place(self, attention)

    def forward(self, tokens: Tensor, window: int = 0) -> Tensor:
        """(B, H, W, d) -> the same.

        Parameters
        ----------
        tokens
            The upper left corner of a grid of windows, if there are any.
        window
            Side of the windows in tokens; 0 for one that holds everything.
        """
        high, wide = tokens.shape[1:3]
        qkv = self.qkv(tokens)
        if window:
            qkv = self._filled(qkv, window)
        batch, down, height, across, width = _windows(qkv, window)
        split = qkv.reshape(batch, down, height, across, width, 3, self.num_heads, -1)
        # (3, B, windows down, across, heads, tokens down, across, d / heads)
        split = split.permute(5, 0, 1, 3, 6, 2, 4, 7)
        query, key, value = split.reshape(3, -1, height * width, split.shape[-1]).unbind(0)
        mixed = self._mixed(query, key, value, (height, width))
        mixed = mixed.reshape(*split.shape[1:])  # as `split`, without its first axis
        mixed = mixed.permute(0, 1, 4, 2, 5, 3, 6).reshape(*qkv.shape[:3], -1)
        # Contiguous, as a projection is otherwise computed in many small products.
        projected: Tensor = self.proj(mixed[:, :high, :wide].contiguous())
        return projected

    def more(self, batch: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values (batch * heads, l, d / heads) that a tuned attention sees as well."""
        del batch
        return None

    def _filled(self, qkv: Tensor, window: int) -> Tensor:
        """What the projection makes of the tokens, and of zeros up to whole windows."""
        batch, high, wide, width = qkv.shape
        whole = -(-high // window) * window, -(-wide // window) * window
        if whole == (high, wide):
            return qkv
        bias = self.qkv.bias
        of_zeros = qkv.new_zeros(width) if bias is None else bias.to(qkv.dtype)
        filled = of_zeros.expand(batch, *whole, width).clone()
        filled[:, :high, :wide] = qkv
        return filled

    def _mixed(self, query: Tensor, key: Tensor, value: Tensor, size: tuple[int, int]) -> Tensor:
        """Attend from (n, h * w, c) to (n, h * w, c), n over images, windows and heads."""
        more = self.more(len(query) // self.num_heads)
        if more is not None:
            more_key, more_value = (each.to(key.dtype) for each in more)
            key, value = torch.cat([key, more_key], dim=1), torch.cat([value, more_value], dim=1)
        if not self.use_rel_pos:
            attended = functional.scaled_dot_product_attention(
                query[None], key[None], value[None], scale=self.scale
            )
            return attended[0]
        height, width = size
        grid = query.reshape(-1, height, width, query.shape[-1])
        of_rows = get_rel_pos(height, height, self.rel_pos_h)  # (h, h, c): query's row, key's row
        of_columns = get_rel_pos(width, width, self.rel_pos_w)
        rows = torch.einsum("nhwc,hkc->nhwk", grid, of_rows.to(grid.dtype)).flatten(1, 2)
        columns = torch.einsum("nhwc,wkc->nhwk", grid, of_columns.to(grid.dtype)).flatten(1, 2)
        return GridAttention(query * self.scale, key, value, rows, columns).mixed()


class ViTBlock(Block):
    """A block of the image encoder, with or without windows."""

    def __init__(self, block: Block) -> None:
        take_place(self, block)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, d) -> the same."""
        if self.window_size:  # a row of windows knows of no other
            strips = torch.split(tokens, self._rows(tokens, self.window_size), dim=1)
            return torch.cat([self._attended(strip) for strip in strips], dim=1)
        told = self.attn(self.norm1(tokens))
        rows = self._rows(tokens, STRIP)
        pairs = zip(torch.split(tokens, rows, dim=1), torch.split(told, rows, dim=1), strict=True)
        return torch.cat([self._told(*pair) for pair in pairs], dim=1)

    def beside(self, tokens: Tensor) -> Tensor:
        """What is added to the tokens after their attention."""
        added: Tensor = self.mlp(self.norm2(tokens))
        return added

    def _attended(self, tokens: Tensor) -> Tensor:
        return self._told(tokens, self.attn(self.norm1(tokens), self.window_size))

    def _told(self, tokens: Tensor, told: Tensor) -> Tensor:
        tokens = tokens + told
        return tokens + self.beside(tokens)

    def _rows(self, tokens: Tensor, rows: int) -> int:
        """Rows of tokens in a strip: all of them on a GPU, which wants much at once."""
        return rows if tokens.device.type == "cpu" else tokens.shape[1]


def _windows(grid: Tensor, window: int) -> tuple[int, int, int, int, int]:
    """Images, windows down, their height, windows across, their width of (B, H, W, d)."""
    batch, high, wide = grid.shape[:3]
    if not window:
        return batch, 1, high, 1, wide
    return batch, high // window, window, wide // window, window

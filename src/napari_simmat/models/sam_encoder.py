"""SAM's image encoder: stock numbers in half the time and a seventh of the memory.

Each module replaces a stock one and keeps its tensors' names, so official weights load strictly and
the tests compare with the stock module. What differs from stock:

- The relative positions are never stored for all pairs of tokens. They add to the logit of a query
  and a key a term for the key's row and one for its column (arXiv 2112.01526). Stock SAM stores
  that sum: 805 MB in a global layer of ViT-B, read and written several times. Here it is either
  formed in pieces that stay in a CPU's caches, or *folded*: the query is extended by its terms for
  all rows and columns, the key by the one-hot codes of its row and column, so that their product is
  the sum of all three, and any kernel for plain attention can compute it.
- In windows that extend beyond the image, the tokens there are zeros, whose query, key and value
  are the projection's bias; these are filled in instead of computed.
- On a CPU, operations on single tokens run on a strip of the image at a time, to keep temporaries
  small.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos
from torch import Tensor
from torch.nn import functional

from napari_simmat.models.network import replace_module

STRIP = 16
"""Rows of tokens that go through an MLP at once on a CPU."""
MAX_LOGITS = 2**20
"""Logits that are formed at once on a CPU: 4 MB in float32."""
MANY_KEYS = 1024
"""With so many keys, torch's kernel beats the pieces on a CPU in half precision."""
NEGLIGIBLE = 1e-30
"""Smaller weights change no float32 sum, but slow the product down (`_flush_subnormals`)."""
HEAD_ALIGNMENT = 8
"""GPU kernels need the width of a head to be a multiple of this."""


class ViTBlock(Block):
    """A block of the image encoder, with or without windows."""

    def __init__(self, block: Block) -> None:
        replace_module(self, block)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, d) -> the same."""
        if self.window_size:  # rows of windows are independent
            strips = torch.split(tokens, self._rows(tokens, self.window_size), dim=1)
            done = []
            for strip in strips:
                done.append(self._add_mlp(strip, self.attn(self.norm1(strip), self.window_size)))
            return torch.cat(done, dim=1)
        attended = self.attn(self.norm1(tokens))
        rows = self._rows(tokens, STRIP)
        pairs = zip(
            torch.split(tokens, rows, dim=1), torch.split(attended, rows, dim=1), strict=True
        )
        return torch.cat([self._add_mlp(*pair) for pair in pairs], dim=1)

    def parallel_branch(self, tokens: Tensor) -> Tensor:
        """The update of the tokens after their attention."""
        added: Tensor = self.mlp(self.norm2(tokens))
        return added

    def _add_mlp(self, tokens: Tensor, attended: Tensor) -> Tensor:
        tokens = tokens + attended
        return tokens + self.parallel_branch(tokens)

    def _rows(self, tokens: Tensor, rows: int) -> int:
        """Rows of tokens in a strip: all of them on a GPU, which is faster with large ones."""
        return rows if tokens.device.type == "cpu" else tokens.shape[1]


class ViTAttention(Attention):
    """Attention among tokens of a grid, or of each window of it."""

    def __init__(self, attention: Attention) -> None:
        replace_module(self, attention)

    def forward(self, tokens: Tensor, window: int = 0) -> Tensor:
        """(B, H, W, d) -> the same; `window` is the side of the windows in tokens, 0 for none."""
        high, wide = tokens.shape[1:3]
        qkv = self.qkv(tokens)
        if window:
            qkv = self._pad_to_windows(qkv, window)
        batch, height, width = qkv.shape[:3]
        down, across = (height // window, width // window) if window else (1, 1)
        height, width = height // down, width // across
        split = qkv.reshape(batch, down, height, across, width, 3, self.num_heads, -1)
        # (3, B, windows down, across, heads, tokens down, across, d / heads)
        split = split.permute(5, 0, 1, 3, 6, 2, 4, 7)
        query, key, value = split.reshape(3, -1, height * width, split.shape[-1]).unbind(0)
        mixed = self._mixed(query, key, value, (height, width))
        mixed = mixed.reshape(*split.shape[1:])  # as `split`, without its first axis
        mixed = mixed.permute(0, 1, 4, 2, 5, 3, 6).reshape(*qkv.shape[:3], -1)
        # Contiguous: otherwise the projection is computed in many small products.
        projected: Tensor = self.proj(mixed[:, :high, :wide].contiguous())
        return projected

    def extra_keys(self, batch: int) -> tuple[Tensor, Tensor] | None:
        """Further keys and values (batch * heads, l, d / heads) of a tuned attention."""
        del batch
        return None

    def _pad_to_windows(self, qkv: Tensor, window: int) -> Tensor:
        """The projected tokens, extended by projected zeros to whole windows."""
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
        extra = self.extra_keys(len(query) // self.num_heads)
        if extra is not None:
            extra_key, extra_value = (each.to(key.dtype) for each in extra)
            key, value = torch.cat([key, extra_key], dim=1), torch.cat([value, extra_value], dim=1)
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


class GridAttention(NamedTuple):
    """The operands of one attention, for n pairs of a grid and a head.

    Attributes
    ----------
    query
        (n, q, c), scaled.
    key, value
        (n, k, c): h * w keys of the grid row by row, then those without a position.
    rows, columns
        (n, q, h) and (n, q, w): terms of the logits for the key's row and column.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    rows: Tensor
    columns: Tensor

    def mixed(self) -> Tensor:
        """The output of the attention, (n, q, c)."""
        needs_gradient = torch.is_grad_enabled() and any(each.requires_grad for each in self)
        if self.query.device.type != "cpu" or needs_gradient:
            return self._folded()
        many = self.key.shape[1] >= MANY_KEYS
        with _flush_subnormals():
            if self.query.dtype == torch.float32 or (many and not _has_tiles()):
                return self._in_pieces()
            return self._folded() if many else self._folded_in_pieces()

    def _folded(self) -> Tensor:
        """By torch's kernels, which never store all logits; gradients flow."""
        query, key = self._fold()
        width = self.value.shape[-1]
        value = functional.pad(self.value, (0, query.shape[-1] - width))
        mixed = functional.scaled_dot_product_attention(
            query[None], key[None], value[None], scale=1.0
        )
        return mixed[0, ..., :width]

    def _in_pieces(self) -> Tensor:
        """Piece by piece: the position terms are written, then the product is added in place."""
        count, queries, _ = self.query.shape
        keys = self.key.shape[1]
        high = self.rows.shape[-1]
        wide = self.columns.shape[-1]
        keys_t = self.key.transpose(1, 2)
        mixed = torch.empty_like(self.query)
        pairs, length = _piece(count, queries, keys)
        buffer = self.query.new_zeros(pairs, length, keys)
        for first in range(0, count, pairs):
            some = slice(first, first + pairs)
            for start in range(0, queries, length):
                part = (some, slice(start, start + length))
                rows, columns = self.rows[part], self.columns[part]
                logits = buffer[: rows.shape[0], : rows.shape[1]]
                grid = logits[..., : high * wide].view(*logits.shape[:2], high, wide)
                torch.add(rows[..., None], columns[..., None, :], out=grid)
                logits[..., high * wide :] = 0  # keys without a position
                logits.baddbmm_(self.query[part], keys_t[some])
                torch.softmax(logits, -1, out=logits)
                torch.threshold_(logits, NEGLIGIBLE, 0.0)
                torch.bmm(logits, self.value[some], out=mixed[part])
        return mixed

    def _folded_in_pieces(self) -> Tensor:
        query, key = self._fold()
        keys_t = key.transpose(1, 2)
        mixed = torch.empty_like(self.query)
        pairs, _ = _piece(len(query), query.shape[1], key.shape[1])
        for first in range(0, len(query), pairs):
            some = slice(first, first + pairs)
            weights = torch.bmm(query[some], keys_t[some]).softmax(-1)
            torch.bmm(weights, self.value[some], out=mixed[some])
        return mixed

    def _fold(self) -> tuple[Tensor, Tensor]:
        """Extended queries and keys, c + h + w wide, padded to a multiple of `HEAD_ALIGNMENT`."""
        high, wide = self.rows.shape[-1], self.columns.shape[-1]
        fill = -(self.query.shape[-1] + high + wide) % HEAD_ALIGNMENT
        query = torch.cat([self.query, self.rows, self.columns], dim=-1)
        device, dtype = self.key.device, self.key.dtype
        own_row = torch.eye(high, device=device, dtype=dtype).repeat_interleave(wide, 0)
        own_column = torch.eye(wide, device=device, dtype=dtype).repeat(high, 1)
        places = torch.cat([own_row, own_column], dim=-1)
        unplaced = self.key.shape[1] - high * wide
        places = functional.pad(places, (0, 0, 0, unplaced)).expand(len(self.key), -1, -1)
        key = torch.cat([self.key, places], dim=-1)
        return functional.pad(query, (0, fill)), functional.pad(key, (0, fill))


def _piece(count: int, queries: int, keys: int) -> tuple[int, int]:
    """Number of pairs, and of queries of each, that are computed at once."""
    length = min(queries, max(1, MAX_LOGITS // keys))
    return min(count, max(1, MAX_LOGITS // (length * keys))), length


@contextmanager
def _flush_subnormals() -> Iterator[None]:
    """Context in which numbers below 1e-38 are zero: CPUs take a hundred times as long for them.

    Sharp attention is full of them. The setting holds for this thread only; for torch's other
    threads there is `NEGLIGIBLE`.
    """
    is_set = float(torch.tensor(1e-30) * 1e-10) == 0
    if is_set or not torch.set_flush_denormal(True):
        yield
        return
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _has_tiles() -> bool:
    """Whether the CPU has tiles for matrix products in half precision (Intel's AMX)."""
    is_supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(is_supported and is_supported())

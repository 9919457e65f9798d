"""Attention over a grid of tokens with decomposed relative positions, without its large matrix.

A position adds to the logits of a query and a key what the query says of the key's row, plus what
it says of the key's column (arXiv 2112.01526). Stock SAM writes that sum down for every pair: 805
MB in a global layer of ViT-B, read and written several times. Here it is either formed in pieces
that stay in a processor's cache, or *folded*: behind each query stand its two lists of numbers,
behind each key which row and column it is, so that their product is the sum of all three, and any
kernel for plain attention can compute it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PIECE = 2**20
"""Logits that are formed at once on a processor: 4 MB in float32."""
MANY = 1024
"""Keys from which on a processor's own kernel beats the pieces in half precision."""
NEGLIGIBLE = 1e-30
"""A weight below it changes no sum in float32, but slows the product down (see below)."""
ALIGNED = 8
"""Kernels of GPUs want the width of a head to be a multiple of this."""


class GridAttention(NamedTuple):
    """The operands of one attention, for n pairs of a grid and a head.

    Attributes
    ----------
    query
        (n, q, c), scaled.
    key, value
        (n, k, c): h * w keys of the grid row by row, then any that have no position.
    rows, columns
        (n, q, h) and (n, q, w): what a query adds to its logits with a row, with a column.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    rows: Tensor
    columns: Tensor

    def mixed(self) -> Tensor:
        """The values as each query weighs them, (n, q, c)."""
        differentiated = torch.is_grad_enabled() and any(each.requires_grad for each in self)
        if self.query.device.type != "cpu" or differentiated:
            return self._folded()
        many = self.key.shape[1] >= MANY
        with _nothing_subnormal():
            if self.query.dtype == torch.float32 or (many and not _has_tiles()):
                return self._in_pieces()
            return self._folded() if many else self._folded_in_pieces()

    def _folded(self) -> Tensor:
        """By torch's own kernels, which never hold all logits; gradients flow."""
        query, key = self._fold()
        width = self.value.shape[-1]
        value = functional.pad(self.value, (0, query.shape[-1] - width))
        mixed = functional.scaled_dot_product_attention(
            query[None], key[None], value[None], scale=1.0
        )
        return mixed[0, ..., :width]

    def _in_pieces(self) -> Tensor:
        """The sum of positions is written into a piece, the product added to it."""
        count, queries, _ = self.query.shape
        keys, high, wide = self.key.shape[1], self.rows.shape[-1], self.columns.shape[-1]
        turned = self.key.transpose(1, 2)
        mixed = torch.empty_like(self.query)
        pairs, length = _piece(count, queries, keys)
        room = self.query.new_zeros(pairs, length, keys)  # zero for keys without a position
        for first in range(0, count, pairs):
            some = slice(first, first + pairs)
            for start in range(0, queries, length):
                part = (some, slice(start, start + length))
                rows, columns = self.rows[part], self.columns[part]
                logits = room[: rows.shape[0], : rows.shape[1]]
                grid = logits[..., : high * wide].view(*logits.shape[:2], high, wide)
                torch.add(rows[..., None], columns[..., None, :], out=grid)
                logits[..., high * wide :] = 0
                logits.baddbmm_(self.query[part], turned[some])
                torch.softmax(logits, -1, out=logits)
                torch.threshold_(logits, NEGLIGIBLE, 0.0)
                torch.bmm(logits, self.value[some], out=mixed[part])
        return mixed

    def _folded_in_pieces(self) -> Tensor:
        query, key = self._fold()
        turned = key.transpose(1, 2)
        mixed = torch.empty_like(self.query)
        pairs, _ = _piece(len(query), query.shape[1], key.shape[1])
        for first in range(0, len(query), pairs):
            some = slice(first, first + pairs)
            weights = torch.bmm(query[some], turned[some]).softmax(-1)
            torch.bmm(weights, self.value[some], out=mixed[some])
        return mixed

    def _fold(self) -> tuple[Tensor, Tensor]:
        """Queries and keys (n, ., c + h + w, filled up to a multiple of `ALIGNED`)."""
        high, wide = self.rows.shape[-1], self.columns.shape[-1]
        fill = -(self.query.shape[-1] + high + wide) % ALIGNED
        query = torch.cat([self.query, self.rows, self.columns], dim=-1)
        own_row = torch.eye(high).repeat_interleave(wide, 0)
        own_column = torch.eye(wide).repeat(high, 1)
        places = torch.cat([own_row, own_column], dim=-1).to(self.key)
        without = self.key.shape[1] - high * wide
        places = functional.pad(places, (0, 0, 0, without)).expand(len(self.key), -1, -1)
        key = torch.cat([self.key, places], dim=-1)
        return functional.pad(query, (0, fill)), functional.pad(key, (0, fill))


def _piece(count: int, queries: int, keys: int) -> tuple[int, int]:
    """How many pairs, and how many queries of each, are computed at once."""
    length = min(queries, max(1, PIECE // keys))
    return min(count, max(1, PIECE // (length * keys))), length


@contextmanager
def _nothing_subnormal() -> Iterator[None]:
    """Numbers below 1e-38 count as zero: processors take a hundred times as long for them.

    Sharp attention is full of them. The rule holds for this thread alone; what torch's other
    threads make of it goes by `NEGLIGIBLE`.
    """
    already = float(torch.tensor(1e-30) * 1e-10) == 0
    if already or not torch.set_flush_denormal(True):
        yield
        return
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _has_tiles() -> bool:
    """Whether the processor multiplies matrices in half precision by tiles (Intel's AMX)."""
    asked = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(asked and asked())

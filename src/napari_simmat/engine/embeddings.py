"""What was encoded once is kept: a memory of embeddings, addressed by content and bounded."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from napari_simmat.engine.frames import Frame
    from napari_simmat.model.network import Encoded

DEFAULT_BYTES = 2**30


class Embedding(NamedTuple):
    """An encoded image and how it lies in the network's input."""

    encoded: Encoded
    frame: Frame


class EmbeddingCache:
    """Embeddings in main memory; the least recently used goes first when the bound is reached.

    Parameters
    ----------
    max_bytes
        Upper bound of all tensors together. One embedding larger than it is not kept.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        if max_bytes < 0:
            raise ValueError(f"The memory for embeddings cannot be negative, got {max_bytes}.")
        self.max_bytes = max_bytes
        self._kept: OrderedDict[str, Embedding] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return sum(each.encoded.nbytes for each in self._kept.values())

    def get(self, key: str) -> Embedding | None:
        """The embedding under `key`, which becomes the most recently used; None if not kept."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: str, embedding: Embedding) -> None:
        """Keep `embedding`, forgetting the least recently used ones beyond the bound."""
        self._kept.pop(key, None)
        if embedding.encoded.nbytes > self.max_bytes:
            return
        self._kept[key] = embedding
        while self.nbytes > self.max_bytes:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

"""What was encoded once is kept: a memory of embeddings, addressed by content and bounded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from napari_simmat.engine.embedding_store import EmbeddingStore
    from napari_simmat.engine.frames import Frame
    from napari_simmat.model.network import Encoded

LEAST_BYTES, MOST_BYTES = 2**30, 2**33
"""Bounds of the memory that is taken where nothing is said."""


class Embedding(NamedTuple):
    """An encoded image and how it lies in the network's input."""

    encoded: Encoded
    frame: Frame


class EmbeddingCache:
    """Embeddings in main memory; the least recently used goes first when the bound is reached.

    It may be used by several threads.

    Parameters
    ----------
    max_bytes
        Upper bound of all tensors together; a quarter of the machine's memory, between 1 and 8
        GiB, if left out. One embedding larger than it is not kept.
    store
        Where embeddings are kept on disk as well; None for nowhere.
    """

    def __init__(self, max_bytes: int | None = None, store: EmbeddingStore | None = None) -> None:
        max_bytes = default_bytes() if max_bytes is None else max_bytes
        if max_bytes < 0:
            raise ValueError(f"The memory for embeddings cannot be negative, got {max_bytes}.")
        self.max_bytes = max_bytes
        self.store = store
        self._kept: OrderedDict[str, Embedding] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: str) -> bool:
        """Whether `get` would give something, nothing read and nothing reordered."""
        if key in self._kept:
            return True
        store = self.store
        return store is not None and key in store

    @property
    def nbytes(self) -> int:
        """Bytes in use in memory."""
        return self._bytes

    def get(self, key: str) -> Embedding | None:
        """The embedding under `key`, which becomes the most recently used; None if not kept."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
            store = self.store
        found = None if store is None else store.get(key)
        if found is not None:
            self._remember(key, found)
        return found

    def put(self, key: str, embedding: Embedding, *, lasting: bool = True) -> None:
        """Keep `embedding`, forgetting the least recently used ones beyond the bound.

        One that is not `lasting` is kept in memory alone.
        """
        self._remember(key, embedding)
        store = self.store
        if store is not None and lasting:
            store.put(key, embedding)

    def clear(self) -> None:
        """Forget everything in memory; what is on disk stays."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _remember(self, key: str, embedding: Embedding) -> None:
        size = embedding.encoded.nbytes
        with self._lock:
            replaced = self._kept.pop(key, None)
            self._bytes -= 0 if replaced is None else replaced.encoded.nbytes
            while self._kept and self._bytes + size > self.max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.encoded.nbytes
            if size <= self.max_bytes:
                self._kept[key] = embedding
                self._bytes += size


def default_bytes() -> int:
    """A quarter of the machine's memory, between 1 and 8 GiB."""
    import psutil  # type: ignore[import-untyped]

    return int(min(MOST_BYTES, max(LEAST_BYTES, psutil.virtual_memory().total // 4)))

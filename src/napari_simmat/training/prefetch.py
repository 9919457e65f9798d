"""Batches drawn ahead of the step that needs them, in threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Draws the batches of the next steps in threads, while a step is computed.

    A batch depends on nothing but its step and part, so whoever draws it, and when, it is the same
    to the bit. Threads share the planes that are kept in memory, and reading, decoding and resizing
    an image wait outside Python's lock; `torch.utils.data.DataLoader` would copy the planes into
    processes, and needs a start of its own on each system.

    Parameters
    ----------
    draw
        Draws the part of a step; several threads may call it at once.
    total
        Steps in all; none beyond is drawn.
    workers
        Threads, and steps to draw ahead; 0 draws each batch when it is needed.
    """

    def __init__(self, draw: Callable[[int, slice], T], total: int, workers: int) -> None:
        self._draw, self._total, self._workers = draw, total, workers
        self._pool = ThreadPoolExecutor(workers, "batches") if workers else None
        self._coming: dict[tuple[int, int | None, int | None], Future[T]] = {}

    def __call__(self, step: int, part: slice) -> T:
        """The batch of a part of a step; an error of its drawing is raised here."""
        if self._pool is None:
            return self._draw(step, part)
        ahead = [(step + n, part.start, part.stop) for n in range(self._workers + 1)]
        for old in [key for key in self._coming if key[0] < step]:  # parts that were halved
            self._coming.pop(old).cancel()
        for key in ahead:
            if key not in self._coming and key[0] < self._total:
                self._coming[key] = self._pool.submit(self._draw, key[0], part)
        return self._coming.pop(ahead[0]).result()

    def close(self) -> None:
        """Drop what was drawn, and wait for what is being drawn."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

"""A network at work on a device, which goes on with the CPU where a GPU's memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from napari_simmat.engine.devices import (
    NO_MEMORY,
    choose_device,
    choose_precision,
    computing,
    is_out_of_memory,
    release,
)
from napari_simmat.model.network import Network
from napari_simmat.progress import Job

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Compute:
    """Where and how precisely a network computes.

    Parameters
    ----------
    network
        Is moved to the device.
    device, precision
        As for `Predictor`.

    Attributes
    ----------
    device, precision
        What is in use; both change where memory runs out.
    note
        The last remark in words, e.g. that memory ran out and what was done; else empty.
    """

    def __init__(self, network: Network, device: str, precision: str) -> None:
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.network = network
        self.note = ""
        self.surviving(lambda: network.to(self.device))

    @contextmanager
    def inference(self, precision: str = "") -> Iterator[None]:
        """Within the block nothing has gradients, in the chosen precision."""
        self._move()
        with torch.no_grad(), computing(self.device, precision or self.precision):
            yield

    def steps(self, job: Job[T], precision: str = "") -> Job[T]:
        """Run a job's steps, and only its steps, as `inference`."""
        while True:
            with self.inference(precision):
                try:
                    progress = next(job)
                except StopIteration as end:
                    result: T = end.value
                    return result
            yield progress

    def surviving(self, compute: Callable[[], T]) -> T:
        """Compute; where a GPU's memory runs out, go on with the CPU and say so."""
        while True:
            try:
                return compute()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler, so that the failed run's tensors are gone by now.
            self.release()
            self.to_cpu()

    def to_cpu(self) -> None:
        """Compute on the CPU from now on.

        Raises
        ------
        MemoryError
            If it does so already.
        """
        if self.device.type == "cpu":
            raise MemoryError(NO_MEMORY)
        before, self.device = self.device, torch.device("cpu")
        self.precision = "exact"
        self.network.to(self.device)
        release(before)
        self.remark(f"The memory of {before.type} ran out; computing on the CPU instead.")

    def release(self) -> None:
        """Give the device's unused memory back to the system."""
        release(self.device)

    def _move(self) -> None:
        """See the network on the device: whoever has the same one may have moved it elsewhere."""
        first = next(self.network.parameters(), None)
        if first is None:
            return
        here, there = first.device, self.device
        if here.type != there.type or there.index not in (None, here.index):
            self.network.to(there)

    def remark(self, note: str) -> None:
        """Say something to whoever reads `note` or the log."""
        self.note = note
        logger.warning(note)

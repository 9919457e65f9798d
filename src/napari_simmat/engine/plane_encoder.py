"""Planes of an image encoded: looked up, gone on with, or computed, and kept."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_simmat.engine.compute import Compute
from napari_simmat.engine.devices import choose_precision, is_out_of_memory
from napari_simmat.engine.embeddings import Embedding, EmbeddingCache
from napari_simmat.engine.frames import Frame
from napari_simmat.engine.images import ChannelStack
from napari_simmat.engine.interrupted import Interrupted
from napari_simmat.progress import Job

if TYPE_CHECKING:
    from napari_simmat.engine.checkpoints.zoo import Model
    from napari_simmat.model.spec import InputSize

NEARLY = 0.75
"""Share of an encoding from which on its end is as near as that of a coarse one."""


class PlaneEncoder:
    """Encodes planes with a model, each once.

    Parameters
    ----------
    model, compute
        The model, and where its network computes.
    cache
        Where embeddings are kept.
    under_way
        Encodings that were begun and left; several encoders may share them.

    Attributes
    ----------
    encodes
        How often the network's encoder ran.
    """

    def __init__(
        self,
        model: Model,
        compute: Compute,
        cache: EmbeddingCache,
        under_way: Interrupted[Embedding] | None = None,
    ) -> None:
        self.model, self.compute, self.cache = model, compute, cache
        self.under_way = Interrupted[Embedding]() if under_way is None else under_way
        self.encodes = 0
        self._glimpse: tuple[str, Embedding] | None = None  # the last one

    def knows(self, stack: ChannelStack, index: tuple[int, ...]) -> bool:
        """Whether a plane is kept already."""
        return self._key(stack, index) in self.cache

    def embedding(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        """A plane from the cache, or encoded; what was begun and left is gone on with."""
        while True:
            key = self._key(stack, index)
            embedding = self.cache.get(key)
            if embedding is None:
                start = partial(self._anew, stack, index)
                embedding = yield from self.under_way.going_on(key, start)
            if embedding is not None:
                return Embedding(embedding.encoded.to(self.compute.device), embedding.frame)

    def once(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        """A plane encoded and not kept."""
        embedding = yield from self._encoding(stack, index)
        self.encodes += 1
        return embedding

    def glimpse(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding | None]:
        """A plane coarsely encoded; None where the whole encoding is there, or will be as soon.

        A GPU is quick enough without.
        """
        key = self._key(stack, index)
        if self._is_soon_there(key):
            return None
        if self._glimpse is None or self._glimpse[0] != key:
            start = partial(self._glimpsing, stack, index)
            glimpse = yield from self.under_way.going_on(f"{key}-glimpse", start)
            if glimpse is None:  # somebody else has it
                return None
            self._glimpse = key, glimpse
        return self._glimpse[1]

    def _is_soon_there(self, key: str) -> bool:
        quick = self.compute.device.type != "cpu" or not self.compute.network.glimpses
        return quick or key in self.cache or self.under_way.done(key) >= NEARLY

    def _glimpsing(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        frame = self._frame(stack)
        values = self.network_input(stack.normalized(index), frame)
        fast = choose_precision("fast", self.compute.device)
        encoded = yield from self.compute.steps(self.compute.network.glimpsing(values), fast)
        return Embedding(encoded, frame)

    def network_input(self, image: NDArray[Any], frame: Frame) -> Tensor:
        """Normalised values (C, Y, X) as the network's input (1, C, H, W)."""
        channels = self.model.spec.channels
        values = torch.zeros(1, len(channels), *frame.padded)
        height, width = frame.resized
        for index, channel in enumerate(channels):  # one at a time: there may be hundreds
            resized = torch.tensor(frame.resize(image[index : index + 1])[0])  # a copy
            values[0, index, :height, :width] = (resized - channel.mean) / channel.std
        return values

    def _anew(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        """Encode a plane and keep it, in the precision in which it was computed."""
        self.compute.note = ""
        content = stack.key(index)  # of what is read now: an array may change meanwhile
        embedding = yield from self._encoding(stack, index)
        self.encodes += 1
        kept = Embedding(embedding.encoded.to(torch.device("cpu")), embedding.frame)
        key = self._key_of(content)  # the device may have changed
        # One that was made smaller as memory ran out is no answer for a day when there is enough.
        self.cache.put(key, kept, lasting=kept.frame == self._frame(stack))
        return embedding

    def _key(self, stack: ChannelStack, index: tuple[int, ...]) -> str:
        return self._key_of(stack.key(index))

    def _key_of(self, content: str) -> str:
        device, precision = self.compute.device.type, self.compute.precision
        return f"{self.model.fingerprint}-{content}-{device}-{precision}"

    def _frame(self, stack: ChannelStack) -> Frame:
        """How a plane lies in the network's input, if memory allows."""
        return Frame.of(stack.shape[-2:], self.model.spec.input_size, stack.pixel_size)

    def _encoding(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        image = stack.normalized(index)
        compute, input_size = self.compute, self.model.spec.input_size
        while True:
            frame = Frame.of(image.shape[-2:], input_size, stack.pixel_size)
            values: Tensor | None = None
            try:
                values = self.network_input(image, frame).to(compute.device)
                encoded = yield from compute.steps(compute.network.encoding(values))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                smaller = _smaller(input_size, frame)
            else:
                return Embedding(encoded, frame)
            # Outside the handler, so that the failed run's tensors are gone by now.
            values = None
            compute.release()
            if smaller is not None and compute.device.type != "cpu":
                input_size = smaller
                compute.remark(f"Memory ran out; encoding at {smaller.size} pixels instead.")
            else:
                input_size = self.model.spec.input_size
                compute.to_cpu()


def _smaller(input_size: InputSize, frame: Frame) -> InputSize | None:
    """Half the size where the network takes any; None where it does not or gets too small."""
    half = max(frame.resized) // 2
    if input_size.method != "native" or half < 4 * input_size.multiple:
        return None
    return replace(input_size, size=half, minimum=min(input_size.minimum, half))

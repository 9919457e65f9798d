"""`PlaneEncoder`: embeddings of planes, from the cache or computed block by block.

A click must not wait for the encoding of another plane. So encodings are jobs that yield after each
block of the network, and `ResumableEncodings` keeps those that were left, to be continued later.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.device import ComputeContext, choose_precision, is_out_of_memory
from napari_simmat.engine.embeddings import Embedding, EmbeddingCache
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.progress import Job

if TYPE_CHECKING:
    from napari_simmat.models.network import Encoded
    from napari_simmat.models.spec import InputSize, Model


T = TypeVar("T")


class ResumableEncodings(Generic[T]):
    """Unfinished jobs by key; whoever needs the result continues where the job was left.

    So interrupting an encoding for a click, or canceling it, wastes no work. At most `most` jobs
    are kept; the one that was left first is closed.
    """

    def __init__(self, most: int = 3) -> None:
        self._most = most
        self._begun: OrderedDict[str, _StartedJob[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._begun)

    def done(self, key: str) -> float:
        """Completed fraction of the job of `key`; 0 if there is none."""
        begun = self._begun.get(key)
        return 0.0 if begun is None else begun.done

    def resume_job(self, key: str, start: Callable[[], Job[T]]) -> Job[T | None]:
        """Start or continue the job of `key`; closing this generator only interrupts it.

        Returns the job's result, or None if another caller finished it meanwhile.
        """
        mine = self._begun.get(key)
        if mine is None:
            mine = self._begun[key] = _StartedJob(start())
        while self._begun.get(key) is mine:
            self._begun.move_to_end(key)
            while len(self._begun) > self._most:
                _, oldest = self._begun.popitem(last=False)
                oldest.job.close()
            try:
                progress = next(mine.job)
            except StopIteration as end:
                self._begun.pop(key, None)
                result: T = end.value
                return result
            except BaseException:
                self._begun.pop(key, None)
                raise
            mine.done = progress.done / max(progress.total, 1)
            yield progress
        return None

    def clear(self) -> None:
        """Close all jobs."""
        while self._begun:
            _, begun = self._begun.popitem()
            begun.job.close()


@dataclass(eq=False)
class _StartedJob(Generic[T]):
    """A job and its completed fraction."""

    job: Job[T]
    done: float = 0.0


PREVIEW_CUTOFF = 0.75
"""Once this fraction is encoded, finishing is as fast as a coarse preview, so none is made."""


class PlaneEncoder:
    """Encodes planes with a model, each once.

    Parameters
    ----------
    model, compute
        The model, and the context in which its network runs.
    cache
        Keeps the embeddings.
    average
        Whether to encode several views of a plane, if the network averages their masks.
    resumable
        Unfinished encodings; several encoders may share them.

    Attributes
    ----------
    encodes
        How often the network's encoder ran.
    """

    def __init__(
        self,
        model: Model,
        compute: ComputeContext,
        cache: EmbeddingCache,
        average: bool = False,
        resumable: ResumableEncodings[Embedding] | None = None,
    ) -> None:
        self.model, self.compute, self.cache = model, compute, cache
        self.average = average and compute.network.averages_views
        self.resumable = ResumableEncodings[Embedding]() if resumable is None else resumable
        self.encodes = 0
        self._preview: tuple[str, Embedding] | None = None  # the last one

    def has(self, stack: ChannelStack, index: tuple[int, ...]) -> bool:
        """Whether a plane is in the cache."""
        return self._key(stack, index) in self.cache

    def embed_job(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        """A plane from the cache, or encoded, continuing an unfinished encoding."""
        while True:
            key = self._key(stack, index)
            embedding = self.cache.get(key)
            if embedding is None:
                start = partial(self._encode_and_cache_job, stack, index)
                embedding = yield from self.resumable.resume_job(key, start)
            if embedding is not None:
                return Embedding(embedding.encoded.to(self.compute.device), embedding.frame)

    def embed_once_job(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        """A plane encoded but not cached."""
        embedding = yield from self._run_encoder_job(stack, index)
        self.encodes += 1
        return embedding

    def coarse_preview_job(
        self, stack: ChannelStack, index: tuple[int, ...]
    ) -> Job[Embedding | None]:
        """A plane encoded coarsely; None if the full encoding is there, or ready as soon.

        A GPU is fast enough without.
        """
        key = self._key(stack, index)
        if self._is_nearly_encoded(key):
            return None
        if self._preview is None or self._preview[0] != key:
            start = partial(self._encode_preview_job, stack, index)
            preview = yield from self.resumable.resume_job(f"{key}-preview", start)
            if preview is None:  # another caller finished it
                return None
            self._preview = key, preview
        return self._preview[1]

    def _is_nearly_encoded(self, key: str) -> bool:
        quick = self.compute.device.type != "cpu" or not self.compute.network.has_coarse_preview
        return quick or key in self.cache or self.resumable.done(key) >= PREVIEW_CUTOFF

    def _encode_preview_job(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        frame = self._frame(stack)
        values = self.network_input(stack.normalized(index), frame)
        fast = choose_precision("fast", self.compute.device)
        encoded = yield from self.compute.run_job(
            self.compute.network.coarse_preview_job(values), fast
        )
        self._check(encoded)
        return Embedding(encoded, frame)

    def _check(self, encoded: Encoded) -> None:
        embeddings = (level.embedding for level in encoded.levels)
        self.compute.check_finite(self.model.spec.name, *embeddings)

    def network_input(self, image: NDArray[Any], frame: InputTransform) -> Tensor:
        """Normalized values (C, Y, X) as the network's input (1, C, H, W)."""
        channels = self.model.spec.channels
        values = torch.zeros(1, len(channels), *frame.padded)
        height, width = frame.resized
        for index, channel in enumerate(channels):  # one at a time: there may be hundreds
            resized = torch.tensor(frame.resize(image[index : index + 1])[0])  # a copy
            values[0, index, :height, :width] = (resized - channel.mean) / channel.std
        return values

    def _encode_and_cache_job(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        """Encode a plane and cache it, in the precision in which it was computed."""
        self.compute.note = ""
        content = stack.key(index)  # of the values read now: the array may change meanwhile
        embedding = yield from self._run_encoder_job(stack, index)
        self.encodes += 1
        kept = Embedding(embedding.encoded.to(torch.device("cpu")), embedding.frame)
        key = self._key_of(content)  # the device may have changed
        # An embedding that was reduced for lack of memory is of no use once there is enough.
        self.cache.put(key, kept, lasting=kept.frame == self._frame(stack))
        return embedding

    def _key(self, stack: ChannelStack, index: tuple[int, ...]) -> str:
        return self._key_of(stack.key(index))

    def _key_of(self, content: str) -> str:
        device, precision = self.compute.device.type, self.compute.precision
        views = "-views" if self.average else ""
        return f"{self.model.fingerprint}-{content}-{device}-{precision}{views}"

    def _frame(self, stack: ChannelStack) -> InputTransform:
        """How a plane lies in the network's input if memory suffices."""
        return InputTransform.of(stack.shape[-2:], self.model.spec.input_size, stack.pixel_size)

    def _run_encoder_job(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        image = stack.normalized(index)
        compute, input_size = self.compute, self.model.spec.input_size
        while True:
            frame = InputTransform.of(image.shape[-2:], input_size, stack.pixel_size)
            values: Tensor | None = None
            try:
                values = self.network_input(image, frame).to(compute.device)
                network = compute.network
                encode = network.encode_views_job if self.average else network.encode_job
                encoded = yield from compute.run_job(encode(values))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                smaller = _smaller_input_size(input_size, frame)
            else:
                self._check(encoded)
                return Embedding(encoded, frame)
            # Outside the handler, where the failed run's tensors are already freed.
            values = None
            compute.release()
            if smaller is not None and compute.device.type != "cpu":
                input_size = smaller
                compute.remark(f"Memory ran out; encoding at {smaller.size} pixels instead.")
            else:
                input_size = self.model.spec.input_size
                compute.to_cpu()


def _smaller_input_size(input_size: InputSize, frame: InputTransform) -> InputSize | None:
    """Half the size, for a network that takes any; None if it does not, or this is too small."""
    half = max(frame.resized) // 2
    if input_size.method != "native" or half < 4 * input_size.multiple:
        return None
    return replace(input_size, size=half, minimum=min(input_size.minimum, half))

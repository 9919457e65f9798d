"""Images and prompts in, masks out: encodes an image once, answers every prompt from that."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_simmat.engine.answers import Answer
from napari_simmat.engine.devices import (
    NO_MEMORY,
    choose_device,
    choose_precision,
    computing,
    is_out_of_memory,
    release,
)
from napari_simmat.engine.embeddings import Embedding, EmbeddingCache
from napari_simmat.engine.frames import Frame
from napari_simmat.engine.images import ChannelStack, Statistics
from napari_simmat.engine.interrupted import Interrupted
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.results import Result, shrink
from napari_simmat.model.network import Decoded, Placed
from napari_simmat.progress import Job, Progress, finish, retold

if TYPE_CHECKING:
    from napari_simmat.engine.zoo import Model
    from napari_simmat.model.spec import InputSize

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Predictor:
    """A model at work on one image at a time.

    Parameters
    ----------
    model
        From `load_model`. Its network is moved to `device`.
    device
        ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
    precision
        ``"exact"`` (float32), ``"fast"`` (half precision where that is safe) or ``"auto"``
        (exact on a CPU, fast on a GPU). The same click gives the same mask on the same kind of
        device and precision.
    cache
        Where embeddings are kept; several predictors may share one.

    Attributes
    ----------
    device, precision
        What is in use.
    encodes
        How often the encoder ran.
    note
        The last remark in words, e.g. that memory ran out and what was done; else empty.

    Examples
    --------
    >>> from napari_simmat import Predictor, load_model
    >>> from skimage.data import coins
    >>> predictor = Predictor(load_model("tiny"))
    >>> predictor.set_image(coins())
    >>> predictor.predict(points=[(50, 45)]).mask.shape
    (303, 384)
    """

    def __init__(
        self,
        model: Model,
        device: str = "auto",
        precision: str = "auto",
        cache: EmbeddingCache | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.model = model
        self.cache = EmbeddingCache() if cache is None else cache
        self.encodes = 0
        self.note = ""
        self._network = model.network
        self._stack: ChannelStack | None = None
        self._embedding: Embedding | None = None
        self._glimpse: Embedding | None = None
        self._under_way: Interrupted[Embedding] = Interrupted()
        self._surviving(lambda: self._network.to(self.device))

    # ------------------------------------------------------------------ images

    def set_image(
        self,
        array: Any,
        channel_axis: int | None = None,
        channels: Sequence[int | str] | None = None,
        plane: int | Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        """Take an image and encode one plane of it.

        Parameters
        ----------
        array
            (..., Y, X) numpy, dask or zarr of any real type, or a list with one such array per
            channel.
        channel_axis
            The axis of `array` that holds channels. Without it the array is one channel, which
            an RGB model repeats.
        channels
            Which channels the model gets, by name or index; may repeat, e.g. ``(0, 1, 1)``.
        plane
            Index along the axes before Y and X; the first plane by default.
        names
            Names of the array's channels.
        statistics
            Normalise with these numbers instead of measuring the stack's own.

        Raises
        ------
        ValueError, TypeError
            If the image does not suit the model; one sentence says why. The image before stays.
        """
        finish(self.encoding(array, channel_axis, channels, plane, names, statistics))

    def encoding(
        self,
        array: Any,
        channel_axis: int | None = None,
        channels: Sequence[int | str] | None = None,
        plane: int | Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        statistics: Statistics | None = None,
    ) -> Job[None]:
        """`set_image` as a job: yields after every block of the encoder, closing it cancels."""
        stack = yield from self._measured(array, channel_axis, channels, names, statistics)
        yield from self._taking(stack, plane)

    def set_plane(self, index: int | Sequence[int]) -> None:
        """Move to another plane of the stack; its statistics stay those of the stack."""
        finish(self.moving(index))

    def moving(self, index: int | Sequence[int]) -> Job[None]:
        """`set_plane` as a job."""
        yield from self._taking(self._image(), index)

    def opening(
        self,
        array: Any,
        channel_axis: int | None = None,
        channels: Sequence[int | str] | None = None,
        names: Sequence[str] | None = None,
        statistics: Statistics | None = None,
    ) -> Job[None]:
        """Take an image as `encoding` does, but encode nothing of it yet; for `cutting`."""
        stack = yield from self._measured(array, channel_axis, channels, names, statistics)
        self._stack, self._embedding = stack, None

    def glimpsing(self, plane: int | Sequence[int] | None = None) -> Job[bool]:
        """Encode a plane coarsely, to answer prompts until `moving` has encoded it whole.

        It takes about a sixth of the time. Masks are a preview: `is_preview` is True meanwhile.

        Returns
        -------
        Whether there is a preview; there is none where the plane is kept already, or where the
        network is quick enough without.
        """
        stack = self._image()
        index = _index(plane, len(stack.shape) - 2)
        if self._key(stack.key(index)) in self.cache:
            return False
        image = stack.normalized(index)
        frame = Frame.of(image.shape[-2:], self.model.spec.input_size)
        job = self._network.glimpsing(self._input(image, frame).to(self.device))
        if job is None:
            return False
        encoded = yield from self._computing(job, choose_precision("fast", self.device))
        self._embedding = self._glimpse = Embedding(encoded, frame)
        return True

    @property
    def is_preview(self) -> bool:
        """Whether answers are given from what `glimpsing` encoded."""
        return self._embedding is not None and self._embedding is self._glimpse

    def cutting(
        self, index: int | Sequence[int], rows: slice, columns: slice, *, keep: bool = True
    ) -> Job[None]:
        """Encode a part of a plane, normalised as the whole image is.

        Prompts are then in the part's own pixels, until a plane is set. Without `keep` the
        embedding is not cached: a large image has many parts that are asked but once.
        """
        stack = self._image()
        part = stack.part(_index(index, len(stack.shape) - 2), rows, columns)
        if keep:
            self._embedding = yield from self._embedded(part, ())
        else:
            self._embedding = None  # one at a time
            self._embedding = yield from self._encoding(part, ())
            self.encodes += 1

    @contextmanager
    def keeping_plane(self) -> Iterator[None]:
        """Whatever is encoded within the block, the plane from before is current after it."""
        before = self._embedding
        try:
            yield
        finally:
            self._embedding = before
            if before is not None and before.encoded.embedding.device != self.device:
                encoded = before.encoded.to(self.device, torch.float32)
                self._embedding = Embedding(encoded, before.frame)

    def preparing(self, planes: Iterable[int | Sequence[int]]) -> Job[int]:
        """Encode planes ahead of their use; the current plane stays.

        Parameters
        ----------
        planes
            In the order in which they are wanted. Those in the cache are passed over.

        Returns
        -------
        How many of them, from the first on, are in the cache now: it ends where a further one
        would push out what was just made ready, unless all are kept on disk.
        """
        stack = self._image()
        wanted = [_index(plane, len(stack.shape) - 2) for plane in planes]
        largest = 0
        for done, index in enumerate(wanted):
            if self.cache.store is None and largest * (done + 1) > self.cache.max_bytes:
                return done
            words = f"encoding plane {', '.join(map(str, index))}" if index else "encoding"
            here = Progress(done, len(wanted), words)
            yield here
            if self._key(stack.key(index)) not in self.cache:
                embedding = yield from retold(self._embedded(stack, index), here)
                largest = max(largest, embedding.encoded.nbytes)
        return len(wanted)

    def beside(self) -> Predictor:
        """Another predictor of the same model, image and cache, with a current plane of its own.

        So long work can be left in the middle, clicks on other planes answered, and gone on with.
        """
        other = Predictor(self.model, str(self.device), self.precision, self.cache)
        other._stack, other._under_way = self._stack, self._under_way
        return other

    @property
    def stack(self) -> ChannelStack:
        """The image as the model reads it."""
        return self._image()

    @property
    def statistics(self) -> Statistics:
        """The numbers with which the image is normalised."""
        return self._image().statistics

    @property
    def shape(self) -> tuple[int, ...]:
        """The image's shape (..., Y, X) without channels."""
        return self._image().shape

    def _image(self) -> ChannelStack:
        if self._stack is None:
            raise RuntimeError("There is no image yet; call set_image first.")
        return self._stack

    # ----------------------------------------------------------------- prompts

    def predict(
        self,
        points: Any = None,
        labels: Any = None,
        box: Any = None,
        mask: NDArray[Any] | None = None,
    ) -> Result:
        """Answer one prompt on the current plane.

        Parameters
        ----------
        points
            Positions (N, 2) as y, x in image pixels; integers are the pixels' centres.
        labels
            1 (the object) or 0 (not the object) for each point; all 1 by default.
        box
            y0, x0, y1, x1, half-open.
        mask
            (Y, X) bool, or the `logits` of an earlier result on this plane.

        Raises
        ------
        ValueError, TypeError
            If the prompt is empty or outside the image; one sentence says why.
        """
        prompt = Prompt(
            points=() if points is None else tuple(points),
            labels=() if labels is None else tuple(labels),
            box=None if box is None else tuple(box),
            mask=mask,
        )
        return self.predict_many([prompt])[0]

    def predict_many(self, prompts: Sequence[Prompt]) -> list[Result]:
        """Answer several prompts on the current plane, one `Result` each, in order."""
        return finish(self.predicting(prompts))

    def predicting(self, prompts: Sequence[Prompt]) -> Job[list[Result]]:
        """`predict_many` as a job that yields after every prompt."""
        if self._embedding is None:
            raise RuntimeError("There is no image yet; call set_image first.")
        for prompt in prompts:
            prompt.check_inside(self._embedding.frame.image)
            self._check_logits(prompt, self._embedding.frame)
        results = []
        for done, prompt in enumerate(prompts, start=1):
            results.append(self._surviving(lambda prompt=prompt: self._decode(prompt)))
            yield Progress(done, len(prompts), "predicting")
        return results

    def answer(self, prompts: Sequence[Prompt], least: float = -math.inf) -> list[Answer]:
        """Answer prompts on what is encoded, their masks formed only where they are asked for.

        Lone positive clicks are decoded together; hand over only as many as memory allows.

        Parameters
        ----------
        least
            A click all of whose masks are estimated below it may get estimates alone: SAM's
            decoder knows them before it forms a mask.
        """
        if self._embedding is None:
            raise RuntimeError("There is no image yet; call set_image first.")
        clicks = [n for n, prompt in enumerate(prompts) if _is_a_click(prompt)]
        answers: dict[int, Answer] = {}
        if clicks:
            points = [prompts[n].points[0] for n in clicks]
            found = self._surviving(lambda: self._clicked(points, least))
            answers = dict(zip(clicks, found, strict=True))
        for n, prompt in enumerate(prompts):
            if n not in answers:
                answers[n] = self._surviving(lambda prompt=prompt: self._answered(prompt))
        return [answers[n] for n in range(len(prompts))]

    def unload(self) -> None:
        """Forget the image and move the network to main memory, freeing a GPU's."""
        self._embedding = self._stack = None
        self._under_way.clear()
        self._network.to("cpu")
        release(self.device)

    # ---------------------------------------------------------------- encoding

    def _measured(
        self,
        array: Any,
        channel_axis: int | None,
        channels: Sequence[int | str] | None,
        names: Sequence[str] | None,
        statistics: Statistics | None,
    ) -> Job[ChannelStack]:
        stack = ChannelStack.build(
            array,
            spec=self.model.spec,
            channel_axis=channel_axis,
            channels=channels,
            names=names,
            statistics=statistics,
        )
        yield from stack.measuring()
        return stack

    def _taking(self, stack: ChannelStack, plane: int | Sequence[int] | None) -> Job[None]:
        """Encode a plane, or remember it, and only then make it the current one."""
        embedding = yield from self._embedded(stack, _index(plane, len(stack.shape) - 2))
        self._stack, self._embedding = stack, embedding

    def _embedded(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        """From the cache, or encoded; what was begun and left is gone on with."""
        while True:
            key = self._key(stack.key(index))
            embedding = self.cache.get(key)
            if embedding is None:
                start = partial(self._encoding_anew, stack, index)
                embedding = yield from self._under_way.going_on(key, start)
            if embedding is not None:
                return Embedding(embedding.encoded.to(self.device), embedding.frame)

    def _encoding_anew(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        """Encode a plane and keep it, in the precision in which it was computed."""
        self.note = ""
        embedding = yield from self._encoding(stack, index)
        self.encodes += 1
        kept = Embedding(embedding.encoded.to(torch.device("cpu")), embedding.frame)
        self.cache.put(self._key(stack.key(index)), kept)  # the device may have changed
        return embedding

    def _key(self, image: str) -> str:
        return f"{self.model.fingerprint}-{image}-{self.device.type}-{self.precision}"

    def _encoding(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        image = stack.normalized(index)
        input_size = self.model.spec.input_size
        while True:
            frame = Frame.of(image.shape[-2:], input_size)
            tensor: Tensor | None = None
            try:
                tensor = self._input(image, frame).to(self.device)
                encoded = yield from self._computing(self._network.encoding(tensor))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                smaller = _smaller(input_size, frame)
            else:
                return Embedding(encoded, frame)
            # Outside the handler, so that the failed run's tensors are gone by now.
            tensor = None
            release(self.device)
            if smaller is not None and self.device.type != "cpu":
                input_size = smaller
                self._remark(f"Memory ran out; encoding at {smaller.size} pixels instead.")
            else:
                input_size = self.model.spec.input_size
                self._to_cpu()

    def _input(self, image: NDArray[Any], frame: Frame) -> Tensor:
        """Normalised values (C, Y, X) as the network's input (1, C, H, W)."""
        channels = self.model.spec.channels
        values = torch.zeros(1, len(channels), *frame.padded)
        height, width = frame.resized
        for index, channel in enumerate(channels):  # one at a time: there may be hundreds
            resized = torch.tensor(frame.resize(image[index : index + 1])[0])  # a copy
            values[0, index, :height, :width] = (resized - channel.mean) / channel.std
        return values

    def _computing(self, job: Job[T], precision: str = "") -> Job[T]:
        """Run a job's steps without gradients in the chosen precision, and only its steps."""
        while True:
            with torch.no_grad(), computing(self.device, precision or self.precision):
                try:
                    progress = next(job)
                except StopIteration as end:
                    result: T = end.value
                    return result
            yield progress

    # ---------------------------------------------------------------- decoding

    def _decode(self, prompt: Prompt) -> Result:
        assert self._embedding is not None
        frame = self._embedding.frame
        decoded = self._decoded(prompt)
        logits, quality = decoded.logits.cpu(), decoded.quality.cpu()
        lone = len(prompt.points) == 1 and prompt.box is None and prompt.mask is None
        stock = self.model.spec.mask_choice == "stock"
        chosen = 1 + int(quality[1:].argmax()) if stock and lone else 0
        return Result(logits, quality, chosen, frame, self._network.mask_stride)

    def _answered(self, prompt: Prompt) -> Answer:
        assert self._embedding is not None
        return self._placed(Placed(*self._decoded(prompt)))

    def _clicked(self, points: Sequence[tuple[float, float]], least: float) -> list[Answer]:
        assert self._embedding is not None
        encoded, frame = self._embedding
        clicks = torch.tensor(frame.to_input(points), device=self.device)
        with torch.no_grad(), computing(self.device, self.precision):
            found = self._network.decode_clicks(encoded, clicks, least)
            return [self._placed(one) for one in found]

    def _placed(self, one: Placed) -> Answer:
        assert self._embedding is not None
        frame, stride = self._embedding.frame, self._network.mask_stride
        return Answer(one.logits, one.quality.cpu().numpy(), one.top, one.left, frame, stride)

    def _decoded(self, prompt: Prompt) -> Decoded:
        assert self._embedding is not None
        encoded, frame = self._embedding
        stride = self._network.mask_stride
        points = labels = box = mask = None
        if prompt.points:
            points = torch.tensor(frame.to_input(prompt.points), device=self.device)
            labels = torch.tensor(prompt.labels, device=self.device)
        if prompt.box is not None:
            box = torch.tensor(frame.box_to_input(prompt.box), device=self.device)
        if prompt.mask is not None:
            given = prompt.mask
            logits = shrink(given, frame, stride) if given.dtype == bool else _tensor(given)
            mask = logits.to(self.device)
        with torch.no_grad(), computing(self.device, self.precision):
            return self._network.decode(encoded, points, labels, box, mask)

    def _check_logits(self, prompt: Prompt, frame: Frame) -> None:
        if prompt.mask is None or prompt.mask.dtype == bool:
            return
        grid = frame.grid(self._network.mask_stride)
        if prompt.mask.shape != grid:
            raise ValueError(
                f"The mask's logits have shape {prompt.mask.shape}, this image needs {grid}; use "
                "the logits of a result on this image, or a bool mask of the image's size."
            )

    # ------------------------------------------------------------------ memory

    def _surviving(self, compute: Any) -> Any:
        """Compute; where a GPU's memory runs out, go on with the CPU and say so."""
        while True:
            try:
                return compute()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            release(self.device)
            self._to_cpu()

    def _to_cpu(self) -> None:
        if self.device.type == "cpu":
            raise MemoryError(NO_MEMORY)
        before, self.device = self.device, torch.device("cpu")
        self.precision = "exact"
        self._network.to(self.device)
        if self._embedding is not None:
            encoded = self._embedding.encoded.to(self.device, torch.float32)
            self._embedding = Embedding(encoded, self._embedding.frame)
        release(before)
        self._remark(f"The memory of {before.type} ran out; computing on the CPU instead.")

    def _remark(self, note: str) -> None:
        self.note = note
        logger.warning(note)


def _smaller(input_size: InputSize, frame: Frame) -> InputSize | None:
    """Half the size where the network takes any; None where it does not or gets too small."""
    half = max(frame.resized) // 2
    if input_size.method != "native" or half < 4 * input_size.multiple:
        return None
    return replace(input_size, size=half, minimum=min(input_size.minimum, half))


def _is_a_click(prompt: Prompt) -> bool:
    return prompt.labels == (1,) and prompt.box is None and prompt.mask is None


def _index(plane: int | Sequence[int] | None, leading: int) -> tuple[int, ...]:
    if plane is None:
        return (0,) * leading
    indices: Iterator[int] = iter([plane] if isinstance(plane, (int, np.integer)) else plane)
    return tuple(int(each) for each in indices)


def _tensor(logits: NDArray[Any]) -> Tensor:
    return torch.tensor(logits, dtype=torch.float32)[None, None]

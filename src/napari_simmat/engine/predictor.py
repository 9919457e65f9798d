"""`Predictor`: encodes an image once and predicts masks from any number of prompts."""

from __future__ import annotations

import math
import reprlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from napari_simmat.engine.coordinates import BoxCorners, InputTransform
from napari_simmat.engine.detail_windows import DetailWindows
from napari_simmat.engine.device import ComputeContext, is_out_of_memory, network_input
from napari_simmat.engine.embeddings import Embedding, EmbeddingCache, PlaneEncoder
from napari_simmat.engine.image_stack import ChannelStack, StackOptions
from napari_simmat.engine.masks import Window
from napari_simmat.engine.normalization import Statistics
from napari_simmat.engine.object_regions import ObjectMaps
from napari_simmat.engine.prompt_decoder import NO_MAPS, PromptDecoder
from napari_simmat.engine.prompts import GivenNumbers, GivenPoints, Prompt
from napari_simmat.engine.remote import EncoderKind, RemoteEncoder, is_address, local_device
from napari_simmat.engine.result import Result
from napari_simmat.engine.settings import Compute, Precision, Quality
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.network import ClickEstimates
from napari_simmat.models.object_decoder import ObjectDecoder, decode_image_job
from napari_simmat.models.spec import Model
from napari_simmat.models.tiny import TinyNetwork
from napari_simmat.progress import Job, Progress, finish, with_progress

if TYPE_CHECKING:
    from napari_simmat.models.network import Encoded
    from napari_simmat.models.sam2_memory import Memories, ObjectMemory

T = TypeVar("T")
OTHER_IMAGE = (
    "One image at a time: another thread has set another one. Give each thread its own Predictor."
)
NO_MODEL = "A predictor reads a loaded model, load_model(...), not {}."
NO_IMAGE = "There is no image yet; call set_image first."
NO_FINDER = "{} was not loaded with tiny, which finds objects for it; take load_model(...)."


class Predictor:
    """A model applied to one image at a time.

    Parameters
    ----------
    model
        From `load_model`. Its network is moved to `device`.
    device
        ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``. With
        the address of a Dask scheduler, e.g. ``"tcp://10.0.0.1:8786"``, planes are encoded on its
        workers, as long as that can be done, and prompts are decoded here.
    precision
        ``"exact"`` (float32), ``"fast"`` (half precision where that is safe) or ``"auto"``
        (exact on a CPU, fast on a GPU). The same click gives the same mask on the same kind of
        device and precision.
    quality
        ``"best"`` averages the masks of four views of the image, two of them reflected, one
        transposed: the embedded foundation's masks of clicks get better, encoding and predicting
        take four times as long. Other networks stay at ``"fast"``.
    cache
        Keeps the embeddings; several predictors may share one.

    Notes
    -----
    A plane larger than the model's input is reduced. Prompts on objects that become too small for
    the network then, are predicted in a window of the plane at full resolution.

    Threads may share a predictor, whose calls wait for each other. A thread whose image another one
    has replaced gets a RuntimeError: give each its own, with the same model and cache. Jobs
    (``..._job``) neither wait nor check: those of one predictor belong to one thread at a time.

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
        quality: Quality = "fast",
    ) -> None:
        if not isinstance(model, Model):
            raise TypeError(NO_MODEL.format(reprlib.repr(model)))
        if quality not in get_args(Quality):
            raise ValueError(f"Quality is fast or best, not {quality!r}.")
        self.model = model
        cache = EmbeddingCache() if cache is None else cache
        remote = RemoteEncoder(device, precision) if is_address(device) else None
        self._compute = ComputeContext(model.network, local_device(device), precision)
        self._encoder = PlaneEncoder(model, self._compute, cache, quality == "best", remote)
        self._decoder = PromptDecoder(model, self._compute)
        self._stack: ChannelStack | None = None
        self._embedding: Embedding | None = None
        self._plane: tuple[int, ...] | None = None
        self._turn = threading.RLock()
        self._key: str | None = None  # of the plane, unless a job has set it
        self._of_thread = threading.local()  # `key`: of the plane that the thread has set
        self._finder: Predictor | None = None  # until objects are to be found by `tiny`
        self._source: tuple[object, ...] = ()

    @property
    def device(self) -> torch.device:
        """The device in use."""
        return self._compute.device

    @property
    def precision(self) -> Precision:
        """The precision in use, ``"exact"`` or ``"fast"``."""
        return self._compute.precision

    @property
    def quality(self) -> Quality:
        """The quality in use, ``"fast"`` or ``"best"``."""
        return "best" if self._encoder.average else "fast"

    @property
    def compute(self) -> Compute:
        """Device, or the address of what encodes, precision and quality in use."""
        remote = self._encoder.remote
        device = str(self.device) if remote is None else remote.address
        return Compute(device=device, precision=self.precision, quality=self.quality)

    @property
    def encoder_kind(self) -> EncoderKind:
        """The kind of device that encodes, here or elsewhere, and its precision."""
        return self._encoder.kind

    def connect_job(self) -> Job[None]:
        """Connect to the cluster that encodes, if there is one; OSError if it cannot be used."""
        if self._encoder.remote is not None:
            yield from self._encoder.remote.connect_job()

    @property
    def cache(self) -> EmbeddingCache:
        """The cache of embeddings."""
        return self._encoder.cache

    @cache.setter
    def cache(self, cache: EmbeddingCache) -> None:
        self._encoder.cache = cache

    @property
    def encodes(self) -> int:
        """How often the encoder ran."""
        return self._encoder.encodes

    @property
    def note(self) -> str:
        """The last remark, e.g. that memory ran out and what was done; otherwise empty."""
        return self._compute.note

    @note.setter
    def note(self, note: str) -> None:
        self._compute.note = note

    def set_image(
        self,
        array: Any,
        channel_axis: int | None = None,
        channels: Sequence[int | str] | None = None,
        plane: int | Sequence[int] | None = None,
        **more: Unpack[StackOptions],
    ) -> None:
        """Set the image and encode one plane of it.

        Parameters
        ----------
        array
            (..., Y, X) numpy, dask or zarr of any real type, or a list with one such array per
            channel.
        channel_axis
            The axis of `array` that holds channels. Without it the array is one channel, which
            an RGB model repeats.
        channels
            The channels that the model gets, by name or index; may repeat, e.g. ``(0, 1, 1)``.
        plane
            Index along the axes before Y and X; the first plane by default.

        Other Parameters
        ----------------
        channel_names
            Names of the array's channels.
        statistics
            Normalize with these instead of measuring the stack's own.
        pixel_size
            Height and width of a pixel, in any unit. If they differ, as in a side view of a stack,
            the network sees the plane resampled to square pixels; prompts and masks stay in the
            array's own pixels.

        Raises
        ------
        ValueError, TypeError
            If the image does not suit the model, or the model computes NaN or infinity. The
            previous image stays.
        """
        self._set(self.set_image_job(array, channel_axis, channels, plane, **more))

    def set_image_job(
        self,
        array: Any,
        channel_axis: int | None = None,
        channels: Sequence[int | str] | None = None,
        plane: int | Sequence[int] | None = None,
        **more: Unpack[StackOptions],
    ) -> Job[None]:
        """`set_image` as a job: yields after every block of the encoder; closing it cancels."""
        stack = yield from self._stack_job(array, channel_axis, channels, more)
        self._compute.try_again()
        yield from self._set_plane_job(stack, plane)

    def set_plane(self, index: int | Sequence[int]) -> None:
        """Move to another plane of the stack; it is normalized as the whole stack."""
        self._set(self.set_plane_job(index))

    def set_plane_job(self, index: int | Sequence[int]) -> Job[None]:
        """`set_plane` as a job."""
        yield from self._set_plane_job(self.stack, index)

    def open_image_job(
        self,
        array: Any,
        channel_axis: int | None = None,
        channels: Sequence[int | str] | None = None,
        **more: Unpack[StackOptions],
    ) -> Job[None]:
        """Set the image without encoding any of it, before `encode_tile_job`."""
        self._open((yield from self._stack_job(array, channel_axis, channels, more)))

    def _open(self, stack: ChannelStack) -> None:
        self._stack = stack
        self._embedding = None
        self._plane = None
        self._key = None
        self._source = ()

    def encode_tile_job(
        self, index: int | Sequence[int], rows: slice, columns: slice, *, keep: bool = True
    ) -> Job[None]:
        """Encode a part of a plane, normalized as the whole image.

        Prompts are then in the part's own pixels, until a plane is set. Without `keep` the
        embedding is not cached: the many tiles of a large image are used only once.
        """
        stack = self.stack
        part = stack.part(_index(index, stack), rows, columns)
        self._plane = self._key = None
        if keep:
            self._embedding = yield from self._encoder.embed_job(part, ())
        else:
            self._embedding = None  # one at a time
            self._embedding = yield from self._encoder.encode_job(part, ())

    @contextmanager
    def keeping_plane(self) -> Iterator[None]:
        """Context after which the current plane is the one before it."""
        before = self._embedding, self._plane, self._key
        try:
            yield
        finally:
            self._embedding, self._plane, self._key = before

    def prefetch_job(self, planes: Iterable[int | Sequence[int]]) -> Job[int]:
        """Encode `planes` in their order ahead of use; the current plane stays.

        Returns
        -------
        How many of them, from the first on, are now in the cache. It stops before a plane would
        push out one that was just encoded, unless all are stored on disk.
        """
        stack = self.stack
        wanted = [_index(plane, stack) for plane in planes]
        largest = 0
        for done, index in enumerate(wanted):
            if not self.cache.keeps_on_disk and largest * (done + 1) > self.cache.max_bytes:
                return done
            words = f"encoding plane {', '.join(map(str, index))}" if index else "encoding"
            here = Progress(done, len(wanted), words)
            yield here
            if not self.is_encoded(index):
                embedding = yield from with_progress(self._encoder.embed_job(stack, index), here)
                largest = max(largest, embedding.encoded.nbytes)
        return len(wanted)

    def is_encoded(self, index: int | Sequence[int]) -> bool:
        """Whether a plane is in the cache."""
        return self._encoder.is_cached(self.stack, _index(index, self.stack))

    def sibling(self) -> Predictor:
        """Another predictor of the same model, image and cache, with its own current plane.

        So a long job can be interrupted for clicks on other planes.
        """
        other = Predictor(self.model, cache=self.cache, **asdict(self.compute))
        other._stack = self._stack
        other._encoder.remote = self._encoder.remote
        other._encoder.resumable = self._encoder.resumable
        other._finder = None if self._finder is None else self._finder.sibling()
        return other

    def finder_job(self) -> Job[Predictor]:
        """Load `tiny`, which finds objects for this model: a predictor without an image.

        It is this one, with its image, if its model has `tiny`'s decoder itself. ValueError if the
        model came without.
        """
        if isinstance(self.model.decoder, ObjectDecoder):
            return self
        if self._finder is None:
            if self.model.finder is None:
                raise ValueError(NO_FINDER.format(self.model.spec.name))
            model = yield from self.model.finder()
            self._finder = Predictor(model, str(self.device), self.precision, EmbeddingCache(0))
        return self._finder

    def read_job(self, stack: ChannelStack, source: tuple[object, ...] = ()) -> Job[None]:
        """Set an image like `open_image_job`, as channels that were chosen before.

        `source` says of what they were made.
        """
        yield from stack.measure_job()
        self._open(stack)
        self._source = source

    @property
    def source(self) -> tuple[object, ...]:
        """What the image was made of, as `read_job` was told; empty for any other image."""
        return self._source

    @property
    def stack(self) -> ChannelStack:
        """The image as the model reads it; RuntimeError before there is one."""
        if self._stack is None:
            raise RuntimeError(NO_IMAGE)
        return self._stack

    @property
    def plane(self) -> tuple[int, ...]:
        """Index of the current plane along the axes before Y and X."""
        if self._plane is None:
            raise RuntimeError(NO_IMAGE)
        return self._plane

    @property
    def statistics(self) -> Statistics:
        """The statistics with which the image is normalized."""
        return self.stack.statistics

    @property
    def shape(self) -> tuple[int, ...]:
        """The image's shape (..., Y, X) without channels."""
        return self.stack.shape

    @property
    def encoded(self) -> Encoded:
        """The current plane's encoding as the decoder gets it."""
        return self._current().encoded

    @property
    def embedding(self) -> NDArray[np.float32]:
        """The current plane's embedding (D, h, w), whose cells cover the plane evenly."""
        encoded, transform = self._current()
        level = next((each for each in encoded.levels if each.scale <= 1), encoded)
        rows, columns = (
            max(1, round(cells * length * level.scale / padded))
            for cells, length, padded in zip(
                level.embedding.shape[-2:], transform.resized, level.input_size, strict=True
            )
        )
        return np.asarray(level.embedding[0, :, :rows, :columns].float().cpu().numpy())

    def predict(
        self,
        points: GivenPoints | None = None,
        labels: GivenNumbers | None = None,
        box: GivenNumbers | None = None,
        mask: NDArray[Any] | None = None,
    ) -> Result:
        """Predict the masks of one prompt on the current plane.

        Parameters
        ----------
        points
            Positions (N, 2) as y, x in image pixels; integers are the pixels' centers.
        labels
            1 (positive) or 0 (negative) for each point; all 1 by default.
        box
            y0, x0, y1, x1, half-open.
        mask
            (Y, X) bool, or the `logits` of an earlier result on this plane.

        Raises
        ------
        ValueError, TypeError
            If the prompt is empty or outside the image, or the model computes NaN or infinity.
        """
        prompt = Prompt(
            points=() if points is None else tuple(points),
            labels=() if labels is None else tuple(labels),
            box=None if box is None else tuple(box),
            mask=mask,
        )
        return self.predict_many([prompt])[0]

    def predict_many(self, prompts: Sequence[Prompt]) -> list[Result]:
        """Predict several prompts on the current plane, one `Result` each, in order."""
        with self._turn:
            if self._key and getattr(self._of_thread, "key", self._key) != self._key:
                raise RuntimeError(OTHER_IMAGE)
            return finish(self.predict_many_job(prompts))

    def predict_many_job(self, prompts: Sequence[Prompt]) -> Job[list[Result]]:
        """`predict_many` as a job that yields after every prompt."""
        transform = self._current().transform
        windows = None
        if self._plane is not None:  # a tile is not reduced
            size, stride = self.model.spec.input_size, self._compute.network.mask_stride
            windows = DetailWindows.of(transform, size, stride)
        for prompt in prompts:
            if windows is not None and windows.refines(prompt):
                prompt.check_inside(transform.image)
            else:
                self._decoder.check(prompt, transform)
        results = []
        for done, prompt in enumerate(prompts, start=1):
            if windows is None:
                results.append(self._decode(partial(self._decoder.result, prompt=prompt)))
            else:
                results.append((yield from self._predict_reduced_job(prompt, windows)))
            yield Progress(done, len(prompts), "predicting")
        return results

    def _predict_reduced_job(self, prompt: Prompt, windows: DetailWindows) -> Job[Result]:
        """Predict on a plane that was reduced; what is small, in a window at full resolution."""
        window = windows.around(prompt)
        assert self._plane is not None
        if windows.refines(prompt):
            if window is not None:
                return (yield from self.predict_in_window_job(self._plane, prompt, window))
            # A click beyond the window of the clicks before it: the plane shows all of them.
            prompt = replace(prompt, mask=windows.drawn(prompt))
        result = self._decode(partial(self._decoder.result, prompt=prompt))
        is_refined = prompt.mask is not None and prompt.mask.dtype != bool
        if window is None or is_refined or not windows.lost_detail(prompt, result.mask):
            return result
        detailed = yield from self.predict_in_window_job(self._plane, prompt, window)
        return result if windows.cut(detailed.mask, window) else detailed

    def predict_in_window_job(
        self, plane: Sequence[int], prompt: Prompt, window: Window
    ) -> Job[Result]:
        """Predict in a window of a plane, rows and columns, that is encoded at full resolution.

        The prompt is in pixels of the plane, and so are the masks; the current plane stays.
        """
        with self.keeping_plane():
            yield from self.encode_tile_job(plane, *window)
            # The prompt in the pixels of the window; logits of an earlier result are so already.
            top, left = window[0].start, window[1].start
            box, mask = prompt.box, prompt.mask
            if box is not None:
                box = box[0] - top, box[1] - left, box[2] - top, box[3] - left
            if mask is not None and mask.dtype == bool:
                mask = mask[window]
            points = tuple((y - top, x - left) for y, x in prompt.points)
            inner = replace(prompt, points=points, box=box, mask=mask)
            result = self._decode(partial(self._decoder.result, prompt=inner))
        height, width = self.shape[-2:]
        return result.placed(window, (height, width))

    def predict_low_res(
        self,
        prompts: Sequence[Prompt],
        minimum: float = -math.inf,
        expected: ExpectedSize | None = None,
    ) -> list[Result]:
        """Predict prompts whose masks are read as parts, with `Result.patch`.

        Single positive clicks are decoded together, so pass only as many as memory allows. A click
        whose predicted IoUs are all below `minimum` may get no masks: SAM's decoder knows the
        estimates before it forms a mask. A click means an object of the `expected` size; by default
        of the size that the model has learned.

        The predicted IoU is not calibrated: *Everything*, which chooses among such masks, finds
        fewer objects where it is, by the figures of the report on the benchmark.
        """
        points = [prompt.points[0] for prompt in prompts if prompt.is_a_click]
        decode = partial(
            self._decoder.predict_clicks, points=points, minimum=minimum, expected=expected
        )
        of_clicks = iter(self._decode(decode) if points else ())
        return [
            next(of_clicks)
            if prompt.is_a_click
            else self._decode(partial(self._decoder.predict_low_res, prompt=prompt))
            for prompt in prompts
        ]

    @property
    def has_memory(self) -> bool:
        """Whether the network finds objects by what it remembers of them on other planes."""
        return self._compute.network.has_memory

    @property
    def most_given(self) -> int:
        """Annotated planes that the network recalls at once; 0 without a memory."""
        return self._compute.network.most_given

    def find_named(
        self, words: str, examples: Sequence[BoxCorners] = (), minimum: float = 0.0
    ) -> list[Result]:
        """Find all objects on the current plane that words mean, the likeliest first.

        Parameters
        ----------
        words
            In English; ``"visual"`` for objects like the examples, whatever they are called.
        examples
            Half-open boxes y0, x0, y1, x1 of objects that are meant.
        minimum
            Least score, which is `Result.score`.

        Raises
        ------
        ValueError
            If an example lies outside, or the model has no vocabulary for the words.
        """
        find = partial(self._decoder.find_named, words=words, examples=examples, minimum=minimum)
        return self._decode(find)

    def remember(self, mask: NDArray[np.bool_]) -> ObjectMemory:
        """What the network keeps of an object's mask (Y, X) on the current plane, for `recall`."""
        return self._decode(partial(self._decoder.remember, mask=mask))

    def recall(self, memories: Memories) -> tuple[Result, ObjectMemory]:
        """Find an object on the current plane by memory: its mask, empty if it is not there.

        Also what the network keeps of it on this plane. A plane larger than the model's input is
        seen reduced.
        """
        return self._decode(partial(self._decoder.recall, memories=memories))

    def estimate_clicks(self, prompts: Sequence[Prompt]) -> ClickEstimates | None:
        """What the network knows about single clicks without decoding them; sizes in image pixels.

        None if it knows nothing, as SAM.
        """
        points = [prompt.points[0] for prompt in prompts]
        estimates = self._decode(partial(self._decoder.estimate_clicks, points=points))
        if estimates is None or self.model.spec.is_foundation:
            return estimates
        unknown = torch.zeros_like(estimates.foreground)  # its head was not trained along
        return estimates._replace(foreground=unknown)

    def instance_maps_job(self) -> Job[NDArray[np.float32]]:
        """What the model's decoder predicts of the current plane, or part of it: (3, Y, X) in 0..1.

        See `decoded_objects.InstanceMaps`.

        If a GPU's memory runs out, it is computed again on the CPU. Raises ValueError if the model
        has no decoder.
        """
        return (
            yield from self._on_cpu_if_need_be_job(
                lambda: self._decoder.instance_maps_job(self._current())
            )
        )

    def object_maps_job(
        self,
        index: int | Sequence[int],
        box: tuple[slice, slice],
        transform: InputTransform,
        decoder: ObjectDecoder | None = None,
    ) -> Job[ObjectMaps]:
        """The maps of `tiny`'s decoder of all objects, of a part of a plane, at a scale.

        Another `decoder` may take the place of the model's own. If a GPU's memory runs out, it is
        computed again on the CPU.
        """
        part = self.stack.part(_index(index, self.stack), *box)
        decoder = decoder or self.object_decoder
        return (
            yield from self._on_cpu_if_need_be_job(
                lambda: self._object_maps_job(part, transform, decoder)
            )
        )

    def _object_maps_job(
        self, part: ChannelStack, transform: InputTransform, decoder: ObjectDecoder
    ) -> Job[ObjectMaps]:
        compute = self._compute
        assert isinstance(compute.network, TinyNetwork)
        values = network_input(self.model.spec, part.reduced((), transform), transform)
        decoder.to(compute.device)
        job = decode_image_job(compute.network, decoder, values.to(compute.device))
        decoded = yield from compute.run_job(job)
        compute.check_finite(self.model.spec.name, decoded.maps)
        return ObjectMaps.of(decoded, transform.resized)

    def object_features(
        self, index: int | Sequence[int], box: tuple[slice, slice], transform: InputTransform
    ) -> Encoded:
        """What `tiny`'s decoder of all objects decodes, of a part of a plane, at a scale.

        It is the encoding of an image that is small enough to be encoded at once.
        """
        compute = self._compute
        assert isinstance(compute.network, TinyNetwork)
        part = self.stack.part(_index(index, self.stack), *box)
        values = network_input(self.model.spec, part.reduced((), transform), transform)
        with compute.inference():
            return compute.network.features(values.to(compute.device))

    def _on_cpu_if_need_be_job(self, start: Callable[[], Job[T]]) -> Job[T]:
        """Run a job; if a GPU's memory runs out, start it again on the CPU."""
        while True:
            try:
                return (yield from start())
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler, where the failed run's tensors are already freed.
            self._compute.release()
            self._compute.to_cpu()

    def object_chances(
        self, measures: NDArray[np.float32], decoder: ObjectDecoder | None = None
    ) -> NDArray[np.float32]:
        """The chance that a region is an object (N,), of what is measured of it (N, M)."""
        decoder = (decoder or self.object_decoder).to(self._compute.device)
        with self._compute.inference("exact"):
            logits = decoder.score(torch.tensor(measures, device=self._compute.device))
        chances: NDArray[np.float32] = logits.sigmoid().mean(1).cpu().numpy()
        return chances

    @property
    def object_decoder(self) -> ObjectDecoder:
        """`tiny`'s decoder of all objects; ValueError if the model has none."""
        decoder = self.model.decoder
        if not isinstance(decoder, ObjectDecoder):
            raise ValueError(NO_MAPS.format(self.model.spec.name))
        return decoder

    def input_transform(self, size: tuple[int, int]) -> InputTransform:
        """How a part of a plane of `size` lies in the network's input if memory suffices."""
        return InputTransform.of(size, self.model.spec.input_size, self.stack.pixel_size)

    def _set(self, job: Job[None]) -> None:
        with self._turn:
            finish(job)
            self._of_thread.key = self._key = self.stack.key(self._plane or ())

    def _stack_job(
        self,
        array: Any,
        channel_axis: int | None,
        channels: Sequence[int | str] | None,
        more: StackOptions,
    ) -> Job[ChannelStack]:
        inputs = self.model.spec.inputs
        stack = ChannelStack.build(
            array, inputs=inputs, channel_axis=channel_axis, channels=channels, **more
        )
        yield from stack.measure_job()
        return stack

    def _set_plane_job(self, stack: ChannelStack, plane: int | Sequence[int] | None) -> Job[None]:
        """Encode a plane, or find it in the cache, and only then make it the current one."""
        index = _index(plane, stack)
        embedding = yield from self._encoder.embed_job(stack, index)
        if stack is not self._stack:
            self._source = ()
        self._stack = stack
        self._embedding = embedding
        self._plane = index
        self._key = None

    def _decode(self, decode: Callable[[Embedding], T]) -> T:
        """Decode on the current plane; if a GPU's memory runs out, again on the CPU."""
        return self._compute.with_oom_fallback(lambda: decode(self._current()))

    def _current(self) -> Embedding:
        """The current plane's embedding on the device in use, which may have changed."""
        current = self._embedding
        if current is None:
            raise RuntimeError(NO_IMAGE)
        if current.encoded.embedding.device.type != self.device.type:
            encoded = current.encoded.to(self.device, torch.float32)
            current = self._embedding = Embedding(encoded, current.transform)
        return current


def _index(plane: int | Sequence[int] | None, stack: ChannelStack) -> tuple[int, ...]:
    """A plane's index along the axes before Y and X; the first plane for None."""
    if plane is None:
        return (0,) * (len(stack.shape) - 2)
    return tuple(int(i) for i in ([plane] if isinstance(plane, (int, np.integer)) else plane))

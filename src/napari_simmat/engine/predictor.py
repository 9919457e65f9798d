"""`Predictor`: encodes an image once and predicts masks from any number of prompts."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.detail_windows import (
    detail_side,
    detail_window,
    in_window,
    is_cut,
    wants_detail,
)
from napari_simmat.engine.device import ComputeContext
from napari_simmat.engine.embeddings import Embedding, EmbeddingCache, PlaneEncoder
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.engine.masks import Window
from napari_simmat.engine.normalization import Statistics
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.result import Result, enlarge, shrink
from napari_simmat.engine.settings import Quality
from napari_simmat.models.network import ClickEstimates, DecodedMasks
from napari_simmat.progress import Job, Progress, finish, with_progress

if TYPE_CHECKING:
    from napari_simmat.models.network import Encoded
    from napari_simmat.models.spec import Model


T = TypeVar("T")
NO_IMAGE = "There is no image yet; call set_image first."


class Predictor:
    """A model applied to one image at a time.

    Parameters
    ----------
    model
        From `load_model`. Its network is moved to `device`.
    device
        ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
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

    Threads may share a predictor: `set_image`, `set_plane`, `predict` and `predict_many` wait for
    each other. A prediction is for the image that was set last, by whatever thread, so threads
    that work on different images need a predictor each; these may share model and cache. Jobs
    (``..._job``) do not wait: those of one predictor belong to one thread at a time.

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
        if quality not in get_args(Quality):
            raise ValueError(f"Quality is fast or best, not {quality!r}.")
        self.model = model
        cache = EmbeddingCache() if cache is None else cache
        self._compute = ComputeContext(model.network, device, precision)
        self._encoder = PlaneEncoder(model, self._compute, cache, quality == "best")
        self._decoder = PromptDecoder(model, self._compute)
        self._stack: ChannelStack | None = None
        self._embedding: Embedding | None = None
        self._preview: Embedding | None = None
        self._plane: tuple[int, ...] | None = None
        self._turn = threading.RLock()

    @property
    def device(self) -> torch.device:
        """The device in use."""
        return self._compute.device

    @property
    def precision(self) -> str:
        """The precision in use, ``"exact"`` or ``"fast"``."""
        return self._compute.precision

    @property
    def quality(self) -> Quality:
        """The quality in use, ``"fast"`` or ``"best"``."""
        return "best" if self._encoder.average else "fast"

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

    # ------------------------------------------------------------------ images

    def set_image(
        self,
        array: Any,
        channel_axis: int | None = None,
        channels: Sequence[int | str] | None = None,
        plane: int | Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        statistics: Statistics | None = None,
        pixel_size: tuple[float, float] | None = None,
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
        names
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
        self._finish(
            self.set_image_job(array, channel_axis, channels, plane, names, statistics, pixel_size)
        )

    def set_image_job(
        self,
        array: Any,
        channel_axis: int | None = None,
        channels: Sequence[int | str] | None = None,
        plane: int | Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        statistics: Statistics | None = None,
        pixel_size: tuple[float, float] | None = None,
    ) -> Job[None]:
        """`set_image` as a job: yields after every block of the encoder; closing it cancels."""
        stack = yield from self._build_stack_job(
            array, channel_axis, channels, names, statistics, pixel_size
        )
        yield from self._set_plane_job(stack, plane)

    def set_plane(self, index: int | Sequence[int]) -> None:
        """Move to another plane of the stack; it is normalized as the whole stack."""
        self._finish(self.set_plane_job(index))

    def set_plane_job(self, index: int | Sequence[int]) -> Job[None]:
        """`set_plane` as a job."""
        yield from self._set_plane_job(self._image(), index)

    def open_image_job(
        self,
        array: Any,
        channel_axis: int | None = None,
        channels: Sequence[int | str] | None = None,
        names: Sequence[str] | None = None,
        statistics: Statistics | None = None,
        pixel_size: tuple[float, float] | None = None,
    ) -> Job[None]:
        """Set the image without encoding any of it, before `encode_tile_job`."""
        stack = yield from self._build_stack_job(
            array, channel_axis, channels, names, statistics, pixel_size
        )
        self._stack, self._embedding, self._plane = stack, None, None

    def coarse_preview_job(self, plane: int | Sequence[int] | None = None) -> Job[bool]:
        """Encode a plane coarsely, for prompts until `set_plane_job` has encoded it fully.

        It takes about a sixth of the time. Until then `is_preview` is True.

        Returns
        -------
        Whether there is a preview. There is none if the plane is already or nearly encoded, or if
        the network or the device is fast enough without.
        """
        stack = self._image()
        index = _index(plane, stack)
        preview = yield from self._encoder.coarse_preview_job(stack, index)
        if preview is None:
            return False
        self._embedding = self._preview = preview
        return True

    @property
    def is_preview(self) -> bool:
        """Whether masks are predicted from a coarse encoding."""
        return self._embedding is not None and self._embedding is self._preview

    def encode_tile_job(
        self, index: int | Sequence[int], rows: slice, columns: slice, *, keep: bool = True
    ) -> Job[None]:
        """Encode a part of a plane, normalized as the whole image.

        Prompts are then in the part's own pixels, until a plane is set. Without `keep` the
        embedding is not cached: the many tiles of a large image are used only once.
        """
        stack = self._image()
        part = stack.part(_index(index, stack), rows, columns)
        self._plane = None
        if keep:
            self._embedding = yield from self._encoder.embed_job(part, ())
        else:
            self._embedding = None  # one at a time
            self._embedding = yield from self._encoder.embed_once_job(part, ())

    @contextmanager
    def keeping_plane(self) -> Iterator[None]:
        """Context after which the current plane is the one before it."""
        before = self._embedding, self._plane
        try:
            yield
        finally:
            self._embedding, self._plane = before

    def prefetch_job(self, planes: Iterable[int | Sequence[int]]) -> Job[int]:
        """Encode `planes` in their order ahead of use; the current plane stays.

        Returns
        -------
        How many of them, from the first on, are now in the cache. It stops before a plane would
        push out one that was just encoded, unless all are stored on disk.
        """
        stack = self._image()
        wanted = [_index(plane, stack) for plane in planes]
        largest = 0
        for done, index in enumerate(wanted):
            if not self.cache.keeps_on_disk and largest * (done + 1) > self.cache.max_bytes:
                return done
            words = f"encoding plane {', '.join(map(str, index))}" if index else "encoding"
            here = Progress(done, len(wanted), words)
            yield here
            if not self._encoder.has(stack, index):
                embedding = yield from with_progress(self._encoder.embed_job(stack, index), here)
                largest = max(largest, embedding.encoded.nbytes)
        return len(wanted)

    def sibling(self) -> Predictor:
        """Another predictor of the same model, image and cache, with its own current plane.

        So a long job can be interrupted for clicks on other planes.
        """
        other = Predictor(self.model, str(self.device), self.precision, self.cache, self.quality)
        other._stack = self._stack
        other._encoder.resumable = self._encoder.resumable
        return other

    @property
    def stack(self) -> ChannelStack:
        """The image as the model reads it."""
        return self._image()

    @property
    def statistics(self) -> Statistics:
        """The statistics with which the image is normalized."""
        return self._image().statistics

    @property
    def shape(self) -> tuple[int, ...]:
        """The image's shape (..., Y, X) without channels."""
        return self._image().shape

    @property
    def encoded(self) -> Encoded:
        """The current plane's encoding as the decoder gets it."""
        return self._current().encoded

    @property
    def embedding(self) -> NDArray[np.float32]:
        """The current plane's embedding (D, h, w), whose cells cover the plane evenly."""
        encoded, frame = self._current()
        level = next((each for each in encoded.levels if each.scale <= 1), encoded)
        rows, columns = (
            max(1, round(cells * length * level.scale / padded))
            for cells, length, padded in zip(
                level.embedding.shape[-2:], frame.resized, level.input_size, strict=True
            )
        )
        return np.asarray(level.embedding[0, :, :rows, :columns].float().cpu().numpy())

    def _image(self) -> ChannelStack:
        if self._stack is None:
            raise RuntimeError(NO_IMAGE)
        return self._stack

    # ----------------------------------------------------------------- prompts

    def predict(
        self,
        points: Any = None,
        labels: Any = None,
        box: Any = None,
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
        return self._finish(self.predict_many_job(prompts))

    def predict_many_job(self, prompts: Sequence[Prompt]) -> Job[list[Result]]:
        """`predict_many` as a job that yields after every prompt."""
        frame = self._current().frame
        side = self._detail_side()
        for prompt in prompts:
            if self._is_in_detail(prompt, side):
                prompt.check_inside(frame.image)
            else:
                self._decoder.check(prompt, frame)
        results = []
        for done, prompt in enumerate(prompts, start=1):
            if side is None:
                results.append(self._decode(partial(self._decoder.result, prompt=prompt)))
            else:
                results.append((yield from self._predict_reduced_job(prompt, side)))
            yield Progress(done, len(prompts), "predicting")
        return results

    def _predict_reduced_job(self, prompt: Prompt, side: int) -> Job[Result]:
        """Predict on a plane that was reduced; what is small, in a window at full resolution."""
        frame = self._current().frame
        window = detail_window(prompt, frame.image, side)
        in_detail = self._is_in_detail(prompt, side)
        if in_detail and window is None:  # a click beyond the window of the clicks before it
            prompt = replace(prompt, mask=self._drawn(prompt, side))
        elif in_detail and window is not None:
            return (yield from self._predict_in_window_job(prompt, window))
        result = self._decode(partial(self._decoder.result, prompt=prompt))
        is_refined = prompt.mask is not None and prompt.mask.dtype != bool
        if window is None or is_refined or not wants_detail(prompt, result.mask, frame.scale[0]):
            return result
        detailed = yield from self._predict_in_window_job(prompt, window)
        return result if is_cut(detailed.mask, window, frame.image) else detailed

    def _predict_in_window_job(self, prompt: Prompt, window: Window) -> Job[Result]:
        plane, image = self._plane, self._current().frame.image
        assert plane is not None
        with self.keeping_plane():
            yield from self.encode_tile_job(plane, *window)
            inner = in_window(prompt, window)
            result = self._decode(partial(self._decoder.result, prompt=inner))
        return result.placed(window, image)

    def _detail_side(self) -> int | None:
        """Side of the windows in which small objects are predicted; None if there is no need."""
        if self._plane is None or self.is_preview:
            return None
        return detail_side(self._current().frame, self.model.spec.input_size)

    def _is_in_detail(self, prompt: Prompt, side: int | None) -> bool:
        """Whether a prompt refines the logits of a window."""
        if side is None or prompt.mask is None or prompt.mask.dtype == bool:
            return False
        return bool(prompt.mask.shape == self._window_frame(side).grid(self._stride))

    def _drawn(self, prompt: Prompt, side: int) -> NDArray[np.bool_]:
        """The logits of a window as a mask (Y, X) of the plane."""
        image = self._current().frame.image
        first = replace(prompt, points=prompt.points[:1], labels=prompt.labels[:1], mask=None)
        window = detail_window(first, image, side)
        mask = np.zeros(image, bool)
        assert window is not None
        assert prompt.mask is not None
        logits = torch.tensor(prompt.mask)[None]
        mask[window] = enlarge(logits, self._window_frame(side), self._stride)[0].numpy() > 0
        return mask

    def _window_frame(self, side: int) -> InputTransform:
        return InputTransform.of((side, side), self.model.spec.input_size)

    @property
    def _stride(self) -> int:
        return self._compute.network.mask_stride

    def predict_low_res(self, prompts: Sequence[Prompt], least: float = -math.inf) -> list[Result]:
        """Predict prompts whose masks are read as parts, with `Result.patch`.

        Single positive clicks are decoded together, so pass only as many as memory allows. A click
        whose predicted IoUs are all below `least` may get no masks: SAM's decoder knows the
        estimates before it forms a mask.
        """
        clicks = [n for n, prompt in enumerate(prompts) if _is_a_click(prompt)]
        results: dict[int, Result] = {}
        if clicks:
            points = [prompts[n].points[0] for n in clicks]
            found = self._decode(lambda here: self._decoder.predict_clicks(here, points, least))
            results = dict(zip(clicks, found, strict=True))
        for n, prompt in enumerate(prompts):
            if n not in results:
                results[n] = self._decode(partial(self._decoder.predict_low_res, prompt=prompt))
        return [results[n] for n in range(len(prompts))]

    def estimate_clicks(self, prompts: Sequence[Prompt]) -> ClickEstimates | None:
        """What the network knows about single clicks without decoding them; sizes in image pixels.

        None if it knows nothing, as SAM.
        """
        points = [prompt.points[0] for prompt in prompts]
        found = self._decode(partial(self._decoder.estimate_clicks, points=points))
        if found is None or self.model.spec.is_foundation:
            return found
        return found._replace(foreground=torch.zeros_like(found.foreground))  # not trained along

    def unload(self) -> None:
        """Drop the image and move the network to main memory, to free a GPU's."""
        self._embedding = self._stack = None
        self._encoder.resumable.clear()
        self.model.network.to("cpu")
        self._compute.release()

    # ------------------------------------------------------------------- below

    def _finish(self, job: Job[T]) -> T:
        """Run a job to its end; a call from another thread waits."""
        with self._turn:
            return finish(job)

    def _build_stack_job(
        self,
        array: Any,
        channel_axis: int | None,
        channels: Sequence[int | str] | None,
        names: Sequence[str] | None,
        statistics: Statistics | None,
        pixel_size: tuple[float, float] | None,
    ) -> Job[ChannelStack]:
        stack = ChannelStack.build(
            array,
            inputs=self.model.spec.inputs,
            channel_axis=channel_axis,
            channels=channels,
            names=names,
            statistics=statistics,
            pixel_size=pixel_size,
        )
        yield from stack.measure_job()
        return stack

    def _set_plane_job(self, stack: ChannelStack, plane: int | Sequence[int] | None) -> Job[None]:
        """Encode a plane, or find it in the cache, and only then make it the current one."""
        index = _index(plane, stack)
        embedding = yield from self._encoder.embed_job(stack, index)
        self._stack, self._embedding, self._plane = stack, embedding, index

    def _decode(self, decode: Callable[[Embedding], T]) -> T:
        """Decode on the current plane; if a GPU's memory runs out, again on the CPU."""
        return self._compute.with_oom_fallback(lambda: decode(self._current()))

    def _current(self) -> Embedding:
        """The current plane's embedding on the device in use, which may have changed."""
        current = self._embedding
        if current is None:
            raise RuntimeError(NO_IMAGE)
        if current.encoded.embedding.device.type != self.device.type:
            moved = Embedding(current.encoded.to(self.device, torch.float32), current.frame)
            if self._preview is current:
                self._preview = moved
            self._embedding = current = moved
        return current


def _is_a_click(prompt: Prompt) -> bool:
    return prompt.labels == (1,) and prompt.box is None and prompt.mask is None


def _index(plane: int | Sequence[int] | None, stack: ChannelStack) -> tuple[int, ...]:
    """A plane's index along the axes before Y and X; the first plane for None."""
    if plane is None:
        return (0,) * (len(stack.shape) - 2)
    return tuple(int(i) for i in ([plane] if isinstance(plane, (int, np.integer)) else plane))


class PromptDecoder:
    """Decodes prompts on an embedding, with a model and its compute context."""

    def __init__(self, model: Model, compute: ComputeContext) -> None:
        self.model, self.compute = model, compute

    def check(self, prompt: Prompt, frame: InputTransform) -> None:
        """Raise ValueError if a prompt is outside the image, or its logits are of another image."""
        prompt.check_inside(frame.image)
        if prompt.mask is None or prompt.mask.dtype == bool:
            return
        grid = frame.grid(self.compute.network.mask_stride)
        if prompt.mask.shape != grid:
            raise ValueError(
                f"The mask's logits have shape {prompt.mask.shape}, this image needs {grid}; use "
                "the logits of a result on this image, or a bool mask of the image's size."
            )

    def result(self, embedding: Embedding, prompt: Prompt) -> Result:
        """The masks of a prompt, led by the one that the model's description declares."""
        decoded = self._decoded(embedding, prompt)
        quality = decoded.predicted_iou.cpu()
        lone = len(prompt.points) == 1 and prompt.box is None and prompt.mask is None
        stock = self.model.spec.mask_choice == "stock"
        chosen = 1 + int(quality[1:].argmax()) if stock and lone else 0
        others = range(1, len(quality))  # SAM's candidates have no order of their own
        order = sorted(others, key=lambda n: -float(quality[n])) if stock else list(others)
        decoded = decoded._replace(logits=decoded.logits.cpu(), predicted_iou=quality)
        bounds = self._bounds(prompt, embedding.frame)
        return self._result(embedding, decoded, (chosen, *order), bounds)

    def predict_low_res(self, embedding: Embedding, prompt: Prompt) -> Result:
        """The masks for a prompt, the single-mask token's first; for `Result.patch`."""
        return self._result(embedding, self._decoded(embedding, prompt))

    def predict_clicks(
        self, embedding: Embedding, points: Sequence[tuple[float, float]], least: float
    ) -> list[Result]:
        """The masks of single positive clicks (y, x), decoded together; see `Predictor`."""
        encoded, frame = embedding
        clicks = torch.tensor(frame.to_input(points), device=self.compute.device)
        with self.compute.inference():
            decoded = self.compute.network.decode_clicks(encoded, clicks, least)
        for each in decoded:
            self._check(each)
        return [self._result(embedding, each) for each in decoded]

    def estimate_clicks(
        self, embedding: Embedding, points: Sequence[tuple[float, float]]
    ) -> ClickEstimates | None:
        """Estimates for single positive clicks (y, x), sizes in the image's pixels."""
        encoded, frame = embedding
        clicks = torch.tensor(frame.to_input(points), device=self.compute.device)
        with self.compute.inference():
            found = self.compute.network.estimate_clicks(encoded, clicks)
        if found is None:
            return None
        size = found.size / math.sqrt(math.prod(frame.scale))
        return ClickEstimates(found.foreground.cpu(), size.cpu())

    def _result(
        self,
        embedding: Embedding,
        decoded: DecodedMasks,
        order: Sequence[int] = (0, 1, 2, 3),
        bounds: Window | None = None,
    ) -> Result:
        stride = self.compute.network.mask_stride
        return Result(decoded, embedding.frame, stride, order, bounds=bounds)

    def _bounds(self, prompt: Prompt, frame: InputTransform) -> Window | None:
        """`Prompt.bounds`; None if the mask that the prompt refines reaches beyond them."""
        bounds, mask = prompt.bounds(frame.image), prompt.mask
        if bounds is None or mask is None:
            return bounds
        is_drawn = mask.dtype == bool
        part = bounds if is_drawn else frame.cells_within(*bounds, self.compute.network.mask_stride)
        inside = mask > 0
        return bounds if inside.sum() == inside[part].sum() else None

    def _decoded(self, embedding: Embedding, prompt: Prompt) -> DecodedMasks:
        encoded, frame = embedding
        device, stride = self.compute.device, self.compute.network.mask_stride
        points = labels = box = mask = None
        if prompt.points:
            points = torch.tensor(frame.to_input(prompt.points), device=device)
            labels = torch.tensor(prompt.labels, device=device)
        if prompt.box is not None:
            box = torch.tensor(frame.box_to_input(prompt.box), device=device)
        if prompt.mask is not None:
            if prompt.mask.dtype == bool:
                mask = shrink(prompt.mask, frame, stride).to(device)
            else:
                mask = torch.tensor(prompt.mask, dtype=torch.float32, device=device)[None, None]
        with self.compute.inference():
            decoded = self.compute.network.decode(encoded, points, labels, box, mask)
        self._check(decoded)
        return decoded

    def _check(self, decoded: DecodedMasks) -> None:
        name = self.model.spec.name
        self.compute.check_finite(name, decoded.logits, decoded.predicted_iou)

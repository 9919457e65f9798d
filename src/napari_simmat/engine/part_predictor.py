"""`PartPredictor`: the first masks on a large plane, each from the part around its prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.detail_windows import DetailWindows
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.result import Result
from napari_simmat.progress import Job, Progress

OUTSIDE_PART = "The prompt does not lie in one part of the plane."
_CUT = 1 / 8
"""Share of a side of a part that a mask must reach to count as cut: less may be its end."""


class OutsidePartError(ValueError):
    """A prompt needs more of its plane than one part of it."""


class PartPredictor:
    """Predicts on a large plane before the whole of it is encoded: each prompt in a part around it.

    So the first mask on a slide takes the time of a small image. It may differ from that of the
    whole plane, which shows more around the object.

    Parameters
    ----------
    predictor
        Of the image; its current plane stays.
    plane
        Index of the plane.
    windows
        The parts.
    """

    def __init__(
        self, predictor: Predictor, plane: tuple[int, ...], windows: DetailWindows
    ) -> None:
        self._predictor, self._plane, self._windows = predictor, plane, windows

    @classmethod
    def before(cls, predictor: Predictor, plane: tuple[int, ...]) -> PartPredictor | None:
        """What predicts on a plane before it is encoded; None if it is, or is not large."""
        size = predictor.model.spec.input_size
        stack = predictor.stack
        transform = InputTransform.of(stack.shape[-2:], size, stack.pixel_size)
        windows = DetailWindows.parts(transform, size, predictor.model.network.mask_stride)
        if windows is None or predictor.is_encoded(plane):
            return None
        return cls(predictor, plane, windows)

    def encode_job(self, center: tuple[float, float]) -> Job[None]:
        """Encode the part around y, x ahead of prompts near it."""
        around = Prompt(points=(center,), labels=(1,))
        if (window := self._windows.around(around)) is not None:
            with self._predictor.keeping_plane():
                yield from self._predictor.encode_tile_job(self._plane, *window)

    def cuts(self, prompt: Prompt, mask: NDArray[np.bool_]) -> bool:
        """Whether the part around a prompt ends where its mask (Y, X) would go on."""
        window = self._windows.around(prompt)
        if window is None:
            return False
        (y0, y1), (x0, x1) = ((span.start, span.stop) for span in window)
        height, width = self._predictor.shape[-2:]
        inner = (
            (y0 > 0, mask[y0]),
            (y1 < height, mask[y1 - 1]),
            (x0 > 0, mask[:, x0]),
            (x1 < width, mask[:, x1 - 1]),
        )
        least = max(y1 - y0, x1 - x0) * _CUT
        return any(goes_on and line.sum() >= least for goes_on, line in inner)

    def predict_many_job(self, prompts: Sequence[Prompt]) -> Job[list[Result]]:
        """As that of `Predictor`; OutsidePartError if a prompt is larger than a part."""
        results = []
        height, width = self._predictor.shape[-2:]
        for done, prompt in enumerate(prompts, start=1):
            prompt.check_inside((height, width))
            window = self._windows.around(prompt)
            if window is None:
                raise OutsidePartError(OUTSIDE_PART)
            job = self._predictor.predict_in_window_job(self._plane, prompt, window)
            results.append((yield from job))
            yield Progress(done, len(prompts), "predicting")
        return results

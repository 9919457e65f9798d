"""What the worker does: owns the model and the predictor, answers questions about images.

No Qt and no napari; everything here but the values runs in the worker's thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_simmat.engine.frames import box_of_corners
from napari_simmat.engine.prompts import Prompt
from napari_simmat.progress import Job
from napari_simmat.widgets.operations import Prompts
from napari_simmat.widgets.torch_import import importing

if TYPE_CHECKING:
    from napari_simmat.engine.embeddings import EmbeddingCache
    from napari_simmat.engine.images import Statistics
    from napari_simmat.engine.predictor import Predictor

Plane = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ImageValue:
    """An image as the model takes it, cut loose from its layers.

    Parameters
    ----------
    arrays
        One array, or one for each of the model's channels in its order.
    names
        The model's channel names, where `arrays` is a list.
    token
        Equal for the same channels of the same layers with the same data.
    """

    arrays: Any
    names: tuple[str, ...] | None
    token: tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Question:
    """What the window wants to know: the objects of `prompts` on one plane of an image."""

    model: str
    image: ImageValue
    plane: Plane
    prompts: tuple[Prompt, ...] = ()

    @property
    def subject(self) -> tuple[object, ...]:
        """What must be encoded to answer; equal for questions that share the encoding."""
        return self.model, self.image.token, self.plane


@dataclass(frozen=True, eq=False)
class Answer:
    """One mask (Y, X) and its score for each prompt; `note` is what else should be known."""

    masks: tuple[np.ndarray, ...]
    scores: tuple[float, ...]
    note: str = ""


class Segmenter:
    """The model in use and its predictor. Embeddings survive a change of image and of model."""

    def __init__(self) -> None:
        self.predictor: Predictor | None = None
        self._cache: EmbeddingCache | None = None
        self._model = ""
        self._image: tuple[object, ...] | None = None
        self._subject: tuple[object, ...] | None = None
        self._remark = ""
        self._statistics: dict[tuple[object, ...], Statistics] = {}

    @property
    def encodes(self) -> int:
        """How often the encoder of the model in use ran."""
        return 0 if self.predictor is None else self.predictor.encodes

    def answering(self, question: Question) -> Job[Answer]:
        """Load what is missing, encode if need be, and predict; closing it cancels.

        Raises
        ------
        MemoryError
            If memory runs out with nothing left to fall back on.
        """
        yield from importing()
        from napari_simmat.engine.devices import NO_MEMORY, is_out_of_memory

        try:
            return (yield from self._answering(question))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryError(NO_MEMORY) from error

    def forget(self) -> None:
        """Drop the model, so that the next question loads it anew."""
        self.predictor, self._model = None, ""
        self._image = self._subject = None

    def _answering(self, question: Question) -> Job[Answer]:
        yield from self._loading(question.model)
        assert self.predictor is not None
        yield from self._showing(question)
        results = yield from self.predictor.predicting(question.prompts)
        return Answer(
            tuple(result.mask for result in results),
            tuple(result.score for result in results),
            " ".join(filter(None, [self._remark, self.predictor.note])),
        )

    def _loading(self, name: str) -> Job[None]:
        if self.predictor is not None and name == self._model:
            return
        from napari_simmat.engine.embeddings import EmbeddingCache
        from napari_simmat.engine.predictor import Predictor
        from napari_simmat.engine.zoo import loading

        self.forget()  # two networks at a time may be too much for the memory
        model = yield from loading(name)
        self._cache = EmbeddingCache() if self._cache is None else self._cache
        self.predictor = Predictor(model, cache=self._cache)
        self._model = name

    def _showing(self, question: Question) -> Job[None]:
        """Make the question's plane the predictor's; statistics are measured once per image."""
        predictor, image = self.predictor, question.image
        assert predictor is not None
        if self._image == image.token:
            yield from predictor.moving(question.plane)
        else:
            known = (predictor.model.fingerprint, *image.token)
            self._image = None
            yield from predictor.encoding(
                image.arrays,
                plane=question.plane,
                names=image.names,
                statistics=self._statistics.get(known),
            )
            self._image = image.token
            self._statistics[known] = predictor.statistics
        if self._subject != question.subject:
            self._remark = remark(predictor.stack.plane(question.plane))
            self._subject = question.subject


def remark(values: np.ndarray) -> str:
    """What the user should know about a plane's raw values (C, Y, X), or empty."""
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() == finite.max():
        return f"Every pixel here is {finite[0]:g}, so there is nothing to tell apart."
    missing = values.size - finite.size
    if missing:
        share = max(1, round(100 * missing / values.size))
        return f"{share} % of the values are NaN or infinite and count as the lowest."
    return ""


def prompts_of(prompts: Prompts, plane: Plane, shape_yx: tuple[int, int]) -> tuple[Prompt, ...]:
    """What the window's prompts on one plane mean: each box is an object, its points correct it.

    Without boxes all points mean one object. A point belongs to the box that holds it, to the
    smallest if several do, otherwise to the nearest.

    Raises
    ------
    ValueError
        If something lies outside the image or only negative points are there.
    """
    here = prompts.on(plane)
    boxes = [
        box_of_corners([corner[-2:] for corner in corners], shape_yx) for corners in here.boxes
    ]
    points = [(position[-2], position[-1]) for position in here.points]
    owned: list[list[int]] = [[] for _ in boxes] or [[]]
    for number, point in enumerate(points):
        owned[_owner(point, boxes) if boxes else 0].append(number)
    asked = []
    for owner, numbers in enumerate(owned):
        if not boxes and not numbers:
            continue
        labels = tuple(here.labels[number] for number in numbers)
        if not boxes and not any(labels):
            raise ValueError("There are only negative points: click on the object first (T flips).")
        prompt = Prompt(
            points=tuple(points[number] for number in numbers),
            labels=labels,
            box=boxes[owner] if boxes else None,
            plane=plane,
        )
        prompt.check_inside(shape_yx)
        asked.append(prompt)
    return tuple(asked)


def _owner(point: tuple[float, float], boxes: list[tuple[float, float, float, float]]) -> int:
    def order(number: int) -> tuple[float, float]:
        y0, x0, y1, x1 = boxes[number]
        away_y = max(y0 - 0.5 - point[0], 0.0, point[0] - (y1 - 0.5))
        away_x = max(x0 - 0.5 - point[1], 0.0, point[1] - (x1 - 0.5))
        return away_y**2 + away_x**2, (y1 - y0) * (x1 - x0)

    return min(range(len(boxes)), key=order)

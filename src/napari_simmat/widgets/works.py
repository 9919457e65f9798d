"""What is known about each image: prompts, operations, answers, and where its objects go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from napari.layers import Labels, Layer

from napari_simmat.widgets.operations import Operations, Prompts
from napari_simmat.widgets.place import Place
from napari_simmat.widgets.segmenting import Answer, Plane


@dataclass(eq=False)
class Work:
    """Everything about one image: what was done, what is asked, what was answered."""

    place: Place
    layers: frozenset[str]
    operations: Operations = field(default_factory=Operations)
    prompts: Prompts = field(default_factory=Prompts)
    answers: dict[Plane, tuple[Prompts, Answer]] = field(default_factory=dict)
    objects: Labels | None = None


class Works:
    """One `Work` for each image that was chosen, for as long as one of its layers is open."""

    def __init__(self) -> None:
        self._works: list[Work] = []

    def on(self, place: Place, layers: frozenset[str], current: Work | None) -> Work:
        """The work on the image that shares a layer, the current one first; else a new one."""
        known = [] if current is None else [current]
        for work in (*known, *self._works):
            if work.layers & layers and work.place.shape == place.shape:
                work.place, work.layers = place, layers
                return work
        work = Work(place, layers)
        self._works.append(work)
        return work

    def forget(self, gone: Layer, left: Iterable[Layer]) -> None:
        """Drop what was done to a layer that was removed; `left` are those still open."""
        for work in self._works:
            work.operations.forget_layer(str(gone.unique_id))
            if work.objects is gone:
                work.objects = None
        open_layers = {str(layer.unique_id) for layer in left}
        self._works = [work for work in self._works if work.layers & open_layers]

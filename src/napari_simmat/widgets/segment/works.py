"""What is known about each image: prompts, operations, answers, and where its objects go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from napari.layers import Labels, Layer
from qtpy.QtCore import QObject, Signal

from napari_simmat.engine.census import Census
from napari_simmat.engine.views import Order
from napari_simmat.widgets.place import Place
from napari_simmat.widgets.segment.asked import Asked, Followed, Plane, Prompts
from napari_simmat.widgets.segment.finished import Finished
from napari_simmat.widgets.segment.operations import Edit, Operation, Operations
from napari_simmat.widgets.segment.segmenting import Answer


@dataclass(eq=False)
class View:
    """What is open in one view of an image, answered there, and found on other planes of it."""

    asked: Asked
    answers: dict[Plane, tuple[Asked, Answer]] = field(default_factory=dict)
    found: dict[Plane, tuple[Followed, ...]] = field(default_factory=dict)


@dataclass(eq=False)
class Work:
    """Everything about one image.

    Its objects and the list of what was done are one, however it is seen; what is open belongs to
    the view in which it was asked for.

    Parameters
    ----------
    place
        As the image is seen now.
    layers
        Keys of its layers.
    operations, finished
        What was done, and what came of it.
    views
        By their order.
    """

    place: Place
    layers: frozenset[str]
    operations: Operations = field(default_factory=Operations)
    finished: Finished | None = None
    views: dict[Order, View] = field(default_factory=dict)

    def view(self, order: Order) -> View:
        """What is open in a view."""
        return self.views.setdefault(order, View(Asked(order=order)))

    @property
    def shown(self) -> View:
        """What is open in the view that is seen now."""
        return self.view(self.place.order)

    @property
    def asked(self) -> Asked:
        """What is open now."""
        return self.shown.asked

    @asked.setter
    def asked(self, asked: Asked) -> None:
        self.view(asked.order).asked = asked

    @property
    def answers(self) -> dict[Plane, tuple[Asked, Answer]]:
        """What was answered, with what was open then."""
        return self.shown.answers

    @property
    def found(self) -> dict[Plane, tuple[Followed, ...]]:
        """What was found on planes to which objects were followed."""
        return self.shown.found

    @property
    def prompts(self) -> Prompts:
        """What is asked for now."""
        return self.asked.prompts

    @property
    def objects(self) -> Labels | None:
        """The labels layer that takes its objects; None for one still to be made."""
        return None if self.finished is None else self.finished.layer


class Works(QObject):
    """One `Work` for each image that was chosen, for as long as one of its layers is open.

    A labels layer is counted once and followed until it is removed, also while another image is
    chosen: what is painted into it belongs to the image whose objects it holds.
    """

    painted = Signal(object, object)
    """The `Finished` that was painted into by hand, and its `Edit`."""
    replaced = Signal(object)
    """The `Finished` whose layer has got another array: its objects are counted anew."""
    closed = Signal(object)
    """The `Work` of an image none of whose layers is open any more."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._works: list[Work] = []
        self._finished: dict[str, Finished] = {}

    def on(self, place: Place, layers: frozenset[str], current: Work | None) -> Work:
        """The work on the image that shares a layer, the current one first; else a new one."""
        known = [] if current is None else [current]
        for work in (*known, *self._works):
            if work.layers & layers and work.place.usual.shape == place.usual.shape:
                work.place, work.layers = place, layers
                break
        else:
            work = Work(place, layers)
        self._works = [work, *(other for other in self._works if other is not work)]
        return work

    def finished(self, layer: Labels, census: Census | None = None) -> Finished:
        """What `layer` holds.

        Parameters
        ----------
        layer
            A labels layer of the viewer.
        census
            Its objects, if they are known, so that they need not be counted.
        """
        key = str(layer.unique_id)
        if key not in self._finished:
            self._finished[key] = Finished(layer, self._on_painted, self.replaced.emit, census)
        return self._finished[key]

    def by_key(self, key: str) -> Finished | None:
        """What the layer of this key holds; None if it is gone."""
        return self._finished.get(key)

    def forget(self, gone: Layer, left: Iterable[Layer]) -> None:
        """Drop what was done to a layer that was removed; `left` are those still open."""
        for work in self._works:
            work.operations.forget_layer(str(gone.unique_id))
            if work.objects is gone:
                work.finished = None
        if (finished := self._finished.pop(str(gone.unique_id), None)) is not None:
            finished.release()
        open_layers = {str(layer.unique_id) for layer in left}
        closed = [work for work in self._works if not work.layers & open_layers]
        self._works = [work for work in self._works if work.layers & open_layers]
        for work in closed:
            self.closed.emit(work)

    def release(self) -> None:
        """Stop following all layers."""
        for finished in self._finished.values():
            finished.release()
        self._finished.clear()

    def _on_painted(self, finished: Finished, edit: Edit) -> None:
        # Of several images whose objects are in one layer it is the one that was chosen last.
        work = next((work for work in self._works if work.finished is finished), None)
        if work is not None:
            name = f"painting in {finished.layer.name}"
            work.operations.add(Operation(name, work.asked, work.asked, edit))
        self.painted.emit(finished, edit)

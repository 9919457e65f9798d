"""Everything about one image that is annotated: prompts, drafts, objects, history."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from napari_simmat.annotation.drafts import Draft, DraftEdit, Drafts
from napari_simmat.annotation.history import Command, LayerEdit, UndoStack
from napari_simmat.annotation.label_editor import LabelEditor
from napari_simmat.annotation.predictions import ChosenModel, Prediction
from napari_simmat.annotation.prompt_state import (
    Plane,
    Prompts,
    PromptState,
    PropagatedMask,
    corrected_masks,
)
from napari_simmat.engine.coordinates import AxisOrder

if TYPE_CHECKING:
    from napari_simmat.annotation.session_lines import AdaptedModelFile
    from napari_simmat.engine.object_kind import ObjectKind


@dataclass(eq=False)
class ViewState:
    """The prompts of one view of an image, their predictions, and the masks propagated in it.

    `predictions` maps each plane to its prediction and the prompts this was made from.
    """

    prompt_state: PromptState
    predictions: dict[Plane, tuple[PromptState, Prediction]] = field(default_factory=dict)
    propagated: dict[Plane, tuple[PropagatedMask, ...]] = field(default_factory=dict)


class KindTaught(NamedTuple):
    """A kind of objects that *Everything* learned from committed ones.

    Attributes
    ----------
    model
        That looks for them.
    kind, text
        What they have in common, also in words.
    """

    model: ChosenModel
    kind: ObjectKind
    text: str


class ViewedImage(Protocol):
    """An image in one of its views."""

    @property
    def name(self) -> str:
        """For messages and files."""

    @property
    def order(self) -> AxisOrder:
        """The order of its axes; empty in the usual view."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., Y, X) of the view, without channels."""


@dataclass(eq=False)
class ImageSession:
    """Everything about one image.

    All views share the objects and the undo history; prompts belong to the view in which they were
    made.
    """

    geometry: ViewedImage
    """The image in its current view."""
    history: UndoStack = field(default_factory=UndoStack)
    """The commands that were done."""
    editor: LabelEditor | None = None
    """The committed objects; None before there is an array to hold them."""
    views: dict[AxisOrder, ViewState] = field(default_factory=dict)
    """The state of each view, by its order."""
    drafts: Drafts = field(default_factory=Drafts)
    """The proposed objects, and what became of them."""
    adapted: AdaptedModelFile | None = None
    """The model that was adapted to the image."""
    shows_adapted: bool = True
    """Whether that is used, in place of the model that it was learned on."""
    taught: KindTaught | None = None
    """The kind of objects that was last learned from the image."""
    time_axis: int | None = None
    """The axis of the image along which its objects were linked; None if they were not."""

    def view(self, order: AxisOrder) -> ViewState:
        """The state of a view."""
        return self.views.setdefault(order, ViewState(PromptState(order=order)))

    @property
    def current(self) -> ViewState:
        """The state of the current view."""
        return self.view(self.geometry.order)

    @property
    def prompt_state(self) -> PromptState:
        """The uncommitted prompts of the current view; setting it sets that of its own view."""
        return self.current.prompt_state

    @prompt_state.setter
    def prompt_state(self, state: PromptState) -> None:
        self.view(state.order).prompt_state = state

    @property
    def prompts(self) -> Prompts:
        """The prompts of the current view."""
        return self.prompt_state.prompts

    @property
    def predictions(self) -> dict[Plane, tuple[PromptState, Prediction]]:
        """The predictions of the current view."""
        return self.current.predictions

    @property
    def propagated(self) -> dict[Plane, tuple[PropagatedMask, ...]]:
        """The masks propagated in the current view."""
        return self.current.propagated

    @property
    def rejected(self) -> tuple[Draft, ...]:
        """The proposed objects that the user rejected: what no object is like."""
        return self.drafts.rejected

    def prediction(self, plane: Plane) -> Prediction | None:
        """The prediction for the prompts that are on `plane` now."""
        state, prediction = self.predictions.get(plane, (None, None))
        return prediction if state == self.prompt_state.on(plane) else None

    def set_prompts(
        self,
        prompts: Prompts,
        *,
        undoable: bool = True,
        area_in_view: float | None = None,
        drawn: PromptState | None = None,
    ) -> None:
        """Take over prompts that the user drew, as one command if it is to be undone.

        The first prompts of an object mean one as large as the newest object, or before there is
        one, as `area_in_view`. A line of the pen may open an object, and have another reading:
        `drawn` is the state that it makes.
        """
        corrected = corrected_masks(prompts, self.prompt_state, self.propagated)
        before = self.prompt_state
        area = before.expected_area
        if not before:
            newest = None if self.editor is None else self.editor.newest_area(before.order)
            area = area_in_view if newest is None else newest
        after = PromptState(prompts, before.choices, before.edited, corrected, before.order)
        if drawn is not None:
            after = replace(after, choices=drawn.choices, edited=drawn.edited, other=drawn.other)
        if after:
            after = replace(after, expected_area=area)
        if undoable:
            self.history.add(Command("prompts", before, after))
        self.prompt_state = after

    def record(
        self,
        name: str,
        before: PromptState,
        after: PromptState,
        edit: LayerEdit | None = None,
        drafts: DraftEdit | None = None,
    ) -> None:
        """Add a command to the history that was just done, and settle drafts as it did.

        Parameters
        ----------
        name
            In words, as in "Undone: commit of 3."
        before, after
            The prompts in the view in which it was done.
        edit, drafts
            What it changed in labels, and did with drafts, if anything.
        """
        if drafts is not None:
            self.drafts.apply(drafts)
        self.history.add(Command(name, before, after, edit, drafts))

    def clear_predictions(self) -> None:
        """Forget the predictions of all views."""
        for view in self.views.values():
            view.predictions.clear()

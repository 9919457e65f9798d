"""Every verb of an annotation: each is one step, which is logged and which undo takes back.

A window and a script call the same verbs. They differ in what they show of a step, and in what they
say where a verb is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from napari_simmat._text import pluralize
from napari_simmat.annotation.drafts import Draft, DraftEdit
from napari_simmat.annotation.history import Command, LayerEdit, NewObject
from napari_simmat.annotation.image_session import ImageSession
from napari_simmat.annotation.label_editor import LabelEditor, Overlap
from napari_simmat.annotation.links import FoundLinks
from napari_simmat.annotation.naming import FoundNames
from napari_simmat.annotation.object_changes import (
    MIN_VISIBLE,
    Written,
    next_choice,
    objects_of_drafts,
    opened_draft,
    opened_object,
    predicted_objects,
    with_choice,
    without_edited,
    write_objects,
)
from napari_simmat.annotation.predictions import Prediction
from napari_simmat.annotation.prompt_state import Plane, PromptState
from napari_simmat.engine.masks import ObjectMask

Reason = Literal[
    "nothing to commit", "hidden", "open prompts", "no object", "not on plane", "too few to merge",
    "no draft", "no other mask", "changed meanwhile",
]  # fmt: skip
NOTHING_TO_COMMIT = "Nothing is predicted that could be committed: give a prompt first."
HIDDEN = "Objects {} keep all the pixels: overwrite them with overlap='overwrite'."
OPEN_PROMPTS = "Prompts are open on the plane: commit or discard them first."
NO_OBJECT = "There is no object {}."
NOT_ON_PLANE = "Object {} is not on plane {}."
TWO_TO_MERGE = "Give at least two objects to merge."
NO_DRAFTS = "There are no drafts: propose some first."
CHANGED_MEANWHILE = "The objects were changed meanwhile, so nothing was done: do it again."
NO_OTHER_MASK = "There is no other mask for these prompts."
_NAMED_OBJECTS = 3
"""More objects than these are counted in the name of a step, not listed."""


class RefusedError(ValueError):
    """A verb that cannot be done now; nothing was changed.

    Attributes
    ----------
    reason
        Why, for those who have words of their own.
    labels
        The objects that are in the way.
    """

    def __init__(self, reason: Reason, sentence: str, labels: Sequence[int] = ()) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.labels = list(labels)


@dataclass(frozen=True)
class AnnotationHost:
    """Where an annotation is shown, or at least kept.

    Parameters
    ----------
    target
        Gives the labels that take new objects; ValueError if there can be none.
    editor_of
        Gives the labels of a key, to undo what was done to them; ValueError if they are gone.
    show_prompts
        Takes prompts into the session, and shows them.
    done
        Shows what a step changed that was done, undone or done again.
    """

    target: Callable[[], LabelEditor]
    editor_of: Callable[[str], LabelEditor]
    show_prompts: Callable[[PromptState], object]
    done: Callable[[Command], object] = lambda _: None


class Annotator:
    """The verbs of one image.

    Parameters
    ----------
    session
        Its state, which the verbs change.
    host
        Shows what they change.
    """

    def __init__(self, session: ImageSession, host: AnnotationHost) -> None:
        self._session = session
        self._host = host

    # ------------------------------------------------------------------- prompts

    def choose_mask(self, plane: Plane, choice: int | None = None) -> bool:
        """Choose a candidate for the last object, by default the next; whether that is another."""
        prediction = self._session.prediction(plane)
        if choice is None and prediction is not None:
            choice = next_choice(prediction)
        if prediction is None or choice is None or not prediction.candidates:
            raise RefusedError("no other mask", NO_OTHER_MASK)
        if choice == prediction.choices[-1]:
            return False
        self._step("choice of a mask", with_choice(self._session.prompt_state, prediction, choice))
        return True

    def take_masks(self, name: str, masks: Sequence[ObjectMask]) -> None:
        """Take masks (..., Y, X), each on one plane, as prompts: each is an object to be refined.

        `name` is that of the labels they come from.
        """
        state = self._session.prompt_state
        prompts = replace(state.prompts, masks=(*state.prompts.masks, *masks))
        self._step(f"masks of {name}", replace(state, prompts=prompts))

    def clear(self, plane: Plane) -> None:
        """Remove the open prompts of a plane, and close the object that is edited there."""
        kept = self._session.prompt_state.off(plane)
        if kept != self._session.prompt_state:
            self._step("clearing", kept)

    # ------------------------------------------------------------------- objects

    def commit(
        self,
        plane: Plane,
        prediction: Prediction | None,
        category: str = "",
        overlap: Overlap = "keep",
        made_from: PromptState | None = None,
    ) -> Written:
        """Write what is predicted on a plane as objects, and use up its prompts.

        Parameters
        ----------
        plane, prediction
            Where, and what.
        category
            Class of new objects.
        overlap, made_from
            As in `write`.
        """
        objects = []
        if prediction is not None:
            objects = predicted_objects(self._session, plane, prediction, category)
        if not objects:
            raise RefusedError("nothing to commit", NOTHING_TO_COMMIT)
        return self.write("commit", objects, overlap=overlap, closing=(plane,), made_from=made_from)

    def write(
        self,
        name: str,
        objects: Sequence[NewObject],
        *,
        overlap: Overlap = "keep",
        closing: Sequence[Plane] = (),
        min_visible: float = 0.0,
        made_from: PromptState | None = None,
    ) -> Written:
        """Write objects of one view into the labels.

        Parameters
        ----------
        name
            What is done, as in "commit".
        objects, overlap, closing, min_visible, made_from
            As of `write_objects`.

        Raises
        ------
        RefusedError
            If others hide all of them.
        ValueError
            If the labels cannot hold them.
        """
        editor = self._host.target()
        written = write_objects(
            self._session, editor, objects, overlap, closing, min_visible, made_from
        )
        if not written.labels:
            others = editor.overlapped(objects)
            raise RefusedError("hidden", HIDDEN.format(", ".join(map(str, others))), others)
        name = f"{name} of {counted(written.labels)}"
        self._step(name, written.after, written.edit, written.drafts or None)
        return written

    def edit(self, plane: Plane, label: int) -> None:
        """Open a committed object with its prompts, so that clicks correct it."""
        self._check_objects([label])
        self._check_free(plane)
        after = opened_object(self._session, plane, label)
        if after is None:
            raise RefusedError("not on plane", NOT_ON_PLANE.format(label, plane), [label])
        self._step(f"edit of {label}", after)

    def delete(self, labels: Sequence[int]) -> None:
        """Remove committed objects."""
        self._change("deletion", labels, lambda editor: editor.delete(labels))

    def merge(self, labels: Sequence[int], closing: Sequence[Plane] = ()) -> int:
        """Merge objects into the one with the smallest number, which is returned.

        The prompts on the planes `closing` said which, and are used up.
        """
        self._check_objects(labels)
        if len(set(labels)) < 2:
            raise RefusedError("too few to merge", TWO_TO_MERGE, labels)
        self._change("merging", labels, lambda editor: editor.merge(labels)[0], closing)
        return min(labels)

    def split(
        self,
        label: int,
        points: Sequence[Sequence[int]] = (),
        spacing: Sequence[float] | None = None,
        closing: Sequence[Plane] = (),
    ) -> list[int]:
        """Split an object around points (N, axes), or into its pieces; returns all parts.

        The prompts on the planes `closing` said where, and are used up.
        """
        parts: list[int] = []

        def act(editor: LabelEditor) -> LayerEdit:
            edit, found = editor.split(label, points, spacing)
            parts.extend(found)
            return edit

        self._change("splitting", [label], act, closing)
        return parts

    def classify(self, labels: Sequence[int], category: str) -> None:
        """Set the class of objects by hand; an empty name removes it."""
        name = f"class {category or 'none'}"
        self._change(name, labels, lambda editor: editor.classify(labels, category))

    def name_others(self, found: FoundNames) -> str:
        """Give the other objects the classes that were found for them; returns it in words.

        Raises RefusedError if the objects are in other labels now.
        """
        editor = self._session.editor
        if editor is None or editor is not found.request.editor:
            raise RefusedError("changed meanwhile", CHANGED_MEANWHILE)
        changed, text = found.changes(), found.described()
        if changed:
            edit = editor.name(changed)
            name = f"naming of {counted(sorted(changed))}"
            self._step(name, self._session.prompt_state, edit)
        return text

    def link(
        self,
        found: FoundLinks,
        closing: Sequence[Plane] = (),
        part_of: Command | None = None,
    ) -> None:
        """Let ids follow links.

        Parameters
        ----------
        found
            The links.
        closing
            Planes whose prompts said which objects, and are used up.
        part_of
            The command that has just written the objects, if this is a part of it.

        Raises
        ------
        RefusedError
            If the objects were changed since they were linked.
        """
        request, session = found.request, self._session
        editor = session.editor
        if editor is None or editor is not request.editor or editor.version != request.version:
            raise RefusedError("changed meanwhile", CHANGED_MEANWHILE)
        if not request.in_depth:
            session.time_axis = request.axis
        edit = editor.renumber(found.edits, found.lineage, request.axis, found.after)
        if part_of is None or part_of is not session.history.last:
            self._step(request.name, self._without(closing), edit)
            return
        session.history.extend(Command(part_of.name, part_of.after, part_of.after, edit))
        self._host.done(part_of)

    def _change(
        self,
        name: str,
        labels: Sequence[int],
        act: Callable[[LabelEditor], LayerEdit],
        closing: Sequence[Plane] = (),
    ) -> None:
        self._check_objects(labels)
        editor = self._host.target()
        edit = act(editor)
        after = self._without(closing)
        gone = [label for label in labels if label not in editor]
        self._step(f"{name} of {counted(labels)}", without_edited(after, gone), edit)

    # -------------------------------------------------------------------- drafts

    def accept(
        self,
        drafts: Sequence[Draft],
        category: str = "",
        overlap: Overlap = "keep",
        name: str = "acceptance",
    ) -> Written:
        """Write drafts as objects."""
        self._check_drafts(drafts)
        objects = objects_of_drafts(drafts, category)
        return self.write(name, objects, overlap=overlap, min_visible=MIN_VISIBLE)

    def reject(self, drafts: Sequence[Draft]) -> None:
        """Take drafts away; what is like them is not proposed again."""
        self._check_drafts(drafts)
        which = "a draft" if len(drafts) == 1 else pluralize(len(drafts), "draft")
        edit = DraftEdit(rejected=tuple(drafts))
        self._step(f"rejection of {which}", self._session.prompt_state, drafts=edit)

    def open_draft(self, draft: Draft) -> None:
        """Open a draft, so that clicks correct it before it is committed, which replaces it."""
        self._check_drafts([draft])
        self._check_free(draft.plane)
        self._step("edit of a draft", opened_draft(self._session.prompt_state, draft))

    def mark_ground(self, ground: Draft, closing: Sequence[Plane] = ()) -> None:
        """Remember where no object is, from lines on the planes `closing`, which are used up."""
        self._step("marking of ground", self._without(closing), drafts=DraftEdit(ground=(ground,)))

    # ------------------------------------------------------------------- history

    def undo(self) -> Command | None:
        """Undo the last step; None if there is none.

        Raises ValueError if what it changed is gone: then nothing is changed.
        """
        command = self._session.history.undo()
        if command is not None:
            self._replay(command, back=True)
        return command

    def redo(self) -> Command | None:
        """Do the step again that was undone last, as `undo`."""
        command = self._session.history.redo()
        if command is not None:
            self._replay(command, back=False)
        return command

    def _replay(self, command: Command, *, back: bool) -> None:
        history = self._session.history
        if command.edit is not None:
            try:
                editor = self._host.editor_of(command.edit.layer)
            except ValueError:
                (history.redo if back else history.undo)()
                raise
            editor.replay(command.edit, back=back)
        if command.drafts is not None:
            self._session.drafts.apply(command.drafts, back=back)
        self._host.show_prompts(command.before if back else command.after)
        self._host.done(command)

    # ------------------------------------------------------------------- helpers

    def _step(
        self,
        name: str,
        after: PromptState,
        edit: LayerEdit | None = None,
        drafts: DraftEdit | None = None,
    ) -> None:
        """Record what was just done, as one command.

        Parameters
        ----------
        name
            In words, as in "Undone: commit of 3."
        after
            The prompts after it.
        edit, drafts
            What it changed in labels, and did with drafts, if anything.
        """
        view = self._session.view(after.order)
        before = view.prompt_state
        self._host.show_prompts(after)
        self._session.record(name, before, view.prompt_state, edit, drafts)
        last = self._session.history.last
        assert last is not None, "it was recorded"
        self._host.done(last)

    def _without(self, closing: Sequence[Plane]) -> PromptState:
        """The prompts but for those of some planes."""
        after = self._session.prompt_state
        for plane in closing:
            after = after.off(plane)
        return after

    def _check_objects(self, labels: Sequence[int]) -> None:
        editor = self._session.editor
        missing = [label for label in labels if editor is None or label not in editor]
        if missing or not labels:
            which = ", ".join(map(str, missing)) or "given"
            raise RefusedError("no object", NO_OBJECT.format(which), missing)

    def _check_free(self, plane: Plane) -> None:
        if self._session.prompt_state.on(plane):
            raise RefusedError("open prompts", OPEN_PROMPTS)

    def _check_drafts(self, drafts: Sequence[Draft]) -> None:
        if not drafts or not all(map(self._session.drafts.is_open, drafts)):
            raise RefusedError("no draft", NO_DRAFTS)


def counted(labels: Sequence[int]) -> str:
    """``4``, ``4, 5``, ``16 objects``: the objects of a step in words."""
    few = len(labels) <= _NAMED_OBJECTS
    return ", ".join(map(str, labels)) if few else pluralize(len(labels), "object")

"""What commits, edits and drafts make of a session; a window and a script share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from napari_simmat.annotation.drafts import Draft, DraftEdit
from napari_simmat.annotation.history import LayerEdit, NewObject, Provenance
from napari_simmat.annotation.image_session import ImageSession
from napari_simmat.annotation.label_editor import LabelEditor, Overlap
from napari_simmat.annotation.predictions import OTHER_READING, Prediction
from napari_simmat.annotation.prompt_state import (
    EditedObject,
    Plane,
    Prompts,
    PromptState,
    swapped,
)
from napari_simmat.engine.masks import ObjectMask

MIN_VISIBLE = 0.5
"""Share of a draft that must not be committed already. Of one that is, the rim would remain."""


@dataclass(frozen=True, eq=False)
class Written:
    """What became of objects that were to be written; nothing is in the history yet."""

    edit: LayerEdit
    """What was changed in the labels; empty if nothing was written."""
    labels: list[int]
    objects: list[NewObject]
    """The numbers of the objects that were written, and these objects, in the same order."""
    hidden: list[NewObject]
    """Those that were left out, because others hold their pixels."""
    after: PromptState
    """The prompts that are left."""
    drafts: DraftEdit
    """What became of the drafts."""


def predicted_objects(
    session: ImageSession, plane: Plane, prediction: Prediction, category: str = ""
) -> list[NewObject]:
    """The objects that a commit of a prediction writes; without those whose mask is empty.

    An object that is open for editing is the first one. It gets a new number if it was a draft, or
    was deleted since.
    """
    state, order = session.prompt_state, session.geometry.order
    edited = state.edited_on(plane)
    choices = tuple(each for each in state.choices if each[0].plane == plane)
    objects = []
    for number, (each, mask, score) in enumerate(
        zip(prediction.objects, prediction.masks, prediction.scores, strict=True)
    ):
        if not mask.any():
            continue
        again = edited if number == 0 else None
        made = Provenance(
            plane,
            each.source,
            digest="",
            choices=choices,
            kept=None if again is None else again.kept,
            order=order,
            expected_area=each.prompt.expected_area,
            part=prediction.part,
        )
        objects.append(
            NewObject(
                ObjectMask.of(mask, (*plane, 0, 0)),
                score,
                label=_kept_label(session, again),
                category=category,
                provenance=(made,),
                order=order,
                draft=_opened_draft(session, again),
            )
        )
    return objects


def _kept_label(session: ImageSession, edited: EditedObject | None) -> int | None:
    """The number of the committed object that is edited; None for a new one."""
    if edited is None or session.editor is None or edited.label not in session.editor:
        return None
    return edited.label


def _opened_draft(session: ImageSession, edited: EditedObject | None) -> Draft | None:
    """The draft that is edited, if it is one."""
    if edited is None:
        return None
    return next((each for each in session.drafts.open if each.mask == edited.kept), None)


def objects_of_drafts(drafts: Sequence[Draft], category: str = "") -> list[NewObject]:
    """The objects that drafts become; write them with `MIN_VISIBLE`."""
    return [
        NewObject(each.mask, each.score, category=category, order=each.order, draft=each)
        for each in drafts
    ]


def write_objects(
    session: ImageSession,
    editor: LabelEditor,
    objects: Sequence[NewObject],
    overlap: Overlap = "keep",
    closing: Sequence[Plane] = (),
    min_visible: float = 0.0,
    made_from: PromptState | None = None,
) -> Written:
    """Write objects of one view into labels.

    Parameters
    ----------
    session, editor
        Of the image, and of the labels.
    objects
        Earlier ones lie on top.
    overlap
        Which object gets shared pixels.
    closing
        Planes, of the view of `objects`, whose prompts are used up.
    min_visible
        As in `LabelEditor.write`.
    made_from
        The prompts that the objects are of; those drawn since stay open. None for all.

    Raises
    ------
    ValueError
        If the labels cannot hold the objects' numbers.
    """
    edit, labels, hidden = editor.write(objects, overlap, min_visible)
    written = [each for each in objects if each not in hidden]
    after = session.view(objects[0].order).prompt_state
    for plane in closing:
        after = after.used_up(plane, made_from)
    drafts = settled_by(session, written, hidden)
    return Written(edit, labels, written, hidden, after, drafts)


def opened_object(session: ImageSession, plane: Plane, label: int) -> PromptState | None:
    """The prompts once a committed object is open for editing; None if it is not on the plane.

    It comes with the prompts that it was made from. If it has none, or its pixels were changed
    since, the pixels themselves are refined.
    """
    state, order, editor = session.prompt_state, session.geometry.order, session.editor
    pixels = None if editor is None else editor.on_plane(label, plane, order)
    if editor is None or pixels is None:
        return None
    known = editor.register.entry(label).provenance_on(plane, order)
    if known is None or known.digest != pixels.digest:
        known = Provenance(plane, Prompts(), "", kept=pixels, order=order)
    return PromptState(
        state.prompts + known.prompts,
        (*state.choices, *known.choices),
        (*state.edited, EditedObject(label, plane, known.kept)),
        order=order,
        expected_area=(state if state else known).expected_area,
    )


def opened_draft(state: PromptState, draft: Draft) -> PromptState:
    """The prompts once a draft is open, so that clicks correct it."""
    edited = EditedObject(0, draft.plane, draft.mask)
    return replace(state, edited=(*state.edited, edited))


def without_edited(state: PromptState, labels: Sequence[int]) -> PromptState:
    """The prompts once committed objects are gone: these are not open for editing any more."""
    kept = tuple(each for each in state.edited if each.label not in labels)
    return replace(state, edited=kept)


def next_choice(prediction: Prediction) -> int | None:
    """The candidate after the one that is shown of the last object; None if there is no other."""
    choices = [each.choice for each in prediction.candidates]
    if not choices:
        return None
    return choices[(choices.index(prediction.choices[-1]) + 1) % len(choices)]


def with_choice(state: PromptState, prediction: Prediction, choice: int) -> PromptState:
    """The prompts once another candidate is chosen for the last object; 0 for the model's own."""
    if choice == OTHER_READING:
        return swapped(state)
    prompt = prediction.objects[-1].prompt
    others = tuple(each for each in state.choices if each[0] != prompt)
    chosen = ((prompt, choice),) if choice else ()
    return replace(state, choices=others + chosen)


def settled_by(
    session: ImageSession, written: Sequence[NewObject], hidden: Sequence[NewObject]
) -> DraftEdit:
    """What becomes of the drafts when objects are written, and others are hidden by earlier ones.

    A draft that is written as it is is accepted. One that was changed is replaced, and so is each
    that an object covers: it shows the same one, and nobody needs to reject it.
    """
    known = set(session.drafts.open)
    whole = {each.draft for each in written if each.draft and each.draft.mask == each.viewed}
    others = [each.mask for each in written if each.draft not in whole]  # drafts are disjoint
    accepted = [each.draft for each in written if each.draft and each.draft in known & whole]
    both = [each.draft for each in (*written, *hidden) if each.draft is not None]
    replaced = [each for each in both if each in known - whole]
    replaced += session.drafts.covered_by(others)
    left = dict.fromkeys(each for each in replaced if each not in whole)
    return DraftEdit(tuple(accepted), tuple(left))

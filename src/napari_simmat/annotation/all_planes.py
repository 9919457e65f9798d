"""All objects on many planes of an image, found one plane after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_simmat.annotation.drafts import Draft, still_open
from napari_simmat.annotation.inference_service import InferenceService
from napari_simmat.annotation.lesson import Lesson
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.annotation.proposals import KnownObjects, Proposals, choose_drafts_job
from napari_simmat.progress import Job, Progress, as_part, map_progress

if TYPE_CHECKING:
    from napari_simmat.engine.object_kind import ObjectKind
    from napari_simmat.engine.settings import AutomaticSettings


@dataclass(frozen=True)
class PlanesProgress(Progress):
    """Planes are gone over; `drafts` are what was found on all that are done."""

    drafts: tuple[Draft, ...] = ()


class _OnPlane(NamedTuple):
    """The drafts of a plane, and the kind of objects that was looked for."""

    drafts: tuple[Draft, ...]
    kind: ObjectKind | None


def find_on_planes_job(
    service: InferenceService,
    sought: Proposals,
    planes: Sequence[Plane],
    settings: AutomaticSettings,
    kind: ObjectKind | None,
    committed: Callable[[Plane], np.ndarray | None],
    settled: Sequence[Draft],
) -> Job[tuple[Draft, ...]]:
    """Find all objects on planes, as *Everything* does on each of them.

    Parameters
    ----------
    service
        The model.
    sought
        The image, its view, and the lesson that tells what is expected, if any.
    planes, settings
        Where, in this order, and how.
    kind
        What is expected if there is no lesson.
    committed
        Gives the committed objects (Y, X) of a plane, which are not found again; None for none.
    settled
        Drafts that are not found again, either.

    Returns
    -------
    drafts
        Of all planes, in their order.
    """
    found: tuple[Draft, ...] = ()
    lesson = sought.lesson

    def with_drafts(step: Progress) -> Progress:
        return PlanesProgress(step.done, step.total, step.message, found)

    for number, plane in enumerate(planes):
        here = replace(sought, request=replace(sought.request, plane=plane), plane=plane)
        known = KnownObjects(committed(plane), tuple(settled))
        job = _find_on_plane_job(service, here, settings, lesson, kind, known)
        part = number / len(planes), (number + 1) / len(planes)
        job = as_part(job, *part, after=f", {number + 1} of {len(planes)}")
        on_plane = yield from map_progress(job, with_drafts)
        found = (*found, *on_plane.drafts)
        kind, lesson = on_plane.kind or kind, None  # taught once
    return found


def _find_on_plane_job(
    service: InferenceService,
    sought: Proposals,
    settings: AutomaticSettings,
    lesson: Lesson | None,
    kind: ObjectKind | None,
    known: KnownObjects,
) -> Job[_OnPlane]:
    """Find all objects on the plane of `sought`."""
    request = sought.request
    looked = 0.5 if settings.second_look else 1.0  # a second look takes as long as the first
    job = service.propose_job(request, settings, None, lesson, kind)
    proposed = yield from as_part(job, 0.0, looked)
    taught = proposed.kind
    while proposed.looks_again:
        job = service.look_again_job(request, settings, proposed.candidates)
        proposed = yield from as_part(job, looked, 1.0)
        looked = 1.0
    proposals = replace(sought, candidates=proposed.candidates)
    choosing = choose_drafts_job(proposals, settings, known)
    chosen = yield from as_part(choosing, 1.0, 1.0)
    return _OnPlane(still_open(chosen.drafts.drafts, known.settled), taught)

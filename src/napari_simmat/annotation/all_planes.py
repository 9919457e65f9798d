"""All objects on many planes of an image, found one plane after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_simmat.annotation.drafts import Draft, still_open
from napari_simmat.annotation.inference_service import InferenceService
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.annotation.proposals import KnownObjects, Proposals, choose_drafts_job
from napari_simmat.progress import Job, Progress, as_part

if TYPE_CHECKING:
    from napari_simmat.engine.object_kind import ObjectKind
    from napari_simmat.engine.settings import AutomaticSettings


@dataclass(frozen=True)
class PlanesProgress(Progress):
    """A plane was gone over; `drafts` are what was found on all planes so far."""

    drafts: tuple[Draft, ...] = ()


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
    for number, plane in enumerate(planes):
        request = replace(sought.request, plane=plane)
        part = number / len(planes), (number + 1) / len(planes)
        after = f", {number + 1} of {len(planes)}"
        job = service.propose_job(request, settings, None, lesson, kind)
        proposed = yield from as_part(job, *part, after=after)
        kind, lesson = proposed.kind or kind, None  # taught once
        while proposed.looks_again:
            job = service.look_again_job(request, settings, proposed.candidates)
            proposed = yield from as_part(job, part[1], part[1], after=after)
        proposals = replace(sought, request=request, plane=plane, candidates=proposed.candidates)
        known = KnownObjects(committed(plane), tuple(settled))
        chosen = yield from as_part(
            choose_drafts_job(proposals, settings, known), part[1], part[1], after=after
        )
        found = (*found, *still_open(chosen.drafts.drafts, known.settled))
        yield PlanesProgress(number + 1, len(planes), f"segmenting{after}", found)
    return found

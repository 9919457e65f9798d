"""Classes for the objects that nobody has classed, by those that were classed by hand.

What is named this way has a certainty in its entry, so that it is named anew the next time.
Doubtful objects get no class: in the table and in colors they are seen as what is left to do, and
no wrong name is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.annotation.history import ObjectEntry
from napari_simmat.annotation.inference_service import InferenceService
from napari_simmat.annotation.label_editor import LabelEditor
from napari_simmat.annotation.predictions import PredictionRequest
from napari_simmat.engine.label_index import LabelIndex
from napari_simmat.engine.naming import NamedObjects, check_known
from napari_simmat.progress import Job, Progress

ALL_BY_HAND = "Every object has a class by hand: there is none to name."
LEFT_ALONE = "{objects} changed meanwhile and {are} left alone."


@dataclass(frozen=True, eq=False)
class NamingRequest:
    """The objects as they are when naming begins: they may change before it ends.

    Attributes
    ----------
    editor
        Their labels.
    version
        Of the labels.
    entries
        What was known of each.
    """

    editor: LabelEditor
    version: int
    entries: Mapping[int, ObjectEntry]

    @classmethod
    def of(cls, editor: LabelEditor | None) -> NamingRequest:
        """Of all objects; ValueError if too few of them were classed by hand."""
        entries = {} if editor is None else {n: editor.register.entry(n) for n in editor.labels}
        known = {n: entry.category for n, entry in entries.items() if entry.classed_by_hand}
        check_known(known)
        assert editor is not None, "some of its objects are known"
        return cls(editor, editor.version, entries)

    @property
    def known(self) -> dict[int, str]:
        """The classes that were given by hand."""
        return {n: each.category for n, each in self.entries.items() if each.classed_by_hand}

    @property
    def names_none(self) -> bool:
        """Whether all are known."""
        return len(self.known) == len(self.entries)


@dataclass(frozen=True, eq=False)
class FoundNames:
    """What objects are called, and digests of the masks that this is of."""

    request: NamingRequest
    objects: NamedObjects
    digests: Mapping[int, str]

    def changes(self) -> dict[int, tuple[str, float | None]]:
        """The classes that objects get, each with its certainty; an empty one for a doubtful one.

        Objects that changed meanwhile, or were classed by hand, are left alone.
        """
        given = self.objects.sure
        changed = {}
        for label in self._unchanged():
            certainty = self.objects.certainties[label] if label in given else None
            entry = self.request.editor.register.entry(label)
            if (given.get(label, ""), certainty) != (entry.category, entry.certainty):
                changed[label] = given.get(label, ""), certainty
        return changed

    def described(self) -> str:
        """The outcome in words."""
        unchanged = self._unchanged()
        sure = sum(label in self.objects.sure for label in unchanged)
        text = self.objects.described(sure, len(unchanged) - sure)
        left = len(self.objects.names) - len(unchanged)
        if not left:
            return text
        alone = LEFT_ALONE.format(objects=pluralize(left, "object"), are=is_or_are(left))
        return f"{text} {alone}"

    def _unchanged(self) -> list[int]:
        return [label for label in self.objects.names if self._is_unchanged(label)]

    def _is_unchanged(self, label: int) -> bool:
        """Whether an object is still what was measured, and has no class by hand since."""
        editor = self.request.editor
        if editor.version == self.request.version:
            return True
        before, now = self.request.entries.get(label), editor.register.entry(label)
        if before is None or (before.category, before.certainty) != (now.category, now.certainty):
            return False
        mask = editor.mask(label)
        return mask is not None and mask.digest == self.digests[label]


def name_others_job(
    service: InferenceService,
    request: PredictionRequest,
    naming: NamingRequest,
    channels: Sequence[Any],
) -> Job[FoundNames]:
    """Find the classes of all objects that were not classed by hand, on all planes.

    Parameters
    ----------
    service, request
        The model, and the image in its usual view.
    naming
        The objects.
    channels
        Arrays (..., Y, X) that are measured; those of another shape than the labels are not.
    """
    data = naming.editor.layer.data
    yield Progress(0, 1, "measuring objects")
    labels = np.array(data)  # the user may go on
    request = replace(request, plane=(0,) * (labels.ndim - 2))
    alike = [each for each in channels if tuple(each.shape) == labels.shape]
    named = yield from service.name_job(request, labels, naming.known, alike)
    index = LabelIndex.of(labels)
    digests = {}
    for label in named.names:
        yield Progress(1, 1, "naming")
        mask = index.mask(labels, label)
        digests[label] = "" if mask is None else mask.digest
    return FoundNames(naming, named, digests)

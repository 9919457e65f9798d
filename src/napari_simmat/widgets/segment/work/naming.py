"""The button *Name the others*: objects get classes by those that were classed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from qtpy.QtCore import QObject

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.annotation.annotator import counted
from napari_simmat.annotation.history import ObjectEntry
from napari_simmat.engine.label_index import LabelIndex
from napari_simmat.engine.naming import NamedObjects, check_known
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.segment.form.form_choice import FormChoice
from napari_simmat.widgets.segment.layers.layer_editor import LayerEditor
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.work.inference import InferenceQueue
from napari_simmat.widgets.segment.work.workspace import Workspace, needs_image
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.worker import BackgroundJob

_RANK = 1
"""Behind clicks."""
NAMING = "Naming objects"
CANCELED = "Naming objects canceled."
ALL_BY_HAND = "Every object has a class by hand: there is none to name."
LEFT_ALONE = "{objects} changed meanwhile and {are} left alone."
OTHER_IMAGE = "Nothing was named, because another image was chosen: go back and press it again."
GONE = "Nothing was named: the objects are in another layer now; press it again."


class _NamingRequest(NamedTuple):
    """What is being named: the objects as they were when the button was pressed."""

    session: LayerSession
    editor: LayerEditor
    version: int
    entries: Mapping[int, ObjectEntry]


class _Named(NamedTuple):
    """The outcome, and digests of the masks that it is of."""

    objects: NamedObjects
    digests: Mapping[int, str]


class ObjectNaming(QObject):
    """Names all objects that were not classed by hand, on all planes, as one command.

    What the program names has a certainty in its entry, so that it is named anew the next time.
    Doubtful objects get no class: in the table and in colors they are seen as what is left to do,
    and no wrong name is counted.
    """

    def __init__(self, workspace: Workspace, inference: InferenceQueue) -> None:
        super().__init__(workspace)
        self._workspace, self._inference = workspace, inference
        self._request: _NamingRequest | None = None
        self._job = BackgroundJob(inference.worker, _RANK, self)
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(self._on_named)
        self._job.failed.connect(self._on_failed)
        workspace.session_closed.connect(self._on_closed)

    @property
    def busy(self) -> bool:
        """Whether objects are being named."""
        return self._job.busy

    def release(self) -> None:
        """Stop working."""
        self._job.cancel()
        self._request = None

    def cancel(self) -> None:
        """Stop naming; nothing was named."""
        if self._job.cancel():
            self._request = None
            self._workspace.status.emit(Status("canceled", CANCELED))

    @needs_image
    def start(self, session: LayerSession, choice: FormChoice) -> None:
        """Name the others; all channels of the chosen image are measured."""
        workspace, editor = self._workspace, session.editor
        entries = {} if editor is None else {n: editor.register.entry(n) for n in editor.labels}
        known = {n: entry.category for n, entry in entries.items() if entry.classed_by_hand}
        request = workspace.request()
        if not workspace.has_pixels() or request is None:
            return
        try:
            check_known(known)
        except ValueError as error:
            workspace.fail(str(error))
            return
        assert editor is not None
        if len(known) == len(entries):
            workspace.say(ALL_BY_HAND)
            return
        data, service = editor.layer.data, self._inference.service
        channels = [each for each in choice.all_arrays if tuple(each.shape) == tuple(data.shape)]
        request = replace(request, image=request.image.usual, plane=(0,) * (data.ndim - 2))

        def job() -> Job[_Named]:
            yield Progress(0, 1, "measuring objects")
            labels = np.array(data)  # the user may go on
            named = yield from service.name_job(request, labels, known, channels)
            index = LabelIndex.of(labels)
            digests = {}
            for label in named.names:
                yield Progress(1, 1, "naming")
                mask = index.mask(labels, label)
                digests[label] = "" if mask is None else mask.digest
            return _Named(named, digests)

        self._request = _NamingRequest(session, editor, editor.version, entries)
        self._job.start(NAMING, job)
        workspace.status.emit(Status("working", NAMING))

    def _on_progress(self, progress: Progress) -> None:
        if not self._inference.busy:
            self._workspace.status.emit(Status("working", NAMING, progress.fraction))

    def _on_failed(self, reason: str) -> None:
        self._request = None
        self._workspace.fail(reason)

    def _on_closed(self, session: LayerSession) -> None:
        """Hold nothing of an image that is gone."""
        if self._request is not None and self._request.session is session:
            self.release()

    def _on_named(self, found: _Named) -> None:
        workspace, request = self._workspace, self._request
        assert request is not None
        self._request = None
        session, editor = request.session, request.editor
        if workspace.session is not session:
            workspace.fail(OTHER_IMAGE)
            return
        if session.editor is not editor or not workspace.has_pixels():
            workspace.fail(GONE)
            return
        named = found.objects
        same = [n for n in named.names if _is_same(request, found, n)]
        given = named.sure
        sure = [label for label in same if label in given]
        classes: dict[int, tuple[str, float | None]] = dict.fromkeys(same, ("", None))
        classes |= {label: (named.names[label], named.certainties[label]) for label in sure}
        entry = editor.register.entry
        changed = {
            label: new
            for label, new in classes.items()
            if new != (entry(label).category, entry(label).certainty)
        }
        parts = [named.described(len(sure), len(same) - len(sure))]
        if left := len(named.names) - len(same):
            objects = pluralize(left, "object")
            parts.append(LEFT_ALONE.format(objects=objects, are=is_or_are(left)))
        text = " ".join(parts)
        if not changed:
            workspace.say(text)
            return
        edit = editor.name(changed)
        workspace.annotator.step(
            f"naming of {counted(sorted(changed))}", session.prompt_state, edit
        )
        workspace.say(text)


def _is_same(request: _NamingRequest, found: _Named, label: int) -> bool:
    """Whether an object is still what was measured, and has no class by hand since."""
    editor = request.editor
    if editor.version == request.version:
        return True
    before, now = request.entries.get(label), editor.register.entry(label)
    if before is None or (before.category, before.certainty) != (now.category, now.certainty):
        return False
    mask = editor.mask(label)
    return mask is not None and mask.digest == found.digests[label]

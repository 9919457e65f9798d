"""Objects of a series or a stack linked: ids are the links, an object has one on all its planes.

`parent` of an object's entry says which object divided into it, so undo, the session file and
*Save* cover links as they cover objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_simmat._text import pluralize
from napari_simmat.annotation.label_editor import LabelEditor
from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.label_index import LabelIndex
from napari_simmat.engine.settings import LinkSettings
from napari_simmat.engine.tracking.linking import (
    Lineage,
    LineageTrack,
    Node,
    link_objects_job,
    renumber_job,
    require_laptrack,
)
from napari_simmat.progress import Job, Progress

NO_OBJECTS = "There are no objects to link: commit some on several frames, or find them first."
LINKED = "{}, {}."
JOINED = "{} in 3D; each has one id on all its planes."
LINK_OVER_TIME = LinkSettings()
JOIN_PLANES = LinkSettings(divisions=False, along="depth")


@dataclass(frozen=True, eq=False)
class LinkRequest:
    """What is to be linked, and how.

    Attributes
    ----------
    editor
        The labels.
    version
        Of the labels, which may be edited meanwhile.
    axis
        Along which objects are linked, counted without channels.
    change
        Makes new links of the labels and the present ones.
    name
        Of the step.
    in_depth
        Whether the axis is depth: there are objects then, no tracks.
    """

    editor: LabelEditor
    version: int
    axis: int
    change: Callable[[Any, Lineage], Job[Lineage]]
    name: str
    in_depth: bool = False

    @classmethod
    def of_all(
        cls,
        editor: LabelEditor | None,
        axis: int,
        settings: LinkSettings,
        spacing: Sequence[float],
    ) -> LinkRequest:
        """Link all objects along time or depth, as the settings say.

        Parameters
        ----------
        editor, axis, settings
            What, along which axis, and how.
        spacing
            The size of a pixel along each axis of the labels, in one unit.

        Raises
        ------
        ValueError
            If there are no objects, or `laptrack` is missing.
        """
        require_laptrack()
        in_space = tuple(spacing[:axis]) + tuple(spacing[axis + 1 :])

        def change(labels: Any, _: Lineage) -> Job[Lineage]:
            return (yield from link_objects_job(labels, settings, axis, in_space))

        in_depth = settings.along == "depth"
        name = "joining planes" if in_depth else "linking over time"
        return cls._of(editor, axis, change, name, in_depth)

    @classmethod
    def of_two(
        cls, editor: LabelEditor | None, axis: int, nodes: Sequence[Node], *, cut: bool = False
    ) -> LinkRequest:
        """Link two objects, each on a frame of its own, or cut their link."""

        def change(_: Any, lineage: Lineage) -> Job[Lineage]:
            yield from ()
            return (lineage.cut if cut else lineage.link)(*nodes)

        names = " and ".join(str(node.label) for node in sorted(nodes))
        return cls._of(editor, axis, change, f"{'cut' if cut else 'link'} of {names}")

    @classmethod
    def _of(
        cls,
        editor: LabelEditor | None,
        axis: int,
        change: Callable[[Any, Lineage], Job[Lineage]],
        name: str,
        in_depth: bool = False,
    ) -> LinkRequest:
        if editor is None or not editor.labels:
            raise ValueError(NO_OBJECTS)
        return cls(editor, editor.version, axis, change, name, in_depth)


@dataclass(frozen=True, eq=False)
class FoundLinks:
    """New links of the objects as they are called now, and the edits that make ids follow.

    `after` is the labels with the edits, and their index; None for labels that are not in memory.
    """

    request: LinkRequest
    lineage: Lineage
    edits: list[LabelEdit]
    after: tuple[np.ndarray, LabelIndex] | None = None

    def described(self) -> str:
        """The objects, once ids follow, in words."""
        tracks = self.lineage.relabeled().tracks()
        if self.request.in_depth:
            return JOINED.format(pluralize(len(tracks), "object"))
        return described_tracks(tracks)


def described_tracks(tracks: Sequence[LineageTrack]) -> str:
    """``12 tracks, 1 division``."""
    divisions = len({each.parent for each in tracks if each.parent})
    return LINKED.format(pluralize(len(tracks), "track"), pluralize(divisions, "division"))


def find_links_job(request: LinkRequest) -> Job[FoundLinks]:
    """Find the links, and what they change."""
    labels, parents = request.editor.layer.data, request.editor.parents
    axis = request.axis
    yield Progress(0, 1, "measuring objects")
    lineage = yield from request.change(labels, Lineage.of_labels(labels, axis, parents))
    edits = yield from renumber_job(labels, lineage, axis)
    if not isinstance(labels, np.ndarray):
        return FoundLinks(request, lineage, edits)
    after = labels.copy()
    for done, edit in enumerate(edits):
        yield Progress(done, len(edits), "numbering")
        edit.apply(after)
    return FoundLinks(request, lineage, edits, (after, LabelIndex.of(after)))

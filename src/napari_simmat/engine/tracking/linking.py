"""Objects of a time series linked from frame to frame, with divisions.

`laptrack` solves the linear assignment (Jaqaman et al., Nature Methods 5, 695, 2008). A *link*
leads from an object to the one that it was on an earlier frame; a *lineage* is all links of a
series. Ids follow from it: an object keeps its id until it ends or divides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.settings import LinkSettings
from napari_simmat.progress import Job, Progress

LAPTRACK_MISSING = (
    "Linking objects over time needs the package laptrack; install it (pip install laptrack)."
)
SAME_FRAME = "Both objects are on one frame: choose objects on two frames."
DIVIDED_ALREADY = "Object {} divides into two already: cut one of those links first."
NOT_LINKED = "Object {} on frame {} and object {} on frame {} are not linked."
TOO_MANY_TRACKS = (
    "The tracks need ids up to {}, but the labels hold none above {}: convert them to 32 bits "
    "first (right-click the layer, Convert data type)."
)
_AREA_WEIGHT = 0.5
"""Diameters that a doubled area counts for, beside the distance."""
_DAUGHTER = 0.85
"""Largest part of its mother's area that a daughter has."""
_DAUGHTERS = (0.5, 1.5)
"""Parts of their mother's area that two daughters have together, at least and at most."""
_LAST_AREAS = 3
"""Frames of a mother over which the median of its area is taken."""


Measurement = tuple[tuple[float, ...], int]
"""Centroid (Y, X) or (Z, Y, X) in pixels, and number of pixels."""


class Node(NamedTuple):
    """An object on one frame."""

    frame: int
    label: int


class LineageTrack(NamedTuple):
    """An object from its first frame to its last: a row of ``res_track.txt``.

    `parent` is the id of the object that divided into it and another, or 0.
    """

    label: int
    first: int
    last: int
    parent: int


@dataclass(frozen=True, eq=False)
class Lineage:
    """The objects of a series and their links.

    Parameters
    ----------
    nodes
        All objects on all frames, with their centroid (Y, X) or (Z, Y, X) in pixels and their
        number of pixels.
    links
        For each object that has one, the object that it was before.
    is_numbered
        Whether ids are 1, 2, ... in the order in which objects begin, and not those of the first
        frames.
    """

    nodes: Mapping[Node, Measurement]
    links: Mapping[Node, Node] = field(default_factory=dict)
    is_numbered: bool = False

    @classmethod
    def of_labels(
        cls, labels: Any, axis: int = 0, parents: Mapping[int, int] | None = None
    ) -> Lineage:
        """The lineage that the ids of a label image mean.

        Parameters
        ----------
        labels
            (T, ..., Y, X), or with another time axis.
        axis
            The time axis.
        parents
            For an id the one that divided into it.
        """
        nodes: dict[Node, Measurement] = {}
        for frame in range(labels.shape[axis]):
            nodes |= _measured(_frame(labels, axis, frame), frame)
        last: dict[int, Node] = {}
        links: dict[Node, Node] = {}
        for node in sorted(nodes):
            if node.label in last:
                links[node] = last[node.label]
            else:
                mother = last.get((parents or {}).get(node.label, 0))
                if mother is not None and mother.frame < node.frame:
                    links[node] = mother
            last[node.label] = node
        return cls(nodes, links)

    def daughters(self) -> dict[Node, list[Node]]:
        """For each object the ones that it is linked to on later frames."""
        daughters: dict[Node, list[Node]] = {}
        for node, before in sorted(self.links.items()):
            daughters.setdefault(before, []).append(node)
        return daughters

    def ids(self) -> dict[Node, int]:
        """The id of each object: that of its first frame, or the next free one if that is in use.

        If it `is_numbered`, always the next free one, from 1. Who divides ends; each daughter has
        an id of its own.
        """
        daughters = self.daughters()
        ids: dict[Node, int] = {}
        used: set[int] = set()
        highest = max((node.label for node in self.nodes), default=0)
        free = 1 if self.is_numbered else highest + 1
        for node in sorted(self.nodes):
            before = self.links.get(node)
            if before is not None and len(daughters[before]) == 1:
                ids[node] = ids[before]
                continue
            label = node.label
            if self.is_numbered or label in used:
                label, free = free, free + 1
            used.add(label)
            ids[node] = label
        return ids

    def tracks(self) -> list[LineageTrack]:
        """The objects by id, as the Cell Tracking Challenge lists them."""
        ids = self.ids()
        spans: dict[int, list[Node]] = {}
        for node, label in sorted(ids.items()):
            spans.setdefault(label, []).append(node)
        tracks = []
        for label, on in sorted(spans.items()):
            mother = self.links.get(on[0])
            parent = 0 if mother is None else ids[mother]
            tracks.append(LineageTrack(label, on[0].frame, on[-1].frame, parent))
        return tracks

    def link(self, first: Node, second: Node) -> Lineage:
        """With `second` linked to `first`, which is on an earlier frame.

        An earlier link of `second` is cut. If `first` has a link to a later frame already, it
        divides.

        Raises
        ------
        ValueError
            If the frames are not in this order, or `first` has two daughters already.
        """
        first, second = sorted((first, second))
        if first.frame == second.frame:
            raise ValueError(SAME_FRAME)
        others = [node for node in self.daughters().get(first, ()) if node != second]
        if len(others) > 1:
            raise ValueError(DIVIDED_ALREADY.format(first.label))
        return replace(self, links={**self.links, second: first})

    def cut(self, first: Node, second: Node) -> Lineage:
        """Without the link between two objects.

        Raises
        ------
        ValueError
            If they are not linked.
        """
        first, second = sorted((first, second))
        if self.links.get(second) != first:
            raise ValueError(
                NOT_LINKED.format(first.label, first.frame, second.label, second.frame)
            )
        return replace(
            self, links={node: before for node, before in self.links.items() if node != second}
        )

    def relabeled(self) -> Lineage:
        """The same lineage with each object called by its id."""
        ids = self.ids()
        named = {node: Node(node.frame, label) for node, label in ids.items()}
        return Lineage(
            {named[node]: values for node, values in self.nodes.items()},
            {named[node]: named[before] for node, before in self.links.items()},
        )

    def points(self) -> tuple[NDArray[np.float64], dict[int, list[int]]]:
        """Napari's data (N, 2 + D) of a Tracks layer: id, frame, centroid; and its graph."""
        ids = self.ids()
        rows = [(label, node.frame, *self.nodes[node][0]) for node, label in ids.items()]
        graph = {each.label: [each.parent] for each in self.tracks() if each.parent}
        return np.array(sorted(rows), dtype=float), graph


def require_laptrack() -> None:
    """Raise ValueError with a sentence if laptrack is not installed."""
    if find_spec("laptrack") is None:
        raise ValueError(LAPTRACK_MISSING)


def link_objects_job(
    labels: Any,
    settings: LinkSettings | None = None,
    axis: int = 0,
    spacing: Sequence[float] | None = None,
) -> Job[Lineage]:
    """Link the objects of a label image over time.

    The cost of a link is the squared distance of the centroids in diameters of the median object,
    plus the change of the area; all links of two frames are chosen together. Then ends and
    beginnings are joined over gaps, and beginnings to the object that divided.

    Parameters
    ----------
    labels
        (T, ..., Y, X) of any ids, or with another time axis; numpy or lazy.
    settings
        How far objects move, over how many frames they may be missing, and whether they divide.
    axis
        The time axis.
    spacing
        Distance between voxels along the axes other than time; all equal by default.

    Raises
    ------
    ValueError
        If laptrack is missing.
    """
    require_laptrack()
    settings = settings or LinkSettings()
    frames = int(labels.shape[axis])
    nodes: dict[Node, Measurement] = {}
    for frame in range(frames):
        yield Progress(frame, 2 * frames, "measuring objects")
        nodes |= _measured(_frame(labels, axis, frame), frame)
    if not nodes:
        return Lineage(nodes)
    yield Progress(frames, 2 * frames, "linking over time")
    from laptrack import LapTrack

    ndim = len(labels.shape) - 1
    step = np.ones(ndim) if spacing is None else np.asarray(spacing, float)
    step = step / step[-1]
    diameter = _usual_diameter(nodes, ndim)
    in_frames: list[list[Node]] = [[] for _ in range(frames)]
    for node in sorted(nodes):
        in_frames[node.frame].append(node)

    def features(of: Sequence[Node]) -> NDArray[np.float64]:
        rows = []
        for node in of:
            center, area = nodes[node]
            place = np.array(center) * step / diameter
            rows.append([*place, _AREA_WEIGHT * math.log2(area)])
        return np.array(rows, float).reshape(-1, ndim + 1)

    farthest = settings.distance / diameter if settings.distance else 1.0
    tracker = LapTrack(**_options(settings, farthest**2))
    tree = tracker.predict([features(of_frame) for of_frame in in_frames])
    links = {}
    for edge in tree.edges():
        (frame, number), (later_frame, later_number) = sorted(edge)
        later = in_frames[int(later_frame)][int(later_number)]
        links[later] = in_frames[int(frame)][int(number)]
    return Lineage(nodes, dict(_plausible(Lineage(nodes, links))))


def _usual_diameter(nodes: Mapping[Node, Measurement], ndim: int) -> float:
    """Diameter of a disc, or of a ball, as large as the median object."""
    size = float(np.median(np.array([area for _, area in nodes.values()], float)))
    if ndim == 2:
        return 2 * math.sqrt(size / math.pi)
    return float((6 * size / math.pi) ** (1 / 3))


def _options(settings: LinkSettings, cutoff: float) -> dict[str, Any]:
    """What laptrack is told; `cutoff` is the largest cost of a link."""
    return {
        "metric": "sqeuclidean",
        "cutoff": cutoff,
        "gap_closing_metric": "sqeuclidean",
        "gap_closing_cutoff": cutoff if settings.gap else False,
        "gap_closing_max_frame_count": settings.gap + 1,
        "splitting_metric": "sqeuclidean",
        "splitting_cutoff": cutoff if settings.divisions else False,
        "merging_cutoff": False,
    }


def _plausible(lineage: Lineage) -> Iterator[tuple[Node, Node]]:
    """The links without those of divisions that are none: whose areas do not fit.

    An object that was not found before, or comes into view, begins beside another.
    """
    for mother, daughters in lineage.daughters().items():
        if len(daughters) > 1 and not _is_division(lineage, mother, daughters):
            yield _likeliest(lineage, mother, daughters), mother
            continue
        for daughter in daughters:
            yield daughter, mother


def _is_division(lineage: Lineage, mother: Node, daughters: Sequence[Node]) -> bool:
    """Whether the areas fit that of the mother, the median on its last frames."""
    areas = [lineage.nodes[mother][1]]
    before = lineage.links.get(mother)
    while len(areas) < _LAST_AREAS and before is not None:
        areas.append(lineage.nodes[before][1])
        before = lineage.links.get(before)
    area = float(np.median(areas))
    shares = [lineage.nodes[daughter][1] / area for daughter in daughters]
    return max(shares) <= _DAUGHTER and _DAUGHTERS[0] <= sum(shares) <= _DAUGHTERS[1]


def _likeliest(lineage: Lineage, mother: Node, others: Sequence[Node]) -> Node:
    """The nearest to the mother."""
    place = np.array(lineage.nodes[mother][0])
    return min(others, key=lambda node: math.dist(lineage.nodes[node][0], place))


def relabel_job(labels: NDArray[Any], lineage: Lineage, axis: int = 0) -> Job[NDArray[Any]]:
    """A copy of a label image whose ids follow the lineage."""
    ids = lineage.ids()
    frames = labels.shape[axis]
    after = np.zeros_like(labels)
    for frame in range(frames):
        yield Progress(frame, frames, "numbering")
        before = _frame(labels, axis, frame)
        present, inverse = np.unique(before, return_inverse=True)
        values = [ids.get(Node(frame, int(label)), 0) for label in present]
        changed = _frame(after, axis, frame)
        changed[...] = np.array(values, labels.dtype)[inverse].reshape(before.shape)
    return after


def renumber_job(labels: Any, lineage: Lineage, axis: int = 0) -> Job[list[LabelEdit]]:
    """The edits, one for each frame that changes, that make the ids follow the lineage.

    `labels` is only read. Parameters as in `relabel_job`.

    Raises
    ------
    ValueError
        If the type of the labels cannot hold the ids.
    """
    frames = labels.shape[axis]
    edits = []
    changed: dict[int, dict[int, int]] = {}
    ids = lineage.ids()
    largest = np.iinfo(labels.dtype).max
    if max(ids.values(), default=0) > largest:
        raise ValueError(TOO_MANY_TRACKS.format(max(ids.values()), largest))
    for node, label in ids.items():
        if label != node.label:
            changed.setdefault(node.frame, {})[node.label] = label
    for done, (frame, values) in enumerate(sorted(changed.items())):
        yield Progress(done, frames, "numbering")
        before = _frame(labels, axis, frame)
        after = before.copy()
        for old, new in values.items():
            after[before == old] = new
        corner = tuple(frame if each == axis else 0 for each in range(len(labels.shape)))
        edit = LabelEdit.between(np.expand_dims(before, axis), np.expand_dims(after, axis), corner)
        if edit is not None:
            edits.append(edit)
    return edits


def track_table(tracks: Iterable[LineageTrack]) -> str:
    """The text of ``res_track.txt``: id, first and last frame, and parent of each object."""
    return "".join(f"{each.label} {each.first} {each.last} {each.parent}\n" for each in tracks)


def read_parents(text: str) -> dict[int, int]:
    """The parents of a ``res_track.txt``, by id.

    Raises ValueError if it is anything else.
    """
    parents = {}
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 4 or not all(cell.isdecimal() for cell in cells):
            raise ValueError(
                f"Line {number} of the track table is not an id, a first frame, a last frame and a "
                f"parent: {line[:60]!r}."
            )
        label, _, _, parent = map(int, cells)
        if parent:
            parents[label] = parent
    return parents


def _frame(labels: Any, axis: int, frame: int) -> NDArray[Any]:
    """One frame; a view if the labels are in memory."""
    return np.asarray(labels[(*(slice(None),) * axis, frame)])


def _measured(labels: NDArray[Any], frame: int) -> dict[Node, Measurement]:
    where = np.nonzero(labels)
    present, inverse = np.unique(labels[where], return_inverse=True)
    counts = np.bincount(inverse, minlength=len(present))
    centers = [np.bincount(inverse, weights=at, minlength=len(present)) / counts for at in where]
    return {
        Node(frame, int(label)): (tuple(float(axis[n]) for axis in centers), int(counts[n]))
        for n, label in enumerate(present)
    }

"""Writes objects into an array of labels; each action returns the `LayerEdit` that undoes it.

The array is that of a labels layer of a viewer, or of a `LabelArray`, which needs no viewer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Literal, Protocol
from uuid import uuid4

import numpy as np

from napari_simmat.annotation.history import LayerEdit, NewObject, ObjectEntry, ObjectRegister
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.engine.coordinates import AxisOrder, inverse_order
from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.label_index import LabelIndex
from napari_simmat.engine.masks import ObjectMask, connected_components, split_at_points
from napari_simmat.engine.tracking.linking import Lineage

Overlap = Literal["keep", "overwrite"]
"""Which object gets pixels that a new object shares with others: they, or the new one."""
ONE_PIECE = "Object {label} is one piece: mark a point on each part that it should have, then split"


class LabelLayer(Protocol):
    """What objects are written into; a labels layer of napari is one."""

    name: str
    """For messages."""
    data: Any
    """(..., Y, X) of whole numbers; 0 where no object is."""

    @property
    def unique_id(self) -> Any:
        """Tells it from all others."""

    def refresh(self) -> None:
        """Called after voxels have changed."""


class LabelArray:
    """Labels without a viewer.

    Parameters
    ----------
    data
        (..., Y, X) of whole numbers; 0 where no object is.
    name
        For messages.
    """

    def __init__(self, data: np.ndarray, name: str = "The objects") -> None:
        self.data = data
        self.name = name
        self.unique_id = uuid4()

    def refresh(self) -> None:
        """Nothing shows them."""


class LabelEditor:
    """The committed objects of one labels layer.

    Planes are those of a view; everything else is in the layer's axes.

    Parameters
    ----------
    layer
        The labels layer.
    index
        The layer's objects if they are known; they are counted otherwise.

    Attributes
    ----------
    register
        The objects' sizes, boxes and entries.
    version
        Increases with each change.
    """

    def __init__(self, layer: LabelLayer, index: LabelIndex | None = None) -> None:
        self.layer = layer
        self.register = ObjectRegister(LabelIndex.of(layer.data) if index is None else index)
        self.version = 0

    @property
    def key(self) -> str:
        """Identifies the layer for as long as it is open."""
        return str(self.layer.unique_id)

    @property
    def labels(self) -> list[int]:
        """The objects' numbers, ascending."""
        return list(self.register.index)

    def __contains__(self, label: int) -> bool:
        """Whether there is such an object."""
        return label in self.register.index

    @property
    def parents(self) -> dict[int, int]:
        """For each object that came from a division, the object that divided."""
        entries = self.register.entries.items()
        return {label: entry.parent for label, entry in entries if entry.parent}

    def newest_area(self, order: AxisOrder) -> float | None:
        """Pixels of the object with the largest number on a plane of a view, on average."""
        index = self.register.index
        if not index:
            return None
        low, high = index.box(index.highest)
        stacked = order[:-2] or range(len(low) - 2)
        return index.size(index.highest) / math.prod(high[axis] - low[axis] for axis in stacked)

    def recount(self) -> bool:
        """Count all objects again, and drop the entries of those that are gone.

        Returns whether any object has changed.
        """
        before = self.register
        self.version += 1
        self.register = ObjectRegister(LabelIndex.of(self.layer.data))
        self.register.entries = {
            label: entry for label, entry in before.entries.items() if label in self
        }
        return before.index != self.register.index

    def mask(self, label: int) -> ObjectMask | None:
        """An object's voxels; None if there is no such object."""
        return self.register.index.mask(self.layer.data, label)

    def masks_on_planes(self) -> dict[Plane, int]:
        """Number of objects on each plane of the usual view, at most: by their boxes."""
        counts: dict[Plane, int] = {}
        for label in self.register.index:
            low, high = self.register.index.box(label)
            for offset in np.ndindex(*np.subtract(high, low)[:-2]):
                plane = tuple(start + index for start, index in zip(low, offset, strict=False))
                counts[plane] = counts.get(plane, 0) + 1
        return counts

    def on_plane(self, label: int, plane: Plane, order: AxisOrder = ()) -> ObjectMask | None:
        """An object's pixels on one plane of a view, in the view's coordinates.

        Reads only the plane. None if the object is not there.
        """
        if label not in self:
            return None
        low, high = self.register.index.box(label)
        region = [slice(*ends) for ends in zip(low, high, strict=True)]
        for axis, index in zip(order or range(len(plane)), plane, strict=False):
            if not low[axis] <= index < high[axis]:
                return None
            region[axis] = slice(index, index + 1)
        mask = np.asarray(self.layer.data[tuple(region)]) == label
        corner = tuple(part.start for part in region)
        return ObjectMask.of(mask, corner).transposed(order) if mask.any() else None

    def overlapped(self, objects: Sequence[NewObject]) -> list[int]:
        """The existing objects that overlap `objects`, ascending."""
        found: set[int] = set()
        for each in objects:
            values = np.asarray(self.layer.data[each.mask.region])[each.mask.mask]
            found |= set(np.unique(values).tolist()) - {0, each.label}
        return sorted(found)

    def label_at(self, position: Sequence[float]) -> int:
        """The object at a position in pixels; 0 for none, and outside."""
        labels = self.layer.data
        index = tuple(round(float(value)) for value in position)  # as napari shows it
        if not all(0 <= at < size for at, size in zip(index, labels.shape, strict=True)):
            return 0
        return int(np.asarray(labels[index]))

    # ----------------------------------------------------------------- actions

    def write(
        self, objects: Sequence[NewObject], overlap: Overlap, min_visible: float = 0.0
    ) -> tuple[LayerEdit, list[int], list[NewObject]]:
        """Write objects; earlier ones of the same call lie on top.

        Parameters
        ----------
        objects
            New ones, or ones that replace others.
        overlap
            Which object gets shared voxels.
        min_visible
            Share of its voxels of which an object must get more.

        Returns
        -------
        edit, labels, hidden
            The edit, the number of each object that was written, and the objects that were left
            out because others hold their voxels.

        Raises
        ------
        ValueError
            If the layer's type cannot hold their numbers.
        """
        numbers = self._numbers(objects)
        free = deque(n for each, n in zip(objects, numbers, strict=True) if each.label is None)
        before = dict(self.register.entries)
        patches: list[LabelEdit] = []
        written: list[int] = []
        hidden: list[NewObject] = []
        for new in objects:
            label = free[0] if new.label is None else new.label
            replaced = self.register.entry(label) if label in self else None
            block = composite(
                self.layer.data, new.mask, label, self._stale(new), overlap, written, min_visible
            )
            if block is None:
                hidden.append(new)
                continue
            corner, old, values = block
            patches += self._noted([LabelEdit.replace(self.layer.data, corner, old, values)])
            self.register.entries[label] = self._entry(new, label, replaced)
            written.append(label)
            if new.label is None:
                free.popleft()  # a number that is not used goes to the next object
        return self._finish(patches, before), written, hidden

    def delete(self, labels: Sequence[int]) -> LayerEdit:
        """Remove objects from the layer."""
        return self._relabel(dict.fromkeys(labels, 0), {})

    def merge(self, labels: Sequence[int]) -> tuple[LayerEdit, int]:
        """Merge objects into the one with the smallest number."""
        into = min(labels)
        entries = [self.register.entry(label) for label in sorted(labels)]
        named = next((entry for entry in entries if entry.category), ObjectEntry())
        rest = {label: into for label in labels if label != into}
        return self._relabel(rest, {into: _class_alone(named)}), into

    def split(
        self, label: int, points: Sequence[Sequence[int]], spacing: Sequence[float] | None = None
    ) -> tuple[LayerEdit, list[int]]:
        """Split an object: one part around each point, or its separate pieces.

        Parameters
        ----------
        label
            The object.
        points
            Voxels of it, one per part; with fewer than two it is split into its pieces.
        spacing
            Size of a voxel along each axis.

        Raises
        ------
        ValueError
            If it is one piece and there is no point for each part, or no number is left.
        """
        whole = self.mask(label)
        assert whole is not None, "it is one of the objects"
        if len(points) > 1:
            inner = [np.subtract(point, whole.corner).tolist() for point in points]
            masks = split_at_points(whole.mask, inner, spacing)
            parts = [ObjectMask.of(mask, whole.corner) for mask in masks]
        else:
            parts = connected_components(whole.mask, whole.corner)
        if len(parts) < 2:
            raise ValueError(ONE_PIECE.format(label=label))
        new = [NewObject(part) for part in parts[1:]]
        numbers = [label, *self._numbers(new)]
        before = dict(self.register.entries)
        named = _class_alone(self.register.entry(label))
        patches = self._noted(
            LabelEdit.write(self.layer.data, each.mask, number)
            for each, number in zip(new, numbers[1:], strict=True)
        )
        for number in numbers:
            self.register.entries[number] = named
        return self._finish(patches, before), numbers

    def renumber(
        self,
        edits: Sequence[LabelEdit],
        lineage: Lineage,
        axis: int,
        after: tuple[np.ndarray, LabelIndex] | None = None,
    ) -> LayerEdit:
        """Let the ids follow a lineage.

        Parameters
        ----------
        edits
            From `engine.tracking.linking.renumber_job` of the layer as it is.
        lineage, axis
            The links of its objects as they are called now, and the time axis.
        after
            The labels with all edits, and their index, if they were made beforehand: edits of a
            long series take too long for the window.
        """
        before = dict(self.register.entries)
        entries = _entries_along(lineage, before, axis)
        if after is None:
            patches = self._noted(edit.apply(self.layer.data) for edit in edits)
        else:
            patches = list(edits)
            self.layer.data[...], self.register.index = after
        # The edit lists an entry that is another value, so one that is equal stays the same value.
        same = {label: entry for label, entry in before.items() if entry == entries.get(label)}
        empty = ObjectEntry()
        wanted = {label: entry for label, entry in entries.items() if entry != empty}
        self.register.entries = {**wanted, **same}
        return self._finish(patches, before)

    def take_over(self, known: Mapping[int, ObjectEntry]) -> None:
        """Note what is known of objects that are there; nothing to undo."""
        there = {label: entry for label, entry in known.items() if label in self}
        self.register.entries.update(there)
        self.version += 1

    def classify(self, labels: Sequence[int], category: str) -> LayerEdit:
        """Set the class of objects by hand; an empty name removes it."""
        return self.name(dict.fromkeys(labels, (category, None)))

    def name(self, classes: Mapping[int, tuple[str, float | None]]) -> LayerEdit:
        """Set the class of each object, and how certain it is; None by hand."""
        before = dict(self.register.entries)
        for label, (category, certainty) in classes.items():
            entry = self.register.entry(label)
            named = replace(entry, category=category, certainty=certainty)
            self.register.entries[label] = named
        return self._finish([], before)

    def replay(self, edit: LayerEdit, *, back: bool) -> None:
        """Revert an edit, or make it again."""
        for patch in reversed(edit.patches) if back else edit.patches:
            self._noted([(patch.revert if back else patch.apply)(self.layer.data)])
        self.register.apply(edit, back=back)
        self.version += 1
        self._show(edit.patches)

    def take_up(self, patches: Iterable[LabelEdit | None]) -> LayerEdit:
        """Take up voxels that were painted by hand, and are in the layer already."""
        before = dict(self.register.entries)
        return replace(self._edit(self._noted(patches), before), by_hand=True)

    # ----------------------------------------------------------------- helpers

    def _numbers(self, objects: Sequence[NewObject]) -> list[int]:
        """A number for each object; raises ValueError if the layer's type cannot hold one."""
        given = [each.label for each in objects if each.label is not None]
        free = count(max([self.register.next_label, *(label + 1 for label in given)]))
        numbers = [next(free) if each.label is None else each.label for each in objects]
        dtype = np.dtype(self.layer.data.dtype)
        if max(numbers, default=0) > np.iinfo(dtype).max:
            raise ValueError(
                f"{self.layer.name} holds ids up to {np.iinfo(dtype).max} ({dtype.name}) and the "
                f"next one would be {max(numbers)}"
            )
        return numbers

    def _stale(self, new: NewObject) -> list[ObjectMask]:
        """What the object that `new` replaces, if any, has on the planes that `new` was seen on."""
        if new.label is None:
            return []
        back = inverse_order(new.order)
        sections = [self.on_plane(new.label, plane, new.order) for plane in new.viewed.planes()]
        return [section.transposed(back) for section in sections if section is not None]

    def _entry(self, new: NewObject, label: int, replaced: ObjectEntry | None) -> ObjectEntry:
        """The entry of an object that was just written, and may have replaced another."""
        entry = replaced or ObjectEntry(category=new.category)
        planes = set(new.viewed.planes())
        provenance = [
            prompted
            for prompted in entry.provenance
            if prompted.order != new.order or prompted.plane not in planes
        ]
        for prompted in new.provenance:
            pixels = self.on_plane(label, prompted.plane, prompted.order)
            if pixels is not None:
                provenance.append(replace(prompted, digest=pixels.digest))
        return replace(entry, score=new.score, provenance=tuple(provenance), doubtful=new.doubtful)

    def _relabel(self, values: Mapping[int, int], entries: Mapping[int, ObjectEntry]) -> LayerEdit:
        """Give all voxels of some objects another number."""
        before = dict(self.register.entries)
        masks = {label: self.mask(label) for label in values}
        patches = self._noted(
            LabelEdit.write(self.layer.data, mask, values[label])
            for label, mask in masks.items()
            if mask is not None
        )
        self.register.entries.update(entries)
        return self._finish(patches, before)

    def _noted(self, patches: Iterable[LabelEdit | None]) -> list[LabelEdit]:
        """Update the index for each change as it is made; leaves out what changed nothing."""
        noted = []
        for patch in patches:
            if patch is not None:
                self.register.index.note(patch)
                noted.append(patch)
        return noted

    def _finish(self, patches: Sequence[LabelEdit], before: Mapping[int, ObjectEntry]) -> LayerEdit:
        """Show what was just changed, and return it."""
        self._show(patches)
        return self._edit(patches, before)

    def _show(self, patches: Sequence[LabelEdit]) -> None:
        """Let voxels be seen that have changed."""
        if patches:
            self.layer.refresh()

    def _edit(self, patches: Sequence[LabelEdit], before: Mapping[int, ObjectEntry]) -> LayerEdit:
        """The changes since `before`; drops the entries of objects that are gone."""
        self.version += 1
        entries = self.register.entries
        for label in [label for label in entries if label not in self.register.index]:
            del entries[label]
        changed = {
            label: (before.get(label), entries.get(label))
            for label in before.keys() | entries.keys()
            if before.get(label) is not entries.get(label)
        }
        return LayerEdit(self.key, tuple(patches), changed)


# ----------------------------------------------------------------------- composition


def composite(
    labels: Any,
    new: ObjectMask,
    label: int,
    stale: Sequence[ObjectMask],
    overlap: Overlap,
    above: Sequence[int],
    min_visible: float = 0.0,
) -> tuple[tuple[int, ...], np.ndarray, np.ndarray] | None:
    """A block of `labels` with a new object in it; nothing is written.

    Parameters
    ----------
    labels
        The label array.
    new, label
        The new object and its number.
    stale
        Pixels of the object that is replaced; they become background.
    overlap
        Whether other objects keep their voxels.
    above
        Objects that keep theirs in any case.

    Returns
    -------
    corner, before, after
        The block's first index, its values and its new values; None if the object gets no more than
        `min_visible` of its voxels.
    """
    low = np.array(new.corner)
    high = low + new.shape
    for each in stale:
        low = np.minimum(low, each.corner)
        high = np.maximum(high, np.add(each.corner, each.shape))
    region = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    before = np.array(labels[region])
    after = before.copy()
    for each in stale:
        after[_within(each, low)][each.mask] = 0
    inside = after[_within(new, low)]
    taken = inside != 0 if overlap == "keep" else np.isin(inside, list(above))
    mask = new.mask & ~taken
    if np.count_nonzero(mask) <= min_visible * np.count_nonzero(new.mask):
        return None
    inside[mask] = label
    return tuple(int(n) for n in low), before, after


def _within(mask: ObjectMask, corner: np.ndarray) -> tuple[slice, ...]:
    """The region of a mask within a block that begins at `corner`."""
    return tuple(
        slice(int(first - start), int(first - start + size))
        for first, start, size in zip(mask.corner, corner, mask.shape, strict=True)
    )


def _entries_along(
    lineage: Lineage, before: Mapping[int, ObjectEntry], axis: int
) -> dict[int, ObjectEntry]:
    """The entry of each track: that of its first object, and how it was prompted in each frame."""
    parents = {track.label: track.parent for track in lineage.tracks()}
    entries: dict[int, ObjectEntry] = {}
    for node, label in sorted(lineage.ids().items()):
        entry = before.get(node.label, ObjectEntry())
        in_frame = [
            prompted
            for prompted in entry.provenance
            if not prompted.order and prompted.plane[axis] == node.frame
        ]
        if label not in entries:
            entries[label] = replace(entry, provenance=(), parent=parents[label])
        so_far = entries[label]
        entries[label] = replace(so_far, provenance=(*so_far.provenance, *in_frame))
    return entries


def _class_alone(entry: ObjectEntry) -> ObjectEntry:
    """The class of an object that is made from others, without how these were made."""
    return ObjectEntry(category=entry.category, certainty=entry.certainty)

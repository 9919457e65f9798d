"""Who gets which voxel where a new object lies over others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from napari.layers import Labels

from napari_simmat.engine.coordinates import AxisOrder, inverse_order
from napari_simmat.engine.masks import (
    LabelEdit,
    LabelIndex,
    ObjectMask,
    connected_components,
    split_at_points,
)
from napari_simmat.widgets.segment.history import Edit, Entry, NewObject, Register
from napari_simmat.widgets.segment.prompt_state import Plane

Overlap = Literal["keep", "overwrite", "ask"]
"""Who gets the pixels of a new object that others have: they, the new one, or the user says."""


def drawn(
    labels: Any,
    footprint: ObjectMask,
    label: int,
    stale: Sequence[ObjectMask],
    overlap: Overlap,
    above: Sequence[int],
) -> tuple[tuple[int, ...], np.ndarray, np.ndarray] | None:
    """What a block of `labels` holds with a new object in it; nothing is written.

    Parameters
    ----------
    labels
        The label array.
    footprint, label
        The new object and its number.
    stale
        Where an object that is replaced lies now: its voxels there become background.
    overlap
        Whether other objects keep their voxels.
    above
        Objects that keep theirs in any case.

    Returns
    -------
    corner, before, after
        Where the block begins, what it holds and what it is to hold; None if the object gets no
        voxel.
    """
    low = np.array(footprint.corner)
    high = low + footprint.shape
    for each in stale:
        low = np.minimum(low, each.corner)
        high = np.maximum(high, np.add(each.corner, each.shape))
    region = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    before = np.array(labels[region])
    after = before.copy()
    for each in stale:
        after[_within(each, low)][each.mask] = 0
    inside = after[_within(footprint, low)]
    taken = inside != 0 if overlap == "keep" else np.isin(inside, list(above))
    mask = footprint.mask & ~taken
    if not mask.any():
        return None
    inside[mask] = label
    return tuple(int(n) for n in low), before, after


def _within(footprint: ObjectMask, corner: np.ndarray) -> tuple[slice, ...]:
    """The footprint's region within a block that begins at `corner`."""
    return tuple(
        slice(int(first - start), int(first - start + size))
        for first, start, size in zip(footprint.corner, corner, footprint.shape, strict=True)
    )


# Strokes of napari's own painting tools: as changes of the labels, and in its own history.


class NapariHistory:
    """Has napari step back and forward through its strokes as our list does.

    It remembers fewer strokes than we do, and none that was restored from a file.
    """

    def __init__(self, layer: Labels) -> None:
        self._layer = layer
        self._taken_back: list[Edit] = []

    def begin_anew(self) -> None:
        """A stroke was painted: what was taken back cannot come again."""
        self._taken_back.clear()

    def follow(self, edit: Edit, *, back: bool) -> None:
        """An edit by hand was taken back, or made again."""
        if back and self._layer._undo_history:
            self._layer.undo()
            self._taken_back.append(edit)
        elif not back and self._taken_back and self._taken_back[-1] is edit:
            self._taken_back.pop()
            self._layer.redo()


def patch_of_stroke(atom: Any) -> LabelEdit | None:
    """One entry of napari's history of a stroke: indices or a box, values before and after."""
    if hasattr(atom, "slice_key"):
        corner = tuple(int(part.start) for part in atom.slice_key)
        shape = tuple(int(part.stop - part.start) for part in atom.slice_key)
        mask = np.ones(shape, dtype=bool) if atom.mask is None else np.asarray(atom.mask)
        before = np.zeros(shape, dtype=np.asarray(atom.old_values).dtype)
        before[mask] = np.asarray(atom.old_values).ravel()
        after = before.copy()
        after[mask] = atom.new_value
        return LabelEdit.between(before, after, corner)
    indices, old, new = atom
    index = [np.asarray(axis).ravel() for axis in indices]
    corner = tuple(int(axis.min()) for axis in index)
    shape = tuple(int(axis.max()) - first + 1 for axis, first in zip(index, corner, strict=True))
    at = tuple(axis - first for axis, first in zip(index, corner, strict=True))
    before = np.zeros(shape, dtype=np.asarray(old).dtype)
    before[at] = old
    after = before.copy()
    after[at] = new
    return LabelEdit.between(before, after, corner)


# The finished objects of one labels layer, and all that is done to them.


class Finished:
    """What one labels layer holds. Planes are those of a view, all else is in the layer's axes.

    Parameters
    ----------
    layer
        The labels layer.
    painted
        Called with what was painted by hand.
    replaced
        Called when the layer has got another array.
    census
        Its objects, if they are known, so that they need not be counted.

    Attributes
    ----------
    register
        How large the objects are, and what is known of them.
    version
        Another number after each change.
    """

    def __init__(
        self,
        layer: Labels,
        painted: Callable[[Finished, Edit], None],
        replaced: Callable[[Finished], None],
        census: LabelIndex | None = None,
    ) -> None:
        self.layer = layer
        if census is None:
            census = LabelIndex() if layer.multiscale else LabelIndex.of(layer.data)
        self.register = Register(census)
        self.version = 0
        self._history = NapariHistory(layer)
        self._painted, self._replaced = painted, replaced
        layer.events.paint.connect(self._on_paint)
        layer.events.data.connect(self._on_data)

    @property
    def key(self) -> str:
        """Tells layers apart for as long as they are open."""
        return str(self.layer.unique_id)

    @property
    def labels(self) -> list[int]:
        """The objects' numbers, ascending."""
        return list(self.register.census)

    def release(self) -> None:
        """Stop following the layer."""
        self.layer.events.paint.disconnect(self._on_paint)
        self.layer.events.data.disconnect(self._on_data)

    def footprint(self, label: int) -> ObjectMask | None:
        """An object's voxels as they are now; None if there is no such object."""
        return self.register.census.footprint(self.layer.data, label)

    def on_plane(self, label: int, plane: Plane, order: AxisOrder = ()) -> ObjectMask | None:
        """An object's pixels on one plane of a view as they are now, in the view's coordinates.

        Only the plane is read. None where the object is not.
        """
        if label not in self.register.census:
            return None
        low, high = self.register.census.box(label)
        region = [slice(*ends) for ends in zip(low, high, strict=True)]
        for axis, index in zip(order or range(len(plane)), plane, strict=False):
            if not low[axis] <= index < high[axis]:
                return None
            region[axis] = slice(index, index + 1)
        mask = np.asarray(self.layer.data[tuple(region)]) == label
        corner = tuple(part.start for part in region)
        return ObjectMask.of(mask, corner).transposed(order) if mask.any() else None

    def overlapped(self, objects: Sequence[NewObject]) -> list[int]:
        """The other objects that lie where `objects` want to be, ascending."""
        found: set[int] = set()
        for each in objects:
            values = np.asarray(self.layer.data[each.footprint.region])[each.footprint.mask]
            found |= set(np.unique(values).tolist()) - {0, each.label}
        return sorted(found)

    # ----------------------------------------------------------------- actions

    def write(
        self, objects: Sequence[NewObject], overlap: Overlap
    ) -> tuple[Edit, list[int], list[NewObject]]:
        """Write objects; of those in one call the earlier ones lie on top.

        Returns
        -------
        edit, labels, left
            What undoes it, the number of each object that got a voxel, and those that were left
            out since they lie wholly under others.

        Raises
        ------
        ValueError
            If the layer's type cannot hold their numbers.
        """
        numbers = self._numbers(objects)
        before = dict(self.register.entries)
        patches: list[LabelEdit] = []
        written: list[int] = []
        left: list[NewObject] = []
        for each, label in zip(objects, numbers, strict=True):
            stale = self._stale(each, label)
            block = drawn(self.layer.data, each.footprint, label, stale, overlap, written)
            if block is None:
                left.append(each)
                continue
            corner, old, new = block
            patch = LabelEdit.replace(self.layer.data, corner, old, new)
            if patch is not None:
                self.register.census.note(patch)
                patches.append(patch)
            self.register.entries[label] = self._entry(each, label)
            written.append(label)
        return self._edit(patches, before), written, left

    def delete(self, labels: Sequence[int]) -> Edit:
        """Take objects out of the layer."""
        return self._rewrite(dict.fromkeys(labels, 0), {})

    def merge(self, labels: Sequence[int]) -> tuple[Edit, int]:
        """Make one object of several, which gets the smallest of their numbers."""
        into = min(labels)
        known = [self.register.entry(label) for label in sorted(labels)]
        category = next((entry.category for entry in known if entry.category), "")
        entry = Entry(category=category)
        rest = {label: into for label in labels if label != into}
        return self._rewrite(rest, {into: entry}), into

    def split(
        self, label: int, points: Sequence[Sequence[int]], spacing: Sequence[float] | None = None
    ) -> tuple[Edit, list[int]]:
        """Make several objects of one: one around each point, or its separate pieces.

        Parameters
        ----------
        label
            The object.
        points
            Voxels of it, one for each part; with less than two its separate pieces are taken.
        spacing
            Size of a voxel along each axis.

        Raises
        ------
        ValueError
            If it is one piece and there is no point for each part, or no number is left.
        """
        footprint = self.footprint(label)
        assert footprint is not None
        if len(points) > 1:
            inner = [np.subtract(point, footprint.corner) for point in points]
            masks = split_at_points(footprint.mask, inner, spacing)
            parts = [ObjectMask.of(mask, footprint.corner) for mask in masks]
        else:
            parts = connected_components(footprint.mask, footprint.corner)
        if len(parts) < 2:
            raise ValueError(
                f"Object {label} is one piece: click once on each part that it should have, then "
                "split"
            )
        new = [NewObject(part) for part in parts[1:]]
        numbers = [label, *self._numbers(new)]
        before = dict(self.register.entries)
        old = self.register.entry(label)
        patches = [
            LabelEdit.write(self.layer.data, each.footprint, number)
            for each, number in zip(new, numbers[1:], strict=True)
        ]
        self._note([patch for patch in patches if patch is not None])
        for number in numbers:
            self.register.entries[number] = Entry(category=old.category)
        return self._edit([patch for patch in patches if patch is not None], before), numbers

    def classify(self, labels: Sequence[int], category: str) -> Edit:
        """Give objects a class; an empty name takes it away."""
        before = dict(self.register.entries)
        for label in labels:
            self.register.entries[label] = replace(self.register.entry(label), category=category)
        return self._edit([], before)

    def play(self, edit: Edit, *, back: bool) -> None:
        """Take an edit back, or make it again."""
        for patch in reversed(edit.patches) if back else edit.patches:
            changed = (patch.revert if back else patch.apply)(self.layer.data)
            if changed is not None:
                self.register.census.note(changed)
        if edit.by_hand:
            self._history.follow(edit, back=back)
        self.register.note(edit, back=back)
        self.version += 1
        self.layer.refresh()

    # ----------------------------------------------------------------- helpers

    def _numbers(self, objects: Sequence[NewObject]) -> list[int]:
        """A number for each object; raises if the layer's type cannot hold one."""
        count = sum(each.label is None for each in objects)
        first = self.register.next_label
        dtype = np.dtype(self.layer.data.dtype)
        if count and first + count - 1 > np.iinfo(dtype).max:
            raise ValueError(
                f"{self.layer.name} holds ids up to {np.iinfo(dtype).max} ({dtype.name}) and the "
                f"next one would be {first + count - 1}"
            )
        free = iter(range(first, first + count))
        return [next(free) if each.label is None else each.label for each in objects]

    def _stale(self, new: NewObject, label: int) -> list[ObjectMask]:
        """Where an object that is replaced lies on the planes on which it is."""
        if new.label is None:
            return []
        found = (self.on_plane(label, plane, new.order) for plane in new.seen.planes())
        return [each.transposed(inverse_order(new.order)) for each in found if each is not None]

    def _entry(self, new: NewObject, label: int) -> Entry:
        """The entry of an object that was just written."""
        known = (
            self.register.entry(label) if new.label is not None else Entry(category=new.category)
        )
        planes = set(new.seen.planes())
        made = tuple(
            each for each in known.made if each.order != new.order or each.plane not in planes
        )
        for each in new.made:
            pixels = self.on_plane(label, each.plane, each.order)
            if pixels is not None:
                made = (*made, replace(each, digest=pixels.digest))
        return replace(known, score=new.score, made=made)

    def _rewrite(self, values: Mapping[int, int], entries: Mapping[int, Entry]) -> Edit:
        """Give all voxels of some objects another value."""
        before = dict(self.register.entries)
        patches = []
        for label, value in values.items():
            if (footprint := self.footprint(label)) is not None:
                patch = LabelEdit.write(self.layer.data, footprint, value)
                assert patch is not None
                self._note([patch])
                patches.append(patch)
        self.register.entries.update(entries)
        return self._edit(patches, before)

    def _note(self, patches: Sequence[LabelEdit]) -> None:
        for patch in patches:
            self.register.census.note(patch)

    def _edit(self, patches: Sequence[LabelEdit], before: Mapping[int, Entry]) -> Edit:
        """Show what was just done, and return it as a value."""
        self.layer.refresh()
        return self._difference(patches, before)

    def _difference(self, patches: Sequence[LabelEdit], before: Mapping[int, Entry]) -> Edit:
        """What was just done; forgets what was known of objects that are gone."""
        self.version += 1
        entries = self.register.entries
        for label in [label for label in entries if label not in self.register.census]:
            del entries[label]
        changed = {
            label: (before.get(label), entries.get(label))
            for label in before.keys() | entries.keys()
            if before.get(label) is not entries.get(label)
        }
        return Edit(self.key, tuple(patches), changed)

    # ------------------------------------------------------------------- brush

    def _on_paint(self, event: Any) -> None:
        """Take up a stroke of napari's own tools."""
        self._history.begin_anew()
        before = dict(self.register.entries)
        patches = [patch for atom in event.value if (patch := patch_of_stroke(atom)) is not None]
        self._note(patches)
        edit = replace(self._difference(patches, before), by_hand=True)
        if edit:
            self._painted(self, edit)

    def _on_data(self) -> None:
        """The whole array was replaced: count it anew."""
        self.version += 1
        entries = self.register.entries
        self.register = Register(LabelIndex.of(self.layer.data))
        self.register.entries = {
            label: entry for label, entry in entries.items() if label in self.register.census
        }
        self._replaced(self)

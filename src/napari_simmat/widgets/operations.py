"""What the user did, as one list of operations that can be undone and redone.

Plain values, no Qt, no napari: what an operation changed, before and after. Coordinates are
those of the image, in pixels; a prompt carries its plane in its leading coordinates.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

Position = tuple[float, ...]
"""One coordinate per axis of the image without channels: (..., y, x)."""

LIMIT = 500
"""Steps that are kept."""


@dataclass(frozen=True)
class Prompts:
    """Everything that is asked for now, on all planes.

    Parameters
    ----------
    points
        Clicked positions.
    labels
        For each point 1 (inside the object) or 0 (outside).
    boxes
        For each rectangle its corners, edges as napari draws them (pixel k reaches from
        k - 0.5 to k + 0.5).
    """

    points: tuple[Position, ...] = ()
    labels: tuple[int, ...] = ()
    boxes: tuple[tuple[Position, ...], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.points or self.boxes)

    def on(self, plane: tuple[int, ...]) -> Prompts:
        """Those that live on `plane` (indices of the leading axes)."""
        return self._where(plane, here=True)

    def off(self, plane: tuple[int, ...]) -> Prompts:
        """Those that live on other planes."""
        return self._where(plane, here=False)

    def _where(self, plane: tuple[int, ...], *, here: bool) -> Prompts:
        kept = [
            (point, label)
            for point, label in zip(self.points, self.labels, strict=True)
            if (plane_of(point) == plane) is here
        ]
        return Prompts(
            points=tuple(point for point, _ in kept),
            labels=tuple(label for _, label in kept),
            boxes=tuple(box for box in self.boxes if (plane_of(box[0]) == plane) is here),
        )


def plane_of(position: Position) -> tuple[int, ...]:
    """The plane a position lies on: its leading coordinates, rounded as napari slices."""
    return tuple(int(np.floor(value + 0.5)) for value in position[:-2])


@dataclass(frozen=True, eq=False)
class Patch:
    """One object written into a label array: where, over what, and with which id.

    Only the object's bounding box and the values it covered are kept.

    Parameters
    ----------
    region
        Index of the bounding box, plane included.
    mask
        (h, w) bool, the object within the box.
    before
        The covered values, in the mask's order.
    label
        The id.
    """

    region: tuple[int | slice, ...]
    mask: np.ndarray
    before: np.ndarray
    label: int

    @classmethod
    def write(cls, labels: Any, plane: tuple[int, ...], mask: np.ndarray, label: int) -> Patch:
        """Write `mask` (Y, X) as `label` into `plane` of `labels`; returns what undoes it."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if rows.size == 0:
            raise ValueError("The mask is empty: click on an object first.")
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        patch_mask = np.ascontiguousarray(mask[box])
        region = (*plane, *box)
        values = np.asarray(labels[region])
        patch = cls(region, patch_mask, values[patch_mask].copy(), label)
        patch.apply(labels)
        return patch

    def apply(self, labels: Any) -> None:
        """Write the object (again)."""
        values = np.array(labels[self.region])
        values[self.mask] = self.label
        labels[self.region] = values

    def revert(self, labels: Any) -> None:
        """Put back what was covered, except where something else was painted since."""
        values = np.array(labels[self.region])
        restored = values[self.mask]
        ours = restored == self.label
        restored[ours] = self.before[ours]
        values[self.mask] = restored
        labels[self.region] = values


@dataclass(frozen=True)
class PromptChange:
    """Prompts were added, moved, flipped, removed or cleared."""

    before: Prompts
    after: Prompts


@dataclass(frozen=True, eq=False)
class Commit:
    """Objects were written into a labels layer and their prompts were used up."""

    layer: str
    patches: tuple[Patch, ...]
    before: Prompts
    after: Prompts


@dataclass(frozen=True)
class Painting:
    """A labels layer was edited by hand; the layer keeps that step itself."""

    layer: str


Operation = PromptChange | Commit | Painting


class Operations:
    """The list, with a position in it: what lies before can be undone, after it redone."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._done: deque[Operation] = deque(maxlen=limit)
        self._undone: list[Operation] = []

    def __len__(self) -> int:
        return len(self._done)

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether there is something to redo."""
        return bool(self._undone)

    def add(self, operation: Operation) -> None:
        """Note what was just done; what had been undone is forgotten."""
        self._done.append(operation)
        self._undone.clear()

    def undo(self) -> Operation | None:
        """Step back: the operation to revert, or None."""
        if not self._done:
            return None
        operation = self._done.pop()
        self._undone.append(operation)
        return operation

    def redo(self) -> Operation | None:
        """Step forward: the operation to do again, or None."""
        if not self._undone:
            return None
        operation = self._undone.pop()
        self._done.append(operation)
        return operation

    def forget_layer(self, layer: str) -> None:
        """Drop what was done to a labels layer that is gone; prompts stay."""
        self._done = deque(
            (operation for operation in self._done if not _touches(operation, layer)),
            maxlen=self._done.maxlen,
        )
        self._undone = [op for op in self._undone if not _touches(op, layer)]


def _touches(operation: Operation, layer: str) -> bool:
    return isinstance(operation, (Commit, Painting)) and operation.layer == layer

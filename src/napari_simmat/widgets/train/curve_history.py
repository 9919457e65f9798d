"""The curves of a training, thinned out."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

Points = list[tuple[float, float]]
"""Step and value."""


class CurveHistory:
    """The curves of a training run; a repeated step replaces the earlier one.

    Attributes
    ----------
    loss, iou
        Training loss, and validation IoU in percent.
    """

    def __init__(self) -> None:
        self.loss: Points = []
        self.iou: Points = []

    def add(self, figures: Mapping[str, float]) -> bool:
        """Add measured values; returns whether a curve has changed."""
        step = figures.get("step")
        if step is None:
            return False
        has_changed = False
        for name, points in (("loss", self.loss), ("validation_iou", self.iou)):
            value = figures.get(name)
            if value is not None and math.isfinite(value):
                # A resumed run starts from its last saved state, so it repeats steps.
                while points and points[-1][0] >= step:
                    points.pop()
                points.append((step, value))
                has_changed = True
        return has_changed

    @property
    def best(self) -> tuple[float, float] | None:
        """Step and value of the best validation."""
        return max(self.iou, key=lambda point: point[1], default=None)

    @property
    def step(self) -> int:
        """The last step of either curve; 0 before the first."""
        return int(max((points[-1][0] for points in (self.loss, self.iou) if points), default=0))

    @classmethod
    def of(cls, log: Path) -> CurveHistory:
        """Read a run's CSV; incomplete lines are skipped, a missing file gives no curves."""
        history = cls()
        try:
            with log.open(newline="") as file:
                rows = list(csv.DictReader(file))
        except OSError:
            return history
        for row in rows:
            with suppress(TypeError, ValueError):
                history.add({name: float(value) for name, value in row.items() if name and value})
        return history

"""What a training tells line by line, and what follows from it: curves, time left.

No Qt, no napari, no torch.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Points = list[tuple[float, float]]
"""Step and value."""
Metrics = Mapping[str, Mapping[str, float]]
"""Mean IoU in percent by prompt (click, box), ``before`` and ``after``."""


@dataclass(frozen=True)
class Event:
    """One line of ``simmat train --events``.

    Parameters
    ----------
    done, total
        Of optimiser steps where `is_step`, else of what `message` says.
    message
        In words.
    is_step
        Whether this is a step or a validation of the network that is trained.
    figures
        What was measured, see `learn.training.folder.COLUMNS`; often nothing.
    metrics
        Of the last line alone: the checkpoint is written.
    """

    done: int = 0
    total: int = 0
    message: str = ""
    is_step: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)
    metrics: Metrics | None = None


def read_event(line: str) -> Event | None:
    """The event of a line; None if it is none, as a library may print what it likes."""
    try:
        values = json.loads(line)
        if "output" in values:
            groups = {n: v for n, v in values["metrics"].items() if isinstance(v, dict)}
            return Event(metrics=groups)
        figures = {name: float(value) for name, value in values.get("figures", {}).items()}
        return Event(
            int(values["done"]),
            int(values["total"]),
            str(values["message"]),
            "figures" in values,
            figures,
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


class History:
    """The curves of a training; a step that is done again replaces what was there.

    Attributes
    ----------
    loss, iou
        Of the training, and of the validation in percent.
    """

    def __init__(self) -> None:
        self.loss: Points = []
        self.iou: Points = []

    def add(self, figures: Mapping[str, float]) -> bool:
        """Take up what was measured; whether it was something that the curves show."""
        step = figures.get("step")
        if step is None:
            return False
        shown = False
        for name, points in (("loss", self.loss), ("validation_iou", self.iou)):
            value = figures.get(name)
            if value is not None and math.isfinite(value):
                # A training that goes on starts from its last saving, so steps come again.
                while points and points[-1][0] >= step:
                    points.pop()
                points.append((step, value))
                shown = True
        return shown

    @property
    def best(self) -> tuple[float, float] | None:
        """Step and value of the best validation."""
        return max(self.iou, key=lambda point: point[1], default=None)

    @property
    def step(self) -> int:
        """The last step that the curves show; 0 before the first."""
        return int(max((points[-1][0] for points in (self.loss, self.iou) if points), default=0))

    @classmethod
    def of(cls, log: Path) -> History:
        """From a training's table; nothing if there is none, or only its whole lines."""
        history = cls()
        try:
            with log.open(newline="") as file:
                rows = list(csv.DictReader(file))
        except OSError:
            return history
        for row in rows:
            try:
                figures = {name: float(value) for name, value in row.items() if name and value}
            except (TypeError, ValueError):
                continue
            history.add(figures)
        return history


class Pace:
    """How long a training takes from its steps so far, validations included."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._left: float | None = None

    def tell(self, now: float, done: int, total: int) -> None:
        """At `now`, in seconds, `done` of `total` steps are over."""
        if self._first is None:
            self._first = (now, done)
        since, begun = self._first
        if done > begun:
            self._left = (now - since) / (done - begun) * (total - done)

    @property
    def left(self) -> str:
        """Words such as ``about 4 min left``; empty while nothing is known."""
        return "" if self._left is None else f"about {duration(self._left)} left"


def duration(seconds: float) -> str:
    """Time as one says it: ``40 s``, ``4 min``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"

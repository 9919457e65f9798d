"""What a model reached on one object, and what the figures are called in every table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

TARGETS = (80, 90)
"""IoU in percent for which clicks are counted: NoC@80 and NoC@90."""
MARKS = (1, 2, 3, 5, 10)
"""Numbers of clicks that are shown to people; files hold every number."""


class Agreement(NamedTuple):
    """How well an answer agrees with the true object, each 0..1.

    Parameters
    ----------
    iou, dice
        Of the masks.
    boundary_f
        Of their boundaries; NaN where it is not measured.
    """

    iou: float
    dice: float
    boundary_f: float = math.nan


@dataclass(frozen=True)
class ObjectScore:
    """What was reached on one object; what was not asked is None, empty or NaN.

    Parameters
    ----------
    label
        Its id in the label image.
    area
        Its pixels.
    clicks
        After the first click in its middle, and after each click that corrects the answer.
    box
        With its bounding box.
    paper
        With the click of the paper's protocol, on its grid (`learn.paper`).
    filled_box, disk
        IoU of what needs no model: the whole bounding box; a disk at the click that is as large
        as the median object of the plane.
    """

    label: int
    area: int = 0
    clicks: tuple[Agreement, ...] = ()
    box: Agreement | None = None
    paper: Agreement | None = None
    filled_box: float = math.nan
    disk: float = math.nan

    @property
    def answers(self) -> dict[str, Agreement]:
        """How well each answer agrees, by column: click, click+1, ..., box, paper."""
        found = {click_column(n): answer for n, answer in enumerate(self.clicks, start=1)}
        further = {"box": self.box, "paper": self.paper}
        return found | {name: answer for name, answer in further.items() if answer is not None}

    @property
    def iou(self) -> dict[str, float]:
        """IoU by column, that of the baselines as well."""
        found = {name: answer.iou for name, answer in self.answers.items()}
        return _measured({**found, "filled_box": self.filled_box, "disk": self.disk})

    @property
    def figures(self) -> dict[str, float]:
        """Every figure by column: `iou`, Dice, boundary F, numbers of clicks and failures."""
        answers = self.answers.items()
        return {
            **self.iou,
            **{f"dice_{name}": answer.dice for name, answer in answers},
            **_measured({f"boundary_f_{name}": answer.boundary_f for name, answer in answers}),
            **self._counted(),
        }

    def clicks_until(self, iou: float) -> int | None:
        """After how many clicks the IoU was first at least that high; None if it never was."""
        reached = (n for n, answer in enumerate(self.clicks, start=1) if answer.iou >= iou)
        return next(reached, None)

    def _counted(self) -> dict[str, float]:
        """Number of clicks (NoC) and failure, where there were corrections.

        Where the IoU is never reached the most clicks that were allowed count, as is usual
        (Sofiiuk et al., arXiv 2102.06583): a mean of them is comparable for the same maximum only.
        """
        if len(self.clicks) < 2:
            return {}
        counted = {}
        for percent in TARGETS:
            needed = self.clicks_until(percent / 100)
            counted[f"noc@{percent}"] = float(len(self.clicks) if needed is None else needed)
            counted[f"failed@{percent}"] = float(needed is None)
        return counted


def click_column(clicks: int) -> str:
    """The column of the answer after so many clicks: click, click+1, ..."""
    return "click" if clicks == 1 else f"click+{clicks - 1}"


def title_of(column: str) -> str:
    """A column in words for people: 1 click, 4 clicks, box, ..."""
    if column == "click":
        return "1 click"
    if column.startswith("click+"):
        return f"{1 + int(column.removeprefix('click+'))} clicks"
    titles = {
        "paper": "paper's click",
        "filled_box": "filled box",
        "ap@50": "AP50",
        "ap@75": "AP75",
        "ap": "AP",
        "pq": "PQ",
    }
    return titles.get(column, column)


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each column; rows have the same columns."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}


def _measured(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not math.isnan(value)}

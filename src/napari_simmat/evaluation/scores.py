"""Figures of an evaluation, per object, per image and over all; its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_simmat.datasets.dataset import REFERENCE_SIDE
from napari_simmat.engine.settings import AutomaticSettings, ChannelSelection
from napari_simmat.evaluation.label_scores import LabelScore
from napari_simmat.evaluation.metrics import (
    THRESHOLDS,
    Matching,
    match_at_thresholds,
    sum_matchings,
    without_covered,
)
from napari_simmat.io.plain import FLAT, check_fields

PlaneNumber = tuple[int, ...]
TARGET_IOUS = (80, 90)
"""IoU in percent for which clicks are counted: NoC@80 and NoC@90."""
SHOWN_CLICKS = (1, 2, 3, 5, 10)
"""Numbers of clicks that are shown to people; files hold every number."""
MIN_OBJECT_PIXELS = 12
"""Objects of fewer pixels are left out: a pixel more or less would decide."""
_DETAILS = ("dice_", "noc@", "failed@", "sq", "rq")
"""What the columns begin with that tables for people leave out."""
EvaluationPromptKind = Literal["click", "box", "iterative", "paper", "auto", "all"]


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """How a model is evaluated.

    Parameters
    ----------
    prompts
        click, box, iterative (the click and its corrections), all (these three), paper
        (`PaperProtocol`), or auto (none: everything is segmented).
    clicks
        Clicks per object, including corrections: 1 to 20.
    min_size
        Only objects of more pixels, if their plane had 1024 x 1024. Those of fewer than
        `MIN_OBJECT_PIXELS` pixels of the image are left out as well, but for the paper's protocol.
    max_objects
        Objects per image, spread evenly over its planes and labels; by default all.
    selection
        Channels and shape of the pixels.
    automatic
        Settings of segmenting everything.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    prompts: EvaluationPromptKind = "all"
    clicks: Annotated[int, {"min": 1, "max": 20}] = 4
    min_size: Annotated[int, {"min": 0}] = 0
    max_objects: Annotated[int | None, {"min": 1}] = None
    selection: Annotated[ChannelSelection, FLAT] = field(default=ChannelSelection())
    automatic: AutomaticSettings = field(default=AutomaticSettings())

    def __post_init__(self) -> None:
        check_fields(self)
        if self.max_objects is not None and self.prompts == "auto":
            raise ValueError(
                "Segmenting everything is compared with all objects; leave max_objects out."
            )

    @property
    def needed(self) -> str:
        """Required size of an object, in words."""
        above = f"more than {self.min_size} pixels at {REFERENCE_SIDE} x {REFERENCE_SIDE}"
        if self.prompts == "paper":
            return above
        return f"at least {MIN_OBJECT_PIXELS} pixels" + (f" and {above}" if self.min_size else "")


@dataclass(frozen=True)
class ObjectScore:
    """How well one object was outlined with each prompt that was given.

    Parameters
    ----------
    label
        Its id in the label image.
    area
        Its pixels.
    iou
        IoU by column: click (in its middle), click+1, ... (after each correcting click), box,
        paper (the click of the paper's protocol, on its grid); then of baselines without a model:
        filled_box (the whole bounding box), disk (one at the click, as large as the plane's median
        object).
    dice
        Dice coefficient by column, without the baselines.
    predicted
        The IoU that the model itself predicts, by the same columns.
    """

    label: int
    area: int
    iou: Mapping[str, float]
    dice: Mapping[str, float] = field(default_factory=dict)
    predicted: Mapping[str, float] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float]:
        """Every figure by column: `iou`, Dice, numbers of clicks and failures."""
        dices = {f"dice_{name}": value for name, value in self.dice.items()}
        return {**self.iou, **dices, **self._counted()}

    @property
    def row(self) -> dict[str, object]:
        """A row of the table."""
        return {"label": self.label, "area_px": self.area, **self.figures}

    def clicks_until(self, iou: float) -> int | None:
        """Clicks after which the IoU first reached a value; None if it never did."""
        reached = (n for n, value in enumerate(self._after_clicks(), start=1) if value >= iou)
        return next(reached, None)

    def _after_clicks(self) -> list[float]:
        return [value for name, value in self.iou.items() if name.startswith("click")]

    def _counted(self) -> dict[str, float]:
        """Number of clicks (NoC) and failure, if there were corrections.

        If the IoU is never reached, the maximum number of clicks counts, as is usual (Sofiiuk et
        al., arXiv 2102.06583), so means are comparable for the same maximum only.
        """
        clicks = len(self._after_clicks())
        if clicks < 2:
            return {}
        counted = {}
        for percent in TARGET_IOUS:
            needed = self.clicks_until(percent / 100)
            counted[f"noc@{percent}"] = float(clicks if needed is None else needed)
            counted[f"failed@{percent}"] = float(needed is None)
        return counted

    @staticmethod
    def pooled(scores: Sequence[ObjectScore]) -> dict[str, float]:
        """Mean of every column, each object with equal weight: the paper's mIoU and mDice."""
        return mean_row([score.figures for score in scores])

    @staticmethod
    def counts(scores: Sequence[ObjectScore]) -> dict[str, int]:
        """Number of objects."""
        return {"objects": len(scores)}


@dataclass(frozen=True)
class PlaneMatches:
    """How objects found automatically match the labeled ones, at each of `THRESHOLDS`."""

    matchings: tuple[Matching, ...]

    @property
    def figures(self) -> dict[str, float]:
        """Average precision at IoU 0.5, 0.75 and over ten thresholds; panoptic quality."""
        each = [matching.average_precision for matching in self.matchings]
        precision = dict(zip(THRESHOLDS, each, strict=True))
        names = {"ap@50": precision[0.5], "ap@75": precision[0.75], "ap": float(np.mean(each))}
        return {**names, **self.matchings[0].quality._asdict()}

    @property
    def row(self) -> dict[str, object]:
        """A row of the table."""
        matched = self.matchings[0].true_positives
        return {**self.counts([self]), "matched@50": matched, **self.figures}

    @staticmethod
    def pooled(planes: Sequence[PlaneMatches]) -> dict[str, float]:
        """The figures of all planes' objects as if they were of one plane."""
        columns = zip(*(plane.matchings for plane in planes), strict=True)
        return PlaneMatches(tuple(map(sum_matchings, columns))).figures

    @staticmethod
    def counts(planes: Sequence[PlaneMatches]) -> dict[str, int]:
        """Number of labeled objects and of objects found."""
        found, wrong, missed, _ = sum_matchings(plane.matchings[0] for plane in planes)
        return {"objects": found + missed, "found": found + wrong}


@dataclass(frozen=True)
class ImageScores:
    """The figures of one image, or of several together.

    Parameters
    ----------
    name
        Its stem.
    scores
        Each plane's indices, with the score of an object that was prompted, or with the matches of
        a plane that was segmented automatically, or by another program; in order.
    too_small
        Number of labeled objects left out for their size.
    """

    name: str
    scores: (
        tuple[tuple[PlaneNumber, ObjectScore], ...]
        | tuple[tuple[PlaneNumber, PlaneMatches], ...]
        | tuple[tuple[PlaneNumber, LabelScore], ...]
    )
    too_small: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of objects and, of whole planes, of those found."""
        counts: dict[str, int] = self._kind.counts([score for _, score in self.scores])
        return counts

    @property
    def figures(self) -> dict[str, float]:
        """Every column over all objects, each with equal weight."""
        figures: dict[str, float] = self._kind.pooled([score for _, score in self.scores])
        return figures

    @property
    def headline(self) -> dict[str, float]:
        """The figures that a table shows."""
        return _headline(self.figures)

    @property
    def rows(self) -> list[dict[str, object]]:
        """A row for each object, or for each plane that was segmented as a whole."""
        return [
            {"image": self.name, "plane": " ".join(map(str, plane)), **score.row}
            for plane, score in self.scores
        ]

    @property
    def subject(self) -> str:
        """What was scored, in words: the heading of a table."""
        subjects = {PlaneMatches: "segment everything", LabelScore: "labels"}
        return subjects.get(self._kind, "mean IoU")

    @property
    def automatic(self) -> bool:
        """Whether whole planes were segmented, not one object for each prompt."""
        return self._kind is not ObjectScore

    @property
    def _kind(self) -> Any:
        return type(self.scores[0][1]) if self.scores else ObjectScore


@dataclass(frozen=True)
class Scores:
    """The figures of a folder: images with an object, at least one, and the pictures written."""

    images: tuple[ImageScores, ...]
    overlays: tuple[Path, ...] = field(default=(), compare=False)

    @property
    def over_images(self) -> dict[str, float]:
        """Mean over the images, each with equal weight, of every column."""
        return mean_row([image.figures for image in self.images])

    @property
    def headline(self) -> dict[str, float]:
        """The means over the images that a table shows."""
        return _headline(self.over_images)

    @property
    def together(self) -> ImageScores:
        """The objects of all images as if they were of one."""
        scores: Any = tuple(score for image in self.images for score in image.scores)
        return ImageScores("all images", scores)


def plane_matches(
    found: NDArray[Any], truth: NDArray[Any], ignored: NDArray[np.bool_]
) -> PlaneMatches:
    """Match the objects found on a plane with the labeled ones, both (Y, X).

    Labeled objects in `ignored` pixels do not count, nor do objects found there to more than half.
    """
    if ignored.any():
        found = without_covered(found, ignored)
        truth = np.where(ignored, 0, truth)
    return PlaneMatches(match_at_thresholds(found, truth))


def click_column(clicks: int) -> str:
    """The column of the mask after so many clicks: click, click+1, ..."""
    return "click" if clicks == 1 else f"click+{clicks - 1}"


def column_title(column: str) -> str:
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
        "found@75": "found",
        "found@50": "at .5",
        "iou": "IoU",
    }
    return titles.get(column, column)


def mean_row(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each column; rows have the same columns."""
    if not rows:
        return {}
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _headline(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not name.startswith(_DETAILS)}

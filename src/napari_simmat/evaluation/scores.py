"""Figures of an evaluation: per object, per image, and over all; and its settings.

How well objects are linked over time: links and divisions against known ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from napari_simmat.datasets.dataset import REFERENCE_SIDE
from napari_simmat.engine.coordinates import check_pixel_ratio
from napari_simmat.engine.linking import Lineage, Node
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.evaluation.metrics import (
    THRESHOLDS,
    Matching,
    match_at_thresholds,
    sum_matchings,
)

MATCH_IOU = 0.5
"""An object stands for the known one with which it has a larger IoU than this."""


@dataclass(frozen=True)
class LinkScores:
    """Counts of links and divisions.

    A link is right if the known objects of its two ends are linked. A division is found if its
    mother and both daughters are.
    """

    links: int
    known: int
    right: int
    divisions: int
    divisions_given: int
    divisions_found: int

    @property
    def precision(self) -> float:
        """Part of the links that are right."""
        return self.right / self.links if self.links else 1.0

    @property
    def recall(self) -> float:
        """Part of the known links that were made."""
        return self.right / self.known if self.known else 1.0


def score_links(
    lineage: Lineage, labels: NDArray[np.integer], known: Lineage, truth: NDArray[np.integer]
) -> LinkScores:
    """Compare a lineage with a known one.

    Parameters
    ----------
    lineage, labels
        The links, and the label image (T, Y, X) whose objects they link.
    known, truth
        The same, as they should be.
    """
    match: dict[Node, Node] = {}
    for frame, (found, wanted) in enumerate(zip(labels, truth, strict=True)):
        match |= _matches(found, wanted, frame)
    pairs = [(match.get(node), match.get(before)) for node, before in lineage.links.items()]
    right = sum(node is not None and known.links.get(node) == before for node, before in pairs)
    divided = {mother: set(after) for mother, after in known.daughters().items() if len(after) > 1}
    given = {
        match.get(mother): {match.get(node) for node in after}
        for mother, after in lineage.daughters().items()
        if len(after) > 1
    }
    found = sum(given.get(mother) == after for mother, after in divided.items())
    return LinkScores(len(lineage.links), len(known.links), right, len(divided), len(given), found)


def _matches(
    found: NDArray[np.integer], wanted: NDArray[np.integer], frame: int
) -> dict[Node, Node]:
    """For each object of a frame the known one that it stands for."""
    pairs, counts = np.unique(np.stack([found.ravel(), wanted.ravel()]), axis=1, return_counts=True)
    size = dict(zip(*np.unique(found, return_counts=True), strict=True))
    true_size = dict(zip(*np.unique(wanted, return_counts=True), strict=True))
    return {
        Node(frame, int(one)): Node(frame, int(other))
        for (one, other), count in zip(pairs.T, counts, strict=True)
        if one and other and count > MATCH_IOU * (size[one] + true_size[other] - count)
    }


PlaneNumber = tuple[int, ...]
Matches = tuple[Matching, ...]
"""Of the objects of one or several planes, one for each of `THRESHOLDS`."""
TARGET_IOUS = (80, 90)
"""IoU in percent for which clicks are counted: NoC@80 and NoC@90."""
SHOWN_CLICKS = (1, 2, 3, 5, 10)
"""Numbers of clicks that are shown to people; files hold every number."""
MIN_OBJECT_PIXELS = 12
"""Objects of fewer pixels are left out: a pixel more or less would decide."""
MAX_CLICKS = 20
EvaluationPromptKind = Literal["click", "box", "iterative", "paper", "auto", "all"]


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """How a model is evaluated.

    Parameters
    ----------
    prompt
        click, box, iterative (the click and its corrections), all (these three), paper
        (`simulated_prompts`), or auto (none: everything is segmented).
    clicks
        Clicks per object, including corrections: 1 to 20.
    smallest
        Only objects of more pixels, if their plane had 1024 x 1024. Those of fewer than
        `MIN_OBJECT_PIXELS` pixels of the image are left out as well, but for the paper's protocol.
    most
        Objects per image, spread evenly over its planes and labels; by default all.
    channels, channel_axis
        See `Predictor.set_image`.
    pixel_ratio
        Height of a pixel over its width, if a file does not say.
    automatic
        Settings of segmenting everything.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    prompt: EvaluationPromptKind = "all"
    clicks: int = 4
    smallest: int = 0
    most: int | None = None
    channels: tuple[int | str, ...] | None = None
    channel_axis: int | None = None
    pixel_ratio: float = 1.0
    automatic: AutomaticSettings = field(default=AutomaticSettings())

    def __post_init__(self) -> None:
        check_pixel_ratio(self.pixel_ratio)
        if self.prompt not in get_args(EvaluationPromptKind):
            raise ValueError(
                f"Prompt {self.prompt!r} is unknown; give "
                f"{', '.join(get_args(EvaluationPromptKind))}."
            )
        if not 1 <= self.clicks <= MAX_CLICKS:
            raise ValueError(f"An object cannot get {self.clicks} clicks; give 1 to {MAX_CLICKS}.")
        if self.smallest < 0:
            raise ValueError(f"Objects cannot have fewer than 0 pixels, got {self.smallest}.")
        if self.most is not None and self.most < 1:
            raise ValueError(f"At most {self.most} objects are none; give 1 or more.")
        if self.most is not None and self.prompt == "auto":
            raise ValueError("Segmenting everything is compared with all objects; leave most out.")

    @property
    def needed(self) -> str:
        """Required size of an object, in words."""
        above = f"more than {self.smallest} pixels at {REFERENCE_SIDE} x {REFERENCE_SIDE}"
        if self.prompt == "paper":
            return above
        return f"at least {MIN_OBJECT_PIXELS} pixels" + (f" and {above}" if self.smallest else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["channels"] = None if self.channels is None else list(self.channels)
        del values["automatic"]
        return values | ({"automatic": self.automatic.to_dict()} if self.prompt == "auto" else {})


class MaskAgreement(NamedTuple):
    """Agreement of a mask with the true object, each 0..1.

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
    """Agreement for each prompt of one object; None, empty or NaN where it was not given.

    Parameters
    ----------
    label
        Its id in the label image.
    area
        Its pixels.
    clicks
        After the first click in its middle, and after each correcting click.
    box
        With its bounding box.
    paper
        With the click of the paper's protocol, on its grid (`simulated_prompts`).
    filled_box, disk
        IoU of baselines without a model: the whole bounding box; a disk at the click, as large as
        the plane's median object.
    """

    label: int
    area: int = 0
    clicks: tuple[MaskAgreement, ...] = ()
    box: MaskAgreement | None = None
    paper: MaskAgreement | None = None
    filled_box: float = math.nan
    disk: float = math.nan

    @property
    def answers(self) -> dict[str, MaskAgreement]:
        """Agreement by column: click, click+1, ..., box, paper."""
        found = {click_column(n): answer for n, answer in enumerate(self.clicks, start=1)}
        further = {"box": self.box, "paper": self.paper}
        return found | {name: answer for name, answer in further.items() if answer is not None}

    @property
    def iou(self) -> dict[str, float]:
        """IoU by column, including the baselines."""
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
        """Clicks after which the IoU first reached a value; None if it never did."""
        reached = (n for n, answer in enumerate(self.clicks, start=1) if answer.iou >= iou)
        return next(reached, None)

    def _counted(self) -> dict[str, float]:
        """Number of clicks (NoC) and failure, if there were corrections.

        If the IoU is never reached, the maximum number of clicks counts, as is usual (Sofiiuk et
        al., arXiv 2102.06583), so means are comparable for the same maximum only.
        """
        if len(self.clicks) < 2:
            return {}
        counted = {}
        for percent in TARGET_IOUS:
            needed = self.clicks_until(percent / 100)
            counted[f"noc@{percent}"] = float(len(self.clicks) if needed is None else needed)
            counted[f"failed@{percent}"] = float(needed is None)
        return counted


@dataclass(frozen=True)
class ImageScores:
    """The figures of one image whose objects were prompted.

    Parameters
    ----------
    name
        Its stem.
    scores
        Each object's plane and score, in order.
    too_small
        Number of objects left out for their size.
    """

    name: str
    scores: tuple[tuple[PlaneNumber, ObjectScore], ...]
    too_small: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of objects."""
        return {"objects": len(self.scores)}

    @property
    def headline(self) -> dict[str, float]:
        """Mean IoU over the objects by column, of the prompts that were given."""
        return mean_row([score.iou for _, score in self.scores])

    @property
    def figures(self) -> dict[str, float]:
        """Mean over the objects of every column."""
        return mean_row([score.figures for _, score in self.scores])

    def rows(self) -> Iterator[dict[str, object]]:
        """A row for each object."""
        for plane, score in self.scores:
            own = {"label": score.label, "area_px": score.area}
            yield {**_where(self.name, plane), **own, **score.figures}

    @staticmethod
    def together(images: Sequence[ImageScores]) -> dict[str, float]:
        """Mean over the objects of all images of every column: the paper's mIoU and mDice."""
        return mean_row([score.figures for image in images for _, score in image.scores])


@dataclass(frozen=True)
class ImageMatches:
    """Objects found, invented and missed in one image that was segmented automatically.

    Parameters
    ----------
    name
        Its stem.
    planes
        Each plane and how its objects match, in order.
    too_small
        Number of labeled objects left out for their size.
    """

    name: str
    planes: tuple[tuple[PlaneNumber, Matches], ...]
    too_small: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Labeled objects and objects found."""
        return _counts(self._all)

    @property
    def headline(self) -> dict[str, float]:
        """The figures for a table and a history: all planes' objects together."""
        return {name: value for name, value in self.figures.items() if name not in ("sq", "rq")}

    @property
    def figures(self) -> dict[str, float]:
        """Every figure: all planes' objects together."""
        return summary_figures(self._all)

    def rows(self) -> Iterator[dict[str, object]]:
        """A row for each plane."""
        for plane, found in self.planes:
            yield {
                **_where(self.name, plane),
                **_counts(found),
                "matched@50": found[0].true_positives,
                **summary_figures(found),
            }

    @staticmethod
    def together(images: Sequence[ImageMatches]) -> dict[str, float]:
        """The figures of all images' objects as if they were of one image."""
        return summary_figures(_sum_matches([image._all for image in images]))

    @property
    def _all(self) -> Matches:
        return _sum_matches([found for _, found in self.planes])


@dataclass(frozen=True)
class Scores:
    """The figures of a folder: images with an object, at least one, and the pictures written."""

    images: tuple[ImageScores, ...] | tuple[ImageMatches, ...]
    overlays: tuple[Path, ...] = field(default=(), compare=False)

    @property
    def headline(self) -> dict[str, float]:
        """Mean over the images, each with equal weight, of the columns of a table."""
        return mean_row([image.headline for image in self.images])

    @property
    def over_images(self) -> dict[str, float]:
        """Mean over the images of every column."""
        return mean_row([image.figures for image in self.images])

    @property
    def over_objects(self) -> dict[str, float]:
        """Every column over the objects of all images, each with equal weight."""
        return self.images[0].together(self.images)  # type: ignore[arg-type]  # all are of one kind

    @property
    def counts(self) -> dict[str, int]:
        """Number of objects of all images and, after segmenting everything, of those found."""
        each = [image.counts for image in self.images]
        return {name: sum(counts[name] for counts in each) for name in each[0]}

    @property
    def automatic(self) -> bool:
        """Whether everything was segmented automatically."""
        return isinstance(self.images[0], ImageMatches)


def plane_matches(found: NDArray[Any], truth: NDArray[Any], ignored: NDArray[np.bool_]) -> Matches:
    """Match the objects found on a plane with the labeled ones, both (Y, X).

    Labeled objects in `ignored` pixels do not count, nor do objects found there to more than half.
    """
    if ignored.any():
        areas = np.bincount(found.ravel().astype(np.intp))
        inside = np.bincount(found[ignored].astype(np.intp), minlength=len(areas))
        dropped = 2 * inside > areas
        found = np.where(dropped[found.astype(np.intp)], 0, found)
        truth = np.where(ignored, 0, truth)
    return match_at_thresholds(found, truth)


def summary_figures(found: Matches) -> dict[str, float]:
    """Average precision at IoU 0.5, 0.75 and as the mean of ten thresholds; panoptic quality."""
    precision = dict(zip(THRESHOLDS, (each.average_precision for each in found), strict=True))
    quality = found[0].quality
    return {
        "ap@50": precision[0.5],
        "ap@75": precision[0.75],
        "ap": float(np.mean(list(precision.values()))),
        "pq": quality.pq,
        "sq": quality.sq,
        "rq": quality.rq,
    }


def click_column(clicks: int) -> str:
    """The column of the answer after so many clicks: click, click+1, ..."""
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
    }
    return titles.get(column, column)


def mean_row(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each column; rows have the same columns."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}


def _measured(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _where(image: str, plane: PlaneNumber) -> dict[str, object]:
    return {"image": image, "plane": " ".join(map(str, plane))}


def _sum_matches(several: Sequence[Matches]) -> Matches:
    return tuple(sum_matchings(each[at] for each in several) for at in range(len(THRESHOLDS)))


def _counts(found: Matches) -> dict[str, int]:
    first = found[0]
    return {
        "objects": first.true_positives + first.false_negatives,
        "found": first.true_positives + first.false_positives,
    }

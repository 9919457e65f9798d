"""The figures of labelled images: per object, per image, and two means over all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_simmat.learn.instance_score import ImageMatches, Plane
from napari_simmat.learn.object_score import ObjectScore, mean_of


@dataclass(frozen=True)
class ImageScores:
    """The figures of one image.

    Parameters
    ----------
    name
        Its stem.
    scores
        Each object's plane and score, in order.
    too_small
        How many objects were left out for their size.
    """

    name: str
    scores: tuple[tuple[Plane, ObjectScore], ...]
    too_small: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many objects there are."""
        return {"objects": len(self.scores)}

    @property
    def headline(self) -> dict[str, float]:
        """Mean IoU over the objects, by column; what was not asked is not there."""
        return mean_of([score.iou for _, score in self.scores])

    @property
    def figures(self) -> dict[str, float]:
        """Mean over the objects of every column."""
        return mean_of([score.figures for _, score in self.scores])

    def rows(self) -> Iterator[dict[str, object]]:
        """A row for each object."""
        for plane, score in self.scores:
            yield {
                "image": self.name,
                "plane": " ".join(map(str, plane)),
                "label": score.label,
                "area_px": score.area,
                **score.figures,
            }

    @staticmethod
    def together(images: Sequence[ImageScores]) -> dict[str, float]:
        """Mean over the objects of all images of every column: the paper's mIoU and mDice."""
        return mean_of([score.figures for image in images for _, score in image.scores])


@dataclass(frozen=True)
class Scores:
    """The figures of a folder, in the order of its images.

    Parameters
    ----------
    images
        Those with an object; at least one. They were prompted, or segmented automatically.
    overlays
        The pictures that were written.
    """

    images: tuple[ImageScores, ...] | tuple[ImageMatches, ...]
    overlays: tuple[Path, ...] = field(default=(), compare=False)

    @property
    def headline(self) -> dict[str, float]:
        """Mean over the images, in which each counts alike, of what a table shows."""
        return mean_of([image.headline for image in self.images])

    @property
    def over_images(self) -> dict[str, float]:
        """Mean over the images of every column."""
        return mean_of([image.figures for image in self.images])

    @property
    def over_objects(self) -> dict[str, float]:
        """Every column over the objects of all images, which count alike."""
        return self.images[0].together(self.images)  # type: ignore[arg-type]  # all are of one kind

    @property
    def counts(self) -> dict[str, int]:
        """How many objects all images have, and how many were found, where they were sought."""
        each = [image.counts for image in self.images]
        return {name: sum(counts[name] for counts in each) for name in each[0]}

    @property
    def automatic(self) -> bool:
        """Whether everything was segmented."""
        return isinstance(self.images[0], ImageMatches)

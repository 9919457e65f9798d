"""How well objects are linked over time: links and divisions against known ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.linking import Lineage, Node

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

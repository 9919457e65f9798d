"""Pictures of an evaluation: the masks on one plane, and a gallery of the worst and best."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.drawing import OVERLAY_SCALE, draw_overlay, side_by_side
from napari_simmat.engine.normalization import stretch_percentiles
from napari_simmat.engine.prompts import Prompt
from napari_simmat.evaluation.scores import MaskAgreement, Matches, column_title, summary_figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

MAX_ENLARGED_SIDE = 640
"""Pictures of planes with longer sides are not enlarged."""
TILES_PER_ROW = 6
"""Objects in a row."""
TILE_SIDE = 176
"""Pixels of a tile's sides on the sheet."""
TILE_GAP = 10
CONTEXT_FACTOR = 2.0
"""Sides of the shown part of the image per side of the object's box."""
MIN_CONTEXT_SIDE = 24
"""The shown part has at least as many pixels on a side, so that a small object has surroundings."""
MIN_CONTRAST_RANGE = 24
"""Contrasts (of 255) that become black and white at least; less is noise."""
TEXT_HEIGHT, HEADING_HEIGHT = 13, 18
"""Heights of letters in pixels."""
LEGEND = "White: the true outline. Colored: the answer."


class PlaneFigure:
    """Draws the masks of one plane's prompts, and passes them to a gallery of all images.

    Parameters
    ----------
    under
        The plane (Y, X, 3), 0..255.
    labels
        True labels (Y, X).
    gallery
        Gets each mask.
    name, plane
        The image and the plane's indices.
    """

    def __init__(
        self,
        under: NDArray[np.uint8],
        labels: NDArray[Any],
        gallery: Gallery,
        name: str,
        plane: Sequence[int],
    ) -> None:
        self._under, self._labels = under, labels
        self._gallery, self._name, self._plane = gallery, name, plane
        self._found: dict[str, NDArray[np.int64]] = {}
        self._prompts: dict[str, list[Prompt]] = {}
        self._reached: dict[str, list[float]] = {}

    def __call__(
        self, column: str, prompt: Prompt, mask: NDArray[np.bool_], reached: MaskAgreement
    ) -> None:
        """Add a mask (see `protocols.OnAnswer`); where masks overlap, the earlier stays on top."""
        found = self._found.setdefault(column, np.zeros(self._labels.shape, np.int64))
        found[mask & (found == 0)] = prompt.object or 0
        self._prompts.setdefault(column, []).append(prompt)
        self._reached.setdefault(column, []).append(reached.iou)
        truth = self._labels == prompt.object
        self._gallery.add(
            column, self._name, reached.iou, self._under, prompt, mask, truth, self._plane
        )

    def picture(self, labels: Sequence[int]) -> Image:
        """The masks of each column side by side; the true objects `labels` outlined in white."""
        truth = np.where(np.isin(self._labels, labels), self._labels, 0)
        return side_by_side(
            [
                draw_overlay(
                    self._under,
                    found,
                    self._prompts[column],
                    truth,
                    f"{column_title(column)}: mean IoU {np.mean(self._reached[column]):.2f}",
                    _scale(truth.shape),
                )
                for column, found in self._found.items()
            ]
        )


def draw_matches(
    under: NDArray[np.uint8], found: NDArray[Any], truth: NDArray[Any], matches: Matches
) -> Image:
    """Draw the objects found automatically over a plane (Y, X, 3), the true ones in white.

    The caption counts the `matches` of both label images (Y, X).
    """
    first, figures = matches[0], summary_figures(matches)
    caption = (
        f"{first.true_positives} matched, {first.false_positives} invented, "
        f"{first.false_negatives} missed; AP50 {figures['ap@50']:.2f}, PQ {figures['pq']:.2f}"
    )
    return draw_overlay(under, found, (), truth, caption, _scale(truth.shape))


@dataclass(eq=False)
class GalleryTile:
    """One object: its image and name, the IoU reached, and its picture once it is on the sheet."""

    image: str
    name: str
    iou: float
    picture: Image | None = None


class Gallery:
    """Collects tiles of the worst and the best objects of each column.

    No image fills a row alone if there are others: each of `images` images gets at most its even
    share of the places, rounded up.
    """

    def __init__(self, images: int) -> None:
        self._share = ceil(TILES_PER_ROW / max(images, 1))
        self._worst: dict[str, list[GalleryTile]] = {}
        self._best: dict[str, list[GalleryTile]] = {}
        self._reached: dict[str, list[float]] = {}

    def add(
        self,
        column: str,
        image: str,
        iou: float,
        under: NDArray[np.uint8],
        prompt: Prompt,
        answer: NDArray[np.bool_],
        truth: NDArray[np.bool_],
        plane: Sequence[int] = (),
    ) -> None:
        """Add a mask; it is drawn only if it has a place on the sheet so far.

        Parameters
        ----------
        column
            See `ObjectScore.answers`.
        image, plane, prompt
            Where the object is, and its prompt, whose `object` is the label.
        iou
            Of `answer` and `truth`, both (Y, X).
        under
            The plane (Y, X, 3), 0..255.
        """
        self._reached.setdefault(column, []).append(iou)
        where = f", plane {' '.join(map(str, plane))}" if plane else ""
        tile = GalleryTile(image, f"object {prompt.object}{where}", iou)
        for rows, sign in ((self._worst, 1), (self._best, -1)):
            rows[column] = self._kept([*rows.get(column, []), tile], sign)
            if tile in rows[column] and tile.picture is None:
                tile.picture = _draw_tile(under, prompt, answer, truth)

    def tiles(self, column: str) -> tuple[list[GalleryTile], list[GalleryTile]]:
        """The worst tiles, and the best that are not among them; each starts at its extreme."""
        worst = self._worst.get(column, [])
        best = [tile for tile in self._best.get(column, []) if tile not in worst]
        return worst, best

    def sheet(self) -> Image | None:
        """Rows of tiles for each column; None if the gallery is empty."""
        from PIL import Image, ImageDraw, ImageFont

        rows = []
        for column in self._worst:
            worst, best = self.tiles(column)
            reached = self._reached[column]
            heading = f"{column_title(column)}, mean IoU {np.mean(reached):.2f} of {len(reached)}: "
            rows.append((heading + ("worst" if best else "all, from the worst on"), worst))
            if best:
                rows.append((f"{column_title(column)}: best", best))
        if not rows:
            return None
        widest = max(len(tiles) for _, tiles in rows)
        height = 2 * HEADING_HEIGHT + TILE_SIDE + 3 * TEXT_HEIGHT + TILE_GAP
        width = max(TILE_GAP + widest * (TILE_SIDE + TILE_GAP), 3 * (TILE_SIDE + TILE_GAP))
        sheet = Image.new("RGB", (width, TILE_GAP + len(rows) * height + 2 * TEXT_HEIGHT), "white")
        draw = ImageDraw.Draw(sheet)
        large, small = ImageFont.load_default(HEADING_HEIGHT), ImageFont.load_default(TEXT_HEIGHT)
        top = TILE_GAP
        for heading, tiles in rows:
            draw.text((TILE_GAP, top), heading, "black", large)
            for number, tile in enumerate(tiles):
                left = TILE_GAP + number * (TILE_SIDE + TILE_GAP)
                below = top + round(1.5 * HEADING_HEIGHT)
                assert tile.picture is not None
                sheet.paste(tile.picture, (left, below))
                below += TILE_SIDE + TEXT_HEIGHT // 4
                draw.text((left, below), _shorten(tile.image, small), "black", small)
                second = f"IoU {tile.iou:.2f}, {tile.name}"
                draw.text((left, below + TEXT_HEIGHT + 2), _shorten(second, small), "black", small)
            top += height
        draw.text((TILE_GAP, top), self._legend(), "black", small)
        return sheet

    def _legend(self) -> str:
        if self._share >= TILES_PER_ROW:
            return LEGEND
        number = "one object" if self._share == 1 else f"{self._share} objects"
        return f"{LEGEND} Of an image, at most {number} in a row."

    def _kept(self, tiles: list[GalleryTile], sign: int) -> list[GalleryTile]:
        """The tiles for one row; of equal ones the first are kept."""
        kept: list[GalleryTile] = []
        for tile in sorted(tiles, key=lambda tile: sign * tile.iou):
            if sum(other.image == tile.image for other in kept) < self._share:
                kept.append(tile)
        return kept[:TILES_PER_ROW]


def _draw_tile(
    under: NDArray[np.uint8], prompt: Prompt, answer: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> Image:
    """The object's surroundings at the size of a tile, padded with gray to a square."""
    from PIL import Image

    part = _surroundings(truth)
    height, width = (side.stop - side.start for side in part)
    factor = TILE_SIDE / max(height, width)
    shape = (max(1, round(height * factor)), max(1, round(width * factor)))
    picture = Image.fromarray(_stretch_contrast(under[part]))
    picture = picture.resize(shape[::-1], Image.Resampling.BICUBIC)
    rows, columns = ((np.arange(n) / factor).astype(int) for n in shape)
    cells = np.ix_(np.minimum(rows, height - 1), np.minimum(columns, width - 1))
    number = prompt.object or 1
    drawn = draw_overlay(
        np.asarray(picture),
        np.where(answer[part][cells], number, 0),
        [_crop_prompt(prompt, part, factor)],
        np.where(truth[part][cells], number, 0),
        scale=1,
    )
    tile = Image.new("RGB", (TILE_SIDE, TILE_SIDE), (225, 225, 225))
    tile.paste(drawn, ((TILE_SIDE - shape[1]) // 2, (TILE_SIDE - shape[0]) // 2))
    return tile


def _stretch_contrast(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stretch the part's own contrast: a faint object far from bright ones would be black."""
    return np.asarray(
        np.rint(stretch_percentiles(part, 0.5, 99.5, least=MIN_CONTRAST_RANGE)), np.uint8
    )


def _surroundings(truth: NDArray[np.bool_]) -> tuple[slice, slice]:
    """A square around an object, moved into the image and cut to it."""
    spans = []
    for axis in (1, 0):
        inside = np.flatnonzero(truth.any(axis=axis))
        spans.append((int(inside[0]), int(inside[-1]) + 1))
    side = max(MIN_CONTEXT_SIDE, round(CONTEXT_FACTOR * max(stop - start for start, stop in spans)))
    parts = []
    for (start, stop), length in zip(spans, truth.shape, strict=True):
        size = min(side, length)
        first = min(max((start + stop - size) // 2, 0), length - size)
        parts.append(slice(first, first + size))
    return parts[0], parts[1]


def _crop_prompt(prompt: Prompt, part: tuple[slice, slice], factor: float) -> Prompt:
    """A prompt in a tile's pixels."""
    top, left = part[0].start, part[1].start
    points = tuple(
        ((y - top + 0.5) * factor - 0.5, (x - left + 0.5) * factor - 0.5) for y, x in prompt.points
    )
    box = prompt.box
    if box is not None:
        y0, x0, y1, x1 = box
        box = tuple(factor * edge for edge in (y0 - top, x0 - left, y1 - top, x1 - left))
    return Prompt(points=points, labels=prompt.labels, box=box)


def _shorten(text: str, font: Any) -> str:
    """Cut a text to a tile's width."""
    if font.getlength(text) <= TILE_SIDE:
        return text
    while text and font.getlength(text + "...") > TILE_SIDE:
        text = text[:-1]
    return text + "..."


def _scale(shape: tuple[int, ...]) -> int:
    return 1 if max(shape) > MAX_ENLARGED_SIDE else OVERLAY_SCALE

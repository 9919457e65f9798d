"""The sheet of the worst and best objects."""

from __future__ import annotations

import numpy as np
import pytest

from napari_simmat.engine.prompts import Prompt
from napari_simmat.evaluation.figures import TILE_GAP, TILE_SIDE, TILES_PER_ROW, Gallery

UNDER = np.full((40, 60, 3), 90, np.uint8)
TRUTH = np.zeros((40, 60), bool)
TRUTH[10:20, 30:40] = True


def add(gallery: Gallery, image: str, label: int, iou: float, column: str = "click") -> None:
    prompt = Prompt(points=((15, 35),), object=label)
    gallery.add(column, image, iou, UNDER, prompt, TRUTH, TRUTH)


def names(tiles: list) -> list[tuple[str, float]]:
    return [(tile.image, tile.iou) for tile in tiles]


@pytest.mark.parametrize("images", [1, 2, 4, 9])
def test_the_order_in_which_objects_come_decides_nothing(images: int) -> None:
    """Each image gives at most its share of the places, and the best of all are found."""
    rng = np.random.default_rng(images)
    objects = [(str(rng.integers(images)), float(iou)) for iou in rng.random(80)]
    share = -(-TILES_PER_ROW // images)

    def chosen(order: list[tuple[str, float]]) -> list[tuple[str, float]]:
        taken: list[tuple[str, float]] = []
        for each in order:
            if sum(other[0] == each[0] for other in taken) < share and len(taken) < TILES_PER_ROW:
                taken.append(each)
        return taken

    gallery = Gallery(images)
    for label, (image, iou) in enumerate(objects, start=1):
        add(gallery, image, label, iou)
    worst, best = gallery.tiles("click")
    by_iou = sorted(objects, key=lambda each: each[1])
    assert names(worst) == chosen(by_iou)
    assert names(best) == chosen(by_iou[::-1])


def test_an_object_stands_on_the_sheet_once_for_each_column() -> None:
    gallery = Gallery(1)
    for label in range(1, 9):
        add(gallery, "a", label, label / 10)
    worst, best = gallery.tiles("click")
    assert [tile.iou for tile in worst] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert [tile.iou for tile in best] == [0.8, 0.7]


def test_the_sheet_has_rows_for_each_column() -> None:
    gallery = Gallery(1)
    assert gallery.sheet() is None
    for label in range(1, 4):
        add(gallery, "a", label, label / 10)
    one = gallery.sheet()
    add(gallery, "a", 1, 0.5, "box")
    two = gallery.sheet()
    for label in range(4, 9):
        add(gallery, "a", label, label / 10)
    four = gallery.sheet()
    row = two.height - one.height
    assert row > TILE_SIDE
    assert four.height - two.height == row  # the best clicks
    assert four.width == TILE_GAP + TILES_PER_ROW * (TILE_SIDE + TILE_GAP)


def test_a_tile_shows_the_object_and_its_surroundings() -> None:
    """10 x 10 pixels in a part of 24 x 24 around them, which is in the image as a whole."""
    gallery = Gallery(1)
    add(gallery, "a", 1, 0.5)
    (tile,) = gallery.tiles("click")[0]
    pixels = np.asarray(tile.picture).astype(int)
    assert pixels.shape == (TILE_SIDE, TILE_SIDE, 3)
    scale = TILE_SIDE / 24
    tinted = (abs(pixels - pixels[0, 0]) > 8).any(axis=2)
    # The square's side, and the half of its outline that lies outside.
    assert np.ptp(np.flatnonzero(tinted.any(axis=0))) == pytest.approx(10 * scale, abs=4)
    assert np.flatnonzero(tinted.any(axis=1))[0] == pytest.approx(7 * scale, abs=4)


def test_a_faint_object_is_seen_beside_a_bright_one_far_away() -> None:
    under = np.full((200, 200, 3), 4, np.uint8)
    truth = np.zeros((200, 200), bool)
    truth[20:40, 20:40] = True
    under[truth], under[150:190, 150:190] = 44, 255
    gallery = Gallery(1)
    nothing = np.zeros_like(truth)
    gallery.add("click", "a", 0.0, under, Prompt(points=((30, 30),), object=1), nothing, truth)
    pixels = np.asarray(gallery.tiles("click")[0][0].picture)
    inside = pixels[TILE_SIDE // 2 - 20, TILE_SIDE // 2 - 20]  # beside the click's dot
    assert inside.min() > 240
    assert pixels[2, 2].max() < 15


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (700, 4), (12, 12)])
def test_images_of_any_shape_have_tiles(shape: tuple[int, int]) -> None:
    gallery, everything = Gallery(1), np.ones(shape, bool)
    prompt = Prompt(box=(0, 0, *shape), object=2)
    gallery.add("box", "a", 1.0, np.zeros((*shape, 3), np.uint8), prompt, everything, everything)
    assert gallery.tiles("box")[0][0].picture.size == (TILE_SIDE, TILE_SIDE)


def test_long_names_are_cut_to_their_tile() -> None:
    gallery = Gallery(1)
    for label in range(1, 4):
        add(gallery, "a very long name of an image that has no end " * 3, label, 0.5)
    sheet = np.asarray(gallery.sheet().convert("L"))
    for number in range(1, 3):  # the gaps between the tiles are white below the heading
        gap = sheet[
            40:-40,
            number * (TILE_SIDE + TILE_GAP) + 2 : number * (TILE_SIDE + TILE_GAP) + TILE_GAP - 2,
        ]
        assert gap.min() > 200

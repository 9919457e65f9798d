"""A segmentation tile by tile that is killed anywhere goes on to the labels of one that was not."""

from contextlib import suppress

import numpy as np
import pytest

from napari_simmat.engine.everything.candidates import Instances, PixelBox
from napari_simmat.engine.everything.stitching import Stitcher, tile_boxes
from napari_simmat.engine.everything.tile_journal import TileJournal

SHAPE = (200, 300)
TILES = tile_boxes(SHAPE, 100, 40)


def discs():
    """Objects on seams and in tiles, as a whole plane."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    labels = np.zeros(SHAPE, np.uint32)
    for number, (cy, cx) in enumerate([(50, 60), (80, 150), (130, 90), (150, 240)], start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= 18**2] = number
    return labels


def instances(tile: PixelBox) -> Instances:
    """What a tile shows, numbered anew."""
    part = discs()[tile.slices]
    ids = np.unique(part[part > 0])
    renumbered = np.searchsorted(ids, part) + 1
    return Instances(
        np.where(part > 0, renumbered, 0).astype(np.uint32), np.full(len(ids), 0.9, np.float32)
    )


class Killed(BaseException):
    pass


class KilledLabels:
    """Labels whose write number `at` is done in half, as when the process ends."""

    def __init__(self, labels, at):
        self.labels, self.left, self.shape = labels, at, labels.shape

    def __getitem__(self, where):
        return self.labels[where]

    def __setitem__(self, where, values):
        self.left -= 1
        if self.left < 0:
            rows, columns = where
            half = rows.start + len(values) // 2
            self.labels[rows.start : half, columns] = values[: len(values) // 2]
            raise Killed
        self.labels[where] = values


def run(folder, kill_at=None):
    """Stitch all tiles that are not done; the labels and scores."""
    journal = TileJournal(folder, SHAPE, "request")
    labels = journal.labels if kill_at is None else KilledLabels(journal.labels, kill_at)
    stitcher = Stitcher(labels)
    known = journal.restore(stitcher)
    for number, tile in enumerate(TILES[known:], start=known + 1):
        stitcher.add(
            instances(tile),
            tile,
            lambda window, t=tile, n=number: journal.keep(stitcher, t, n, window),
        )
        journal.end(number)
    numbered = np.zeros(SHAPE, np.uint32)
    return numbered, stitcher.finish(into=numbered), known


def test_uninterrupted_run_finds_the_discs(tmp_path):
    labels, scores, _ = run(tmp_path / "j")
    np.testing.assert_array_equal(labels > 0, discs() > 0)
    assert len(scores) == 4


@pytest.mark.parametrize("writes", range(len(TILES)))
def test_killed_within_a_write_goes_on_to_the_same(tmp_path, writes):
    expected, expected_scores, _ = run(tmp_path / "whole")
    with suppress(Killed):  # tiles without an object are not written
        run(tmp_path / "j", kill_at=writes)
    labels, scores, _ = run(tmp_path / "j")
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(scores, expected_scores)


def test_killed_in_numbering_numbers_again(tmp_path):
    expected, *_ = run(tmp_path / "j")
    again, _, known = run(tmp_path / "j")
    assert known == len(TILES)
    np.testing.assert_array_equal(again, expected)


def test_journal_of_another_request_is_begun_anew(tmp_path):
    run(tmp_path / "j")
    assert TileJournal(tmp_path / "j", SHAPE, "request").done == len(TILES)
    other = TileJournal(tmp_path / "j", SHAPE, "another")
    assert other.done == 0
    assert not np.asarray(other.labels[...]).any()
    other.remove()
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"request": "request"}'])
def test_damaged_journal_is_begun_anew(tmp_path, content):
    run(tmp_path / "j")
    (tmp_path / "j" / "done.json").write_text(content)
    assert TileJournal(tmp_path / "j", SHAPE, "request").done == 0

"""Objects linked over time: a drawn series with divisions, links by hand, the table."""

from dataclasses import replace

import numpy as np
import pytest

from napari_simmat.engine.settings import LinkSettings
from napari_simmat.engine.tracking.linking import (
    DIVIDED_ALREADY,
    LAPTRACK_MISSING,
    NOT_LINKED,
    SAME_FRAME,
    TOO_MANY_TRACKS,
    Lineage,
    LineageTrack,
    Node,
    link_objects_job,
    read_parents,
    relabel_job,
    renumber_job,
    track_table,
)
from napari_simmat.progress import finish
from tests.drawn_series import draw_series


def shuffled(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same objects with other ids on each frame, as a segmentation by planes gives them."""
    rng, after = np.random.default_rng(seed), np.zeros_like(labels)
    for before, frame in zip(labels, after, strict=True):
        found = np.unique(before)[1:]
        for label, number in zip(found, 1 + rng.permutation(len(found)), strict=True):
            frame[before == label] = number
    return after


def known_nodes(mixed: np.ndarray, labels: np.ndarray) -> dict[Node, Node]:
    """For each object of each frame the same one among the known labels."""
    nodes = {}
    for frame, pair in enumerate(zip(mixed, labels, strict=True)):
        for one, other in np.unique(np.stack([each.ravel() for each in pair]), axis=1).T.tolist():
            nodes[Node(frame, one)] = Node(frame, other)
    return nodes


def test_link_objects_of_a_drawn_series_finds_divisions():
    _, labels, parents = draw_series(1, (16, 160, 160), 8)
    assert parents, "something divides"
    mixed = shuffled(labels)
    lineage = finish(link_objects_job(mixed))
    known, ours = Lineage.of_labels(labels, parents=parents), known_nodes(mixed, labels)
    links = {(ours[node], ours[before]) for node, before in lineage.links.items()}
    right = links & known.links.items()
    assert len(right) > 0.97 * max(len(links), len(known.links))
    given = [{ours[node] for node in after} for after in lineage.daughters().values()]
    divided = [set(after) for after in known.daughters().values() if len(after) > 1]
    assert sum(after in given for after in divided) >= 0.75 * len(divided)
    after = finish(relabel_job(mixed, lineage))
    assert ((after > 0) == (labels > 0)).all()
    tracks = {each.label: each for each in lineage.tracks()}
    for label in np.unique(after)[1:]:
        frames = np.flatnonzero((after == label).any((1, 2)))
        assert (frames[0], frames[-1]) == tracks[label][1:3]
    children = [each.parent for each in tracks.values() if each.parent]
    assert all(children.count(parent) == 2 for parent in children)
    again = Lineage.of_labels(after, parents=read_parents(track_table(tracks.values())))
    assert again.tracks() == lineage.tracks()


def row(*columns: int, count: int = 40) -> np.ndarray:
    """A frame with a bar at each column; the bar's id is its position in the list."""
    frame = np.zeros((10, count), np.int32)
    for number, column in enumerate(columns, start=1):
        frame[3:7, column : column + 4] = number
    return frame


def test_link_objects_with_a_gap_links_missing_objects():
    labels = np.stack([row(5, 25), row(25), row(5, 25)])
    apart = finish(link_objects_job(labels, LinkSettings(divisions=False)))
    assert len(apart.tracks()) == 3
    joined = finish(link_objects_job(labels, LinkSettings(gap=1, divisions=False)))
    assert joined.tracks() == [LineageTrack(1, 0, 2, 0), LineageTrack(2, 0, 2, 0)]
    seen_from_the_side = np.moveaxis(labels, 0, 2)
    turned = finish(link_objects_job(seen_from_the_side, LinkSettings(gap=1), axis=2))
    assert turned.tracks() == joined.tracks()


def test_link_objects_of_empty_frames_have_no_links():
    empty = np.zeros((3, 10, 40), np.int32)
    assert finish(link_objects_job(empty)).tracks() == []
    empty[2] = row(5)
    assert finish(link_objects_job(empty)).tracks() == [LineageTrack(1, 2, 2, 0)]


def test_lineage_links_made_and_cut_by_hand_change_ids():
    labels = np.stack([row(5), row(0, 20), row(0, 20)])
    labels[1:][labels[1:] == 2] = 7
    lineage = Lineage.of_labels(labels)
    assert lineage.tracks() == [LineageTrack(1, 0, 2, 0), LineageTrack(7, 1, 2, 0)]
    mother, one, other = Node(0, 1), Node(1, 1), Node(1, 7)
    divided = lineage.link(other, mother)
    assert divided.tracks() == [
        LineageTrack(1, 0, 0, 0),
        LineageTrack(7, 1, 2, 1),
        LineageTrack(8, 1, 2, 1),
    ]
    named = divided.relabeled()
    assert named.tracks() == divided.tracks()
    data, graph = named.points()
    assert graph == {7: [1], 8: [1]}
    assert data.shape == (5, 4)
    assert (
        divided.cut(mother, one).tracks() == [LineageTrack(1, 0, 2, 0), LineageTrack(8, 1, 2, 0)]
        or divided.cut(mother, one).ids()[other] == 1
    )
    assert divided.cut(mother, other).tracks() == lineage.tracks()
    with pytest.raises(ValueError, match="one frame") as said:
        lineage.link(one, other)
    assert str(said.value) == SAME_FRAME
    with pytest.raises(ValueError, match="already") as said:
        divided.link(mother, Node(2, 7))
    assert str(said.value) == DIVIDED_ALREADY.format(mother.label)
    with pytest.raises(ValueError, match="not linked") as said:
        lineage.cut(mother, other)
    assert str(said.value) == NOT_LINKED.format(
        mother.label, mother.frame, other.label, other.frame
    )


def test_lineage_that_is_numbered_has_ids_without_holes():
    nodes = {Node(0, 3): ((0, 0), 4), Node(0, 9): ((9, 9), 4), Node(1, 12): ((0, 0), 4)}
    nodes |= {Node(2, 13): ((0, 0), 4), Node(2, 20): ((5, 5), 4)}
    links = {Node(1, 12): Node(0, 3), Node(2, 13): Node(1, 12)}
    lineage = Lineage(nodes, links, is_numbered=True)
    assert [*lineage.ids().values()] == [1, 2, 1, 1, 3]
    assert [each.label for each in lineage.relabeled().tracks()] == [1, 2, 3]
    assert [*replace(lineage, is_numbered=False).ids().values()] == [3, 9, 3, 3, 20]
    assert lineage.cut(Node(0, 3), Node(1, 12)).ids()[Node(2, 13)] == 3


def test_renumber_of_eight_bits_refuses_too_many_ids():
    labels = np.stack([row(5), row(5)]).astype(np.uint8) * np.uint8(255)
    lineage = Lineage.of_labels(labels).cut(Node(0, 255), Node(1, 255))
    with pytest.raises(ValueError, match="32 bits") as said:
        finish(renumber_job(labels, lineage))
    assert str(said.value) == TOO_MANY_TRACKS.format(256, 255)
    [edit] = finish(renumber_job(labels.astype(np.int32), lineage))
    assert edit.after == 256


def test_read_parents_refuses_a_foreign_table():
    with pytest.raises(ValueError, match="Line 2 of the track table"):
        read_parents("1 0 5 0\nlabel first last parent\n")


def test_link_objects_without_laptrack_says_so(monkeypatch):
    monkeypatch.setattr("napari_simmat.engine.tracking.linking.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="laptrack") as said:
        finish(link_objects_job(np.zeros((2, 4, 4), int)))
    assert str(said.value) == LAPTRACK_MISSING

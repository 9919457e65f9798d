import numpy as np

from napari_simmat.engine.outline_evidence import BoundaryBias, OutlineEvidence, move_outline


def test_boundary_bias_moves_with_the_mask():
    y, x = np.indices((80, 100))
    known, found = np.hypot(y - 40, x - 40) < 18, np.hypot(y - 40, x - 42) < 20
    lean = BoundaryBias.of(known, found)
    other = np.hypot(y - 36, x - 61) < 10  # half as large, elsewhere
    moves = lean.on(other)
    assert moves[36, 70] < -2.5, "on the right it was too far out"
    assert abs(moves[36, 52]) < 1, "on the left it was right"
    assert BoundaryBias.of(known, np.zeros_like(found)) is None
    assert np.array_equal(move_outline(other, np.zeros_like(moves)), other)


def test_outline_evidence_without_an_edge_is_none():
    rng, disc = np.random.default_rng(0), np.hypot(*(np.indices((60, 60)) - 30)) < 12
    noise = rng.normal(size=(2, 60, 60))
    assert OutlineEvidence.of(disc, noise) is None
    assert OutlineEvidence.of(np.ones((60, 60), bool), noise) is None
    seen = OutlineEvidence.of(disc, noise + 5 * disc)
    assert seen.share(disc, noise + 5 * disc) == 1
    assert seen.share(disc, noise + 2 * disc) < 0.5
    assert seen.share(disc, noise) < 0.2
    assert seen.share(disc, -3 * disc * np.ones((2, 1, 1)) + noise) > 0.4, "darker is an edge too"

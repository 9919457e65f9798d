import numpy as np

from napari_simmat.engine.measuring.measurements import measure_objects
from napari_simmat.engine.measuring.object_children import count_children


def drawn():
    """Two cells; nuclei in the first, across both, and beside them."""
    cells = np.zeros((20, 30), int)
    cells[:, :10], cells[:, 10:20] = 3, 5
    nuclei = np.zeros_like(cells)
    nuclei[2:4, 2:4], nuclei[6:8, 2:4] = 1, 2
    nuclei[10:12, 7:12] = 3  # six pixels in the first, four in the second
    nuclei[14:16, 24:26] = 4
    return cells, nuclei


def test_each_child_counts_for_the_object_with_most_of_it():
    cells, nuclei = drawn()
    assert count_children(cells, nuclei, "YX") == {((), 3): 3}
    assert count_children(cells, nuclei, "YX")[(), 5] == 0


def test_counts_are_those_of_the_column_of_parents():
    rng = np.random.default_rng(0)
    cells = np.kron(rng.integers(0, 9, (6, 6)), np.ones((10, 10), int))
    nuclei = np.kron(rng.integers(0, 40, (20, 20)), np.ones((3, 3), int))
    rows = measure_objects(nuclei, axes="YX", parents=cells)
    counts = count_children(cells, nuclei, "YX")
    for label in np.unique(cells[cells > 0]):
        assert counts[(), label] == sum(row["parent"] == label for row in rows)


def test_each_time_point_is_counted_by_itself():
    cells, nuclei = drawn()
    both = np.stack([cells, cells]), np.stack([nuclei, np.where(nuclei == 1, 0, nuclei)])
    assert count_children(*both, "TYX") == {((0,), 3): 3, ((1,), 3): 2}
    assert count_children(*both, "ZYX") == {((), 3): 3}

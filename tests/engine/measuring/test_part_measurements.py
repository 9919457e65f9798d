import numpy as np
import pytest

from napari_simmat.engine.channels.indices import PlacedIndex, parse_index
from napari_simmat.engine.label_volume import MaskScore
from napari_simmat.engine.measuring import part_measurements
from napari_simmat.engine.measuring.measurements import ValueColumns, measure_objects, table_columns
from napari_simmat.engine.measuring.part_measurements import measure_in_parts
from napari_simmat.io.reference import ImageReference

STATISTICS = ("p5", "sum", "max", "background", "net_sum", "weighted_y", "weighted_x")


@pytest.mark.parametrize("step", [7, 30, 64])
def test_measure_in_parts_gives_the_table_of_the_whole(step, monkeypatch):
    monkeypatch.setattr(part_measurements, "PART_SIDE", step)
    rng = np.random.default_rng(1)
    labels = np.kron(rng.integers(0, 6, (5, 6)), np.ones((9, 8), int)).astype(np.uint32)
    labels[labels == 4] = 0  # an object of which no pixel is left
    labels[:, 20:24] = 0
    values = rng.normal(5, 2, (3, *labels.shape)).astype(np.float32)  # the third is a band alone
    values[0, 3:5, :20] = np.nan
    values[1][labels == 2] = np.nan  # no value at all
    size = ImageReference(scale={"Y": 0.5, "X": 0.25}, units={"Y": "um", "X": "um"})
    found = [MaskScore(label, label / 10) for label in range(1, 6)]
    index = PlacedIndex(parse_index("ratio=a/(b+c)"), {"a": 0, "b": 1, "c": 2})
    measured = ValueColumns(channels=("a", "b"), indices=[index], statistics=STATISTICS)
    rows = measure_in_parts(
        labels,
        channels=measured,
        part=lambda rows, columns: values[:, rows, columns],
        size=size,
        masks=found,
    )
    expected = measure_objects(
        labels, axes="YX", channels=measured, plane=lambda _: values, size=size, masks=found
    )
    assert len(rows) == len(expected) == 4
    columns = table_columns("YX", measured, size, rows=rows)
    assert "p5_ratio" in columns
    assert "valid_fraction_ratio" in columns
    assert not {"sum_ratio", "background_ratio", "weighted_y_ratio"} & set(columns)
    assert np.isfinite([row["background_a"] for row in rows]).any()
    for row, wanted in zip(rows, expected, strict=True):
        assert sorted(row) == sorted(columns)
        assert row.pop("class") == wanted.pop("class")
        assert row == pytest.approx(wanted, nan_ok=True, rel=1e-14)


def test_measure_in_parts_reads_no_more_than_a_few_parts_at_once(monkeypatch):
    monkeypatch.setattr(part_measurements, "PART_SIDE", 32)
    labels = np.kron(np.arange(1, 257).reshape(16, 16), np.ones((10, 10), int))
    labels[40:140, :] = 300  # larger than a part
    read = []

    def part(rows, columns):
        read.append((rows.stop - rows.start) * (columns.stop - columns.start))
        return labels[np.newaxis, rows, columns].astype(np.float32)

    rows = measure_in_parts(labels, channels=("c",), part=part, size=ImageReference(), masks=())
    assert max(read) <= 48 * 48
    assert sum(read) < 2 * labels.size
    assert [row["label"] for row in rows] == sorted(set(labels.ravel().tolist()))
    assert all(row["mean_c"] == row["label"] and row["std_c"] == 0 for row in rows)

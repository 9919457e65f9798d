import csv
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_simmat.batch.outputs import LabeledObjects, object_set_of, save_objects_job
from napari_simmat.io.files import OutputError
from napari_simmat.io.reference import ImageReference
from napari_simmat.progress import finish


def some_objects(**named: object) -> LabeledObjects:
    labels = np.zeros((3, 12, 14), dtype=np.int32)
    labels[0, 2:5, 3:8] = 4
    labels[1:, 6:10, 2:6] = 9
    size = ImageReference(
        scale={"Z": 2.0, "Y": 0.5, "X": 0.5}, units={"Z": "um", "Y": "um", "X": "um"}
    )
    return LabeledObjects(labels=labels, axes="ZYX", reference=size, **named)


def test_save_objects_round_trips(tmp_path):
    objects = some_objects(
        scores={4: 0.9, 9: 0.75}, categories={9: "cell"}, classes=("nucleus", "cell")
    )
    written = finish(save_objects_job(tmp_path, "stack", objects))
    names = ["stack_labels.tif", "stack_objects.csv", "stack_classes.tif"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert np.array_equal(tifffile.imread(written[0]), objects.labels)
    assert np.array_equal(tifffile.imread(written[2]), np.where(objects.labels == 9, 2, 0))
    with tifffile.TiffFile(written[2]) as file:
        assert file.series[0].axes == "ZYX"
        assert 'PhysicalSizeZ="2.0"' in file.ome_metadata
    with written[1].open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["label"], row["class"], row["score"]) for row in rows] == [
        ("4", "", "0.9"),
        ("9", "cell", "0.75"),
    ]
    assert float(rows[1]["volume_um3"]) == 32 * 0.5


@pytest.mark.parametrize(
    ("channels", "several"),
    [(("DAPI", "GFP"), True), (("DAPI",), False), (("red", "green", "blue"), False)],
)
def test_saved_objects_know_whether_their_image_has_channels(channels, several):
    assert object_set_of(some_objects(channels=channels)).has_channels is several
    named = replace(some_objects(), reference=ImageReference(channels=channels))
    assert object_set_of(named).has_channels is several


def test_save_objects_without_classes_writes_no_class_image(tmp_path):
    written = finish(save_objects_job(tmp_path, "a", some_objects()))
    assert [path.name for path in written] == ["a_labels.tif", "a_objects.csv"]


def test_save_objects_onto_a_folder_is_refused(tmp_path):
    (tmp_path / "a_labels.tif").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        finish(save_objects_job(tmp_path, "a", some_objects()))
    assert [path.name for path in tmp_path.iterdir()] == ["a_labels.tif"]

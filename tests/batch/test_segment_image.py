import csv
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from skimage.data import coins

from napari_simmat.batch.loaded_image import load_task, read_task_prompts
from napari_simmat.batch.plan import EXTRA_ENDINGS, SPATIAL, OutputFiles, SegmentConfig, SegmentTask
from napari_simmat.batch.record import read_record
from napari_simmat.batch.segment_image import MARKS_MISSED, TaskOutcome, label_numbers, marks_missed
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.files.objects import OBJECT_FORMATS, read_objects
from napari_simmat.engine.files.tables import TABLE_FORMATS
from napari_simmat.engine.label_volume import LabelVolume
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import AutomaticSettings, ChannelSelection
from napari_simmat.io.readers import read_labels
from napari_simmat.progress import finish
from tests.batch.folders import segment_task, write_record


@pytest.mark.parametrize(
    ("ids", "labels"),
    [
        ([3, 1, 2], [3, 1, 2]),
        ([0, 1, 2], [1, 2, 3]),  # napari counts shapes from 0
        ([None, None], [1, 2]),
        ([2, None, None], [2, 1, 3]),
        ([5, 5, None], [5, 5, 1]),
        ([0, None], [1, 2]),
        ([2**32 - 1], [2**32 - 1]),
        ([], []),
    ],
)
def test_label_numbers_follow_object_ids(ids, labels):
    assert label_numbers(ids) == labels


@pytest.mark.parametrize("ids", [[-1], [2**32], [0, 2**32 - 1]])
def test_label_numbers_out_of_range_are_refused(ids):
    with pytest.raises(ValueError, match=r"Object -?\d+ cannot be a label"):
        label_numbers(ids)


def test_read_task_prompts_replays_a_record(tmp_path):
    prompt = Prompt(points=((1, 2),), box=(0, 0, 3, 3), object=4, plane=(2,))
    path = write_record(tmp_path / "a.json", prompt)
    read, classes = read_task_prompts(path, (3, 4, 6))
    assert ([*read], classes) == ([prompt], {})


@pytest.mark.parametrize("shape", [(2, 4, 6), (4, 6), (1, 3, 4, 6)])
def test_read_task_prompts_of_another_stack_is_refused(tmp_path, shape):
    path = write_record(tmp_path / "a.json", Prompt(points=((1, 2),), plane=(2,)))
    with pytest.raises(ValueError, match=r"a\.json has prompts on plane \(2,\), but the image has"):
        read_task_prompts(path, shape)


@pytest.fixture
def stack(tmp_path):
    """Two planes (60, 80), each with a part of the coins."""
    path = tmp_path / "stack.tif"
    planes = np.stack([coins()[:60, :80], coins()[120:180, 200:280]])
    tifffile.imwrite(path, planes, metadata={"axes": "ZYX"})
    return path


@pytest.fixture(scope="module")
def predictor():
    return Predictor(load_model("tiny"), "cpu")


AUTOMATIC = AutomaticSettings(points_per_side=5, min_area=30)


def everything(image: Path, folder: Path, predictor: Predictor, **changes: object) -> TaskOutcome:
    task = SegmentTask(image, None, OutputFiles.of(image, folder))
    config = SegmentConfig(model="tiny", automatic=AUTOMATIC)
    return segment_task(replace(task, **changes), predictor, config, resume=True)


def test_segment_auto_labels_count_on_by_plane(stack, tmp_path, predictor):
    outcome = everything(stack, tmp_path / "out", predictor)
    labels = tifffile.imread(outcome.task.files.labels)
    record = read_record(outcome.task.files.record)
    assert labels.shape == (2, 60, 80)
    assert outcome.objects == labels.max() == len(record.objects) >= 2
    first, second = (set(np.unique(plane)) - {0} for plane in labels)
    assert not first & second
    for one in record.objects:
        assert (labels[tuple(one["plane"])] == one["label"]).sum() == one["pixels"]
    assert record.request.settings.automatic == AUTOMATIC.for_model(predictor.model.spec)
    assert record.request.prompts == ()


def test_segment_by_tiny_names_it_in_the_record(stack, tmp_path, monkeypatch):
    """Another `tiny` would find others, so that a run of before is not gone on with."""
    tiny = load_model("tiny")
    spec = replace(tiny.spec, instance_decoder="none")
    predictor = Predictor(replace(tiny, spec=spec, decoder=None), "cpu")
    task = SegmentTask(stack, None, OutputFiles.of(stack, tmp_path / "out"))
    config = SegmentConfig(model="tiny", automatic=AutomaticSettings(by="tiny"))
    outcome = segment_task(task, predictor, config, resume=True)
    assert outcome.objects >= 2
    assert read_record(outcome.task.files.record).request.model.finder == tiny.fingerprint
    assert segment_task(task, predictor, config, resume=True).status == "kept"
    finder = finish(predictor.finder_job())
    monkeypatch.setattr(finder, "model", replace(finder.model, fingerprint="another"))
    with pytest.raises(ValueError, match="what differs: the model"):
        segment_task(task, predictor, config, resume=True)


def test_segment_extras_hold_the_same_objects(stack, tmp_path, predictor):
    absent = {kind for kind, each in TABLE_FORMATS.items() if find_spec(each.package) is None}
    absent |= {SPATIAL} if find_spec("spatialdata") is None else set()
    kinds = [kind for kind in EXTRA_ENDINGS if kind not in absent]
    files = OutputFiles.of(stack, tmp_path / "out", kinds)
    outcome = everything(stack, tmp_path, predictor, files=files)
    expected = read_objects(files.labels).labels()
    for kind, path in outcome.task.files.extras.items():
        if kind in OBJECT_FORMATS:
            found = read_objects(path, expected.shape, "ZYX").labels()
            np.testing.assert_array_equal(found, expected, kind)
    kept = everything(stack, tmp_path, predictor, files=files)
    assert (outcome.status, kept.status) == ("written", "kept")


def test_load_task_drops_formats_that_cannot_hold_it(tmp_path):
    tifffile.imwrite(tmp_path / "wide.tif", np.zeros((1, 60_600), np.uint8))
    files = OutputFiles.of(tmp_path / "wide.tif", tmp_path, ("rois", "coco"))
    loaded = load_task(SegmentTask(tmp_path / "wide.tif", None, files), SegmentConfig(model="tiny"))
    assert list(loaded.task.files.extras) == ["coco"]
    assert loaded.note == (
        "ImageJ ROIs hold no coordinate above 60,536, but the image has 1 x 60600 pixels; choose "
        "another format."
    )


@pytest.mark.slow
def test_segment_unnamed_axes_are_planes(stack, tmp_path, predictor):
    """NumPy's files, and plain TIFF and Zarr, name none of an image's axes."""
    image = np.zeros((2, 3, 60, 80), np.uint8)
    image[1, 2], image[0, 1] = tifffile.imread(stack)
    np.save(tmp_path / "image.npy", image)
    outcome = everything(tmp_path / "image.npy", tmp_path / "out", predictor)
    labels = read_labels(outcome.task.files.labels)
    assert (labels.axes, labels.shape) == ("QRYX", image.shape)
    with outcome.task.files.objects.open(newline="") as file:
        rows = list(csv.DictReader(file))
    where = {int(row["label"]): (int(row["q"]), int(row["r"])) for row in rows}
    assert set(where.values()) == {(1, 2), (0, 1)}
    assert len(where) == outcome.objects
    for label, plane in where.items():
        assert (labels.data[plane] == label).any()


def test_segment_record_of_auto_replays_it(stack, tmp_path, predictor):
    first = everything(stack, tmp_path / "first", predictor)
    made = replace(first.task, prompts=first.task.files.record)
    made = replace(made, files=OutputFiles.of(stack, tmp_path / "second"))
    config = SegmentConfig(model="tiny")  # other settings than the record's
    second = segment_task(made, predictor, config)
    assert second.task.files.labels.read_bytes() == first.task.files.labels.read_bytes()
    records = [read_record(one.task.files.record) for one in (first, second)]
    assert records[0].request == records[1].request


def test_segment_record_replays_unset_channels(tmp_path, predictor):
    image, prompts = tmp_path / "a.tif", tmp_path / "a.csv"
    planes = np.stack([coins()[top : top + 60, :80] for top in (0, 90, 180)])
    tifffile.imwrite(image, planes, photometric="minisblack")
    prompts.write_text("index,axis-0,axis-1\n0,30,40\n")
    chosen = SegmentConfig(
        model="tiny",
        selection=ChannelSelection(channels=(2, 2, 0), channel_axis=0, pixel_ratio=1.5),
    )

    def replayed(prompts, name, config):
        task = SegmentTask(image, prompts, OutputFiles.of(image, tmp_path / name))
        return read_record(segment_task(task, predictor, config).task.files.record)

    first = replayed(prompts, "first", chosen)
    record = tmp_path / "first" / "a.json"
    again = replayed(record, "again", SegmentConfig(model="tiny"))
    assert again.request == first.request
    assert again.outputs == first.outputs
    other = replayed(
        record, "other", SegmentConfig(model="tiny", selection=ChannelSelection(channels=(1,)))
    )
    used = first.request.settings
    changed = replace(used.selection, channels=(1,))
    assert other.request.settings == replace(used, selection=changed)


def test_marks_missed_names_objects_that_miss_their_points():
    volume = LabelVolume((2, 9, 9))
    disc = np.hypot(*(np.indices((9, 9)) - 4)) < 3
    volume.add(1, disc, 0.9, (0,))
    volume.add(2, disc, 0.9, (1,))
    right = Prompt(points=((4, 4), (0, 0)), labels=(1, 0), object=1, plane=(0,))
    wrong = Prompt(points=((4, 4), (4, 5), (8, 8)), labels=(1, 0, 1), object=2, plane=(1,))
    assert marks_missed([right], volume) == ""
    said = MARKS_MISSED.format("2 points disagree", "2")
    assert marks_missed([right, wrong, Prompt(box=(1, 1, 5, 5))], volume) == said


def test_segment_box_drops_its_crumbs(tmp_path, predictor):
    """A loose box around a coin: what the window commits."""
    image, prompts = tmp_path / "coins.tif", tmp_path / "boxes.csv"
    tifffile.imwrite(image, coins())
    corners = [(223.5, 8.5), (223.5, 82.5), (295.5, 82.5), (295.5, 8.5)]
    lines = [f"0,rectangle,{n},{y},{x}" for n, (y, x) in enumerate(corners)]
    prompts.write_text("\n".join(["index,shape-type,vertex-index,axis-0,axis-1", *lines]))
    task = SegmentTask(image, prompts, OutputFiles.of(image, tmp_path / "out"))
    outcome = segment_task(task, predictor, SegmentConfig(model="tiny"))
    labels = tifffile.imread(outcome.task.files.labels)
    assert ndimage.label(labels, np.ones((3, 3)))[1] == 1

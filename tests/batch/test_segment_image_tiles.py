"""Labels that are not held in memory: the same objects, table and promises as in memory."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat import Predictor, load_model
from napari_simmat.batch.loaded_image import load_task
from napari_simmat.batch.outputs import recover_partial
from napari_simmat.batch.plan import OutputFiles, SegmentConfig, SegmentTask
from napari_simmat.batch.record import read_record
from napari_simmat.batch.segment_image import TaskOutcome, segment_loaded_job
from napari_simmat.engine.settings import AutomaticSettings, Compute
from napari_simmat.io.files import DiskFullError
from napari_simmat.io.readers import read_labels
from napari_simmat.progress import finish
from tests.batch.folders import segment_task

EVERYTHING = AutomaticSettings(seeds="maxima", tile=128, agreement=0)
IN_MEMORY = SegmentConfig(model="tiny", compute=Compute(device="cpu"), automatic=EVERYTHING)
IN_TILES = replace(IN_MEMORY, labels_in_memory=1e-4)
"""A limit of 100 kB."""


@pytest.fixture(scope="module")
def predictor():
    return Predictor(load_model("tiny"), "cpu")


@pytest.fixture
def image(tmp_path):
    """(200, 300) with three discs, one on the seam of two tiles; 0.5 x 0.5 um."""
    y, x = np.mgrid[:200, :300]
    values = np.random.default_rng(0).integers(0, 200, (200, 300)).astype(np.uint16)
    for cy, cx in ((50, 60), (60, 120), (150, 240)):
        values[(y - cy) ** 2 + (x - cx) ** 2 <= 15**2] += 4000
    path = tmp_path / "discs.tif"
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, values, ome=True, metadata={"axes": "YX", **size})
    return path


def task(image: Path, folder: Path, *extras: str) -> SegmentTask:
    return SegmentTask(image, None, OutputFiles.of(image, folder, extras))


def segment(predictor: Predictor, one: SegmentTask, config: SegmentConfig, resume: bool = False):
    return segment_task(one, predictor, config, resume=resume)


def test_tiles_plane_is_not_encoded_as_a_whole(image, tmp_path):
    predictor = Predictor(load_model("tiny"), "cpu")
    outcome = segment(predictor, task(image, tmp_path / "out"), IN_MEMORY)
    assert outcome.objects == 3
    assert len(predictor.cache) == 0  # tiles are not kept


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_tiles_give_the_objects_of_the_whole_plane(predictor, image, tmp_path):
    usual = segment(predictor, task(image, tmp_path / "usual"), IN_MEMORY)
    large = segment(predictor, task(image, tmp_path / "large", "overlay", "coco"), IN_TILES)
    assert large.objects == usual.objects == 3
    assert large.note.startswith("Objects in other formats are not written")
    assert sorted(path.name for path in (tmp_path / "large").iterdir()) == [
        "discs.json",
        "discs_labels.ome.zarr",
        "discs_objects.csv",
        "discs_overlay.png",
    ]
    written, expected = (read_labels(one.task.files.labels) for one in (large, usual))
    np.testing.assert_array_equal(np.asarray(written.data), np.asarray(expected.data))
    assert written.scale == expected.scale == {"Y": 0.5, "X": 0.5}
    assert large.task.files.objects.read_bytes() == usual.task.files.objects.read_bytes()
    with Image.open(tmp_path / "large" / "discs_overlay.png") as overlay:
        picture = np.asarray(overlay)
    assert picture.shape == (200, 300, 3)
    colored = (picture.max(-1) > picture.min(-1)).reshape(-1)
    np.testing.assert_array_equal(colored, np.asarray(written.data).reshape(-1) > 0)
    records = [read_record(one.task.files.record) for one in (large, usual)]
    assert records[0].request == records[1].request
    assert records[0].objects == records[1].objects


def test_tiles_existing_output_is_kept_refused_or_replaced(predictor, image, tmp_path):
    one = task(image, tmp_path / "out")
    segment(predictor, one, IN_TILES)
    before = contents(tmp_path / "out")
    assert segment(predictor, one, IN_TILES, resume=True).status == "kept"
    assert contents(tmp_path / "out") == before
    other = replace(IN_TILES, automatic=replace(EVERYTHING, min_area=30))
    with pytest.raises(ValueError, match="was made differently"):
        segment(predictor, one, other, resume=True)
    chunk = next((tmp_path / "out" / "discs_labels.ome.zarr" / "0" / "c").rglob("0"))
    next(each for each in (chunk, *chunk.rglob("*")) if each.is_file()).write_bytes(b"")
    with pytest.raises(ValueError, match="is missing or was changed"):
        segment(predictor, one, IN_TILES, resume=True)
    segment(predictor, one, IN_TILES)
    after = contents(tmp_path / "out")
    assert {name: after[name] for name in after if name != "discs.json"} == {
        name: before[name] for name in before if name != "discs.json"
    }


@pytest.mark.slow
def test_outdated_files_of_another_format_are_removed(predictor, image, tmp_path):
    folder = tmp_path / "out"
    segment(predictor, task(image, folder, "overlay", "coco"), IN_MEMORY)
    (folder / "discs_rois.zip").write_bytes(b"another program's")
    segment(predictor, task(image, folder), IN_TILES)
    names = {"discs.json", "discs_objects.csv", "discs_rois.zip"}
    assert {path.name for path in folder.iterdir()} == {"discs_labels.ome.zarr", *names}
    segment(predictor, task(image, folder), IN_MEMORY)
    assert {path.name for path in folder.iterdir()} == {"discs_labels.tif", *names}
    (folder / "discs_labels.tif").write_bytes(b"changed by hand")
    segment(predictor, task(image, folder), IN_TILES)
    assert (folder / "discs_labels.tif").read_bytes() == b"changed by hand"
    segment(predictor, task(image, folder), IN_MEMORY)
    (folder / "discs.json").write_text("{}")  # vouches for nothing
    segment(predictor, task(image, folder), IN_TILES)
    assert (folder / "discs_labels.tif").exists()


def test_tiles_canceled_before_the_first_leave_nothing(predictor, image, tmp_path):
    one = task(image, tmp_path / "out")
    (tmp_path / "out").mkdir()
    job = segment_loaded_job(load_task(one, IN_TILES), predictor)
    while not any((tmp_path / "out").iterdir()):
        next(job)
    job.close()
    assert not any((tmp_path / "out").iterdir())
    left = tmp_path / "out" / ".discs_labels.ome.zarr.0123abcd.part"  # as a kill leaves it
    left.mkdir()
    (left / "zarr.json").write_text("{}")
    recover_partial(one.files, finish=True)
    assert not any((tmp_path / "out").iterdir())


def test_tiles_failed_write_leaves_only_what_is_done(predictor, image, tmp_path, monkeypatch):
    from napari_simmat.batch import outputs

    one = task(image, tmp_path / "out")
    result = finish(segment_loaded_job(load_task(one, IN_TILES), predictor))
    assert not isinstance(result, TaskOutcome)

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_simmat.engine.measuring.measured_image.measure_in_parts", full)
    with pytest.raises(OSError, match="No space"):
        outputs.write_result(result)
    # What is done is kept, so that a run goes on when there is space; one without it begins anew.
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".discs_tiles.part"]
    recover_partial(one.files, finish=False)
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("code", "where", "sentence"),
    [
        (errno.ENOSPC, "engine.everything.tiles.segment_tiles_job", "The disk is full: "),
        (errno.EACCES, "batch.segment_image.create_labels", "out cannot be written. Change its"),
        (errno.EIO, "engine.everything.tiles.segment_tiles_job", "disk says"),
    ],
)
def test_tiles_disk_error_is_explained(
    code, where, sentence, predictor, image, tmp_path, monkeypatch
):
    def refused(*_, **__):
        raise OSError(code, "disk says")

    monkeypatch.setattr(f"napari_simmat.{where}", refused)
    one = task(image, tmp_path / "out")
    with pytest.raises(OSError, match=sentence) as caught:
        finish(segment_loaded_job(load_task(one, IN_TILES), predictor))
    assert isinstance(caught.value, DiskFullError) == (code == errno.ENOSPC)
    assert not list(tmp_path.rglob("*.part"))


def test_canceled_run_goes_on_at_its_tile_with_resume(predictor, image, tmp_path):
    whole = segment(predictor, task(image, tmp_path / "whole"), IN_TILES)
    one = task(image, tmp_path / "out")
    (tmp_path / "out").mkdir()
    job = segment_loaded_job(load_task(one, IN_TILES), predictor)
    done = one.files.journal / "done.json"
    while not done.exists():
        next(job)
    job.close()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [one.files.journal.name]
    recover_partial(one.files, finish=True)  # as a run with --resume begins
    encodes = predictor.encodes
    resumed = segment(predictor, one, IN_TILES, resume=True)
    assert predictor.encodes > encodes
    assert resumed.objects == whole.objects
    kept = ("discs_labels.ome.zarr", "discs_objects.csv")
    before, after = contents(tmp_path / "whole"), contents(tmp_path / "out")
    assert {n: c for n, c in after.items() if n.startswith(kept)} == {
        n: c for n, c in before.items() if n.startswith(kept)
    }
    assert not one.files.journal.exists()


@pytest.mark.parametrize("by", ["decoder", "tiny"])
def test_tiles_of_each_way_keep_their_promises(by, predictor, image, tmp_path):
    """The same bytes at once and canceled in between; replayed; kept if they are there."""
    config = replace(IN_TILES, automatic=AutomaticSettings(by=by, tile=128))
    whole, one = (task(image, tmp_path / name) for name in ("whole", "out"))
    made = segment(predictor, whole, config)
    assert made.objects == 3
    (tmp_path / "out").mkdir()
    job = segment_loaded_job(load_task(one, config), predictor)
    while not (one.files.journal / "done.json").exists():
        next(job)
    job.close()
    recover_partial(one.files, finish=True)
    assert segment(predictor, one, config, resume=True).objects == 3
    assert segment(predictor, one, config, resume=True).status == "kept"
    replay = replace(task(image, tmp_path / "again"), prompts=whole.files.record)
    segment(predictor, replay, replace(IN_TILES, automatic=AutomaticSettings()))
    assert read_record(replay.files.record).request == read_record(whole.files.record).request
    kept = ("discs_labels.ome.zarr", "discs_objects.csv")
    before, *others = (
        {n: c for n, c in contents(tmp_path / name).items() if n.startswith(kept)}
        for name in ("whole", "out", "again")
    )
    assert all(after == before for after in others)


def test_canceled_run_of_other_settings_is_begun_anew(predictor, image, tmp_path):
    one = task(image, tmp_path / "out")
    (tmp_path / "out").mkdir()
    job = segment_loaded_job(load_task(one, IN_TILES), predictor)
    while not (one.files.journal / "done.json").exists():
        next(job)
    job.close()
    other = replace(IN_TILES, automatic=replace(EVERYTHING, min_area=30))
    resumed = segment(predictor, one, other, resume=True)
    fresh = segment(predictor, task(image, tmp_path / "fresh"), other)
    assert resumed.objects == fresh.objects
    assert resumed.task.files.objects.read_bytes() == fresh.task.files.objects.read_bytes()

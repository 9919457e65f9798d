"""Folders of labeled images, figures that can be counted by hand, and the history of them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat.datasets.folder import find_labeled_files, fingerprint
from napari_simmat.engine import automatic_generator
from napari_simmat.engine.automatic_postprocessing import Instances
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.evaluation.evaluate import (
    append_entry,
    evaluate_job,
    read_history,
    regressions,
)
from napari_simmat.evaluation.scores import ScoreConfig
from napari_simmat.io.zarr import write_labels_zarr
from napari_simmat.progress import Progress, finish
from tests.scripted_predictor import Answer


class Thresholder:
    """Answers a click with the 4 x 4 pixels around it, a box with the bright pixels in it."""

    def __init__(self) -> None:
        self.asked: list[Prompt] = []
        self.stack = self

    def set_image_job(
        self, array, _axis=None, _channels=None, plane=None, _names=None, *, pixel_size=None
    ):
        self.image, self.shape = np.asarray(array), array.shape
        self.pixel_size = pixel_size
        yield from self.set_plane_job(plane)

    def set_plane_job(self, plane):
        self.plane = self.image[tuple(plane)]
        yield from ()

    def normalized(self, plane):
        return self.image[tuple(plane)][None]

    def predict(self, points=None, labels=None, box=None, **_):
        return self._answer(Prompt(points=points or (), labels=labels or (), box=box))

    def predict_many_job(self, prompts):
        yield from ()
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt):
        self.asked.append(prompt)
        found, box = np.zeros(self.plane.shape, bool), prompt.box
        if box is None:
            y, x = (int(value) for value in prompt.points[0])
            found[y - 1 : y + 3, x - 1 : x + 3] = True
        else:
            y0, x0, y1, x1 = (int(value) for value in box)
            found[y0:y1, x0:x1] = self.plane[y0:y1, x0:x1]
        return Answer(found, np.zeros((4, 4)))


def write(path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(path, values, photometric="minisblack")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images: in `a` an 8 x 8 and a 4 x 4 square and a speck, in `b` two planes with one."""
    labels = np.zeros((40, 50), np.uint16)
    labels[4:12, 4:12], labels[20:24, 30:34], labels[30:33, 40:43] = 7, 300, 9
    stack = np.zeros((3, 40, 50), np.uint16)
    stack[0, 4:12, 4:12] = stack[2, 20:28, 20:28] = 1
    for name, values in (("a", labels), ("b", stack)):
        write(tmp_path / f"{name}.tif", (values > 0).astype(np.uint8))
        write(tmp_path / f"{name}_labels.tif", values)
    return tmp_path


def test_figures_are_those_counted_by_hand(folder: Path) -> None:
    scores = finish(evaluate_job(Thresholder(), find_labeled_files(folder), ScoreConfig(clicks=2)))
    a, b = scores.images
    assert [(plane, score.label, score.area) for plane, score in a.scores] == [
        ((), 7, 64),
        ((), 300, 16),
    ]
    assert a.too_small == 1
    # 16 of 64 pixels.
    assert a.scores[0][1].iou["click"] == 16 / 64
    assert a.scores[0][1].figures["dice_click"] == 2 * 16 / (16 + 64)
    assert [score.iou["box"] for _, score in a.scores] == [1, 1]
    assert [score.filled_box for _, score in a.scores] == [1, 1]
    assert [plane for plane, _ in b.scores] == [(0,), (2,)]
    # A disk of 64 pixels around the middle of a square of 64 pixels.
    assert 0.75 < b.headline["disk"] < 0.95
    assert list(scores.headline) == ["click", "click+1", "box", "filled_box", "disk"]


def test_the_model_is_told_the_shape_of_pixels_where_the_file_knows_it(folder: Path) -> None:
    predictor = Thresholder()
    finish(evaluate_job(predictor, find_labeled_files(folder), ScoreConfig(prompt="box")))
    assert predictor.pixel_size is None
    told = ScoreConfig(prompt="box", pixel_ratio=2.0)
    finish(evaluate_job(predictor, find_labeled_files(folder), told))
    assert predictor.pixel_size == (2.0, 1.0)
    sizes = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 1.5}
    for name in "ab":
        values = np.zeros((40, 50), np.uint8)
        values[4:12, 4:12] = 1
        for end in ("", "_labels"):
            tifffile.imwrite(folder / f"{name}{end}.tif", values, ome=True, metadata=sizes)
    finish(evaluate_job(predictor, find_labeled_files(folder), told))
    assert predictor.pixel_size == (1.5, 0.5)
    with pytest.raises(ValueError, match="height over its width is above 0, not -1"):
        ScoreConfig(pixel_ratio=-1.0)


@pytest.mark.parametrize("axis", [None, 0, -3])
def test_channels_keep_their_names_however_their_axis_is_counted(tmp_path: Path, axis) -> None:
    class Named(Thresholder):
        def set_image_job(self, array, *args, pixel_size=None):
            self.names = args[3]
            yield from super().set_image_job(array[0], plane=args[2], pixel_size=pixel_size)

    values = np.zeros((2, 40, 50), np.uint8)
    values[:, 4:12, 4:12] = 1
    metadata = {"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI"]}}
    tifffile.imwrite(tmp_path / "a.tif", values, ome=True, metadata=metadata)
    write(tmp_path / "a_labels.tif", values[0])
    predictor = Named()
    config = ScoreConfig(prompt="box", channel_axis=axis)
    finish(evaluate_job(predictor, find_labeled_files(tmp_path), config))
    assert predictor.names == ("GFP", "DAPI")


def test_a_model_is_asked_what_was_chosen_alone(folder: Path) -> None:
    """One image of one object: what is asked, and which columns there are."""
    (folder / "a.tif").unlink()
    expected = {
        "click": (["click"], 1),
        "box": (["box"], 1),
        "iterative": (["click", "click+1", "click+2"], 3),
        "all": (["click", "click+1", "click+2", "box"], 4),
    }
    for prompt, (columns, questions) in expected.items():
        predictor = Thresholder()
        config = ScoreConfig(prompt=prompt, clicks=3, most=1)
        scores = finish(evaluate_job(predictor, find_labeled_files(folder), config))
        assert list(scores.headline) == [*columns, "filled_box", "disk"]
        assert len(predictor.asked) == questions


def test_the_papers_protocol_takes_regions_by_their_size_at_1024(folder: Path) -> None:
    """Of 40 x 50 pixels one counts as 524 ones: the speck of 9 pixels as 4719."""
    (folder / "b.tif").unlink()
    files = find_labeled_files(folder)
    for smallest, labels in ((0, [7, 9, 300]), (5000, [7, 300]), (9000, [7])):
        predictor = Thresholder()
        config = ScoreConfig(prompt="paper", smallest=smallest)
        scores = finish(evaluate_job(predictor, files, config))
        (image,) = scores.images
        assert [score.label for _, score in image.scores] == labels
        assert image.too_small == 3 - len(labels)
        assert list(scores.over_objects) == ["paper", "dice_paper"]
        assert [len(prompt.points) for prompt in predictor.asked] == [1] * len(labels)
    with pytest.raises(ValueError, match="more than 90000 pixels at 1024 x 1024"):
        finish(evaluate_job(Thresholder(), files, ScoreConfig(prompt="paper", smallest=90_000)))


def test_the_size_holds_for_other_prompts_as_well(folder: Path) -> None:
    config = ScoreConfig(prompt="box", smallest=9000)
    a, _ = finish(evaluate_job(Thresholder(), find_labeled_files(folder), config)).images
    assert [score.label for _, score in a.scores] == [7]
    assert a.too_small == 2


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"prompt": "auto", "most": 5}, "compared with all objects; leave most out"),
        ({"clicks": 0}, "cannot get 0 clicks; give 1 to 20"),
        ({"clicks": 21}, "cannot get 21 clicks; give 1 to 20"),
        ({"smallest": -1}, "fewer than 0 pixels, got -1"),
        ({"most": 0}, "give 1 or more"),
        ({"prompt": "guess"}, "give click, box, iterative, paper, auto, all"),
    ],
)
def test_what_cannot_be_asked_is_refused(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ScoreConfig(**wrong)


def test_an_image_that_cannot_be_used_is_named_however_short_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise ValueError("tiny reads red, green and blue, but there are 5 channels.")

    monkeypatch.setattr(Thresholder, "set_image_job", refused)
    with pytest.raises(ValueError, match=r"^a\.tif: tiny reads red"):
        finish(evaluate_job(Thresholder(), find_labeled_files(folder), ScoreConfig(prompt="box")))


def test_everything_is_segmented_and_matched(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `a` the larger square and something in the corner are found, of `b` nothing."""

    class Opening(Thresholder):
        def open_image_job(self, array, *_, pixel_size=None):
            assert pixel_size is None
            self.image = np.asarray(array)
            yield from ()

    def finding(predictor, settings, plane):
        yield Progress(0, 1, "asking")
        asked.append((settings, plane))
        labels = np.zeros((40, 50), np.uint32)
        if not plane:
            labels[4:12, 4:12], labels[30:33, 40:44], labels[0:2, 48:50] = 1, 2, 3
        return Instances(labels, np.ones(labels.max(), np.float32))

    asked: list[tuple[AutomaticSettings, tuple[int, ...]]] = []
    monkeypatch.setattr(automatic_generator, "segment_everything_job", finding)
    settings = AutomaticSettings(quality=0.4)
    config = ScoreConfig(prompt="auto", automatic=settings)
    output = tmp_path / "pictures"
    output.mkdir()
    scores = finish(evaluate_job(Opening(), find_labeled_files(folder), config, output))
    assert asked == [(settings, ()), (settings, (0,)), (settings, (2,))]
    a, b = scores.images
    assert (a.counts, a.too_small) == ({"objects": 2, "found": 2}, 1)  # 9 pixels are too few
    assert b.counts == {"objects": 2, "found": 0}
    assert scores.counts == {"objects": 4, "found": 2}
    assert scores.over_objects["ap@50"] == 1 / (1 + 1 + 3)
    assert scores.headline["ap@50"] == (1 / 3 + 0) / 2
    assert [path.name for path in scores.overlays] == ["a_overlay.png", "b_overlay.png"]
    with Image.open(scores.overlays[0]) as picture:
        assert picture.width == 2 * 50


def test_fewer_objects_are_spread_over_the_image_and_the_same_each_time(tmp_path: Path) -> None:
    labels = np.kron(np.arange(1, 101).reshape(10, 10), np.pad(np.ones((6, 6)), 2)).astype("u2")
    tifffile.imwrite(tmp_path / "a.tif", (labels > 0).astype(np.uint8))
    tifffile.imwrite(tmp_path / "a_labels.tif", labels)
    files, config = find_labeled_files(tmp_path), ScoreConfig(prompt="box", most=5)
    first, second = (finish(evaluate_job(Thresholder(), files, config)) for _ in range(2))
    chosen = [score.label for _, score in first.images[0].scores]
    assert [(label - 1) // 20 for label in chosen] == [0, 1, 2, 3, 4]
    assert first == second


def test_overlays_are_written_whole_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    output = tmp_path / "out"
    job = evaluate_job(Thresholder(), find_labeled_files(folder), ScoreConfig(clicks=1), output)
    scores = finish(job)
    assert sorted(output.iterdir()) == list(scores.overlays)
    assert [path.name for path in scores.overlays] == [
        "a_overlay.png",
        "b_overlay.png",
        "overlays.png",
    ]
    for path in scores.overlays[:2]:
        with Image.open(path) as picture:
            assert picture.width == 2 * 2 * 50 + 12
    stopped = evaluate_job(
        Thresholder(), find_labeled_files(folder), ScoreConfig(), tmp_path / "other"
    )
    for _ in range(3):
        next(stopped)
    stopped.close()
    assert not (tmp_path / "other").exists()


# ------------------------------------------------------------------ folders


def test_images_and_labels_in_folders_of_their_own(folder: Path) -> None:
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for name in "ab":
        (folder / f"{name}.tif").rename(folder / "images" / f"{name}.tif")
        (folder / f"{name}_labels.tif").rename(folder / "labels" / f"{name}.tif")
    files = find_labeled_files(folder)
    assert [file.name for file in files] == ["a", "b"]
    assert files[0].read()[1].max() == 300


def test_images_without_labels_are_left_out_in_words(folder: Path, caplog) -> None:
    (folder / "b_labels.tif").unlink()
    (folder / "README.md").write_text("not an image")
    assert [file.name for file in find_labeled_files(folder)] == ["a"]
    assert "b.tif" in caplog.text


def test_labels_without_an_image_are_left_out_in_words(folder: Path, caplog) -> None:
    (folder / "b.tif").unlink()
    (folder / "b.json").write_text("{}")
    assert [file.name for file in find_labeled_files(folder)] == ["a"]
    assert "b_labels.tif" in caplog.text


@pytest.mark.parametrize("apart", [False, True])
def test_an_image_may_be_a_folder(apart: bool, tmp_path: Path) -> None:
    """A DICOM series and OME-Zarr, as the batch writes labels of large images."""
    pytest.importorskip("pydicom")
    from tests.io.test_dicom import write_slice

    images, beside = (tmp_path / "images", tmp_path / "labels") if apart else (tmp_path, tmp_path)
    for folder in {images, beside}:
        folder.mkdir(exist_ok=True)
    end = "" if apart else "_labels"
    head = np.zeros((3, 20, 30), np.uint16)
    head[1, 4:10, 6:14] = 5
    for z, plane in enumerate(head):
        write_slice(images / "head.1" / f"{z}.dcm", plane, z + 1)
    write(beside / f"head.1{end}.tif", head)
    slide = np.zeros((20, 30), np.uint16)
    slide[8:14, 6:14] = 3
    for path in (images / "slide.ome.zarr", beside / f"slide{end}.ome.zarr"):
        write_labels_zarr(path, slide, "YX")
    files = find_labeled_files(tmp_path)
    assert [file.name for file in files] == ["head.1", "slide"]
    for file, expected in zip(files, (head, slide), strict=True):
        image, labels = file.read()
        np.testing.assert_array_equal(image.data, expected)
        np.testing.assert_array_equal(labels, expected)
    scores = finish(evaluate_job(Thresholder(), files, ScoreConfig(prompt="box")))
    assert [image.headline["box"] for image in scores.images] == [1, 1]
    before = fingerprint(files)
    write_slice(images / "head.1" / "0.dcm", head[1], 1)
    assert fingerprint(files) != before


@pytest.mark.parametrize(
    ("image", "labels"),
    [((1, 20, 30), (20, 30)), ((20, 30), (1, 1, 20, 30)), ((1, 3, 20, 30),) * 2],
)
def test_axes_of_one_plane_make_no_difference(image, labels, tmp_path: Path) -> None:
    """Many programs write OME-Zarr with all five axes."""
    np.save(tmp_path / "a.npy", np.zeros(image, np.uint8))
    np.save(tmp_path / "a_labels.npy", np.ones(labels, np.uint8))
    [file] = find_labeled_files(tmp_path)
    assert file.read()[1].shape == image


@pytest.mark.parametrize("labels", [(30, 20), (2, 20, 30), (3, 30, 20), (3, 20, 30, 1)])
def test_labels_of_another_shape_are_refused(labels: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 3, 20, 30), np.uint8))
    np.save(tmp_path / "a_labels.npy", np.ones(labels, np.uint8))
    [file] = find_labeled_files(tmp_path)
    with pytest.raises(ValueError, match=r"a_labels\.npy has the shape .* 1 x 3 x 20 x 30; give"):
        file.read()


def test_two_images_of_one_stem_are_refused(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.png and a\.tif have the same stem"):
        find_labeled_files(folder)


def test_a_set_is_known_by_its_contents(folder: Path) -> None:
    before = fingerprint(find_labeled_files(folder))
    assert fingerprint(find_labeled_files(folder)) == before
    tifffile.imwrite(folder / "a_labels.tif", np.ones((40, 50), np.uint8))
    assert fingerprint(find_labeled_files(folder)) != before


@pytest.mark.parametrize("mirrored", [False, True])
def test_labels_that_run_the_other_way_than_their_image_are_remarked_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mirrored: bool
) -> None:
    nibabel = pytest.importorskip("nibabel")
    name, labels = f"scan-{mirrored}", np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    affine = np.diag([-0.5, 0.5, 2, 1])
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / f"{name}.nii")
    if mirrored:
        affine = np.diag([0.5, 0.5, 2, 1])
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / f"{name}_labels.nii")
    [file] = find_labeled_files(tmp_path)
    for _ in range(2):
        assert np.array_equal(file.read()[1], labels.T), "as they are stored"
    if mirrored:
        assert caplog.messages == [
            f"By their headers, the voxels of {name}_labels.nii run RAS, those of {name}.nii LAS. "
            "They are used as stored: check whether they match."
        ]
    else:
        assert not caplog.messages


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_a_set_with_a_name_that_is_no_text_is_known_too(folder: Path) -> None:
    before = fingerprint(find_labeled_files(folder))
    for ending in (".tif", "_labels.tif"):
        (folder / f"a{ending}").rename(folder / os.fsdecode(b"10\xb5m" + ending.encode()))
    assert fingerprint(find_labeled_files(folder)) != before


# ------------------------------------------------------------------ history


def line(mean: float, a: float, **changed: object) -> dict[str, object]:
    return {
        "date": "2026-11-25T10:00:00+00:00",
        "set": "s",
        "model": "tiny-1",
        "steps": 100,
        "settings": {"most": None, "channels": None, "channel_axis": None},
        "mean": {"click": mean, "disk": 0.5},
        "images": {"a": {"objects": 3, "click": a, "disk": 0.5}},
        **changed,
    }


def test_what_is_worse_than_the_best_earlier_run_is_said(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert read_history(path) == []
    for each in (line(0.7, 0.9), line(0.8, 0.8), line(0.75, 0.95, steps=None)):
        append_entry(path, each)
    earlier = read_history(path)
    assert earlier == [line(0.7, 0.9), line(0.8, 0.8), line(0.75, 0.95, steps=None)]
    assert regressions(line(0.81, 0.79), earlier) == []  # within the tolerance
    assert regressions(line(0.81, 0.7), earlier) == [
        "a is worse, click: 0.700, it was 0.800 with tiny-1 on 2026-11-25 (100 steps)."
    ]
    both = regressions(line(0.5, 0.5), earlier)
    assert len(both) == 2
    assert both[0].startswith("The mean over images is worse, click: 0.500, it was 0.800")


@pytest.mark.parametrize(
    "changed",
    [
        {"set": "another"},
        {"settings": {"most": 5, "channels": None, "channel_axis": None}},
        {"settings": {"smallest": 9}},
        {"mean": {"box": 0.9}},
    ],
)
def test_other_sets_objects_and_prompts_are_not_compared(changed: dict[str, object]) -> None:
    assert regressions(line(0.1, 0.1), [{**line(0.9, 0.9), **changed}]) == []


def test_lines_of_earlier_versions_are_compared() -> None:
    """They do not say a smallest size, and count corrections instead of clicks."""
    settings = {"clicks": 10, "smallest": 0, "most": None, "channels": None, "channel_axis": None}
    old = line(0.8, 0.8)
    old["settings"]["corrections"] = 3
    assert len(regressions(line(0.5, 0.9, settings=settings), [old])) == 1


@pytest.mark.parametrize("text", ["no json", "[1]", json.dumps({"set": "s"}), "{"])
def test_a_file_that_is_no_history_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "history.jsonl"
    append_entry(path, line(0.5, 0.5))
    path.write_text(path.read_text() + text)
    with pytest.raises(ValueError, match=r"history\.jsonl, line 2, is not an evaluation"):
        read_history(path)

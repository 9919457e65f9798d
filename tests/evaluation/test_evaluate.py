"""Evaluation of folders of labeled images, with figures counted by hand."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat.datasets.folder import find_labeled_files, fingerprint
from napari_simmat.engine.everything import generator
from napari_simmat.engine.everything.candidates import Instances
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import AutomaticSettings, ChannelSelection
from napari_simmat.evaluation.evaluate import evaluate_job
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
        self, array, _axis=None, _channels=None, plane=None, *, channel_names=None, pixel_size=None
    ):
        self.image, self.shape = np.asarray(array), array.shape
        self.names, self.pixel_size = channel_names, pixel_size
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


def test_evaluate_job_gives_figures_counted_by_hand(labeled):
    scores = finish(evaluate_job(Thresholder(), find_labeled_files(labeled), ScoreConfig(clicks=2)))
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
    assert [score.iou["filled_box"] for _, score in a.scores] == [1, 1]
    assert [plane for plane, _ in b.scores] == [(0,), (2,)]
    # A disk of 64 pixels around the middle of a square of 64 pixels.
    assert 0.75 < b.headline["disk"] < 0.95
    assert list(scores.headline) == ["click", "click+1", "box", "filled_box", "disk"]


def test_evaluate_job_passes_on_the_pixel_size(labeled):
    predictor = Thresholder()
    finish(evaluate_job(predictor, find_labeled_files(labeled), ScoreConfig(prompts="box")))
    assert predictor.pixel_size is None
    told = ScoreConfig(prompts="box", selection=ChannelSelection(pixel_ratio=2.0))
    finish(evaluate_job(predictor, find_labeled_files(labeled), told))
    assert predictor.pixel_size == (2.0, 1.0)
    sizes = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 1.5}
    for name in "ab":
        values = np.zeros((40, 50), np.uint8)
        values[4:12, 4:12] = 1
        for end in ("", "_labels"):
            tifffile.imwrite(labeled / f"{name}{end}.tif", values, ome=True, metadata=sizes)
    finish(evaluate_job(predictor, find_labeled_files(labeled), told))
    assert predictor.pixel_size == (1.5, 0.5)
    with pytest.raises(ValueError, match="height over its width is above 0, not -1"):
        ScoreConfig(selection=ChannelSelection(pixel_ratio=-1.0))


@pytest.mark.parametrize("axis", [None, 0, -3])
def test_evaluate_job_keeps_channel_names_for_any_axis(tmp_path, axis):
    class Named(Thresholder):
        def set_image_job(self, array, *args, **more):
            yield from super().set_image_job(array[0], plane=args[2], **more)

    values = np.zeros((2, 40, 50), np.uint8)
    values[:, 4:12, 4:12] = 1
    metadata = {"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI"]}}
    tifffile.imwrite(tmp_path / "a.tif", values, ome=True, metadata=metadata)
    write(tmp_path / "a_labels.tif", values[0])
    predictor = Named()
    config = ScoreConfig(prompts="box", selection=ChannelSelection(channel_axis=axis))
    finish(evaluate_job(predictor, find_labeled_files(tmp_path), config))
    assert predictor.names == ("GFP", "DAPI")


def test_evaluate_job_paper_takes_regions_by_size_at_1024(labeled):
    """Of 40 x 50 pixels one counts as 524 ones: the speck of 9 pixels as 4719."""
    (labeled / "b.tif").unlink()
    files = find_labeled_files(labeled)
    for min_size, labels in ((0, [7, 9, 300]), (5000, [7, 300]), (9000, [7])):
        predictor = Thresholder()
        config = ScoreConfig(prompts="paper", min_size=min_size)
        scores = finish(evaluate_job(predictor, files, config))
        (image,) = scores.images
        assert [score.label for _, score in image.scores] == labels
        assert image.too_small == 3 - len(labels)
        assert list(scores.together.figures) == ["paper", "dice_paper"]
        assert [len(prompt.points) for prompt in predictor.asked] == [1] * len(labels)
    with pytest.raises(ValueError, match="more than 90000 pixels at 1024 x 1024"):
        finish(evaluate_job(Thresholder(), files, ScoreConfig(prompts="paper", min_size=90_000)))


def test_evaluate_job_min_size_holds_for_other_prompts(labeled):
    config = ScoreConfig(prompts="box", min_size=9000)
    a, _ = finish(evaluate_job(Thresholder(), find_labeled_files(labeled), config)).images
    assert [score.label for _, score in a.scores] == [7]
    assert a.too_small == 2


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"prompts": "auto", "max_objects": 5}, "compared with all objects; leave max_objects out"),
        ({"clicks": 0}, "clicks must be between 1 and 20, got 0"),
        ({"clicks": 21}, "clicks must be between 1 and 20, got 21"),
        ({"min_size": -1}, "min_size must be at least 0, got -1"),
        ({"max_objects": 0}, "max_objects must be at least 1, got 0"),
        ({"prompts": "guess"}, "unknown; use one of click, box, iterative, paper, auto, all"),
    ],
)
def test_score_config_refuses_values_out_of_range(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        ScoreConfig(**wrong)


def test_evaluate_job_names_an_unusable_image(labeled, monkeypatch):
    def refused(*_, **__):
        raise ValueError("tiny reads red, green and blue, but there are 5 channels.")

    monkeypatch.setattr(Thresholder, "set_image_job", refused)
    with pytest.raises(ValueError, match=r"^a\.tif: tiny reads red"):
        finish(evaluate_job(Thresholder(), find_labeled_files(labeled), ScoreConfig(prompts="box")))


def test_evaluate_job_auto_matches_all_objects(labeled, tmp_path, monkeypatch):
    """Of `a` the larger square and something in the corner are found, of `b` nothing."""

    class Opening(Thresholder):
        def open_image_job(self, array, *_, channel_names=None, pixel_size=None):
            assert (channel_names, pixel_size) == (None, None)
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
    monkeypatch.setattr(generator, "segment_everything_job", finding)
    settings = AutomaticSettings(quality=0.4)
    config = ScoreConfig(prompts="auto", automatic=settings)
    output = tmp_path / "pictures"
    output.mkdir()
    scores = finish(evaluate_job(Opening(), find_labeled_files(labeled), config, output))
    assert asked == [(settings, ()), (settings, (0,)), (settings, (2,))]
    a, b = scores.images
    assert (a.counts, a.too_small) == ({"objects": 2, "found": 2}, 1)  # 9 pixels are too few
    assert b.counts == {"objects": 2, "found": 0}
    assert scores.together.counts == {"objects": 4, "found": 2}
    assert scores.together.figures["ap@50"] == 1 / (1 + 1 + 3)
    assert scores.headline["ap@50"] == (1 / 3 + 0) / 2
    assert [path.name for path in scores.overlays] == ["a_overlay.png", "b_overlay.png"]
    with Image.open(scores.overlays[0]) as picture:
        assert picture.width == 2 * 50


def test_evaluate_job_max_objects_are_spread_and_repeatable(tmp_path):
    labels = np.kron(np.arange(1, 101).reshape(10, 10), np.pad(np.ones((6, 6)), 2)).astype("u2")
    tifffile.imwrite(tmp_path / "a.tif", (labels > 0).astype(np.uint8))
    tifffile.imwrite(tmp_path / "a_labels.tif", labels)
    files, config = find_labeled_files(tmp_path), ScoreConfig(prompts="box", max_objects=5)
    first, second = (finish(evaluate_job(Thresholder(), files, config)) for _ in range(2))
    chosen = [score.label for _, score in first.images[0].scores]
    assert [(label - 1) // 20 for label in chosen] == [0, 1, 2, 3, 4]
    assert first == second


def test_evaluate_job_writes_overlays_completely_or_not(labeled, tmp_path):
    from PIL import Image

    output = tmp_path / "out"
    job = evaluate_job(Thresholder(), find_labeled_files(labeled), ScoreConfig(clicks=1), output)
    scores = finish(job)
    assert sorted(output.iterdir()) == list(scores.overlays)
    assert [path.name for path in scores.overlays] == ["a_overlay.png", "b_overlay.png"]
    for path in scores.overlays:
        with Image.open(path) as picture:
            assert picture.width == 2 * 2 * 50 + 12
    stopped = evaluate_job(
        Thresholder(), find_labeled_files(labeled), ScoreConfig(), tmp_path / "other"
    )
    for _ in range(3):
        next(stopped)
    stopped.close()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("apart", [False, True])
def test_evaluate_job_takes_folders_as_images(apart, tmp_path):
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
        image = file.read()
        np.testing.assert_array_equal(image.arrays, expected)
        np.testing.assert_array_equal(image.labels, expected)
    scores = finish(evaluate_job(Thresholder(), files, ScoreConfig(prompts="box")))
    assert [image.headline["box"] for image in scores.images] == [1, 1]
    before = fingerprint(files)
    write_slice(images / "head.1" / "0.dcm", head[1], 1)
    assert fingerprint(files) != before

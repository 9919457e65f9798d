"""Models, sessions, objects and records dropped on napari: they go to the window that is open."""

import re
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import save_file

from napari_simmat import __version__
from napari_simmat.annotation.session_replay import OTHER_SHAPE
from napari_simmat.batch.plan import OutputFiles, SegmentConfig, SegmentTask
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.files.object_set import ObjectSet
from napari_simmat.engine.files.objects import OBJECT_FORMATS, write_objects
from napari_simmat.engine.predictor import Predictor
from napari_simmat.widgets.layer_data import PROVENANCE
from napari_simmat.widgets.readers import OPEN_IMAGE_FIRST, OPEN_WIDGET_FIRST
from napari_simmat.widgets.segment.work.autosave import BEGUN, NEXT_OBJECT, RESTORED
from tests.batch.folders import segment_task
from tests.model_files import export
from tests.widgets.scenes import CENTERS, gray

PLUGIN = "napari-simmat"
pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture
def shown(ready, monkeypatch):
    """The window with an image; its viewer is napari's current one."""
    monkeypatch.setattr(napari, "current_viewer", lambda: ready.viewer)
    return ready


def drop(window: Any, path: Path) -> list[Any]:
    layers = window.viewer.open([path], plugin=PLUGIN)
    window.idle()
    return layers


@pytest.mark.all_tabs
def test_checkpoint_dropped_chooses_the_model(shown, tmp_path):
    export("thermal", tmp_path / "of-a-colleague.safetensors")
    assert drop(shown, tmp_path / "of-a-colleague.safetensors") == []
    assert shown.tab.models.reference() == tmp_path / "of-a-colleague.safetensors"


def test_foreign_tensors_dropped_are_refused(shown, tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    before = shown.tab.models.reference()
    with pytest.raises(ValueError, match=r"^foreign\.safetensors is a safetensors file without"):
        drop(shown, tmp_path / "foreign.safetensors")
    assert shown.tab.models.reference() == before


def test_checkpoint_without_the_widget_is_refused(tmp_path, monkeypatch):
    viewer = napari.components.ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    export("thermal", tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=re.escape(OPEN_WIDGET_FIRST)):
        viewer.open([tmp_path / "a.safetensors"], plugin=PLUGIN)


def saved_session(window: Any, folder: Path) -> Path:
    window.add_object(*CENTERS[0])
    window.idle()
    session = window.workspace.session
    snapshot = window.tab.autosave.snapshot(session)
    path = folder / "discs_session.jsonl"
    path.write_text(snapshot.text())
    return path


@pytest.mark.all_tabs
def test_session_dropped_is_restored_and_unchanged(open_window, tmp_path, monkeypatch):
    first = open_window()
    first.open(gray(), name="discs")
    path = saved_session(first, tmp_path)
    expected, before = first.viewer.layers["SimMAT objects"].data.copy(), path.read_bytes()
    second = open_window()
    monkeypatch.setattr(napari, "current_viewer", lambda: second.viewer)
    second.open(gray(), name="discs")
    drop(second, path)
    np.testing.assert_array_equal(second.viewer.layers["SimMAT objects"].data, expected)
    assert second.status.text == RESTORED.format("1 object", NEXT_OBJECT)
    second.hover(*CENTERS[0])
    second.controller.objects.delete()
    second.idle()
    assert path.read_bytes() == before
    drop(second, path)
    assert second.status.text == BEGUN


@pytest.mark.all_tabs
@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "{}\n", "bad_session.jsonl cannot be read as a session.", marks=pytest.mark.slow
        ),
        ('{"is": "a pickle"}\n', "bad_session.jsonl cannot be read as a session."),
        (
            '{"format": "napari-simmat session", "format_version": 1, "image": "", "shape": [4, 4],'
            ' "model": "tiny", "channels": []}\n',
            OTHER_SHAPE,
        ),
    ],
)
def test_bad_session_is_refused_and_never_offered(shown, tmp_path, user_folder, text, said):
    path = tmp_path / "bad_session.jsonl"
    path.write_text(text)
    drop(shown, path)
    assert shown.status.kind == "failed"
    assert shown.status.text.startswith(said)
    assert not list(user_folder.rglob("*.jsonl"))
    assert "SimMAT objects" not in shown.viewer.layers


@pytest.mark.parametrize("kind", ["coco", "rois", "geojson"])
def test_objects_dropped_become_labels_on_the_image(shown, tmp_path, kind):
    labels = np.zeros(shown.viewer.layers[0].data.shape, np.uint16)
    labels[20:30, 10:40] = 9
    path = tmp_path / f"a{OBJECT_FORMATS[kind].ending}"
    write_objects(path, ObjectSet.of_labels(labels, "YX", image="a.tif"))
    [layer] = drop(shown, path)
    np.testing.assert_array_equal(layer.data, labels)
    assert layer.metadata[PROVENANCE]["file"] == path.name


def test_outlines_without_an_image_are_refused(tmp_path):
    viewer = napari.components.ViewerModel()
    write_objects(tmp_path / "a.geojson", ObjectSet.of_labels(np.eye(4, dtype=int), "YX"))
    with pytest.raises(ValueError, match=re.escape(OPEN_IMAGE_FIRST)):
        viewer.open([tmp_path / "a.geojson"], plugin=PLUGIN)


@pytest.fixture(scope="module")
def predictor():
    return Predictor(load_model("tiny"), "cpu")


def test_record_dropped_opens_labels_points_boxes(predictor, tmp_path):
    image, prompts = tmp_path / "a.tif", tmp_path / "a.csv"
    tifffile.imwrite(image, gray())
    y, x = CENTERS[0]
    prompts.write_text(f"index,axis-0,axis-1,label,object\n0,{y},{x},1,4\n")
    task = SegmentTask(image, prompts, OutputFiles.of(image, tmp_path / "out"))
    segment_task(task, predictor, SegmentConfig(model="tiny"))
    viewer = napari.components.ViewerModel()
    labels, points = viewer.open([task.files.record], plugin=PLUGIN)
    np.testing.assert_array_equal(labels.data, tifffile.imread(task.files.labels))
    assert (points.data.tolist(), points.features["object"].tolist()) == ([[y, x]], [4])
    assert labels.metadata[PROVENANCE] == {
        "program": f"napari-simmat {__version__}",
        "models": ["tiny-6"],
        "image": "a.tif",
        "prompts": 1,
    }
    task.files.labels.unlink()
    [points] = viewer.open([task.files.record], plugin=PLUGIN)
    outside = task.files.record.read_text().replace("a_labels.tif", "../a.tif")
    task.files.record.write_text(outside)
    assert len(viewer.open([task.files.record], plugin=PLUGIN)) == 1, "only what is beside it"


def test_dropped_layers_name_their_provenance(ready):
    ready.add_object(*CENTERS[0])
    made = ready.viewer.layers["SimMAT objects"].metadata[PROVENANCE]
    expected = {
        "program": f"napari-simmat {__version__}",
        "models": ["tiny-6"],
        "image": ready.workspace.session.geometry.name,
        "prompts": 1,
    }
    assert made == expected
    for name in ("SimMAT preview", "SimMAT points"):
        other = ready.viewer.layers[name].metadata[PROVENANCE]
        assert (other["program"], other["image"]) == (made["program"], made["image"])
    ready.undo()
    assert ready.viewer.layers["SimMAT objects"].metadata[PROVENANCE]["prompts"] == 0

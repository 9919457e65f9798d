"""One call from Python does what the command line does."""

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import tifffile

from napari_simmat import (
    ImagePart,
    Prompt,
    Session,
    evaluate,
    learn,
    load_model,
    segment,
    segment_folder,
    train,
)
from napari_simmat.annotation.session_image import SessionImage
from napari_simmat.batch import segmentation
from napari_simmat.batch.record import read_record
from napari_simmat.batch.segmentation import ALL_OBJECTS
from napari_simmat.cli import main
from napari_simmat.engine.settings import AutomaticSettings, LinkSettings, PropagationSettings
from napari_simmat.engine.table_settings import TableSettings
from tests.drawn_series import draw_series

pd = pytest.importorskip("pandas")


@pytest.fixture
def discs():
    """Two discs, of which the first is brighter."""
    y, x = np.indices((64, 80))
    image = np.where(np.hypot(y - 20, x - 20) < 9, 200, 40)
    image[np.hypot(y - 42, x - 55) < 12] = 160
    return image.astype(np.uint8)


@pytest.fixture(autouse=True)
def other_models(monkeypatch):
    """No predictor of an earlier test."""
    monkeypatch.setattr(segmentation, "_kept", {})


def test_segment_gives_what_the_command_writes(discs, tmp_path):
    path, prompts = tmp_path / "a.tif", tmp_path / "a.csv"
    tifffile.imwrite(path, discs)
    prompts.write_text("index,axis-0,axis-1,object\n0,20,20,1\n1,42,55,2\n")
    words = ["segment", str(path), "--model", "tiny", "--output", str(tmp_path / "out")]
    assert main([*words, "--prompts", str(prompts)]) == 0
    written = tifffile.imread(tmp_path / "out" / "a_labels.tif")
    for image in (path, str(path), discs, da.from_array(discs)):
        for given in (prompts, [(20, 20), (42, 55)], [Prompt(points=[(20, 20)]), (42, 55)]):
            found = segment(image, given, progress=False)
            assert np.array_equal(found.labels, written)
    table = pd.read_csv(tmp_path / "out" / "a_objects.csv")
    assert list(found.table.columns) == list(table.columns)
    assert found.table["area_px"].tolist() == table["area_px"].tolist()
    assert [row["area_px"] for row in found.objects] == table["area_px"].tolist()
    recorded = read_record(tmp_path / "out" / "a.json").request
    replayed = segment(path, tmp_path / "out" / "a.json", progress=False)
    assert np.array_equal(replayed.labels, written)
    assert replayed.record.request == recorded


def test_what_is_worth_saying_is_a_note_and_a_warning_in_the_log(discs, tmp_path, caplog):
    black = np.zeros_like(discs)
    found = segment(black, progress=False, automatic=AutomaticSettings(second_look=True))
    assert found.note.startswith("What the model reads is 0 everywhere.")
    assert "--auto.second-look: without effect" in found.note
    assert f"image: {found.note}" in caplog.messages
    caplog.clear()
    assert segment(discs, [(20, 20)], progress=False).note == ""
    assert not caplog.messages
    tifffile.imwrite(tmp_path / "black.tif", black)
    segment_folder(tmp_path, tmp_path / "out", progress=False)
    told = [each for each in caplog.messages if not each.startswith("Channel 0 is constant")]
    assert [each.split(": ")[0] for each in told] == ["black.tif"]


def test_results_of_arrays_are_saved_by_names_that_are_given(discs, tmp_path):
    one = segment(discs, [(20, 20)], progress=False)
    assert one.save(tmp_path)["labels"].name == "image_labels.tif"
    files = one.save(tmp_path, "left", extras=["overlay"])
    assert sorted(path.name for path in files.values()) == [
        "left.json", "left_labels.tif", "left_objects.csv", "left_overlay.png",
    ]  # fmt: skip
    assert segment(discs, files["record"], progress=False).labels.any(), "it replays"
    with pytest.raises(ValueError, match=r"left_labels\.tif exists already"):
        one.save(tmp_path, "left")


def test_plane_of_an_overlay_is_said(discs, tmp_path):
    film = np.zeros((3, 2, *discs.shape), np.uint8)
    film[:] = discs
    found = segment(film, [(2, 1, 20, 20)], axes="TZYX", progress=False)
    assert ", T=2, Z=1</p>" in found._repr_html_()
    record = found.save(tmp_path, extras=["overlay"])["record"]
    assert (
        read_record(record)
        .run["note"]
        .endswith("The overlay shows T=2, Z=1, where most is labeled.")
    )
    flat = segment(discs, [(20, 20)], progress=False)
    assert "T=" not in flat._repr_html_()
    plain = flat.save(tmp_path, "flat", extras=["overlay"])["record"]
    assert "overlay" not in read_record(plain).run.get("note", "")


def test_prompts_are_clicks_boxes_dicts_and_labels(discs):
    click = segment(discs, [(20, 20)], progress=False).labels
    for given in ([{"points": [(20, 20)]}], np.array([[20, 20]]), [np.array([20, 20])]):
        assert np.array_equal(segment(discs, given, progress=False).labels, click)
    box = segment(discs, [(8, 8, 32, 32)], progress=False).labels
    assert np.array_equal(box, segment(discs, [Prompt(box=(8, 8, 32, 32))], progress=False).labels)
    labels = np.zeros(discs.shape, np.int32)
    labels[12:28, 12:28], labels[32:52, 45:65] = 7, 9
    found = segment(discs, labels, progress=False)
    assert set(np.unique(found.labels)) - {0} <= {7, 9}
    numbered = segment(discs, [{"box": (8, 8, 32, 32), "object": 5}], progress=False)
    assert numbered.labels.max() == 5


def test_axes_say_which_are_channels(discs):
    channels = np.stack([discs, 255 - discs, discs])
    first = segment(channels, [(20, 20)], axes="CYX", progress=False)
    assert first.labels.shape == discs.shape
    picture = np.moveaxis(channels, 0, -1)
    for image, more in (
        (picture, {}),
        (picture, {"axes": "yxc"}),
        (channels, {"channel_axis": 0}),
    ):
        found = segment(image, [(20, 20)], progress=False, **more)
        assert np.array_equal(found.labels, first.labels)
    names = {"channel_names": ("a", "b", "c"), "channels": ("a", "b", "a")}
    chosen = segment(channels, [(20, 20)], axes="CYX", progress=False, **names)
    assert "mean_b" in chosen.columns


def test_dataarray_and_layer_name_their_axes(discs):
    xarray = pytest.importorskip("xarray")
    channels = np.stack([discs, 255 - discs, discs])
    expected = segment(channels, [(20, 20)], axes="CYX", progress=False)
    array = xarray.DataArray(
        channels, dims=("band", "y", "x"), coords={"band": ["red", "green", "blue"]}, name="field"
    )
    found = segment(array, [(20, 20)], progress=False)
    assert np.array_equal(found.labels, expected.labels)
    assert "mean_red" in found.columns
    assert repr(found) == "<Segmentation of field: 1 object, YX 64 x 80, tiny-6>"
    layers = pytest.importorskip("napari.layers")
    layer = layers.Image(discs, scale=(0.5, 0.25), name="cells")
    measured = segment(layer, [(20, 20)], progress=False)
    assert measured.record.request.input.file == "cells.tif"


def test_sizes_of_pixels_reach_the_table(discs):
    plain = segment(discs, [(20, 20)], progress=False)
    assert "area_um2" not in plain.columns
    for size in (0.5, (0.5, 0.5), {"y": 0.5, "x": 0.5}):
        found = segment(discs, [(20, 20)], pixel_size=size, unit="um", progress=False)
        [row] = found.objects
        assert row["area_um2"] == pytest.approx(row["area_px"] * 0.25)


def test_stack_is_propagated(discs):
    stack = np.stack([np.full_like(discs, 40), discs, discs, np.full_like(discs, 40)])
    [one] = segment(stack, [(1, 20, 20)], progress=False).objects
    found = segment(stack, [(1, 20, 20)], propagate=True, progress=False)
    assert found.labels.shape == stack.shape
    assert found.labels[2].any()
    assert found.objects[0]["area_px" if "area_px" in found.columns else "volume_px"]
    by_settings = PropagationSettings(min_score=1.0)
    alone = segment(stack, [(1, 20, 20)], propagate=by_settings, progress=False)
    assert not alone.labels[2].any()
    assert one
    with pytest.raises(ValueError, match="no prompts whose objects could be propagated"):
        segment(stack, propagate=True, progress=False)


def test_result_is_saved_as_the_command_saves(discs, tmp_path):
    found = segment(discs, [(20, 20), (42, 55)], progress=False)
    files = found.save(tmp_path / "out", extras=["geojson", "overlay"])
    assert {path.name for path in files.values()} == {
        "image_labels.tif", "image_objects.csv", "image_objects.geojson", "image_overlay.png",
        "image.json",
    }  # fmt: skip
    assert np.array_equal(tifffile.imread(files["labels"]), found.labels)
    assert read_record(files["record"]).request == found.record.request
    assert found.record.request.input.sha256
    with pytest.raises(ValueError, match="exists already; give overwrite=True"):
        found.save(tmp_path / "out")
    assert found.save(tmp_path / "out", overwrite=True).keys() == {"labels", "objects", "record"}


def test_result_shows_itself(discs):
    found = segment(discs, [(20, 20), (42, 55)], progress=False)
    assert repr(found) == "<Segmentation of image: 2 objects, YX 64 x 80, tiny-6>"
    page = found._repr_html_()
    assert page.count("<tr>") == 3
    assert "data:image/png;base64," in page
    assert found.overlay.shape == (64, 80, 3)
    assert np.asarray(found).dtype == found.labels.dtype
    assert np.array(found, dtype=np.int64).sum() == found.labels.sum()


def test_settings_reach_the_table_and_progress_is_told(discs):
    steps = []
    table = TableSettings(statistics=("median", "p95"))
    found = segment(discs, [(20, 20)], table=table, progress=steps.append)
    assert "median_channel0" in found.columns or any("median" in n for n in found.columns)
    assert steps
    assert steps[-1].fraction <= 1


def test_the_model_is_loaded_once_and_anew_if_it_changed(discs, other_foundation, monkeypatch):
    loaded = []
    load_model = segmentation.load_model

    def counted(name):
        loaded.append(name)
        return load_model(name)

    monkeypatch.setattr(segmentation, "load_model", counted)
    for _ in range(2):
        segment(discs, [(20, 20)], progress=False)
    assert loaded == ["tiny"]
    segment(discs, [(20, 20)], model=other_foundation, progress=False)
    assert loaded == ["tiny", str(other_foundation)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "The list of prompts is empty"),
        ([(1, 2, 3)], r"a click of 2 numbers \(y, x\) or a box of 4, not \(1, 2, 3\)"),
        (["one"], "A prompt is a Prompt"),
        (7, "Prompts are 'auto', a list of clicks"),
        ("nothing.csv", "There is no file nothing.csv"),
        ([(900, 20)], "outside"),
        ([{"clicks": [(1, 1)]}], "A prompt has no part 'clicks'; its parts are points, labels,"),
        ([{1: 2}], "A prompt has no part 1; its parts are points, labels,"),
        (np.zeros((10, 80), int), "has shape 10 x 80, but the image has 64 x 80"),
        (np.zeros((80, 64), int), "has shape 80 x 64, but the image has 64 x 80"),
        (np.zeros((3, 64, 80), int), "has shape 3 x 64 x 80, but the image has 64 x 80"),
        (np.ones((64, 80)), "The labels are float64 values; labels are integers"),
    ],
)
def test_prompts_that_are_none_are_refused(given, words, discs):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=words) as error:
        segment(discs, given, progress=False)
    assert len(str(error.value)) < 250, "no values of an array"


def test_labels_may_have_axes_of_length_one(discs):
    """As in `learn` and `evaluate`."""
    labels = (discs == 200).astype(np.uint8)
    expected = segment(discs, labels, progress=False).labels
    assert np.array_equal(segment(discs, labels[None], progress=False).labels, expected)


@pytest.mark.parametrize("given", ["Model", "spec", None, 5, {"name": "tiny"}, b"tiny"])
def test_model_that_is_no_name_is_refused(given, discs, tmp_path):
    """A result names its model, so that its record can replay it."""
    if given in ("Model", "spec"):
        model = load_model("tiny")
        given = model if given == "Model" else model.spec
    tifffile.imwrite(tmp_path / "a.tif", discs)
    words = rf"A model is a name .*, or a file, not {type(given).__name__}: a result"
    pairs = [(discs, (discs > 100).astype(int))]
    for call in (
        lambda: segment(discs, [(20, 20)], model=given),
        lambda: segment_folder(tmp_path, tmp_path / "out", model=given),
        lambda: evaluate(pairs, model=given),
        lambda: learn(*pairs[0], model=given),
        lambda: train(pairs, tmp_path / "b.safetensors", model=given),
        lambda: load_model(given),
        lambda: Session(SessionImage.of(discs), given),
    ):
        with pytest.raises(TypeError, match=words):
            call()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"compute": "cuda"}, r"Settings are given as Compute\(\.\.\.\), not as 'cuda'"),
        ({"compute": {"device": "cpu"}}, r"as Compute\(\.\.\.\), not as {'device': 'cpu'}"),
        ({"automatic": {}}, r"as AutomaticSettings\(\.\.\.\), not as {}"),
        ({"automatic": 5}, r"as AutomaticSettings\(\.\.\.\), not as 5"),
        ({"table": ["area"]}, r"as TableSettings\(\.\.\.\), not as \['area'\]"),
        ({"part": "0,0,9,9"}, r"as ImagePart\(\.\.\.\), not as '0,0,9,9'"),
        ({"link": 5}, r"as LinkSettings\(\.\.\.\), not as 5"),
        ({"propagate": 5}, r"as PropagationSettings\(\.\.\.\), not as 5"),
        ({"channels": "DAPI"}, r"Channels are a list of names or numbers, not 'DAPI'"),
        ({"channels": 0}, r"Channels are a list of names or numbers, not 0"),
    ],
)
def test_settings_of_another_kind_are_refused(more, words, discs, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", discs)
    with pytest.raises(TypeError, match=words):
        segment(discs, [(20, 20)], progress=False, **more)
    with pytest.raises(TypeError, match=words):
        segment_folder(tmp_path, tmp_path / "out", progress=False, **more)


def test_part_of_an_array_is_refused(discs):
    """In place of the whole, in silence."""
    with pytest.raises(ValueError, match="A part is of a file; cut it out of the array itself"):
        segment(discs, [(20, 20)], part=ImagePart(region="0,0,40,40"), progress=False)


@pytest.mark.parametrize(
    ("image", "more", "words"),
    [
        ([[1, 2], [3, 4]], {}, "An image is a path, an array, an xarray DataArray"),
        (np.zeros((4, 5, 6)), {"axes": "YX"}, "The axes YX are 2 letters, but the array has 3"),
        (np.zeros((4, 5)), {"axes": "YY"}, "give one letter for each"),
        (np.zeros((4, 5)), {"pixel_size": -1.0}, "A size of pixels is one number"),
        (np.zeros((4, 5)), {"pixel_size": {"z": 1.0}}, "A size of pixels is one number"),
        ("a.tif", {"channel_axis": 0}, "channel_axis is for arrays; the file a.tif says it itself"),
    ],
)
def test_images_that_are_none_are_refused(image, more, words):
    with pytest.raises((ValueError, TypeError), match=words):
        segment(image, [(1, 1)], progress=False, **more)


def test_folder_gives_one_table_and_names_what_failed(discs, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(folder / f"{name}.tif", discs)
    (folder / "c.tif").write_bytes(b"no image")
    run = segment_folder(folder, tmp_path / "out", progress=False)
    assert [each.status for each in run.outcomes] == ["written", "written", "failed"]
    assert list(run.failed) == [folder / "c.tif"]
    assert run.report is not None
    assert run.report.is_file()
    assert set(run.table["image"]) == {"a.tif", "b.tif"}
    expected = segment(discs, progress=False).labels
    for image in ("a", "b"):
        assert np.array_equal(tifffile.imread(run.labels[folder / f"{image}.tif"]), expected)
    assert repr(run).startswith("<FolderSegmentation out: 3 images, 1 failed, ")
    with pytest.raises(ValueError, match="exists already"):
        segment_folder(folder, tmp_path / "out", progress=False)
    again = segment_folder(folder / "a.tif", tmp_path / "out", existing="resume", progress=False)
    assert [each.status for each in again.outcomes] == ["kept"]
    assert again.report is None
    assert list(again.table["image"].unique()) == ["a.tif"]


def test_table_of_a_folder_stays_that_of_its_run(discs, tmp_path):
    """Another run into the folder replaces the files; classes are texts."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(folder / f"{name}.tif", discs)
    first = segment_folder(folder, tmp_path / "out", progress=False)
    file = tmp_path / "out" / ALL_OBJECTS
    before = first.table
    file.write_text("image,label,class\na,1,NA\n", "utf-8")
    pd.testing.assert_frame_equal(first.table, before)
    text = "image,label,class,area\na,1,NA,\nb,2,007,3\nb,3,,4\nb,4,'=1+1,5\n"
    table = replace(first, _tables=(("", text),)).table
    assert table["class"].tolist() == ["NA", "007", "", "=1+1"]
    assert table["area"].isna().tolist() == [True, False, False, False]


def test_size_that_is_stated_counts_and_is_replayed(discs, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, discs)
    told = {"pixel_size": 5.0, "unit": "nanometer"}
    found = segment(path, [(20, 20)], progress=False, **told)
    assert "area_nm2" in found.table
    assert found.table["area_nm2"][0] == 25 * found.table["area_px"][0]
    assert found.record.request.settings.selection.pixel_size == (5.0,)
    written = found.save(tmp_path / "out")
    again = replay(written["record"], tmp_path)
    assert again == found.table["area_nm2"][0]


def replay(record, folder):
    """The first area in nm2 of a run of the record, by command."""
    words = ["segment", str(folder / "a.tif"), "--model", "tiny", "--output", str(folder / "again")]
    assert main([*words, "--prompts", str(record)]) == 0
    return pd.read_csv(folder / "again" / "a_objects.csv")["area_nm2"][0]


def test_film_that_is_read_as_a_stack_is_time_by_its_axes(discs, tmp_path):
    path = tmp_path / "in" / "a.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, np.stack([discs, discs]), metadata={"axes": "ZYX"})
    run = segment_folder(path.parent, tmp_path / "out", axes="TYX", progress=False)
    assert run.failed == {}
    assert "volume_voxels" not in run.table
    assert set(run.table["t"]) == {0, 1}
    words = ["segment", str(path), "--model", "tiny", "--output", str(tmp_path / "command")]
    words += ["--prompts", "auto"]
    assert main([*words, "--axes", "TYX", "--pixel-size", "0.5", "--unit", "um"]) == 0
    table = pd.read_csv(tmp_path / "command" / "a_objects.csv")
    assert {"t", "area_um2"} <= set(table)
    assert "volume_um3" not in table


def test_link_gives_the_ids_that_the_command_gives(tmp_path):
    series, labels, _ = draw_series(3, (3, 96, 96), 3)
    path, prompts = tmp_path / "a.tif", tmp_path / "p.tif"
    tifffile.imwrite(path, series, photometric="minisblack", metadata={"axes": "TYX"})
    labels[1] = np.where(labels[1] > 0, 10 - labels[1], 0)  # other ids on the second frame
    tifffile.imwrite(prompts, labels.astype(np.uint16), photometric="minisblack")
    out = tmp_path / "out"
    words = ["segment", str(path), "--model", "tiny", "--prompts", str(prompts), "--link"]
    assert main([*words, "--output", str(out)]) == 0
    written = tifffile.imread(out / "a_labels.tif")
    assert set(np.unique(written[0])) == set(np.unique(written[1])) == set(np.unique(written[2]))
    by_axis = LinkSettings(axis=0)
    for image, more in ((path, {"link": True}), (series, {"axes": "TYX", "link": True}),
                        (series, {"link": by_axis})):  # fmt: skip
        found = segment(image, prompts, progress=False, **more)
        np.testing.assert_array_equal(found.labels, written)
    assert not np.array_equal(segment(path, prompts, progress=False).labels, written)
    found.save(tmp_path / "saved")
    [table] = (tmp_path / "saved").glob("*_res_track.txt")
    assert table.read_text() == (out / "a_res_track.txt").read_text()
    folder = segment_folder(path, tmp_path / "all", prompts=prompts, link=True, progress=False)
    assert not folder.failed
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "all" / "a_labels.tif"), written)
    assert (tmp_path / "all" / "a_res_track.txt").is_file()


def test_link_that_cannot_be_is_refused(discs):
    stack = np.stack([discs, discs])
    with pytest.raises(ValueError, match="none of them time"):
        segment(stack, link=True, progress=False)
    with pytest.raises(ValueError, match="propagated through time"):
        segment(stack, [(0, 20, 20)], axes="TYX", propagate=True, link=True, progress=False)

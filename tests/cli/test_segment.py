"""`simmat segment`: what is written, what is printed, what is refused and how."""

import csv
import json
import os
import re
import signal
import sys
import threading
from dataclasses import replace
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.data import brick, coins

from napari_simmat._text import CANCELED, CANCELED_MESSAGE
from napari_simmat.batch.record import read_record
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.cli import main
from napari_simmat.engine.files.prompt_csv import write_points_csv
from napari_simmat.engine.measuring.size_distribution import SizeDistribution
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.files import sha256_of
from tests.cli.conftest import CLICKS, names_in, segment

POINTS = "index,axis-0,axis-1\n0,50,45\n"


def test_segment_says_once_that_tables_are_in_pixels(folder, simmat):
    result = simmat(*segment())
    assert result.out.count("1 image without a pixel size, so its table is in pixels") == 1
    stated = simmat(*segment("--pixel-size", "0.5", "--unit", "um", "--overwrite"))
    assert "without a pixel size" not in stated.out
    with open("out/a_objects.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[0]["area_um2"]) == int(rows[0]["area_px"]) / 4


def test_segment_writes_labels_table_and_record(folder, simmat):
    result = simmat(*segment())
    assert result.status == 0
    assert result.err == ""
    for name in ("a_labels.tif", "a_objects.csv", "a.json"):
        assert str(Path("out", name)) in result.out
    assert names_in(folder / "out") == ["a.json", "a_labels.tif", "a_objects.csv"]

    labels = tifffile.imread("out/a_labels.tif")
    assert labels.shape == (90, 130)
    assert labels.dtype == np.uint16
    assert set(np.unique(labels)) == {0, 1, 7}
    assert labels[50, 45] == 1
    assert labels[51, 100] == 7
    with open("out/a_objects.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == ["1", "7"]
    assert [int(row["area_px"]) for row in rows] == [(labels == 1).sum(), (labels == 7).sum()]
    mean = coins()[:90, :130][labels == 1].mean()
    assert float(rows[0]["mean_channel0"]) == pytest.approx(mean, rel=1e-6)

    record = json.loads(Path("out/a.json").read_text("utf-8"))
    assert record["input"]["sha256"] == sha256_of(folder / "a.tif")
    assert record["outputs"]["labels"]["sha256"] == sha256_of(folder / "out" / "a_labels.tif")
    assert [prompt["object"] for prompt in record["prompts"]] == [1, 7]
    assert str(folder) not in Path("out/a.json").read_text("utf-8")  # folders can name people


@pytest.mark.slow
def test_segment_with_quality_best_records_it(folder, simmat):
    assert simmat(*segment("--quality", "best")).status == 0
    record = json.loads(Path("out", "a.json").read_text())
    assert record["settings"]["quality"] == "best"
    [kept] = simmat(*segment("--resume", "--json", "--quality", "best")).json["files"]
    assert kept["status"] == "kept"
    assert simmat(*segment("--resume")).status == 1


def test_segment_with_json_prints_json_alone(folder, simmat):
    result = simmat(*segment("--json", "--device", "cpu", "--precision", "exact"))
    assert result.status == 0
    [file] = result.json["files"]
    assert file["status"] == "written"
    assert file["objects"] == 2
    assert all(Path(file[f"{kind}_file"]).is_file() for kind in ("labels", "objects", "record"))


def test_segment_with_long_pixels_sees_them_square(folder, simmat):
    y, x = np.mgrid[:150, :140]
    noise = np.random.default_rng(0).normal(0, 4, y.shape)
    whole = 60 + 100 * (np.hypot(y - 75, x - 70) <= 36) + noise
    image = whole.astype(np.uint8)[3::6]
    sizes = {
        "axes": "YX",
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 3.0,
        "PhysicalSizeYUnit": "µm",
    }
    tifffile.imwrite("a.tif", image, ome=True, metadata=sizes, photometric="minisblack")
    write_points_csv("a.csv", [Prompt(points=[(12, 70)], object=1)])
    assert simmat(*segment()).status == 0
    predictor = Predictor(load_model("tiny"))
    predictor.set_image(image, pixel_size=(3.0, 0.5))
    ours = predictor.predict(points=[(12, 70)]).mask
    assert np.array_equal(tifffile.imread("out/a_labels.tif") > 0, ours)
    predictor.set_image(image)
    assert not np.array_equal(predictor.predict(points=[(12, 70)]).mask, ours)
    tifffile.imwrite("a.tif", image, photometric="minisblack")
    assert simmat(*segment("--pixel-ratio", 6, output="told")).status == 0
    assert np.array_equal(tifffile.imread("told/a_labels.tif") > 0, ours)


def test_segment_of_nifti_writes_nifti_in_its_space(folder, simmat):
    nibabel = pytest.importorskip("nibabel")
    affine = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -120], [0, 0, 3, -70], [0, 0, 0, 1]])
    data = np.stack([coins()[:90, :130].T] * 2, axis=-1)  # x, y, z
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"Jane Doe"
    nibabel.save(image, "a.nii.gz")
    write_points_csv("a.csv", [replace(CLICKS[0], plane=(1,))])
    assert simmat(*segment(image="a.nii.gz")).status == 0
    labels = nibabel.load("out/a_labels.nii.gz")
    np.testing.assert_array_equal(labels.affine, affine)
    assert labels.shape == data.shape
    assert labels.header.get_xyzt_units()[0] == "mm"
    values = np.asanyarray(labels.dataobj)
    assert values[45, 50, 1] == 1
    assert not values[..., 0].any()
    assert "volume_mm3" in Path("out/a_objects.csv").read_text()
    for path in Path("out").iterdir():
        assert b"Jane Doe" not in path.read_bytes()


def test_segment_with_channels_by_name_or_number(folder, simmat):
    plane = coins()[:90, :130].astype(np.uint16)
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "dark"]}}
    image = np.stack([plane, 2 * plane, 0 * plane])
    tifffile.imwrite("a.tif", image, ome=True, metadata=metadata, photometric="minisblack")
    assert simmat(*segment("--channels", "DAPI,1,1")).status == 0
    with open("out/a_objects.csv", newline="") as stream:
        row = next(csv.DictReader(stream))
    assert float(row["mean_GFP"]) == pytest.approx(2 * float(row["mean_DAPI"]))
    assert "mean_dark" not in row


def test_segment_with_one_broken_image_does_the_others(folder, simmat):
    """One that cannot be read does not stop the others."""
    for name in "bc":
        Path(f"{name}.csv").write_bytes(Path("a.csv").read_bytes())
    Path("b.tif").write_bytes(Path("a.tif").read_bytes()[:200])
    Path("c.tif").write_bytes(Path("a.tif").read_bytes())
    result = simmat(*segment("b.tif", "c.tif", prompts="same-stem"))
    assert result.status == 1
    assert names_in(folder / "out") == [
        *("a.json", "a_labels.tif", "a_objects.csv", "c.json", "c_labels.tif", "c_objects.csv"),
        *("simmat-objects.csv", "simmat-report.html", "simmat-summary.csv"),
    ]
    assert result.err.startswith("b.tif claims 12 kB of pixels but holds at most 200 bytes")
    assert len(result.err.strip().splitlines()) == 1
    assert "2 of 3 images segmented" in result.out


def test_segment_with_covered_masks_names_them(folder, simmat):
    write_points_csv("a.csv", [replace(CLICKS[0], object=n) for n in (1, 2)])
    result = simmat(*segment())
    assert result.status == 0
    assert "a.tif: 1 object, segmented" in result.out
    assert "2 kept no pixel: empty or covered" in result.err
    assert json.loads(Path("out/a.json").read_text())["objects"][1]["pixels"] == 0


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda: Path("out/a_labels.tif").write_bytes(b"edited"), "was changed since it was made"),
        (lambda: Path("out/a_objects.csv").unlink(), "is missing or was changed"),
        (lambda: Path("out/a.json").unlink(), "exists without a record"),
        (lambda: Path("out/a.json").write_text("{}"), "cannot be read as a record"),
    ],
)
def test_segment_resume_refuses_incomplete_outputs(folder, simmat, break_it, sentence):
    simmat(*segment())
    break_it()
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    result = simmat(*segment("--resume"))
    assert result.status == 1
    assert sentence in result.err
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before


BAD = {
    "folder": (lambda: Path("d").mkdir(), segment(image="d"), r"There is no file with an image's"),
    "prompt outside": (
        lambda: Path("a.csv").write_text(f"{POINTS}1,500,45\n"),
        segment(),
        r"a\.csv, line 3: .*outside the image",
    ),
    "unreadable image": (
        lambda: Path("a.tif").write_text("this is no image"),
        segment(),
        r"Cannot read a\.tif: unsupported",
    ),
    "no such name": (None, segment("--channels", "DAPI"), r"There is no channel called DAPI"),
    "axis is Y": (None, segment("--channel-axis", "0"), r"they do not end in YX"),
    "no such device": (None, segment("--device", "quantum"), r"Device 'quantum' is unknown"),
    "both": (None, segment("--resume", "--overwrite"), r"give one of them"),
    "model without a name": (
        None,
        ["segment", "a.tif", "--prompts", "a.csv", "--output", "out", "--model"],
        r"--model.*See simmat segment --help",
    ),
    "unknown option": (None, segment("--ovrwrite"), r"--ovrwrite.*See simmat segment --help"),
    "unknown command": (None, ["segmnt", "a.tif"], r"segmnt.*See simmat --help"),
    "no number": (None, segment("--channel-axis", "one"), r"--channel-axis.*See simmat segment"),
}


@pytest.mark.parametrize("case", BAD)
def test_segment_with_bad_input_prints_one_sentence(folder, simmat, case):
    prepare, words, sentence = BAD[case]
    if prepare is not None:
        prepare()
    before = sorted(str(path) for path in folder.rglob("*"))
    result = simmat(*words)
    assert result.status == (2 if "See simmat" in sentence else 1)
    assert result.out == ""
    assert len(result.err.strip().splitlines()) == 1
    assert result.err.strip()[-1] == "."
    assert re.search(sentence, result.err)
    assert sorted(str(path) for path in folder.rglob("*")) == before
    if words[0] == "segment":
        told = simmat(*words, "--json")
        assert sentence_in(told.json) == result.err.strip()


def sentence_in(values: dict[str, object]) -> object:
    return values["error"] if "error" in values else values["files"][0]["error"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal as a terminal does")
def test_segment_after_ctrl_c_leaves_nothing(folder, simmat, monkeypatch):
    from napari_simmat.engine.predictor import Predictor

    predicting = Predictor.predict_many_job

    def press(self, prompts):
        if prompts[0].object == 7:
            signal.raise_signal(signal.SIGINT)
        return predicting(self, prompts)

    monkeypatch.setattr(Predictor, "predict_many_job", press)
    # A shell lets what it starts in the background ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = simmat(*segment())
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.status == CANCELED
    assert result.err.strip() == CANCELED_MESSAGE
    assert names_in(folder / "out") == []


def test_segment_with_missing_planes_notes_them(folder, simmat):
    xml = (
        '<OME><Image><Pixels DimensionOrder="XYZCT" Type="uint8" SizeX="130" SizeY="90" SizeZ="2" '
        'SizeC="1" SizeT="1"><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )
    tifffile.imwrite("a.tif", coins()[:90, :130], description=xml, metadata=None)
    write_points_csv("a.csv", [replace(CLICKS[0], plane=(0,))])
    result = simmat(*segment("--json"))
    note = "1 of its 2 planes are missing, and read as 0."
    assert result.json["files"][0]["note"] == note
    assert json.loads(Path("out/a.json").read_text("utf-8"))["run"]["note"] == note
    result = simmat(*segment("--overwrite"))
    assert result.err.count(note) == 1


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder with two images and clicks beside them, one with four channels; the current one."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    plane = coins()[:90, :130]
    tifffile.imwrite("data/a.tif", plane)
    tifffile.imwrite(
        "data/b.tif", np.stack([plane] * 4), metadata={"axes": "CYX"}, photometric="minisblack"
    )
    for name in "ab":
        Path(f"data/{name}.csv").write_text(POINTS)
    return tmp_path


def words(*more: str, image: str = "data") -> list[str]:
    options = ("--model", "tiny", "--prompts", "same-stem", "--output", "out")
    return ["segment", image, *options, *more]


def test_segment_dry_run_says_what_the_run_refuses(images, simmat):
    """Wrong channels, unreadable files, prompts outside: found before hours of computing."""
    wrong = np.zeros((5, 90, 130), np.uint8)
    tifffile.imwrite("data/c.tif", wrong, photometric="minisblack", metadata={"axes": "CYX"})
    Path("data/c.csv").write_text(POINTS)
    tifffile.imwrite("data/d.tif", np.zeros((40, 40), np.uint8))
    Path("data/d.csv").write_text("axis-0,axis-1,label,object\n500,2,1,1\n")
    Path("data/e.tif").write_bytes(b"II*\0 broken")
    Path("data/e.csv").write_text(POINTS)
    dry = simmat(*words("--dry-run", "--json"))
    assert dry.status == 1
    names = sorted(Path(name).name for name in dry.json["problems"])
    assert names == ["b.tif", "c.tif", "d.tif", "e.tif"]
    assert not Path("out").exists()
    listed = simmat(*words("--dry-run")).err.replace("\n", " ")
    assert "there are 5 channels. Choose one for all three, e.g. --channels" in listed
    run = simmat(*words("--json"))
    refused = {one["image"]: one["error"] for one in run.json["files"] if "error" in one}
    assert dry.json["problems"] == refused


def test_segment_captures_of_single_bands_share_one_table(images, simmat):
    rng = np.random.default_rng(0)
    lines = ["image,prompts,channels,channel_files"]
    for capture in ("IMG_0001", "IMG_0002"):
        for band in range(1, 6):
            tifffile.imwrite(
                f"data/{capture}_{band}.tif", rng.integers(0, 255, (90, 130), np.uint8)
            )
        others = ";".join(f"data/{capture}_{band}.tif" for band in range(2, 6))
        Path(f"data/{capture}.csv").write_text(POINTS)
        lines.append(f"data/{capture}_1.tif,data/{capture}.csv,band3;band2;band1,{others}")
    Path("list.csv").write_text("\n".join(lines) + "\n")
    result = simmat(
        "segment", "list.csv", "--model", "tiny", "--output", "out", "--prompts", "auto"
    )
    assert result.status == 0, result.err
    with Path("out/simmat-objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["image"] for row in rows} == {"data/IMG_0001_1.tif", "data/IMG_0002_1.tif"}
    means = [name for name in rows[0] if name.startswith("mean_")]
    assert means == ["mean_band3", "mean_band2", "mean_band1"]
    assert all(row[name] for row in rows for name in means)


def test_segment_table_of_a_picture_names_its_colors(images, simmat):
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[5:30, 5:30] = (200, 100, 50)
    Image.fromarray(picture).save("data/p.png")
    masks = np.zeros((40, 40), np.uint8)
    masks[8:20, 8:20] = 1
    tifffile.imwrite("masks.tif", masks)
    options = ("--model", "tiny", "--prompts", "masks.tif", "--output", "out")
    assert simmat("segment", "data/p.png", *options).status == 0
    with Path("out/p_objects.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert {"mean_red", "mean_green", "mean_blue"} <= row.keys()
    assert 100 < float(row["mean_red"]) <= 200


def test_segment_overwrite_leaves_files_of_others_alone(images, simmat):
    Path("out/a_RES").mkdir(parents=True)
    Path("out/a_RES/mask000.tif").write_bytes(b"theirs or ours")
    Path("out/a_RES/notes.txt").write_text("months of work")
    result = simmat(*words("--ctc", "--overwrite", image="data/a.tif"))
    assert result.status == 1
    assert "a_RES holds files that are not part of a result" in result.err.replace("\n", " ")
    assert Path("out/a_RES/notes.txt").read_text() == "months of work"
    Path("out/a_RES/notes.txt").unlink()
    assert simmat(*words("--ctc", "--overwrite", image="data/a.tif")).status == 0
    assert tifffile.imread("out/a_RES/mask000.tif").shape == tifffile.imread("data/a.tif").shape


def test_segment_dry_run_refuses_a_model_that_is_not_here(images, simmat, user_folder):
    run = ("segment", "data", "--prompts", "same-stem", "--output", "out", "--dry-run")
    result = simmat(*run, "--model", "vit_b")
    assert result.status == 1
    assert "vit_b is not downloaded yet" in result.err


def test_segment_dry_run_shows_the_plan_alone(images, simmat):
    tifffile.imwrite("data/c.tif", np.zeros((8, 8), np.uint8))
    channels = ("--channels", "0")
    result = simmat(*words("--dry-run", "--pattern", "*.tif", *channels))
    assert result.status == 0
    assert result.out.splitlines()[0] == "2 images -> out"
    assert f"{Path('data/a.tif')} -> {Path('out/a_labels.tif')}" in result.out
    assert "c.tif is left out. There are no prompts beside" in result.err
    assert not Path("out").exists()
    fewer = simmat(*words("--dry-run", "--pattern", "a.*", *channels)).out
    assert "in the folders, without an image's ending or not of the pattern" in fewer
    planned = simmat(*words("--dry-run", "--json", *channels)).json
    assert planned["problems"] == {}
    assert [Path(file["image"]).name for file in planned["files"]] == ["a.tif", "b.tif"]
    assert [Path(one["image"]).name for one in planned["skipped"]] == ["c.tif"]


def test_segment_of_a_manifest_uses_its_channels(images, simmat):
    Path("data/list.csv").write_text("image,channels\na.tif,\nb.tif,2;1;3\n")
    files = simmat(*words("--json", "--overlay", image="data/list.csv")).json["files"]
    assert [file["status"] for file in files] == ["written", "written"]
    assert Path(files[1]["overlay_file"]).is_file()
    assert json.loads(Path("out/b.json").read_text())["settings"]["channels"] == [2, 1, 3]
    assert json.loads(Path("out/a.json").read_text())["settings"]["channels"] is None
    with open("out/simmat-summary.csv", newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["done", "done"]


def test_segment_of_equal_names_shows_their_folders(images, simmat):
    """As fields of a plate are, each called 0."""
    for name in ("x", "y"):
        Path("data", name).mkdir()
        Path("data", name, "0.tif").write_bytes(Path("data/a.tif").read_bytes())
    Path("data/y/0.tif").write_text("this is no image")
    Path("clicks.csv").write_text(POINTS)
    options = ("--pattern", "0.tif", "--model", "tiny", "--prompts", "clicks.csv")
    result = simmat("segment", "data", *options, "--output", "out")
    assert result.status == 1
    assert "x/0.tif: 1 object, segmented" in result.out
    assert "\nCannot read y/0.tif: unsupported file type" in f"\n{result.err}"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_segment_with_a_name_of_bytes_escapes_it(images, simmat):
    name = os.fsdecode(b"10\xb5m.tif")  # as unzip leaves what Windows has packed
    Path("data/b.tif").rename(Path("data", name))
    Path("clicks.csv").write_text(POINTS)
    options = ("--model", "tiny", "--prompts", "clicks.csv", "--output", "out", "--channels", "0")
    assert "10\\udcb5m.tif: 1 object" in simmat("segment", "data", *options).out
    assert read_record(Path("out", os.fsdecode(b"10\xb5m.json"))).request.input.file == name
    assert "10\\udcb5m.tif,done,1" in Path("out/simmat-summary.csv").read_text("utf-8")
    assert "10\\udcb5m.tif: 1 object, kept" in simmat("segment", "data", *options, "--resume").out


def test_segment_with_an_unprintable_name_escapes_it(images, simmat, monkeypatch):
    for ending in (".tif", ".csv"):
        Path(f"data/a{ending}").rename(f"data/細胞{ending}")
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, "cp1252", write_through=True))
    assert simmat(*words("--dry-run", "--channels", "0")).status == 0
    assert b"\\u7d30\\u80de.tif" in written.getvalue()


def test_segment_with_events_obeys_words(images, simmat, monkeypatch):
    Path("data/b.tif").unlink()
    read, write = os.pipe()
    with os.fdopen(read) as stdin, os.fdopen(write, "w") as program:
        monkeypatch.setattr(sys, "stdin", stdin)
        program.write("go\n")  # from now on the end of stdin stops it
        program.flush()
        done = simmat(*words("--events"))
        [reader] = [each for each in threading.enumerate() if each.name == "simmat-remote"]
        program.close()
        reader.join(10)
    events = [json.loads(text) for text in done.out.splitlines()]
    assert done.status == 0
    assert "plan" in events[0]
    assert events[-1] == {"finished": 1}
    [file] = [event["file"] for event in events if "file" in event]
    assert file["status"] == "written"
    assert all({"done", "total", "message"} <= set(event) for event in events[1:-1])

    monkeypatch.setattr(sys, "stdin", StringIO("pause\nstop\n"))
    stopped = simmat(*words("--events", "--overwrite"))
    assert stopped.status == 130
    assert "Canceled" in stopped.err
    assert Path("out/a.json").is_file(), "what was there stays"


def test_record_from_before_the_decoder_replays_by_clicks(tmp_path):
    """It names tiny-5, whose only way clicks were, and no way of finding objects."""
    y, x = np.indices((96, 96))
    image = np.where((y - 40) ** 2 + (x - 50) ** 2 < 300, 200, 60).astype(np.uint8)
    tifffile.imwrite(tmp_path / "disc.tif", image)
    given = ["segment", str(tmp_path / "disc.tif"), "--model", "tiny"]
    auto = ["--prompts", "auto", "--auto.by", "clicks", "--auto.points-per-side", "4"]
    assert main([*given, *auto, "--output", str(tmp_path / "first")]) == 0
    record = json.loads((tmp_path / "first" / "disc.json").read_text())
    assert record["settings"]["automatic"].pop("by") == "clicks"
    record["settings"]["automatic"]["points_per_side"] = 0
    record["model"]["name"] = "tiny-5"
    (tmp_path / "old.json").write_text(json.dumps(record))
    again = ["--prompts", str(tmp_path / "old.json"), "--output", str(tmp_path / "again")]
    assert main([*given, *again]) == 0
    replayed = json.loads((tmp_path / "again" / "disc.json").read_text())
    assert replayed["settings"]["automatic"]["by"] == "clicks"


def test_an_image_alone_is_segmented_beside_itself(folder, simmat):
    result = simmat("segment", "a.tif")
    assert result.status == 0
    first, *_ = result.out.splitlines()
    assert first == (
        f"Everything by tiny, into {folder / 'simmat-results'} (--prompts, --model and --output "
        "change that)."
    )
    assert names_in(folder / "simmat-results") == ["a.json", "a_labels.tif", "a_objects.csv"]
    assert tifffile.imread("simmat-results/a_labels.tif").max() > 0


def test_results_stand_beside_a_folder_or_before_wildcards(folder, simmat):
    Path("data/more").mkdir(parents=True)
    Path("a.tif").rename("data/more/a.tif")
    assert simmat("segment", "data", "--prompts", "auto").status == 0
    assert names_in(folder / "simmat-results" / "more")
    assert simmat("segment", "data/**/*.tif").status == 0
    assert names_in(folder / "data" / "simmat-results")


def test_an_image_in_place_of_a_command_is_told_the_command(folder, simmat):
    result = simmat("a.tif")
    assert (result.status, result.out) == (2, "")
    assert result.err.strip() == (
        "a.tif is no command. To segment everything in it, run simmat segment a.tif"
    )
    assert "Unknown command" in simmat("segmnt").err


def test_nothing_found_names_the_next_step_in_command_and_report(folder, simmat):
    tifffile.imwrite("a.tif", np.zeros((90, 130), np.uint8))
    tifffile.imwrite("b.tif", np.stack([np.zeros((90, 130), np.uint8), coins()[:90, :130]]))
    given = "segment", "a.tif", "b.tif", "--channels", "0", "--channel-axis", "0"
    assert simmat(*given[:2]).err.count("What the model reads is 0 everywhere.") == 1
    result = simmat("segment", "b.tif", *given[3:], "--axes", "CYX")
    assert "Read a channel that shows something: --channels 1." in result.err
    report = simmat("segment", "a.tif", "b.tif", "--channels", "0", "--output", "both")
    assert report.status == 0
    assert "What the model reads is 0 everywhere." in Path("both/simmat-report.html").read_text()


@pytest.mark.slow
def test_objects_left_out_as_unsure_are_told(folder, simmat):
    tifffile.imwrite("a.tif", brick()[:200, :200])
    result = simmat("segment", "a.tif", "--output", "one", "--report")
    told = re.search(r"It is unsure of some \d+ more objects\.", result.err)
    assert told, result.err
    assert "Try --auto.quality 0.3, or teach it five objects" in result.err
    assert told[0] in Path("one/simmat-report.html").read_text()
    assert "unsure" not in simmat("segment", "a.tif", "--output", "by", "--auto.by", "clicks").err


def test_channel_that_shows_most_is_named_to_be_given(folder, simmat):
    dim, bright = np.full((90, 130), 7, np.uint8), coins()[:90, :130]
    names = {"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI"]}}
    tifffile.imwrite("two.ome.tif", np.stack([dim, bright]), ome=True, metadata=names)
    refused = simmat("segment", "two.ome.tif", "--output", "out")
    assert refused.status == 1
    assert "2 channels (GFP, DAPI)" in refused.err
    option = re.search(r"e\.g\. (--channels \w+), where \w+ shows most", refused.err)[1].split()
    assert option == ["--channels", "DAPI"]
    assert simmat("segment", "two.ome.tif", "--output", "out", *option).status == 0


def test_options_without_effect_are_told_once(folder, simmat):
    tifffile.imwrite("b.tif", coins()[90:180, :130])
    words = "segment", "a.tif", "b.tif", "--output", "out", "--auto.second-look"
    told = "--auto.second-look: without effect where a decoder finds the objects"
    assert simmat(*words, "--dry-run").err.count(told) == 1
    assert simmat(*words).err.count(told) == 1
    clicks = simmat(*words, "--auto.by", "clicks", "--auto.points-per-side", "4", "--overwrite")
    assert "without effect" not in clicks.err


def test_a_model_made_for_the_image_is_named_and_not_fetched(folder, simmat):
    size = {"PhysicalSizeX": 0.3, "PhysicalSizeXUnit": "um"}
    size |= {"PhysicalSizeY": 0.3, "PhysicalSizeYUnit": "um"}
    tifffile.imwrite("a.tif", coins()[:90, :130], ome=True, metadata={"axes": "YX", **size})
    result = simmat("segment", "a.tif")
    assert result.err.count("vit_b_lm (419 MB, license CC-BY-4.0)") == 1


def test_the_report_shows_histograms_of_sizes_and_other_columns(folder, simmat):
    tifffile.imwrite("b.tif", coins()[90:180, :130])
    assert simmat("segment", "a.tif", "b.tif", "--output", "out").status == 0
    page = Path("out/simmat-report.html").read_text("utf-8")
    with open("out/simmat-objects.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    first, *others = re.findall(r'aria-label="Histogram of ([^"]+)"', page)
    assert first == "area_px"
    assert {"mean_channel0", "circularity", "score"} <= set(others)
    assert not {"label", "bbox_y0_px", "centroid_y_px"} & set(others)
    svg = re.search(r"<svg.*?</svg>", page, re.DOTALL)[0]
    assert sum(map(int, re.findall(r": (\d+)</title>", svg))) == len(rows)
    diameters = [float(row["equivalent_diameter_px"]) for row in rows]
    told = SizeDistribution.of(diameters, "px", 2).sentence
    assert page.count(f"<p>{told}.</p>") == 1
    assert "by volume" not in page
    sized = "--pixel-size", "0.5", "--unit", "um"
    assert simmat("segment", "a.tif", "--output", "sized", *sized, "--report").status == 0
    [told] = re.findall(r"<p>(D10 [^<]+)</p>", Path("sized/simmat-report.html").read_text("utf-8"))
    assert told.endswith("um by area.")

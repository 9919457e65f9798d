"""Through the real entry point: what is written, what is printed, what is refused and how."""

from __future__ import annotations

import csv
import errno
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.data import coins

from napari_simmat._text import CANCELED, CANCELED_MESSAGE
from napari_simmat.checkpoints import registry
from napari_simmat.checkpoints.checkpoint import read_tensors, save_checkpoint
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.cli import main
from napari_simmat.engine.device import BROKEN_MODEL
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompt_files import write_points_csv, write_shapes_csv
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.files import sha256_of
from napari_simmat.models.spec import Base, Channel, InputSize, ModelSpec, Normalization

ANGLES = ("0 deg", "45 deg", "90 deg", "135 deg")
CLICKS = [Prompt(points=[(50, 45)], object=1), Prompt(points=[(51, 100)], object=7)]


@dataclass
class Said:
    """How a command ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.out)


@pytest.fixture
def simmat(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run the command line in this process."""

    def run(*words: object) -> Said:
        capsys.readouterr()
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photograph of six coins and two clicks; it is the current one."""
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", coins()[:90, :130])
    write_points_csv("a.csv", CLICKS)
    return tmp_path


def segment(
    *more: object, image: str = "a.tif", prompts: str = "a.csv", output: str = "out"
) -> list[object]:
    return ["segment", image, "--model", "tiny", "--prompts", prompts, "--output", output, *more]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def without_run(path: Path) -> dict[str, object]:
    values = json.loads(path.read_text("utf-8"))
    del values["run"]
    return values


# ------------------------------------------------------------------ what is written


def test_segment_writes_labels_table_and_record(folder: Path, simmat: Callable[..., Said]) -> None:
    said = simmat(*segment())
    assert said.status == 0
    assert said.err == ""
    for name in ("a_labels.tif", "a_objects.csv", "a.json"):
        assert str(Path("out", name)) in said.out
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


def test_the_same_run_twice_writes_the_same_bytes(
    folder: Path, simmat: Callable[..., Said]
) -> None:
    for _ in range(2):
        assert simmat(*segment("--overwrite")).status == 0
        Path("out").rename("first" if not Path("first").exists() else "second")
    for name in ("a_labels.tif", "a_objects.csv"):
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes()
    assert without_run(folder / "first" / "a.json") == without_run(folder / "second" / "a.json")


def test_the_quality_is_recorded_and_resumed_only_as_it_was(
    folder: Path, simmat: Callable[..., Said]
) -> None:
    assert simmat(*segment("--quality", "best")).status == 0
    record = json.loads(Path("out", "a.json").read_text())
    assert record["settings"]["quality"] == "best"
    [kept] = simmat(*segment("--resume", "--json", "--quality", "best")).json["files"]
    assert kept["status"] == "kept"
    assert simmat(*segment("--resume")).status == 1


def test_json_is_all_that_stdout_gets(folder: Path, simmat: Callable[..., Said]) -> None:
    said = simmat(*segment("--json", "--device", "cpu", "--precision", "exact"))
    assert said.status == 0
    [file] = said.json["files"]
    assert file["status"] == "written"
    assert file["objects"] == 2
    assert all(Path(file[f"{kind}_file"]).is_file() for kind in ("labels", "objects", "record"))


def test_a_record_replays_to_the_same_labels(folder: Path, simmat: Callable[..., Said]) -> None:
    write_shapes_csv("a.csv", [Prompt(box=(36, 22, 74, 68)), Prompt(box=(38, 80, 74, 121))])
    simmat(*segment())
    replayed = simmat(
        *("segment", "a.tif", "--model", "tiny", "--prompts", "out/a.json", "--output", "again")
    )
    assert replayed.status == 0
    for name in ("a_labels.tif", "a_objects.csv"):
        assert Path("again", name).read_bytes() == Path("out", name).read_bytes()
    assert without_run(folder / "again" / "a.json") == without_run(folder / "out" / "a.json")


def test_shapes_that_napari_counts_from_0_are_labels_from_1(
    folder: Path, simmat: Callable[..., Said]
) -> None:
    lines = ["index,shape-type,vertex-index,axis-0,axis-1"]
    for index, (y0, x0, y1, x1) in enumerate([(36, 22, 74, 68), (38, 80, 74, 121)]):
        corners = [(y0, x0), (y0, x1), (y1, x1), (y1, x0)]
        lines += [f"{index},rectangle,{n},{y},{x}" for n, (y, x) in enumerate(corners)]
    Path("a.csv").write_text("\n".join(lines))
    assert simmat(*segment()).status == 0
    assert set(np.unique(tifffile.imread("out/a_labels.tif"))) == {0, 1, 2}


def test_a_label_image_is_a_prompt_file(folder: Path, simmat: Callable[..., Said]) -> None:
    masks = np.zeros((90, 130), np.uint16)
    masks[40:70, 30:60], masks[45:70, 85:115] = 3, 70000 % 65536
    tifffile.imwrite("a_prompts.tif", masks)
    Path("a.csv").unlink()
    assert simmat(*segment(prompts="same-stem")).status == 0
    assert set(np.unique(tifffile.imread("out/a_labels.tif"))) == set(np.unique(masks))


def test_a_stack_is_segmented_plane_by_plane_where_there_are_prompts(
    folder: Path, simmat: Callable[..., Said]
) -> None:
    plane = coins()[:90, :130]
    stack = np.stack([plane, plane // 2, plane])[None].repeat(2, axis=0)
    metadata = {
        "axes": "TZYX",
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": 2.0,
        "PhysicalSizeZUnit": "µm",
    }
    tifffile.imwrite("a.tif", stack, ome=True, metadata=metadata, photometric="minisblack")
    prompts = [replace(CLICKS[0], plane=where) for where in [(1, 2), (0, 0), (1, 1)]]
    write_points_csv("a.csv", prompts)
    assert simmat(*segment()).status == 0
    with tifffile.TiffFile("out/a_labels.tif") as file:
        labels = file.asarray()
        assert file.series[0].axes == "TZYX"
        assert 'PhysicalSizeZ="2.0"' in file.ome_metadata
    assert labels.shape == stack.shape
    filled = {index for index in np.ndindex(2, 3) if labels[index].any()}
    assert filled == {(0, 0), (1, 1), (1, 2)}
    with open("out/a_objects.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["t"], row["bbox_z0_px"], row["bbox_z1_px"]) for row in rows] == [
        ("0", "0", "1"),
        ("1", "1", "3"),
    ]
    assert float(rows[0]["volume_um3"]) == pytest.approx(int(rows[0]["volume_voxels"]) * 0.5)


def test_long_pixels_of_a_file_are_seen_square(folder: Path, simmat: Callable[..., Said]) -> None:
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

    # The same where the file does not say it and the user does; a file that says it is believed.
    tifffile.imwrite("a.tif", image, photometric="minisblack")
    assert simmat(*segment("--pixel-ratio", 6, output="told")).status == 0
    assert np.array_equal(tifffile.imread("told/a_labels.tif") > 0, ours)
    assert json.loads(Path("told/a.json").read_text())["settings"]["pixel_ratio"] == 6
    again = simmat(*segment("--resume", output="told"))
    assert again.status == 1
    assert "what differs: the settings" in again.err
    tifffile.imwrite("a.tif", image, ome=True, metadata=sizes, photometric="minisblack")
    assert simmat(*segment("--pixel-ratio", 1.5, output="believed")).status == 0
    assert np.array_equal(tifffile.imread("believed/a_labels.tif") > 0, ours)
    wrong = simmat(*segment("--pixel-ratio", 0, output="wrong"))
    assert wrong.status == 1
    assert "height over its width is above 0, not 0" in wrong.err
    assert not Path("wrong").exists()


def test_a_nifti_becomes_a_nifti_in_its_own_space(
    folder: Path, simmat: Callable[..., Said]
) -> None:
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


def test_a_color_picture_is_segmented(folder: Path, simmat: Callable[..., Said]) -> None:
    from skimage.io import imsave

    imsave("a.png", np.repeat(coins()[:90, :130, None], 3, axis=-1))
    assert simmat(*segment(image="a.png")).status == 0
    assert tifffile.imread("out/a_labels.tif").shape == (90, 130)


def test_channels_are_chosen_by_name_or_number(folder: Path, simmat: Callable[..., Said]) -> None:
    plane = coins()[:90, :130].astype(np.uint16)
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "dark"]}}
    image = np.stack([plane, 2 * plane, 0 * plane])
    tifffile.imwrite("a.tif", image, ome=True, metadata=metadata, photometric="minisblack")
    assert simmat(*segment("--channels", "DAPI,1,1")).status == 0
    with open("out/a_objects.csv", newline="") as stream:
        row = next(csv.DictReader(stream))
    assert float(row["mean_GFP"]) == pytest.approx(2 * float(row["mean_DAPI"]))
    assert "mean_dark" not in row


def test_many_images_with_prompts_beside_them(folder: Path, simmat: Callable[..., Said]) -> None:
    """One that cannot be read does not stop the others."""
    for name in "bc":
        Path(f"{name}.csv").write_bytes(Path("a.csv").read_bytes())
    Path("b.tif").write_bytes(Path("a.tif").read_bytes()[:200])
    Path("c.tif").write_bytes(Path("a.tif").read_bytes())
    said = simmat(*segment("b.tif", "c.tif", prompts="same-stem"))
    assert said.status == 1
    assert names_in(folder / "out") == [
        *("a.json", "a_labels.tif", "a_objects.csv", "c.json", "c_labels.tif", "c_objects.csv"),
        *("simmat-report.html", "simmat-summary.csv"),
    ]
    assert said.err.startswith("b.tif claims 12 kB of pixels but holds at most 200 bytes")
    assert len(said.err.strip().splitlines()) == 1
    assert "2 of 3 images segmented" in said.out


def test_masks_that_lie_wholly_under_better_ones_are_named(
    folder: Path, simmat: Callable[..., Said]
) -> None:
    write_points_csv("a.csv", [replace(CLICKS[0], object=n) for n in (1, 2)])
    said = simmat(*segment())
    assert said.status == 0
    assert "a.tif: 1 object, segmented" in said.out
    assert "2 kept no pixel: empty or covered" in said.err
    assert json.loads(Path("out/a.json").read_text())["objects"][1]["pixels"] == 0


# ------------------------------------------------------------------ what exists already


def test_what_exists_is_refused_replaced_or_kept(folder: Path, simmat: Callable[..., Said]) -> None:
    simmat(*segment())
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    refused = simmat(*segment())
    assert refused.status == 1
    assert "exists already. Use --overwrite" in refused.err

    kept = simmat(*segment("--resume", "--json"))
    assert kept.status == 0
    assert kept.json["files"][0]["status"] == "kept"
    assert kept.json["files"][0]["objects"] == 2
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before

    write_points_csv("a.csv", CLICKS[:1])
    changed = simmat(*segment("--resume"))
    assert changed.status == 1
    assert "was made differently; what differs: the prompts. Use --overwrite" in changed.err
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before

    assert simmat(*segment("--overwrite")).status == 0
    assert set(np.unique(tifffile.imread("out/a_labels.tif"))) == {0, 1}


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda: Path("out/a_labels.tif").write_bytes(b"edited"), "was changed since it was made"),
        (lambda: Path("out/a_objects.csv").unlink(), "is missing or was changed"),
        (lambda: Path("out/a.json").unlink(), "exists without a record"),
        (lambda: Path("out/a.json").write_text("{}"), "cannot be read as a record"),
    ],
)
def test_resume_trusts_a_whole_result_alone(
    folder: Path, simmat: Callable[..., Said], break_it: Callable[[], object], sentence: str
) -> None:
    simmat(*segment())
    break_it()
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    said = simmat(*segment("--resume"))
    assert said.status == 1
    assert sentence in said.err
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before


# ------------------------------------------------------------------ what is refused


def write_broken_csv() -> None:
    Path("a.csv").write_text("index,axis-0,axis-1\n0,50,nowhere\n")


def write_outside_csv() -> None:
    Path("a.csv").write_text("index,axis-0,axis-1\n0,50,45\n1,500,45\n")


def write_text_as_image() -> None:
    Path("a.tif").write_text("this is no image")


def write_constant_bool() -> None:
    np.save("a.npy", np.ones((90, 130), bool))


def write_five_channels() -> None:
    tifffile.imwrite("a.tif", np.ones((5, 90, 130), np.uint8), ome=True, metadata={"axes": "CYX"})


BAD = {
    "missing image": (None, segment(image="b.tif"), r"There is no file b\.tif"),
    "folder": (lambda: Path("d").mkdir(), segment(image="d"), r"There is no file with an image's"),
    "missing prompts": (None, segment(prompts="b.csv"), r"There is no prompt file b\.csv"),
    "no prompts beside": (
        lambda: Path("a.csv").unlink(),
        segment(prompts="same-stem"),
        r"There are no prompts beside a\.tif",
    ),
    "malformed prompts": (write_broken_csv, segment(), r"a\.csv, line 2: axis-1 is 'nowhere'"),
    "prompt outside": (write_outside_csv, segment(), r"a\.csv, line 3: .*outside the image"),
    "unreadable image": (
        write_text_as_image,
        segment(),
        r"Cannot read a\.tif: unsupported",
    ),
    "bool image": (write_constant_bool, segment(image="a.npy"), r"has values of type bool"),
    "no such channel": (None, segment("--channels", "5"), r"There is no channel 5"),
    "no such name": (None, segment("--channels", "DAPI"), r"There is no channel called DAPI"),
    "empty channel": (None, segment("--channels", "0,,1"), r"has an empty entry"),
    "five channels": (
        write_five_channels,
        segment(),
        r"reads red, green and blue, but there are 5",
    ),
    "no such axis": (None, segment("--channel-axis", "4"), r"channel axis 4 does not exist"),
    "axis is Y": (None, segment("--channel-axis", "0"), r"they do not end in YX"),
    "no such device": (None, segment("--device", "quantum"), r"Device 'quantum' is unknown"),
    "both": (None, segment("--resume", "--overwrite"), r"give one of them"),
    "output is a file": (
        lambda: Path("out").write_text(""),
        segment(),
        r"out is a file, not a folder",
    ),
    "output name is a folder": (
        lambda: Path("out/a_labels.tif").mkdir(parents=True),
        segment("--overwrite"),
        r"a_labels\.tif is a folder, but a file of that name is to be written",
    ),
    "unknown model": (
        None,
        ["segment", "a.tif", "--model", "tyni", "--prompts", "a.csv", "--output", "out"],
        r"There is no model called 'tyni'. Did you mean tiny",
    ),
    "no model given": (
        None,
        ["segment", "a.tif", "--prompts", "a.csv", "--output", "out"],
        r"--model.*See simmat segment --help",
    ),
    "unknown option": (None, segment("--ovrwrite"), r"--ovrwrite.*See simmat segment --help"),
    "unknown command": (None, ["segmnt", "a.tif"], r"segmnt.*See simmat --help"),
    "no number": (None, segment("--channel-axis", "one"), r"--channel-axis.*See simmat segment"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(folder: Path, simmat: Callable[..., Said], case: str) -> None:
    prepare, words, sentence = BAD[case]
    if prepare is not None:
        prepare()
    before = sorted(str(path) for path in folder.rglob("*"))
    said = simmat(*words)
    assert said.status == (2 if "See simmat" in sentence else 1)
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert said.err.strip()[-1] == "."
    assert re.search(sentence, said.err)
    assert sorted(str(path) for path in folder.rglob("*")) == before
    if words[0] == "segment":
        told = simmat(*words, "--json")
        assert sentence_in(told.json) == said.err.strip()


def sentence_in(values: dict[str, object]) -> object:
    return values["error"] if "error" in values else values["files"][0]["error"]


def test_debug_shows_the_traceback(folder: Path, simmat: Callable[..., Said]) -> None:
    said = simmat(*segment("--debug", image="b.tif"))
    assert said.status == 1
    assert "Traceback (most recent call last)" in said.err


def test_a_fault_of_the_program_is_said_to_be_one(
    folder: Path, simmat: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("napari_simmat.batch.plan.plan", fail)
    said = simmat(*segment())
    assert said.status == 1
    assert (
        "Something unexpected went wrong (KeyError: 'oops'). Run it again with --debug" in said.err
    )


def test_a_full_disk_leaves_nothing_half_written(
    folder: Path, simmat: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("napari_simmat.batch.outputs.write_table", fill_the_disk)
    said = simmat(*segment())
    assert said.status == 1
    assert "The disk is full: a.json" in said.err
    assert names_in(folder / "out") == []


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal as a terminal does")
def test_ctrl_c_cancels_and_leaves_nothing_half_written(
    folder: Path, simmat: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_simmat.engine.predictor import Predictor

    predicting = Predictor.predict_many_job

    def press(self: Predictor, prompts: list[Prompt]) -> object:
        if prompts[0].object == 7:
            signal.raise_signal(signal.SIGINT)
        return predicting(self, prompts)

    monkeypatch.setattr(Predictor, "predict_many_job", press)
    # A shell lets what it starts in the background ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        said = simmat(*segment())
    finally:
        signal.signal(signal.SIGINT, before)
    assert said.status == CANCELED
    assert said.err.strip() == CANCELED_MESSAGE
    assert names_in(folder / "out") == []


def test_planes_that_are_missing_in_the_file_are_said_with_the_result(
    folder: Path, simmat: Callable[..., Said]
) -> None:
    xml = (
        '<OME><Image><Pixels DimensionOrder="XYZCT" Type="uint8" SizeX="130" SizeY="90" SizeZ="2" '
        'SizeC="1" SizeT="1"><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )
    tifffile.imwrite("a.tif", coins()[:90, :130], description=xml, metadata=None)
    write_points_csv("a.csv", [replace(CLICKS[0], plane=(0,))])
    said = simmat(*segment("--json"))
    note = "1 of its 2 planes are missing, and read as 0."
    assert said.json["files"][0]["note"] == note
    assert json.loads(Path("out/a.json").read_text("utf-8"))["run"]["note"] == note
    said = simmat(*segment("--overwrite"))
    assert said.err.count(note) == 1


def test_a_model_that_computes_infinity_is_an_error_of_the_model(
    folder: Path, simmat: Callable[..., Said]
) -> None:
    tiny = find_model("tiny")
    tensors = {name: tensor.float() for name, tensor in read_tensors(tiny.path).items()}
    for name, tensor in tensors.items():
        if name.startswith("mask_decoder.iou_prediction_head"):
            tensor.fill_(3e38)
    spec = replace(tiny.spec, name="large", base=replace(tiny.spec.base, sha256=""))
    save_checkpoint(folder / "large.safetensors", spec, tensors)
    words = ["large.safetensors" if word == "tiny" else word for word in segment()]
    said = simmat(*words, "--precision", "exact")
    assert said.status == 1
    assert BROKEN_MODEL.format("large", "") in said.err
    assert names_in(folder / "out") == []


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal as a terminal does")
def test_ctrl_c_during_the_first_imports_is_one_sentence() -> None:
    program = """
import signal, sys

class PressesCtrlC:
    def find_spec(self, name, *_):
        if name == "cyclopts":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, PressesCtrlC())
sys.argv = ["simmat", "models"]
from napari_simmat.__main__ import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (CANCELED, f"{CANCELED_MESSAGE}\n")


def test_an_earlier_output_among_the_images_is_left_out(
    folder: Path, simmat: Callable[..., Said]
) -> None:
    simmat("segment", "a.tif", "--model", "tiny", "--prompts", "a.csv", "--output", "near")
    Path("near/a.tif").write_bytes(Path("a.tif").read_bytes())
    Path("near/a_prompts.csv").write_bytes(Path("a.csv").read_bytes())
    words = ["segment", "near/a.tif", "near/a_labels.tif", "--model", "tiny"]
    said = simmat(*words, "--prompts", "same-stem", "--output", "out", "--json")
    assert said.status == 0
    assert [Path(file["image"]).name for file in said.json["files"]] == ["a.tif"]
    assert "a_labels.tif is left out. It is the output of an earlier run." in said.err


# ------------------------------------------------------------------ channels by name


@pytest.fixture
def four_angles(user_folder: Path) -> Path:
    """A checkpoint with four named channels, random weights, among the user's own models."""
    import torch

    from napari_simmat.checkpoints.checkpoint import save_checkpoint
    from napari_simmat.checkpoints.registry import find_model
    from napari_simmat.models.tuning import build_network

    torch.manual_seed(1)
    base = find_model("tiny")
    architecture = "tiny_deep"
    network = build_network(architecture, channels=4, transfer="simmat")
    spec = ModelSpec(
        name="angles",
        modality="polarization (4 angles)",
        channels=tuple(Channel(name=name, mean=127.5, std=64.0) for name in ANGLES),
        normalization=Normalization(joint=True),
        input_size=InputSize(method="native", size=1024),
        base=Base(name=base.name, architecture=architecture, sha256=sha256_of(base.path)),
        transfer="simmat",
    )
    path = user_folder / "models" / "angles.safetensors"
    trained = {name: network.state_dict()[name] for name in network.transfer_names()}
    save_checkpoint(path, spec, trained)
    return path


def write_angles(order: list[int], drop: int = 0) -> None:
    plane = coins()[:90, :130].astype(np.uint16)
    channels = [plane, 3 * plane, plane // 2, 300 - plane]
    order = order[: len(order) - drop]
    tifffile.imwrite(
        "a.tif",
        np.stack([channels[n] for n in order]),
        ome=True,
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": [ANGLES[n] for n in order]}},
    )


def test_named_channels_are_sorted_by_name(
    folder: Path, four_angles: Path, simmat: Callable[..., Said]
) -> None:
    words = ["segment", "a.tif", "--model", "angles", "--prompts", "a.csv", "--output"]
    write_angles([0, 1, 2, 3])
    assert simmat(*words, "right").status == 0
    write_angles([2, 0, 3, 1])
    assert simmat(*words, "mixed").status == 0
    np.testing.assert_array_equal(
        tifffile.imread("right/a_labels.tif"), tifffile.imread("mixed/a_labels.tif")
    )
    columns = Path("mixed/a_objects.csv").read_text().splitlines()[0]
    assert "mean_0 deg,mean_45 deg,mean_90 deg,mean_135 deg" in columns


def test_a_missing_channel_is_named(
    folder: Path, four_angles: Path, simmat: Callable[..., Said]
) -> None:
    write_angles([2, 0, 3, 1], drop=1)
    said = simmat("segment", "a.tif", "--model", "angles", "--prompts", "a.csv", "--output", "out")
    assert said.status == 1
    assert "but 45 deg is missing among 90 deg, 0 deg, 135 deg" in said.err
    assert names_in(folder / "out") == []


# ------------------------------------------------------------------ models


def test_models_lists_what_there_is(four_angles: Path, simmat: Callable[..., Said]) -> None:
    said = simmat("models")
    assert said.status == 0
    assert simmat("models", "list").out == said.out
    for word in ("tiny-4", "built in", "vit_b", "downloadable", "375 MB", "angles", "own"):
        assert word in said.out
    listed = {model["name"]: model for model in simmat("models", "--json").json["models"]}
    assert listed["angles"]["path"] == str(four_angles)
    assert [channel["name"] for channel in listed["angles"]["spec"]["channels"]] == list(ANGLES)


def test_a_damaged_model_is_listed_with_its_problem(
    user_folder: Path, simmat: Callable[..., Said]
) -> None:
    (user_folder / "models").mkdir()
    (user_folder / "models" / "broken.safetensors").write_bytes(b"\x08" + bytes(40))
    said = simmat("models")
    assert said.status == 0
    assert "Note: broken.safetensors" in said.err
    assert simmat("models", "info", "broken").status == 1


def test_info_shows_a_card(four_angles: Path, simmat: Callable[..., Said]) -> None:
    said = simmat("models", "info", "angles")
    assert said.status == 0
    for words in ("0 deg, 45 deg, 90 deg, 135 deg", "all channels together", "simmat", "tiny-4"):
        assert words in " ".join(said.out.split())
    by_path = simmat("models", "info", four_angles, "--json").json
    assert by_path["spec"]["base"]["architecture"] == "tiny_deep"
    unknown = simmat("models", "info", "angels")
    assert unknown.status == 1
    assert "There is no model called 'angels'. Did you mean angles?" in unknown.err


def test_a_card_shows_foreign_names_as_they_are(
    simmat: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = find_model("tiny")
    spec = replace(entry.spec, metrics={"[bold] IoU [/box]": 1.5})
    monkeypatch.setattr(registry, "find_model", lambda _: replace(entry, spec=spec))
    said = simmat("models", "info", "tiny")
    assert (said.status, said.err) == (0, "")
    assert "metric [bold] IoU [/box] 1.5" in " ".join(said.out.split())


def test_a_model_goes_out_and_comes_back(
    tmp_path: Path, four_angles: Path, simmat: Callable[..., Said]
) -> None:
    exported = simmat("models", "export", "angles", tmp_path, "--json")
    assert exported.status == 0
    assert exported.json["path"] == str(tmp_path / "angles.safetensors")
    again = simmat("models", "export", "angles", tmp_path)
    assert again.status == 1
    assert "exists already" in again.err
    assert simmat("models", "export", "angles", tmp_path, "--overwrite").status == 0
    bundle = tmp_path / "bundle.safetensors"
    assert simmat("models", "export", "angles", bundle, "--bundle").status == 0
    assert bundle.stat().st_size > 10 * (tmp_path / "angles.safetensors").stat().st_size

    assert simmat("models", "remove", "angles").out.strip() == "Removed angles"
    assert not four_angles.exists()
    assert simmat("models", "remove", "angles").status == 1
    assert simmat("models", "remove", "tiny-4").status == 1
    imported = simmat(
        "models", "import", tmp_path / "angles.safetensors", "--name", "mine", "--json"
    )
    assert imported.status == 0
    assert imported.json["name"] == "mine"
    assert simmat("models", "import", tmp_path / "angles.safetensors", "--name", "mine").status == 1


@pytest.mark.parametrize("words", [("fetch", "vit_x"), ("export", "x"), ("import", "x.pth")])
def test_models_that_are_not_there_get_a_sentence(
    words: tuple[str, ...], simmat: Callable[..., Said]
) -> None:
    said = simmat("models", *words)
    assert said.status == 1
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1


# ------------------------------------------------------------------ starting


def in_a_fresh_interpreter(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        timeout=300,
    )


@pytest.mark.parametrize("words", [["--help"], ["segment", "--help"], ["models"], ["--version"]])
def test_help_and_lists_need_no_torch(tmp_path: Path, words: list[str]) -> None:
    done = in_a_fresh_interpreter(
        "import sys; from napari_simmat.cli import main; "
        f"status = main({words}); heavy = {{'torch', 'napari', 'qtpy'}} & set(sys.modules); "
        "sys.exit(status or len(heavy))",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_needs_no_numpy(tmp_path: Path) -> None:
    program = "import sys, napari_simmat.cli; sys.exit('numpy' in sys.modules)"
    assert in_a_fresh_interpreter(program, tmp_path).returncode == 0


@pytest.mark.slow
def test_the_installed_command_works_in_a_process_of_its_own(folder: Path) -> None:
    words = [str(word) for word in segment("--json")]
    done = in_a_fresh_interpreter(
        f"import sys; from napari_simmat.cli import main; sys.exit(main({words}))", folder
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["files"][0]["objects"] == 2
    failed = in_a_fresh_interpreter(
        f"import sys; from napari_simmat.cli import main; sys.exit(main({words}))", folder
    )
    assert failed.returncode == 1
    assert "exists already" in failed.stderr


def test_segment_with_short_options_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "nowhere", "-m", "tiny", "--prompts", "auto", "-o", "out"]) == 1
    assert "nowhere" in capsys.readouterr().err  # not: unknown option


@pytest.mark.parametrize("command", ["segment", "evaluate", "train", "pretrain", "encode"])
def test_help_hides_defaults_that_say_nothing(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    assert not re.search(r'\[default:\s+(None|\(|""|\d\.\d{5})', capsys.readouterr().out)


def test_a_shell_completes_commands_and_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--install-completion", "--shell", "bash"]) == 0
    script = tmp_path / ".local/share/bash-completion/completions/simmat"
    text = script.read_text("utf-8")
    assert "evaluate" in text
    assert "--max-objects" in text

"""Slides on the command line: parts, tissue, kills, and what QuPath and other readers find."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import zarr
from shapely.geometry import shape

from napari_simmat.batch import loaded_image
from napari_simmat.io import pyramid, readers
from napari_simmat.io.readers import read_image
from tests.batch.folders import contents
from tests.slides import MPP, NUCLEI, RADIUS, drawn_slide, write_svs

AREA = np.pi * RADIUS**2
CLICKS = "index,axis-0,axis-1,label,object\n0,300,300,1,1\n1,700,900,1,2\n"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return write_svs(tmp_path_factory.mktemp("slide") / "slide.svs", drawn_slide())


@pytest.fixture
def slide(stored, tmp_path, monkeypatch):
    """A slide in the current folder, with clicks on two of its nuclei in pixels of level 0."""
    monkeypatch.chdir(tmp_path)
    os.link(stored, "slide.svs")
    (tmp_path / "clicks.csv").write_text(CLICKS)
    return tmp_path


def features(folder):
    """The objects of a GeoJSON, of which shapely makes outlines, x first."""
    return json.loads((folder / "slide_objects.geojson").read_text("utf-8"))["features"]


def outlines(folder):
    return [shape(each["geometry"]) for each in features(folder)]


def segment(*more):
    return ("segment", "slide.svs", "--model", "tiny", "--device", "cpu", *more)


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("part", [pytest.param((), marks=pytest.mark.slow), ("--mpp", "0.5")])
def test_click_in_level_0_is_answered_there(slide, simmat, part):
    region = ("--region", "200,200,512,512", *part)
    result = simmat(*segment("--prompts", "clicks.csv", "--output", "out", *region, "--geojson"))
    assert result.status == 0, result.err
    assert "1 of 2 points lie beside the part that is read" in result.err
    [row] = rows_of(slide / "out" / "slide_objects.csv")
    assert float(row["area_um2"]) == pytest.approx(AREA * MPP**2, rel=0.15)
    centroid = [float(row[f"centroid_{axis}_um"]) for axis in "yx"]
    assert centroid == pytest.approx([300 * MPP, 300 * MPP], abs=0.5)
    # As GDAL and QuPath read it: x first, in pixels of level 0.
    [outline] = outlines(slide / "out")
    assert outline.centroid.coords[0] == pytest.approx((300.5, 300.5), abs=1.5)
    assert outline.area == pytest.approx(AREA, rel=0.15)
    labels = read_image(slide / "out" / "slide_labels.tif")
    size = 0.5 if part else MPP
    assert labels.scale == pytest.approx({"Y": size, "X": size})
    assert labels.shape == ((156, 156) if part else (312, 312))


def test_outlines_in_level_0_are_prompts_of_a_part(slide, simmat):
    first = (
        "--prompts",
        "clicks.csv",
        "--output",
        "one",
        "--geojson",
        "--region",
        "600,800,900,1000",
    )
    assert simmat(*segment(*first)).status == 0
    objects = "one/slide_objects.geojson"
    shifted = ("--region", "650,850,750,950", "--geojson")
    again = simmat(*segment("--prompts", objects, "--output", "two", *shifted))
    assert again.status == 0, again.err
    [before], [after] = outlines(slide / "one"), outlines(slide / "two")
    assert before.intersection(after).area > 0.8 * before.union(after).area


def drawn_around(y, x, name=""):
    """A square of 40 pixels around a nucleus, as QuPath exports what was drawn."""
    ring = [[x - 20, y - 20], [x + 20, y - 20], [x + 20, y + 20], [x - 20, y + 20]]
    known = {"classification": {"name": name}} if name else {}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {"objectType": "annotation", **known},
    }


def test_class_is_that_of_objects_whose_prompts_have_none(slide, simmat):
    drawn = [drawn_around(700, 900, "Tumor"), drawn_around(760, 900)]
    (slide / "drawn.geojson").write_text(json.dumps({"features": drawn}))
    words = ("--prompts", "drawn.geojson", "--region", "600,700,856,1000", "--output", "out")
    words += ("--geojson", "--resume")
    assert simmat(*segment(*words, "--object-class", " Stroma ")).status == 0
    assert [row["class"] for row in rows_of(slide / "out/slide_objects.csv")] == ["Tumor", "Stroma"]
    named = [each["properties"]["classification"]["name"] for each in features(slide / "out")]
    assert named == ["Tumor", "Stroma"]
    recorded = json.loads((slide / "out/slide.json").read_text())
    assert recorded["settings"]["table"]["object_class"] == "Stroma"
    assert "kept" in simmat(*segment(*words, "--object-class", "Stroma")).out
    assert "kept" not in simmat(*segment(*words)).out
    assert [row["class"] for row in rows_of(slide / "out/slide_objects.csv")] == ["Tumor", ""]


def test_class_that_is_too_long_is_refused(slide, simmat):
    result = simmat(
        *segment("--prompts", "clicks.csv", "--output", "out", "--object-class", "x" * 101)
    )
    assert result.status
    assert "is no name of a class; give one line of at most 100 characters" in result.err


@pytest.mark.parametrize("more", [("--region", "600,700,856,1000"), ("--labels-in-memory", "1e-4")])
def test_rectangles_of_qupath_are_boxes_in_level_0(slide, simmat, more):
    (slide / "drawn.geojson").write_text(json.dumps(drawn_around(700, 900, "Tumor")))
    result = simmat(*segment("--prompts", "drawn.geojson", "--output", "out", *more, "--geojson"))
    assert result.status == 0, result.err
    [outline], [feature] = outlines(slide / "out"), features(slide / "out")
    assert outline.area == pytest.approx(AREA, rel=0.3)  # and not the 1600 pixels of the square
    assert outline.centroid.coords[0] == pytest.approx((900.5, 700.5), abs=1.5)
    assert feature["properties"]["classification"]["name"] == "Tumor"


@pytest.mark.slow
def test_outlines_are_prompts_of_windows(slide, simmat):
    """As drawn in QuPath on a slide that is not read as a whole."""
    words = ("--prompts", "clicks.csv", "--region", "200,200,512,512", "--output", "one")
    assert simmat(*segment(*words, "--geojson")).status == 0
    objects = "one/slide_objects.geojson"
    large = ("--output", "two", "--geojson", "--labels-in-memory", "0.0001")
    again = simmat(*segment("--prompts", objects, *large))
    assert again.status == 0, again.err
    [before], [after] = outlines(slide / "one"), outlines(slide / "two")
    assert before.intersection(after).area > 0.8 * before.union(after).area


def test_dry_run_says_how_many_tiles_a_slide_makes(slide, simmat):
    words = ("--prompts", "auto", "--auto.tile", "128", "--output", "out", "--dry-run")
    said = " ".join(simmat(*segment(*words)).err.split())
    assert "pixels make some" in said
    assert "Of a slide, --tissue auto leaves out glass" in said
    with_tissue = " ".join(simmat(*segment(*words, "--tissue", "auto")).err.split())
    assert "pixels make some" in with_tissue
    assert "leaves out glass" not in with_tissue


LEVELS = "levels are 0 (1024 x 1536, 0.25 um), 1 (256 x 384, 1 um), 2 (64 x 96, 4 um)"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ((), "level 0 is read, unless --level or --mpp says another."),
        (("--region", "0,0,400,400"), "level 0 is read, unless --level or --mpp says another."),
        (("--level", "1"), "level 1 is read."),
        (("--mpp", "0.5"), "level 0 is read, reduced to 0.5 um."),
        (("--mpp", "1"), "level 1 is read."),
    ],
)
def test_dry_run_lists_the_levels_and_names_what_is_read(slide, simmat, part, words):
    result = simmat(*segment("--prompts", "auto", "--output", "out", *part, "--dry-run"))
    assert result.status == 0, result.err
    assert f"Its {LEVELS}; {words}" in " ".join(result.err.split())
    values = simmat(*segment("--prompts", "auto", "--output", "out", *part, "--dry-run", "--json"))
    assert values.json["remarks"]["slide.svs"].startswith(f"Its {LEVELS}; {words}")


@pytest.mark.parametrize(
    "command", [("encode",), ("channels", "show", "--output", "seen")], ids=["encode", "show"]
)
def test_large_slide_is_encoded_as_a_part_alone(slide, simmat, monkeypatch, command):
    monkeypatch.setattr(loaded_image, "LAZY_ABOVE", 400_000)
    monkeypatch.setattr(pyramid, "USUAL_SIDE", 500)
    monkeypatch.setattr(readers, "open_image", partial(readers.open_image, lazy_above=0))
    words = (*command, "slide.svs", "--model", "tiny", "--device", "cpu")
    whole = simmat(*words)
    assert whole.status
    assert f"slide.svs is large: its {LEVELS}. Give the level that" in whole.err
    assert "(--level 1)" in whole.err
    one = simmat(*words, "--level", "1")
    assert one.status == 0, one.err
    assert "Read level 1: 256 x 384 pixels of 1 um" in " ".join(one.err.split())


def test_tissue_file_that_marks_nothing_there_is_named(slide, simmat):
    assert simmat(*segment("--prompts", "clicks.csv", "--output", "one", "--geojson")).status == 0
    words = ("--tissue", "one/slide_objects.geojson", "--region", "0,0,100,100")
    done = simmat(*segment("--prompts", "auto", "--output", "two", *words))
    assert done.status == 1
    assert "slide_objects.geojson marks nothing on what is read of slide.svs" in done.err


def test_part_is_part_of_the_record(slide, simmat):
    words = segment("--prompts", "clicks.csv", "--output", "out")
    region = ("--region", "200,200,512,512")
    assert simmat(*words, *region).status == 0
    record = json.loads((slide / "out" / "slide.json").read_text())
    assert record["settings"]["part"] == {"level": None, "mpp": None, "region": "200,200,512,512"}
    assert "kept, made the same way" in simmat(*words, *region, "--resume").out
    other = simmat(*words, "--region", "200,200,512,500", "--resume")
    assert "part.region (200,200,512,512 then, 200,200,512,500 now)" in other.err
    replay = segment("--prompts", "out/slide.json", "--output", "again")
    assert simmat(*replay).status == 0
    assert contents(slide / "again") == contents(slide / "out")
    refused = simmat(*replay, "--region", "0,0,512,512", "--overwrite")
    assert "are of a part of the image (--region 200,200,512,512), and --region 0,0" in refused.err


def test_parts_of_a_manifest_are_those_of_its_rows(slide, simmat):
    (slide / "list.csv").write_text('image,region\nslide.svs,"200,200,512,512"\n')
    words = ("segment", "list.csv", "--model", "tiny", "--prompts", "clicks.csv", "--output", "out")
    assert simmat(*words).status == 0
    assert read_image(slide / "out" / "slide_labels.tif").shape == (312, 312)
    (slide / "list.csv").write_text("image,level\nslide.svs,fine\n")
    assert "list.csv, line 2: level 'fine' or mpp '' is no number." in simmat(*words).err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--region", "600,0,700,100"), "No prompt of clicks.csv lies on the part that is read"),
        (("--level", "9"), "slide.svs has no level 9; its levels are 0 (1024 x 1536, 0.25 um), 1"),
        (("--region", "1,2,3"), "write Y0,X0,Y1,X1"),
        (("--tissue", "auto"), "slide.svs has prompts, which say where its objects are"),
    ],
)
def test_part_that_cannot_be_is_refused_in_a_dry_run(slide, simmat, more, words):
    result = simmat(*segment("--prompts", "clicks.csv", "--output", "out", *more, "--dry-run"))
    assert result.status
    assert words in result.err
    assert not (slide / "out").exists()


@pytest.mark.slow
def test_clicks_on_a_slide_as_a_whole_are_in_windows(slide, simmat):
    large = ("--labels-in-memory", "0.0001", "--geojson", "--overlay", "--rois")
    result = simmat(*segment("--prompts", "clicks.csv", "--output", "out", *large))
    assert result.status == 0, result.err
    assert "Objects in other formats are not written" in result.err
    assert sorted(path.name for path in (slide / "out").iterdir()) == [
        "slide.json",
        "slide_labels.ome.zarr",
        "slide_objects.csv",
        "slide_objects.geojson",
        "slide_overlay.png",
    ]
    # Each click means the piece of tissue that its nucleus is on.
    found = outlines(slide / "out")
    assert [each.area for each in found] == pytest.approx([450 * 550, 300 * 320], rel=0.05)
    labels = np.asarray(zarr.open_group(slide / "out" / "slide_labels.ome.zarr", mode="r")["0"])
    assert (labels[300, 300], labels[700, 900], labels[50, 50]) == (1, 2, 0)
    kept = simmat(*segment("--prompts", "clicks.csv", "--output", "out", *large, "--resume"))
    assert "2 objects, kept, made the same way" in kept.out


EVERYTHING = ("--prompts", "auto", "--tissue", "auto", "--auto.seeds", "hematoxylin")
IN_TILES = ("--auto.tile", "256", "--labels-in-memory", "0.0001", "--geojson")


def test_everything_on_tissue_finds_the_nuclei_in_level_0(slide, simmat):
    result = simmat(*segment(*EVERYTHING, *IN_TILES, "--output", "out", "--auto.max-area", "0.002"))
    assert result.status == 0, result.err
    assert "Tissue is 22% of the slide" in result.err
    found = outlines(slide / "out")
    centers = sorted((round(p.y), round(p.x)) for p in (each.centroid for each in found))
    np.testing.assert_allclose(centers, sorted(NUCLEI), atol=2)
    assert [each.area for each in found] == pytest.approx([AREA] * 5, rel=0.15)
    kinds = {each["properties"]["objectType"] for each in features(slide / "out")}
    assert kinds == {"detection"}
    # The same objects as in the labels, which keep their size.
    labels = zarr.open_group(slide / "out" / "slide_labels.ome.zarr", mode="r")
    assert int(np.asarray(labels["0"]).max()) == 5
    [multiscale] = labels.attrs["ome"]["multiscales"]
    steps = multiscale["datasets"][0]["coordinateTransformations"]
    assert steps == [{"type": "scale", "scale": [MPP, MPP]}]


@pytest.mark.slow
@pytest.mark.parametrize("everything", [EVERYTHING, EVERYTHING[:4]], ids=["by seeds", "by decoder"])
def test_killed_run_goes_on_at_its_tile_to_the_same_bytes(everything, slide):
    """Each in a process of its own: this one may compute with another number of threads."""
    words = segment(*everything, *IN_TILES, "--mpp", "0.5", "--region", "100,100,1000,1200")
    command = [sys.executable, "-m", "napari_simmat", *words, "--output"]
    subprocess.run([*command, "whole"], check=True)
    done = slide / "killed" / ".slide_tiles.part" / "done.json"
    running = subprocess.Popen([*command, "killed"])
    until = time.monotonic() + 120
    while not done.exists() and time.monotonic() < until and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert json.loads(done.read_text())["tiles"] >= 1
    assert not (slide / "killed" / "slide.json").exists()
    subprocess.run([*command, "killed", "--resume"], check=True)
    assert contents(slide / "killed") == contents(slide / "whole")
    assert not done.exists()


def test_stains_of_a_region_lie_where_it_lies(slide, simmat):
    words = ("channels", "derive", "slide.svs", "stains", "--region", "200,200,400,500")
    assert simmat(*words, "--output", "stains.tif").status == 0
    file = read_image(slide / "stains.tif")
    assert file.channel_names == ("hematoxylin", "eosin", "DAB")
    assert file.scale == {"Y": MPP, "X": MPP}
    assert file.stage["Y"] == (50.0, "um")
    nucleus, around = file.data[0, 100, 100], file.data[0, 20, 20]
    assert nucleus > 2 * around

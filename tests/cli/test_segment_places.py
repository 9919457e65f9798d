"""Where the pixels are: from a file to labels by the command line, read by other programs."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_simmat.engine.files.objects import read_objects
from napari_simmat.engine.files.prompt_csv import write_points_csv
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.readers import read_image, read_labels
from tests.cli.conftest import names_in, segment
from tests.io.places import (
    CENTER,
    LEFT,
    PIXEL,
    PLACES,
    TOP,
    check_nifti,
    check_seg,
    make_dicom_for_seg,
    make_geotiff,
    make_map_in,
    make_nifti,
    make_ome_zarr,
    oblique,
    plane,
    volume,
)
from tests.io.test_ome_zarr import VOLUME, write
from tests.nightly import nightly_but

CLICK = Prompt(points=[CENTER], object=3)


@pytest.fixture
def click(tmp_path, simmat):
    """Segment the disc in an image, on a plane of a stack; the command's words and its output."""

    def run(image, *words, plane=(), out=tmp_path / "out"):
        write_points_csv(tmp_path / "p.csv", [replace(CLICK, plane=plane)])
        given = {"image": image, "prompts": tmp_path / "p.csv", "output": out}
        result = simmat(*segment(*words, **given))
        assert result.status == 0, result.err
        return result

    return run


@pytest.mark.parametrize("name", PLACES)
def test_segment_keeps_the_place_of_the_image(tmp_path, click, name):
    make, labels, check = PLACES[name]
    image = make(tmp_path)
    click(image, plane=() if name in ("geotiff", "ome-tiff") else (1,))
    check(image, tmp_path / "out" / labels)


def square(x, y, side, name=""):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    known = {"objectType": "annotation", "classification": {"name": name}}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": known}


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_segment_keeps_classes_of_outlines(folder, simmat):
    features = [square(5, 5, 20, "Tumor"), square(60, 40, 30, "Stroma")]
    collection = {"type": "FeatureCollection", "features": features}
    Path("q.geojson").write_text(json.dumps(collection))
    words = ("--coco", "--geojson", "--zarr")
    assert simmat(*segment(*words, prompts="q.geojson")).status == 0
    assert simmat(*segment(prompts="out/a.json", output="again")).status == 0
    for out in ("out", "again"):
        assert [row["class"] for row in rows_of(Path(out, "a_objects.csv"))] == ["Tumor", "Stroma"]
    for name in ("a_coco.json", "a_objects.geojson", "a_labels.ome.zarr"):
        found = read_objects(Path("out", name), (90, 130)).sections
        assert [one.category for one in found] == ["Tumor", "Stroma"], name


def test_segment_keeps_derived_classes_of_qupath(folder, simmat):
    """QuPath 0.4 and later write them as a list of names."""
    feature = square(5, 5, 20)
    feature["properties"]["classification"] = {"names": ["Tumor", "Positive"], "color": [9, 9, 9]}
    Path("q.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    assert simmat(*segment("--geojson", prompts="q.geojson")).status == 0
    [row] = rows_of(Path("out/a_objects.csv"))
    assert row["class"] == "Tumor: Positive"
    [again] = json.loads(Path("out/a_objects.geojson").read_text())["features"]
    assert again["properties"]["classification"]["name"] == "Tumor: Positive"


@pytest.mark.parametrize("listed", nightly_but((False, True), True))
def test_segment_takes_ome_zarr_labels_as_prompts(folder, simmat, listed):
    collection = {"type": "FeatureCollection", "features": [square(5, 5, 20, "Tumor")]}
    Path("q.geojson").write_text(json.dumps(collection))
    assert simmat(*segment("--zarr", prompts="q.geojson")).status == 0
    labels = "out/a_labels.ome.zarr"
    if listed:
        Path("list.csv").write_text(f"image,prompts\na.tif,{labels}\n")
        words = segment(image="list.csv", output="again")
    else:
        words = segment(prompts=labels, output="again")
    result = simmat(*words)
    assert result.status == 0, result.err
    [row] = rows_of(Path("again/a_objects.csv"))
    assert row["class"] == "Tumor"
    assert simmat(*segment(prompts="out/a_labels.tif", output="tiff")).status == 0
    for name in ("a_labels.tif", "a_objects.csv"):
        assert Path("again", name).read_bytes() == Path("tiff", name).read_bytes()


def test_segment_replaces_a_link_in_the_place_of_zarr_labels(folder, simmat):
    words = segment("--zarr", "--overwrite")
    assert simmat(*words).status == 0
    Path("out/a_labels.ome.zarr").rename("theirs.ome.zarr")
    Path("out/a_labels.ome.zarr").symlink_to(folder / "theirs.ome.zarr")
    before = names_in(folder / "theirs.ome.zarr")
    result = simmat(*words)
    assert result.status == 0, result.err
    assert not Path("out/a_labels.ome.zarr").is_symlink()
    assert names_in(folder / "theirs.ome.zarr") == before == names_in(Path("out/a_labels.ome.zarr"))


def test_segment_replays_the_channel_files_of_a_record(tmp_path, click, simmat):
    nibabel = pytest.importorskip("nibabel")
    first, other = make_nifti(tmp_path), tmp_path / "flair.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume().T, oblique()), other)
    words = ("--channels", "scan,flair,flair", "--channel-files", other)
    click(first, *words, plane=(1,))
    record = tmp_path / "out" / "scan.json"
    assert json.loads(record.read_text())["input"]["channel_files"] == ["flair.nii.gz"]
    given = {"image": str(first), "prompts": str(record)}
    again = simmat(*segment(output=str(tmp_path / "again"), **given))
    assert again.status == 0, again.err
    for name in ("scan_labels.nii.gz", "scan_objects.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    other.rename(tmp_path / "moved.nii.gz")
    missed = simmat(*segment(output=str(tmp_path / "third"), **given))
    assert missed.status == 1
    assert "scan.json was made with the channels of flair.nii.gz, which is beside" in missed.err


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_segment_ome_zarr_of_each_version(tmp_path, click, version):
    models = pytest.importorskip("ome_zarr_models.v05.image_label")
    image = make_ome_zarr(tmp_path / "cells.ome.zarr", version)
    result = click(image, "--zarr", plane=(1,))
    assert "It begins at z 10 um, y 200 um, x -30 um (translation)" in result.err
    out = tmp_path / "out"
    group = zarr.open_group(out / "cells_labels.ome.zarr", mode="r")
    ome = models.ImageLabel.from_zarr(group).attributes.ome
    [multiscale] = ome.multiscales
    assert [(each.name, each.unit) for each in multiscale.axes] == [
        (name, "micrometer") for name in "zyx"
    ]
    scale, translation = multiscale.datasets[0].coordinateTransformations
    assert (scale.scale, translation.translation) == ([2, 0.5, 0.25], [10, 200, -30])
    source = out / "cells_labels.ome.zarr" / ome.image_label.source.image
    assert source.resolve() == image.resolve()
    labels = np.asarray(group["0"])
    np.testing.assert_array_equal(labels, tifffile.imread(out / "cells_labels.tif"))
    inside = np.argwhere(labels[1] == 3).mean(axis=0)
    np.testing.assert_allclose(inside, CENTER, atol=2)
    [row] = rows_of(out / "cells_objects.csv")
    assert float(row["volume_um3"]) == int(row["volume_voxels"]) * 0.25


@pytest.mark.parametrize("left", [LEFT, LEFT + 3 * PIXEL])
def test_segment_channel_files_of_another_system_are_refused(tmp_path, simmat, left):
    image = make_geotiff(tmp_path)
    other = make_map_in(tmp_path, "other.tif", "EPSG:32632", left)
    write_points_csv(tmp_path / "p.csv", [CLICK])
    given = {"image": str(image), "prompts": str(tmp_path / "p.csv"), "output": str(tmp_path / "o")}
    words = ("--channels", "map,other,other", "--channel-files", other)
    result = simmat(*segment(*words, **given))
    assert result.status == 1
    assert "other.tif lies in EPSG:32632, but map.tif in EPSG:32633; bring both" in result.err
    assert names_in(tmp_path / "o") == []


def test_segment_channel_files_without_a_place_say_so(tmp_path, click):
    image = make_geotiff(tmp_path)
    tifffile.imwrite(tmp_path / "plain.tif", plane())
    words = ("--channels", "map,plain,plain", "--channel-files", tmp_path / "plain.tif")
    result = click(image, *words)
    assert "plain.tif does not say where it lies, and map.tif does" in result.err


def test_segment_map_has_polygons_where_the_pixels_are(tmp_path, click):
    geopandas = pytest.importorskip("geopandas")
    image = make_geotiff(tmp_path, 2, names=("red", "nir"))
    click(image, "--map", "--geojson", "--channels", "nir")
    out = tmp_path / "out"
    labels = tifffile.imread(out / "map_labels.tif")
    polygons = geopandas.read_file(out / "map_map.geojson")
    assert polygons.crs.to_epsg() == 32633
    rows, columns = np.nonzero(labels)
    assert polygons.area.sum() == len(rows) * PIXEL**2
    left, top = LEFT + PIXEL * columns.min(), TOP - PIXEL * rows.min()
    assert (polygons.total_bounds[0], polygons.total_bounds[3]) == (left, top)
    [row] = rows_of(out / "map_objects.csv")
    assert float(row["area_m2"]) == len(rows) * PIXEL**2
    assert "mean_nir" in row
    assert json.loads((out / "map_objects.geojson").read_text())["name"] == "pixels of map.tif"
    [seen] = polygons.drop(columns="geometry").to_dict("records")
    columns = {name: seen[name] for name in ("label", "class", "area_m2")}
    assert columns == {"label": labels.max(), "class": None, "area_m2": len(rows) * PIXEL**2}
    assert seen["score"] == pytest.approx(float(row["score"]), abs=1e-5)
    reference = read_image(image).reference
    back = read_objects(out / "map_map.geojson", labels.shape, reference=reference)
    np.testing.assert_array_equal(back.labels() > 0, labels > 0)
    only = polygons[["label", "geometry"]].assign(**{"label": [7], "class": ["field"]})
    only.to_file(out / "mine.geojson", driver="GeoJSON")  # as a table edited in QGIS
    [field] = read_objects(out / "mine.geojson", labels.shape, reference=reference).merged()
    assert (field.label, field.category) == (7, "field")
    with pytest.raises(ValueError, match=r"EPSG::32633, but the image has no such place"):
        read_objects(out / "map_map.geojson", labels.shape)


def test_segment_dicom_seg_is_the_patients(tmp_path, click):
    image = make_dicom_for_seg(tmp_path)
    written = []
    for out in (tmp_path / "out", tmp_path / "again"):
        click(image, "--seg", plane=(1,), out=out)
        written.append((out / "series_seg.dcm").read_bytes())
    assert written[0] == written[1]
    check_seg(image, tmp_path / "out" / "series_seg.dcm")
    assert "Doe" not in (tmp_path / "out" / "series.json").read_text()
    # In the folder of the series it is no slice.
    (image / "series_seg.dcm").write_bytes(written[0])
    assert read_image(image).shape == (3, 64, 72)


def test_segment_extras_that_do_not_fit_say_why(folder, simmat):
    result = simmat(*segment("--map", "--seg"))
    assert result.status == 0
    assert "a.tif has no coordinate reference system" in result.err
    assert "a.tif is not a DICOM series" in result.err
    assert not [*Path("out").glob("*.geojson"), *Path("out").glob("*.dcm")]


@pytest.mark.parametrize("listed", [False, True])
def test_segment_contrasts_are_resampled_to_the_first(tmp_path, click, listed):
    nibabel = pytest.importorskip("nibabel")
    first = make_nifti(tmp_path)
    moved = oblique()
    moved[:3, 3] += moved[:3, :3] @ (4, 0, 0)  # by four voxels along x
    other = nibabel.Nifti1Image(np.roll(volume(), -4, axis=-1).T, moved)
    nibabel.save(other, tmp_path / "flair.nii.gz")
    given, image, out = ("--channel-files", tmp_path / "flair.nii.gz"), first, tmp_path / "out"
    if listed:
        given, image = (), tmp_path / "list.csv"
        image.write_text("image,channel_files\nscan.nii.gz,flair.nii.gz\n")
    result = click(image, "--channels", "scan,flair,flair", *given, plane=(1,))
    assert "flair.nii.gz lies elsewhere than scan.nii.gz, and was resampled" in result.err
    check_nifti(first, out / "scan_labels.nii.gz")
    [row] = rows_of(out / "scan_objects.csv")
    assert float(row["mean_flair"]) == pytest.approx(float(row["mean_scan"]), rel=1e-3)


def test_segment_channel_files_that_do_not_fit_are_refused(folder, simmat):
    tifffile.imwrite("b.tif", np.zeros((20, 30), np.uint8))
    result = simmat(*segment("--channel-files", "b.tif"))
    assert result.status == 1
    assert "b.tif has 20 x 30 pixels, but a.tif has 90 x 130" in result.err
    result = simmat(*segment("b.tif", "--channel-files", "b.tif"))
    assert "--channel-files belong to one image, but there are 2" in result.err


def test_segment_ctc_is_read_by_traccuracy(tmp_path, click):
    loaders = pytest.importorskip("traccuracy.loaders")
    axes = {"axes": "TYX"}
    tifffile.imwrite(
        tmp_path / "s.tif", volume(), ome=True, metadata=axes, photometric="minisblack"
    )
    click(tmp_path / "s.tif", "--propagate", "--ctc", plane=(0,))
    result = tmp_path / "out" / "s_RES"
    graph = loaders.load_ctc_data(str(result), str(result / "res_track.txt"), name="s")
    assert graph.segmentation.shape == volume().shape
    assert graph.graph.number_of_nodes() == 3


def test_segment_with_a_file_of_cellpose_says_how_to_export(folder, simmat):
    np.save("a_seg.npy", np.array({"masks": 1}, dtype=object), allow_pickle=True)
    result = simmat(*segment(prompts="a_seg.npy"))
    assert result.status == 1
    assert "in Cellpose choose File > Save masks as PNG/tif" in result.err


def test_segment_shards_divide_one_output_folder(folder, simmat):
    for name in "bcde":
        shutil.copy("a.tif", f"{name}.tif")
        shutil.copy("a.csv", f"{name}.csv")
    for shard in ("1/2", "2/2"):
        words = segment("--shard", shard, image=str(folder), prompts="same-stem")
        assert simmat(*words).status == 0
    made = names_in(folder / "out")
    assert [name for name in made if name.endswith("_labels.tif")] == [
        f"{name}_labels.tif" for name in "abcde"
    ]
    assert {"simmat-summary-1-of-2.csv", "simmat-summary-2-of-2.csv"} <= set(made)
    wrong = simmat(*segment("--shard", "3/2", image=str(folder), prompts="same-stem"))
    assert "write K/N with K from 1 to N" in wrong.err


def test_segment_objects_3d_has_a_row_for_each_object(tmp_path, simmat):
    pytest.importorskip("laptrack")
    known = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, volume(), ome=True, metadata=known, photometric="minisblack")
    rows = {}
    for objects in ("planes", "3d"):
        words = ("--objects", objects, "--auto.points-per-side", "8")
        out = tmp_path / objects
        given = segment(*words, image=str(path), prompts="auto", output=str(out))
        assert simmat(*given).status == 0
        rows[objects] = rows_of(out / "v_objects.csv")
    assert (len(rows["planes"]), len(rows["3d"])) == (3, 1)
    [whole] = rows["3d"]
    assert (whole["bbox_z0_px"], whole["bbox_z1_px"]) == ("0", "3")
    assert float(whole["volume_um3"]) == int(whole["volume_voxels"]) * 0.5


@pytest.mark.parametrize("version", nightly_but(("0.4", "0.5"), "0.5"))
def test_segment_writes_labels_into_the_image_and_lists_them(tmp_path, simmat, version):
    reader = pytest.importorskip("napari_ome_zarr._reader")
    image = make_ome_zarr(tmp_path / "cells.ome.zarr", version)
    words = ("segment", image, "--model", "tiny", "--prompts", "auto", "--inside", "--output")
    before = read_image(image).sha256()
    assert simmat(*words, tmp_path / "out").status == 0
    assert read_image(image).sha256() == before
    inner = read_labels(image / "labels/simmat").data
    np.testing.assert_array_equal(inner, tifffile.imread(tmp_path / "out/cells_labels.tif"))
    kinds = [kind for *_, kind in reader.napari_get_reader(str(image))(str(image))]
    assert kinds == ["image", "labels"]

    listed = image / "labels" / (".zattrs" if version == "0.4" else "zarr.json")
    listed.unlink()  # as a kill between two names leaves it
    kept = simmat(*words, tmp_path / "out", "--resume", "--json")
    assert [each["status"] for each in kept.json["files"]] == ["kept"]
    assert "simmat" in listed.read_text()
    assert simmat(*words, tmp_path / "out").status == 1, "nothing is replaced unasked"
    assert simmat(*words, tmp_path / "out", "--overwrite").status == 0


def test_segment_refuses_labels_within_an_old_ome_zarr(tmp_path, simmat):
    """Labels within it are all that was asked for, and a batch that writes none has failed."""
    image = write(tmp_path / "old.zarr", "0.3", {"axes": ["y", "x"]}, VOLUME[0, 0])
    words = ("segment", image, "--model", "tiny", "--prompts", "auto", "--inside", "--output")
    for more in ((), ("--dry-run",)):
        done = simmat(*words, tmp_path / "out", *more)
        assert done.status == 1
        assert "old.zarr is of 0.3. Convert it, or write them beside it (--zarr)." in done.err


def test_segment_labels_into_another_file_are_left_out(folder, simmat):
    done = simmat(*segment("--inside"))
    assert done.status == 0
    assert "Labels are written within OME-Zarr images only; a.tif is none." in done.err

"""Objects written for other programs, read by them, and read back: every pixel, id and class."""

import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roifile
import shapely.geometry

from napari_simmat.engine.drawing import label_color
from napari_simmat.engine.files import coco, geojson
from napari_simmat.engine.files.object_set import ObjectSection, ObjectSet
from napari_simmat.engine.files.objects import (
    EXTRA_FORMATS,
    OBJECT_FORMATS,
    read_objects,
    write_objects,
)
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.outlines import TOO_COSTLY
from napari_simmat.io.files import sha256_of
from napari_simmat.io.reference import ImageReference

SHAPE = (3, 40, 30)
SIZE = ImageReference(scale={"Z": 2.0, "Y": 0.5, "X": 0.25}, units=dict.fromkeys("ZYX", "um"))
OF_A_PLACE = {"map", "seg"}
"""Formats for images on a map and of a patient only; tests/cli/test_segment_places.py has them."""
OUTLINES = [kind for kind in EXTRA_FORMATS if kind not in ("zarr", *OF_A_PLACE)]


def section(
    label: int, plane: int, *parts: Any, category: str = "", score: float = math.nan
) -> Any:
    mask = np.zeros(SHAPE[1:], bool)
    for part in parts:
        mask[part] = True
    return ObjectSection(label, ObjectMask.of(mask, (plane, 0, 0)), category, score)


def overlapping() -> ObjectSet:
    """Two that overlap, one over two planes and in two parts, one with a hole, one pixel."""
    ring = section(300, 2, np.s_[2:9, 2:9], category="nucleus")
    hollow = ring.mask.mask.copy()
    hollow[0, 3:5, 2:4] = False
    ring = replace(ring, mask=ObjectMask.of(hollow, ring.mask.corner))
    sections = [
        section(1, 0, np.s_[2:12, 3:13], score=0.5),
        section(7, 0, np.s_[8:20, 9:20], category="cell", score=0.75),
        section(7, 1, np.s_[8:20, 9:20], np.s_[35:40, 0:4], category="cell", score=0.75),
        ring,
        section(2**20, 2, np.s_[39, 29]),
    ]
    return ObjectSet(
        sections=sections,
        shape=SHAPE,
        axes="ZYX",
        reference=SIZE,
        classes=("nucleus", "cell"),
        image="a.tif",
    )


def path_of(folder: Path, kind: str) -> Path:
    return folder / f"a{OBJECT_FORMATS[kind].ending}"


def voxels(objects: ObjectSet) -> dict[int, np.ndarray]:
    found = {}
    for one in objects.merged():
        whole = np.zeros(SHAPE, bool)
        whole[one.mask.region] = one.mask.mask
        found[one.label] = whole
    return found


@pytest.mark.parametrize("kind", OUTLINES)
def test_objects_that_overlap_are_read_as_written(tmp_path, kind):
    objects = overlapping()
    write_objects(path_of(tmp_path, kind), objects)
    read = read_objects(path_of(tmp_path, kind), SHAPE, "ZYX")
    assert read.notes == ()
    expected, found = voxels(objects), voxels(read)
    assert found.keys() == expected.keys()
    for label, mask in expected.items():
        np.testing.assert_array_equal(found[label], mask)
    assert {one.label: one.category for one in read.merged()} == {
        one.label: one.category for one in objects.merged()
    }
    if kind != "rois":  # which have no place for it
        scores = {one.label: one.score for one in read.merged()}
        np.testing.assert_equal(scores, {one.label: one.score for one in objects.merged()})


@pytest.mark.parametrize("kind", ["labels", "zarr"])
def test_label_images_keep_pixel_size_and_dtype(tmp_path, kind):
    objects = overlapping()
    path = path_of(tmp_path, kind)
    write_objects(path, objects)
    read = read_objects(path, SHAPE)
    np.testing.assert_array_equal(read.labels(), objects.labels())
    assert read.labels().dtype == np.uint32
    assert (dict(read.reference.scale), dict(read.reference.units)) == (SIZE.scale, SIZE.units)
    assert read.axes == "ZYX"
    if kind == "zarr":
        assert {one.label: one.category for one in read.merged() if one.category} == {
            7: "cell",
            300: "nucleus",
        }


def test_object_set_labels_prefer_the_better_then_the_earlier():
    assert overlapping().labels()[0, 10, 10] == 7
    one, two = section(1, 0, np.s_[0:4, 0:4]), section(2, 0, np.s_[2:6, 2:6])
    equal = ObjectSet(sections=[one, two], shape=SHAPE, axes="ZYX")
    assert equal.labels()[0, 3, 3] == 1


@pytest.mark.parametrize("kind", [kind for kind in OBJECT_FORMATS if kind not in OF_A_PLACE])
def test_write_objects_of_equal_objects_gives_equal_bytes(tmp_path, kind):
    first, second = tmp_path / "1", tmp_path / "2"
    for folder in (first, second):
        write_objects(path_of(folder, kind), overlapping())
        write_objects(path_of(folder, kind), overlapping())  # and replaces what is there
    assert sha256_of(path_of(first, kind)) == sha256_of(path_of(second, kind))
    assert len(list(first.iterdir())) == 1


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own
def test_pycocotools_reads_classes_and_every_pixel(tmp_path):
    coco_tools = pytest.importorskip("pycocotools.coco")
    write_objects(path_of(tmp_path, "coco"), overlapping())
    coco = coco_tools.COCO(path_of(tmp_path, "coco"))
    names = [each["name"] for each in coco.loadCats(coco.getCatIds())]
    assert names == ["object", "nucleus", "cell"]
    cells = coco.loadAnns(coco.getAnnIds(catIds=coco.getCatIds(catNms=["cell"])))
    assert [each["label"] for each in cells] == [7, 7]
    np.testing.assert_array_equal(coco.annToMask(cells[1]), voxels(overlapping())[7][1])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_read_objects_of_coco_reads_compressed_and_polygons(tmp_path):
    coco_masks = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0).random((40, 30)) < 0.4
    counts = coco_masks.encode(np.asfortranarray(random.astype(np.uint8)))["counts"].decode()
    values = {
        "images": [{"id": 5, "file_name": "b.png", "height": 40, "width": 30}],
        "annotations": [
            {"id": 1, "image_id": 5, "segmentation": {"size": [40, 30], "counts": counts}},
            {"id": 2, "image_id": 5, "segmentation": [[2, 3, 7, 3, 7, 9, 2, 9]]},
            {"id": 3, "image_id": 5, "segmentation": []},
        ],
    }
    (tmp_path / "b.json").write_text(json.dumps(values))
    read = read_objects(tmp_path / "b.json")
    assert [one.label for one in read.sections] == [1, 2]
    np.testing.assert_array_equal(read.sections[0].mask.on_plane((), (40, 30)), random)
    assert read.sections[1].mask.box == ((3, 2), (9, 7))
    assert read.notes == ("1 outline without an area on the image left out.",)


def test_read_objects_of_a_data_set_takes_those_of_the_image(tmp_path):
    values: dict[str, Any] = {"images": [], "annotations": []}
    for number, name in enumerate("ab"):
        values["images"].append({"id": number, "file_name": f"{name}.png", "height": 9, "width": 9})
        box = [[number, 0, number + 2, 0, number + 2, 2, number, 2]]
        values["annotations"].append({"id": number, "image_id": number, "segmentation": box})
    (tmp_path / "all.json").write_text(json.dumps(values))
    [only] = read_objects(tmp_path / "all.json", (9, 9), image="b.tif").sections
    assert only.mask.corner == (0, 1)
    with pytest.raises(ValueError, match=r"not exactly one of which is called c\.tif"):
        read_objects(tmp_path / "all.json", (9, 9), image="c.tif")


def test_shapely_reads_valid_polygons_of_the_pixels_area(tmp_path):
    write_objects(path_of(tmp_path, "geojson"), overlapping())
    values = json.loads(path_of(tmp_path, "geojson").read_text())
    assert values["type"] == "FeatureCollection"
    areas = []
    for feature in values["features"]:
        area = shapely.geometry.shape(feature["geometry"])
        assert area.is_valid
        areas.append(area.area)
    assert areas == [one.mask.size for one in overlapping().sections]
    assert values["features"][2]["geometry"]["plane"] == {"c": -1, "z": 1, "t": 0}
    assert values["features"][2]["properties"] == {
        "objectType": "detection",
        "name": "7",
        "classification": {"name": "cell", "color": list(label_color(2))},
        "measurements": {"score": 0.75},
    }


def test_roifile_reads_classes_and_groups(tmp_path):
    write_objects(path_of(tmp_path, "rois"), overlapping())
    found = {roi.name: roi for roi in roifile.roiread(path_of(tmp_path, "rois"))}
    assert found["7-z0002"].properties == {"class": "cell"}
    assert [roi.group for roi in found.values()] == [0, 2, 2, 1, 0]


def test_read_objects_of_imagej_reads_shapes_and_no_lines(tmp_path):
    kinds = roifile.ROI_TYPE
    box = roifile.ImagejRoi(roitype=kinds.RECT, left=3, top=2, right=8, bottom=6, name="0001-0005")
    oval = roifile.ImagejRoi(roitype=kinds.OVAL, left=10, top=10, right=20, bottom=20)
    line = roifile.ImagejRoi(roitype=kinds.LINE)
    with zipfile.ZipFile(tmp_path / "RoiSet.zip", "w") as archive:
        for number, roi in enumerate((box, oval, line)):
            archive.writestr(f"{number}.roi", roi.tobytes())
    read = read_objects(tmp_path / "RoiSet.zip", (40, 30))
    assert read.sections[0].mask.box == ((2, 3), (6, 8))
    assert read.sections[1].mask.box == ((10, 10), (20, 20))
    assert abs(read.sections[1].mask.size - math.pi * 25) < 5
    assert len(read.notes) == 1


@pytest.mark.parametrize(
    ("axes", "expected"), [("TYX", (0, 0, 0, 2)), ("ZYX", (0, 0, 2, 0)), ("QYX", (0, 0, 0, 2))]
)
def test_rois_of_several_channels_are_on_one_frame(tmp_path, axes, expected):
    """ImageJ takes ``position`` as frame and slice both there, and one in C, Z, T as it is."""
    labels = np.zeros((3, 8, 8), np.uint16)
    labels[1, 2:5, 2:5] = 4
    objects = ObjectSet.of_labels(labels, axes, has_channels=True)
    write_objects(path_of(tmp_path, "rois"), objects)
    [roi] = roifile.roiread(path_of(tmp_path, "rois"))
    assert (roi.position, roi.c_position, roi.z_position, roi.t_position) == expected
    read = read_objects(path_of(tmp_path, "rois"), labels.shape, axes)
    np.testing.assert_array_equal(read.labels(), labels)


def test_rois_of_one_channel_are_on_one_image_of_the_stack(tmp_path):
    write_objects(path_of(tmp_path, "rois"), overlapping())
    found = {roi.name: roi for roi in roifile.roiread(path_of(tmp_path, "rois"))}
    roi = found["7-z0002"]
    assert (roi.position, roi.c_position, roi.z_position, roi.t_position) == (2, 0, 0, 0)


def test_write_rois_of_other_axes_keeps_the_planes(tmp_path):
    labels = np.zeros((2, 3, 8, 8), np.uint16)
    labels[1, 2, 2:5, 2:5] = 4
    for kind in OUTLINES:
        for axes in ("TZYX", "QTYX"):
            write_objects(path_of(tmp_path, kind), ObjectSet.of_labels(labels, axes))
            read = read_objects(path_of(tmp_path, kind), labels.shape, axes)
            np.testing.assert_array_equal(read.labels(), labels)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder of them; to pack the bomb takes as long as to refuse all."""
    folder = tmp_path_factory.mktemp("hostile")
    square = [[0, 0], [1e300, 0], [1e300, 1e300], [0, 1e300], [0, 0]]
    deep = "[" * 100_000
    feature = {"geometry": {"type": "Polygon", "coordinates": [[*square, [math.nan, 1]]]}}
    claims = {"id": 1, "height": 2**40, "width": 2**40, "plane": [2**40]}
    runs = {"size": [40, 30], "counts": [0, 2**62, 2**62]}
    texts = {
        "deep.json": deep,
        "nan.geojson": json.dumps([feature]),
        "huge.json": json.dumps({"images": [claims], "annotations": []}),
        "runs.json": json.dumps(
            {
                "images": [{"id": 1, "height": 40, "width": 30}],
                "annotations": [{"image_id": 1, "segmentation": runs}],
            }
        ),
        "other.json": '{"a": 1}',
        "text.zip": "no zip",
        "short.roi": "Iout",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    with zipfile.ZipFile(
        folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as archive:
        for number in range(3):
            archive.writestr(f"{number}.roi", bytes(2**27))
    return folder


def test_read_objects_refuses_a_hostile_file(hostile):
    paths = list(hostile.iterdir())
    assert len(paths) == 8
    for path in paths:
        with pytest.raises(ValueError, match=path.name) as refused:
            read_objects(path, (40, 30))
        assert str(refused.value).endswith(".")
        assert "\n" not in str(refused.value)


def test_read_objects_refuses_those_of_another_image(tmp_path):
    for kind in ("labels", "coco"):
        write_objects(path_of(tmp_path, kind), overlapping())
        with pytest.raises(ValueError, match=r"of an image of 3 x 40 x 30, but this one"):
            read_objects(path_of(tmp_path, kind), (41, 30))
    write_objects(path_of(tmp_path, "rois"), overlapping())
    with pytest.raises(ValueError, match="give the image's shape"):
        read_objects(path_of(tmp_path, "rois"))


def test_write_objects_with_an_unknown_ending_names_the_known(tmp_path):
    with pytest.raises(
        ValueError, match=r"\.tif, \.nii\.gz, \.nrrd, \.mha, \.ome\.zarr, \.json, \.zip"
    ):
        write_objects(tmp_path / "a.txt", overlapping())


def test_read_objects_takes_classes_from_the_table_beside(tmp_path):
    write_objects(path_of(tmp_path, "labels"), overlapping())
    (tmp_path / "a_objects.csv").write_text("label,class,score\n7,cell,0.9\n300,,\nx,y,z\n")
    found = {one.label: one for one in read_objects(path_of(tmp_path, "labels")).merged()}
    assert (found[7].category, found[7].score) == ("cell", 0.9)
    assert math.isnan(found[300].score)


def full_geojson(path, count, side):
    square = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
    geometry = {"type": "Polygon", "coordinates": [square]}
    features = [{"type": "Feature", "geometry": geometry, "properties": {}}] * count
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def full_coco(path, count, side):
    flat = [0, 0, side, 0, side, side, 0, side]
    marked = [{"id": n, "image_id": 1, "segmentation": [flat]} for n in range(1, count + 1)]
    images = [{"id": 1, "height": side, "width": side}]
    path.write_text(json.dumps({"images": images, "annotations": marked, "categories": []}))


@pytest.mark.parametrize(
    ("name", "write", "reader"),
    [("a.geojson", full_geojson, geojson), ("a.json", full_coco, coco)],
)
def test_read_objects_refuses_full_polygons_at_once(tmp_path, monkeypatch, name, write, reader):
    """What their boxes cover is too much, so no pixel need be sought to know it."""
    side = 4000
    write(tmp_path / name, 400, side)
    monkeypatch.setattr(reader, "section_of", lambda *_: pytest.fail("pixels were sought"))
    with pytest.raises(ValueError, match=TOO_COSTLY.format(f" of {name}")):
        read_objects(tmp_path / name, (side, side))

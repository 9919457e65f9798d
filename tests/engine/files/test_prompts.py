import json

import numpy as np
import pytest
import tifffile

from napari_simmat.engine.files.prompt_csv import write_points_csv, write_shapes_csv
from napari_simmat.engine.files.prompts import label_prompts, read_prompts
from napari_simmat.engine.prompts import Prompt

SHAPE = (40, 50)


@pytest.fixture
def written(tmp_path):
    """Write text to a file, return its path."""

    def write(text, name="prompts.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_text(text, encoding=encoding)
        return path

    return write


def test_read_prompts_of_points_is_one_object(written):
    path = written("index,axis-0,axis-1\n0.0,3.0,4.5\n1.0,5.0,6.0\n")
    assert read_prompts(path, SHAPE) == [Prompt(points=[(3, 4.5), (5, 6)])]


def test_read_prompts_of_labeled_points_in_a_stack(written):
    path = written(
        "axis-0,axis-1,axis-2,object,label\n2,3,4,7,1\n2,5,6,9,1\n\n2.4,8,8,7,0\n0,3,4,7,1.0\n"
    )
    assert list(read_prompts(path, (3, *SHAPE))) == [
        Prompt(points=[(3, 4), (8, 8)], labels=[1, 0], object=7, plane=(2,)),
        Prompt(points=[(5, 6)], object=9, plane=(2,)),
        Prompt(points=[(3, 4)], object=7, plane=(0,)),
    ]


def test_read_prompts_of_a_spreadsheets_file(written):
    """Byte-order mark, Windows line ends, quotes, spaces, capitals."""
    path = written('Index, Axis-0,"Axis-1"\r\n0, 3 ,"4"\r\n', encoding="utf-8-sig")
    assert read_prompts(path, SHAPE) == [Prompt(points=[(3, 4)])]


def shapes_csv(kind, vertices, plane=()):
    axes = [f"axis-{axis}" for axis in range(2 + len(plane))]
    rows = [
        ",".join(map(str, [5, kind, number, *plane, *vertex]))
        for number, vertex in enumerate(vertices)
    ]
    return "\n".join([",".join(["index", "shape-type", "vertex-index", *axes]), *rows]) + "\n"


UPRIGHT = [(9.5, 4.5), (9.5, 14.5), (20.5, 14.5), (20.5, 4.5)]


def test_read_prompts_of_a_rectangle_is_a_box(written):
    path = written(shapes_csv("rectangle", UPRIGHT, plane=(1.0,)))
    assert read_prompts(path, (2, *SHAPE)) == [Prompt(box=(10, 5, 21, 15), object=5, plane=(1,))]


def test_read_prompts_of_a_rectangle_beyond_the_border_clips_it(written):
    vertices = [(-8, -5), (-8, 60), (20.5, 60), (20.5, -5)]
    assert read_prompts(written(shapes_csv("rectangle", vertices)), SHAPE) == [
        Prompt(box=(0, 0, 21, 50), object=5)
    ]


def test_read_prompts_of_a_turned_rectangle_is_box_and_mask(written):
    path = written(shapes_csv("rectangle", [(10, 20), (20, 30), (30, 20), (20, 10)]))
    (prompt,) = read_prompts(path, SHAPE)
    assert prompt.box == (10, 10, 31, 31)
    assert prompt.mask[20, 20]
    assert not prompt.mask[12, 12]
    assert prompt.mask.sum() == pytest.approx(200, abs=25)  # its sides are 10 sqrt(2) long


def test_read_prompts_of_a_polygon_is_box_and_mask(written):
    vertices = [(1.5, 1.5), (1.5, 7.5), (4.5, 7.5), (4.5, 4.5), (8.5, 4.5), (8.5, 1.5)]
    (prompt,) = read_prompts(written(shapes_csv("polygon", vertices)), SHAPE)
    expected = np.zeros(SHAPE, dtype=bool)
    expected[2:5, 2:8] = True  # an L
    expected[5:9, 2:5] = True
    assert np.array_equal(prompt.mask, expected)
    assert prompt.box == (2, 2, 9, 8)


def test_read_prompts_of_labels_is_a_mask_for_each(tmp_path):
    labels = np.zeros((2, *SHAPE), dtype=np.uint16)
    labels[0, 3:6, 4:9] = 7
    labels[0, 20:, 20:] = 3
    labels[1, 3:6, 4:9] = 7
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, labels, photometric="minisblack")
    prompts = read_prompts(path, (2, *SHAPE))
    assert [(prompt.object, prompt.plane) for prompt in prompts] == [
        (3, (0,)),
        (7, (0,)),
        (7, (1,)),
    ]
    assert len(prompts) == 3
    assert np.array_equal(prompts[0].mask, labels[0] == 3)
    with_all_axes = read_prompts(path, (1, 2, *SHAPE))
    assert [prompt.plane for prompt in with_all_axes] == [(0, 0), (0, 0), (0, 1)]
    assert np.array_equal(with_all_axes[0].mask, labels[0] == 3)
    assert np.array_equal(prompts[-1].mask, labels[1] == 7)
    assert prompts[1:] == list(prompts)[1:]


def qupath(outline, **properties):
    """A feature as QuPath exports it; vertices x, y in pixels, whose corners are whole numbers."""
    geometry = {"type": "Polygon", "coordinates": [[*outline, outline[0]]]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


SQUARE = [[5, 3], [15, 3], [15, 11], [5, 11]]


def test_rectangles_drawn_in_qupath_are_boxes(written):
    drawn = {"name": "Tumor"}
    features = [
        qupath(SQUARE, objectType="annotation", classification=drawn),
        qupath([[15.3, 3.4], [15.3, 11], [5, 11], [5, 3.4]]),  # the other way round, not on pixels
        qupath([[45, 30], [60, 30], [60, 70], [45, 70]], objectType="annotation"),  # cut off
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    prompts = read_prompts(written(text, "drawn.geojson"), SHAPE)
    assert [prompt.box for prompt in prompts] == [(3, 5, 11, 15), (3, 5, 11, 15), (30, 45, 40, 50)]
    assert all(prompt.mask is None for prompt in prompts)
    assert prompts.categories == {1: "Tumor"}
    assert not prompts.has_masks


@pytest.mark.parametrize(
    ("outline", "kind"),
    [
        (SQUARE, "detection"),
        (SQUARE, "cell"),
        ([[5, 3], [15, 4], [15, 11], [5, 11]], "annotation"),
        ([[10, 3], [15, 8], [10, 13], [5, 8]], "annotation"),
        ([*SQUARE, [5, 7]], "annotation"),
    ],
    ids=["detection", "cell", "slanted", "turned", "five"],
)
def test_other_outlines_of_qupath_are_masks(written, outline, kind):
    collection = {"features": [qupath(SQUARE), qupath(outline, objectType=kind)]}
    prompts = read_prompts(written(json.dumps(collection), "drawn.geojson"), SHAPE)
    assert [prompt.box is None for prompt in prompts] == [False, True]
    assert [prompt.mask is None for prompt in prompts] == [True, False]
    assert prompts.has_masks


def test_rectangle_of_imagej_is_a_box(tmp_path):
    roifile = pytest.importorskip("roifile")
    kinds = roifile.ROI_TYPE
    box = roifile.ImagejRoi(roitype=kinds.RECT, left=5, top=3, right=15, bottom=11, name="7")
    oval = roifile.ImagejRoi(roitype=kinds.OVAL, left=5, top=3, right=15, bottom=11, name="8")
    roifile.roiwrite(tmp_path / "drawn.zip", [box, oval])
    prompts = read_prompts(tmp_path / "drawn.zip", SHAPE)
    assert prompts[0].box == (3, 5, 11, 15)
    assert (prompts[0].object, prompts[0].mask) == (7, None)
    assert prompts[1].box is None
    assert 50 < prompts[1].mask.sum() < 80


def test_write_csv_is_read_as_written(tmp_path):
    prompts = [
        Prompt(points=[(1.25, 2), (3, 4)], labels=[1, 0], box=(1, 2, 9, 8), object=4, plane=(1,)),
        Prompt(points=[(9, 9)], box=(0, 0, 40, 50), object=2, plane=(0,)),
    ]
    write_points_csv(tmp_path / "points.csv", prompts)
    write_shapes_csv(tmp_path / "shapes.csv", prompts)
    points = read_prompts(tmp_path / "points.csv", (2, *SHAPE))
    boxes = read_prompts(tmp_path / "shapes.csv", (2, *SHAPE))
    parts = zip(points, boxes, strict=True)
    assert [
        Prompt(points.points, points.labels, boxes.box, object=points.object, plane=points.plane)
        for points, boxes in parts
    ] == prompts
    assert [prompt.object for prompt in boxes] == [4, 2]


def test_write_csv_without_objects_keeps_prompts_apart(tmp_path):
    write_points_csv(tmp_path / "points.csv", [Prompt(points=[(1, 2)], labels=[0])])
    assert (tmp_path / "points.csv").read_text() == "index,axis-0,axis-1,label\n0,1.0,2.0,0\n"
    assert read_prompts(tmp_path / "points.csv", SHAPE) == [Prompt(points=[(1, 2)], labels=[0])]
    prompts = [Prompt(points=[(1, 2)]), Prompt(points=[(3, 4)]), Prompt(points=[(5, 6)], object=1)]
    write_points_csv(tmp_path / "points.csv", prompts)
    read = read_prompts(tmp_path / "points.csv", SHAPE)
    assert [(prompt.points, prompt.object) for prompt in read] == [
        (((1, 2),), 2), (((3, 4),), 3), (((5, 6),), 1),
    ]  # fmt: skip


def test_write_csv_of_different_stacks_is_refused(tmp_path):
    prompts = [Prompt(points=[(1, 2)]), Prompt(points=[(3, 4)], plane=(1,))]
    with pytest.raises(ValueError, match="write those of one image to a file"):
        write_points_csv(tmp_path / "points.csv", prompts)
    assert not list(tmp_path.iterdir())


POINTS = "index,axis-0,axis-1,label,object\n0,3,4,1,1\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"prompts.csv is empty; its first line must name the columns"),
        ("index,axis-0,axis-1\n", "prompts.csv holds no prompt; add at least a point or a shape"),
        ("index;axis-0;axis-1\n0;1;2\n", "line 1: the columns are separated by semicolons"),
        ("x,y\n1,2\n", "prompts.csv, line 1: the columns are x, y; a file of prompts has index"),
        ("axis-0,axis-1,axis-1\n1,2,3\n", "line 1: the columns are .* each once"),
        ("axis-0,axis-1,axis-2\n1,2,3\n", r"have 3 axes, but the image has 2 without .*\(40 x 50"),
        ("shape-type,axis-0,axis-1\n", "line 1: the column index of the shapes is missing"),
        (POINTS + "1,3\n", "prompts.csv, line 3: there are 2 values for 5 columns"),
        (POINTS + "\n1,3,east,1,1\n", "line 4: axis-1 is 'east'; a coordinate must be a finite nu"),
        (POINTS + "1,nan,4,1,1\n", "line 3: axis-0 is 'nan'"),
        (POINTS + "1,40,4,1,1\n", "line 3: the point y 40, x 4 lies outside the image of 40 x 50"),
        (POINTS + "1,3,4,2,1\n", r"line 3: the label is 2; it must be 1 \(object\) or 0"),
        (POINTS + "1,3,4,yes,1\n", "line 3: the label is 'yes'; it must be a whole number"),
        (POINTS + "1,3,4,1,1.5\n", "line 3: the object is '1.5'; it must be a whole number"),
        (POINTS + '1,"3"x,4,1,1\n', "line 3: this is no CSV"),
        (shapes_csv("path", UPRIGHT), "line 2: a path encloses nothing; draw a rectangle"),
        (shapes_csv("line", UPRIGHT[:2]), "line 2: a line encloses nothing"),
        (shapes_csv("rectangle", UPRIGHT[:3]), "line 2: the rectangle has 3 vertices; it needs 4"),
        (shapes_csv("polygon", UPRIGHT[:2]), "polygon has 2 vertices; it needs 3 or more"),
        (
            shapes_csv("rectangle", [(50, 60), (50, 70), (55, 70), (55, 60)]),
            "line 2: the box y 50..56, x 60..71 lies outside the image",
        ),
        (
            shapes_csv("rectangle", UPRIGHT) + "5,ellipse,4,1,1\n",
            "line 6: shape 5 changes its type or plane",
        ),
    ],
)
def test_read_prompts_refuses_a_malformed_file(written, text, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        read_prompts(written(text), SHAPE)
    assert "\n" not in str(refusal.value)


def test_read_prompts_refuses_planes_that_do_not_fit(written):
    path = written("axis-0,axis-1,axis-2\n1,3,4\n2.5,3,4\n")
    with pytest.raises(
        ValueError, match=r"line 3: axis-0 is 2.5, but the image has 3 planes there"
    ):
        read_prompts(path, (3, *SHAPE))
    vertices = [(0, 9, 4), (0, 9, 14), (1, 20, 14), (1, 20, 4)]
    text = shapes_csv("polygon", [vertex[1:] for vertex in vertices], plane=(0,))
    text = text.replace("5,polygon,3,0", "5,polygon,3,1")
    with pytest.raises(ValueError, match="line 5: shape 5 changes its type or plane"):
        read_prompts(written(text), (2, *SHAPE))


def test_read_prompts_refuses_what_is_no_text_or_missing(tmp_path):
    (tmp_path / "prompts.csv").write_bytes(b"index,axis-0,axis-1\n0,\xff\xfe,3\n")
    with pytest.raises(ValueError, match=r"prompts.csv is no text in UTF-8 .*; save it as CSV"):
        read_prompts(tmp_path / "prompts.csv", SHAPE)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*points.csv; check its name"):
        read_prompts(tmp_path / "points.csv", SHAPE)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.ones((30, 50), dtype=np.uint8), "The label image has shape 30 x 50, but .* 40 x 50"),
        (np.zeros(SHAPE, dtype=np.uint8), "holds no label, only background; paint at least one"),
        (np.full(SHAPE, -1), "holds the label -1; labels are whole numbers from 1"),
    ],
)
def test_read_prompts_refuses_labels_without_use(labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        label_prompts(labels, SHAPE)


@pytest.fixture
def napari_writers():
    return pytest.importorskip("napari_builtins.io._write", reason="needs napari")


def test_read_prompts_of_napari_points(napari_writers, tmp_path):
    napari = pytest.importorskip("napari")
    layer = napari.layers.Points(
        [(1, 3.5, 4), (1, 5, 6), (0, 7, 8)], features={"label": [1, 0, 1], "object": [2, 2, 5]}
    )
    data, attributes, _ = layer.as_layer_data_tuple()
    path = napari_writers.napari_write_points(str(tmp_path / "points.csv"), data, attributes)
    assert read_prompts(path, (2, *SHAPE)) == [
        Prompt(points=[(3.5, 4), (5, 6)], labels=[1, 0], object=2, plane=(1,)),
        Prompt(points=[(7, 8)], object=5, plane=(0,)),
    ]


def test_read_prompts_of_napari_shapes(napari_writers, tmp_path):
    napari = pytest.importorskip("napari")
    layer = napari.layers.Shapes()
    layer.add_rectangles(np.array(UPRIGHT))
    layer.add_ellipses(np.array(UPRIGHT))
    layer.add_polygons(np.array([(1.5, 1.5), (1.5, 7.5), (8.5, 4.5)]))
    data, attributes, _ = layer.as_layer_data_tuple()
    path = napari_writers.napari_write_shapes(str(tmp_path / "shapes.csv"), data, attributes)
    box, ellipse, polygon = read_prompts(path, SHAPE)
    assert box == Prompt(box=(10, 5, 21, 15), object=0)
    assert (ellipse.box, ellipse.object, polygon.object) == ((10, 5, 21, 15), 1, 2)
    assert polygon.box == (2, 2, 9, 8)


def test_write_csv_is_read_by_napari(tmp_path):
    reader = pytest.importorskip("napari_builtins.io._read", reason="needs napari")
    prompts = [
        Prompt(points=[(1, 2), (3, 4)], labels=[1, 0], box=(10, 5, 21, 15), object=6),
        Prompt(points=[(5, 6)], box=(0, 0, 3, 3), object=2),
    ]
    write_points_csv(tmp_path / "points.csv", prompts)
    write_shapes_csv(tmp_path / "shapes.csv", prompts)
    points, attributes, kind = reader.csv_to_layer_data(str(tmp_path / "points.csv"))
    assert kind == "points"
    assert points.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert {name: list(values) for name, values in attributes["properties"].items()} == {
        "label": [1, 0, 1], "object": [6, 6, 2],
    }  # fmt: skip
    shapes, attributes, kind = reader.csv_to_layer_data(str(tmp_path / "shapes.csv"))
    assert (kind, attributes["shape_type"]) == ("shapes", ["rectangle", "rectangle"])
    assert sorted(map(tuple, shapes[0].tolist())) == sorted(UPRIGHT)

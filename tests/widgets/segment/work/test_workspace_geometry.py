"""Where prompts and objects lie: scale, translate, units, planes, channel axes, other layers."""

import numpy as np
import pytest
from napari.layers import Image, Labels, Points
from qtpy.QtCore import Qt

from napari_simmat.widgets.placement import ImageGeometry, layer_matrix
from napari_simmat.widgets.segment.work.object_actions import changed_text
from tests.widgets.scenes import CENTERS, discs, gray, iou


def test_commit_keeps_scale_translate_affine_and_units(window):
    _, labels = discs()
    options = {
        "scale": (0.5, 0.25),
        "translate": (100, -30),
        "rotate": 10,
        "affine": [[1, 0, 3], [0.1, 1, 5], [0, 0, 1]],
        "units": ("um", "um"),
        "axis_labels": ("row", "column"),
    }
    image = window.viewer.add_image(gray(), name="discs", **options)
    window.open_widget()
    window.viewer.reset_view()
    window.idle()
    world = image.data_to_world(CENTERS[1])
    window.add_object(*world)
    objects = window.viewer.layers["SimMAT objects"]
    assert iou(objects.data == 1, labels == 2) > 0.8
    for name in ("SimMAT points", "SimMAT boxes", "SimMAT preview", "SimMAT objects"):
        layer = window.viewer.layers[name]
        assert np.allclose(layer_matrix(layer), layer_matrix(image)), name
        assert layer.units == image.units, name
        assert layer.axis_labels == ("row", "column"), name


@pytest.mark.parametrize("channels", [0, 2])
def test_pixel_size_set_late_is_that_of_all_that_is_shown(window, channels):
    image = np.stack([gray()] * channels) if channels else gray()
    names = ("channel", "y", "x")[-image.ndim :]
    layer = window.open(image, name="discs", axis_labels=names)
    window.add_object(*CENTERS[0])
    window.type_class("nucleus")
    model = window.tab.object_panel.table.model()
    pixels = int((window.objects == 1).sum())
    assert model.index(0, 2).data() == str(pixels)
    layer.scale, layer.translate = (1, 0.5, 2)[-image.ndim :], (0, 10, 20)[-image.ndim :]
    window.idle()
    layer.units = "um"
    window.idle()
    assert model.headerData(2, Qt.Orientation.Horizontal) == "µm²"
    assert float(model.index(0, 2).data()) == pixels, "0.5 x 2 um"
    for other in window.viewer.layers:
        if isinstance(other, Labels) or other.name == "SimMAT points":
            assert np.allclose(other.data_to_world((0, 0)), (10, 20)), other.name
            assert np.allclose(other.data_to_world((2, 2)), (11, 24)), other.name
            assert {str(unit) for unit in other.units} == {"micrometer"}, other.name
    window.key_over(*layer.data_to_world((0, *CENTERS[0])[-image.ndim :])[-2:], Qt.Key.Key_E)
    assert window.status.text.startswith("Editing object 1"), "it lies under the mouse"


def test_objects_that_were_moved_stay_when_the_image_moves(window):
    layer = window.open(gray(), name="discs")
    window.add_object(*CENTERS[0])
    objects = window.viewer.layers["SimMAT objects"]
    objects.translate = (5, 5)
    layer.scale = (2, 2)
    window.idle()
    assert objects.scale.tolist() == [1, 1]
    assert objects.translate.tolist() == [5, 5]


def test_prompts_on_a_layer_of_another_scale_hit_their_pixel(window):
    _, labels = discs()
    window.viewer.add_image(gray(), name="discs", scale=(2, 2), translate=(10, 20))
    points = window.viewer.add_points(ndim=2, name="mine", scale=(0.5, 1), translate=(-5, 3))
    window.start()
    window.tab.points.set_value(points)
    window.tab.points.chosen.emit(points)
    world = np.array(CENTERS[3]) * 2 + (10, 20)
    points.add((world - (-5, 3)) / (0.5, 1))
    window.idle()
    assert np.allclose(window.workspace.session.prompts.points, [CENTERS[3]])
    assert iou(window.mask, labels == 4) > 0.7
    asked = window.controller.inference.request
    window.viewer.add_image(np.zeros((9, 9)), name="another")
    window.idle()
    assert window.controller.inference.request is asked, "nothing that matters has changed"
    window.viewer.layers.selection.active = points
    window.commit()
    assert len(points.data) == 0
    window.undo()
    assert np.allclose(points.data, [(world - (-5, 3)) / (0.5, 1)])


def test_prompts_and_objects_stay_on_their_plane(window):
    _, labels = discs()
    stack = np.stack([np.zeros_like(gray()), gray(), gray()[::-1]])
    window.viewer.add_image(stack, name="stack", scale=(3, 1, 1))
    window.open_widget()
    window.show_plane(1)
    window.click(*CENTERS[0])
    preview = window.preview
    assert iou(preview[1] > 0, labels == 1) > 0.8
    assert not preview[[0, 2]].any()

    window.show_plane(2)
    assert not window.workspace.session.prompts.on((2,))
    flipped = labels[::-1]
    center = (199 - CENTERS[1][0], CENTERS[1][1])
    window.click(*center)
    assert iou(preview[2] > 0, flipped == 2) > 0.8
    window.commit()
    objects = window.viewer.layers["SimMAT objects"]
    assert iou(objects.data[2] == 1, flipped == 2) > 0.8
    assert not objects.data[:2].any()
    assert preview[1].any(), "the other plane keeps its prompts"
    assert len(window.workspace.session.prompts.points) == 1

    window.show_plane(1)
    encodes = window.controller.inference.service.encodes
    window.commit()
    assert iou(objects.data[1] == 2, labels == 1) > 0.8
    assert window.controller.inference.service.encodes == encodes
    assert np.allclose(objects.scale, (3, 1, 1))


@pytest.fixture
def thick(window):
    """The widget on three planes of two units; the slider goes in the steps of a finer image."""
    window.viewer.add_image(np.zeros((12, 200, 220), np.uint8), name="fine", scale=(0.5, 1, 1))
    window.viewer.add_image(np.stack([gray()] * 3), name="thick", scale=(2, 1, 1))
    window.start()
    return window


@pytest.mark.slow
def test_plane_between_two_is_the_one_that_is_shown(window):
    """The slider goes in the steps of the finest image that is open."""
    image = np.zeros((3, 200, 220), np.uint8)
    image[0] = gray()
    window.viewer.add_image(np.zeros((6, 200, 220), np.uint8), name="fine")
    window.viewer.add_image(image, name="thick", scale=(2, 1, 1))
    window.open_widget()
    window.viewer.dims.set_point(0, 1)  # half-way to the second plane; napari shows the first
    window.viewer.reset_view()
    window.idle()
    window.click(*CENTERS[0])
    assert iou(window.preview[0] > 0, discs()[1] == 1) > 0.8
    window.commit()
    objects = window.objects
    assert np.flatnonzero(objects.any((1, 2))).tolist() == [0]
    window.key_over(*CENTERS[0], Qt.Key.Key_D, Qt.KeyboardModifier.ShiftModifier)
    assert not objects.any()


@pytest.mark.parametrize(("rests", "plane"), [(1, 0), (1.5, 1), (2.5, 1)])
def test_box_between_two_planes_is_drawn_on_the_shown_one(thick, rests, plane):
    """napari alone fails there: it draws on a plane that it does not show."""
    y, x = CENTERS[0]
    thick.viewer.dims.set_point(0, rests)
    thick.idle()
    thick.drag(y - 20, x - 20, y + 20, x + 20)
    assert np.flatnonzero(thick.mask.any((1, 2))).tolist() == [plane]
    [box] = thick.workspace.prompt_layers.boxes.data
    assert (box[:, 0] == plane).all()
    assert thick.viewer.dims.point[0] == 2 * plane, "the slider is where the box is"


def test_line_between_two_planes_is_drawn_on_the_shown_one(thick):
    y, x = CENTERS[0]
    thick.viewer.dims.set_point(0, 1.5)
    thick.stroke([(y, x - 8), (y, x + 8)])
    [line] = thick.workspace.prompt_layers.boxes.data
    assert (line[:, 0] == 1).all()
    assert thick.mask[1].any()


def test_prompt_layer_removed_comes_back_with_its_prompts(window):
    window.viewer.add_image(np.stack([gray(), gray()]), name="stack")
    window.open_widget()
    window.show_plane(0)
    window.click(*CENTERS[0])
    window.show_plane(1)
    window.click(*CENTERS[1])
    before = window.preview.copy()
    window.viewer.layers.selection.active = window.viewer.layers["SimMAT points"]
    window.viewer.layers.remove_selected()  # as napari's button does, though it is not listed
    window.idle()
    assert len(window.viewer.layers["SimMAT points"].data) == 2
    assert np.array_equal(window.preview, before)
    assert window.tab.buttons.tools["point"].isChecked(), "the tool is in hand again"
    window.viewer.layers.remove("SimMAT preview")
    window.idle()
    assert np.array_equal(window.preview, before)


@pytest.mark.slow
def test_channel_axis_is_no_axis_of_the_objects(window):
    image, labels = discs()
    stack = np.stack([255 * image, 255 * image[:, :], 200 * image]).astype(np.uint8)
    layer = window.viewer.add_image(
        stack, name="stack", axis_labels=("channel", "y", "x"), scale=(1, 2, 2)
    )
    window.open_widget()
    assert [source.part for source in window.tab.channels.value()] == [0, 1, 2]
    window.idle()
    window.add_object(*(2 * np.array(CENTERS[1])))
    objects = window.viewer.layers["SimMAT objects"]
    assert objects.data.shape == (200, 220)
    assert iou(objects.data == 1, labels == 2) > 0.8
    assert np.allclose(objects.scale, (2, 2))
    assert objects.axis_labels == ("y", "x")
    assert objects.units == layer.units[1:]


def test_click_in_3d_leaves_no_prompt(window):
    window.open(np.stack([gray()] * 2), name="stack")
    window.click(*CENTERS[1])
    made = window.workspace.session.prompts
    window.viewer.dims.ndisplay = 3
    window.click(*CENTERS[0])
    assert "leave the 3D view" in window.status.text
    assert len(window.viewer.layers["SimMAT points"].data) == 1
    window.viewer.dims.ndisplay = 2
    window.idle()
    assert window.workspace.session.prompts == made
    window.undo()
    assert not window.workspace.session.prompts, "nothing else is to be undone"


def test_objects_in_3d_are_changed_from_the_table(window):
    window.open(np.stack([gray()] * 2), name="stack")
    for y, x in CENTERS[:3]:
        window.click(y, x)
        window.tab.act("commit")
    window.idle()
    labels = window.viewer.layers["SimMAT objects"]
    actions = window.controller.objects
    window.viewer.dims.ndisplay = 3
    window.idle()

    def act(action, *chosen):
        actions.chosen = chosen
        action()
        window.idle()
        return set(np.unique(labels.data)) - {0}

    assert act(actions.edit, 1) == {1, 2, 3}
    assert "leave the 3D view" in window.status.text
    assert act(actions.merge, 1, 2) == {1, 3}
    assert (window.status.kind, window.status.text) == ("done", changed_text("merging", [1, 2]))
    assert len(act(actions.split, 1)) == 3
    assert window.status.text == changed_text("splitting", [1])
    assert act(actions.delete, 3) == set(np.unique(labels.data)) - {0, 3}
    assert window.status.text == changed_text("deletion", [3])
    for undone in ("deletion of 3", "splitting of 1", "merging of 1, 2"):
        act(window.workspace.undo)
        assert window.status.text.startswith(f"Undone: {undone}")
    assert set(np.unique(labels.data)) == {0, 1, 2, 3}


TURN = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
"""Within the plane: napari shows no oblique slices."""
TRANSFORMS = [
    {},
    {"scale": (2.0, 0.5, 3.0), "translate": (1.0, 2.0, 3.0)},
    {"rotate": TURN, "shear": (0, 0, 0.3), "scale": (1.0, 2.0, 3.0)},
    {"affine": np.array([[3, 0, 0, 4], [0, 2, 0.3, 5], [0, 0.1, 1, 6], [0, 0, 0, 1.0]])},
]


@pytest.mark.parametrize("options", TRANSFORMS)
def test_geometry_to_a_layer_and_back_is_exact(options):
    image = Image(np.zeros((4, 5, 6)), **options)
    place = ImageGeometry(image)
    other = Points(ndim=3, scale=(3, 1, 0.5), translate=(4, 5, 6))
    positions = np.random.default_rng(0).normal(size=(7, 3))
    there = place.to_layer(other, positions, (0, 0, 0))
    assert np.allclose(place.from_layer(other, there, (0, 0, 0)), positions)
    world = image.data_to_world(positions[0])
    assert np.allclose(other.data_to_world(there[0]), world)


@pytest.mark.parametrize("options", TRANSFORMS)
def test_geometry_options_place_a_layer_on_the_image(options):
    place = ImageGeometry(Image(np.zeros((4, 5, 6)), **options))
    assert place.lies_on(Labels(np.zeros((4, 5, 6), int), **place.layer_options()))
    assert not place.lies_on(Labels(np.zeros((4, 5, 6), int), translate=(9, 9, 9)))


def test_geometry_of_a_flat_layer_is_the_shown_plane():
    place = ImageGeometry(Image(np.zeros((4, 5, 6)), scale=(2, 1, 1)))
    flat = Points(ndim=2)
    positions = place.from_layer(flat, np.array([[3.0, 2.0]]), (6.0, 0.0, 0.0))
    assert np.allclose(positions, [[3, 3, 2]])


def test_geometry_of_a_layer_with_more_axes_takes_the_slider():
    place = ImageGeometry(Image(np.zeros((5, 6))))
    deep = Points(ndim=3, scale=(2, 1, 1))
    assert np.allclose(place.to_layer(deep, np.array([[1.0, 2.0]]), (8.0, 0, 0)), [[4, 1, 2]])
    assert np.allclose(place.from_layer(deep, np.array([[4.0, 1.0, 2.0]]), (8.0, 0, 0)), [[1, 2]])

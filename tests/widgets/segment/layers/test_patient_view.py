"""Planes of a patient as radiologists read them: what is turned is the canvas alone."""

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt

from napari_simmat.widgets.segment.layers.patient_view import PatientView
from tests.widgets.scenes import iou
from tests.widgets.segment.work.test_propagation import CENTER, ball

AXIAL, CORONAL, SAGITTAL = (
    "axial plane, L on the left, P at the top",
    "coronal plane, L on the left, I at the top",
    "oblique sagittal plane, P on the left, I at the top",
)


def camera(viewer: Any) -> Any:
    return getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9


def directions_of(viewer: Any) -> tuple[str, ...]:
    """How rows and columns count on the canvas."""
    return tuple(each.value for each in camera(viewer).orientation2d)


class Geometry:
    """As much of an image's geometry as is asked for."""

    def __init__(self, plane: str) -> None:
        self.plane_name = plane


@pytest.mark.parametrize(
    ("convention", "plane", "directions"),
    [
        ("radiological", AXIAL, ("up", "left")),
        ("neurological", AXIAL, ("up", "right")),
        ("as stored", AXIAL, ("down", "right")),
        ("radiological", CORONAL, ("up", "left")),
        ("neurological", CORONAL, ("up", "right")),
        ("radiological", SAGITTAL, ("up", "left")),
        ("neurological", SAGITTAL, ("up", "left")),
        ("radiological", "axial plane, R on the left, A at the top", ("down", "right")),
        ("radiological", "axial plane, A on the left, R at the top", ("down", "right")),
        ("radiological", "", ("down", "right")),
    ],
)
def test_canvas_is_turned_by_the_convention(convention, plane, directions):
    viewer: Any = ViewerModel()
    view = PatientView(viewer)
    view.convention = convention
    view.show(Geometry(plane))
    assert directions_of(viewer) == directions
    view.release()
    assert directions_of(viewer) == ("down", "right")


def test_words_say_what_is_seen():
    viewer: Any = ViewerModel()
    view = PatientView(viewer)
    view.show(Geometry(AXIAL))
    assert view.words("Axial plane, L on the left, P at the top.") == (
        "Axial plane, R on the left, A at the top."
    )
    viewer.dims.ndisplay = 3
    view.show(Geometry(AXIAL))
    assert view.words("L on the left") == "L on the left", "3D is not mirrored"


def rolled(order: tuple[int, ...]) -> Any:
    viewer: Any = ViewerModel()
    viewer.add_image(np.zeros((3, 4, 5)))
    viewer.dims.order = order
    return viewer


def test_rolled_plane_is_put_upright():
    """napari's third view has x along its rows and z along its columns."""
    viewer = rolled((1, 2, 0))
    view = PatientView(viewer)
    view.show(Geometry(CORONAL))
    assert tuple(viewer.dims.order) == (1, 0, 2)
    assert directions_of(viewer) == ("up", "left")
    assert view.words(CORONAL) == "coronal plane, R on the left, S at the top"


def test_three_rolls_show_three_planes_and_lead_back():
    """A plane put upright is an odd order of the axes, from which rolls reach no even one."""
    viewer = rolled((0, 1, 2))
    view = PatientView(viewer)
    planes = {frozenset((1, 2)): AXIAL, frozenset((0, 1)): SAGITTAL, frozenset((0, 2)): CORONAL}

    def show(*_: object) -> None:
        view.show(Geometry(planes[frozenset(viewer.dims.displayed)]))

    viewer.dims.events.order.connect(show)
    show()
    for _ in range(2):
        for order in ((2, 0, 1), (1, 0, 2), (0, 1, 2)):
            viewer.dims.roll()
            assert tuple(viewer.dims.order) == order
            assert directions_of(viewer) == ("up", "left")


def test_plane_that_is_transposed_is_named_as_seen():
    viewer = rolled((1, 0, 2))
    view = PatientView(viewer)
    view.show(Geometry(CORONAL))
    viewer.dims.order = (1, 2, 0)
    view.show(Geometry(CORONAL))
    assert tuple(viewer.dims.order) == (1, 2, 0)
    assert directions_of(viewer) == ("down", "right")
    assert view.words(CORONAL) == "coronal plane, I on the left, L at the top"


def test_planes_as_stored_are_not_transposed():
    viewer = rolled((1, 2, 0))
    view = PatientView(viewer)
    view.convention = "as stored"
    view.show(Geometry(CORONAL))
    assert tuple(viewer.dims.order) == (1, 2, 0)
    assert view.words(CORONAL) == "coronal plane, I on the left, L at the top"


def test_a_canvas_that_the_user_turned_stays_for_other_images():
    viewer: Any = ViewerModel()
    camera(viewer).orientation2d = ("up", "right")
    view = PatientView(viewer)
    view.show(Geometry(""))
    view.release()
    assert directions_of(viewer) == ("up", "right")


@pytest.mark.slow
@pytest.mark.real_window
def test_a_click_on_a_turned_volume_is_where_it_was_pressed(window, tmp_path):
    nibabel: Any = pytest.importorskip("nibabel")
    image, mask = ball()
    path = tmp_path / "ball.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image.T, np.diag([10, 10, 20, 1])), path)
    window.viewer.open(path, plugin="napari-simmat")
    window.start()
    window.viewer.reset_view()
    window.show_plane(3)
    assert "R on the left, A at the top" in window.status.text
    layer = window.viewer.layers["ball"]
    window.click(*layer.data_to_world((3, *CENTER))[-2:])
    assert iou(window.mask[3], mask[3]) > 0.8
    window.push(window.tab.stack_panel.start)
    window.commit()
    table = window.tab.object_panel.table.model()
    assert table.headerData(2, Qt.Orientation.Horizontal) == "ml"
    voxels = (window.objects == 1).sum()
    assert float(table.index(0, 2).data()) == pytest.approx(2 * voxels, rel=1e-3), "2 ml a voxel"
    window.tab.planes.setCurrentIndex(1)
    window.tab.planes.activated.emit(1)
    assert directions_of(window.viewer) == ("up", "right")
    window.viewer.dims.ndisplay = 3
    assert directions_of(window.viewer) == ("down", "right")

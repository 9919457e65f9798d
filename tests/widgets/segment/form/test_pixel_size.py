"""A size of pixels that the user types counts in the table, on the layers and in what is saved."""

import numpy as np
import pytest

from napari_simmat.io.reference import ImageReference, World
from napari_simmat.widgets.placement import REFERENCE
from napari_simmat.widgets.segment.form.pixel_size import PLACED, state_pixel_size
from tests.widgets.scenes import CENTERS, discs


def typed(window, text: str, unit: str) -> None:
    field = window.tab.pixel_size
    field.unit.setCurrentText(unit)
    field.number.setText(text)
    field.number.editingFinished.emit()
    window.idle()


def test_stated_size_counts_everywhere(window):
    layer = window.open(discs()[0], name="sem")
    window.add_object(*CENTERS[0])
    before = window.objects.copy()
    typed(window, "5.5", "nm")
    assert layer.scale.tolist() == [5.5, 5.5]
    assert [f"{unit:~}" for unit in layer.units] == ["nm", "nm"]
    objects = window.viewer.layers["SimMAT objects"]
    assert objects.scale.tolist() == [5.5, 5.5]
    np.testing.assert_array_equal(window.objects, before)
    assert before.any()
    reference = window.workspace.session.geometry.kept_reference()
    assert reference.of("X") == (5.5, "nm")
    assert window.tab.pixel_size.number.text() == "5.5"


def test_size_of_no_number_is_refused_in_a_sentence(window):
    layer = window.open(discs()[0])
    typed(window, "five", "nm")
    assert "The pixel size five is none" in window.status.text
    assert layer.scale.tolist() == [1, 1]


def test_placed_image_keeps_its_size(window):
    layer = window.open(discs()[0])
    placed = ImageReference(world=World(affine=np.eye(4), space="patient"))
    layer.metadata[REFERENCE] = placed
    with pytest.raises(ValueError, match="says where its pixels lie") as refused:
        state_pixel_size([layer], "2", "mm")
    assert str(refused.value) == PLACED.format(layer.name)
    assert layer.scale.tolist() == [1, 1]

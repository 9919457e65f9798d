"""The window, the command line and Python give the same masks for the same prompts."""

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt

from napari_simmat import Predictor, load_model
from napari_simmat.cli import main
from napari_simmat.engine.files.prompts import read_prompts
from napari_simmat.engine.refinement import Refiner
from tests.widgets.scenes import CENTERS, RADII, gray


@pytest.mark.real_window  # napari finds its writers of layers when a window opens
def test_window_command_line_and_python_give_equal_masks(ready, tmp_path, capsys):
    """Four clicks on a disc, each correcting the answer before; a box. All of the image is seen."""
    ready.viewer.reset_view()
    (y, x), radius = CENTERS[1], RADII[1]
    ready.click(y, x)
    for away, label in ((radius - 6, 0), (-radius + 4, 1), (radius / 2, 0)):
        if label != ready.workspace.prompt_layers.positive:
            ready.key(Qt.Key.Key_T)
        ready.click(y + away, x)
    points = ready.viewer.layers["SimMAT points"]
    assert list(points.features["label"]) == [1, 0, 1, 0]
    points.save(str(tmp_path / "points.csv"))
    ready.commit()
    (y, x), reach = CENTERS[3], RADII[3] + 4
    ready.drag(y - reach, x - reach, y + reach, x + reach)
    ready.viewer.layers["SimMAT boxes"].save(str(tmp_path / "boxes.csv"))
    ready.commit()
    window = ready.objects
    assert sorted(np.unique(window)) == [0, 1, 2]

    tifffile.imwrite(tmp_path / "image.tif", gray())
    predictor = Predictor(load_model("tiny"), device="cpu")
    predictor.set_image(gray())
    for number, name in ((1, "points.csv"), (2, "boxes.csv")):
        words = ["segment", tmp_path / "image.tif", "--prompts", tmp_path / name]
        words += ["--model", "tiny", "--device", "cpu", "--output", tmp_path / f"out{number}"]
        assert main([str(word) for word in words]) == 0, capsys.readouterr().err
        written = tifffile.imread(tmp_path / f"out{number}" / "image_labels.tif")
        assert np.array_equal(written > 0, window == number), name
        prompts = read_prompts(tmp_path / name, gray().shape)
        [answer] = Refiner().refine(predictor, prompts)
        assert np.array_equal(answer.mask, window == number), name

"""A model's file that is replaced while the window is open, as by a second training of its name."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_simmat.checkpoints import registry


@pytest.mark.slow
@pytest.mark.all_tabs
def test_tab_with_a_replaced_model_file_predicts_anew(ready, user_folder, other_foundation):
    models = ready.tab.models
    put(other_foundation, user_folder)
    models.refresh()
    models.set_value("mine")
    ready.idle()
    box = (10.5, 10.5, 40.5, 50.5)
    ready.drag(*box)
    before = ready.mask
    scores = ready.status.text

    put(registry.find_model("tiny-6").path, user_folder)
    ready.widget._on_tab()  # as when the tab is shown again
    ready.idle()
    assert ready.status.kind == "done", "the open prompts are answered by the new file"
    after = ready.mask
    assert ready.status.text != scores
    models.set_value("tiny")
    ready.idle()
    assert np.array_equal(ready.mask, after)
    assert not np.array_equal(before, after)


@pytest.mark.all_tabs
def test_tab_with_a_deleted_model_file_uses_tiny(ready, user_folder, other_foundation):
    models = ready.tab.models
    path = put(other_foundation, user_folder)
    models.refresh()
    models.set_value("mine")
    ready.idle()
    path.unlink()
    ready.widget._on_tab()
    ready.idle()
    assert models.reference() == ready.workspace.request().model.reference == "tiny-6"
    assert "tiny-6" in models.choice.currentText()


def put(model: Path | str, folder: Path) -> Path:
    """Make a model one of the user's, called mine."""
    path = folder / "models" / "mine.safetensors"
    path.parent.mkdir(exist_ok=True)
    shutil.copyfile(model, path)
    return path

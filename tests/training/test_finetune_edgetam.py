"""Fine-tuning EdgeTAM from a file as it is shared: four channels, saved and loaded."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import save_file

from napari_simmat.checkpoints import catalog
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.predictor import Predictor
from napari_simmat.models import hiera_encoder
from napari_simmat.progress import finish
from napari_simmat.training.finetune import train_job
from napari_simmat.training.run_folder import BEST_FILE
from tests.model_files import import_file
from tests.models.test_edgetam import library_model
from tests.sam2_models import SIDE, with_random_numbers
from tests.training.squares import pictures, short

pytest.importorskip("timm")


@pytest.mark.slow
def test_edgetam_is_tuned_saved_and_loaded(monkeypatch, tmp_path, user_folder):
    monkeypatch.setattr(hiera_encoder, "SIDE", SIDE)
    usual = catalog.PREPROCESSING["sam2"]
    small = usual._replace(input_size=replace(usual.input_size, size=SIDE, minimum=SIDE))
    monkeypatch.setitem(catalog.PREPROCESSING, "sam2", small)
    state = with_random_numbers(library_model("EdgeTamVideo")).state_dict()
    shared = tmp_path / "shared.safetensors"
    save_file({name: each.contiguous().clone() for name, each in state.items()}, shared)
    import_file(shared, "fast")
    base = load_model("fast")
    assert base.spec.base.architecture == "edgetam"
    assert base.spec.mask_choice == "stock"
    config = short(transfer="simmat", strategy="lora_conv", steps=2, epochs=1)
    planes = pictures(channels=4, side=96, count=2)
    trained = finish(train_job(base, planes, config, "four", tmp_path / "run"))
    assert (trained.spec.strategy, len(trained.spec.channels)) == ("lora_conv", 4)
    loaded = load_model(tmp_path / "run" / BEST_FILE)
    assert loaded.spec.channels == trained.spec.channels
    predictor = Predictor(loaded, "cpu", "exact")
    predictor.set_image(np.random.default_rng(0).random((4, 50, 70)), channel_axis=0)
    result = predictor.predict(box=(10, 10, 40, 40))
    assert result.mask.shape == (50, 70)
    assert not predictor.has_memory, "propagation is by masks"
    again = Predictor(load_model(tmp_path / "run" / BEST_FILE), "cpu", "exact")
    again.set_image(np.random.default_rng(0).random((4, 50, 70)), channel_axis=0)
    assert np.array_equal(again.predict(box=(10, 10, 40, 40)).logits, result.logits)

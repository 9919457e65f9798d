"""Fine-tuning SAM 3: cells of 3.5 pixels, four channels, its license."""

import numpy as np
import pytest

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.predictor import Predictor
from napari_simmat.progress import finish
from napari_simmat.training.finetune import train_job
from napari_simmat.training.run_folder import BEST_FILE
from tests.model_files import import_file
from tests.sam3_models import SIDE
from tests.training.squares import pictures, short

pytest.importorskip("transformers")


@pytest.mark.slow
def test_sam3_is_tuned_and_keeps_its_license(sam3_model, sam3_hub_file, tmp_path, user_folder):
    del sam3_model  # its vocabulary lies beside its file
    import_file(sam3_hub_file, "sam3")
    config = short(transfer="simmat", strategy="decoder", steps=2, epochs=1)
    planes = pictures(channels=4, side=96, count=2)
    trained = finish(train_job(load_model("sam3"), planes, config, "four", tmp_path / "run"))
    assert (trained.spec.license, trained.spec.input_size.size) == ("SAM License", SIDE)
    model = load_model(tmp_path / "run" / BEST_FILE)
    assert model.vocabulary_file == user_folder / "bases" / "sam3.tokenizer.json"
    predictor = Predictor(model, "cpu", "exact")
    predictor.set_image(np.random.default_rng(0).random((4, 50, 70)), channel_axis=0)
    assert predictor.predict(box=(10, 10, 40, 40)).mask.shape == (50, 70)
    assert len(predictor.find_named("leaf")) == 200

import pytest
import torch

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.io.files import ASSETS
from napari_simmat.progress import finish
from napari_simmat.training.devices import Devices
from simmat_research.pretrain import PretrainConfig, Pretraining

pytestmark = pytest.mark.usefixtures("small_training")


def test_lite_encoder_starts_from_a_teacher_and_imitates_it():
    teacher = load_model("tiny")
    path = ASSETS / f"{teacher.spec.name}.safetensors"
    settings = {"encoder": "lite", "teacher": path, "distillation": 0.5}
    task = Pretraining(PretrainConfig(steps=4, families=("plain",), **settings))
    decoder = task.network.mask_decoder.state_dict()
    for name, tensor in teacher.network.mask_decoder.state_dict().items():
        assert torch.equal(decoder[name], tensor), name
    fabric = Devices(device="cpu").fabric("32-true")
    fabric.launch()
    trainer, rows = task.trainer(fabric, None), []
    trainer.log_every = 1
    trainer.log = lambda _, rate, means: rows.append(means) or {}
    for _ in range(3):
        finish(trainer.advance_job())
    # It fades over half of the four steps.
    assert ["imitation" in row for row in rows] == [True, True, False]

"""Planes as the network reads them."""

import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry

from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.device import network_input
from napari_simmat.engine.predictor import Predictor
from napari_simmat.models.sam import build_sam
from napari_simmat.models.spec import Base, Channel, InputSize, Model, ModelSpec, Normalization
from napari_simmat.progress import finish
from tests.plain_authors import small_sam

SIDE = 160
STACK = np.random.default_rng(0).integers(0, 256, (2, 3, 120, SIDE), dtype=np.uint8)


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setitem(sam_model_registry, "vit_b", lambda: small_sam(SIDE))
    torch.manual_seed(0)
    spec = ModelSpec(
        name="vit_b",
        modality="RGB",
        channels=tuple(Channel(name=n, mean=100.0, std=50.0) for n in ("red", "green", "blue")),
        normalization=Normalization(keep_uint8=True),
        input_size=InputSize(size=SIDE),
        base=Base(name="vit_b", architecture="vit_b", sha256="0" * 64),
    )
    return Model(spec, build_sam("vit_b"), "random")


def test_network_input_of_many_channels_needs_little_memory(model):
    """As one operation would make it, without copies of them all."""
    predictor = Predictor(model, "cpu")
    finish(predictor.open_image_job(STACK, channel_axis=1))
    image = predictor.stack.normalized((0,))
    frame = InputTransform.of(image.shape[-2:], model.spec.input_size)
    found = network_input(predictor.model.spec, image, frame)
    expected = (frame.resize(image).astype(np.float32) - 100) / 50
    np.testing.assert_allclose(found[0, :, :120].numpy(), expected, rtol=1e-6)
    assert not found[0, :, 120:].any()

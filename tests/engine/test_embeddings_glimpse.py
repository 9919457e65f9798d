"""A coarse encoding answers prompts while the whole one is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry
from torch.nn.functional import avg_pool2d, interpolate

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.predictor import Predictor
from napari_simmat.models.sam import SamNetwork, build_sam
from napari_simmat.models.spec import Base, Channel, InputSize, Model, ModelSpec, Normalization
from napari_simmat.progress import finish
from tests.plain_authors import small_sam

SIDE = 160
STACK = np.random.default_rng(0).integers(0, 256, (2, 3, 120, SIDE), dtype=np.uint8)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
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


def test_a_preview_is_replaced_by_the_whole(model: Model) -> None:
    predictor, plain = Predictor(model, "cpu"), Predictor(model, "cpu")
    finish(predictor.open_image_job(STACK, channel_axis=1))
    assert finish(predictor.coarse_preview_job(1))
    assert predictor.is_preview
    coarse = predictor.predict(points=[(50, 60)])
    assert coarse.mask.shape == (120, SIDE)
    predictor.set_plane(1)
    assert not predictor.is_preview
    plain.set_image(STACK, channel_axis=1, plane=1)
    whole = predictor.predict(points=[(50, 60)]).logits
    assert np.array_equal(whole, plain.predict(points=[(50, 60)]).logits)
    assert not np.array_equal(whole, coarse.logits)
    assert predictor.encodes == 1


def test_what_is_kept_needs_no_preview(model: Model) -> None:
    predictor = Predictor(model, "cpu")
    predictor.set_image(STACK, channel_axis=1)
    assert not finish(predictor.coarse_preview_job(0))
    assert not predictor.is_preview
    quick = Predictor(load_model("tiny"), "cpu")
    finish(quick.open_image_job(STACK, channel_axis=1))
    assert not finish(quick.coarse_preview_job())


@torch.no_grad()
def test_a_glimpse_is_stock_on_the_image_at_half_its_size(model: Model) -> None:
    """Its tables of positions interpolated, its embedding enlarged."""
    network = model.network
    assert isinstance(network, SamNetwork)
    stock = small_sam(SIDE).image_encoder
    stock.load_state_dict(network.image_encoder.state_dict())
    image = torch.randn(1, 3, SIDE, SIDE)
    tokens = stock.patch_embed(avg_pool2d(image, 2))
    table = stock.pos_embed.permute(0, 3, 1, 2)
    positions = interpolate(table, size=(5, 5), mode="bilinear").permute(0, 2, 3, 1)
    tokens = tokens + positions
    for block in stock.blocks:
        tokens = block(tokens)
    coarse = stock.neck(tokens.permute(0, 3, 1, 2))
    expected = interpolate(coarse, size=(10, 10), mode="bilinear")
    found = finish(network.coarse_preview_job(image))
    assert found.input_size == (SIDE, SIDE)
    torch.testing.assert_close(found.embedding, expected, rtol=1e-4, atol=1e-4)


def test_hundreds_of_channels_become_the_input_one_at_a_time(model: Model) -> None:
    """As one operation would make it, without copies of them all."""
    predictor = Predictor(model, "cpu")
    finish(predictor.open_image_job(STACK, channel_axis=1))
    image = predictor.stack.normalized((0,))
    frame = InputTransform.of(image.shape[-2:], model.spec.input_size)
    found = predictor._encoder.network_input(image, frame)
    expected = (frame.resize(image).astype(np.float32) - 100) / 50
    np.testing.assert_allclose(found[0, :, :120].numpy(), expected, rtol=1e-6)
    assert not found[0, :, 120:].any()

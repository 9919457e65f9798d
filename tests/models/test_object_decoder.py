"""The decoder of all objects: shapes, tiles, and a network that stays what it was."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xxhash

from napari_simmat import Predictor, segment_everything
from napari_simmat.checkpoints.checkpoint import read_tensors
from napari_simmat.checkpoints.loading import check_decoder, load_model, split_decoder
from napari_simmat.io.files import ASSETS
from napari_simmat.models import multiscale
from napari_simmat.models.object_decoder import (
    MAPS,
    MEASURES,
    WIDTHS,
    ObjectDecoder,
    decode_image_job,
)
from napari_simmat.models.tiny import TinyNetwork
from napari_simmat.progress import finish
from napari_simmat.training.adapting import AdaptedCheckpoint, FewShotConfig

NETWORK_OF_TINY_5 = "11a9d0a7a0e6671816d52be49251bd9d"
"""xxh3-128 of names, shapes and bytes of its tensors."""


@pytest.fixture(scope="module")
def tiny() -> tuple[TinyNetwork, ObjectDecoder]:
    model = load_model("tiny")
    assert isinstance(model.network, TinyNetwork)
    assert isinstance(model.decoder, ObjectDecoder)
    return model.network, model.decoder


@torch.no_grad()
def test_maps_have_the_size_of_the_image(tiny: tuple[TinyNetwork, ObjectDecoder]) -> None:
    network, decoder = tiny
    found = decoder(network.features(torch.randn(2, 3, 64, 96)))
    assert found.maps.shape == (2, MAPS, 64, 96)
    assert found.maps.dtype == torch.float32
    assert found.features.shape == (2, WIDTHS[-1], 32, 48)


@torch.no_grad()
def test_tiles_give_the_maps_of_the_whole_inside(
    tiny: tuple[TinyNetwork, ObjectDecoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, decoder = tiny
    rng = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, 256, 512, generator=rng)
    whole = finish(decode_image_job(network, decoder, image))
    assert torch.equal(whole.maps, decoder(network.features(image)).maps)
    for name, side in {"MAX_UNTILED_SIDE": 256, "TILE_CORE": 256, "TILE_HALO": 128}.items():
        monkeypatch.setattr(multiscale, name, side)
    tiled = finish(decode_image_job(network, decoder, image))
    assert tiled.maps.shape == whole.maps.shape
    agreed = (tiled.maps[:, 0] > 0) == (whole.maps[:, 0] > 0)
    assert agreed.float().mean() > 0.95


def test_score_takes_what_regions_measure(tiny: tuple[TinyNetwork, ObjectDecoder]) -> None:
    _, decoder = tiny
    assert decoder.score(torch.zeros(7, MEASURES)).shape == (7, 2)


def test_network_of_tiny_6_is_that_of_tiny_5() -> None:
    tensors, decoder = split_decoder(read_tensors(ASSETS / "tiny-6.safetensors"))
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    assert digest.hexdigest() == NETWORK_OF_TINY_5
    assert sum(each.numel() * each.element_size() for each in decoder.values()) < 2 * 2**20


def test_decoder_that_lacks_a_tensor_is_refused() -> None:
    path = ASSETS / "tiny-6.safetensors"
    _, decoder = split_decoder(read_tensors(path))
    decoder.pop("head.bias")
    with pytest.raises(ValueError, match=r"lacks head\.bias"):
        check_decoder(path, decoder)


def test_model_that_learned_without_a_size_keeps_the_decoder() -> None:
    base = load_model("tiny")
    learned = AdaptedCheckpoint(base.spec, {}, False).model(base)
    assert learned.spec.finds_instances
    assert learned.decoder is base.decoder


def test_bundle_of_what_was_learned_holds_the_network_alone(tmp_path: Path) -> None:
    base = load_model("tiny")
    student = SimpleNamespace(network=base.network, spec=base.spec)
    config = FewShotConfig()
    learned = AdaptedCheckpoint.of(student, True, config, (), {}, {}, "")  # type: ignore[arg-type]
    learned.save(tmp_path / "mine.safetensors")
    assert load_model(tmp_path / "mine.safetensors").decoder is None


@pytest.mark.parametrize("name", ["thermal", "depth", "polarization", "multispectral"])
def test_checkpoint_on_tiny_finds_objects_by_the_decoder(name: str) -> None:
    model = load_model(name)
    rng = np.random.default_rng(0)
    y, x = np.indices((128, 128))
    disc = (y - 64) ** 2 + (x - 64) ** 2 < 400
    channels = len(model.spec.channels)
    image = 60 + 100 * disc + rng.normal(0, 4, (channels, 128, 128))
    predictor = Predictor(model, "cpu")
    predictor.set_image(image.astype(np.float32), channel_axis=0)
    labels = segment_everything(predictor).labels
    number = labels[64, 64]
    assert number
    shared = np.count_nonzero((labels == number) & disc)
    assert shared / np.count_nonzero((labels == number) | disc) > 0.7

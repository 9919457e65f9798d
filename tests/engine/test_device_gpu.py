"""Prediction on a pretended GPU gives the masks of the CPU, and mixes no devices."""

import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine import device as device_module
from napari_simmat.engine.device import ComputeContext
from napari_simmat.engine.embeddings import EmbeddingCache, EmbeddingStore
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompt_decoder import PromptDecoder
from napari_simmat.engine.prompts import Prompt
from napari_simmat.models import mobile_encoder, multiscale
from napari_simmat.models.sam2_memory import Memories
from napari_simmat.models.tuning import build_network
from tests.nightly import nightly_but
from tests.pretended_gpu import pretended_gpu, waits
from tests.sam2_models import shrink_sam2
from tests.small_sam import small_sam

GPUS = nightly_but(("cuda:0", "mps:0"), "cuda:0")
SOME_STRATEGIES = nightly_but(("frozen", "lora", "prompt", "adapter"), "lora")


@pytest.fixture
def tiny(nano):
    return load_model("tiny")


@pytest.fixture
def image():
    image = np.random.default_rng(0).integers(0, 60, (101, 128)).astype(np.uint8)
    image[30:60, 40:80] += 120
    return image


def results(predictor, image):
    predictor.set_image(image)
    click = predictor.predict(points=[(45, 60)], labels=[1])
    yield click
    yield predictor.predict(box=(28, 38, 62, 82))
    yield predictor.predict(points=[(45, 60), (10, 10)], labels=[1, 0], mask=click.mask)
    clicks = [Prompt(points=[point], labels=[1]) for point in ((45, 60), (80, 20))]
    assert len(predictor.estimate_clicks(clicks).size) == 2
    yield from predictor.predict_low_res(clicks)


@pytest.mark.parametrize("gpu", GPUS)
def test_predict_on_a_gpu_gives_the_masks_of_the_cpu(gpu, tiny, image, monkeypatch):
    expected = list(results(Predictor(tiny, "cpu", "exact"), image))
    with pretended_gpu(monkeypatch):
        found = list(results(Predictor(tiny, gpu, "exact"), image))
    assert len(found) == len(expected) == 5
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.score == theirs.score
        if number < 3:
            np.testing.assert_array_equal(ours.mask, theirs.mask)
        else:
            np.testing.assert_array_equal(ours.patch(0).logits, theirs.patch(0).logits)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("strategy", SOME_STRATEGIES)
@torch.no_grad()
def test_sam_on_a_gpu_gives_the_logits_of_the_cpu(gpu, strategy, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setitem(sam_model_registry, "vit_b", lambda: small_sam(64))
    network = build_network("vit_b", channels=2, transfer="simcmf", strategy=strategy, size=None)
    image = torch.randn(1, 2, 64, 64)
    prompt = {"points": torch.tensor([[30.0, 20.0]]), "labels": torch.tensor([1])}
    expected = network.decode(network.encode(image), prompt).logits
    with pretended_gpu(monkeypatch):
        network.to(gpu)
        moved = {name: each.to(gpu) for name, each in prompt.items()}
        found = network.decode(network.encode(image.to(gpu)), moved).logits.cpu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


SMALL_MOBILE = {"WIDTHS": (8, 16, 16, 32), "DEPTHS": (1, 1, 1, 1), "HEADS": (1, 2, 2, 2)}


@pytest.mark.slow
@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("strategy", SOME_STRATEGIES)
@torch.no_grad()
def test_mobile_sam_on_a_gpu_gives_the_logits_of_the_cpu(gpu, strategy, monkeypatch):
    for name, value in SMALL_MOBILE.items():
        monkeypatch.setattr(mobile_encoder, name, value)
    torch.manual_seed(0)
    network = build_network("vit_t", channels=2, transfer="simmat", strategy=strategy)
    image = torch.randn(1, 2, 1024, 1024)
    prompt = {"box": torch.tensor([30.0, 20.0, 500.0, 600.0])}
    expected = network.decode(network.encode(image), prompt).logits
    with pretended_gpu(monkeypatch):
        network.to(gpu)
        moved = {name: each.to(gpu) for name, each in prompt.items()}
        found = network.decode(network.encode(image.to(gpu)), moved).logits.cpu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("strategy", SOME_STRATEGIES)
@torch.no_grad()
def test_sam2_on_a_gpu_gives_the_logits_of_the_cpu(gpu, strategy, monkeypatch):
    shrink_sam2(monkeypatch)
    torch.manual_seed(0)
    network = build_network("hiera_tiny", channels=2, transfer="simcmf", strategy=strategy)
    image = torch.randn(1, 2, 256, 256)
    mask = torch.zeros(1, 1, 256, 256)
    mask[..., 50:120, 60:200] = 1
    prompt = {"points": torch.tensor([[30.0, 20.0]]), "labels": torch.tensor([1])}

    def answers(place):
        encoded = network.encode(image.to(place))
        moved = {name: each.to(place) for name, each in prompt.items()}
        yield network.decode(encoded, moved).logits
        known = network.remember(encoded, mask.to(place))
        found, memory = network.recall(encoded, Memories({2: known}, {1: known}, 5))
        yield from (found.logits, memory.pointer, memory.features.float())

    expected = list(answers("cpu"))
    with pretended_gpu(monkeypatch):
        network.to(gpu)
        found = [each.cpu() for each in answers(gpu)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_embedding_from_the_cache_is_used_on_the_gpu(tiny, image, monkeypatch, tmp_path):
    """Also one from disk: both are kept in main memory."""
    with pretended_gpu(monkeypatch):
        cache = EmbeddingCache(store=EmbeddingStore(tmp_path))
        first = Predictor(tiny, "cuda:0", "exact", cache)
        first.set_image(image)
        expected = first.predict(points=[(45, 60)], labels=[1]).mask
        assert first.encoded.embedding.device.type == "cuda"
        [key] = cache._kept
        assert cache.get(key).encoded.embedding.device.type == "cpu"
        for kept in (cache, EmbeddingCache(store=EmbeddingStore(tmp_path))):
            other = Predictor(tiny, "cuda:0", "exact", kept)
            other.set_image(image)
            assert other.encodes == 0
            assert np.array_equal(other.predict(points=[(45, 60)], labels=[1]).mask, expected)


def test_prompts_of_tiny_rarely_wait_for_a_gpu(image, monkeypatch):
    """A box waited 107 times before numbers were read together."""
    with pretended_gpu(monkeypatch):
        predictor = Predictor(load_model("tiny"), "cuda:0", "exact")
        predictor.set_image(image)
        counts = []
        for prompt in ({"points": [(45, 60)], "labels": [1]}, {"box": (28, 38, 62, 82)}):
            waits.clear()
            predictor.predict(**prompt)
            counts.append(sum(waits.values()))
    assert max(counts) <= 35, waits


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ("points", "tensors on"),
        ("_resize", "_upsample_bilinear2d_aa.* is not implemented for mps"),
        ("result", "can't convert mps:0 device type tensor to numpy"),
    ],
)
def test_pretended_gpu_catches_what_a_gpu_would(broken, fault, tiny, image, monkeypatch):
    """A `.to()` or a `.cpu()` left out, and a kernel that MPS lacks: each stops a prediction."""
    if broken == "points":

        def points(self, points, scale):
            return (points + 0.5) * scale - 0.5 - torch.tensor([self.left, self.top]).float()

        monkeypatch.setattr(multiscale.LevelWindow, "points", points)
    elif broken == "result":

        def result(self, embedding, prompt):
            return self._result(embedding, self._decoded(embedding, prompt))

        monkeypatch.setattr(PromptDecoder, "result", result)
    else:

        def resize(logits, size):
            return torch.nn.functional.interpolate(logits, size, mode="bilinear", antialias=True)

        monkeypatch.setattr(multiscale, "_resize", resize)
    faults = (RuntimeError, NotImplementedError, TypeError)
    with pretended_gpu(monkeypatch), pytest.raises(faults, match=fault):
        [each.mask for each in results(Predictor(tiny, "mps:0", "exact"), image)]


def test_predictor_returns_to_the_gpu_for_another_image(tiny, image, monkeypatch):
    with pretended_gpu(monkeypatch):
        predictor = Predictor(tiny, "cuda:0", "exact")
        for failures in range(1, 5):
            predictor.set_image(image)
            assert predictor.device.type == ("cuda" if failures <= 3 else "cpu")
            if failures <= 3:
                predictor._compute.to_cpu()
                assert "computing on the CPU" in predictor.note
                assert predictor.predict(points=[(45, 60)], labels=[1]).mask.any()
    assert device_module.MAX_RETURNS == 2


def test_inference_moves_a_network_that_is_half_elsewhere(tiny, monkeypatch):
    """Memory may run out while a network moves; its first parameter tells nothing of the others."""
    network = tiny.network
    with pretended_gpu(monkeypatch):
        compute = ComputeContext(network, "cuda:0", "exact")
        network.mask_decoder.to("cpu")
        with compute.inference():
            assert {each.device.type for each in network.parameters()} == {"cuda"}
        network.to("cpu")


def test_inference_does_not_walk_the_modules(tiny, monkeypatch):
    """It is entered at every step of a job, and the walk takes longer than some steps."""
    compute = ComputeContext(tiny.network, "cpu", "exact")
    monkeypatch.setattr(torch.nn.Module, "named_modules", None)
    with compute.inference():
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("strategy", ["frozen", "lora", "prompt"])
@torch.no_grad()
def test_networks_in_float16_give_finite_masks(strategy):
    """GPUs before Ampere and MPS compute in float16, which a CPU can as well."""
    torch.manual_seed(0)
    network = build_network("tiny", channels=3, transfer="simmat", strategy=strategy)
    image = torch.randn(1, 3, 64, 64)
    prompt = {"points": torch.tensor([[30.0, 20.0]]), "labels": torch.tensor([1])}
    exact = network.decode(network.encode(image), prompt).logits
    with torch.autocast("cpu", torch.float16):
        half = network.decode(network.encode(image), prompt).logits
    assert half.isfinite().all()
    assert (half - exact).abs().max() < 0.05 * exact.std() + 0.05

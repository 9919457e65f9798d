import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from napari_simmat.checkpoints import catalog
from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors, save_checkpoint
from napari_simmat.checkpoints.loading import load_model, load_model_job
from napari_simmat.io.files import sha256_of
from napari_simmat.models.peft_layers import LoRALinear
from napari_simmat.models.spec import Model
from napari_simmat.models.tuning import STRATEGIES, build_network, tune
from napari_simmat.progress import finish
from tests.model_files import export
from tests.nightly import nightly_but

Tensors = dict[str, torch.Tensor]


def test_load_model_of_a_base_gives_the_saved_tensors(assets):
    path = assets / "tiny-1.safetensors"
    model = load_model("tiny")
    assert model.spec.name == "tiny-1"
    assert model.spec.base.sha256 == model.fingerprint == sha256_of(path)
    saved = read_tensors(path)
    state = model.network.state_dict()
    assert set(state) == set(saved)
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, saved[name].float())
    assert not model.network.training


def test_load_model_gives_a_network_that_can_be_trained(assets):
    network = load_model("polarization").network
    assert not any(parameter.requires_grad for parameter in network.parameters())
    network.requires_grad_(True)
    encoded = network.encode(torch.randn(1, 4, 64, 64))
    click = {"points": torch.tensor([[30.0, 30.0]]), "labels": torch.tensor([1.0])}
    decoded = network.decode(encoded, click)
    decoded.logits.mean().backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all()
        for name, parameter in network.named_parameters()
        if name in network.transfer_names()
    )


@pytest.mark.parametrize(
    "strategy", nightly_but((name for name in STRATEGIES if name != "frozen"), "lora", "full")
)
def test_checkpoint_of_every_strategy_gives_the_trained_masks(strategy, assets, tmp_path):
    base = load_model("tiny")
    network = build_network("tiny", channels=4, transfer="simmat")
    network.load_state_dict({**network.state_dict(), **base.network.state_dict()})
    tuned = tune(network, strategy, None)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    network.eval()
    spec = replace(
        read_spec(assets / "polarization.safetensors"), strategy=strategy, strategy_size=tuned.size
    )
    whole = STRATEGIES[strategy].whole
    path = tmp_path / "new.safetensors"
    state = network.state_dict()
    save_checkpoint(path, spec, {name: state[name] for name in tuned.names}, bundled=whole)
    model = load_model(path)
    assert not any(isinstance(module, LoRALinear) for module in model.network.modules())
    bundle = export(path, tmp_path / "bundle.safetensors", bundle=True)
    assert set(read_tensors(bundle)) == set(state)  # as trained: nothing is merged in a file
    (assets / "tiny-1.safetensors").unlink()
    image = torch.randn(1, 4, 64, 64)
    click = {"points": torch.tensor([[30.0, 30.0]]), "labels": torch.tensor([1.0])}
    with torch.no_grad():
        ours, theirs, alone = (
            each.decode(each.encode(image), click)
            for each in (model.network, network, load_model(bundle).network)
        )
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(alone.logits, ours.logits)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"strategy": "magic"}, "Strategy 'magic' is unknown"),
        ({"strategy": "lora", "strategy_size": 3}, "has the shape"),
        ({"strategy": "linear", "strategy_size": 3}, "has no size"),
        ({"strategy": "prefix"}, "does not fit its network"),
    ],
)
def test_load_model_of_another_strategy_is_refused(change, sentence, assets, tmp_path):
    network = build_network("tiny", channels=4, transfer="simmat", strategy="lora", size=2)
    trained = {n: p.detach() for n, p in network.named_parameters() if p.requires_grad}
    spec = read_spec(assets / "polarization.safetensors")
    path = tmp_path / "new.safetensors"
    save_checkpoint(path, replace(spec, **change), trained)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=sentence):
        load_model(path)


def test_load_model_puts_trained_tensors_on_the_base(assets):
    model = load_model("polarization")
    trained = read_tensors(assets / "polarization.safetensors")
    below = read_tensors(assets / "tiny-1.safetensors")
    assert set(trained) == model.network.transfer_names()
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, (trained | below)[name].float())
    assert model.spec.base.name == "tiny-1"
    base = load_model("tiny")
    assert model.fingerprint != base.fingerprint


def test_fingerprint_follows_the_content_not_the_name(assets, tmp_path):
    copy = tmp_path / "copy.safetensors"
    shutil.copy(assets / "polarization.safetensors", copy)
    assert load_model(copy).fingerprint == load_model("polarization").fingerprint
    assert load_model(copy).spec.name == "copy"
    spec = read_spec(copy)
    save_checkpoint(copy, spec, {name: t + 1 for name, t in read_tensors(copy).items()})
    assert load_model(copy).fingerprint != load_model("polarization").fingerprint


def test_load_model_job_says_its_progress_and_can_be_closed(assets):
    seen = []
    model = finish(load_model_job("polarization"), seen.append)
    assert isinstance(model, Model)
    done = [each.done / each.total for each in seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 1)
    words = " ".join(each.message for each in seen)
    assert all(word in words for word in ("Reading", "Building", "Loading", "ready"))
    steps = len(list(load_model_job("tiny")))
    for stop in range(1, steps):
        job = load_model_job("tiny")
        for _ in range(stop):
            next(job)
        job.close()
    assert load_model("tiny").spec.name == "tiny-1"


def test_load_model_without_its_base_names_its_hash(assets):
    sha256 = read_spec(assets / "polarization.safetensors").base.sha256
    (assets / "tiny-1.safetensors").unlink()
    with pytest.raises(ValueError, match=r"polarization\.safetensors stands on tiny-1") as caught:
        load_model("polarization")
    assert f"with SHA-256 {sha256[:12]}, which is not here" in str(caught.value)


def test_load_model_on_another_base_names_both_hashes(assets):
    path = assets / "tiny-1.safetensors"
    wanted = sha256_of(path)
    spec, tensors = read_spec(path), read_tensors(path)
    save_checkpoint(path, spec, {name: tensor * 2 for name, tensor in tensors.items()})
    with pytest.raises(ValueError, match=f"stands on tiny-1 with SHA-256 {wanted[:12]}") as caught:
        load_model("polarization")
    assert f"but the tiny-1 here has {sha256_of(path)[:12]}" in str(caught.value)


def test_load_model_finds_a_renamed_base(assets, user_folder):
    expected = load_model("polarization")
    (user_folder / "bases").mkdir()
    (assets / "tiny-1.safetensors").rename(user_folder / "bases" / "old tiny.safetensors")
    model = load_model("polarization")
    assert model.fingerprint == expected.fingerprint


def test_load_model_of_a_bundle_needs_no_base(assets, tmp_path):
    expected = load_model("polarization")
    path = export("polarization", tmp_path / "bundle.safetensors", bundle=True)
    (assets / "tiny-1.safetensors").unlink()
    model = load_model(path)
    assert model.spec.base == expected.spec.base  # for the record
    assert model.spec == replace(expected.spec, name="bundle")
    for name, tensor in expected.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor)


FIRST = "image_encoder.patch_embed.proj.weight"
TRAINED = "image_encoder.patch_embed.proj.mat.0.weight"


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def with_more(tensors: Tensors) -> Tensors:
    return {**tensors, "surplus.weight": torch.zeros(2)}


def reshaped(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: torch.zeros(1, 2, 3)}


def with_nan(tensors: Tensors) -> Tensors:
    name = next(iter(tensors))
    return {**tensors, name: torch.full_like(tensors[name], float("nan"))}


@pytest.mark.parametrize(
    ("model", "change", "sentence"),
    [
        ("tiny-1", without(FIRST), f"does not fit its network: it lacks {FIRST}"),
        ("tiny-1", with_more, r"has surplus\.weight which do not belong there"),
        ("tiny-1", reshaped(FIRST), rf"{FIRST} has the shape \(1, 2, 3\) instead of \(32, 3, 3, 3"),
        ("tiny-1", with_nan, "hold NaN or infinity"),
        ("polarization", without(TRAINED), f"lacks {TRAINED}, which was trained"),
        ("polarization", with_more, r"has surplus\.weight which do not belong there"),
        ("polarization", reshaped(TRAINED), r"has the shape \(1, 2, 3\) instead of \(64, 4, 3, 3"),
        ("polarization", with_nan, "hold NaN or infinity"),
    ],
)
def test_load_model_of_misfitting_tensors_is_refused(model, change, sentence, assets):
    path = assets / f"{model}.safetensors"
    text = read_spec(path).to_json()
    safetensors.torch.save_file(change(read_tensors(path)), path, {"simmat": text})
    with pytest.raises(ValueError, match=sentence) as caught:
        load_model(model)
    assert str(caught.value).startswith(f"{model}.safetensors ")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"transfer": "teleport"}, "Transfer layer 'teleport' is unknown"),
        ({"transfer": "zeroshot"}, "Without a transfer layer the network takes 3 channels"),
        ({"architecture": "vit_xxl"}, "Architecture 'vit_xxl' is unknown"),
    ],
)
def test_load_model_of_unknown_architecture_is_refused(changes, sentence, assets):
    path = assets / "polarization.safetensors"
    spec, tensors = read_spec(path), read_tensors(path)
    if "architecture" in changes:
        spec = replace(spec, base=replace(spec.base, **changes))
    else:
        spec = replace(spec, **changes)
    save_checkpoint(path, spec, tensors)
    with pytest.raises(ValueError, match=rf"polarization\.safetensors cannot be used\. {sentence}"):
        load_model("polarization")


def test_load_model_of_a_missing_download_says_how_to_get(assets):
    with pytest.raises(ValueError, match=r"vit_b is not downloaded yet \(375 MB\)") as caught:
        load_model("vit_b")
    assert "`simmat models fetch vit_b`" in str(caught.value)


def test_load_model_of_foreign_weights_is_refused(assets, tmp_path):
    torch.save({"fc.weight": torch.zeros(10, 10)}, tmp_path / "resnet.pth")
    with pytest.raises(
        ValueError, match=r"resnet\.pth cannot be used\. .*fit none of tiny, .*tiny_lite, vit_b"
    ):
        load_model(tmp_path / "resnet.pth")
    torch.save(read_tensors(assets / "tiny-1.safetensors"), tmp_path / "tiny.pth")
    with pytest.raises(ValueError, match=r"tiny\.pth holds weights of tiny without their"):
        load_model(tmp_path / "tiny.pth")


def test_load_model_of_a_false_download_names_both_hashes(assets, user_folder, monkeypatch):
    path = user_folder / "bases" / "sam_vit_b_01ec64.pth"
    path.parent.mkdir()
    torch.save({"a": torch.zeros(100)}, path)
    row = replace(catalog.PUBLISHED_WEIGHTS["vit_b"], size=path.stat().st_size)
    monkeypatch.setitem(catalog.PUBLISHED_WEIGHTS, "vit_b", row)
    with pytest.raises(ValueError, match="is not the published file") as caught:
        load_model("vit_b")
    assert row.sha256[:12] in str(caught.value)
    assert sha256_of(path)[:12] in str(caught.value)


@pytest.mark.slow
@pytest.mark.usefixtures("assets")
class TestSamFile:
    def test_sam_file_is_loaded_strictly_as_stock(self, sam_file):
        model = load_model(sam_file)
        stored = torch.load(sam_file, weights_only=True, mmap=True)
        state = model.network.state_dict()
        assert list(state) == list(stored)
        assert all(torch.equal(state[name], stored[name]) for name in stored)
        assert not any(each.is_meta for each in (*model.network.buffers(), *state.values()))
        assert (model.spec.name, model.spec.base.architecture) == ("my_sam", "vit_b")
        assert model.spec.base.sha256 == model.fingerprint == sha256_of(sam_file)
        assert (model.spec.mask_choice, model.spec.is_rgb) == ("stock", True)

    def test_checkpoint_on_a_sam_file_finds_it_by_hash(
        self, sam_file, assets, user_folder, tmp_path
    ):
        (user_folder / "bases").mkdir()
        (user_folder / "bases" / "imported.pth").symlink_to(sam_file)
        network = build_network("vit_b", channels=4, transfer="simmat", initialize=False)
        spec = read_spec(assets / "polarization.safetensors")
        base = replace(spec.base, name="my_sam", architecture="vit_b", sha256=sha256_of(sam_file))
        trained = {
            name: torch.ones(network.state_dict()[name].shape) for name in network.transfer_names()
        }
        save_checkpoint(tmp_path / "a.safetensors", replace(spec, base=base), trained)
        model = load_model(tmp_path / "a.safetensors")
        stored = torch.load(sam_file, weights_only=True, mmap=True)
        for name, tensor in model.network.state_dict().items():
            assert torch.equal(tensor, trained[name] if name in trained else stored[name])

"""Checkpoints of the authors' code: converted, they compute what the authors' networks compute."""

import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry
from torchvision.transforms import Compose, Resize, ToTensor

from napari_simmat.checkpoints import catalog
from napari_simmat.checkpoints.checkpoint import read_model_card, read_spec, read_tensors
from napari_simmat.checkpoints.library import remove
from napari_simmat.checkpoints.loading import BaseMissingError, load_model
from napari_simmat.checkpoints.registry import ModelEntry, list_models
from napari_simmat.cli import main
from napari_simmat.engine.predictor import Predictor
from napari_simmat.io.files import sha256_of
from napari_simmat.models import tuning
from napari_simmat.models.tuning import STRATEGIES
from napari_simmat.progress import finish
from research.tests.plain_authors import KEPT, SIZES, AuthorsNetwork
from simmat_research.authors import MODALITIES, convert_job
from tests.checkpoints.test_sam_weights import Malicious
from tests.model_files import export, import_file
from tests.nightly import nightly_but
from tests.small_sam import DEPTH, WIDTH, small_sam

CASES = [
    ("sam_lora", "simmat", "rgbnir"),
    ("sam_lora", "baseline_a", "t_500"),
    ("sam_lora", "baseline_b", "zju-rgbp"),
    ("sam_mlp_adapter", "simmat", "d"),
    ("sam_mlp_adapter", "baseline_b", "rgbd"),
    ("sam_prompt", "simmat", "pgsnet_p"),
    ("sam_prompt", "baseline_a", "rgbt_500"),
    ("sam_prefix", "simmat", "pgsnet_rgbp"),
    ("sam_prefix", "zeroshot", "hha"),
    ("sam_full_finetune", "simmat", "rgbhha"),
    ("sam_full_finetune", "baseline_a", "t"),
    ("sam_full_finetune", "baseline_b", "nir"),
    ("sam_linear_probing", "simmat", "rgbt"),
    ("sam_linear_probing", "baseline_a", "d"),
    ("sam_linear_probing", "zeroshot", "hha"),
    # SimCMF's
    ("sam_lora", "simcmf", "rgbnir"),
    ("sam_full_finetune", "simcmf_b", "rgbd"),
    ("sam_linear_probing", "simcmf_d", "pgsnet_p"),
    ("sam_mlp_adapter", "preconvk5n4d8", "t"),
    ("sam_prefix", "preattnp8n2d16", "rgbt"),
]
ALIKE = (
    ("sam_lora", "baseline_a", "t_500"),
    ("sam_mlp_adapter", "baseline_b", "rgbd"),
    ("sam_prompt", "baseline_a", "rgbt_500"),
    ("sam_prefix", "zeroshot", "hha"),
    ("sam_full_finetune", "baseline_a", "t"),
    ("sam_full_finetune", "baseline_b", "nir"),
    ("sam_linear_probing", "baseline_a", "d"),
    ("sam_lora", "simcmf", "rgbnir"),
)
"""Whose network and whose layer are tried in other cases, too."""
OURS = {
    "sam_full_finetune": "full",
    "sam_linear_probing": "linear",
    "sam_lora": "lora",
    "sam_mlp_adapter": "adapter",
    "sam_prompt": "prompt",
    "sam_prefix": "prefix",
}


def channels_of(key: str) -> int:
    return {"d": 1, "nir": 1, "t": 1, "t_500": 1, "hha": 3, "rgbhha": 6, "pgsnet_p": 6}.get(
        key, 9 if key in ("zju-rgbp", "pgsnet_rgbp") else 4
    )


@pytest.fixture
def install(user_folder, tmp_path, monkeypatch):
    """Make a small network of SAM's shape the published ViT-B, downloaded; there is no other."""
    monkeypatch.setattr("napari_simmat.checkpoints.registry.ASSETS", tmp_path / "no assets")

    def put(sam, build=None):
        row = catalog.PUBLISHED_WEIGHTS["vit_b"]
        path = user_folder / "bases" / row.file
        path.parent.mkdir()
        torch.save(sam.state_dict(), path)
        checksum = f"sha256:{sha256_of(path)}"
        known = replace(row, size=path.stat().st_size, checksum=checksum)
        monkeypatch.setitem(catalog.PUBLISHED_WEIGHTS, "vit_b", known)
        side = sam.image_encoder.img_size
        monkeypatch.setitem(sam_model_registry, "vit_b", build or (lambda: small_sam(side)))
        monkeypatch.setitem(tuning._SAM_SHAPES, (WIDTH, DEPTH), "vit_b")

    return put


@pytest.fixture
def sam(install):
    """The published ViT-B of these tests: three narrow blocks."""
    torch.manual_seed(0)
    network = small_sam()
    install(network)
    return network


@pytest.fixture
def lora(sam):
    torch.manual_seed(1)
    return AuthorsNetwork(sam, "sam_lora", "simmat", 4)


def answer(name: str | Path, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Embedding (1, d, h, w) and logits (1, h, w) of the single mask for a click."""
    network = load_model(name).network
    with torch.no_grad():
        encoded = network.encode(image)
        click = {"points": torch.tensor([[61.0, 34.0]]), "labels": torch.tensor([1])}
        return encoded.embedding, network.decode(encoded, click).logits[:1]


def their_answer(network: AuthorsNetwork, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    embedding = network.encode(image)
    return embedding, network.decode(embedding, 61, 34)[0]


def assert_same(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def convert(
    path: Path, name: str | None = None, *, modality: str, base: str | None = None
) -> ModelEntry:
    return finish(convert_job(path, name or path.stem, modality, base))


def own_models() -> list[str]:
    return [entry.name for entry in list_models() if entry.kind == "own"]


def test_cases_try_all_networks_and_modalities():
    assert {network for network, _, _ in CASES} == set(KEPT) == set(OURS)
    assert {key for _, _, key in CASES} == set(MODALITIES)


@pytest.mark.parametrize(
    ("network", "transfer", "key"),
    nightly_but(CASES, *(case for case in CASES if case not in ALIKE)),
)
def test_import_gives_the_masks_of_the_authors_network(
    network, transfer, key, sam, user_folder, tmp_path
):
    torch.manual_seed(1)
    channels = channels_of(key)
    theirs = AuthorsNetwork(sam, network, transfer, channels)
    path = theirs.write(tmp_path / "checkpoint_best.pth")
    entry = convert(path, "mine", modality=key)
    assert (entry.name, entry.kind, entry.problem, entry.is_base) == ("mine", "own", None, False)
    assert entry.path == user_folder / "models" / "mine.safetensors"
    assert own_models() == ["mine"]

    image = torch.randn(1, channels, 160, 160)
    expected = their_answer(theirs, image)
    assert_same(answer("mine", image), expected)

    spec = load_model("mine").spec
    assert (spec.transfer, spec.strategy) == (transfer, OURS[network])
    assert spec.strategy_size == SIZES.get(network, 0)
    stored = read_tensors(entry.path)
    assert not [name for name in stored if name.startswith("prompt_encoder.")]

    bundle = export("mine", tmp_path / "bundle.safetensors", bundle=True)
    plain = export("mine", tmp_path / "plain.safetensors")
    assert plain.read_bytes() == entry.path.read_bytes()
    assert read_model_card(bundle).holds_all
    assert set(stored) <= set(read_tensors(bundle))
    if network == "sam_lora":
        assert any(name.endswith("qkv.down.q") for name in read_tensors(bundle))
    remove("mine")
    remove("vit_b")
    assert_same(answer(bundle, image), expected)
    with pytest.raises(BaseMissingError, match="stands on vit_b"):
        load_model(plain)


def test_import_describes_the_file_and_its_modality(lora, tmp_path):
    path = lora.write(tmp_path / "a.pth")
    spec = convert(path, modality="rgbnir").spec
    assert spec.modality == "RGB and near infra-red"
    assert spec.channel_names == ("red", "green", "blue", "NIR")
    assert [each.mean / 255 for each in spec.channels] == pytest.approx(
        [0.43031, 0.43243, 0.41996, 0.50381]
    )
    assert [each.std / 255 for each in spec.channels] == pytest.approx(
        [0.25076, 0.24733, 0.26631, 0.20590]
    )
    assert (spec.input_size.method, spec.input_size.size) == ("stretch", 1024)
    assert (spec.base.name, spec.base.architecture) == ("vit_b", "vit_b")
    assert spec.base.sha256 == catalog.PUBLISHED_WEIGHTS["vit_b"].sha256
    assert spec.mask_choice == "single"
    assert dict(spec.training) == {
        "network": "sam_lora",
        "modality": "rgbnir",
        "epoch": 46,
        "best_iou": 0.5388,
    }
    assert dict(spec.metrics) == {"best_iou": 0.5388}
    assert "logs/a" not in spec.to_json()  # folders of whoever trained it


def authors_input(image: np.ndarray, mean: list[float], std: list[float]) -> torch.Tensor:
    """(H, W, C) -> (1, C, 1024, 1024): bytes become 0..1, all is resized, then standardized."""
    values = Compose([ToTensor(), Resize((1024, 1024))])(image)
    return ((values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])[None]


def eight_bits(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    image = rng.integers(20, 200, (90, 70, 4), dtype=np.uint8)
    return image, image


def depth(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    meters = rng.uniform(0.7, 9.3, (90, 70, 1)).astype(np.float32)
    return meters, (meters - meters.min()) / (meters.max() - meters.min())


def computed(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    parts = [rng.uniform(*ends, (90, 70, 3)) for ends in ((0, 510), (-0.78, 0.78), (0, 1))]
    image = np.concatenate(parts, axis=-1).astype(np.float32)
    return image, image


@pytest.mark.parametrize(
    ("key", "make", "mean", "std"),
    [
        (
            "rgbt",
            eight_bits,
            [0.37961, 0.39143, 0.38458, 0.35633],
            [0.22784, 0.23296, 0.23524, 0.21658],
        ),
        pytest.param("d", depth, [0.4489], [0.2260], marks=pytest.mark.slow),
        pytest.param(
            "zju-rgbp",
            computed,
            [141.125, 141.375, 138.996, -0.01453, -0.01415, -0.01653, 0.15173, 0.14899, 0.17018],
            [139.955, 140.576, 141.135, 0.38504, 0.38248, 0.38348, 0.13345, 0.13081, 0.14261],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_import_feeds_images_as_in_their_training(
    key, make, mean, std, install, tmp_path, monkeypatch
):
    torch.manual_seed(0)
    sam = small_sam(1024)
    install(sam)
    raw, scaled = make(np.random.default_rng(0))
    theirs = AuthorsNetwork(sam, "sam_linear_probing", "simmat", raw.shape[-1])
    convert(theirs.write(tmp_path / "a.pth"), modality=key)
    predictor = Predictor(load_model("a"), "cpu", "exact")
    given = []
    encode = predictor.model.network.encode_job
    monkeypatch.setattr(
        predictor.model.network, "encode_job", lambda image: given.append(image) or encode(image)
    )
    predictor.set_image(raw, channel_axis=-1)
    expected = authors_input(scaled, mean, std)
    # Only d's published numbers are rounded here; Pillow and torch sum in another order.
    torch.testing.assert_close(given[0], expected, rtol=1e-3, atol=1e-3)
    # The pixel at row 20, column 30 of 90 x 70 has its center there in 1024 x 1024.
    y, x = (20.5 * 1024 / 90 - 0.5), (30.5 * 1024 / 70 - 0.5)
    logits = theirs(expected, x, y)[0, 0]
    result = predictor.predict(points=[(20, 30)])
    np.testing.assert_allclose(result.logits, logits, rtol=1e-2, atol=1e-2)
    assert result.mask.shape == (90, 70)


@pytest.mark.parametrize(
    ("value", "package", "read"),
    [
        (np.float64(0.53125), "numpy.core", 0.53125),
        (np.float32(0.53125), "numpy._core", 0.53125),
        (np.int64(1), "numpy._core", 1.0),
        (np.float64("nan"), "numpy._core", None),
        (0.53125, "", 0.53125),
        ("much", "", None),
    ],
)
def test_import_reads_the_best_iou_of_any_numpy(value, package, read, lora, tmp_path):
    path = lora.write(tmp_path / "a.pth", best_iou=value)
    if package:  # NumPy's objects have other names in its other versions
        with zipfile.ZipFile(path) as archive:
            content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        pickle = next(name for name in content if name.endswith("data.pkl"))
        content[pickle] = re.sub(rb"numpy\._?core\.", package.encode() + b".", content[pickle])
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    spec = convert(path, modality="rgbt").spec
    assert spec.metrics.get("best_iou") == spec.training.get("best_iou") == read


def test_import_of_their_file_says_how_to_convert_it(lora, tmp_path):
    convert(lora.write(tmp_path / "a.pth"), modality="rgbt")
    # What one import may read, others still may not.
    with pytest.raises(
        ValueError, match=r"b\.pth holds objects other than .* simmat convert b\.pth"
    ):
        import_file(lora.write(tmp_path / "b.pth"))


@pytest.mark.parametrize("network", ["sam_prompt", "sam_full_finetune"])
def test_import_leaves_the_frozen_prompt_encoder_out(network, sam, tmp_path):
    torch.manual_seed(1)
    theirs = AuthorsNetwork(sam, network, "simmat", 1)
    state = theirs.content()["state_dict"]
    without = {name: each for name, each in state.items() if not name.startswith("prompt_enc")}
    assert len(without) < len(state)
    first = convert(theirs.write(tmp_path / "with.pth"), modality="nir")
    second = convert(theirs.write(tmp_path / "none.pth", state_dict=without), modality="nir")
    ours = [read_tensors(entry.path) for entry in (first, second)]
    assert ours[0].keys() == ours[1].keys()
    assert all(torch.equal(tensor, ours[1][name]) for name, tensor in ours[0].items())


def test_command_converts_what_models_lists_and_exports(lora, tmp_path, capsys):
    def simmat(*words):
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    path = lora.write(tmp_path / "checkpoint_best.pth")
    status, _, err = simmat("models", "import", path)
    assert status == 1
    assert "simmat convert checkpoint_best.pth --modality KEY" in " ".join(err.split())
    words = ("convert", path, "--modality", "rgbnir", "--base", "vit_b", "--name", "rgb-nir")
    status, out, err = simmat(*words)
    assert (status, err) == (0, "")
    assert "rgb-nir is ready" in out
    assert "rgb-nir" in simmat("models", "list")[1]
    card = " ".join(simmat("models", "info", "rgb-nir")[1].split())
    for line in ("simmat, tuned: lora", "red, green, blue, NIR", "best_iou 0.5388", "epoch 46"):
        assert line in card
    bundle = tmp_path / "with base.safetensors"
    status, out, _ = simmat("models", "export", "rgb-nir", "--output", bundle, "--bundle")
    assert status == 0
    assert bundle.name in " ".join(out.split())
    assert read_model_card(bundle).holds_all


def changed_state(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[..., object]:
    def change_content(content: dict[str, object]) -> object:
        state = dict(content["state_dict"])
        change(state)
        return {**content, "state_dict": state}

    return change_content


PROJECTOR = "image_encoder.projector."
FIRST = f"{PROJECTOR}zip_proj.0.weight"
RANK = "image_encoder.blocks.0.attn.lora_q_a.weight"
LAST = "mask_decoder.transformer.final_attn_token_to_image.lora_v_b.weight"


def with_tensor(name: str, *shape: int) -> Callable[..., object]:
    return changed_state(lambda s: s.update({name: torch.zeros(shape)}))


@pytest.mark.parametrize(
    ("change", "key", "fault"),
    [
        (lambda c: c, "nir", "it reads 4 channels, and modality nir has NIR."),
        (with_tensor(FIRST, 64, 7, 3, 3), "rgbt", "it reads 7 channels, and modality rgbt has red"),
        (with_tensor(FIRST, 64, 4), "rgbt", "its transfer layer (zip_proj.0.weight) is unknown"),
        (changed_state(lambda s: s.pop(LAST)), "rgbt", "it lacks mask_decoder.transformer.final_"),
        (
            with_tensor("image_encoder.magic.weight", 2),
            "rgbt",
            "image_encoder.magic.weight does not belong to sam_lora",
        ),
        (
            with_tensor("image_encoder.blocks.0.attn.qkv.down.q", 5, WIDTH),
            "rgbt",
            "image_encoder.blocks.0.attn.qkv.down.q does not belong to sam_lora",
        ),
        (
            with_tensor(LAST, 16, 9),
            "rgbt",
            f"on vit_b, {LAST} has the shape (16, 9) instead of (16, 5)",
        ),
        (with_tensor(RANK, 5, 96), "rgbt", f"on vit_b, {RANK} has the shape (5, 96) instead of"),
        (lambda c: {**c, "model": "sam_prefix"}, "rgbt", "lora_q_a.weight does not belong to"),
        (lambda c: {**c, "model": "sam_magic"}, "rgbt", "its network 'sam_magic' is unknown"),
        (lambda c: {**c, "model": 3}, "rgbt", "its network '3' is unknown"),
        (
            lambda c: {name: c[name] for name in ("epoch", "model")},
            "rgbt",
            "it has no entries 'model' and 'state_dict'",
        ),
        (lambda c: torch.zeros(3), "rgbt", "it has no entries 'model' and 'state_dict'"),
    ],
)
def test_import_of_what_does_not_fit_names_the_fault(
    change, key, fault, lora, user_folder, tmp_path
):
    path = tmp_path / "theirs.pth"
    torch.save(change(lora.content()), path)
    with pytest.raises(ValueError, match=re.escape(fault)) as caught:
        convert(path, modality=key)
    assert str(caught.value).startswith("theirs.pth cannot be converted: ")
    assert "--base" in str(caught.value)
    assert sorted(os.listdir(user_folder)) == ["bases"]


@pytest.mark.parametrize(
    ("layer", "fault"),
    [
        ({"zip_rgbx": (3, 4, 1, 1), "patch_embedding": (WIDTH, 3, 16, 16)}, ""),  # baseline C
        ({"patch_embedding": (WIDTH, 4, 16, 16)}, ""),  # baseline A
        ({"magic": (16, 4, 3, 3)}, "its transfer layer (magic.weight) is unknown here"),
        ({"zip_proj.0": (4000, 4, 3, 3)}, "Transfer layer 'preconvk3n1d4000' is unknown"),
        (
            {"zip_proj.0": (12, 4, 8, 8), "zip_proj.1": (192, 12)},
            "preattn needs a width that is a multiple of 8",
        ),
    ],
)
def test_import_of_simcmf_knows_its_layers_by_name(layer, fault, lora, tmp_path):
    content = lora.content()
    state = {name: t for name, t in content["state_dict"].items() if PROJECTOR not in name}
    for name, shape in layer.items():
        state[f"{PROJECTOR}{name}.weight"] = torch.zeros(shape)
        state[f"{PROJECTOR}{name}.bias"] = torch.zeros(shape[0])
    path = tmp_path / "cmf.pth"
    torch.save({**content, "state_dict": state}, path)
    if fault:
        with pytest.raises(ValueError, match=re.escape(fault)):
            convert(path, modality="rgbt")
    else:
        expected = "baseline_b" if "zip_rgbx" in layer else "baseline_a"
        assert convert(path, modality="rgbt").spec.transfer == expected


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("entry", ["best_iou", "path_helper", "optimizer", "state_dict"])
def test_import_of_a_malicious_file_never_runs_it(entry, archive, lora, tmp_path):
    content = lora.content(**{entry: {"a": Malicious(tmp_path / "trace")}})
    path = tmp_path / "theirs.pth"
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(ValueError, match=r"theirs\.pth holds objects other than tensors"):
        convert(path, modality="rgbt")
    with pytest.raises(ValueError, match=r"theirs\.pth holds objects other than tensors"):
        import_file(path)
    assert not (tmp_path / "trace").exists()


def test_import_refuses_a_modality_where_none_belongs(lora, tmp_path):
    path = lora.write(tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match="Modality 'lidar' is unknown; give one of zju-rgbp"):
        convert(path, modality="lidar")
    entry = convert(path, modality="rgbt")
    shared = export(entry.name, tmp_path / "shared.safetensors")
    with pytest.raises(ValueError, match=r"shared\.safetensors is a checkpoint that describes its"):
        convert(shared, modality="rgbt")
    with pytest.raises(ValueError, match="There is a model called theirs already"):
        convert(path, modality="rgbt")
    assert read_spec(import_file(shared).path).metrics == entry.spec.metrics


def test_import_on_another_base_of_sams_shape_computes_the_same(sam, user_folder, tmp_path):
    torch.manual_seed(5)
    other = small_sam()
    torch.save(other.state_dict(), user_folder / "bases" / "medical.pth")
    theirs = AuthorsNetwork(other, "sam_prompt", "simmat", 1)
    entry = convert(theirs.write(tmp_path / "theirs.pth"), modality="t", base="medical")
    assert entry.spec.base.name == "medical"
    image = torch.randn(1, 1, 160, 160)
    assert_same(answer("theirs", image), their_answer(theirs, image))


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        ("tiny", "tiny-1 is not weights of SAM, which the authors tuned"),
        ("polarization", "polarization is not weights of SAM, which the authors tuned"),
        ("vit_g", "There is no model called 'vit_g'. Did you mean vit_"),
        ("vit_l", "Run `simmat models fetch vit_l`"),
    ],
)
def test_import_on_what_is_no_base_is_refused(base, sentence, lora, assets, tmp_path):
    path = lora.write(tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        convert(path, modality="rgbt", base=base)


def test_every_strategy_of_the_paper_has_a_network():
    assert set(OURS.values()) == set(STRATEGIES) - {
        "frozen", "decoder", "lora_conv", "scratch", "scratch_full"
    }  # fmt: skip

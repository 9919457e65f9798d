"""Checkpoints of the authors' code: imported, they compute what the authors' networks compute."""

from __future__ import annotations

import math
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
from segment_anything.modeling import Sam
from torchvision.transforms import Compose, Resize, ToTensor

from napari_simmat.checkpoints import catalog, sam_weights
from napari_simmat.checkpoints.authors import MODALITIES
from napari_simmat.checkpoints.checkpoint import read_model_card, read_spec, read_tensors
from napari_simmat.checkpoints.library import export, import_file, remove
from napari_simmat.checkpoints.loading import BaseMissingError, load_model
from napari_simmat.checkpoints.registry import list_models
from napari_simmat.cli import main
from napari_simmat.engine.predictor import Predictor
from napari_simmat.io.files import sha256_of
from napari_simmat.models import tuning
from napari_simmat.models.tuning import STRATEGIES
from tests.checkpoints.test_sam_weights import Malicious
from tests.plain_authors import DEPTH, KEPT, SIZES, WIDTH, AuthorsNetwork, small_sam

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
]
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
def install(
    user_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Sam], None]:
    """Make a small network of SAM's shape the published ViT-B, downloaded; there is no other."""
    monkeypatch.setattr("napari_simmat.checkpoints.registry.ASSETS", tmp_path / "no assets")

    def put(sam: Sam) -> None:
        row = catalog.PUBLISHED_WEIGHTS["vit_b"]
        path = user_folder / "bases" / row.file
        path.parent.mkdir()
        torch.save(sam.state_dict(), path)
        checksum = f"sha256:{sha256_of(path)}"
        known = replace(row, size=path.stat().st_size, checksum=checksum)
        monkeypatch.setitem(catalog.PUBLISHED_WEIGHTS, "vit_b", known)
        side = sam.image_encoder.img_size
        monkeypatch.setitem(sam_model_registry, "vit_b", lambda: small_sam(side))
        monkeypatch.setitem(tuning._SAM_SHAPES, (WIDTH, DEPTH), "vit_b")

    return put


@pytest.fixture
def sam(install: Callable[[Sam], None]) -> Sam:
    """The published ViT-B of these tests: three narrow blocks."""
    torch.manual_seed(0)
    network = small_sam()
    install(network)
    return network


@pytest.fixture
def lora(sam: Sam) -> AuthorsNetwork:
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


def own_models() -> list[str]:
    return [entry.name for entry in list_models() if entry.kind == "own"]


def test_all_networks_and_modalities_are_tried() -> None:
    assert {network for network, _, _ in CASES} == set(KEPT) == set(OURS)
    assert {key for _, _, key in CASES} == set(MODALITIES)


@pytest.mark.parametrize(("network", "transfer", "key"), CASES)
def test_the_masks_are_those_of_the_authors_network(
    network: str, transfer: str, key: str, sam: Sam, user_folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    channels = channels_of(key)
    theirs = AuthorsNetwork(sam, network, transfer, channels)
    path = theirs.write(tmp_path / "checkpoint_best.pth")
    entry = import_file(path, "mine", modality=key)
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


@pytest.mark.parametrize(
    ("network", "transfer"),
    [(name, "simmat") for name in SIZES] + [("sam_linear_probing", "baseline_b")],
)
def test_a_tensor_in_a_wrong_place_would_show(network: str, transfer: str) -> None:
    """The comparison above means something: every added tensor changes the answer."""
    torch.manual_seed(0)
    sam = small_sam()
    theirs = AuthorsNetwork(sam, network, transfer, 4)
    image = torch.randn(1, 4, 160, 160)
    before = their_answer(theirs, image)
    parameters = dict(theirs.named_parameters())
    stock = set(sam.state_dict())
    for name in sorted(theirs.kept - stock):
        parameter = parameters[name]
        kept = parameter.data
        parameter.data = kept.flatten().roll(1).view_as(kept)
        changes = zip(their_answer(theirs, image), before, strict=True)
        assert max((one - other).abs().max() for one, other in changes) > 5e-3, name
        parameter.data = kept


def test_the_description_says_what_the_file_and_its_modality_do(
    lora: AuthorsNetwork, tmp_path: Path
) -> None:
    path = lora.write(tmp_path / "a.pth")
    spec = import_file(path, modality="rgbnir").spec
    assert spec is not None
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


# ------------------------------------------------------------------ the authors' input


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
        ("d", depth, [0.4489], [0.2260]),
        (
            "zju-rgbp",
            computed,
            [141.125, 141.375, 138.996, -0.01453, -0.01415, -0.01653, 0.15173, 0.14899, 0.17018],
            [139.955, 140.576, 141.135, 0.38504, 0.38248, 0.38348, 0.13345, 0.13081, 0.14261],
        ),
    ],
)
def test_images_enter_as_they_did_in_training(
    key: str,
    make: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]],
    mean: list[float],
    std: list[float],
    install: Callable[[Sam], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    sam = small_sam(1024)
    install(sam)
    raw, scaled = make(np.random.default_rng(0))
    theirs = AuthorsNetwork(sam, "sam_linear_probing", "simmat", raw.shape[-1])
    import_file(theirs.write(tmp_path / "a.pth"), modality=key)
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


# ------------------------------------------------------------------ numbers, names, what is frozen


@pytest.mark.parametrize(
    ("value", "package", "read"),
    [
        (np.float64(0.53125), "numpy.core", 0.53125),
        (np.float64(0.53125), "numpy._core", 0.53125),
        (np.float32(0.53125), "numpy.core", 0.53125),
        (np.float32(0.53125), "numpy._core", 0.53125),
        (np.int64(1), "numpy._core", 1.0),
        (np.float64("nan"), "numpy._core", None),
        (0.53125, "", 0.53125),
        (torch.tensor(0.53125), "", 0.53125),
        ("much", "", None),
    ],
)
def test_the_best_iou_is_read_whatever_numpy_wrote_it(
    value: object, package: str, read: float | None, lora: AuthorsNetwork, tmp_path: Path
) -> None:
    path = lora.write(tmp_path / "a.pth", best_iou=value)
    if package:
        renamed(path, package)
    spec = import_file(path, modality="rgbt").spec
    assert spec is not None
    assert spec.metrics.get("best_iou") == spec.training.get("best_iou") == read


def renamed(path: Path, package: str) -> None:
    """Give NumPy's objects the names that another version of it has for them."""
    with zipfile.ZipFile(path) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    pickle = next(name for name in content if name.endswith("data.pkl"))
    content[pickle] = re.sub(rb"numpy\._?core\.", package.encode() + b".", content[pickle])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def test_numpys_own_constructors_are_not_let_in(lora: AuthorsNetwork, tmp_path: Path) -> None:
    import_file(lora.write(tmp_path / "a.pth"), modality="rgbt")
    path = tmp_path / "b.pth"
    torch.save({"a": torch.zeros(2), "best_iou": np.float64(0.5)}, path)
    with pytest.raises(ValueError, match=r"b\.pth holds objects other than tensors"):
        sam_weights.read_sam_weights(path)  # what one import may read, others still may not


@pytest.mark.parametrize("network", ["sam_prompt", "sam_full_finetune"])
def test_a_frozen_prompt_encoder_is_compared_and_may_be_missing(
    network: str, sam: Sam, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    theirs = AuthorsNetwork(sam, network, "simmat", 1)
    content = theirs.content()
    state = content["state_dict"]
    frozen = [name for name in state if name.startswith("prompt_encoder.")]
    assert len(frozen) > 5
    without = {name: each for name, each in state.items() if name not in frozen}
    import_file(theirs.write(tmp_path / "with.pth"), modality="nir")
    import_file(theirs.write(tmp_path / "without.pth", state_dict=without), modality="nir")
    ours = [read_tensors(import_path(name)) for name in ("with", "without")]
    assert ours[0].keys() == ours[1].keys()
    assert all(torch.equal(tensor, ours[1][name]) for name, tensor in ours[0].items())

    changed = {**state, frozen[0]: state[frozen[0]] + 1}
    path = theirs.write(tmp_path / "other.pth", state_dict=changed)
    with pytest.raises(ValueError, match=r"other\.pth was not trained on vit_b: prompt_encoder\."):
        import_file(path, modality="nir")


def import_path(name: str) -> Path:
    (entry,) = [each for each in list_models() if each.name == name]
    assert entry.path is not None
    return entry.path


# ------------------------------------------------------------------ the command line


def test_the_command_line_imports_lists_and_exports(
    lora: AuthorsNetwork, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def simmat(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in ("models", *words)])
        return status, *capsys.readouterr()

    path = lora.write(tmp_path / "checkpoint_best.pth")
    status, _, err = simmat("import", path)
    assert status == 1
    assert "Name it with --modality" in " ".join(err.split())
    words = ("import", path, "--modality", "rgbnir", "--base", "vit_b", "--name", "rgb-nir")
    status, out, err = simmat(*words)
    assert (status, err) == (0, "")
    assert "rgb-nir is ready" in out
    assert "rgb-nir" in simmat("list")[1]
    card = " ".join(simmat("info", "rgb-nir")[1].split())
    for line in ("simmat, tuned: lora", "red, green, blue, NIR", "best_iou 0.5388", "epoch 46"):
        assert line in card
    bundle = tmp_path / "with base.safetensors"
    status, out, _ = simmat("export", "rgb-nir", "--output", bundle, "--bundle")
    assert status == 0
    assert bundle.name in " ".join(out.split())
    assert read_model_card(bundle).holds_all


# ------------------------------------------------------------------ refused


def changed_state(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[..., object]:
    def change_content(content: dict[str, object]) -> object:
        state = dict(content["state_dict"])
        change(state)
        return {**content, "state_dict": state}

    return change_content


FIRST = "image_encoder.projector.zip_proj.0.weight"
RANK = "image_encoder.blocks.0.attn.lora_q_a.weight"
LAST = "mask_decoder.transformer.final_attn_token_to_image.lora_v_b.weight"


@pytest.mark.parametrize(
    ("change", "key", "sentence"),
    [
        (lambda c: c, "nir", "reads 4 channels, but modality nir has 1 channel (NIR). Name the "),
        (lambda c: c, "nir", "--modality: rgbd, rgbnir, rgbt, rgbt_500."),
        (lambda c: c, "lidar", "Modality 'lidar' is unknown; give one of zju-rgbp"),
        (
            changed_state(lambda s: s.update({FIRST: torch.zeros(64, 7, 3, 3)})),
            "rgbt",
            "reads 7 channels, but modality rgbt has 4 channels (red, green, blue, thermal). No",
        ),
        (
            changed_state(lambda s: s.update({FIRST: torch.zeros(64, 4)})),
            "rgbt",
            "Its first layer has the shape (64, 4) instead of four axes.",
        ),
        (
            changed_state(lambda s: s.pop(LAST)),
            "rgbt",
            "is incomplete: of what sam_lora trains, 1 of 44 tensors are missing",
        ),
        (
            changed_state(lambda s: s.update({"image_encoder.magic.weight": torch.zeros(2)})),
            "rgbt",
            "holds image_encoder.magic.weight, which do not belong to sam_lora",
        ),
        (
            changed_state(lambda s: s.update({"prompt_encoder.magic": torch.zeros(2)})),
            "rgbt",
            "holds prompt_encoder.magic, which do not belong to sam_lora",
        ),
        (
            changed_state(lambda s: s.update({LAST: torch.zeros(16, 9)})),
            "rgbt",
            f"{LAST} has the shape (16, 9) instead of (16, 5)",
        ),
        (
            changed_state(lambda s: s.update({RANK: torch.zeros(5, 96)})),
            "rgbt",
            "on an image encoder with 3 blocks of width 96, but vit_b has 3 of width 48",
        ),
        (
            changed_state(
                lambda s: s.update({RANK.replace("blocks.0", "blocks.11"): torch.zeros(5, 48)})
            ),
            "rgbt",
            "was trained on an image encoder with 12 blocks of width 48, but vit_b has 3 of",
        ),
        (
            changed_state(lambda s: s.update({LAST: torch.full((16, 5), torch.nan)})),
            "rgbt",
            f"{LAST} hold NaN or infinity",
        ),
        (
            changed_state(
                lambda s: s.update(
                    {"image_encoder.blocks.0.attn.qkv.down.q": torch.zeros(5, WIDTH)}
                )
            ),
            "rgbt",
            "are the same one",
        ),
        (
            lambda c: {**c, "model": "sam_prefix"},
            "rgbt",
            "names its network sam_prefix, but its tensors are those of sam_lora (image_encoder.",
        ),
        (lambda c: {**c, "model": "sam_magic"}, "rgbt", "names its network 'sam_magic', which is"),
        (lambda c: {**c, "model": 3}, "rgbt", "its entry 'model' is no name of a network"),
        (lambda c: {**c, "state_dict": {}}, "rgbt", "holds nothing"),
        (
            lambda c: {name: c[name] for name in ("epoch", "model")},
            "rgbt",
            "was not written by SimMAT's authors' code: it has no entries 'model' and 'state_dict'",
        ),
        (lambda c: c["state_dict"], "rgbt", "was not written by SimMAT's authors' code"),
        (lambda c: torch.zeros(3), "rgbt", "was not written by SimMAT's authors' code"),
        (lambda c: {**c, "best_iou": np.array(object())[()]}, "rgbt", "holds objects other than"),
        (lambda c: {**c, "best_iou": np.longdouble(1)}, "rgbt", "is damaged"),
    ],
)
def test_what_does_not_fit_is_a_sentence_and_nothing_is_written(
    change: Callable[[dict[str, object]], object],
    key: str,
    sentence: str,
    lora: AuthorsNetwork,
    user_folder: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / "theirs.pth"
    torch.save(change(lora.content()), path)
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        import_file(path, modality=key)
    assert str(caught.value).startswith(("theirs.pth ", "Modality "))
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(user_folder)) == ["bases"]


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("entry", ["best_iou", "path_helper", "optimizer", "state_dict"])
def test_a_malicious_file_is_refused_and_never_runs(
    entry: str, archive: bool, lora: AuthorsNetwork, tmp_path: Path
) -> None:
    content = lora.content(**{entry: {"a": Malicious(tmp_path / "trace")}})
    path = tmp_path / "theirs.pth"
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    for modality in ("rgbt", None):
        with pytest.raises(ValueError, match=r"theirs\.pth holds objects other than tensors"):
            import_file(path, modality=modality)
    assert not (tmp_path / "trace").exists()


def test_the_modality_is_asked_for_and_only_where_it_is_needed(
    lora: AuthorsNetwork, tmp_path: Path
) -> None:
    path = lora.write(tmp_path / "theirs.pth")
    for given in ({}, {"base": "vit_b"}):
        with pytest.raises(ValueError, match="Name it with --modality: zju-rgbp, pgsnet_p,"):
            import_file(path, **given)
    entry = import_file(path, modality="rgbt")
    shared = export(entry.name, tmp_path / "shared.safetensors")
    with pytest.raises(ValueError, match=r"shared\.safetensors is a checkpoint that describes its"):
        import_file(shared, modality="rgbt")
    with pytest.raises(ValueError, match="There is a model called theirs already"):
        import_file(path, modality="rgbt")
    assert read_spec(import_file(shared).path).metrics == entry.spec.metrics


def test_a_base_that_is_not_here_says_how_to_get_it(lora: AuthorsNetwork, tmp_path: Path) -> None:
    path = lora.write(tmp_path / "theirs.pth")
    remove("vit_b")
    with pytest.raises(ValueError, match="was trained on vit_b, which is not here") as caught:
        import_file(path, modality="rgbt")
    assert "`simmat models fetch vit_b`" in str(caught.value)
    assert "with --base" in str(caught.value)


def test_the_base_can_be_another_one_of_sams_shape(
    sam: Sam, user_folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    other = small_sam()
    torch.save(other.state_dict(), user_folder / "bases" / "medical.pth")
    theirs = AuthorsNetwork(other, "sam_prompt", "simmat", 1)
    path = theirs.write(tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match="was not trained on vit_b"):
        import_file(path, modality="t")
    entry = import_file(path, modality="t", base="medical")
    assert entry.spec.base.name == "medical"
    image = torch.randn(1, 1, 160, 160)
    assert_same(answer("theirs", image), their_answer(theirs, image))


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        ("tiny", "its architecture is tiny, and the authors tuned SAM"),
        ("polarization", "it is a checkpoint itself"),
        ("vit_g", "There is no model called 'vit_g'. Did you mean vit_"),
        ("elsewhere.pth", "it is not among your models"),
    ],
)
def test_what_cannot_be_a_base_is_a_sentence(
    base: str, sentence: str, sam: Sam, lora: AuthorsNetwork, assets: Path, tmp_path: Path
) -> None:
    path = lora.write(tmp_path / "theirs.pth")
    if base == "elsewhere.pth":
        base = str(tmp_path / base)
        torch.save(sam.state_dict(), base)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        import_file(path, modality="rgbt", base=base)


def test_every_strategy_of_the_paper_has_a_network_of_the_authors() -> None:
    assert set(OURS.values()) == set(STRATEGIES) - {"frozen", "decoder", "lora_conv", "scratch"}


@pytest.mark.slow
@pytest.mark.usefixtures("assets")
def test_a_file_on_the_real_vit_b_is_read_at_the_papers_size(
    sam_file: Path, tmp_path: Path, user_folder: Path
) -> None:
    (user_folder / "bases").mkdir()
    (user_folder / "bases" / "my_sam.pth").symlink_to(sam_file)
    sam = sam_model_registry["vit_b"]()
    sam.load_state_dict(torch.load(sam_file, weights_only=True, mmap=True))
    theirs = AuthorsNetwork(sam, "sam_lora", "simmat", 4, size=100)
    entry = import_file(theirs.write(tmp_path / "a.pth"), modality="rgbnir", base="my_sam")
    assert entry.spec.strategy_size == 100
    stored = read_tensors(entry.path)
    expected = 12 * 4 * 100 * 768 + 2 * 4 * 100 * 256 + 5 * 2 * 100 * (256 + 128)
    assert sum(tensor.numel() for tensor in stored.values()) == expected + 576 * 4 + 64 + 1731
    network = load_model("a").network
    tokens = torch.randn(1, 14, 14, 768)
    ours, wanted = (each.image_encoder.blocks[0].attn for each in (network, theirs))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), wanted(tokens), rtol=1e-4, atol=1e-4)
    assert math.prod(stored["image_encoder.blocks.0.attn.qkv.down.q"].shape) == 76_800

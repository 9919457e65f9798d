"""Each kind of foundation: its file is loaded strictly, gives stock SAM's masks, and is a base."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam

from napari_simmat.checkpoints.catalog import PUBLISHED_WEIGHTS
from napari_simmat.checkpoints.checkpoint import read_spec
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.cli import main
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.files import hash_job, sha256_of
from napari_simmat.models import mobile_encoder, tuning
from napari_simmat.models.sam import build_sam
from napari_simmat.progress import finish
from tests.model_files import import_file
from tests.nightly import nightly_but
from tests.small_sam import DEPTH, WIDTH, small_sam

SIDE = 1024
SMALL_MOBILE = {"WIDTHS": (8, 16, 16, 32), "DEPTHS": (1, 1, 1, 1), "HEADS": (1, 2, 2, 2)}


def stock_and_state(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Sam, dict[str, torch.Tensor]]:
    """Stock SAM with a shrunk network of random numbers, and its tensors as in a published file.

    MobileSAM's encoder is compared with timm's in `tests.models.test_mobile_encoder`.
    """
    torch.manual_seed(0)
    if architecture == "vit_t":
        for name, value in SMALL_MOBILE.items():
            monkeypatch.setattr(mobile_encoder, name, value)
        ours = build_sam("vit_t")
        encoder = torch.nn.Module()
        encoder.img_size, encoder.forward = SIDE, lambda image: ours.encode(image).embedding
        return Sam(encoder, ours.prompt_encoder, ours.mask_decoder), ours.state_dict()
    stock = small_sam(SIDE)
    monkeypatch.setitem(sam_model_registry, architecture, lambda: small_sam(SIDE))
    monkeypatch.setitem(tuning._SAM_SHAPES, (WIDTH, DEPTH), architecture)
    return stock, stock.state_dict()


def publish(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file be the one that the publisher of `name` offers."""
    row = PUBLISHED_WEIGHTS[name]
    algorithm = row.checksum.partition(":")[0]
    checksum = f"{algorithm}:{finish(hash_job(path, algorithm))}"
    row = replace(row, checksum=checksum, size=path.stat().st_size)
    monkeypatch.setitem(PUBLISHED_WEIGHTS, name, row)
    monkeypatch.setattr(
        "napari_simmat.checkpoints.catalog.SIZES", {row.architecture: path.stat().st_size}
    )


def seen_by(preprocessing: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image (Y, X, 3) as the publisher's code gives it to SAM's own preprocessing."""
    return image if preprocessing == "sam" else image * 5  # from 0..51 to 0..255


def admitted_cells(
    predictor: Predictor, box: NDArray[np.int64] | None, shape: tuple[int, int]
) -> tuple[slice, ...]:
    """The part of the mask grid that a box admits: our mask ends there, stock SAM's may not."""
    if box is None:
        return (slice(None),)
    bounds = Prompt(box=tuple(box)).bounds(shape)
    return predictor._current().transform.cells_within(*bounds, 4)


@pytest.mark.parametrize(
    "name", nightly_but(("vit_b", "vit_t", "vit_t_lm", "vit_l_em_organelles"), "vit_b")
)
@torch.no_grad()
def test_published_file_gives_the_masks_of_stock_sam(name, tmp_path, monkeypatch):
    row = PUBLISHED_WEIGHTS[name]
    stock, state = stock_and_state(row.architecture, monkeypatch)
    path = tmp_path / "from the internet.pt"
    torch.save(state, path)
    publish(name, path, monkeypatch)
    assert import_file(path).name == name
    assert find_model(name).kind == "downloaded"
    model = load_model(name)
    assert model.network.state_dict().keys() == state.keys()
    assert model.spec.base.sha256 == sha256_of(path)
    assert (model.spec.license, model.spec.modality) == (row.license, row.modality)

    # Stock SAM rounds when it resizes, and so does Predictor, but not what is no longer 8-bit.
    shape = (90, 140, 3) if row.preprocessing == "sam" else (SIDE, SIDE, 3)
    image = np.random.default_rng(1).integers(0, 52, shape, dtype=np.uint8)
    image[0, :2] = [[0, 0, 0], [51, 51, 51]]
    ours = Predictor(model, "cpu", "exact")
    ours.set_image(image, channel_axis=-1)
    theirs = SamPredictor(stock)
    theirs.set_image(seen_by(row.preprocessing, image))
    points, box = np.array([[20.0, 30.0], [60.0, 100.0]]), np.array([10, 20, 70, 120])
    for prompt, given in (
        (
            {"points": points, "labels": [1, 0]},
            {"point_coords": points[:, ::-1].copy(), "point_labels": np.array([1, 0])},
        ),
        ({"box": box}, {"box": box[[1, 0, 3, 2]]}),
    ):
        answer = ours.predict(**prompt)
        _, scores, logits = theirs.predict(**given, multimask_output=False)
        cells = admitted_cells(ours, prompt.get("box"), image.shape[:2])
        difference = np.linalg.norm((answer.logits - logits[0])[cells])
        assert difference <= 1e-4 * np.linalg.norm(logits[0][cells])
        assert answer.score == pytest.approx(scores[0], rel=1e-4)


@torch.no_grad()
def test_medsam_reads_a_square_in_0_to_1_and_gives_one_mask(tmp_path, monkeypatch):
    """As in its `MedSAM_Inference.py`; the file is recognized wherever it is."""
    stock, state = stock_and_state("vit_b", monkeypatch)
    path = tmp_path / "downloaded.pth"
    torch.save(state, path)
    publish("medsam_vit_b", path, monkeypatch)
    model = load_model(path)
    assert model.spec.name == "medsam_vit_b"

    image = np.random.default_rng(1).integers(30, 200, (SIDE, SIDE, 3), dtype=np.uint8)
    image[:20], image[-20:] = 30, 199  # so that the percentiles are minimum and maximum
    scaled = torch.from_numpy((image - 30.0) / 169).float().permute(2, 0, 1)[None]
    box = np.array([100, 200, 700, 900])
    features = stock.image_encoder(scaled)
    corners = torch.from_numpy(box[[1, 0, 3, 2]] - 0.5).float()  # between pixels, not at centers
    sparse, dense = stock.prompt_encoder(points=None, boxes=corners[None, None], masks=None)
    expected, _ = stock.mask_decoder(
        image_embeddings=features,
        image_pe=stock.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    ours = Predictor(model, "cpu", "exact")
    ours.set_image(image, channel_axis=-1)
    cells = admitted_cells(ours, box, image.shape[:2])
    difference = ours.predict(box=box).logits[cells] - expected[0, 0].numpy()[cells]
    assert np.linalg.norm(difference) <= 1e-4 * float(expected[0, 0][cells].norm())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_t_lm", "vit_b_histopathology", "medsam_vit_b"])
def test_checkpoint_trained_on_a_foundation_is_loaded(
    name, angles, tmp_path, user_folder, monkeypatch
):
    monkeypatch.setattr("napari_simmat.training.validation.MAX_PLANES", 1)
    row = PUBLISHED_WEIGHTS[name]
    _, state = stock_and_state(row.architecture, monkeypatch)
    path = user_folder / "bases" / row.file
    path.parent.mkdir()
    torch.save(state, path)
    publish(name, path, monkeypatch)
    output = tmp_path / "polarized.safetensors"
    small = ["--batch", "1", "--steps", "10"]
    words = ["train", str(angles), "--base", name, *small, "--output", str(output)]
    assert main([*words, "--size", "2"]) == 0
    spec = read_spec(output)
    assert (spec.base.name, spec.base.sha256) == (name, sha256_of(path))
    assert (spec.transfer, spec.strategy, len(spec.channels)) == ("simmat", "lora", 4)
    predictor = Predictor(load_model(output), "cpu")
    predictor.set_image(np.random.default_rng(0).random((4, 64, 64)), channel_axis=0)
    assert predictor.predict(points=[(30, 30)]).mask.shape == (64, 64)

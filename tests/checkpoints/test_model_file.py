"""What the header of a model's file says of it."""

import pytest
import torch
from safetensors.torch import save_file

from napari_simmat.checkpoints import model_file
from napari_simmat.checkpoints.checkpoint import read_tensors
from napari_simmat.checkpoints.model_file import ModelFile
from tests.small_sam import small_sam


def test_described_files_have_a_card(random_models):
    base = ModelFile.read(random_models / "tiny-1.safetensors")
    assert (base.kind, base.is_base, base.guess) == ("safetensors", True, "")
    assert base.card.spec.name == "tiny-1"
    checkpoint = ModelFile.read(random_models / "polarization.safetensors")
    assert not checkpoint.is_base
    assert not checkpoint.card.holds_all
    assert checkpoint.tensors().keys() == read_tensors(checkpoint.path).keys()


@pytest.mark.parametrize("has_decoder", [False, True])
def test_weights_of_pytorch_have_none(has_decoder, tmp_path):
    path = tmp_path / "sam.pt"
    sam = small_sam().state_dict()
    beside = {"decoder_state": {"out_conv.weight": torch.zeros(3)}} if has_decoder else {}
    torch.save({"model_state": sam, **beside}, path)
    file = ModelFile.read(path)
    assert (file.kind, file.card, file.is_base) == ("torch", None, True)
    assert file.has_decoder == has_decoder
    assert file.tensors().keys() == sam.keys()


@pytest.mark.parametrize(
    ("name", "guess"),
    [("vision_encoder.backbone.pos_embed", "hiera"), ("detector_model.vision_encoder.a", "sam3")],
)
def test_weights_of_the_hub_have_none(name, guess, tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, "likely_architecture", lambda size: "hiera")
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(3)}, path)
    file = ModelFile.read(path)
    assert (file.card, file.is_base, file.guess) == (None, True, guess)


def test_foreign_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"embeddings.weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="a safetensors file without a SimMAT description"):
        ModelFile.read(path)

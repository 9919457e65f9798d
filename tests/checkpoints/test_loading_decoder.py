"""micro-sam's decoder is read with the weights that it was trained with, and with no others."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_simmat.checkpoints.catalog import BY_MICRO_SAM, PUBLISHED_WEIGHTS
from napari_simmat.checkpoints.checkpoint import save_checkpoint
from napari_simmat.checkpoints.library import export_job, remove
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.checkpoints.teaching import save_taught
from napari_simmat.cli import main
from napari_simmat.engine.object_kind import ObjectKind
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.settings import CHANGED_ENCODER, AutomaticSettings
from napari_simmat.io.files import sha256_of
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.spec import Normalization
from napari_simmat.progress import finish
from tests.decoders import narrow_states, put_published
from tests.model_files import import_file

BY_DECODER = AutomaticSettings(by="decoder")


def same(decoder, state):
    loaded = decoder.state_dict()
    return loaded.keys() == state.keys() and all(torch.equal(loaded[n], state[n]) for n in state)


def test_published_decoder_is_read_beside_its_model(user_folder, monkeypatch):
    put_published(monkeypatch, user_folder / "bases")
    weights = user_folder / "bases" / "vit_t_lm.pt"
    beside = user_folder / "bases" / "vit_t_lm_decoder.pt"
    both = load_model("vit_t_lm")
    assert same(both.decoder, torch.load(beside))
    assert both.spec.finds_instances
    assert find_model("vit_t_lm").spec.finds_instances
    assert both.spec.base.sha256 == sha256_of(weights)  # of checkpoints that stand on it

    state = torch.load(beside)
    beside.unlink()
    alone = load_model("vit_t_lm")
    assert alone.decoder is None
    assert alone.fingerprint != both.fingerprint  # Everything finds others
    with pytest.raises(ValueError, match=r"run `simmat models fetch vit_t_lm` again"):
        BY_DECODER.for_model(alone.spec)

    torch.save({name: each + 1 for name, each in state.items()}, beside)
    with pytest.raises(ValueError, match=r"vit_t_lm_decoder\.pt is not the published file"):
        load_model("vit_t_lm")


def test_remove_takes_both_files(user_folder, monkeypatch):
    put_published(monkeypatch, user_folder / "bases")
    remove("vit_t_lm")
    assert list((user_folder / "bases").iterdir()) == []


def test_import_of_both_files_gives_one_model(user_folder, tmp_path, monkeypatch):
    put_published(monkeypatch, tmp_path)
    (tmp_path / "vit_t_lm_decoder.pt").rename(tmp_path / "b.pt")
    assert import_file(tmp_path / "b.pt").kind == "downloadable"
    entry = import_file(tmp_path / "vit_t_lm.pt")
    assert (entry.name, entry.kind) == ("vit_t_lm", "downloaded")
    assert load_model("vit_t_lm").decoder is not None


def test_decoder_alone_that_was_not_published_is_refused(tmp_path, monkeypatch):
    torch.save(narrow_states(monkeypatch)[1], tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt holds micro-sam's decoder alone"):
        import_file(tmp_path / "a.pt")


def test_exported_file_holds_both(tmp_path, monkeypatch, caplog):
    sam, state = narrow_states(monkeypatch)
    torch.save({"model_state": sam, "decoder_state": state}, tmp_path / "cells.pt")
    entry = import_file(tmp_path / "cells.pt")
    assert entry.spec.finds_instances
    model = load_model("cells")
    assert same(model.decoder, state)
    assert model.network.state_dict().keys() == sam.keys()
    assert not caplog.records
    torch.save(sam, tmp_path / "plain.pt")
    assert not import_file(tmp_path / "plain.pt").spec.finds_instances
    assert load_model("plain").decoder is None


def test_file_that_micro_sam_trained_gets_its_preprocessing(tmp_path, monkeypatch):
    """As the published ones: each channel from its minimum to its maximum, also of 8 bits."""
    sam, state = narrow_states(monkeypatch)
    torch.save({"model_state": sam, "decoder_state": state}, tmp_path / "cells.pt")
    torch.save(sam, tmp_path / "plain.pt")
    wanted = Normalization(low=0, high=100)
    assert import_file(tmp_path / "cells.pt").spec.normalization == wanted
    spec = load_model("cells").spec
    assert spec.normalization == wanted
    assert BY_MICRO_SAM in spec.description
    assert import_file(tmp_path / "plain.pt").spec.normalization.keep_uint8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_are_those_of_micro_sam_up_to_its_rounding(tmp_path, monkeypatch, dtype, channels):
    """Its ``_to_image`` cuts off the fraction: v - min, / (max + 1e-7), * 255, as uint8."""
    sam, state = narrow_states(monkeypatch)
    torch.save({"model_state": sam, "decoder_state": state}, tmp_path / "cells.pt")
    shape = (24, 30) if channels == 1 else (24, 30, 3)
    image = np.random.default_rng(0).integers(20, 90, shape).astype(dtype)
    values = image.reshape(24, 30, channels).astype(np.float32)
    values -= values.min((0, 1))
    values /= values.max((0, 1)) + 1e-7
    theirs = np.broadcast_to((255 * values).astype(np.uint8), (24, 30, 3))
    predictor = Predictor(load_model(tmp_path / "cells.pt"), "cpu")
    predictor.set_image(image, channel_axis=None if channels == 1 else -1)
    ours = np.moveaxis(predictor.stack.normalized(), 0, -1)
    assert (ours - theirs).min() > -1e-3
    assert (ours - theirs).max() < 1


def test_preprocessing_of_weights_that_do_not_tell_is_stated(user_folder, tmp_path, monkeypatch):
    sam, _ = narrow_states(monkeypatch)
    torch.save(sam, tmp_path / "plain.pt")
    entry = import_file(tmp_path / "plain.pt", preprocessing="micro-sam")
    assert entry.path == user_folder / "models" / "plain.safetensors"
    model = load_model("plain")
    assert model.spec.normalization == Normalization(low=0, high=100)
    assert "micro-sam" in model.spec.description
    expected = load_model(tmp_path / "plain.pt").network.state_dict()
    for name, each in model.network.state_dict().items():
        torch.testing.assert_close(each, expected[name], rtol=0, atol=0)
    copy = finish(export_job("plain", tmp_path / "copy.safetensors"))
    assert load_model(copy).spec.normalization == model.spec.normalization


@pytest.mark.parametrize(
    ("given", "words"),
    [("stardist", "There is no preprocessing 'stardist'"), ("sam", "import it without")],
)
def test_preprocessing_that_cannot_be_is_refused(tmp_path, monkeypatch, given, words):
    sam, _ = narrow_states(monkeypatch)
    torch.save(sam, tmp_path / "plain.pt")
    path = tmp_path / "plain.pt"
    if given == "sam":
        path = import_file(path, "described", preprocessing="medsam").path
    with pytest.raises(ValueError, match=words):
        import_file(path, "again", preprocessing=given)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("base.block.1.bias"), r"lacks base\.block\.1\.bias"),
        (lambda state: state.update(more=torch.ones(1)), "has more which do"),
        (lambda state: state.update({"out_conv.bias": torch.ones(4)}), "out_conv.bias has the sh"),
        (lambda state: state["out_conv.bias"].fill_(torch.nan), "hold NaN or infinity"),
        (lambda state: state.update({"out_conv.bias": [1.0]}), "are no tensors"),
        (
            lambda state: state.update({"out_conv.bias": torch.ones(1).expand(10**9)}),
            "its tensors are larger than the file",
        ),
    ],
    ids=["missing", "surplus", "shape", "NaN", "list", "bomb"],
)
def test_decoder_that_is_damaged_is_refused(change, sentence, tmp_path, monkeypatch):
    sam, state = narrow_states(monkeypatch)
    change(state)
    torch.save({"model_state": sam, "decoder_state": state}, tmp_path / "cells.pt")
    with pytest.raises(ValueError, match=rf"cells\.pt .*{sentence}"):
        load_model(tmp_path / "cells.pt")


def test_bundle_holds_both_and_is_checked(user_folder, tmp_path, monkeypatch):
    put_published(monkeypatch, user_folder / "bases")
    path = finish(export_job("vit_t_lm", tmp_path / "all.safetensors", bundle=True))
    before = load_model("vit_t_lm")
    remove("vit_t_lm")
    model = load_model(path)
    assert same(model.decoder, before.decoder.state_dict())
    assert model.spec.finds_instances
    save_checkpoint(path, model.spec, model.network.state_dict(), bundled=True)
    with pytest.raises(ValueError, match=r"all\.safetensors does not fit its network: it lacks"):
        load_model(path)
    bare = replace(model.spec, instance_decoder="none")
    own = {f"instance_decoder.{n}": each for n, each in model.decoder.state_dict().items()}
    save_checkpoint(path, bare, {**model.network.state_dict(), **own}, bundled=True)
    with pytest.raises(ValueError, match="which do not belong there"):
        load_model(path)


def test_taught_model_does_without_the_decoder_and_says_so(user_folder, tmp_path, monkeypatch):
    put_published(monkeypatch, user_folder / "bases")
    kind = ObjectKind(ExpectedSize.of([100.0, 120.0]))
    model = load_model(save_taught("vit_t_lm", kind, tmp_path / "nuclei.safetensors"))
    assert model.decoder is None
    assert AutomaticSettings().for_model(model.spec).by == "auto"  # by clicks
    with pytest.raises(ValueError, match=re.escape(CHANGED_ENCODER.format(base="vit_t_lm"))):
        BY_DECODER.for_model(model.spec)


def test_info_tells_of_the_decoder(user_folder, monkeypatch, capsys):
    put_published(monkeypatch, user_folder / "bases")
    main(["models", "info", "vit_t_lm"])
    shown = "".join(capsys.readouterr().out.split())
    assert PUBLISHED_WEIGHTS["vit_t_lm"].decoder.checksum in shown
    assert "everythingbyitsdecoder,orclicks" in shown
    (user_folder / "bases" / "vit_t_lm_decoder.pt").unlink()
    main(["models", "info", "vit_t_lm"])
    shown = "".join(capsys.readouterr().out.split())
    assert "itsdecodercomesbysimmatmodelsfetchvit_t_lm" in shown

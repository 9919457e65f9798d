import os
import shutil
from pathlib import Path

import pytest
import torch

from napari_simmat.checkpoints import loading
from napari_simmat.checkpoints.checkpoint import (
    read_model_card,
    read_spec,
    read_tensors,
    save_checkpoint,
)
from napari_simmat.checkpoints.library import remove
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.checkpoints.registry import list_models
from napari_simmat.io.files import sha256_of
from tests.model_files import export, import_file


@pytest.fixture
def shared(assets, tmp_path):
    """A checkpoint that somebody sent."""
    path = tmp_path / "sent.safetensors"
    shutil.copy(assets / "polarization.safetensors", path)
    return path


def names(kind: str) -> list[str]:
    return [entry.name for entry in list_models() if entry.kind == kind]


def test_import_of_a_checkpoint_takes_its_stem_or_a_name(shared, user_folder):
    entry = import_file(shared)
    assert (entry.name, entry.kind, entry.problem) == ("sent", "own", None)
    assert entry.path == user_folder / "models" / "sent.safetensors"
    assert import_file(shared, "my camera").name == "my camera"
    assert names("own") == ["my camera", "sent"]
    assert load_model("my camera").fingerprint == load_model(shared).fingerprint


def test_import_of_a_base_goes_to_the_bases(assets, user_folder):
    entry = import_file(assets / "tiny-1.safetensors", "sibling")
    assert entry.path == user_folder / "bases" / "sibling.safetensors"
    assert entry.is_base
    model = load_model("sibling")
    assert model.spec.base.sha256 == sha256_of(entry.path)


def test_import_of_a_checkpoint_before_its_base_warns(shared, assets, caplog):
    base = assets / "tiny-1.safetensors"
    content = base.read_bytes()
    base.unlink()
    import_file(shared)
    assert "stands on tiny-1" in caplog.text
    with pytest.raises(loading.BaseMissingError, match="stands on tiny-1"):
        load_model("sent")
    base.write_bytes(content)
    assert load_model("sent").spec.name == "sent"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("../outside", "none of them of /"),
        ("tiny", "is the name of a built-in model"),
        ("vit_b", "is the name of a built-in model"),
        ("SENT", "There is a model called SENT already"),
    ],
)
def test_import_under_impossible_or_taken_name_is_refused(name, sentence, shared, user_folder):
    import_file(shared)
    with pytest.raises(ValueError, match=sentence):
        import_file(shared, name)
    assert names("own") == ["sent"]
    assert sorted(os.listdir(user_folder)) == ["models"]


@pytest.mark.parametrize("what", ["text", "cut", "foreign tensors", "folder"])
def test_import_of_unusable_file_is_refused(what, shared, assets, user_folder):
    if what == "text":
        shared.write_text("a text that was renamed to be a model")
    elif what == "cut":
        shared.write_bytes(shared.read_bytes()[:-1])
    elif what == "foreign tensors":
        save_checkpoint(shared, read_spec(shared), {"other": torch.zeros(3)})
    else:
        shared.unlink()
        shared.mkdir()
    with pytest.raises(ValueError, match=r"^sent\.safetensors .*\.$"):
        import_file(shared)
    assert names("own") == []
    assert not (user_folder / "models").exists()


def test_remove_deletes_the_named_model_alone(shared, user_folder):
    import_file(shared)
    import_file(shared, "second")
    remove("sent")
    assert names("own") == ["second"]
    with pytest.raises(ValueError, match="There is no model called 'sent'"):
        remove("sent")
    import_file(shared)
    (user_folder / "models" / "sent.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="Several files are called sent"):
        remove("sent")
    assert len(names("own")) == 3, "and the second one"


@pytest.mark.parametrize("name", ["tiny", "tiny-1", "polarization"])
def test_remove_of_a_built_in_model_is_refused(name, assets):
    before = sorted(os.listdir(assets))
    with pytest.raises(ValueError, match=f"{name} is built in and cannot be removed"):
        remove(name)
    assert sorted(os.listdir(assets)) == before


def test_remove_by_path_is_refused(shared, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is not among your models"):
        remove(str(shared))
    assert shared.exists()
    monkeypatch.chdir(tmp_path)
    shutil.copy(shared, "net")  # without an ending it looks like a name
    with pytest.raises(ValueError, match="is not among your models"):
        remove("net")
    assert Path("net").exists()


def test_remove_of_a_download_deletes_its_file(assets, user_folder):
    with pytest.raises(ValueError, match="vit_b is not downloaded"):
        remove("vit_b")
    whole = user_folder / "bases" / "sam_vit_b_01ec64.pth"
    whole.parent.mkdir()
    whole.write_bytes(b"PK\x03\x04")
    remove("vit_b")
    assert not whole.exists()


def test_remove_of_an_own_file_with_a_built_in_name_works(shared, user_folder):
    path = user_folder / "models" / "tiny-1.safetensors"
    path.parent.mkdir()
    shutil.copy(shared, path)
    remove("tiny-1")
    assert not path.exists()
    assert "tiny-1" in names("built in")


def test_export_is_the_file_itself(assets, tmp_path):
    path = export("polarization", tmp_path / "for you.safetensors")
    assert path.read_bytes() == (assets / "polarization.safetensors").read_bytes()
    folder = tmp_path / "folder"
    folder.mkdir()
    assert export("tiny", folder) == folder / "tiny-1.safetensors"
    with pytest.raises(ValueError, match="vit_h is not downloaded yet"):
        export("vit_h", tmp_path / "a.pth")


def test_export_of_a_bundle_keeps_the_precision(assets, tmp_path):
    path = export("polarization", tmp_path / "bundle.safetensors", bundle=True)
    stored = read_tensors(path)
    below = read_tensors(assets / "tiny-1.safetensors")
    assert all(stored[name].dtype == tensor.dtype for name, tensor in below.items())
    assert read_model_card(path).holds_all
    assert not read_model_card(path).is_base


def test_export_replaces_nothing_unasked(assets, tmp_path):
    path = tmp_path / "precious"
    path.write_text("work")
    for bundle in (False, True):
        with pytest.raises(ValueError, match="precious exists already"):
            export("polarization", path, bundle=bundle)
    assert path.read_text() == "work"
    export("polarization", path, overwrite=True)
    assert read_spec(path).modality == "polarization (4 angles)"

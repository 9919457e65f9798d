"""What was made with tiny-5, or on it, goes on with tiny-6, whose network is the same."""

from dataclasses import replace
from pathlib import Path

import pytest

from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors, save_checkpoint
from napari_simmat.checkpoints.loading import BaseMissingError, load_model
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.io.files import ASSETS

TINY_5 = "02092ba356b380dbf1db89df521b60be5489b5ceba99b93e41998834cf205107"


def checkpoint_on(path: Path, name: str, sha256: str) -> Path:
    """`thermal` as if it had been trained on another base."""
    shipped = ASSETS / "thermal.safetensors"
    spec = read_spec(shipped)
    base = replace(spec.base, name=name, sha256=sha256)
    save_checkpoint(path, replace(spec, name=path.stem, base=base), read_tensors(shipped))
    return path


def test_tiny_5_by_name_is_the_network_with_a_decoder() -> None:
    assert find_model("tiny-5").name == "tiny-6"


def test_checkpoint_on_tiny_5_loads_and_finds_objects(tmp_path: Path) -> None:
    model = load_model(checkpoint_on(tmp_path / "mine.safetensors", "tiny-5", TINY_5))
    assert model.spec.base.name == "tiny-5"
    assert model.spec.finds_instances
    assert model.decoder is not None


@pytest.mark.parametrize("name", ["tiny-4", "tiny-5"])
def test_checkpoint_on_another_network_is_refused(tmp_path: Path, name: str) -> None:
    path = checkpoint_on(tmp_path / "mine.safetensors", name, "0" * 64)
    with pytest.raises(BaseMissingError, match=name):
        load_model(path)


def test_own_file_of_that_name_goes_first(user_folder: Path) -> None:
    checkpoint_on(user_folder / "models" / "tiny-5.safetensors", "tiny-6", TINY_5)
    assert find_model("tiny-5").kind == "own"

import os
import re
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_simmat.checkpoints.checkpoint import (
    read_model_card,
    read_spec,
    read_tensors,
    save_checkpoint,
)
from napari_simmat.checkpoints.sam_weights import read_sam_weights
from napari_simmat.io.files import DISK_FULL, sha256_of


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "b.weight": torch.randn(3, 4, generator=generator),
        "a.bias": torch.randn(5, generator=generator).half(),
        "scalar": torch.tensor(2.0),
    }


def test_save_checkpoint_is_read_again(tmp_path, tiny_spec, tensors):
    path = tmp_path / "new folder" / "a.safetensors"
    save_checkpoint(path, tiny_spec, tensors)
    assert read_spec(path) == tiny_spec
    back = read_tensors(path)
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_save_checkpoint_writes_equal_bytes_that_others_read(tmp_path, tiny_spec, tensors):
    save_checkpoint(tmp_path / "a", tiny_spec, tensors)
    save_checkpoint(tmp_path / "b", tiny_spec, dict(reversed(tensors.items())))
    assert sha256_of(tmp_path / "a") == sha256_of(tmp_path / "b")
    (tmp_path / "any").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_save_checkpoint_writes_views_as_their_values(tmp_path, tiny_spec):
    whole = torch.arange(12.0).reshape(3, 4)
    views = {"transposed": whole.T, "row": whole[1], "parameter": torch.nn.Parameter(whole)}
    save_checkpoint(tmp_path / "a", tiny_spec, views)
    back = read_tensors(tmp_path / "a")
    assert all(torch.equal(back[name], views[name]) for name in views)


@pytest.mark.parametrize(
    ("sha256", "bundled", "is_base", "holds_all"),
    [("", False, True, True), ("a" * 64, False, False, False), ("a" * 64, True, False, True)],
    ids=["base", "checkpoint", "bundle"],
)
def test_read_model_card_tells_base_checkpoint_and_bundle(
    sha256, bundled, is_base, holds_all, tmp_path, tiny_spec, tensors
):
    spec = replace(tiny_spec, base=replace(tiny_spec.base, sha256=sha256))
    save_checkpoint(tmp_path / "a", spec, tensors, bundled=bundled)
    card = read_model_card(tmp_path / "a")
    assert (card.spec, card.is_base, card.holds_all) == (spec, is_base, holds_all)


def test_read_tensors_outlive_their_file(tmp_path, tiny_spec, tensors):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, tiny_spec, tensors)
    back = read_tensors(path)
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert torch.equal(back["b.weight"], tensors["b.weight"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_checkpoint_that_is_not_finite_is_refused(value, tmp_path, tiny_spec, tensors):
    path = tmp_path / "a.safetensors"
    tensors["b.weight"][1, 2] = value
    with pytest.raises(ValueError, match=r"was not written: b\.weight hold NaN or infinity"):
        save_checkpoint(path, tiny_spec, tensors)
    assert not path.exists()
    safetensors.torch.save_file(tensors, path, {"simmat": tiny_spec.to_json()})
    with pytest.raises(ValueError, match=r"cannot be used: b\.weight hold NaN or infinity"):
        read_tensors(path)


def test_checkpoint_of_large_finite_numbers_is_written(tmp_path, tiny_spec):
    largest = torch.full((10,), torch.finfo(torch.float32).max)  # their sum overflows
    save_checkpoint(tmp_path / "a", tiny_spec, {"a": largest})
    assert torch.equal(read_tensors(tmp_path / "a")["a"], largest)


def test_save_checkpoint_without_real_tensors_is_refused(tmp_path, tiny_spec):
    with pytest.raises(ValueError, match="would hold no tensor"):
        save_checkpoint(tmp_path / "a", tiny_spec, {})
    save_checkpoint(tmp_path / "a", tiny_spec, {"steps": torch.arange(3)})
    with pytest.raises(ValueError, match="steps hold no floating-point numbers"):
        read_tensors(tmp_path / "a")


def test_read_model_card_of_foreign_or_newer_file_is_refused(tmp_path, tensors, tiny_spec):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"other\.safetensors is .* without a SimMAT description"):
        read_spec(path)
    path = tmp_path / "new.safetensors"
    text = replace(tiny_spec, format_version=7).to_json().replace('"name"', '"quantum": 1, "name"')
    safetensors.torch.save_file(tensors, path, {"simmat": text})
    with pytest.raises(ValueError, match=r"new\.safetensors .* has format 7.*Update napari-simmat"):
        read_spec(path)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(["safetensors", "zip", "before 1.6"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1),
)
def test_read_of_any_damage_works_or_is_refused(kind, changes, tmp_path, tiny_spec):
    path = tmp_path / "a.model"
    tensors = {"a": torch.ones(3, 4), "b": torch.ones(2).half()}
    if kind == "safetensors":
        save_checkpoint(path, tiny_spec, tensors)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[int(place * len(content))] = value
    path.write_bytes(content)
    for read in (read_model_card, read_tensors) if kind == "safetensors" else (read_sam_weights,):
        try:
            read(path)
        except ValueError as error:
            assert str(error).startswith("a.model ")  # noqa: PT017
            assert str(error).endswith(".")  # noqa: PT017


def test_save_checkpoint_on_full_disk_keeps_the_earlier_file(
    tmp_path, tiny_spec, tensors, monkeypatch
):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, tiny_spec, tensors)
    before = sha256_of(path)

    def full(_, filename, *__):
        filename.write_bytes(b"half")
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match=re.escape(DISK_FULL.format(path.name, path.parent))):
        save_checkpoint(path, tiny_spec, {"other": torch.zeros(3)})
    assert sha256_of(path) == before
    assert os.listdir(tmp_path) == ["a.safetensors"]

import builtins
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from napari_simmat.checkpoints.sam_weights import EXPORT_FROM_MICRO_SAM, read_sam_weights


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return builtins.open, (str(self.trace), "w")


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "before 1.6"])
def test_read_sam_weights_gives_what_was_saved(archive, tmp_path):
    path = tmp_path / "weights.pth"
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b.half": torch.ones(3).half()}
    torch.save(weights, path, _use_new_zipfile_serialization=archive)
    back = read_sam_weights(path)
    assert set(back) == set(weights)
    assert all(torch.equal(back[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    "write",
    [
        lambda evil, path: torch.save({"a": evil}, path),
        lambda evil, path: torch.save({"a": evil}, path, _use_new_zipfile_serialization=False),
        lambda evil, path: path.write_bytes(pickle.dumps({"a": evil}, protocol=2)),
        lambda evil, path: path.write_bytes(pickle.dumps(evil, protocol=2)),
        lambda evil, path: path.write_bytes(pickle.dumps(evil, protocol=5)),
        lambda evil, path: torch.save({"model_state": with_prefix("sam."), "init": evil}, path),
    ],
    ids=["zip", "before 1.6", "plain pickle", "bare", "newest pickle", "beside weights"],
)
def test_read_sam_weights_never_runs_a_malicious_pickle(write, tmp_path):
    path = tmp_path / "weights.pth"
    write(Malicious(tmp_path / "trace"), path)
    with pytest.raises(
        ValueError, match=r"weights\.pth (holds objects other|is a Python pickle).*"
    ):
        read_sam_weights(path)
    assert not (tmp_path / "trace").exists()


def test_read_sam_weights_names_the_foreign_object(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(
        ValueError, match=r"other than tensors \(torch\.nn\.modules\.linear\.Linear"
    ):
        read_sam_weights(path)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "holds nothing, not a table of named tensors"),
        ([torch.zeros(2)], "holds list, not a table of named tensors"),
        ({"epoch": 3, "state_dict": {"a": torch.zeros(2)}}, "its entries epoch, state_dict are no"),
        ({"a": torch.arange(3)}, "a hold no floating-point numbers"),
        ({"a": torch.zeros(3).to_sparse()}, "a is no plain named tensor"),
        ({7: torch.zeros(3)}, "7 is no plain named tensor"),
        ({"a": torch.zeros(3, device="meta")}, "a is no plain named tensor"),
        ({"a": torch.zeros(1).expand(10**13)}, "its tensors are larger than the file"),
        ({"a": torch.tensor([1.0, float("nan")])}, "a hold NaN or infinity"),
        ({"a": torch.tensor([1.0, float("inf")])}, "a hold NaN or infinity"),
    ],
)
def test_read_sam_weights_of_anything_else_is_refused(values, sentence, tmp_path):
    torch.save(values, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=sentence):
        read_sam_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("kept", [0.2, 0.7, 0.99])
def test_read_sam_weights_of_cut_file_is_refused(archive, kept, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(500)}, path, _use_new_zipfile_serialization=archive)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ValueError, match=r"weights\.pth is damaged or cut off"):
        read_sam_weights(path)


@pytest.mark.parametrize(
    ("entry", "content", "sentence"),
    [
        ("word/document.xml", b"text", r"a\.pth is damaged or cut off"),
        ("archive/data.pkl", bytes(10_000_000), "would unpack to more than its own size"),
    ],
)
def test_read_sam_weights_of_a_foreign_zip_is_refused(entry, content, sentence, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(entry, content)
    with pytest.raises(ValueError, match=sentence):
        read_sam_weights(tmp_path / "a.pth")


def test_read_sam_weights_of_a_checkpoint_is_refused(random_models, tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes((random_models / "polarization.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"a\.pth holds a checkpoint .* Rename it"):
        read_sam_weights(path)


SAMS = {"image_encoder.a": torch.ones(2), "mask_decoder.b": torch.zeros(3)}


def with_prefix(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": each for name, each in SAMS.items()}


@pytest.mark.parametrize(
    "values",
    [
        {"model_state": with_prefix("sam."), "iteration": 7, "decoder_state": {"c": torch.ones(1)}},
        {"model_state": SAMS, "decoder_state": {"c": torch.ones(1)}},
        {"model": SAMS, "optimizer": {"state": {}}, "epoch": 3},
        {"state_dict": with_prefix("model.")},
        with_prefix("module."),
    ],
    ids=["micro-sam", "with a decoder", "MedSAM", "Lightning", "on several GPUs"],
)
def test_read_sam_weights_unwraps_a_training(values, tmp_path):
    torch.save(values, tmp_path / "best.pt")
    back = read_sam_weights(tmp_path / "best.pt")
    assert back.keys() == SAMS.keys()
    assert all(torch.equal(back[name], SAMS[name]) for name in SAMS)


def test_read_sam_weights_of_micro_sam_says_how_to_export(tmp_path, monkeypatch):
    class DefaultTrainer:
        pass

    module = types.ModuleType("torch_em")
    module.DefaultTrainer = DefaultTrainer
    DefaultTrainer.__module__, DefaultTrainer.__qualname__ = "torch_em", "DefaultTrainer"
    monkeypatch.setitem(sys.modules, "torch_em", module)
    torch.save({"model_state": SAMS, "init": DefaultTrainer()}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match=r"torch_em\.DefaultTrainer") as caught:
        read_sam_weights(tmp_path / "best.pt")
    assert EXPORT_FROM_MICRO_SAM in str(caught.value)

"""Packages of BioImage.IO: valid by its own library, the same masks, and imported again."""

from __future__ import annotations

import io
import shutil
import sys
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_simmat.checkpoints.bioimageio import (
    DESCRIPTION,
    NEEDS_LIBRARY,
    export_package_job,
    import_package_job,
    not_ours,
)
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.cli import main
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.files import models_folder
from napari_simmat.progress import finish

library = pytest.importorskip("bioimageio.spec")
# It leaves files open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
BOX = (100.0, 100.0, 156.0, 156.0)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(export_package_job("thermal", tmp_path_factory.mktemp("package")))


def content(package: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(package) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(package: Path, target: Path, **changes: tuple[str, str]) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in content(package).items():
            if name == DESCRIPTION:
                text = data.decode()
                for old, new in changes.values():
                    assert old in text
                    text = text.replace(old, new)
                data = text.encode()
            archive.writestr(name, data)
    return target


def test_the_library_finds_no_fault(package: Path) -> None:
    described = library.load_model_description(package)
    summary = described.validation_summary
    assert summary.status == "valid-format", summary.format()
    assert [each.id for each in described.inputs] == ["image", "box"]
    assert described.inputs[0].axes[1].channel_names == ["temperature"]
    assert "cannot express" in described.description


def test_what_a_runner_builds_from_it_gives_the_test_output_and_our_masks(package: Path) -> None:
    """As bioimageio.core does: import, call with the arguments, load the state dict strictly."""
    files, described = content(package), library.load_model_description(package)
    weights = described.weights.pytorch_state_dict
    built = weights.architecture
    network = getattr(import_module(built.import_from), built.callable)(**built.kwargs)
    state = torch.load(io.BytesIO(files["weights.pt"]), weights_only=True)
    network.load_state_dict({name: each.float() for name, each in state.items()}, strict=True)
    network.eval()
    image, box, mask = (np.load(io.BytesIO(files[f"{n}.npy"])) for n in ("image", "box", "mask"))
    _, scaled, clipped, standardized, _ = described.inputs[0].preprocessing  # float32 around
    bounds = clipped.kwargs.min, clipped.kwargs.max
    percents = scaled.kwargs.min_percentile, scaled.kwargs.max_percentile
    low, high = np.percentile(image, percents, axis=(2, 3), keepdims=True)
    values = np.clip((image - low) / (high - low + scaled.kwargs.eps), *bounds)
    rule = standardized.kwargs
    mean, std = (np.reshape(each, (1, -1, 1, 1)) for each in (rule.mean, rule.std))
    inputs = torch.tensor((values - mean) / std, dtype=torch.float32), torch.tensor(box)
    found = torch.sigmoid(network(*inputs)).numpy()
    np.testing.assert_allclose(found, mask, atol=1e-4)
    assert mask.max() > 0.9
    predictor = Predictor(load_model("thermal"), "cpu")
    predictor.set_image(image[0], channel_axis=0)
    [ours] = predictor.predict_low_res([Prompt(box=tuple(box[0].tolist()))])
    np.testing.assert_allclose(torch.sigmoid(ours.image_logits()[0]), found[0, 0], atol=2e-3)


def test_it_is_imported_again_with_the_same_masks(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "import", str(package), "--name", "from-the-zoo"]) == 0
    assert "from-the-zoo is ready" in capsys.readouterr().out
    imported = find_model("from-the-zoo")
    assert imported.spec.channels == find_model("thermal").spec.channels
    assert [path.name for path in models_folder().iterdir()] == ["from-the-zoo.safetensors"]
    image = np.random.default_rng(0).uniform(0, 255, (64, 96)).astype(np.float32)
    results = []
    for name in ("thermal", "from-the-zoo"):
        predictor = Predictor(load_model(name), "cpu")
        predictor.set_image(image)
        results.append(predictor.predict(box=(10, 10, 40, 50)).logits)
    np.testing.assert_array_equal(*results)


# ---------------------------------------------------------------------- what goes wrong


def refused(path: Path, sentence: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole sentence is compared
        finish(import_package_job(path))
    assert str(error.value) == sentence
    assert not models_folder().exists() or not list(models_folder().iterdir())


def test_packages_of_others_and_files_that_are_none_are_refused(
    package: Path, tmp_path: Path
) -> None:
    theirs = ("napari_simmat.checkpoints.bioimageio", "os")
    refused(rewritten(package, tmp_path / "a.zip", code=theirs), not_ours("a.zip"))
    (tmp_path / "b.zip").write_text("no zip")
    refused(tmp_path / "b.zip", not_ours("b.zip"))
    code = ("format_version", "!!python/object/apply:os.system [touch ran]\nformat_version")
    refused(rewritten(package, tmp_path / "c.zip", code=code), not_ours("c.zip"))
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr(DESCRIPTION, "a: &a [1]\nb: *a")
    refused(tmp_path / "d.zip", not_ours("d.zip"))


def test_weights_are_read_as_tensors_alone(package: Path, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    shutil.copy(package, tmp_path / "a.zip")
    buffer = io.BytesIO()
    torch.save({"model.a": Malicious()}, buffer)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in content(package).items():
            archive.writestr(name, buffer.getvalue() if name == "weights.pt" else data)
    with pytest.raises(ValueError, match="holds objects other than tensors"):
        finish(import_package_job(tmp_path / "a.zip"))
    assert not (tmp_path / "ran").exists()


def test_without_the_library_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bioimageio.spec", None)
    with pytest.raises(ValueError, match=r"need the package bioimageio\.spec") as missing:
        finish(export_package_job("thermal", tmp_path))
    assert str(missing.value) == NEEDS_LIBRARY

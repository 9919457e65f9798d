"""torch is imported without a stall; triton is kept out beside Mesa's LLVM."""

import importlib
import os
import subprocess
import sys
import threading

import pytest

from napari_simmat.widgets import torch_import

PROGRAM = """
import sys
from napari_simmat.progress import finish
from napari_simmat.widgets import torch_import

torch_import._is_mapped = lambda library: library == "libLLVM"
finish(torch_import.import_torch_job())

from skimage.data import coins
from napari_simmat import Predictor, load_model, segment_everything

predictor = Predictor(load_model("tiny"))
predictor.set_image(coins()[:64, :64])
segment_everything(predictor)
assert "triton" not in sys.modules, "torch or prediction has imported triton"

import triton  # as another plugin in the same process
from torch.utils._triton import has_triton_package

assert has_triton_package()
"""


@pytest.fixture
def triton(tmp_path, monkeypatch):
    """A folder with a package of that name, which is not imported yet."""
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_prediction_does_without_triton(triton):
    paths = os.pathsep.join([str(triton), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize("mapped", [True, False])
def test_triton_beside_mesas_llvm_is_hidden_in_this_thread(mapped, monkeypatch):
    monkeypatch.setattr(torch_import, "_is_mapped", lambda name: mapped and name == "libLLVM")
    found: list[str] = []

    def elsewhere():
        found.append(importlib.import_module("triton").__name__)

    with torch_import._without_triton():
        if mapped:
            with pytest.raises(ImportError):
                importlib.import_module("triton")
        another = threading.Thread(target=elsewhere)
        another.start()
        another.join()
    assert found == ["triton"]
    assert importlib.import_module("triton")


@pytest.mark.skipif(sys.platform != "linux", reason="nobody knows elsewhere")
def test_is_mapped_knows_loaded_libraries():
    assert torch_import._is_mapped("libc.so")
    assert not torch_import._is_mapped("libnothing")


def test_load_libraries_with_a_broken_file_raises_nothing(monkeypatch, tmp_path):
    folder = tmp_path / "torch" / "lib"
    folder.mkdir(parents=True)
    (folder / "libc10.so").write_text("not a library")
    (folder / "libc10.dylib").write_text("not a library")
    (tmp_path / "torch" / "__init__.py").write_text("")
    spec = type("Spec", (), {"origin": str(tmp_path / "torch" / "__init__.py")})()
    monkeypatch.setattr(torch_import.importlib.util, "find_spec", lambda _: spec)
    torch_import._load_libraries()

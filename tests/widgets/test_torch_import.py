"""What may not be loaded beside Mesa's LLVM is kept out while torch is imported, and only then."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from napari_simmat.widgets import worker

PROGRAM = """
import sys
from napari_simmat.progress import finish
from napari_simmat.widgets import worker

worker._is_mapped = lambda library: library == "libLLVM"
finish(worker.import_torch_job())

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
def triton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a package of that name, which is not imported yet."""
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_prediction_does_without_triton_and_other_plugins_have_it(triton: Path) -> None:
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
def test_triton_counts_as_not_installed_in_this_thread_beside_mesas_llvm(
    mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_is_mapped", lambda name: mapped and name == "libLLVM")
    found: list[str] = []

    def elsewhere() -> None:
        found.append(importlib.import_module("triton").__name__)

    with worker._without_triton():
        if mapped:
            with pytest.raises(ImportError):
                importlib.import_module("triton")
        another = threading.Thread(target=elsewhere)
        another.start()
        another.join()
    assert found == ["triton"]
    assert importlib.import_module("triton")


@pytest.mark.skipif(sys.platform != "linux", reason="nobody knows elsewhere")
def test_what_is_mapped_is_known() -> None:
    assert worker._is_mapped("libc.so")
    assert not worker._is_mapped("libnothing")

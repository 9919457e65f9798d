"""The command line in this process, and small inputs in the current folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tifffile
from skimage.data import coins

from napari_simmat.cli import main
from napari_simmat.engine.files.prompt_csv import write_points_csv
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.files import sha256_of
from napari_simmat.models.spec import Base, Channel, InputSize, ModelSpec, Normalization

ANGLES = ("0 deg", "45 deg", "90 deg", "135 deg")


CLICKS = [Prompt(points=[(50, 45)], object=1), Prompt(points=[(51, 100)], object=7)]


@dataclass
class Output:
    """How a command ended and what it result."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def quickly(quick_models):
    """Most commands load a built-in model and encode one of a few images."""


@pytest.fixture
def simmat(capsys):
    """Run the command line in this process."""

    def run(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        result = capsys.readouterr()
        return Output(status, result.out, result.err)

    return run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a photograph of six coins and two clicks; it is the current one."""
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", coins()[:90, :130])
    write_points_csv("a.csv", CLICKS)
    return tmp_path


def segment(
    *more: object, image: str = "a.tif", prompts: str = "a.csv", output: str = "out"
) -> list[object]:
    return ["segment", image, "--model", "tiny", "--prompts", prompts, "--output", output, *more]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def four_angles(user_folder):
    """A checkpoint with four named channels, random weights, among the user's own models."""
    import torch

    from napari_simmat.checkpoints.checkpoint import read_spec, save_checkpoint
    from napari_simmat.checkpoints.registry import find_model
    from napari_simmat.models.tuning import build_network

    torch.manual_seed(1)
    base = find_model("tiny")
    architecture = read_spec(base.path).base.architecture
    network = build_network(architecture, channels=4, transfer="simmat")
    spec = ModelSpec(
        name="angles",
        modality="polarization (4 angles)",
        channels=tuple(Channel(name=name, mean=127.5, std=64.0) for name in ANGLES),
        normalization=Normalization(joint=True),
        input_size=InputSize(method="native", size=1024),
        base=Base(name=base.name, architecture=architecture, sha256=sha256_of(base.path)),
        transfer="simmat",
    )
    path = user_folder / "models" / "angles.safetensors"
    trained = {name: network.state_dict()[name] for name in network.transfer_names()}
    save_checkpoint(path, spec, trained)
    return path

"""Models for the tests: random weights in files made as the shipped ones are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from napari_simmat.io.files import sha256_of
from napari_simmat.models.spec import Base, Channel, InputSize, ModelSpec, Normalization
from napari_simmat.progress import finish

if TYPE_CHECKING:
    from napari_simmat.checkpoints.registry import ModelEntry
    from napari_simmat.models.spec import Model

ANGLES = ("0 deg", "45 deg", "90 deg", "135 deg")


@pytest.fixture(scope="session")
def tiny_spec() -> ModelSpec:
    """The description of a base; no file can hold its own hash."""
    return ModelSpec(
        name="tiny-1",
        modality="RGB",
        channels=tuple(
            Channel(name=name, mean=127.5, std=60.0) for name in ("red", "green", "blue")
        ),
        normalization=Normalization(),
        input_size=InputSize(method="native", size=1024),
        base=Base(name="tiny-1", architecture="tiny", sha256=""),
        description="Random weights, for tests.",
        license="BSD-3-Clause",
    )


@pytest.fixture(scope="session")
def random_models(tmp_path_factory: pytest.TempPathFactory, tiny_spec: ModelSpec) -> Path:
    """A folder with `tiny-1` (half precision) and `polarization`, which stands on it."""
    import torch

    from napari_simmat.checkpoints.checkpoint import save_checkpoint
    from napari_simmat.models.tuning import build_network

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(1)
    state = build_network("tiny").state_dict()
    save_checkpoint(
        folder / "tiny-1.safetensors", tiny_spec, {name: t.half() for name, t in state.items()}
    )
    network = build_network("tiny", channels=4, transfer="simmat")
    trained = {name: network.state_dict()[name] for name in network.transfer_names()}
    spec = replace(
        tiny_spec,
        name="polarization",
        modality="polarization (4 angles)",
        channels=tuple(Channel(name=name, mean=100.0, std=50.0) for name in ANGLES),
        base=replace(tiny_spec.base, sha256=sha256_of(folder / "tiny-1.safetensors")),
        transfer="simmat",
        metrics={"iou_click": 0.7},
    )
    save_checkpoint(folder / "polarization.safetensors", spec, trained)
    return folder


@pytest.fixture(scope="session")
def other_foundation(random_models: Path) -> Path:
    """A foundation beside the built-in one, for tests in which another model is chosen."""
    return random_models / "tiny-1.safetensors"


@pytest.fixture
def assets(random_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the models in the package: `tiny-1` and `polarization`."""
    folder = tmp_path / "assets"
    shutil.copytree(random_models, folder)
    monkeypatch.setattr("napari_simmat.checkpoints.registry.ASSETS", folder)
    return folder


def shrink_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build `tiny` with a thirtieth of its weights: the same code in a fifth of the time."""
    from napari_simmat.models import tiny, tiny_encoder

    stages = {
        "stage2": ((8, 8, 3, 1, 1, 1),),
        "stage4": ((8, 8, 3, 2, 2, 1),),
        "stage8": ((8, 16, 5, 2, 2, 1),),
        "stage16": ((16, 16, 3, 2, 2, 1),),
        "stage32": ((16, 16, 5, 2, 2, 1),),
    }
    widths = (8, 8, 16)
    plain = partial(tiny.TinyEncoder, widths=widths, depths=(1, 1), tokens=16, blocks=1, heads=2)
    monkeypatch.setattr(tiny, "TinyEncoder", plain)
    monkeypatch.setattr(tiny, "LiteEncoder", partial(tiny.LiteEncoder, tokens=16, heads=2))
    monkeypatch.setattr(tiny, "LITE_BLOCKS", 1)
    monkeypatch.setattr(tiny_encoder, "LITE_WIDTHS", widths)
    monkeypatch.setattr(tiny_encoder, "_STAGES", stages)
    monkeypatch.setattr(tiny, "WIDTH", 32)


@pytest.fixture(scope="session")
def nano_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in foundations with random weights of a shrunk network, and `polarization`."""
    import torch

    from napari_simmat.checkpoints.checkpoint import read_spec, save_checkpoint
    from napari_simmat.io.files import ASSETS
    from napari_simmat.models.tuning import build_network

    folder = tmp_path_factory.mktemp("nano")
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink_tiny(monkeypatch)
        torch.manual_seed(2)
        for path in sorted(ASSETS.glob("tiny-*.safetensors")):
            # Its features have other widths than the decoder of all objects reads.
            spec = replace(read_spec(path), instance_decoder="none")
            network = build_network(spec.base.architecture)
            state = {name: each.half() for name, each in network.state_dict().items()}
            save_checkpoint(folder / path.name, spec, state)
        spec = read_spec(ASSETS / "polarization.safetensors")
        base = folder / f"{spec.base.name}.safetensors"
        network = build_network(spec.base.architecture, channels=4, transfer=spec.transfer)
        trained = {name: network.state_dict()[name] for name in network.transfer_names()}
        spec = replace(
            spec,
            strategy="frozen",
            strategy_size=0,
            base=replace(spec.base, sha256=sha256_of(base)),
        )
        save_checkpoint(folder / "polarization.safetensors", spec, trained)
    return folder


@pytest.fixture
def nano(nano_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks of random weights in place of the built-in ones."""
    shrink_tiny(monkeypatch)
    monkeypatch.setattr("napari_simmat.checkpoints.registry.ASSETS", nano_models)


@pytest.fixture(scope="session")
def nano_base(nano_models: Path) -> Model:
    """`tiny` as `nano` has it; no training changes it."""
    from napari_simmat.checkpoints.loading import load_model

    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink_tiny(monkeypatch)
        monkeypatch.setattr("napari_simmat.checkpoints.registry.ASSETS", nano_models)
        return load_model("tiny")


@pytest.fixture(scope="session")
def sam_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file as SAM is published, with random weights (375 MB; deleted afterwards)."""
    import torch
    from segment_anything import sam_model_registry

    path = tmp_path_factory.mktemp("sam") / "my_sam.pth"
    torch.manual_seed(0)
    torch.save(sam_model_registry["vit_b"]().state_dict(), path)
    yield path
    path.unlink()


def import_file(*given: Any, **named: Any) -> ModelEntry:
    """Import a file into the user's models."""
    from napari_simmat.checkpoints.library import import_file_job

    return finish(import_file_job(*given, **named))


def export(*given: Any, **named: Any) -> Path:
    """Write a model to a file."""
    from napari_simmat.checkpoints.library import export_job

    return finish(export_job(*given, **named))

"""What the tests of training share: a foundation, a data set, and how a training is run."""

from collections.abc import Callable

import pytest
import torch
from segment_anything import sam_model_registry

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.models.sam import build_sam
from napari_simmat.models.spec import Base, Channel, InputSize, Model, ModelSpec, Normalization
from napari_simmat.progress import finish
from napari_simmat.training.finetune import TrainedModel, train_job
from tests.small_sam import small_sam
from tests.training.squares import pictures, short

Train = Callable[..., TrainedModel]
SIDE = 64
"""Of what `sam` reads, in pixels."""


@pytest.fixture(autouse=True)
def small_networks(request):
    """Trainings of a shrunk `tiny`, except where a test is about the shipped models."""
    if not request.node.get_closest_marker("shipped_models"):
        request.getfixturevalue("nano")


@pytest.fixture
def base(request):
    """The foundation that is trained on; no training changes it."""
    if request.node.get_closest_marker("shipped_models"):
        return load_model("tiny")
    return request.getfixturevalue("nano_base")


@pytest.fixture
def sam(monkeypatch):
    """Three narrow blocks that are taken for ViT-B."""
    monkeypatch.setitem(sam_model_registry, "vit_b", lambda: small_sam(SIDE))
    torch.manual_seed(0)
    spec = ModelSpec(
        name="vit_b",
        modality="RGB",
        channels=tuple(Channel(name=n, mean=100.0, std=50.0) for n in ("red", "green", "blue")),
        normalization=Normalization(method="none"),
        input_size=InputSize(size=SIDE),
        base=Base(name="vit_b", architecture="vit_b", sha256="0" * 64),
    )
    return Model(spec, build_sam("vit_b"), "sam")


@pytest.fixture(scope="session")
def dataset():
    """Six planes of two channels to train on, two to validate on."""
    return pictures()


@pytest.fixture
def train(base, dataset, tmp_path):
    """Run a training with `short` settings to its end; `seen` gets what it yields."""

    def run(folder="run", *, data=dataset, seen=None, **settings):
        job = train_job(base, data, short(**settings), "squares", tmp_path / folder)
        return finish(job, None if seen is None else seen.append)

    return run

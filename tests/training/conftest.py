"""What the tests of training share: a foundation, a data set, and how a training is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.datasets.dataset import Dataset
from napari_simmat.models.model import Model
from napari_simmat.progress import Progress, finish
from napari_simmat.training.finetune import TrainedModel, train_job
from tests.training.squares import pictures, short

Train = Callable[..., TrainedModel]


@pytest.fixture(scope="session")
def base() -> Model:
    """The embedded foundation; no training changes it."""
    return load_model("tiny")


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Six planes of two channels to train on, two to validate on."""
    return pictures()


@pytest.fixture
def train(base: Model, dataset: Dataset, tmp_path: Path) -> Train:
    """Run a training with `short` settings to its end; `seen` gets what it yields."""

    def run(
        folder: str = "run",
        *,
        data: Dataset = dataset,
        seen: list[Progress] | None = None,
        **settings: object,
    ) -> TrainedModel:
        job = train_job(base, data, short(**settings), "squares", tmp_path / folder)
        return finish(job, None if seen is None else seen.append)

    return run

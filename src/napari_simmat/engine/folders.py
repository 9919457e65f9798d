"""Where models and the user's data lie."""

from __future__ import annotations

import os
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[1] / "assets"
"""Models that come with the package."""


def user_folder() -> Path:
    """The folder of all user data: NAPARI_SIMMAT_HOME, or the system's place for it."""
    if chosen := os.environ.get("NAPARI_SIMMAT_HOME"):
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("napari-simmat", appauthor=False)


def models_folder() -> Path:
    """The user's own checkpoints; a file's stem is its name."""
    return user_folder() / "models"


def bases_folder() -> Path:
    """Downloaded and imported foundations."""
    return user_folder() / "bases"


def trainings_folder() -> Path:
    """Trainings of the window that run, or can go on: a folder for each, by the model's name."""
    return user_folder() / "trainings"


def embeddings_folder() -> Path:
    """Embeddings on disk, where the user wants them kept."""
    return user_folder() / "embeddings"


def sessions_folder() -> Path:
    """What was done in the window and is not saved yet, a file for each image."""
    return user_folder() / "sessions"

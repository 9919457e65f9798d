"""What will be done in a run, and what will not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_simmat.engine.jobs.tasks import Task

Existing = Literal["refuse", "resume", "overwrite"]
"""What to do where an output exists."""


@dataclass(frozen=True)
class Skipped:
    """An image that will not be segmented, and why.

    Parameters
    ----------
    image
        The file.
    why
        A sentence.
    failed
        Whether it should have been segmented, and cannot be.
    """

    image: Path
    why: str
    failed: bool = False


@dataclass(frozen=True)
class Plan:
    """What a run will read and write.

    Parameters
    ----------
    tasks
        One for each image.
    skipped
        Images that are left out.
    output
        Folder of the outputs.
    existing
        What to do where an output exists.
    others
        How many files of the given folders are no images by their name.
    """

    tasks: tuple[Task, ...]
    skipped: tuple[Skipped, ...]
    output: Path
    existing: Existing = "refuse"
    others: int = 0

    @property
    def several(self) -> bool:
        """Whether it is a run over several images, which gets a summary."""
        return len(self.tasks) + sum(one.failed for one in self.skipped) > 1

    def check_existing(self) -> None:
        """Refuse outputs that exist, unless they may be kept or replaced."""
        if self.existing != "refuse":
            return
        for task in self.tasks:
            for path in (each for each in task.files.possible() if each.exists()):
                raise ValueError(
                    f"{path} exists already. Use --overwrite to replace it, --resume to keep "
                    "what was made the same way, or another output folder."
                )

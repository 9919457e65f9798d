"""What is to be segmented, how, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_simmat.engine.outputs import OutputFiles


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """How images are segmented; the same for every task of a run.

    Parameters
    ----------
    model
        A model's name or file.
    channels
        Names or indices of the channels the model gets, in its order; None for all there are.
    channel_axis
        Axis of the channels; None for what the file says.
    device, precision
        As `Predictor` takes them.
    """

    model: str
    channels: tuple[int | str, ...] | None = None
    channel_axis: int | None = None
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True)
class Task:
    """One image, its prompts, its outputs."""

    image: Path
    prompts: Path
    files: OutputFiles


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Parameters
    ----------
    task
        The task.
    status
        ``"written"``; ``"kept"`` where a resumed run found it done; ``"failed"``.
    objects
        Labels in the label image.
    hidden
        Labels whose mask is empty or wholly under better ones.
    seconds
        Time it took.
    note
        A remark in words, e.g. that memory ran out and what was done; the reason of a failure.
    """

    task: Task
    status: Literal["written", "kept", "failed"]
    objects: int = 0
    hidden: tuple[int, ...] = ()
    seconds: float = 0.0
    note: str = ""

"""What a training would make of a folder of labeled images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from napari_simmat._text import format_list, pluralize
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.io.captures import propose_in
from napari_simmat.progress import Job, Progress, with_progress
from napari_simmat.widgets.train.request import TrainRequest

CHECKING = "Checking the folder"
READY = "Ready to train."
READY_ON = (
    "Ready to train: {train} to train on and {validation} to validate on, {objects}, {channels}."
)
_EXAMPLES = 64
"""Planes whose objects are counted; of more, the number is estimated."""


class FolderCheck(NamedTuple):
    """What `check_folder_job` found: what is in the folder, or why training would refuse it."""

    description: str = ""
    problem: str = ""
    proposal: str = ""
    """A pattern of captures that the names in the folder look like."""


def check_folder_job(request: TrainRequest) -> Job[FolderCheck]:
    """Read a request's folder as the training will."""
    from napari_simmat.datasets.dataset import DataConfig
    from napari_simmat.datasets.folder import read_folder_job
    from napari_simmat.engine.settings import parse_channels

    yield Progress(0, 0, CHECKING)
    folder = Path(request.folder).expanduser()
    try:
        channels = parse_channels(request.channels, ",") if request.channels else None
        selection = ChannelSelection(channels=channels, pixel_ratio=request.pixel_ratio)
        config = DataConfig(selection=selection, seed=request.config.seed)
        dataset = yield from with_progress(
            read_folder_job(folder, config), Progress(0, 0, CHECKING)
        )
        samples = (*dataset.train, *dataset.validation)
        examples = samples[:: -(-len(samples) // _EXAMPLES)]
        objects = 0
        for done, sample in enumerate(examples):
            yield Progress(done, len(examples), "Counting objects")
            objects += len(dataset.regions(sample.load()[1]))
    except (ValueError, TypeError, OSError, MemoryError) as error:
        return FolderCheck(problem=str(error), proposal=propose_in(folder))
    about = "" if len(examples) == len(samples) else "about "
    counted = pluralize(round(objects * len(samples) / len(examples)), "object")
    names = dataset.channel_names
    text = READY_ON.format(
        train=pluralize(len(dataset.train), "image"),
        validation=len(dataset.validation),
        objects=f"{about}{counted}",
        channels=f"{'channel' if len(names) == 1 else 'channels'} {format_list(names)}",
    )
    return FolderCheck(text)

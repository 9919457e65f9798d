"""A look at the files of a run before it starts, and at results, in a worker's thread.

Plain values, no Qt, no napari.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat.batch import Plan, Skipped
from napari_simmat.engine.channels import match_channels
from napari_simmat.engine.formats.image_file import ImageFile, same_but_for_ones
from napari_simmat.engine.formats.reading import read_image, read_labels
from napari_simmat.engine.jobs.tasks import Task
from napari_simmat.model.spec import ModelSpec
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.batch.request import BatchRequest
from napari_simmat.widgets.feeds import LayerInfo, Source

MOST_CHANNELS = 1024
"""Of an image with more, the channels are not listed."""


@dataclass(frozen=True)
class FirstFile:
    """The channels of a run's first file.

    Parameters
    ----------
    name
        Of the file.
    count
        How many channels it has.
    names
        Their names, where the file says them.
    shape
        Without channels.
    rgb
        Whether they are red, green and blue.
    """

    name: str
    count: int
    names: tuple[str, ...] | None
    shape: tuple[int, ...]
    rgb: bool = False

    def layers(self) -> list[LayerInfo]:
        """Each channel as the form of channels takes it."""
        called = self.names or tuple(f"channel {n}" for n in range(self.count))
        if self.count == 1:
            called = (self.name,)
        return [
            LayerInfo(str(n), called[n], self.shape) for n in range(min(self.count, MOST_CHANNELS))
        ]

    def chosen(self, sources: Sequence[Source | None], spec: ModelSpec) -> str:
        """A choice as ``--channels`` takes it; empty where it is what the model takes anyway."""
        if any(source is None for source in sources):
            return ""
        numbers = tuple(int(source.layer) for source in sources if source is not None)
        try:
            usual = match_channels(self.count, spec.inputs, names=self.names, rgba=self.rgb)
        except ValueError:
            usual = ()
        if numbers == usual:
            return ""
        return ",".join(map(self._word, numbers))

    def sources(self, channels: str, spec: ModelSpec) -> tuple[Source, ...] | None:
        """What ``--channels`` says, as a choice; None where it does not fit."""
        if not channels:
            return None
        parts = [part.strip() for part in channels.split(",")]
        words = [int(part) if part.isdecimal() else part for part in parts]
        try:
            numbers = match_channels(self.count, spec.inputs, names=self.names, channels=words)
        except (ValueError, TypeError):
            return None
        return tuple(Source(str(number)) for number in numbers)

    def _word(self, number: int) -> str:
        """A channel by its name; by its number where ``--channels`` would not read that name."""
        if self.names is None:
            return str(number)
        plain = [name.strip().casefold() for name in self.names]
        name = self.names[number].strip()
        is_clear = name and "," not in name and not name.isdecimal()
        return name if is_clear and plain.count(name.casefold()) == 1 else str(number)


@dataclass(frozen=True)
class Planned:
    """What a run reads and writes.

    Parameters
    ----------
    pairs
        Each image with its label image.
    skipped
        What is left out.
    output
        Folder of the outputs.
    """

    pairs: tuple[tuple[Path, Path], ...]
    skipped: tuple[Skipped, ...]
    output: Path

    @classmethod
    def of(cls, plan: Plan) -> Planned:
        """As planned here."""
        pairs = tuple((task.image, task.files.labels) for task in plan.tasks)
        return cls(pairs, plan.skipped, plan.output)

    @classmethod
    def told(cls, values: Mapping[str, Any]) -> Planned:
        """As ``simmat segment --events`` tells it; KeyError or TypeError if it is no plan."""
        return cls(
            tuple((Path(each["image"]), Path(each["labels_file"])) for each in values["files"]),
            tuple(
                Skipped(Path(each["image"]), str(each["why"]), bool(each["failed"]))
                for each in values["skipped"]
            ),
            Path(values["output"]),
        )


@dataclass(frozen=True)
class Look:
    """What there is to do.

    Parameters
    ----------
    request
        What was asked.
    plan
        What would be done; None where there is a problem.
    problem
        Why nothing can be done, in one sentence.
    first
        The first file, where it can be read.
    remark
        Why it cannot, in one sentence.
    """

    request: BatchRequest
    plan: Plan | None = None
    problem: str = ""
    first: FirstFile | None = None
    remark: str = ""


def looking(request: BatchRequest) -> Job[Look]:
    """Find the files, and see what channels the first has."""
    yield Progress(0, 0, "Looking at the files")
    try:
        plan = request.planned()
    except (ValueError, OSError) as error:
        return Look(request, problem=str(error))
    yield Progress(0, 0, "Looking at the first file")
    try:
        return Look(request, plan, first=_first(read_image(plan.tasks[0].image, lazy_above=0)))
    except (ValueError, OSError, MemoryError) as error:
        return Look(request, plan, remark=str(error))


@dataclass(frozen=True, eq=False)
class Opened:
    """An image and its objects, to be shown.

    Parameters
    ----------
    name
        Of the image.
    image
        As it was read.
    labels
        (..., Y, X).
    """

    name: str
    image: ImageFile
    labels: Any


def opening(image: Path, labels: Path) -> Job[Opened]:
    """Read an image and the labels that were made of it; large ones stay where they are."""
    yield Progress(0, 0, f"Opening {image.name}")
    read = read_image(image)
    yield Progress(0, 0, f"Opening {labels.name}")
    found = read_labels(labels).data
    if found.shape != read.shape and same_but_for_ones(found.shape, read.shape):
        found = np.asarray(found).reshape(read.shape)  # TIFF keeps no axes of one plane
    return Opened(image.name, read, found)


def alone(request: BatchRequest, task: Task, output: Path) -> BatchRequest:
    """A request for one task of a plan, with outputs elsewhere."""
    channels = request.channels if task.channels is None else ",".join(map(str, task.channels))
    axis = request.channel_axis if task.channel_axis is None else str(task.channel_axis)
    return replace(
        request,
        images=str(task.image),
        pattern="",
        output=str(output),
        channels=channels,
        channel_axis=axis,
        prompts="auto" if task.prompts is None else str(task.prompts),
        extras=(),
        existing="overwrite",
        scheduler="",
    )


def _first(file: ImageFile) -> FirstFile:
    axis = file.channel_axis
    count = 1 if axis is None else int(file.data.shape[axis])
    return FirstFile(file.path.name, count, file.channel_names, file.shape, file.rgb)

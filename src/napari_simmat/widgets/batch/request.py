"""Options of a batch run as a command, and the preflight on the first file.

A look at the files of a run before it starts, and at results, in a worker's thread.

Plain values, no Qt, no napari.

What is asked of a run over files, as a value: a form shows it, a command line carries it out.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat.batch.inputs import find_inputs
from napari_simmat.batch.plan import (
    AUTO,
    EXTRA_ENDINGS,
    Plan,
    SegmentTask,
    SkippedImage,
    plan,
)
from napari_simmat.engine.automatic_settings import AutomaticSettings
from napari_simmat.engine.channels import match_channels
from napari_simmat.io.files import atomic_write, user_folder
from napari_simmat.io.image_file import ImageFile, same_except_singletons
from napari_simmat.io.readers import read_image, read_labels
from napari_simmat.models.spec import ModelSpec
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.channel_matching import LayerChannel, LayerInfo

MAX_CHANNELS = 1024
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
            LayerInfo(str(n), called[n], self.shape) for n in range(min(self.count, MAX_CHANNELS))
        ]

    def chosen(self, sources: Sequence[LayerChannel | None], spec: ModelSpec) -> str:
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

    def sources(self, channels: str, spec: ModelSpec) -> tuple[LayerChannel, ...] | None:
        """What ``--channels`` says, as a choice; None where it does not fit."""
        if not channels:
            return None
        parts = [part.strip() for part in channels.split(",")]
        words = [int(part) if part.isdecimal() else part for part in parts]
        try:
            numbers = match_channels(self.count, spec.inputs, names=self.names, channels=words)
        except (ValueError, TypeError):
            return None
        return tuple(LayerChannel(str(number)) for number in numbers)

    def _word(self, number: int) -> str:
        """A channel by its name; by its number where ``--channels`` would not read that name."""
        if self.names is None:
            return str(number)
        plain = [name.strip().casefold() for name in self.names]
        name = self.names[number].strip()
        is_clear = name and "," not in name and not name.isdecimal()
        return name if is_clear and plain.count(name.casefold()) == 1 else str(number)


@dataclass(frozen=True)
class PlannedRun:
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
    skipped: tuple[SkippedImage, ...]
    output: Path

    @classmethod
    def of(cls, plan: Plan) -> PlannedRun:
        """As planned here."""
        pairs = tuple((task.image, task.files.labels) for task in plan.tasks)
        return cls(pairs, plan.skipped, plan.output)

    @classmethod
    def from_event(cls, values: Mapping[str, Any]) -> PlannedRun:
        """As ``simmat segment --events`` tells it; KeyError or TypeError if it is no plan."""
        return cls(
            tuple((Path(each["image"]), Path(each["labels_file"])) for each in values["files"]),
            tuple(
                SkippedImage(Path(each["image"]), str(each["why"]), bool(each["failed"]))
                for each in values["skipped"]
            ),
            Path(values["output"]),
        )


@dataclass(frozen=True)
class RunPreflight:
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


def preflight_job(request: BatchRequest) -> Job[RunPreflight]:
    """Find the files, and see what channels the first has."""
    yield Progress(0, 0, "Looking at the files")
    try:
        plan = request.planned()
    except (ValueError, OSError) as error:
        return RunPreflight(request, problem=str(error))
    yield Progress(0, 0, "Looking at the first file")
    try:
        return RunPreflight(
            request, plan, first=_first_file(read_image(plan.tasks[0].image, lazy_above=0))
        )
    except (ValueError, OSError, MemoryError) as error:
        return RunPreflight(request, plan, remark=str(error))


@dataclass(frozen=True, eq=False)
class OpenedResult:
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


def open_result_job(image: Path, labels: Path) -> Job[OpenedResult]:
    """Read an image and the labels that were made of it; large ones stay where they are."""
    yield Progress(0, 0, f"Opening {image.name}")
    read = read_image(image)
    yield Progress(0, 0, f"Opening {labels.name}")
    found = read_labels(labels).data
    if found.shape != read.shape and same_except_singletons(found.shape, read.shape):
        found = np.asarray(found).reshape(read.shape)  # TIFF keeps no axes of one plane
    return OpenedResult(image.name, read, found)


def single_task_request(request: BatchRequest, task: SegmentTask, output: Path) -> BatchRequest:
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


def _first_file(file: ImageFile) -> FirstFile:
    axis = file.channel_axis
    count = 1 if axis is None else int(file.data.shape[axis])
    return FirstFile(file.path.name, count, file.channel_names, file.shape, file.rgb)


log = logging.getLogger(__name__)

EXISTING = ("refuse", "resume", "overwrite")
_FILE = "batch.json"
_PLANNED = ("images", "pattern", "output", "prompts", "extras", "existing")
"""What decides which files are read and written."""


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """A run of the window.

    Parameters
    ----------
    images
        A folder, a file, a pattern or a manifest.
    pattern
        Which files of a folder count; empty for all images.
    output
        The folder that is written into.
    model
        By name or file.
    channels
        Names or numbers with commas between; empty for what the file and the model say.
    channel_axis
        Which axis holds the channels; empty for what the file says.
    pixel_ratio
        Height of a pixel over its width, where a file does not say.
    prompts
        ``auto``, ``same-stem`` or a file.
    extras
        Kinds of optional outputs.
    existing
        What to do where an output exists.
    scheduler
        Address of a Dask scheduler; empty: on this machine.
    propagate
        Whether the objects of prompts are followed through stacks.
    automatic
        How everything is segmented where there are no prompts.
    """

    images: str = ""
    pattern: str = ""
    output: str = ""
    model: str = "tiny"
    channels: str = ""
    channel_axis: str = ""
    pixel_ratio: float = 1.0
    prompts: str = AUTO
    extras: tuple[str, ...] = ()
    existing: str = "resume"
    scheduler: str = ""
    propagate: bool = False
    automatic: AutomaticSettings = field(default_factory=AutomaticSettings)

    def arguments(self) -> list[str]:
        """What follows ``simmat`` on the command line."""
        # With "=", as words of the user's own may start with a dash.
        words = ["segment", f"{self.images}", f"--model={self.model}", f"--output={self.output}"]
        words.append(f"--prompts={self.prompts}")
        if self.pattern:
            words.append(f"--pattern={self.pattern}")
        if self.channels:
            words.append(f"--channels={self.channels}")
        if self.channel_axis:
            words.append(f"--channel-axis={self.channel_axis}")
        if self.pixel_ratio != 1:
            words.append(f"--pixel-ratio={self.pixel_ratio}")
        words += [f"--{kind}" for kind in self.extras]
        if self.existing != "refuse":
            words.append(f"--{self.existing}")
        if self.scheduler:
            words.append(f"--scheduler={self.scheduler}")
        if self.prompts == AUTO:
            words += _automatic_arguments(self.automatic)
        elif self.propagate:
            words.append("--propagate")
        return words

    def problem(self) -> str | None:
        """What is wrong with the request itself, in one sentence; files are looked at later."""
        if not self.images:
            return "Choose a folder of images, or drop it here."
        if not self.output:
            return "Choose a folder for the results."
        if not self.prompts:
            return "Choose a file with prompts, or segment everything."
        if self.scheduler and not re.fullmatch(r"\w+://\S+|\S+\.json", self.scheduler):
            return (
                f"{self.scheduler} is no scheduler's address: it looks like tcp://10.0.0.1:8786, "
                "or is the path of its .json file."
            )
        return None

    def plans_as(self, other: BatchRequest) -> bool:
        """Whether both read and write the same files."""
        return all(getattr(self, name) == getattr(other, name) for name in _PLANNED)

    def planned(self) -> Plan:
        """What would be read and written.

        Raises
        ------
        ValueError, OSError
            As `batch.find_inputs` and `batch.plan`.
        """
        inputs = find_inputs([Path(self.images)], pattern=self.pattern)
        existing: Any = self.existing
        return plan(
            inputs,
            output=Path(self.output),
            prompts=self.prompts,
            existing=existing,
            extras=self.extras,
        )

    def to_json(self) -> str:
        """As text; `from_json` reads it back."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> BatchRequest:
        """Read what `to_json` wrote; ValueError if it is something else."""
        try:
            values = json.loads(text)
            values["extras"] = tuple(values["extras"])
            values["automatic"] = AutomaticSettings.from_dict(values.get("automatic", {}))
            request = cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"These are no settings of a batch ({error}).") from None
        texts = [getattr(request, each.name) for each in fields(cls) if each.type == "str"]
        known = set(request.extras) <= set(EXTRA_ENDINGS) and request.existing in EXISTING
        known = known and isinstance(request.propagate, bool)
        known = known and isinstance(request.pixel_ratio, (int, float))
        if not known or not all(isinstance(text, str) for text in texts):
            raise ValueError("These are no settings of a batch (a word is another kind of value).")
        return request


def _automatic_arguments(settings: AutomaticSettings) -> list[str]:
    """Those settings that are not the default."""
    usual = AutomaticSettings().to_dict()
    words = []
    for name, value in settings.to_dict().items():
        if value == usual[name]:
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--auto.{option}" if value else f"--auto.no-{option}")
        else:
            words.append(f"--auto.{option}={value}")
    return words


def load_request() -> BatchRequest:
    """The settings of the last run; those of a first one where there are none."""
    try:
        return BatchRequest.from_json((user_folder() / _FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return BatchRequest()


def save_request(request: BatchRequest) -> None:
    """Keep settings for the next time; a disk that cannot be written stops no run."""
    try:
        with atomic_write(user_folder() / _FILE) as path:
            path.write_text(request.to_json(), encoding="utf-8")
    except OSError as error:
        log.warning("The settings of the batch could not be saved: %s", error)


def channels_as_text(channels: Sequence[int | str] | None) -> str:
    """As `--channels` takes them."""
    return "" if channels is None else ",".join(map(str, channels))

"""A batch run of the window: its request, and the check of its files before it starts.

Plain values: no napari.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from napari_simmat.batch.inputs import find_inputs, parse_channels
from napari_simmat.batch.plan import (
    AUTO,
    EXTRA_ENDINGS,
    TRACKS,
    Plan,
    SegmentTask,
    SkippedImage,
    plan,
)
from napari_simmat.batch.record import read_record
from napari_simmat.engine.image_stack import match_channels
from napari_simmat.engine.linking import LAPTRACK_MISSING
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.io.files import atomic_write, user_folder
from napari_simmat.io.image_file import ImageFile, same_except_singletons
from napari_simmat.io.plain import from_plain
from napari_simmat.io.readers import read_image, read_labels, stem_of
from napari_simmat.models.spec import ModelSpec
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.channel_matching import LayerChannel, LayerInfo
from napari_simmat.widgets.forms import command_words

log = logging.getLogger(__name__)

CHOOSE_IMAGES = "Choose a folder of images, or drop it here."
CHOOSE_RESULTS = "Choose a folder for the results."
CHOOSE_PROMPTS = "Choose a file with prompts, or segment everything."
TIME_AXIS_NUMBER = "The time axis is a number, counted from 0 without channels."
NOT_SAVED = "The settings of the batch could not be saved: %s"
MAX_CHANNELS = 1024
"""More channels than this are not listed."""
_FILE = "batch.json"
_PLANNED = ("images", "pattern", "output", "prompts", "extras", "existing", "link")
"""Fields that decide which files are read and written."""


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """A batch run of the window.

    Parameters
    ----------
    images
        A folder, a file, a pattern or a manifest.
    pattern
        Which files of a folder are images, e.g. *.tif; empty for all image files.
    output
        Folder for the results.
    model
        By name or file.
    channels
        Names or numbers separated by commas; empty to match them to the model.
    channel_axis
        Axis of the channels; empty if the file says it.
    pixel_ratio
        Height of a pixel over its width, where a file does not say.
    prompts
        ``auto``, ``same-stem`` or a file.
    extras
        Kinds of optional outputs.
    existing
        What to do with existing results: resume keeps those that were made the same way and refuses
        others.
    scheduler
        Address of a Dask scheduler, e.g. tcp://10.0.0.1:8786; empty for this machine. It can run
        code on its workers, and they on what they receive: use one that you trust.
    propagate
        Propagate prompted objects through stacks: from the planes with prompts through all others,
        until the object ends.
    link
        Link objects over time: each keeps its id from frame to frame; a dividing object gets two
        daughters. Also writes STEM_res_track.txt.
    link_axis
        Number of the time axis, counted from 0 without channels; empty if the file says which it
        is.
    automatic
        Settings for ``auto``.
    """

    images: str = ""
    pattern: Annotated[str, {"label": "Pattern"}] = ""
    output: str = ""
    model: str = "tiny"
    channels: str = ""
    channel_axis: str = ""
    pixel_ratio: float = 1.0
    prompts: str = AUTO
    extras: tuple[str, ...] = ()
    existing: Annotated[
        Literal["resume", "refuse", "overwrite"],
        {
            "label": "Existing results",
            "choices": [
                ("Keep them and resume", "resume"),
                ("Stop with an error", "refuse"),
                ("Overwrite", "overwrite"),
            ],
        },
    ] = "resume"
    scheduler: Annotated[str, {"label": "Scheduler"}] = ""
    propagate: Annotated[bool, {"label": "Propagate objects through stacks"}] = False
    link: Annotated[bool, {"label": "Link objects over time"}] = False
    link_axis: Annotated[str, {"label": "Time axis"}] = ""
    automatic: AutomaticSettings = field(default_factory=AutomaticSettings)

    def __post_init__(self) -> None:
        if not set(self.extras) <= set(EXTRA_ENDINGS):
            raise ValueError(f"Additional outputs are {', '.join(EXTRA_ENDINGS)}.")

    def arguments(self) -> list[str]:
        """What follows ``simmat`` on the command line."""
        is_auto = self.prompts == AUTO
        return [
            "segment",
            self.images,
            *command_words(
                self,
                always=("model", "output", "prompts"),
                omit=(
                    "images",
                    "extras",
                    "existing",
                    "automatic",
                    *["propagate"] * is_auto,
                    *["link_axis"] * (not self.link),
                ),
            ),
            *[f"--{kind}" for kind in self.extras],
            *[f"--{self.existing}"] * (self.existing != "refuse"),
            *(command_words(self.automatic, prefix="--auto.") if is_auto else ()),
        ]

    def problem(self) -> str | None:
        """What is wrong with the request itself, one sentence; files are not read."""
        if not self.images:
            return CHOOSE_IMAGES
        if not self.output:
            return CHOOSE_RESULTS
        if not self.prompts:
            return CHOOSE_PROMPTS
        if self.link and find_spec("laptrack") is None:
            return LAPTRACK_MISSING
        if self.link and self.link_axis and not self.link_axis.isdecimal():
            return TIME_AXIS_NUMBER
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
            As `batch.inputs.find_inputs` and `batch.plan.plan`.
        """
        inputs = find_inputs([Path(self.images)], pattern=self.pattern)
        return plan(
            inputs,
            output=Path(self.output),
            prompts=self.prompts,
            existing=self.existing,
            extras=[*self.extras, *[TRACKS] * self.link],
        )

    def to_json(self) -> str:
        """As text; `from_json` reads it."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> BatchRequest:
        """Read what `to_json` wrote; ValueError if it is something else."""
        try:
            return from_plain(cls, json.loads(text))
        except (TypeError, ValueError) as error:
            raise ValueError(f"These are no settings of a batch ({error}).") from None


def load_request() -> BatchRequest:
    """The settings of the last run; the defaults before the first."""
    try:
        return BatchRequest.from_json((user_folder() / _FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return BatchRequest()


def save_request(request: BatchRequest) -> None:
    """Save the settings for next time; a full disk does not stop a run."""
    try:
        with atomic_write(user_folder() / _FILE) as path:
            path.write_text(request.to_json(), encoding="utf-8")
    except OSError as error:
        log.warning(NOT_SAVED, error)


@dataclass(frozen=True)
class FirstFile:
    """The channels of a run's first file.

    Parameters
    ----------
    name
        Of the file.
    count
        Number of channels.
    names
        Of the channels; None if the file has none.
    shape
        Without the channel axis.
    rgb
        Whether the channels are red, green and blue.
    """

    name: str
    count: int
    names: tuple[str, ...] | None
    shape: tuple[int, ...]
    rgb: bool = False

    def layers(self) -> list[LayerInfo]:
        """One entry per channel for the channels form."""
        called = self.names or tuple(f"channel {n}" for n in range(self.count))
        if self.count == 1:
            called = (self.name,)
        return [
            LayerInfo(str(n), called[n], self.shape) for n in range(min(self.count, MAX_CHANNELS))
        ]

    def chosen(self, sources: Sequence[LayerChannel | None], spec: ModelSpec) -> str:
        """The value of ``--channels`` for a choice; empty if the model chooses the same."""
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
        """The choice that ``--channels`` stands for; None if it does not fit this file."""
        if not channels:
            return None
        try:
            words = parse_channels(channels, ",")
            numbers = match_channels(self.count, spec.inputs, names=self.names, channels=words)
        except (ValueError, TypeError):
            return None
        return tuple(LayerChannel(str(number)) for number in numbers)

    def _word(self, number: int) -> str:
        """A channel's name, or its number where ``--channels`` could not read the name."""
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
    is_last = False

    @classmethod
    def of(cls, plan: Plan) -> PlannedRun:
        """From a plan made in this process."""
        pairs = tuple((task.image, task.files.labels) for task in plan.tasks)
        return cls(pairs, plan.skipped, plan.output)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> PlannedRun:
        """From an event of ``simmat segment``; KeyError or TypeError if it is no plan."""
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
    """The result of scanning a request's files.

    Parameters
    ----------
    request
        The request.
    plan
        What would be done; None if there is a problem.
    problem
        Why nothing can be done, one sentence.
    first
        The first file; None if it cannot be read.
    remark
        Why it cannot be read, one sentence.
    """

    request: BatchRequest
    plan: Plan | None = None
    problem: str = ""
    first: FirstFile | None = None
    remark: str = ""


def preflight_job(request: BatchRequest) -> Job[RunPreflight]:
    """Find the files, and read the header of the first."""
    yield Progress(0, 0, "Scanning files")
    try:
        plan = request.planned()
    except (ValueError, OSError) as error:
        return RunPreflight(request, problem=str(error))
    yield Progress(0, 0, "Reading the first file")
    try:
        return RunPreflight(
            request, plan, first=_first_file(read_image(plan.tasks[0].image, lazy_above=0))
        )
    except (ValueError, OSError, MemoryError) as error:
        return RunPreflight(request, plan, remark=str(error))


@dataclass(frozen=True, eq=False)
class OpenedResult:
    """An image and its labels, ready to be shown.

    Parameters
    ----------
    name
        Of the image.
    image
        As read.
    labels
        (..., Y, X).
    made
        What made the labels, from their record; empty without one.
    """

    name: str
    image: ImageFile
    labels: Any
    made: Mapping[str, Any] = field(default_factory=dict)


def open_result_job(image: Path, labels: Path) -> Job[OpenedResult]:
    """Read an image and its labels; large ones stay on disk."""
    yield Progress(0, 0, f"Opening {image.name}")
    read = read_image(image)
    yield Progress(0, 0, f"Opening {labels.name}")
    found = read_labels(labels).data
    if found.shape != read.shape and same_except_singletons(found.shape, read.shape):
        found = np.asarray(found).reshape(read.shape)  # TIFF drops axes of length one
    made: Mapping[str, Any] = {}
    with suppress(ValueError, OSError):
        made = read_record(labels.with_name(f"{stem_of(image)}.json")).provenance()
    return OpenedResult(image.name, read, found, made)


def single_task_request(request: BatchRequest, task: SegmentTask, output: Path) -> BatchRequest:
    """The request for a single task of a plan, with another output folder."""
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

"""What the Batch tab is to segment, as options of a command and as a file."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from napari_simmat.batch.inputs import AUTO, find_inputs
from napari_simmat.batch.nested import refuse_nested
from napari_simmat.batch.options import (
    ClusterOptions,
    FileOptions,
    SegmentChannelOptions,
    SegmentTableOptions,
    SeriesOptions,
    SlideOptions,
)
from napari_simmat.batch.plan import TRACKS, Plan, SegmentTask, plan
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.engine.tracking.linking import LAPTRACK_MISSING
from napari_simmat.io.files import atomic_write, user_folder
from napari_simmat.io.plain import from_plain, to_plain
from napari_simmat.widgets.forms import command_words

log = logging.getLogger(__name__)
CHOOSE_IMAGES = "Choose a folder of images, or drop it here."
CHOOSE_RESULTS = "Choose a folder for the results."
CHOOSE_PROMPTS = "Choose a file with prompts, or segment everything."
TIME_OR_DEPTH = "Objects are linked over time or joined in 3D: choose one of them."
NO_SCHEDULER = (
    "{} is not the address of a scheduler: it looks like tcp://10.0.0.1:8786, or is the path of "
    "its .json file."
)
NOT_SAVED = "The settings of the batch could not be saved: %s"
_FILE = "batch.json"


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """A batch run of the window.

    Parameters
    ----------
    images
        A folder, a file, a pattern or a manifest.
    output
        Folder for the results.
    model
        By name or file.
    prompts
        ``auto``, ``same-stem`` or a file.
    files, channels, series, slides, table, cluster
        The options of the command.
    automatic
        Settings for ``auto``.
    """

    images: str = ""
    output: str = ""
    model: str = "tiny"
    prompts: str = AUTO
    files: FileOptions = field(default_factory=partial(FileOptions, resume=True))
    channels: SegmentChannelOptions = field(default_factory=SegmentChannelOptions)
    series: SeriesOptions = field(default_factory=SeriesOptions)
    slides: SlideOptions = field(default_factory=SlideOptions)
    table: SegmentTableOptions = field(default_factory=SegmentTableOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    automatic: AutomaticSettings = field(default_factory=AutomaticSettings)

    def arguments(self) -> list[str]:
        """What follows ``simmat`` on the command line."""
        is_auto = self.prompts == AUTO
        return [
            "segment",
            self.images,
            *(f"--{name}={getattr(self, name)}" for name in ("output", "model", "prompts")),
            *command_words(self.files),
            *command_words(self.channels if is_auto else replace(self.channels, children="")),
            *command_words(self.series.that_apply(to_everything=is_auto)),
            *command_words(self.slides if is_auto else replace(self.slides, tissue="")),
            *command_words(self.table),
            *command_words(self.cluster),
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
        if (self.series.link or self.series.objects == "3d") and find_spec("laptrack") is None:
            return LAPTRACK_MISSING
        if self.series.link and self.series.objects == "3d":
            return TIME_OR_DEPTH
        try:
            _ = self.table.settings, self.channels.selection
            if self.channels.of_children is not None and self.prompts == AUTO:
                refuse_nested(self.prompts, self.slides.part)
            _ = self.slides.part
        except ValueError as error:
            return str(error)
        scheduler = self.cluster.scheduler
        if scheduler and not re.fullmatch(r"\w+://\S+|\S+\.json", scheduler):
            return NO_SCHEDULER.format(scheduler)
        return None

    def planned(self) -> Plan:
        """What would be read and written.

        Raises
        ------
        ValueError, OSError
            As `batch.plan.find_inputs` and `batch.plan.plan`.
        """
        inputs = find_inputs([Path(self.images)], pattern=self.files.pattern)
        return plan(
            inputs,
            output=Path(self.output),
            prompts=self.prompts,
            existing=self.files.existing,
            extras=[*self.files.extras, *[TRACKS] * self.series.link],
            report=self.files.report,
        )


def load_request() -> BatchRequest:
    """The settings of the last run; the defaults before the first."""
    try:
        return from_plain(BatchRequest, json.loads((user_folder() / _FILE).read_text("utf-8")))
    except (OSError, ValueError):
        return BatchRequest()


def save_request(request: BatchRequest) -> None:
    """Save the settings for next time; a full disk does not stop a run."""
    try:
        with atomic_write(user_folder() / _FILE) as path:
            text = json.dumps(to_plain(request), indent=1, allow_nan=False)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        log.warning(NOT_SAVED, error)


def single_task_request(request: BatchRequest, task: SegmentTask, output: Path) -> BatchRequest:
    """The request for a single task of a plan, with another output folder."""
    chosen, axis = task.selection.channels, task.selection.channel_axis
    channels = request.channels
    if chosen is not None:
        channels = replace(channels, channels=",".join(map(str, chosen)))
    if axis is not None:
        channels = replace(channels, channel_axis=axis)
    if task.selection.pixel_size is not None:
        size = ",".join(f"{each:g}" for each in task.selection.pixel_size)
        channels = replace(channels, pixel_size=size, unit=task.selection.unit)
    if task.selection.axes:
        channels = replace(channels, axes=task.selection.axes)
    if task.selection.plane:
        channels = replace(channels, plane=task.selection.plane)
    return replace(
        request,
        images=str(task.image),
        output=str(output),
        prompts=AUTO if task.prompts is None else str(task.prompts),
        files=FileOptions(overwrite=True),
        channels=channels,
        cluster=ClusterOptions(),
    )

"""What the Batch tab is to segment, as options of a command and as a file."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from napari_simmat.batch.plan import (
    AUTO,
    EXTRA_ENDINGS,
    TRACKS,
    Plan,
    SegmentTask,
    find_inputs,
    plan,
)
from napari_simmat.engine.linking import LAPTRACK_MISSING
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.io.files import atomic_write, user_folder
from napari_simmat.io.plain import from_plain, to_plain
from napari_simmat.widgets.forms import command_words

log = logging.getLogger(__name__)
CHOOSE_IMAGES = "Choose a folder of images, or drop it here."
CHOOSE_RESULTS = "Choose a folder for the results."
CHOOSE_PROMPTS = "Choose a file with prompts, or segment everything."
EXTRAS = "Additional outputs are {}."
TIME_AXIS_NUMBER = "The time axis is a number, counted from 0 without channels."
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
    objects
        With ``auto``: an object for each plane of a stack, or objects in 3D that go on from plane
        to plane, each with one id, one row and one volume.
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
    objects: Annotated[
        Literal["planes", "3d"],
        {"label": "Stacks", "choices": [("Objects of each plane", "planes"), ("3D objects", "3d")]},
    ] = "planes"
    link_axis: Annotated[str, {"label": "Time axis"}] = ""
    automatic: AutomaticSettings = field(default_factory=AutomaticSettings)

    def __post_init__(self) -> None:
        if not set(self.extras) <= set(EXTRA_ENDINGS):
            raise ValueError(EXTRAS.format(", ".join(EXTRA_ENDINGS)))

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
                    *["objects"] * (not is_auto),
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
        if (self.link or self.objects == "3d") and find_spec("laptrack") is None:
            return LAPTRACK_MISSING
        if self.link and self.objects == "3d":
            return TIME_OR_DEPTH
        if self.link and self.link_axis and not self.link_axis.isdecimal():
            return TIME_AXIS_NUMBER
        if self.scheduler and not re.fullmatch(r"\w+://\S+|\S+\.json", self.scheduler):
            return NO_SCHEDULER.format(self.scheduler)
        return None

    def planned(self) -> Plan:
        """What would be read and written.

        Raises
        ------
        ValueError, OSError
            As `batch.plan.find_inputs` and `batch.plan.plan`.
        """
        inputs = find_inputs([Path(self.images)], pattern=self.pattern)
        return plan(
            inputs,
            output=Path(self.output),
            prompts=self.prompts,
            existing=self.existing,
            extras=[*self.extras, *[TRACKS] * self.link],
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
    channels, axis = task.selection.channels, task.selection.channel_axis
    return replace(
        request,
        images=str(task.image),
        pattern="",
        output=str(output),
        channels=request.channels if channels is None else ",".join(map(str, channels)),
        channel_axis=request.channel_axis if axis is None else str(axis),
        prompts=AUTO if task.prompts is None else str(task.prompts),
        extras=(),
        existing="overwrite",
        scheduler="",
    )

"""What is asked of a run over files, as a value: a form shows it, a command line carries it out."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from napari_simmat.batch import AUTO, SAME_STEM, Plan, find_inputs, plan
from napari_simmat.engine.automatic.settings import AutomaticSettings
from napari_simmat.engine.files import writing
from napari_simmat.engine.folders import user_folder
from napari_simmat.engine.jobs.tasks import EXTRA_ENDINGS

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


def remembered() -> BatchRequest:
    """The settings of the last run; those of a first one where there are none."""
    try:
        return BatchRequest.from_json((user_folder() / _FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return BatchRequest()


def remember(request: BatchRequest) -> None:
    """Keep settings for the next time; a disk that cannot be written stops no run."""
    try:
        with writing(user_folder() / _FILE) as path:
            path.write_text(request.to_json(), encoding="utf-8")
    except OSError as error:
        log.warning("The settings of the batch could not be saved: %s", error)


def channels_as_text(channels: Sequence[int | str] | None) -> str:
    """As `--channels` takes them."""
    return "" if channels is None else ",".join(map(str, channels))


__all__ = [
    "AUTO",
    "SAME_STEM",
    "BatchRequest",
    "channels_as_text",
    "remember",
    "remembered",
]

"""The files of a batch run before it starts: what will be read and written, and their channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from napari_simmat.annotation.channel_choice import LayerChannel, LayerInfo
from napari_simmat.batch.inputs import shown_name
from napari_simmat.batch.plan import Plan
from napari_simmat.engine.channels.matching import match_channels
from napari_simmat.engine.settings import parse_channels
from napari_simmat.io.captures import propose_in
from napari_simmat.io.pyramid import describe_levels
from napari_simmat.io.readers import open_image
from napari_simmat.models.spec import ModelSpec
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.batch.request import BatchRequest

MAX_CHANNELS = 1024
"""More channels than this are not listed."""


@dataclass(frozen=True)
class FirstFile:
    """The channels of a run's first file."""

    name: str
    """Of the file."""
    count: int
    """Number of channels."""
    names: tuple[str, ...] | None
    """Of the channels; None if the file has none."""
    shape: tuple[int, ...]
    """Without the channel axis."""
    rgb: bool = False
    """Whether the channels are red, green and blue."""
    about: str = ""
    """What is in it, for the user."""

    def layers(self) -> list[LayerInfo]:
        """One entry per channel for the channels form."""
        names = self.names or tuple(f"channel {n}" for n in range(self.count))
        if self.count == 1:
            names = (self.name,)
        return [LayerInfo(str(n), names[n], self.shape) for n in range(self.count)][:MAX_CHANNELS]

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


class RunPreflight(NamedTuple):
    """What scanning a request's files found: a plan or a `problem`.

    The `remark` says why the first file cannot be read. The `proposal` is a pattern of captures
    that the names in the folder look like.
    """

    request: BatchRequest
    plan: Plan | None = None
    problem: str = ""
    first: FirstFile | None = None
    remark: str = ""
    proposal: str = ""


def preflight_job(request: BatchRequest) -> Job[RunPreflight]:
    """Find the files, and read the header of the first."""
    yield Progress(0, 0, "Scanning files")
    try:
        plan = request.planned()
    except (ValueError, OSError) as error:
        return RunPreflight(request, problem=str(error), proposal=propose_in(Path(request.images)))
    yield Progress(0, 0, "Reading the first file")
    try:
        file = open_image(plan.tasks[0].image, lazy_above=0, in_parts=True)
    except (ValueError, OSError, MemoryError) as error:
        return RunPreflight(request, plan, remark=str(error), proposal=plan.proposal)
    count = 1 if file.channel_axis is None else int(file.data.shape[file.channel_axis])
    name = shown_name(file.path)
    levels = f"; {describe_levels(file)}" if file.levels else ""
    about = f"{name}: {file.description.sizes}{levels}"
    first = FirstFile(name, count, file.channel_names, file.shape, file.rgb, about)
    return RunPreflight(request, plan, first=first, proposal=plan.proposal)

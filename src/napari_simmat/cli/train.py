"""`simmat train`: modality checkpoints from labeled images."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import Parameter
from rich.table import Table

from napari_simmat._text import format_list
from napari_simmat.batch.options import FLAG, ChannelOptions
from napari_simmat.cli.extensions import ReadJob, dataset_name, draws, load_dataset
from napari_simmat.cli.terminal import (
    DEFAULT_CHANNELS,
    DEFAULT_OUTPUT,
    OUTPUT,
    OutputOptions,
    Terminal,
    print_event,
    step_values,
)
from napari_simmat.progress import Job, Progress, finish, map_progress
from napari_simmat.training.config import TrainConfig, practical_config

if TYPE_CHECKING:
    from napari_simmat.datasets.dataset import Dataset
    from napari_simmat.models.spec import Model
    from napari_simmat.training.few_shot import FewShotResult


T = TypeVar("T")

SUFFIX = ".safetensors"
WORSE = (
    "With this prompt the foundation alone is better: {}. Train for more steps or on more images, "
    "or use the foundation."
)
NO_MEANING = "{} has no meaning {}; leave it out."
_SELECTION = ("channels", "channel-axis", "pixel-ratio")
_FOLDER = ("modality", "validation-fraction", "min-size")
_DRAWN = ("scenes", "scene-side")
_IGNORED = {
    "with --few": ("practical", "devices", "nodes", "workers", "folder", *_FOLDER),
    "for drawn scenes": ("complete", *_SELECTION, *_FOLDER),
    "for a named data set": (*_SELECTION, *_FOLDER),
    "without --few": (),
}
"""The options that each kind of training would ignore."""
FEW_TAKES = "--few takes --steps, --learning-rate, --seed and --complete; leave {} out."


@Parameter(name="*", group="Data")
@dataclass(frozen=True, kw_only=True)
class LabeledData:
    """The labeled images and how to read them.

    Parameters
    ----------
    modality
        What the sensor measures; by default the folder's name.
    validation_fraction
        Fraction of the images kept for validation.
    min_size
        Ignore objects with no more pixels than this in an image scaled to 1024 x 1024.
    scenes
        Drawn data: number of training scenes, by default 200.
    scene_side
        Drawn data: side of a scene in pixels, by default 256.
    """

    modality: str = ""
    validation_fraction: float = 0.2
    min_size: int = 0
    scenes: int | None = None
    scene_side: int | None = None

    @property
    def drawn(self) -> dict[str, int]:
        """What was said of drawn scenes."""
        said = {"scenes": self.scenes, "side": self.scene_side}
        return {name: value for name, value in said.items() if value is not None}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LearningOptions:
    """What is learned: the paper's click, all prompts, or a few objects.

    Parameters
    ----------
    practical
        Train for clicks, boxes and corrections, with augmented images: changes the defaults of
        start, prompts, corrections, objects, augment, auxiliary, precision and, on an embedded
        foundation, strategy and learning-rate. Options that are given still count.
    few
        Adapt the base to the images from a few labeled objects, three at least, in about a
        minute; nothing is written if it is no better on objects left out. Of the training options
        it takes steps, learning-rate, seed and complete.
    """

    practical: Annotated[bool, FLAG] = False
    few: Annotated[bool, FLAG] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """Where the training runs.

    Parameters
    ----------
    device
        auto (a GPU if there is one), cpu, cuda, cuda:1 or mps.
    devices
        Processes per node, each with a GPU if there are any.
    nodes
        Nodes of a cluster; Lightning Fabric reads the rest from its environment.
    workers
        Threads of each process that read the images of the next steps; by default 4 beside a GPU
        and none on a CPU. The result is the same.
    """

    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StateOptions:
    """The files of a training beside the checkpoint.

    Parameters
    ----------
    folder
        Folder for the state, the best checkpoint so far and the log (CSV); beside the output by
        default.
    overwrite
        Replace the output if it exists.
    """

    folder: Path | None = None
    overwrite: Annotated[bool, FLAG] = False


DEFAULT_DATA = LabeledData()
DEFAULT_LEARNING = LearningOptions()
DEFAULT_CONFIG = TrainConfig()
DEFAULT_PLACE = PlaceOptions()
DEFAULT_STATE = StateOptions()


@dataclass(frozen=True)
class _Report:
    """Tells a person what happens, or with ``--events`` a program."""

    terminal: Terminal
    events: bool

    def finish(self, job: Job[T]) -> T:
        """Run a job with a progress bar or events, shown only by the first of several processes."""
        from napari_simmat.training.devices import is_first_process

        if not is_first_process():
            return finish(job)
        shown = map_progress(job, _with_events) if self.events else job
        return self.terminal.watch(shown, logs=not self.events)


def train(
    data: str,
    /,
    *,
    output: Annotated[Path, OUTPUT],
    base: str = "tiny",
    learning: LearningOptions = DEFAULT_LEARNING,
    labeled: LabeledData = DEFAULT_DATA,
    channels: ChannelOptions = DEFAULT_CHANNELS,
    training: Annotated[
        TrainConfig, Parameter(name="*", group="Training", negative="", consume_multiple=True)
    ] = DEFAULT_CONFIG,
    place: PlaceOptions = DEFAULT_PLACE,
    state: StateOptions = DEFAULT_STATE,
    events: Annotated[bool, FLAG] = False,
    console: OutputOptions = DEFAULT_OUTPUT,
    typed: Annotated[frozenset[str], Parameter(parse=False)],
) -> None:
    """Train a modality checkpoint from labeled images.

    A folder holds STEM.tif and STEM_labels.tif, or images/ and labels/, in any readable format,
    stacks included. The checkpoint is one small file. Its gain over the untrained base is measured
    on the validation images and printed.

    ```
    simmat train my-images --output my-sensor.safetensors --practical
    simmat train my-images --output my-sensor.safetensors --channels DAPI,GFP --strategy adapter
    simmat train my-image --output my-image.safetensors --few
    ```

    It can be stopped at any time (Ctrl+C); the same command resumes it. The defaults are those of
    SimMAT's paper, for one click; --practical trains for all prompts.

    Parameters
    ----------
    data
        A folder of labeled images; or a data set of the research: generated:SENSOR for drawn
        scenes, aims:KEY:FOLDER for a modality of the paper's benchmark.
    output
        The checkpoint's file; its stem is the model's name.
    base
        The foundation, by name or file.
    events
        For programs: print a line of JSON for each step (done, total, message, figures), and one
        at the end (output, metrics).
    """
    from napari_simmat.checkpoints.loading import load_model
    from napari_simmat.training.devices import Devices, is_first_process
    from napari_simmat.training.finetune import train_checkpoint_job

    if not is_first_process():
        logging.getLogger("napari_simmat").setLevel(logging.ERROR)  # the first process logs
    report = _Report(console.terminal(), events)
    check_output(output, state.overwrite)
    named = dataset_name(data)
    read_job = load_dataset(named) if named else None
    _check_meanings(typed, read_job, few=learning.few)
    keep_freed_memory()
    foundation = load_model(base)
    # With --practical other defaults apply, so what was typed counts even if it is a default.
    given = {
        name: value
        for name, value in asdict(training).items()
        if f"--{name.replace('_', '-')}" in typed
    }
    if learning.few:
        job = _learn_few_job(foundation, data, given, channels, place, output)
        _say_learned(report, report.finish(job), output)
        return
    config = practical_config(foundation.spec, **given) if learning.practical else training
    if "--complete" in typed and not foundation.spec.base.embedded:
        raise ValueError(NO_MEANING.format("--complete", f"on {foundation.spec.name}"))
    if read_job is not None and draws(read_job):  # whoever draws knows all objects
        config = replace(config, complete=True)
    dataset = report.finish(_read_dataset_job(data, read_job, labeled, channels, config.seed))
    folder = state.folder or output.with_name(f"{output.stem}-training")
    places = Devices(
        device=place.device, count=place.devices, nodes=place.nodes, workers=place.workers
    )
    spec = report.finish(train_checkpoint_job(foundation, dataset, config, output, folder, places))
    if not is_first_process():
        return
    if events:
        print_event(output=str(output), metrics=dict(spec.metrics))
    else:
        say_metrics(report.terminal, output, spec.metrics)


def _check_meanings(typed: frozenset[str], read_job: ReadJob | None, *, few: bool) -> None:
    """Refuse options that this kind of training would ignore: who types one, relies on it."""
    is_drawn = read_job is not None and draws(read_job)
    for name in _DRAWN:
        if f"--{name}" in typed and not is_drawn:
            raise ValueError(NO_MEANING.format(f"--{name}", "without generated:SENSOR"))
    if few:
        kind = "with --few"
    elif is_drawn:
        kind = "for drawn scenes"
    elif read_job is not None:
        kind = "for a named data set"
    else:
        kind = "without --few"
    for name in _IGNORED[kind]:
        if f"--{name}" in typed:
            raise ValueError(NO_MEANING.format(f"--{name}", kind))


def _learn_few_job(
    foundation: Model,
    data: str,
    given: Mapping[str, Any],
    channels: ChannelOptions,
    place: PlaceOptions,
    output: Path,
) -> Job[FewShotResult]:
    """Learn from the objects of all images of a folder; the images are read at once."""
    from napari_simmat.datasets.dataset import DataConfig
    from napari_simmat.datasets.folder import ChannelFiles, find_images
    from napari_simmat.training.adapting import FewShotConfig
    from napari_simmat.training.annotations import annotate
    from napari_simmat.training.few_shot import learn_objects_job
    from napari_simmat.training.tries import Tries

    complete = given.get("complete", False)
    given = {name: value for name, value in given.items() if name != "complete"}
    other = [name for name in given if name not in ("steps", "learning_rate", "seed")]
    if other:
        options = [f"--{name.replace('_', '-')}" for name in other]
        raise ValueError(FEW_TAKES.format(format_list(options)))
    config = FewShotConfig(**{name: value for name, value in given.items() if value is not None})
    wanted = DataConfig(selection=channels.selection)
    planes = []
    for image in find_images(Path(data), wanted):
        selection = None if isinstance(image, ChannelFiles) else wanted.selection.channels
        planes += annotate(image.read(), foundation.spec, channels=selection, complete=complete)
    tries = Tries.of_folder(Path(data))
    return learn_objects_job(
        foundation, planes, config, device=place.device, name=output.stem, tries=tries
    )


def _say_learned(report: _Report, result: FewShotResult, output: Path) -> None:
    """Write the model if it is better, and say so."""
    written = None
    if result.checkpoint is not None:
        result.checkpoint.save(output)
        written = str(output)
    metrics = {"before": result.before._asdict(), "after": result.after._asdict()}
    values = {"output": written, "metrics": metrics, "sentence": result.sentence}
    if report.events:
        print_event(**values)
        return
    report.terminal.say(result.sentence)
    report.terminal.say(f"Wrote {output}" if written else f"{output} was not written.")
    report.terminal.result(values)


def _read_dataset_job(
    data: str,
    read_job: ReadJob | None,
    labeled: LabeledData,
    channels: ChannelOptions,
    seed: int,
) -> Job[Dataset]:
    """The data set from the options of the command."""
    from napari_simmat.datasets import dataset as dataset_module
    from napari_simmat.datasets import folder as folder_module

    if read_job is not None:
        return (yield from read_job(data.partition(":")[2], **labeled.drawn))
    wanted = dataset_module.DataConfig(
        modality=labeled.modality,
        selection=channels.selection,
        validation_fraction=labeled.validation_fraction,
        seed=seed,
        min_size=labeled.min_size,
    )
    return (yield from folder_module.read_folder_job(data, wanted))


def _with_events(progress: Progress) -> Progress:
    from napari_simmat.training.few_shot import LearnProgress
    from napari_simmat.training.trainer import TrainProgress

    event = step_values(progress)
    if isinstance(progress, TrainProgress):
        event["figures"] = dict(progress.figures)
    elif isinstance(progress, LearnProgress):
        scores = {"before": progress.before, "after": progress.after}
        event["figures"] = {when: score._asdict() for when, score in scores.items() if score}
    print_event(**event)
    return progress


def check_output(path: Path, overwrite: bool) -> None:
    """Fail early: check the output path before hours of training."""
    if path.suffix != SUFFIX:
        raise ValueError(f"Checkpoints must end in {SUFFIX}; use {path.stem}{SUFFIX}.")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists. Choose another name, or replace it with --overwrite.")


def say_metrics(terminal: Terminal, path: Path, metrics: Mapping[str, object]) -> None:
    """Print the metrics and the output path."""
    table = Table("mean IoU %; everything: F1 %", "", box=None, header_style="bold")
    for name, value in metrics.items():
        if isinstance(value, dict):
            for kind, figure in value.items():
                table.add_row(f"{name}, {kind}", f"{figure:.1f}")
        elif isinstance(value, float):
            table.add_row(name, f"{value:.1f}")
    terminal.say(table)
    before = metrics.get("before")
    after = metrics.get("after")
    if isinstance(before, dict) and isinstance(after, dict):
        worse = [kind for kind in after if after[kind] < before.get(kind, 0)]
        if worse:
            terminal.note(WORSE.format(format_list(worse)))
    terminal.say(f"Wrote {path}")
    terminal.result({"output": str(path), "metrics": dict(metrics)})


def keep_freed_memory() -> None:
    """Let this process keep freed memory for its next allocations.

    Every training step allocates the same large arrays again. glibc would return and map them each
    time, and the system would clear all their pages. The memory is freed when the command's
    process ends; a window, which does not end, must not do this. No effect without glibc.

    Source: mallopt(3), ``M_MMAP_MAX`` and ``M_TRIM_THRESHOLD``.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return
    trim_threshold, mmap_max = -1, -4  # numbers of the parameters in glibc's malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)

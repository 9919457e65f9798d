"""`simmat train`: modality checkpoints from labeled images."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import Parameter
from rich.table import Table

from napari_simmat._text import format_list
from napari_simmat.batch.options import FLAG, ChannelOptions
from napari_simmat.cli.extensions import DrawJob, dataset_name, load_dataset
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
FEW_TAKES = "--few takes --steps, --learning-rate and --seed; leave {} out."


@Parameter(name="*", group="Data")
@dataclass(frozen=True, kw_only=True)
class LabeledData:
    """The labeled images and how to read them.

    Parameters
    ----------
    modality
        What the sensor measures; by default the folder's name.
    aims
        Key of the AIMS benchmark, such as d, rgbt or pgsnet_p, if the folder is part of it.
    validation_fraction
        Fraction of the images kept for validation.
    min_size
        Ignore objects with no more pixels than this in an image scaled to 1024 x 1024.
    scenes
        Drawn data: number of training scenes.
    scene_side
        Drawn data: side of a scene in pixels.
    """

    modality: str = ""
    aims: str = ""
    validation_fraction: float = 0.2
    min_size: int = 0
    scenes: int = 200
    scene_side: int = 256


DEFAULT_DATA, DEFAULT_CONFIG = LabeledData(), TrainConfig()


def train(
    data: str,
    /,
    *,
    output: Annotated[Path, OUTPUT],
    base: str = "tiny",
    practical: Annotated[bool, FLAG] = False,
    few: Annotated[bool, FLAG] = False,
    complete: Annotated[bool, FLAG] = False,
    labeled: LabeledData = DEFAULT_DATA,
    channels: ChannelOptions = DEFAULT_CHANNELS,
    training: Annotated[
        TrainConfig, Parameter(name="*", group="Training", negative="", consume_multiple=True)
    ] = DEFAULT_CONFIG,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    folder: Path | None = None,
    overwrite: Annotated[bool, FLAG] = False,
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
    simmat train AIMS/NYUDepthv2 --aims rgbd --base vit_b --output rgbd.safetensors
    ```

    It can be stopped at any time (Ctrl+C); the same command resumes it. The defaults are those of
    SimMAT's paper, for one click; --practical trains for all prompts.

    Parameters
    ----------
    data
        A folder of labeled images; or generated:SENSOR for scenes that the research draws.
    output
        The checkpoint's file; its stem is the model's name.
    base
        The foundation, by name or file.
    practical
        Train for clicks, boxes and corrections, with augmented images: changes the defaults of
        start, prompts, corrections, objects, augment, auxiliary, precision and, on an embedded
        foundation, strategy and learning-rate. Options that are given still count.
    few
        Adapt the base to the images from a few labeled objects, three at least, in about a
        minute; nothing is written if it is no better on objects left out. Of the training options
        it takes steps, learning-rate and seed.
    complete
        With --few: all objects of the images are labeled, so what is not labeled is background.
    device
        auto (a GPU if there is one), cpu, cuda, cuda:1 or mps.
    devices
        Processes per node, each with a GPU if there are any.
    nodes
        Nodes of a cluster; Lightning Fabric reads the rest from its environment.
    folder
        Folder for the state, the best checkpoint so far and the log (CSV); beside the output by
        default.
    overwrite
        Replace the output if it exists.
    events
        For programs: print a line of JSON for each step (done, total, message, figures), and one
        at the end (output, metrics).
    """
    from napari_simmat.checkpoints.loading import load_model
    from napari_simmat.training.finetune import train_checkpoint_job
    from napari_simmat.training.trainer import Devices, is_first_process

    if not is_first_process():
        logging.getLogger("napari_simmat").setLevel(logging.ERROR)  # the first process logs
    terminal = console.terminal()
    check_output(output, overwrite)
    _check_meanings(typed, data, labeled, few=few)
    drawn = dataset_name(data)
    draw_job = load_dataset(drawn) if drawn else None
    keep_freed_memory()
    foundation = load_model(base)
    # With --practical other defaults apply, so what was typed counts even if it is a default.
    given = {
        name: value
        for name, value in asdict(training).items()
        if f"--{name.replace('_', '-')}" in typed
    }
    if few:
        _learn_few(foundation, data, given, channels, complete, terminal, events, output, device)
        return
    config = practical_config(foundation.spec, **given) if practical else training
    dataset = _finish_with_progress(
        _read_dataset_job(data, draw_job, labeled, channels, config.seed), terminal, events
    )
    folder = folder or output.with_name(f"{output.stem}-training")
    places = Devices(device=device, count=devices, nodes=nodes)
    job = train_checkpoint_job(foundation, dataset, config, output, folder, places)
    spec = _finish_with_progress(job, terminal, events)
    if not is_first_process():
        return
    if events:
        print_event(output=str(output), metrics=dict(spec.metrics))
    else:
        say_metrics(terminal, output, spec.metrics)


def _check_meanings(typed: frozenset[str], data: str, labeled: LabeledData, *, few: bool) -> None:
    """Refuse options that this kind of training would ignore: who types one, relies on it."""
    ignored: tuple[str, ...]
    if few:
        kind, ignored = "with --few", ("practical", "devices", "nodes", "folder", "aims", *_FOLDER)
    elif dataset_name(data):
        kind, ignored = "for drawn scenes", ("complete", "aims", *_SELECTION, *_FOLDER)
    elif labeled.aims:
        kind, ignored = "with --aims", ("complete", *_SELECTION, *_FOLDER)
    else:
        kind, ignored = "without --few", ("complete",)
    drawn = [name for name in _DRAWN if f"--{name}" in typed]
    if drawn and not dataset_name(data):
        raise ValueError(NO_MEANING.format(f"--{drawn[0]}", "without generated:SENSOR"))
    if given := [name for name in ignored if f"--{name}" in typed]:
        raise ValueError(NO_MEANING.format(f"--{given[0]}", kind))


def _learn_few(
    foundation: Model,
    data: str,
    given: Mapping[str, Any],
    channels: ChannelOptions,
    complete: bool,
    terminal: Terminal,
    events: bool,
    output: Path,
    device: str,
) -> None:
    """Learn from the objects of all images of a folder; write the model if it is better."""
    from napari_simmat.datasets.dataset import DataConfig
    from napari_simmat.datasets.folder import ChannelFiles, find_images
    from napari_simmat.training.adapting import FewShotConfig
    from napari_simmat.training.annotations import annotate
    from napari_simmat.training.few_shot import learn_objects_job

    known = ("steps", "learning_rate", "seed")
    if other := [f"--{name.replace('_', '-')}" for name in given if name not in known]:
        raise ValueError(FEW_TAKES.format(format_list(other)))
    config = FewShotConfig(**{name: value for name, value in given.items() if value is not None})
    wanted = DataConfig(selection=channels.selection)
    planes = []
    for image in find_images(Path(data), wanted):
        selection = None if isinstance(image, ChannelFiles) else wanted.selection.channels
        planes += annotate(image.read(), foundation.spec, channels=selection, complete=complete)
    job = learn_objects_job(foundation, planes, config, device=device, name=output.stem)
    result = _finish_with_progress(job, terminal, events)
    if result.checkpoint is not None:
        result.checkpoint.save(output)
    metrics = {"before": result.before._asdict(), "after": result.after._asdict()}
    written = None if result.checkpoint is None else str(output)
    if events:
        print_event(output=written, metrics=metrics, sentence=result.sentence)
        return
    terminal.say(result.sentence)
    if written:
        terminal.say(f"Wrote {output}")
    terminal.result({"output": written, "metrics": metrics, "sentence": result.sentence})


def _read_dataset_job(
    data: str,
    draw_job: DrawJob | None,
    labeled: LabeledData,
    channels: ChannelOptions,
    seed: int,
) -> Job[Dataset]:
    """The data set from the options of the command."""
    from napari_simmat.datasets import aims as aims_module
    from napari_simmat.datasets import dataset as dataset_module
    from napari_simmat.datasets import folder as folder_module

    if draw_job is not None:
        sensor = data.partition(":")[2]
        return (yield from draw_job(sensor, labeled.scenes, labeled.scene_side))
    if labeled.aims:
        return aims_module.from_aims(data, labeled.aims)
    wanted = dataset_module.DataConfig(
        modality=labeled.modality,
        selection=channels.selection,
        validation_fraction=labeled.validation_fraction,
        seed=seed,
        min_size=labeled.min_size,
    )
    return (yield from folder_module.read_folder_job(data, wanted))


def _finish_with_progress(job: Job[T], terminal: Terminal, events: bool) -> T:
    """Run a job with a progress bar or events, shown only by the first of several processes."""
    from napari_simmat.training.trainer import is_first_process

    if not is_first_process():
        return finish(job)
    return terminal.watch(map_progress(job, _with_events) if events else job, logs=not events)


def _with_events(progress: Progress) -> Progress:
    from napari_simmat.training.few_shot import LearnProgress
    from napari_simmat.training.trainer import TrainProgress

    event = step_values(progress)
    if isinstance(progress, TrainProgress):
        event["figures"] = dict(progress.figures)
    elif isinstance(progress, LearnProgress):
        scores = {"before": progress.before, "after": progress.after}
        event["figures"] = {name: each._asdict() for name, each in scores.items() if each}
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
    table = Table("mean IoU %", "", box=None, header_style="bold")
    for name, value in metrics.items():
        if isinstance(value, dict):
            for kind, figure in value.items():
                table.add_row(f"{name}, {kind}", f"{figure:.1f}")
        elif isinstance(value, float):
            table.add_row(name, f"{value:.1f}")
    terminal.say(table)
    before, after = metrics.get("before"), metrics.get("after")
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
    trim_threshold, mmap_max = -1, -4  # numbers of the parameters in glibc's malloc.h
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)

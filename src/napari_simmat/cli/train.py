"""`simmat train` and `simmat pretrain`.

How the C library hands out memory to a command that trains.

`simmat train` and `simmat pretrain`: modality checkpoints and foundations.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Parameter
from rich.table import Table

from napari_simmat.cli.segment import parse_channel_option
from napari_simmat.cli.terminal import DEFAULT_OUTPUT, FLAG, OutputOptions, Terminal, print_event
from napari_simmat.progress import Job, Progress, finish, map_progress
from napari_simmat.training.config import TrainConfig, practical_config

if TYPE_CHECKING:
    from napari_simmat.datasets.dataset import Dataset


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for what it allocates next.

    Each step of a training allocates the large arrays of the step before. glibc would map every
    one anew, so that the system has to clear all its pages. A command's process ends with it, so
    nothing is kept for longer; a window's does not. Without glibc nothing changes.

    Source: mallopt(3), ``M_MMAP_MAX`` and ``M_TRIM_THRESHOLD``.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _NEVER)


T = TypeVar("T")


GENERATED = "generated:"
"""What comes before a sensor's name where data are drawn."""
SUFFIX = ".safetensors"


@Parameter(name="*", group="Data")
@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """Which labelled images there are, and how they are read.

    Parameters
    ----------
    channels
        Names or numbers from 0 of the channels, with commas between, e.g. 0,2,DAPI, in the order
        the model gets them; all by default.
    channel_axis
        Which axis holds the channels, where the file does not say.
    modality
        What the sensor measures; the folder's name if left out.
    aims
        The folder is of the AIMS benchmark: a key such as d, rgbt or pgsnet_p.
    share
        Share of the images that is kept for validation.
    smallest
        Only objects of more pixels than this, if the image had 1024 x 1024, count.
    pixel_ratio
        Height of a pixel over its width, where the file does not say.
    scenes
        With drawn data: how many scenes to train on.
    scene_side
        With drawn data: pixels a side of a scene.
    """

    channels: str | None = None
    channel_axis: int | None = None
    modality: str = ""
    aims: str = ""
    share: float = 0.2
    smallest: int = 0
    pixel_ratio: float = 1.0
    scenes: int = 200
    scene_side: int = 256


class GivenTrainConfig(TrainConfig):
    """A configuration that knows which settings were given, even if they equal the defaults.

    Attributes
    ----------
    given
        Those settings alone.
    """

    given: Mapping[str, Any]

    def __new__(cls, **given: Any) -> GivenTrainConfig:
        """Called with the options on the command line."""
        config = super().__new__(cls)
        object.__setattr__(config, "given", given)
        return config


DEFAULT_DATA, DEFAULT_CONFIG = LabelledData(), GivenTrainConfig()


def train(
    data: str,
    /,
    *,
    output: Path,
    base: str = "tiny",
    practical: Annotated[bool, FLAG] = False,
    labelled: LabelledData = DEFAULT_DATA,
    wanted: Annotated[
        GivenTrainConfig,
        Parameter(name="*", group="Training", negative="", consume_multiple=True),
    ] = DEFAULT_CONFIG,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    folder: Path | None = None,
    overwrite: Annotated[bool, FLAG] = False,
    events: Annotated[bool, FLAG] = False,
    speech: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Train a modality checkpoint from labelled images.

    A folder holds STEM.tif and STEM_labels.tif, or images/ and labels/; many formats and stacks
    will do. The checkpoint is one small file; how much better than the untrained base it is, is
    measured on images that are kept for validation, and said.

    ```
    simmat train my-images --output my-sensor.safetensors --practical
    simmat train my-images --output my-sensor.safetensors --channels DAPI,GFP --strategy adapter
    simmat train generated:thermal --output thermal.safetensors --practical --steps 1500
    simmat train AIMS/NYUDepthv2 --aims rgbd --base vit_b --output rgbd.safetensors
    ```

    It can be stopped at any time (Ctrl+C): the same command goes on where it was. The defaults
    are those of SimMAT's paper, for one click; --practical trains for all prompts.

    Parameters
    ----------
    data
        A folder of labelled images; or generated:SENSOR for drawn scenes.
    output
        The checkpoint's file; its stem is the model's name.
    base
        The foundation, by name or file.
    practical
        For use with clicks, boxes and corrections, with varied images: start, prompts,
        corrections, objects, augment, auxiliary, precision and, on an embedded foundation,
        strategy and learning-rate are not the paper's, unless they are given.
    device
        auto (a GPU where there is one), cpu, cuda, cuda:1 or mps.
    devices
        Processes on each node, with a GPU each where there are any.
    nodes
        Nodes of a cluster; Lightning Fabric reads the rest from its environment.
    folder
        Where the state, the best checkpoint so far and the log (CSV and TensorBoard) are kept;
        beside the output by default.
    overwrite
        Replace the output if it exists.
    events
        For programs: a line of JSON on stdout for each step (done, total, message, figures), and
        one at the end (output, metrics), instead of words.
    """
    from napari_simmat.checkpoints.loading import load_model
    from napari_simmat.training.devices import Devices, is_first_process
    from napari_simmat.training.finetune import train_checkpoint_job

    if not is_first_process():
        logging.getLogger("napari_simmat").setLevel(logging.ERROR)  # the first one says it
    terminal = speech.terminal()
    _check_output(output, overwrite)
    keep_freed_memory()
    foundation = load_model(base)
    given = wanted.given
    config = practical_config(foundation.spec, **given) if practical else TrainConfig(**given)
    dataset = _finish_with_progress(
        _read_dataset_job(data, labelled, config.seed), terminal, events
    )
    folder = folder or output.with_name(f"{output.stem}-training")
    places = Devices(device=device, count=devices, nodes=nodes)
    job = train_checkpoint_job(foundation, dataset, config, output, folder, places)
    spec = _finish_with_progress(job, terminal, events)
    if not is_first_process():
        return
    if events:
        print_event({"output": str(output), "metrics": dict(spec.metrics)})
    else:
        _say_metrics(terminal, output, spec.metrics)


def _read_dataset_job(data: str, labelled: LabelledData, seed: int) -> Job[Dataset]:
    """The data set that the words on the command line mean."""
    from napari_simmat.datasets import aims as aims_module
    from napari_simmat.datasets import dataset as dataset_module
    from napari_simmat.datasets import folder as folder_module

    if data.startswith(GENERATED):
        drawn = dataset_module.GeneratedConfig(
            sensor=data.removeprefix(GENERATED), side=labelled.scene_side, train=labelled.scenes
        )
        return (yield from dataset_module.generate_job(drawn))
    if labelled.aims:
        return aims_module.from_aims(data, labelled.aims)
    wanted = dataset_module.DataConfig(
        modality=labelled.modality,
        channels=parse_channel_option(labelled.channels),
        channel_axis=labelled.channel_axis,
        share=labelled.share,
        seed=seed,
        smallest=labelled.smallest,
        pixel_ratio=labelled.pixel_ratio,
    )
    return (yield from folder_module.read_folder_job(data, wanted))


def _finish_with_progress(job: Job[T], terminal: Terminal, events: bool) -> T:
    """Run a job with a progress bar or events; only the first of several processes shows any."""
    from napari_simmat.training.devices import is_first_process

    if not is_first_process():
        return finish(job)
    return terminal.watch(map_progress(job, _with_events) if events else job)


def _with_events(progress: Progress) -> Progress:
    """Print a step as a line of JSON."""
    from napari_simmat.training.trainer import TrainProgress

    event: dict[str, object] = {
        "done": progress.done,
        "total": progress.total,
        "message": progress.message,
    }
    if isinstance(progress, TrainProgress):
        event["figures"] = dict(progress.figures)
    print_event(event)
    return progress


def pretrain(
    *,
    output: Path,
    families: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    steps: int = 20_000,
    seed: int = 0,
    folder: Path | None = None,
    start: Path | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    local_contrast: bool = True,
    overwrite: Annotated[bool, FLAG] = False,
    speech: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Train an embedded foundation on drawn scenes: hours on two cores.

    It can be stopped at any time: the same command goes on from what its folder holds. Without
    that folder, a training goes on from an earlier foundation with --start.

    ```
    simmat pretrain --output tiny-4.safetensors --steps 20000
    simmat pretrain --output cells.safetensors --families fluorescence mri
    simmat pretrain --output tiny-4.safetensors --start tiny-3.safetensors --steps 40000
    ```

    Parameters
    ----------
    output
        The foundation's file; its stem is the model's name.
    families
        Families of scenes to draw; all by default.
    steps
        Optimiser steps in all, those of --start included.
    seed
        Fixes all that is random.
    folder
        Where the state and the log are kept; beside the output by default.
    start
        The file of an earlier foundation to go on from.
    precision
        Of the computation; which is faster depends on the processor.
    local_contrast
        Give the network local contrast beside its first projection; tiny-1, tiny-2 and tiny-rgb-1
        have none.
    overwrite
        Replace the output if it exists.
    """
    from napari_simmat.training.pretrain import PretrainConfig, export_base, pretrain_job

    terminal = speech.terminal()
    keep_freed_memory()
    _check_output(output, overwrite)
    config = PretrainConfig(
        steps=steps,
        families=families,
        seed=seed,
        precision=precision,
        local_contrast=local_contrast,
    )
    folder = folder or output.with_name(f"{output.stem}-training")
    pretrained = terminal.watch(pretrain_job(config, folder, start))
    export_base(output, pretrained, config)
    _say_metrics(terminal, output, pretrained.metrics)


def _check_output(path: Path, overwrite: bool) -> None:
    """Say before hours of work what would make them vain."""
    if path.suffix != SUFFIX:
        raise ValueError(f"{path.name} is no checkpoint's name; call it {path.stem}{SUFFIX}.")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists. Choose another name, or replace it with --overwrite.")


def _say_metrics(terminal: Terminal, path: Path, metrics: Mapping[str, object]) -> None:
    """What was written, and how good it is."""
    table = Table("mean IoU %", "", box=None, header_style="bold")
    for name, value in metrics.items():
        if isinstance(value, dict):
            for kind, figure in value.items():
                table.add_row(f"{name}, {kind}", f"{figure:.1f}")
        elif isinstance(value, float):
            table.add_row(name, f"{value:.1f}")
    terminal.say(table)
    terminal.say(f"Wrote {path}")
    terminal.result({"output": str(path), "metrics": dict(metrics)})

"""`simmat train` and `simmat pretrain`: models made on drawn scenes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.table import Table

from napari_simmat.cli.terminal import FLAG, SPEECH, Speech, Terminal

GENERATED = "generated:"
"""What comes before a sensor's name where data are drawn."""
SUFFIX = ".safetensors"


def train(
    data: str,
    /,
    *,
    output: Path,
    base: str = "tiny",
    steps: int = 1500,
    learning_rate: float = 3e-3,
    seed: int = 0,
    overwrite: Annotated[bool, FLAG] = False,
    speech: Speech = SPEECH,
) -> None:
    """Train a modality checkpoint: SimMAT's transfer layer on a frozen foundation.

    The data are scenes drawn through a sensor, with exact objects. The checkpoint that ships as
    `polarization` was made by

    ```
    simmat train generated:polarization --output polarization.safetensors
    ```

    Parameters
    ----------
    data
        generated:SENSOR, for instance generated:polarization.
    output
        The checkpoint's file; its stem is the model's name.
    base
        An embedded foundation, by name or file.
    steps
        Optimiser steps; a hundred already show whether it learns.
    learning_rate
        Of Adam; it falls along a cosine.
    seed
        Fixes all that is random.
    overwrite
        Replace the output if it exists.
    """
    from napari_simmat.engine.checkpoint import save_checkpoint
    from napari_simmat.engine.loading import load_model
    from napari_simmat.learn.scenes.sensors import SENSORS
    from napari_simmat.learn.training import TrainConfig, training

    terminal = speech.terminal()
    _check_output(output, overwrite)
    if not data.startswith(GENERATED):
        names = ", ".join(GENERATED + sensor for sensor in SENSORS)
        raise ValueError(f"{data!r} is no data to train on; this version draws its own: {names}.")
    config = TrainConfig(
        sensor=data.removeprefix(GENERATED), steps=steps, learning_rate=learning_rate, seed=seed
    )
    trained = terminal.watch(training(load_model(base), config, output.stem))
    save_checkpoint(output, trained.spec, trained.tensors)
    _say_metrics(terminal, output, trained.spec.metrics)


def pretrain(
    *,
    output: Path,
    families: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    steps: int = 20_000,
    seed: int = 0,
    folder: Path | None = None,
    start: Path | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    overwrite: Annotated[bool, FLAG] = False,
    speech: Speech = SPEECH,
) -> None:
    """Train an embedded foundation on drawn scenes: hours on two cores.

    It can be stopped at any time: the same command goes on from what its folder holds. Without
    that folder, a training goes on from an earlier foundation with --start.

    ```
    simmat pretrain --output tiny-2.safetensors --steps 20000
    simmat pretrain --output cells.safetensors --families fluorescence mri
    simmat pretrain --output tiny-2.safetensors --start tiny-1.safetensors --steps 40000
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
    overwrite
        Replace the output if it exists.
    """
    from napari_simmat.learn.pretrain import pretraining
    from napari_simmat.learn.pretrain_step import PretrainConfig
    from napari_simmat.learn.release import save_base

    terminal = speech.terminal()
    _check_output(output, overwrite)
    config = PretrainConfig(steps=steps, families=families, seed=seed, precision=precision)
    folder = folder or output.with_name(f"{output.stem}-training")
    pretrained = terminal.watch(pretraining(config, folder, start))
    save_base(output, pretrained, config)
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

"""`simmat benchmark`: the paper's comparisons, each with one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from napari_simmat.cli.allocator import keep_freed_memory
from napari_simmat.cli.terminal import SPEECH, Speech
from napari_simmat.learn.benchmark.config import BenchmarkConfig, ExperimentName

CONFIG = BenchmarkConfig()


def benchmark(
    experiment: ExperimentName,
    /,
    *,
    output: Path,
    data: str = "generated",
    base: str = "",
    config: Annotated[
        BenchmarkConfig, Parameter(name="*", group="Experiment", negative="", consume_multiple=True)
    ] = CONFIG,
    device: str = "auto",
    speech: Speech = SPEECH,
) -> None:
    """Rerun a comparison of SimMAT's paper.

    transfer: zero-shot, from scratch, baselines A and B, SimMAT on every modality (figure 4a).
    pseudo: RGB with a sensor's channels (4b). strategies: what is trained beside the transfer
    layer (4c). lr: learning rates (5a). size: number of training images (5b). panels: images,
    clicks and answers (2).

    ```
    simmat benchmark transfer --quick --output quick
    simmat benchmark transfer --output results
    simmat benchmark transfer --data AIMS --base vit_b --output aims
    ```

    Every run is a row of EXPERIMENT.csv as soon as it is done; the same command goes on where it
    was interrupted.

    Parameters
    ----------
    experiment
        Which comparison.
    output
        Folder for EXPERIMENT.csv, EXPERIMENT.md and EXPERIMENT.png.
    data
        generated (scenes drawn through sensors, of objects and surfaces that no foundation was
        trained on), or the folder of the AIMS benchmark.
    base
        The foundation: tiny-rgb on generated data, vit_b on AIMS.
    device
        auto (a GPU where there is one), cpu, cuda, cuda:1 or mps.
    """
    from napari_simmat.engine.checkpoints.loading import load_model
    from napari_simmat.learn.benchmark.benchmarking import benchmarking

    terminal = speech.terminal()
    keep_freed_memory()
    foundation = load_model(base or ("tiny-rgb" if data == "generated" else "vit_b"))
    job = benchmarking(experiment, data, foundation, config, output, device)
    report = terminal.watch(job)
    terminal.say(report.text)
    for path in report.files:
        terminal.say(f"Wrote {path}")
    terminal.result({"files": [str(path) for path in report.files], "table": report.text})

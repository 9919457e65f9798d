"""The commands `simmat pretrain`, `simmat benchmark` and `simmat convert`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from napari_simmat.batch.options import FLAG
from napari_simmat.cli.terminal import DEFAULT_OUTPUT, OUTPUT, OutputOptions
from napari_simmat.cli.train import check_output, keep_freed_memory, say_metrics
from simmat_research.experiments import (
    GENERATED,
    RGB_BASE,
    BenchmarkConfig,
    ExperimentName,
    PretrainOptions,
    Shard,
)

DEFAULT_BENCHMARK, DEFAULT_PRETRAINING = BenchmarkConfig(), PretrainOptions()


def benchmark(
    experiment: ExperimentName,
    /,
    *,
    output: Path,
    data: str = GENERATED,
    base: str = "",
    config: Annotated[
        BenchmarkConfig, Parameter(name="*", group="Experiment", negative="", consume_multiple=True)
    ] = DEFAULT_BENCHMARK,
    device: str = "auto",
    workers: int | None = None,
    shard: str = "",
    console: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Rerun a comparison of SimMAT's paper.

    transfer: zero-shot, from scratch, baselines A and B, SimMAT with parameter-efficient and with
    full fine-tuning on every modality (figure 4a). pseudo: RGB with a sensor's channels (4b; with
    --tuning full for full fine-tuning). strategies: what is trained beside the transfer layer (4c).
    layers: all transfer layers of SimMAT and SimCMF. grid: geometries of SimCMF's preconv and
    preattn. lr: learning rates, on polarization (5a). size: number of training images, on
    polarization (5b). panels: images, clicks and masks (2).

    ```
    simmat benchmark transfer --quick --output quick
    simmat benchmark transfer --output results
    simmat benchmark transfer --data AIMS --base vit_b --output aims
    ```

    Every finished run is a row of EXPERIMENT.csv; the same command resumes after an interruption.
    How long it takes is said before the first run, and after its first steps. Several GPUs divide
    the runs: one command with --shard 1/4, --shard 2/4, ... for each, then one without.

    Parameters
    ----------
    experiment
        The comparison.
    output
        Folder for EXPERIMENT.csv, EXPERIMENT.md and EXPERIMENT.png.
    data
        generated (scenes drawn through sensors, of objects and surfaces that no foundation was
        trained on), or the folder of the AIMS benchmark.
    base
        The foundation; by default tiny-rgb-1, which comes along, on generated data, vit_b on AIMS.
    device
        auto (a GPU if there is one), cpu, cuda, cuda:1 or mps.
    workers
        Threads that read the images of the next steps; by default 4 beside a GPU and none on a CPU.
        The result is the same.
    shard
        I/N: do every N-th run alone, from the I-th, into a table of its own.
    """
    from napari_simmat.checkpoints.loading import load_model
    from napari_simmat.training.devices import Devices
    from simmat_research.runner import run_experiment_job

    terminal = console.terminal()
    part = Shard.of(shard) if shard else None
    places = Devices(device=device, workers=workers)
    keep_freed_memory()
    foundation = load_model(base or (RGB_BASE if data == GENERATED else "vit_b"))
    resolved = config.on(foundation.spec, data)
    if resolved.protocol == "paper":
        terminal.say(f"The paper's protocol:\n\n{resolved.describe()}")
    job = run_experiment_job(
        experiment, data, foundation, config, output, places, part, terminal.note
    )
    report = terminal.watch(job)
    terminal.say(report.text)
    for path in report.files:
        terminal.say(f"Wrote {path}")
    terminal.result({"files": [str(path) for path in report.files], "table": report.text})


def convert(
    file: Path,
    /,
    *,
    modality: str,
    base: str | None = None,
    name: str | None = None,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Convert a checkpoint of the code of SimMAT's or SimCMF's authors to one of your models.

    ```
    simmat convert checkpoint_best.pth --modality rgbnir --name rgb-nir
    ```

    The file never executes anything: PyTorch's weights-only loader alone reads it.

    Parameters
    ----------
    file
        What their train.py saved.
    modality
        Its sensor, which the file does not name: zju-rgbp, pgsnet_p, pgsnet_rgbp, d, rgbd, hha,
        rgbhha, nir, rgbnir, t, rgbt, t_500 or rgbt_500.
    base
        Name of the SAM weights that it was trained on; vit_b by default.
    name
        The model's name; by default the file's name without its suffix.
    """
    from simmat_research.authors import convert_job

    terminal = console.terminal()
    path = file.expanduser()
    entry = terminal.watch(convert_job(path, path.stem if name is None else name, modality, base))
    terminal.say(f"{entry.name} is ready: {entry.path}")
    terminal.result({"name": entry.name, "path": str(entry.path)})


def pretrain(
    *,
    output: Annotated[Path, OUTPUT],
    folder: Path | None = None,
    start: Path | None = None,
    real: Path | None = None,
    sources: Path | None = None,
    options: Annotated[
        PretrainOptions, Parameter(name="*", group="Training", negative="", consume_multiple=True)
    ] = DEFAULT_PRETRAINING,
    overwrite: Annotated[bool, FLAG] = False,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Train an embedded foundation on drawn scenes and real images: hours on two cores.

    It can be stopped at any time; the same command resumes it from its folder. Without that
    folder, --start continues from an earlier foundation.

    ```
    simmat pretrain --output tiny-6.safetensors --steps 20000
    simmat pretrain --output cells.safetensors --families fluorescence mri
    simmat pretrain --output tiny-7.safetensors --start tiny-6.safetensors --steps 40000
    simmat pretrain --output mine.safetensors --start tiny-5.safetensors --steps 37000 --real images
    ```

    Parameters
    ----------
    output
        The foundation's file; its stem is the model's name.
    folder
        Folder for the state and the log; beside the output by default.
    start
        File of an earlier foundation to continue from, with its encoder.
    real
        Folder with a subfolder of labeled images (STEM.tif, STEM_labels.tif) for each source.
    sources
        Table (CSV) of the sources: folder, kind, share, complete, filled, license, source; by
        default sources.csv in the folder, if it exists.
    overwrite
        Replace the output if it exists.
    """
    from napari_simmat.checkpoints.checkpoint import read_spec
    from simmat_research.pretrain import PretrainConfig, export_base, pretrain_job
    from simmat_research.real_scenes import read_sources

    terminal = console.terminal()
    keep_freed_memory()
    check_output(output, overwrite)
    if sources is not None and real is None:
        raise ValueError("A table of sources needs their folder; give it with --real.")
    real_sources = () if real is None else read_sources(real, sources)
    if start is not None:
        lite = read_spec(start).base.architecture == "tiny_lite"
        options = replace(options, encoder="lite" if lite else "plain")
    config = PretrainConfig(**vars(options), sources=real_sources)
    folder = folder or output.with_name(f"{output.stem}-training")
    pretrained = terminal.watch(pretrain_job(config, folder, start))
    export_base(output, pretrained, config)
    say_metrics(terminal, output, pretrained.metrics)

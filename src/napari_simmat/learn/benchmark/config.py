"""What a benchmark runs on, and its quick and full forms. Importing it loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from napari_simmat.learn.train_config import EMBEDDED, Precision
from napari_simmat.model.spec import ModelSpec, StrategyName

ExperimentName = Literal["transfer", "pseudo", "strategies", "lr", "size", "panels"]
GENERATED = "generated"
SENSORS = (
    "depth", "hha", "thermal", "near_infrared", "polarization", "multispectral", "hyperspectral",
)  # fmt: skip
"""Drawn modalities; those of pseudo experiments are stacked on RGB."""
FEW = ("thermal", "multispectral")
"""Of quick forms, and of experiments that need many runs: one channel, and six."""
AIMS = ("pgsnet_p", "zju-rgbp", "d", "hha", "nir", "t")
"""Modality keys of the paper's figure 4a."""
AIMS_PSEUDO = ("pgsnet_rgbp", "rgbd", "rgbhha", "rgbnir", "rgbt")
QUICK_STEPS = 150


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """How an experiment is run.

    Parameters
    ----------
    quick
        Two modalities, 150 steps, one seed, every second learning rate and share of the images:
        shows that everything works, and no result.
    modalities
        Instead of those of the form.
    seeds
        Instead of those of the form: 0, 1 and 2 for transfer, 0 for the others.
    steps
        Of each training.
    side
        Pixels a side of drawn planes.
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
        How the arms tune that keep the foundation: by default lora, as the paper does on SAM, and
        lora_conv on an embedded foundation, most of whose encoder are convolutions.
    precision
        Of the training: auto is bf16-mixed where that is quicker, else 32-true. Figures are
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
            return AIMS_PSEUDO if experiment == "pseudo" else AIMS
        everything = experiment in ("transfer", "panels") and not self.quick
        names = SENSORS if everything else FEW
        return tuple(f"rgb+{name}" for name in names) if experiment == "pseudo" else names

    def seeds_of(self, experiment: ExperimentName) -> tuple[int, ...]:
        """The seeds of an experiment."""
        if self.seeds:
            return self.seeds
        return (0, 1, 2) if experiment == "transfer" and not self.quick else (0,)

    def on(self, base: ModelSpec) -> BenchmarkConfig:
        """The same with what depends on the foundation."""
        usual: StrategyName = EMBEDDED["strategy"] if base.base.embedded else "lora"
        return replace(self, tuning=self.tuning or usual)

    def rate_of(self, strategy: StrategyName) -> float:
        """The learning rate of a strategy."""
        return {"scratch": self.scratch_rate, "full": self.full_rate}.get(strategy, self.rate)

    @property
    def steps_of_form(self) -> int:
        """Steps of each training, in this form."""
        return min(self.steps, QUICK_STEPS) if self.quick else self.steps


def check_experiment(name: str) -> None:
    """Refuse an unknown experiment in a sentence."""
    if name not in get_args(ExperimentName):
        raise ValueError(
            f"Experiment {name!r} is unknown; use one of {', '.join(get_args(ExperimentName))}."
        )

"""The paper's comparisons as lists of runs.

Source: SimMAT, arXiv 2409.08083, figures 4 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from napari_simmat.learn.benchmark.config import BenchmarkConfig
from napari_simmat.learn.train_config import TrainConfig
from napari_simmat.model.spec import StrategyName, TransferName

Names = Sequence[str]
Seeds = Sequence[int]

ZERO_SHOT, SCRATCH, SIMMAT = "zero-shot", "scratch", "SimMAT"
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
"""The grid of figure 5a."""
BESIDE: tuple[StrategyName, ...] = (
    "frozen", "linear", "lora", "lora_conv", "adapter", "prompt", "prefix", "full",
)  # fmt: skip
"""Of figure 4c, and LoRA in convolutions."""
SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Shares of the training images of figure 5b."""


class Arm(NamedTuple):
    """One of the networks that are compared.

    Attributes
    ----------
    transfer, strategy
        As `TrainConfig` has them; None for how the foundation is tuned (`BenchmarkConfig.tuning`).
    """

    transfer: TransferName
    strategy: StrategyName | None


ARMS: dict[str, Arm] = {
    ZERO_SHOT: Arm("zeroshot", "frozen"),
    SCRATCH: Arm("simmat", "scratch"),
    "baseline A": Arm("baseline_a", None),
    "baseline B": Arm("baseline_b", None),
    SIMMAT: Arm("simmat", None),
}
"""Of figure 4a, by the names that tables show."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training and its test: a row of the table.

    Parameters
    ----------
    experiment, modality, arm
        What it belongs to, by name.
    transfer, strategy
        As `TrainConfig` has them.
    learning_rate, steps, seed
        Of the training; no steps for a zero-shot run.
    share
        Of the training images.
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
        """What tells the run from all others."""
        return tuple(str(getattr(self, each.name)) for each in fields(self))

    @property
    def training(self) -> tuple[str, ...]:
        """What its result depends on, whatever experiment it is part of."""
        return tuple(
            str(getattr(self, each.name))
            for each in fields(self)
            if each.name not in ("experiment", "arm")
        )

    def config(self, benchmark: BenchmarkConfig) -> TrainConfig:
        """How it is trained: without auxiliary losses, with a single click in each object."""
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


def transfer(modalities: Names, seeds: Seeds, config: BenchmarkConfig) -> list[Run]:
    """Figure 4a: zero-shot, from scratch, baselines A and B, SimMAT on every modality."""
    return [
        _run("transfer", modality, name, *arm, seed, config)
        for seed in seeds
        for modality in modalities
        for name, arm in ARMS.items()
    ]


def compared(config: BenchmarkConfig) -> tuple[StrategyName, ...]:
    """Strategies of figure 5: the parameter-efficient one, and full fine-tuning."""
    return _tuned(None, config), "full"


def pseudo(modalities: Names, seeds: Seeds, config: BenchmarkConfig) -> list[Run]:
    """Figure 4b: RGB stacked with a sensor's channels, with MAT and without (baseline A)."""
    return [
        _run("pseudo", modality, name, *ARMS[name], seed, config)
        for seed in seeds
        for modality in modalities
        for name in (ZERO_SHOT, "baseline A", SIMMAT)
    ]


def strategies(modalities: Names, seeds: Seeds, config: BenchmarkConfig) -> list[Run]:
    """Figure 4c: what is trained beside MAT."""
    return [
        _run("strategies", modality, name, "simmat", name, seed, config)
        for seed in seeds
        for modality in modalities
        for name in BESIDE
    ]


def lr(modalities: Names, seeds: Seeds, config: BenchmarkConfig) -> list[Run]:
    """Figure 5a: the learning rate of LoRA and of full fine-tuning."""
    return [
        replace(
            _run("lr", modality, strategy, "simmat", strategy, seed, config), learning_rate=rate
        )
        for seed in seeds
        for modality in modalities
        for strategy in compared(config)
        for rate in (RATES[1::2] if config.quick else RATES)
    ]


def size(modalities: Names, seeds: Seeds, config: BenchmarkConfig) -> list[Run]:
    """Figure 5b: the number of training images."""
    return [
        replace(_run("size", modality, strategy, "simmat", strategy, seed, config), share=share)
        for seed in seeds
        for modality in modalities
        for strategy in compared(config)
        for share in (SHARES[::2] if config.quick else SHARES)
    ]


EXPERIMENTS: dict[str, Callable[[Names, Seeds, BenchmarkConfig], list[Run]]] = {
    "transfer": transfer,
    "pseudo": pseudo,
    "strategies": strategies,
    "lr": lr,
    "size": size,
}


def _run(
    experiment: str,
    modality: str,
    arm: str,
    layer: TransferName,
    strategy: StrategyName | None,
    seed: int,
    config: BenchmarkConfig,
) -> Run:
    trained, strategy = arm != ZERO_SHOT, _tuned(strategy, config)
    return Run(
        experiment=experiment,
        modality=modality,
        arm=arm,
        transfer=layer,
        strategy=strategy,
        learning_rate=config.rate_of(strategy) if trained else 0.0,
        steps=config.steps_of_form if trained else 0,
        seed=seed,
    )


def _tuned(strategy: StrategyName | None, config: BenchmarkConfig) -> StrategyName:
    if strategy is not None:
        return strategy
    if config.tuning is None:
        raise ValueError("How the foundation is tuned follows from it: use `BenchmarkConfig.on`.")
    return config.tuning

"""Settings for training a modality checkpoint. Importing it loads no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from napari_simmat._text import format_list
from napari_simmat.io.plain import check_fields
from napari_simmat.models.spec import STRATEGY_TITLES, ModelSpec, StrategyName, split_transfer

Precision = Literal["32-true", "bf16-mixed", "16-mixed", "auto"]
TransferStart = Literal["random", "zeroshot", "uniform"]
UNIFORM_STARTS = ("baseline_b", "simcmf", "simcmf_b", "simcmf_d")
"""Transfer layers whose convolutions to three channels the authors' ``-uniformInit`` concerns."""
TrainPromptKind = Literal["anywhere", "click", "box", "points", "click+box"]
"""Kinds of first prompts, see `prompting.draw_prompts`."""
Positive = Annotated[int, {"min": 1}]
NotNegative = Annotated[int, {"min": 0}]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training settings of a modality checkpoint; the defaults are SimMAT's (arXiv 2409.08083).

    Parameters
    ----------
    transfer
        The layer that takes the sensor's channels: zeroshot (none), simmat, baseline_a, baseline_b,
        simcmf, simcmf_b, simcmf_d, preconv or preattn (also as preconvk5n3d32, preattnp8n2d64).
    start
        How the transfer layer starts: from random numbers, as in the paper; zeroshot: SimMAT's from
        passing on what the foundation would get without it; uniform: baseline_b, simcmf, simcmf_b
        and simcmf_d from weights in 0..1 without bias, the authors' -uniformInit.
    strategy
        What is trained in addition to the transfer layer.
    size
        The strategy's rank, bottleneck or number of tokens; by default the paper's, scaled with
        the network's width.
    epochs
        Passes over the images.
    steps
        Optimizer steps in all; each epoch is then an equal part of them. Training can be stopped
        at any time.
    batch
        Images per step; fewer need less memory.
    objects
        Objects prompted in each image.
    learning_rate
        Learning rate of Adam; 1e-3 suits tiny, 3e-4 SAM, 3e-5 full fine-tuning of SAM.
    halve_every
        The learning rate is halved every so many epochs.
    validate_every
        Epochs between two validations.
    patience
        Training ends after so many validations without improvement; 0 for never.
    prompts
        Kinds of prompts, one of which is drawn for each step: the paper's click anywhere in an
        object; a click as users make it, half of the time in its middle; a box; two clicks on the
        object and one next to it; a click and a box.
    corrections
        Maximum number of correcting clicks after the prompt.
    augment
        Whether to mirror and turn images, change their brightness and, for an embedded network,
        zoom them.
    drop_channels
        Share of the channels that are hidden in each image, so that the checkpoint accepts images
        that lack some; one always stays.
    auxiliary
        Whether to train the predicted quality as well and, of an embedded network, its prediction
        of each pixel's object: its size, and which other pixels belong to it.
    side
        Width and height of the network's input in training. By default the whole image for SAM
        (1024), crops of at most 256 pixels for an embedded network.
    precision
        As in Lightning Fabric; auto is bf16-mixed where that is faster, else 32-true.
    smoothing
        Added to numerator and denominator of the Dice loss. With 1, as in practical training, an
        object of a single cell of the mask grid has half the gradient.
    validation_objects
        Objects prompted in a validation, spread evenly; 0 for all.
    accumulate
        Parts into which a step's images are divided, to save memory; the gradient is the same.
    recompute
        Whether to recompute the encoder's blocks for the gradient, to save memory.
    tf32
        Whether a CUDA GPU of Ampere or later multiplies in TF32, 10 bits of precision, where the
        computation is in float32: faster, and what PyTorch did until 1.11, the authors' version.
    complete
        All objects of the images are labeled, so that the rest is ground to the decoder of all
        objects, which is trained along on tiny; else it knows a ring around each object.
    as_published
        Whether images and truth are sampled as in the authors' code: resized without antialiasing,
        values scaled to 8 bits cut to whole numbers, objects of any size, and the first pixel of
        each cell of the mask grid instead of its middle one. For comparisons with their figures:
        in use, images are resized with antialiasing.
    seed
        Seed of all random numbers: the same seed gives the same model.
    """

    transfer: str = "simmat"
    start: TransferStart = "random"
    strategy: Annotated[
        StrategyName,
        {"label": "Fine-tuning method", "choices": [(name, name) for name in STRATEGY_TITLES]},
    ] = "lora"
    size: int | None = None
    epochs: Positive = 51
    steps: Annotated[int | None, {"label": "Steps", "min": 1, "max": 1_000_000}] = None
    batch: Annotated[int, {"label": "Batch", "min": 1, "max": 4096}] = 4
    objects: Positive = 1
    learning_rate: Annotated[
        float, {"label": "Learning rate", "widget_type": "LineEdit", "min": 1e-7, "max": 0.9999}
    ] = 3e-4
    halve_every: Positive = 10
    validate_every: Positive = 5
    patience: NotNegative = 0
    prompts: Annotated[tuple[TrainPromptKind, ...], {"noun": "Prompt"}] = ("anywhere",)
    corrections: NotNegative = 0
    augment: bool = False
    drop_channels: Annotated[float, {"label": "Drop channels", "min": 0, "max": 0.9}] = 0.0
    auxiliary: bool = False
    side: Annotated[int | None, {"min": 1}] = None
    precision: Precision = "32-true"
    smoothing: Annotated[float, {"min": 0}] = 1e-5
    validation_objects: NotNegative = 400
    accumulate: Positive = 1
    recompute: bool = False
    tf32: bool = False
    complete: Annotated[bool, {"label": "All objects are labeled"}] = False
    as_published: bool = False
    seed: Annotated[int, {"label": "Seed", "min": 0, "max": 2**31 - 1}] = 0

    def __post_init__(self) -> None:
        split_transfer(self.transfer)
        check_fields(self)
        if not self.prompts:
            raise ValueError(
                "A training needs a kind of prompt; use some of "
                f"{format_list(get_args(TrainPromptKind))}."
            )
        if self.batch % self.accumulate:
            raise ValueError(
                f"{self.batch} images cannot be divided into {self.accumulate} equal parts; choose "
                "a batch that is a multiple of accumulate."
            )
        if self.start == "uniform" and self.transfer not in UNIFORM_STARTS:
            raise ValueError(
                f"{self.transfer} has no convolution to three channels to start uniformly; "
                f"{format_list(UNIFORM_STARTS)} have. Choose one of these, or another start."
            )
        if self.transfer == "zeroshot" and self.strategy == "frozen":
            raise ValueError(
                "Without a transfer layer and with strategy frozen nothing is trained; choose a "
                "transfer layer, for instance simmat, or a strategy."
            )

    def total(self, images: int) -> int:
        """Optimizer steps in all for so many training images."""
        return self.steps or self.epochs * math.ceil(images / self.batch)

    def rate(self, step: int, total: int) -> float:
        """The learning rate of a step (0, 1, ...) of `total`."""
        epoch = step * self.epochs // total
        return float(self.learning_rate * 0.5 ** (epoch // self.halve_every))

    def validations(self, total: int) -> set[int]:
        """Steps after which to validate, including the last of `total`."""
        every = range(self.validate_every, self.epochs + 1, self.validate_every)
        return {max(1, total * epoch // self.epochs) for epoch in every} | {total}

    def side_for(self, base: ModelSpec) -> int:
        """Side of the network's input in pixels while training on `base`."""
        if not base.base.embedded:
            if self.side not in (None, base.input_size.size):
                raise ValueError(
                    f"{base.name} takes {base.input_size.size} pixels a side, not {self.side}; "
                    "leave the side out."
                )
            return base.input_size.size
        multiple = base.input_size.multiple
        side = self.side or 256
        if side % multiple:
            raise ValueError(
                f"{base.name} takes sides that are multiples of {multiple} pixels, not {side}; "
                f"choose {-(-side // multiple) * multiple}."
            )
        return side


PRACTICAL_SETTINGS: dict[str, Any] = {
    "start": "zeroshot",
    "prompts": ("click", "click", "box", "points"),
    "corrections": 3,
    "objects": 4,
    "augment": True,
    "auxiliary": True,
    "precision": "auto",
    "smoothing": 1.0,
}
"""Differences from the paper's protocol for a checkpoint in use with all prompts."""

EMBEDDED_SETTINGS: dict[str, Any] = {"strategy": "lora_conv", "learning_rate": 1e-3}
"""Further differences on an embedded base, which is smaller than SAM and mostly convolutional; see
the benchmark."""


def practical_config(base: ModelSpec, **said: Any) -> TrainConfig:
    """Settings for practical use of a checkpoint on `base`; those in `said` take precedence."""
    own = EMBEDDED_SETTINGS if base.base.embedded else {}
    return TrainConfig(**{**PRACTICAL_SETTINGS, **own, **said})

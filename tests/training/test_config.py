"""Training settings: the schedule, counted by hand, and what is refused."""

from dataclasses import replace
from typing import get_args

import pytest

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.models.spec import (
    Base,
    Channel,
    InputSize,
    ModelSpec,
    Normalization,
    StrategyName,
    TransferName,
)
from napari_simmat.models.transfer import TRANSFERS
from napari_simmat.models.tuning import STRATEGIES
from napari_simmat.training.config import PRACTICAL_SETTINGS, TrainConfig, practical_config


def test_transfer_and_strategy_names_match_their_tables():
    assert get_args(TransferName) == tuple(TRANSFERS)
    assert get_args(StrategyName) == tuple(STRATEGIES)


def test_train_config_defaults_are_the_papers():
    config = TrainConfig()
    assert (config.epochs, config.batch, config.learning_rate) == (51, 4, 3e-4)
    assert (config.halve_every, config.validate_every, config.patience) == (10, 5, 0)
    assert (config.prompts, config.corrections, config.objects) == (("anywhere",), 0, 1)
    assert not config.augment
    assert not config.auxiliary


def test_total_shows_every_image_once_an_epoch():
    assert TrainConfig().total(10) == 51 * 3  # 4 + 4 + 2 images
    assert TrainConfig(steps=7).total(10) == 7


def test_rate_is_halved_every_ten_of_51_epochs():
    config = TrainConfig(learning_rate=0.1)
    rates = [config.rate(step, 51 * 3) for step in range(51 * 3)]
    assert [rates.count(0.1 / 2**n) for n in range(7)] == [30, 30, 30, 30, 30, 3, 0]
    assert rates == sorted(rates, reverse=True)


def test_rate_is_halved_at_the_same_shares_of_given_steps():
    config = TrainConfig(learning_rate=0.1, steps=102)
    rates = [config.rate(step, 102) for step in range(102)]
    assert [rates.count(0.1 / 2**n) for n in range(7)] == [20, 20, 20, 20, 20, 2, 0]


def test_validations_are_every_five_epochs_and_last():
    assert sorted(TrainConfig().validations(102)) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 102]
    assert TrainConfig(epochs=3).validations(3) == {3}
    assert TrainConfig(steps=2).validations(2) == {1, 2}  # never before the first step


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"transfer": "mat"}, "Transfer layer 'mat' is unknown; use one of zeroshot, simmat,"),
        ({"strategy": "all"}, "Strategy 'all' is unknown; use one of frozen, decoder,"),
        (
            {"precision": "half"},
            "Precision 'half' is unknown; use one of 32-true, bf16-mixed, 16-mixed, auto",
        ),
        (
            {"prompts": ("scribble",)},
            "Prompt 'scribble' is unknown; use one of anywhere, click, box, points",
        ),
        ({"prompts": ()}, "A training needs a kind of prompt; use some of anywhere"),
        ({"epochs": 0}, "epochs must be at least 1, got 0."),
        ({"steps": 0}, "steps must be between 1 and 1000000, got 0."),
        ({"batch": 0}, "batch must be between 1 and 4096, got 0."),
        ({"objects": -1}, "objects must be at least 1, got -1."),
        ({"halve_every": 0}, "halve_every must be at least 1, got 0."),
        ({"validate_every": 0}, "validate_every must be at least 1, got 0."),
        ({"accumulate": 0}, "accumulate must be at least 1, got 0."),
        ({"side": 0}, "side must be at least 1, got 0."),
        ({"patience": -1}, "patience must be at least 0, got -1."),
        ({"corrections": -2}, "corrections must be at least 0, got -2."),
        ({"seed": -1}, "seed must be between 0 and 2147483647, got -1."),
        ({"seed": 2**31}, "seed must be between 0 and 2147483647, got 2147483648."),
        ({"learning_rate": 0.0}, "learning_rate must be between 1e-07 and 0.9999, got 0.0."),
        (
            {"learning_rate": float("nan")},
            "learning_rate must be between 1e-07 and 0.9999, got nan.",
        ),
        (
            {"start": "uniform"},
            "simmat has no convolution to three channels to start uniformly; baseline_b, simcmf,",
        ),
        ({"batch": 4, "accumulate": 3}, "4 images cannot be divided into 3 equal parts; choose a"),
        (
            {"transfer": "zeroshot", "strategy": "frozen"},
            "Without a transfer layer and with strategy frozen nothing is trained; choose a",
        ),
    ],
)
def test_train_config_refuses_bad_settings(settings, sentence):
    with pytest.raises(ValueError) as caught:  # noqa: PT011, its words are compared
        TrainConfig(**settings)  # type: ignore[arg-type]
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_practical_config_keeps_given_settings():
    tiny = load_model("tiny").spec
    sam = replace(tiny, base=replace(tiny.base, architecture="vit_b"))
    wanted = {**PRACTICAL_SETTINGS, "objects": 1, "steps": 9}  # objects as the paper has them
    assert practical_config(sam, objects=1, steps=9) == TrainConfig(**wanted)
    embedded = TrainConfig(**wanted, strategy="lora_conv", learning_rate=1e-3)
    assert practical_config(tiny, objects=1, steps=9) == embedded
    own = practical_config(tiny, strategy="lora", learning_rate=2e-4)
    assert (own.strategy, own.learning_rate) == ("lora", 2e-4)
    with pytest.raises(TypeError, match="no_such_setting"):
        practical_config(tiny, no_such_setting=1)


def test_side_for_is_that_of_the_base():
    tiny = load_model("tiny").spec
    sam = ModelSpec(
        name="vit_b",
        modality="RGB",
        channels=(Channel(name="red", mean=0, std=1),),
        normalization=Normalization(),
        input_size=InputSize(),
        base=Base(name="vit_b", architecture="vit_b", sha256=""),
    )
    config = TrainConfig()
    assert (config.side_for(tiny), config.side_for(sam)) == (256, 1024)
    assert replace(config, side=96).side_for(tiny) == 96
    with pytest.raises(ValueError, match="multiples of 32 pixels, not 100; choose 128"):
        replace(config, side=100).side_for(tiny)
    with pytest.raises(ValueError, match="vit_b takes 1024 pixels a side, not 512; leave"):
        replace(config, side=512).side_for(sam)

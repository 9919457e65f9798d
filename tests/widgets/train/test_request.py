from __future__ import annotations

import shlex
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from napari_simmat.checkpoints import registry
from napari_simmat.cli import app
from napari_simmat.cli.terminal import ChannelOptions
from napari_simmat.training.config import TrainConfig, practical_config
from napari_simmat.widgets.forms import in_a_shell
from napari_simmat.widgets.train.runs import DEFAULT_STEPS, FORM_SETTINGS, TrainRequest

REQUESTS = [
    TrainRequest(name="plain"),
    TrainRequest(
        name="all of it",
        base="vit_b",
        modality="-thermal & more",
        folder="/data/my images",
        channels="-1 deg,DAPI",
        config=TrainConfig(
            strategy="full", steps=7, batch=2, learning_rate=3e-5, seed=4, patience=2, size=None
        ),
    ),
    TrainRequest(name="long pixels", pixel_ratio=2.5),
    TrainRequest(name="more", config=TrainConfig(prompts=("box", "click"), augment=True, side=64)),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.name)
def test_the_command_line_asks_for_what_the_request_says(request_: TrainRequest) -> None:
    words = request_.arguments(Path("data"), Path("out.safetensors"), Path("run"))
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    named = bound.arguments
    assert command.__name__ == "train"
    assert named["data"] == "data"
    assert named["output"] == Path("out.safetensors")
    assert named["folder"] == Path("run")
    assert named["base"] == request_.base
    assert "practical" not in named, "all of it is said, so that later defaults change nothing"
    assert named["labeled"].modality == (request_.modality or request_.name)
    options = named.get("channels", ChannelOptions())
    assert options.channels == (request_.channels or None)
    assert options.pixel_ratio == request_.pixel_ratio
    # Where a configuration has no number of steps, that of the command line has none either.
    assert TrainConfig(**named["wanted"].given) == request_.config


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.name)
def test_what_is_written_reads_back(request_: TrainRequest) -> None:
    assert TrainRequest.from_json(request_.to_json()) == request_


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"config": 3}',
        '{"config": {"steps": 0}}',
        '{"config": {}, "a": 1}',
        '{"config": {}, "pixel_ratio": "1"}',
    ],
)
def test_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no training's request"):
        TrainRequest.from_json(text)
    with pytest.raises(ValueError, match="no training's request"):
        TrainRequest.from_json('{"name": 3, "config": {}}')


@pytest.mark.skipif(sys.platform == "win32", reason="another shell")
def test_the_command_can_be_pasted() -> None:
    words = REQUESTS[1].arguments(Path("my data"), Path("out"), Path("run"))
    assert shlex.split(in_a_shell(words)) == ["simmat", *words]


def test_without_a_word_it_is_what_practical_means() -> None:
    tiny = registry.find_model("tiny").spec
    assert practical_config(tiny, steps=DEFAULT_STEPS) == TrainRequest().config


def test_the_form_shows_settings_that_there_are() -> None:
    assert set(FORM_SETTINGS) <= {field.name for field in fields(TrainConfig)}

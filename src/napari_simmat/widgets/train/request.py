"""What is asked of a training, as a value: a form shows it, a command line carries it out."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from napari_simmat.learn.train_config import EMBEDDED, PRACTICAL, TrainConfig

STEPS = 500
"""A matter of minutes with the embedded foundation; it can be stopped at any time."""
START = TrainConfig(steps=STEPS, **PRACTICAL, **EMBEDDED)
"""What ``simmat train --practical`` does on an embedded base, spelled out: said word for word, a
training that was interrupted goes on with the same settings whatever the defaults have become."""
SHOWN = ("strategy", "steps", "batch", "learning_rate", "seed")
"""The settings of a form; a command line always says them."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A training of the window.

    Parameters
    ----------
    name
        Of the new model.
    base
        The foundation, by name or file.
    modality
        What the sensor measures; the model's name if left out.
    folder
        Of labelled images; empty for open layers.
    channels
        Of the folder's images, names or numbers with commas between; empty for all.
    pixel_ratio
        Height of a pixel over its width, where a file does not say.
    config
        How it is trained.
    """

    name: str = ""
    base: str = "tiny"
    modality: str = ""
    folder: str = ""
    channels: str = ""
    pixel_ratio: float = 1.0
    config: TrainConfig = field(default=START)

    def arguments(self, data: Path, output: Path, folder: Path) -> list[str]:
        """What follows ``simmat`` on the command line.

        Parameters
        ----------
        data, output, folder
            The labelled images, the checkpoint's file and the training's own folder.
        """
        words = ["train", str(data), "--output", str(output), "--base", self.base]
        # With "=", as words of the user's own may start with a dash.
        words.append(f"--modality={self.modality or self.name}")
        if self.channels:
            words.append(f"--channels={self.channels}")
        if self.pixel_ratio != 1:
            words.append(f"--pixel-ratio={self.pixel_ratio}")
        for each in fields(TrainConfig):
            value = getattr(self.config, each.name)
            if each.name in SHOWN or value != each.default:
                words += _option(each.name, value)
        return [*words, "--folder", str(folder)]

    def to_json(self) -> str:
        """As text; `from_json` reads it back."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> TrainRequest:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            If it is something else.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            config = values.pop("config")
            tuples = {n: tuple(v) if isinstance(v, list) else v for n, v in config.items()}
            request = cls(**values, config=TrainConfig(**tuples))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"This is no training's request ({error}).") from None
        texts = [getattr(request, each.name) for each in fields(cls) if each.type == "str"]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("This is no training's request (a word is a number).")
        if not isinstance(request.pixel_ratio, (int, float)):
            raise ValueError("This is no training's request (a number is a word).")
        return request


def with_settings(config: TrainConfig, **shown: Any) -> TrainConfig:
    """A configuration with some of `SHOWN` changed; ValueError says what is wrong with them."""
    return replace(config, **shown)


def _option(name: str, value: Any) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    if value is None or value is MISSING or value is False:
        return []
    if value is True:
        return [option]
    values = value if isinstance(value, tuple) else (value,)
    return [word for each in values for word in (option, str(each))]

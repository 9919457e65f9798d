"""What is asked of a model that is evaluated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from napari_simmat.engine.automatic.settings import AutomaticSettings
from napari_simmat.engine.frames import check_pixel_ratio
from napari_simmat.learn.datasets.dataset import SIDE

PromptKind = Literal["click", "box", "iterative", "paper", "auto", "all"]
SMALLEST = 12
"""Objects of fewer pixels are left out: a pixel more or less would decide."""
MOST_CLICKS = 20


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What is asked of a model.

    Parameters
    ----------
    prompt
        click, box, iterative (the click and its corrections), all (these three), paper
        (`learn.paper`), or auto (none: everything is segmented).
    clicks
        Clicks into each object, where corrections are asked: 1 to 20.
    smallest
        Only objects of more pixels, if their plane had 1024 x 1024. Those of fewer than
        `SMALLEST` pixels of the image are left out as well, but for the paper's protocol.
    most
        Objects per image, spread evenly over its planes and labels; None for all.
    channels, channel_axis
        As `Predictor.set_image` takes them.
    pixel_ratio
        Height of a pixel over its width, where a file does not say.
    automatic
        How everything is segmented.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    prompt: PromptKind = "all"
    clicks: int = 4
    smallest: int = 0
    most: int | None = None
    channels: tuple[int | str, ...] | None = None
    channel_axis: int | None = None
    pixel_ratio: float = 1.0
    automatic: AutomaticSettings = field(default=AutomaticSettings())

    def __post_init__(self) -> None:
        check_pixel_ratio(self.pixel_ratio)
        if self.prompt not in get_args(PromptKind):
            raise ValueError(
                f"Prompt {self.prompt!r} is unknown; give {', '.join(get_args(PromptKind))}."
            )
        if not 1 <= self.clicks <= MOST_CLICKS:
            raise ValueError(f"An object cannot get {self.clicks} clicks; give 1 to {MOST_CLICKS}.")
        if self.smallest < 0:
            raise ValueError(f"Objects cannot have fewer than 0 pixels, got {self.smallest}.")
        if self.most is not None and self.most < 1:
            raise ValueError(f"At most {self.most} objects are none; give 1 or more.")
        if self.most is not None and self.prompt == "auto":
            raise ValueError("Segmenting everything is compared with all objects; leave most out.")

    @property
    def needed(self) -> str:
        """What size an object must have, in words."""
        above = f"more than {self.smallest} pixels at {SIDE} x {SIDE}"
        if self.prompt == "paper":
            return above
        return f"at least {SMALLEST} pixels" + (f" and {above}" if self.smallest else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "prompt": self.prompt,
            "clicks": self.clicks,
            "smallest": self.smallest,
            "most": self.most,
            "channels": None if self.channels is None else list(self.channels),
            "channel_axis": self.channel_axis,
            "pixel_ratio": self.pixel_ratio,
            **({"automatic": self.automatic.to_dict()} if self.prompt == "auto" else {}),
        }

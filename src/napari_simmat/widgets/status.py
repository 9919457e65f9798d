"""What the window says about its state, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["nothing", "ready", "working", "cancelled", "failed", "done"]


@dataclass(frozen=True)
class Status:
    """What the status line shows.

    Parameters
    ----------
    kind
        Decides the look.
    text
        One sentence.
    fraction
        How far the work is, where that is known.
    seconds
        How long it took; while working it is counted by the status line.
    offer
        A label for a button that helps, e.g. to make a new layer; empty for none.
    other
        A label for a second such button, where there are two ways to go on.
    way_out
        What the button beside the progress says; empty where another one ends the work.
    """

    kind: Kind
    text: str
    fraction: float | None = None
    seconds: float | None = None
    offer: str = ""
    other: str = ""
    way_out: str = "Cancel"

"""What a user does and the seconds that it takes: a keystroke-level model, and the waiting.

The model adds up the operators of a practiced user who makes no errors (Card, Moran and Newell
1980, "The keystroke-level model for user performance time with interactive systems",
Communications of the ACM 23(7), 396-410): K, a key, 0.2 s for an average typist; P, pointing with a
mouse, 1.1 s; H, a hand from the keyboard to the mouse, 0.4 s; D, straight lines, 0.9 s for each and
0.16 s for each centimeter; M, to prepare mentally, 1.35 s; and the system's response. B, a press of
the mouse's button, 0.1 s, is of Kieras (2001, "Using the keystroke-level model to estimate
execution times", University of Michigan).

H is left out: one hand is on the mouse, the other on the keys. So is M: who outlines by hand and
who clicks look for the next object alike. `LOOK` stands for the decision on a draft. The answer to
a prompt of the user's own is not looked at again: the eye is there already.

A line takes time by its length. So a hand is as fast around a grain as along a straight edge, which
is too fast: by the steering law (Accot and Zhai 1997, "Beyond Fitts' law: models for
trajectory-based HCI tasks", CHI '97, 295-302) the time through a tunnel is a + b * length / width.
With a `tolerance`, `UserTime.line` follows it where that is slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from time import monotonic

PRESS = 1.2
"""Seconds of a click, a button, or a key at the pointer: P + B."""
BOX = 2.5
"""Seconds of a box: P + B at two corners, and 0.1 s, chosen, since dragging takes longer than
pointing (MacKenzie, Sellen and Buxton 1991, "A comparison of input devices in elemental pointing
and dragging tasks", CHI '91, 161-166)."""
LINE = 0.7
"""Seconds until a line begins; chosen, a little less than those of D."""
PER_PIXEL = 0.01
"""Seconds along a line; chosen. D's are 0.004 at 38 screen pixels to the centimeter, for a straight
line that follows nothing."""
LOOK = 0.5
"""Seconds to decide on a draft; chosen."""
REACTION = 0.24
"""Seconds in which an answer is not waited for: to perceive, decide and move takes 0.1, 0.07 and
0.07 s (Card, Moran and Newell 1983, "The psychology of human-computer interaction")."""
EFFECTIVE_WIDTH = 4.133
"""Width of the tunnel within which a hand stays, in standard deviations: 96 % of its points
(MacKenzie 1992, "Fitts' law as a research and design tool in human-computer interaction")."""
AT_EASE = 10.0
"""Width in pixels of the tunnel in which a hand by the steering law is as fast as `PER_PIXEL`: so b
is 0.1 s; chosen. No hand is faster in a wider one."""


@dataclass
class UserTime:
    """What a user has done so far.

    Attributes
    ----------
    actions
        Clicks, boxes, lines, buttons and deletions.
    drawn
        Length of all lines, in pixels.
    acting, waited
        Seconds: by the model, and by the clock.
    """

    actions: int = 0
    drawn: float = 0.0
    acting: float = 0.0
    waited: float = 0.0

    @property
    def seconds(self) -> float:
        """Acting and waiting."""
        return self.acting + self.waited

    def press(self, times: int = 1) -> None:
        """Click, press a button, delete or accept an object."""
        self.actions += times
        self.acting += times * PRESS

    def box(self) -> None:
        """Draw a box."""
        self.actions += 1
        self.acting += BOX

    def line(self, length: float, tolerance: float = inf) -> None:
        """Draw a line of so many pixels, within a tunnel as wide as the tolerance in pixels."""
        self.actions += 1
        self.drawn += length
        self.acting += LINE + length * PER_PIXEL * max(1.0, AT_EASE / tolerance)

    def look(self, drafts: int = 1) -> None:
        """Decide on drafts."""
        self.acting += drafts * LOOK

    @contextmanager
    def waiting(self, unnoticed: float = 0.0) -> Iterator[None]:
        """Wait for the program, by the clock; so many seconds of it are not noticed."""
        began = monotonic()
        yield
        self.waited += max(0.0, monotonic() - began - unnoticed)

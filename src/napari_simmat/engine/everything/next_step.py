"""What to try where segmenting everything found nothing, or few of many spots.

The rules look at the plane alone: what stands out from an even background, how wide that is, and
whether objects were found there; and at what a decoder left out because it was unsure of it. They
know neither the command line nor the window; `in_options`
and `in_controls` put a step into the words of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat._text import format_list, pluralize
from napari_simmat.engine.everything.candidates import NOTHING_LEFT_OUT, Unsure
from napari_simmat.engine.settings import MIN_PREDICTED_IOU, AutomaticSettings
from napari_simmat.io.plain import field_rules

if TYPE_CHECKING:
    from napari_simmat.engine.image_stack import ChannelStack

LOOKED_AT = 1024
"""Side in pixels of what is looked at, in the middle of a plane."""
MESH = 64
"""Side in pixels of the blocks whose medians are the background, as in SExtractor."""
CLEAR = 5.0
"""Times the noise by which a spot differs from the background."""
COMPACT = 0.4
"""Share of its box that a spot fills at least: scratches and edges fill less."""
BROAD, PATCHY = 4.0, 0.5
"""Sigma in pixels of a blur, and what it leaves, in units of the noise, of patches: of noise it
leaves 0.2 to 0.4, of photographs from above, a terrain or cells 0.6 and more."""
LOWEST = 0.02
"""Share of the range above which spots are advised at least; of less there is noise."""
SPARSE = 0.2
"""Share of the plane that spots cover at most: more is texture."""
MANY, MISSED = 20, 0.75
"""Spots, and the share of them without an object, from which on few were found."""
NARROWEST = 5
"""Width in pixels of the smallest disc that `tiny` finds by itself; of 4 it finds half."""
CLICKED = 3
"""Width in pixels of the smallest spot that a click on it outlines."""

UNSURE_SHARE, UNSURE_OBJECTS = 0.15, 2.0
"""Of the objects that are likely there, the share that was left out, and their number, from which
on that is told (`docs/reports/objects.md`)."""

CONSTANT = "What the model reads is {value:g} everywhere."
OTHER_CHANNELS = "Read a channel that shows something: {}."
ANY_CHANNEL = "Read another channel or plane."
BRIGHT = 80
"""Median brightness, of 255, above which a picture shows transmitted light; scikit-image's stained
tissue has 153, and fluorescence has a dark ground wherever objects cover less than half."""
EVEN = "Nothing here stands out from its background, as on the glass of a slide."
ELSEWHERE = "Look at another region or channel."
SPOTS = "{spots} of some {width:.0f} pixels across {have} no object."
SMALL = f"The smallest that are found without a click on each are {NARROWEST} pixels across."
TOO_SMALL = "Enlarge the image twofold or threefold first."
NONE_KNOWN = "Nothing here looks like an object to the model."
SHOW_ONE = "Show one: {one}."
SIZE_OR_ONE = "Say how large one is ({side}), or show one: {one}."
UNSURE = "It is unsure of some {objects} more objects."
TEACH = "teach it five objects ({})"


@dataclass(frozen=True)
class NextStep:
    """What may find more objects.

    Parameters
    ----------
    why
        What was seen, in sentences.
    settings
        Settings of segmenting everything to change, by field.
    advice
        What no setting does, as a sentence.
    channels
        Names of channels to read instead.
    shows_one, asks_size
        Whether the model had better be shown an object, which command and window do differently;
        and whether the size of one, which was not given, would help as well.
    teaches
        Whether some objects would teach the decoder, likewise.
    """

    why: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""
    channels: tuple[str, ...] = ()
    shows_one: bool = False
    asks_size: bool = True
    teaches: bool = False

    @property
    def in_options(self) -> str:
        """The step as options of the command line."""
        options = [
            f"--auto.{name.replace('_', '-')} {value}" for name, value in self.settings.items()
        ]
        return self._sentences(
            " ".join(options),
            f"--channels {self.channels[0]}" if self.channels else "",
            "--auto.object-side",
            "a click or a box with --prompts, or a stroke in the window",
            "simmat models teach",
        )

    @property
    def in_controls(self) -> str:
        """The step as controls of the window; those without a control are left out."""
        told = []
        for rule in field_rules(AutomaticSettings):
            if rule.name in self.settings and "label" in rule.notes:
                value = self.settings[rule.name]
                titles = {key: title for title, key in rule.notes.get("choices", ())}
                told.append(f"{rule.notes['label']}: {titles.get(value, value)}")
        return self._sentences(
            f"under More settings {format_list(told)}" if told else "",
            format_list(self.channels),
            "Side of an object",
            "click on it or draw a stroke along it, and commit",
            "accept or box five, and press Segment everything again",
        )

    def _sentences(
        self, settings: str, channels: str, side: str, showing: str, teaching: str
    ) -> str:
        read = OTHER_CHANNELS.format(channels) if channels else ""
        ways = (settings and f"Try {settings}", self.teaches and TEACH.format(teaching))
        tried = ", or ".join(way for way in ways if way)
        tried = f"{tried[0].upper()}{tried[1:]}." if tried else ""
        shown = ""
        if self.shows_one:
            words = SIZE_OR_ONE if self.asks_size else SHOW_ONE
            shown = words.format(side=side, one=showing)
        return " ".join(filter(None, (self.why, self.advice, read, tried, shown)))


@dataclass(frozen=True, eq=False)
class SeenPlane:
    """The middle of a plane, as it was when objects were looked for.

    Parameters
    ----------
    values
        (C, Y, X), the channels that the model reads.
    where
        Rows and columns of the plane.
    others
        Channels (Y, X) that the model does not read, by name.
    """

    values: NDArray[Any]
    where: tuple[slice, slice]
    others: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, stack: ChannelStack, plane: tuple[int, ...] = ()) -> SeenPlane:
        """What a model reads of a plane, in its middle."""
        where = middle(stack.shape)
        return cls(stack.part(plane, *where).plane(), where)

    def next_step(
        self, labels: NDArray[Any], settings: AutomaticSettings, unsure: Unsure = NOTHING_LEFT_OUT
    ) -> NextStep | None:
        """What to try if too little was found; None if enough was.

        Parameters
        ----------
        labels
            (Y, X), the objects that were found on the whole plane; more than the middle is not
            read.
        settings
            By which they were found.
        unsure
            What was left out, of the whole plane or of all planes.
        """
        found = np.asarray(labels[self.where])
        if self._is_constant and not found.any():
            others = self.others.items()
            shown = tuple(name for name, each in others if not _is_constant(each))
            why = CONSTANT.format(value=float(self.values.flat[0]))
            return NextStep(why, advice="" if shown else ANY_CHANNEL, channels=shown)
        ground, spots = self._ground, self._spots
        missed = [not found[at].any() for at in spots.pixels]
        if len(missed) >= MANY and np.mean(missed) >= MISSED:
            return _towards(spots, sum(missed), settings)
        if unsure.share >= UNSURE_SHARE and unsure.objects >= UNSURE_OBJECTS:
            return _of_unsure(unsure, settings)
        if found.any():
            return None
        if not len(missed) and ground.is_even:
            return NextStep(EVEN, advice=ELSEWHERE)
        return NextStep(NONE_KNOWN, shows_one=True, asks_size=not settings.object_side)

    @property
    def is_bright_field(self) -> bool:
        """Whether light passed through what a picture of 8 bits shows: half of it is bright.

        Stained tissue lets most light through, where fluorescence is on a dark ground.
        """
        return float(np.median(np.mean(self.values, axis=0))) > BRIGHT

    @cached_property
    def _is_constant(self) -> bool:
        return all(_is_constant(each) for each in self.values)

    @cached_property
    def _ground(self) -> _Ground:
        return _Ground.of(self.values)

    @cached_property
    def _spots(self) -> _Spots:
        """Those that are brighter or darker than the background, of which there are more."""
        return max((self._ground.spots(sign) for sign in (1, -1)), key=lambda one: len(one.width))


def middle(shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the middle of a plane (..., Y, X), at most `LOOKED_AT` of each."""
    starts = [max(0, (size - LOOKED_AT) // 2) for size in shape[-2:]]
    rows, columns = (slice(start, start + LOOKED_AT) for start in starts)
    return rows, columns


def _of_unsure(unsure: Unsure, settings: AutomaticSettings) -> NextStep:
    """The step towards what a decoder left out: to see it, or to teach it.

    Of what a lower threshold shows half is wrong, so that it is for those who look at it.
    """
    why = UNSURE.format(objects=round(unsure.objects))
    lowest = settings.quality is not None and settings.quality <= MIN_PREDICTED_IOU
    shows = unsure.masks > 0 and not lowest
    return NextStep(why, {"quality": MIN_PREDICTED_IOU} if shows else {}, teaches=True)


def _towards(spots: _Spots, missed: int, settings: AutomaticSettings) -> NextStep:
    """The step towards spots of which so many have no object."""
    width, area = (float(np.median(each)) for each in (spots.width, spots.area))
    kind = "bright spot" if spots.sign > 0 else "dark spot"
    have = "has" if missed == 1 else "have"
    why = SPOTS.format(spots=pluralize(missed, kind), width=width, have=have)
    wanted: dict[str, Any] = {
        "seeds": "maxima" if spots.sign > 0 else "minima",
        "maxima_distance": max(2, round(0.75 * width)),
        "quality": 0.3,
        "stability": 0.5,
    }
    if spots.faint < settings.maxima_height:
        wanted["maxima_height"] = max(LOWEST, round(0.7 * spots.faint, 2))
    if settings.min_area > area / 2:
        wanted["min_area"] = max(1, int(area / 4))
    is_small = width < NARROWEST
    why = f"{why} {SMALL}" if is_small else why
    tried = all(getattr(settings, name) == value for name, value in wanted.items())
    if tried or width < CLICKED:
        advice = TOO_SMALL if is_small else ""
        asks_size = not settings.object_side
        return NextStep(why, {} if tried else wanted, advice, shows_one=tried, asks_size=asks_size)
    return NextStep(why, wanted)


class _Spots(NamedTuple):
    """Compact regions that are brighter (sign 1) or darker (-1) than the background.

    Attributes
    ----------
    faint
        How far the faintest stand out, as a share of the range of the plane: one of twenty does
        less.
    """

    sign: int
    width: NDArray[np.float64]
    area: NDArray[np.float64]
    pixels: list[tuple[NDArray[np.intp], NDArray[np.intp]]]
    faint: float = 1.0


@dataclass(frozen=True, eq=False)
class _Ground:
    """How a plane differs from its background, in units of the noise."""

    raised: NDArray[np.float32]

    @classmethod
    def of(cls, values: NDArray[Any]) -> _Ground:
        """Look at the mean of the channels that show something."""
        shown = [np.nan_to_num(each.astype(np.float32)) for each in values]
        plane = np.mean([each for each in shown if not _is_constant(each)] or shown, axis=0)
        smooth = ndi.gaussian_filter(plane, 0.7)
        raised = smooth - _background(smooth)
        noise = 1.4826 * float(np.median(np.abs(raised - np.median(raised))))
        # An even ground with a few objects has no noise of its own: a step of its values is one.
        step = noise or max(float(np.ptp(plane)) / 255, np.finfo(np.float32).tiny)
        return cls(np.asarray((raised - np.median(raised)) / step, np.float32))

    @property
    def is_even(self) -> bool:
        """Whether no more of it differs from the background than of noise, nor over many pixels.

        Fields seen from above differ everywhere, so no pixel is far from the rest.
        """
        if np.mean(np.abs(self.raised) > CLEAR) >= 1e-4:
            return False
        return bool(np.std(ndi.gaussian_filter(self.raised, BROAD)) < PATCHY)

    def spots(self, sign: int) -> _Spots:
        """What stands out in one direction; none where that is texture."""
        clear = self.raised * sign > CLEAR
        if clear.mean() > SPARSE:
            return _Spots(sign, np.empty(0), np.empty(0), [])
        regions, _ = ndi.label(clear)
        width, area, pixels = [], [], []
        for number, (rows, columns) in enumerate(ndi.find_objects(regions), start=1):
            height, breadth = rows.stop - rows.start, columns.stop - columns.start
            inside = regions[rows, columns] == number
            count = int(inside.sum())
            if count < 3 or count < COMPACT * max(height, breadth) ** 2:
                continue
            y, x = np.nonzero(inside)
            width.append(2 * math.sqrt(count / math.pi))
            area.append(count)
            pixels.append((y + rows.start, x + columns.start))
        low, high = np.percentile(self.raised, (0.1, 99.9))
        peaks = [float(np.max(self.raised[at] * sign)) for at in pixels]
        faint = float(np.percentile(peaks, 5) / max(high - low, CLEAR)) if peaks else 1.0
        return _Spots(sign, np.array(width), np.array(area, float), pixels, faint)


def _background(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Medians of blocks, between which it is linear; one median where it is few blocks."""
    height, width = plane.shape
    if min(height, width) < 3 * MESH:
        return np.full_like(plane, np.median(plane))
    rows, columns = height // MESH, width // MESH
    blocks = plane[: rows * MESH, : columns * MESH].reshape(rows, MESH, columns, MESH)
    medians = ndi.median_filter(np.median(blocks, axis=(1, 3)), 3, mode="nearest")
    at = [(np.arange(size) + 0.5) / MESH - 0.5 for size in plane.shape]
    grid = np.meshgrid(*at, indexing="ij")
    return np.asarray(ndi.map_coordinates(medians, grid, order=1, mode="nearest"), np.float32)


def _is_constant(values: NDArray[Any]) -> bool:
    return bool((values == values.flat[0]).all())

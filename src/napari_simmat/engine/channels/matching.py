"""Which of an image's channels feed a model, and in which order."""

from __future__ import annotations

import logging
import operator
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from napari_simmat._text import format_list, is_or_are, pluralize
from napari_simmat.engine.channels.bands import band_of, match_bands

if TYPE_CHECKING:
    from napari_simmat.models.spec import InputChannels

logger = logging.getLogger(__name__)

RGB = ("red", "green", "blue")
"""Names of the channels of a color image."""
GAP = -1
"""In place of the index of a channel that an image lacks."""
NO_CHANNEL = "-"
"""The same in a user's selection."""
LACKING = "The image lacks %s, which %s reads; it was trained for that, but masks may be worse."
BY_BAND = "Channels are matched by their spectral bands: %s."
_UNITS = {"deg", "degree", "degrees", "nm", "um"}


def match_channels(
    available: int,
    inputs: InputChannels,
    *,
    names: Sequence[str] | None = None,
    channels: Sequence[int | str] | None = None,
    rgba: bool = False,
    clearest: Callable[[], int] | None = None,
) -> tuple[int, ...]:
    """Choose one available channel for each of the model's, in the model's order.

    1. `channels`, if given, are taken in their order: indices or names. For an RGB foundation
       they may repeat.
    2. If the available names include the model's, those channels are taken, whatever their order.
       Case and surrounding spaces do not matter. Names of spectral bands may differ: nir1, B8 of
       Sentinel-2 and 842 nm are one.
    3. An RGB foundation repeats a single channel, takes three, and drops the last of `rgba`; so
       does a model that was trained on red, green and blue.
    4. Otherwise the channels are taken in order, if there are as many as the model reads and no
       name contradicts.

    A model that `may_lack` channels gets a `GAP` for one that is selected as ``"-"``, or that is
    not among the names, nor the bands they mean, while others are.

    Parameters
    ----------
    available, names
        Number of available channels, and their names if known.
    inputs
        What the model reads.
    channels
        The user's selection.
    rgba
        Whether four channels without names are red, green, blue and alpha.
    clearest
        Looks which channel shows most, for the sentence if the user has to choose.

    Returns
    -------
    Indices of available channels, one for each channel of the model.

    Raises
    ------
    ValueError, TypeError
        If no choice is right; the message says what the model needs.
    """
    if names is not None and len(names) != available:
        raise ValueError(
            f"There are {pluralize(available, 'channel')} but {len(names)} names "
            f"({format_list(names)}); give one name for each channel, or none."
        )
    if channels is not None:
        if isinstance(channels, str) or not hasattr(channels, "__len__"):
            raise TypeError(
                f"Channels are a list of names or indices, not {channels!r}; write [{channels!r}]."
            )
        chosen = tuple(
            GAP
            if inputs.may_lack and channel == NO_CHANNEL
            else channel_index(channel, available, names)
            for channel in channels
        )
        return _selected(chosen, inputs, names)
    if names is not None and (by_name := _match_by_name(tuple(range(available)), inputs, names)):
        return by_name
    if rgba and available == 4 and names is None and (inputs.is_rgb or inputs.names == RGB):
        logger.warning(
            "The image was taken as RGBA: its alpha channel is left out. Select channels, e.g. "
            "1, 2, 3, if the fourth is something else."
        )
        return (0, 1, 2)
    if not inputs.is_rgb:
        return _match_in_order(available, inputs, names)
    if available in (1, 3):
        return (0, 0, 0) if available == 1 else (0, 1, 2)
    listed = "" if names is None else f" ({format_list(names)})"
    best = 0 if clearest is None else clearest()
    distinct = names is not None and names.count(names[best]) == 1 and "," not in names[best]
    one = names[best] if names is not None and distinct else str(best)
    shows = "" if clearest is None else f", where {one} shows most"
    option = f'"{one}"' if " " in one else one
    raise ValueError(
        f"{inputs.reader} reads red, green and blue, but there are {available} channels{listed}. "
        f"Choose one for all three, e.g. --channels {option}{shows}, or three of them."
    )


def known_channels(wanted: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Index into `names` of each wanted channel that is among them, by its name or its band."""
    plain = [plain_name(name) for name in names]
    named = {name: plain.index(plain_name(name)) for name in wanted if plain_name(name) in plain}
    return match_bands(wanted, names) | named


def match_names(wanted: Sequence[str], offered: Sequence[str]) -> dict[str, int]:
    """Match wanted channels to longer names, e.g. ``"45 deg"`` to ``"scene_45"``.

    Names are compared by their words and numbers; units do not count. A name of the same words
    goes before one that means the same band of the spectrum, and that before one that merely
    contains the words, unless it means another band: red edge is not red. A wanted name that fits
    several offered ones is left out, as is one that fits none.

    Returns
    -------
    Index into `offered` for each wanted name that has a match.
    """
    words = [_words(name) for name in offered]
    exact = {
        name: found[0]
        for name in wanted
        if len(found := [n for n, there in enumerate(words) if there == _words(name)]) == 1
    }
    matches = dict(exact)
    others = [name for name in wanted if name not in exact]
    for name, number in match_bands(others, offered).items():
        if number not in matches.values():
            matches[name] = number
    taken = set(matches.values())
    for name in others:
        if name in matches:
            continue
        own = _words(name)
        band = band_of(name, wanted)
        found = [
            n
            for n, there in enumerate(words)
            if n not in taken
            and own.strip()
            and own in there
            and (band is None or band_of(offered[n], offered) in (None, band))
        ]
        if len(found) == 1 and found[0] not in matches.values():
            matches[name] = found[0]
    return matches


def channel_index(channel: int | str, available: int, names: Sequence[str] | None) -> int:
    """Index of a channel given by name or index; ValueError or TypeError if there is none.

    A name of digits that no channel has is an index.
    """
    if isinstance(channel, str):
        plain = [plain_name(name) for name in names or ()]
        found = [index for index, name in enumerate(plain) if name == plain_name(channel)]
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise ValueError(
                f"Two channels are called {channel}; rename one, or select the channels by index."
            )
        if not channel.strip().isdecimal():
            there = (
                f"there are {format_list(names)}" if names else "the channels here have no names"
            )
            raise ValueError(
                f"There is no channel called {channel}; {there}. Select one of them by name, or "
                f"by index from 0 to {available - 1}."
            )
        channel = int(channel)
    try:
        index = operator.index(channel)
    except TypeError:
        index = None
    if index is None or isinstance(channel, bool):
        raise TypeError(f"A channel is a name or an index, not {channel!r}.")
    if not 0 <= index < available:
        raise ValueError(
            f"There is no channel {index}; the image has {pluralize(available, 'channel')}, "
            f"counted from 0 to {available - 1}. Select one of these."
        )
    return index


def plain_name(name: str) -> str:
    """A channel's name as it is compared: without case and surrounding spaces."""
    return name.strip().casefold()


def _selected(
    chosen: tuple[int, ...], inputs: InputChannels, names: Sequence[str] | None
) -> tuple[int, ...]:
    """Check the user's selection, and sort it where its names are the model's."""
    if inputs.is_rgb and len(chosen) == 1:
        return chosen * len(inputs.names)
    if len(chosen) != len(inputs.names):
        raise _wrong_count(len(chosen), "selected", inputs)
    if inputs.is_rgb:
        return chosen
    if GAP in chosen:
        return _with_gaps(chosen, inputs)
    if len(set(chosen)) < len(chosen):
        twice = next(index for index in chosen if chosen.count(index) > 1)
        raise ValueError(
            f"Channel {twice if names is None else names[twice]} is selected twice, but "
            f"{inputs.reader} reads {len(inputs.names)} different channels "
            f"({format_list(inputs.names)}); select each once."
        )
    if names is None:
        return chosen
    if by_name := _match_by_name(chosen, inputs, names):
        return by_name
    wanted = [plain_name(name) for name in inputs.names]
    for position, index in enumerate(chosen):
        name = plain_name(names[index])
        if name in wanted and wanted.index(name) != position:
            raise ValueError(
                f"Channel {names[index]} is selected for {inputs.names[position]}; "
                f"{inputs.reader} reads its channels in the order {format_list(inputs.names)}. "
                "Select them in that order."
            )
    return chosen


def _with_gaps(chosen: tuple[int, ...], inputs: InputChannels) -> tuple[int, ...]:
    """Check that something is there, and say what is not."""
    if set(chosen) == {GAP}:
        raise ValueError(f"No channel is left for {inputs.reader}; select at least one.")
    pairs = zip(inputs.names, chosen, strict=True)
    logger.warning(LACKING, format_list([n for n, index in pairs if index == GAP]), inputs.reader)
    return chosen


def _match_by_name(
    among: tuple[int, ...], inputs: InputChannels, names: Sequence[str]
) -> tuple[int, ...] | None:
    """Those channels `among` the given ones that have the model's names; None if one lacks."""
    plain = [plain_name(names[index]) for index in among]
    wanted = [plain_name(name) for name in inputs.names]
    if not set(wanted) <= set(plain):
        return _match_by_band(among, inputs, names)
    for name in wanted:
        if plain.count(name) > 1:
            twice = names[among[plain.index(name)]]
            raise ValueError(
                f"Two channels are called {twice}; rename one, or select the channels by index."
            )
    return tuple(among[plain.index(name)] for name in wanted)


def _match_by_band(
    among: tuple[int, ...], inputs: InputChannels, names: Sequence[str]
) -> tuple[int, ...] | None:
    """Those channels `among` the given ones that mean the model's bands; None if one lacks."""
    there = [names[index] for index in among]
    found = match_bands(inputs.names, there)
    if len(found) < len(inputs.names):
        return None
    pairs = [(there[found[name]], name) for name in inputs.names]
    read = [f"{one} as {name}" for one, name in pairs if plain_name(one) != plain_name(name)]
    logger.warning(BY_BAND, ", ".join(read))
    return tuple(among[found[name]] for name in inputs.names)


def _match_in_order(
    available: int, inputs: InputChannels, names: Sequence[str] | None
) -> tuple[int, ...]:
    if names is not None:
        known = known_channels(inputs.names, names)
        if 0 < len(known) < len(inputs.names):
            if inputs.may_lack:
                return _with_gaps(tuple(known.get(n, GAP) for n in inputs.names), inputs)
            missing = [name for name in inputs.names if name not in known]
            raise ValueError(_lacking(missing, names, inputs))
    if available != len(inputs.names):
        raise _wrong_count(available, "given", inputs)
    if names is not None and available > 1:
        pairs = zip(names, inputs.names, strict=True)
        logger.warning(
            "No channel has a name that %s knows; they are taken in their order: %s.",
            inputs.reader,
            ", ".join(f"{name} as {wanted}" for name, wanted in pairs),
        )
    return tuple(range(available))


def _lacking(missing: Sequence[str], names: Sequence[str], inputs: InputChannels) -> str:
    """What is said of channels that lack some of the model's, and what to do."""
    are_bands = all(band_of(name, names) for name in (*names, *inputs.names))
    way_out = (
        "that is another camera: let a model learn its bands from five objects (Learn in the "
        "Segment tab, or simmat train --few)"
        if are_bands
        else "add or rename it, or select the channels in the model's order"
    )
    return (
        f"{inputs.reader} reads the channels {format_list(inputs.names)}, but "
        f"{format_list(missing)} {is_or_are(len(missing))} missing among {format_list(names)}; "
        f"{way_out}."
    )


def _wrong_count(count: int, how: str, inputs: InputChannels) -> ValueError:
    need = len(inputs.names)
    select = "one or three" if inputs.is_rgb else str(need)
    return ValueError(
        f"{inputs.reader} was trained on {pluralize(need, 'channel')} "
        f"({format_list(inputs.names)}), but {count} {is_or_are(count)} {how}. Select {select}, or "
        "load another model."
    )


def _words(name: str) -> str:
    """The words of a name, each between spaces."""
    words = re.findall(r"[^\W\d_]+|\d+(?:\.\d+)?", name.casefold())
    return f" {' '.join(word for word in words if word not in _UNITS)} "

"""Which of the available channels feed a model, and in which order."""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari_simmat.words import are, counted, format_list

if TYPE_CHECKING:
    from napari_simmat.model.spec import ModelSpec

logger = logging.getLogger(__name__)

_COLOURS = ("red", "green", "blue")
"""What a model that was trained on pictures in colour calls its channels."""


def match_channels(
    available: int,
    spec: ModelSpec,
    *,
    names: Sequence[str] | None = None,
    channels: Sequence[int | str] | None = None,
    rgba: bool = False,
) -> tuple[int, ...]:
    """Choose one available channel for each of the model's, in the model's order.

    1. `channels`, where given, are taken in their order: indices or names, for an RGB foundation
       also repeated.
    2. Channels whose names are the model's are sorted by name; of more, those are picked. A name
       fits with another case and with spaces around it.
    3. An RGB foundation repeats a lone channel, takes three, and of `rgba` drops the last; so does
       a model that was trained on red, green and blue.
    4. Otherwise as many as the model has are taken in their order, if no name speaks against it.

    Parameters
    ----------
    available
        How many channels there are.
    spec
        The model.
    names
        Names of the available channels, where they are known.
    channels
        The user's selection.
    rgba
        Whether four nameless channels are red, green, blue and alpha.

    Returns
    -------
    tuple of int
        Indices of available channels, one for each channel of the model.

    Raises
    ------
    ValueError, TypeError
        If no choice is right; the sentence says what the model needs.
    """
    if names is not None and len(names) != available:
        raise ValueError(
            f"There are {counted(available, 'channel')} but {len(names)} names "
            f"({format_list(names)}); give one name for each channel, or none."
        )
    if channels is not None:
        chosen = tuple(_resolve(channel, available, names) for channel in _as_sequence(channels))
        return _explicit(chosen, spec, names)
    if names is not None and (by_name := _by_name(tuple(range(available)), spec, names)):
        return by_name
    rgba = rgba and available == len(_COLOURS) + 1 and names is None
    if rgba and (spec.is_rgb or spec.channel_names == _COLOURS):
        return _without_alpha()
    if spec.is_rgb:
        return _rgb(available, spec, names)
    return _in_order(available, spec, names)


def _explicit(
    chosen: tuple[int, ...], spec: ModelSpec, names: Sequence[str] | None
) -> tuple[int, ...]:
    if spec.is_rgb and len(chosen) == 1:
        return chosen * len(spec.channels)
    if len(chosen) != len(spec.channels):
        _refuse_count(len(chosen), "selected", spec)
    if spec.is_rgb:
        return chosen
    if len(set(chosen)) < len(chosen):
        twice = next(index for index in chosen if chosen.count(index) > 1)
        raise ValueError(
            f"Channel {_name(twice, names)} is selected twice, but {spec.name} reads "
            f"{len(spec.channels)} different channels ({format_list(spec.channel_names)}); select "
            "each once."
        )
    if names is None:
        return chosen
    if by_name := _by_name(chosen, spec, names):
        return by_name
    wanted = [_plain(name) for name in spec.channel_names]
    for position, index in enumerate(chosen):
        name = _plain(names[index])
        if name in wanted and wanted.index(name) != position:
            raise ValueError(
                f"Channel {names[index]} is selected for {spec.channel_names[position]}; "
                f"{spec.name} reads its channels in the order {format_list(spec.channel_names)}. "
                "Select them in that order."
            )
    return chosen


def _by_name(
    among: tuple[int, ...], spec: ModelSpec, names: Sequence[str]
) -> tuple[int, ...] | None:
    """Channels `among` those given that bear the model's names, if all are there."""
    plain = [_plain(names[index]) for index in among]
    wanted = [_plain(name) for name in spec.channel_names]
    if not set(wanted) <= set(plain):
        return None
    for name in wanted:
        if plain.count(name) > 1:
            twice = names[among[plain.index(name)]]
            raise ValueError(
                f"Two channels are called {twice}; rename one, or select the channels by index."
            )
    return tuple(among[plain.index(name)] for name in wanted)


def _without_alpha() -> tuple[int, ...]:
    logger.warning(
        "The image was taken as RGBA: its alpha channel is left out. Select channels, e.g. "
        "1, 2, 3, if the fourth is something else."
    )
    return (0, 1, 2)


def _rgb(available: int, spec: ModelSpec, names: Sequence[str] | None) -> tuple[int, ...]:
    if available == 1:
        return (0, 0, 0)
    if available == 3:
        return (0, 1, 2)
    listed = "" if names is None else f" ({format_list(names)})"
    raise ValueError(
        f"{spec.name} reads red, green and blue, but there are {available} channels{listed}; "
        "select three of them or one for all three, e.g. channels=[0, 1, 1]."
    )


def _in_order(available: int, spec: ModelSpec, names: Sequence[str] | None) -> tuple[int, ...]:
    if names is not None:
        plain = {_plain(name) for name in names}
        missing = [name for name in spec.channel_names if _plain(name) not in plain]
        if missing and len(missing) < len(spec.channels):
            raise ValueError(
                f"{spec.name} reads the channels {format_list(spec.channel_names)}, but "
                f"{format_list(missing)} {are(len(missing))} missing among {format_list(names)}; "
                "add or rename it, or select the channels in the model's order."
            )
    if available != len(spec.channels):
        _refuse_count(available, "given", spec)
    if names is not None and available > 1:
        pairs = zip(names, spec.channel_names, strict=True)
        logger.warning(
            "No channel bears a name that %s knows; they are taken in their order: %s.",
            spec.name,
            ", ".join(f"{name} as {wanted}" for name, wanted in pairs),
        )
    return tuple(range(available))


def _refuse_count(count: int, how: str, spec: ModelSpec) -> None:
    need = len(spec.channels)
    select = "one or three" if spec.is_rgb else str(need)
    raise ValueError(
        f"{spec.name} was trained on {counted(need, 'channel')} "
        f"({format_list(spec.channel_names)}), but {count} {are(count)} {how}. Select {select}, or "
        "load another model."
    )


def _resolve(channel: int | str, available: int, names: Sequence[str] | None) -> int:
    if isinstance(channel, str):
        plain = [] if names is None else [_plain(name) for name in names]
        found = [index for index, name in enumerate(plain) if name == _plain(channel)]
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise ValueError(
                f"Two channels are called {channel}; rename one, or select the channels by index."
            )
        if not channel.strip().isdecimal():
            there = "the channels here have no names"
            if names:
                there = f"there are {format_list(names)}"
            raise ValueError(
                f"There is no channel called {channel}; {there}. Select one of them by name, or "
                f"by index from 0 to {available - 1}."
            )
        channel = int(channel)
    try:
        index = operator.index(channel)
    except TypeError:
        raise TypeError(f"A channel is a name or an index, not {channel!r}.") from None
    if isinstance(channel, bool):
        raise TypeError(f"A channel is a name or an index, not {channel!r}.")
    if not 0 <= index < available:
        raise ValueError(
            f"There is no channel {index}; the image has {counted(available, 'channel')}, counted "
            f"from 0 to {available - 1}. Select one of these."
        )
    return index


def _as_sequence(channels: Sequence[int | str]) -> Sequence[int | str]:
    if isinstance(channels, str) or not hasattr(channels, "__len__"):
        raise TypeError(
            f"Channels are a list of names or indices, not {channels!r}; write [{channels!r}]."
        )
    return channels


def _plain(name: str) -> str:
    return name.strip().casefold()


def _name(index: int, names: Sequence[str] | None) -> str:
    return str(index) if names is None else names[index]

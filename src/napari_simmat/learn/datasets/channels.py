"""Which channels a data set has, and where they are in each of its images."""

from __future__ import annotations

from collections.abc import Sequence

from napari_simmat.engine.channels import RGB, channel_index, plain_name
from napari_simmat.engine.formats.image_file import ImageFile
from napari_simmat.learn.datasets.content import Content
from napari_simmat.words import counted, format_list

Selection = Sequence[int | str]
"""Names and indices."""
ALONE = "intensity"
"""Name of a lone channel without a name."""


def known_names(file: ImageFile, channel_axis: int | None) -> tuple[str, ...] | None:
    """What a file calls the channels along an axis, if that is its own channel axis."""
    if channel_axis is None or channel_axis % file.data.ndim != file.channel_axis:
        return None
    if file.rgb:
        return (*RGB, "alpha")[: file.data.shape[file.channel_axis]]
    return file.channel_names


def choose_channels(content: Content, wanted: Selection | None, where: str) -> tuple[str, ...]:
    """Names of the channels that a data set will have, from its first image.

    Parameters
    ----------
    content
        The image.
    wanted
        What the user chose; None for all channels but alpha.
    where
        The image's name for messages.
    """
    names = _distinct(content.names)
    if wanted is None:
        alpha = names is not None and names == (*RGB, "alpha")
        wanted = range(content.available - alpha)
    indices = [_index(content, channel, where, wanted) for channel in wanted]
    if names is not None:
        return tuple(names[index] for index in indices)
    if content.available == 1:
        return (ALONE,)
    return tuple(str(index) for index in indices)


def find_channels(
    content: Content, names: Sequence[str], wanted: Selection | None, where: str
) -> tuple[int, ...]:
    """Indices of a data set's channels in one of its images.

    Channels that the user chose are those; otherwise they are known by `names`, or, where an
    image has no names, by their order.

    Raises
    ------
    ValueError
        If a channel is missing; the sentence names image and channel.
    """
    own = _distinct(content.names)
    if wanted is not None:
        indices = tuple(_index(content, channel, where, wanted) for channel in wanted)
        if len(set(indices)) < len(indices):
            raise ValueError(
                f"Of the channels {format_list(wanted)} two are the same in {where}; choose each "
                "channel once."
            )
        return indices
    named = len(names) > 1 and not all(name.isdecimal() for name in names)
    if own is not None and named:
        return tuple(_index(content, name, where, names) for name in names)
    alpha = own is not None and own == (*RGB, "alpha")
    if content.available - alpha != len(names):
        raise ValueError(
            f"{where} has {counted(content.available, 'channel')}, but the first image has "
            f"{len(names)} ({format_list(names)}); every image needs the same channels. "
            "Choose the channels that all of them have, or take it out."
        )
    return tuple(range(len(names)))


def _index(content: Content, channel: int | str, where: str, wanted: Selection) -> int:
    try:
        return channel_index(channel, content.available, content.names)
    except ValueError as error:
        raise ValueError(
            f"{where}: {error} Every image needs the channels {format_list(wanted)}: add the "
            "missing one, choose channels that all images have, say which axis holds the channels, "
            "or take the image out."
        ) from None


def _distinct(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """The names, unless they do not tell the channels apart."""
    if names is None or len({plain_name(name) for name in names}) < len(names) or not all(names):
        return None
    return tuple(names)

"""Which names of channels mean the same part of the spectrum: nir1, B8 and 842 nm."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple


class Band(NamedTuple):
    """A part of the spectrum that sensors share.

    Attributes
    ----------
    low, high, center
        In nanometers.
    names
        Names that mean it, in lower case without spaces, the usual first: of several channels that
        mean the same band the first is taken.
    sentinel
        Name of Sentinel-2's band, which other satellites give to other bands.
    """

    low: float
    high: float
    center: float
    names: tuple[str, ...]
    sentinel: tuple[str, ...] = ()


BANDS = (
    Band(400, 450, 443, ("coastal", "coastalblue", "coastalaerosol", "aerosol"), ("b1", "b01")),
    Band(450, 520, 490, ("blue",), ("b2", "b02")),
    Band(520, 600, 560, ("green",), ("b3", "b03")),
    Band(620, 690, 665, ("red",), ("b4", "b04")),
    Band(
        690,
        750,
        717,
        ("rededge", "re", "rededge1", "re1", "rededge2", "re2"),
        ("b5", "b05", "b6", "b06"),
    ),
    Band(
        760,
        900,
        842,
        ("nir", "nearinfrared", "nearir", "nir1", "nearinfrared1", "nirnarrow", "nir08"),
        ("b8", "b08", "b8a"),
    ),
    Band(900, 1000, 945, ("nir2", "nearinfrared2", "nir09", "watervapor"), ("b9", "b09")),
    Band(
        1550,
        1750,
        1610,
        ("swir1", "swir16", "shortwaveinfrared1"),
        ("b11",),
    ),
    Band(2050, 2350, 2190, ("swir2", "swir22", "shortwaveinfrared2"), ("b12",)),
)
"""Ranges that the bands of common sensors share; names as STAC and vendors have them, see
https://github.com/stac-extensions/eo (common names) and ESA's list of Sentinel-2's bands."""
_WORDS = 4
"""Words that a band's name has at most: near infra red 1."""
_NANOMETERS = {"nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3}
_WAVELENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(nm|um|µm|μm)\b", re.IGNORECASE)


def match_bands(wanted: Sequence[str], offered: Sequence[str]) -> dict[str, int]:
    """Index into `offered` for each wanted name whose band exactly one channel means best.

    Of channels with wavelengths the one nearest to what is wanted is taken, of channels with names
    the one that comes first among the band's `names`. No channel is taken twice.
    """
    matches: dict[str, int] = {}
    for name in wanted:
        band = band_of(name, wanted)
        if band is None:
            continue
        ranks = {
            number: _rank(name, channel, band, are_sentinel=_are_sentinel(offered))
            for number, channel in enumerate(offered)
            if number not in matches.values() and band_of(channel, offered) is band
        }
        best = [number for number, rank in ranks.items() if rank == min(ranks.values())]
        if len(best) == 1:
            matches[name] = best[0]
    return matches


def band_of(name: str, beside: Sequence[str]) -> Band | None:
    """The band that a channel's name means; None if it means none, or nobody knows which.

    Parameters
    ----------
    name
        As a file, a layer or a model has it, also with other words: ``"field red edge"``.
    beside
        The names of all channels of the image: B8 is near infrared if they are Sentinel-2's.
    """
    wavelength = _wavelength(name)
    if wavelength is not None:
        return next((band for band in BANDS if band.low <= wavelength < band.high), None)
    _, band = _named(name, are_sentinel=_are_sentinel(beside))
    return band


def _rank(wanted: str, offered: str, band: Band, *, are_sentinel: bool) -> tuple[int, float]:
    """How far a channel of the band is from what is wanted; names go before wavelengths."""
    wavelength = _wavelength(offered)
    if wavelength is not None:
        return 1, abs(wavelength - (_wavelength(wanted) or band.center))
    words, _ = _named(offered, are_sentinel=are_sentinel)
    return 0, (*band.names, *band.sentinel).index(words)


def _wavelength(name: str) -> float | None:
    """In nanometers; None if the name gives none with its unit."""
    found = _WAVELENGTH.search(name)
    return None if found is None else float(found[1]) * _NANOMETERS[found[2].lower()]


def _named(name: str, *, are_sentinel: bool) -> tuple[str, Band | None]:
    """The most words of a name that mean a band, as one, and the band; none if two bands fit."""
    runs = _runs(name)
    for length in sorted({count for count, _ in runs}, reverse=True):
        bands = {}
        for words in (words for count, words in runs if count == length):
            band = _band_called(words, are_sentinel=are_sentinel)
            if band is not None:
                bands[words] = band
        if len(bands) == 1:
            return next(iter(bands.items()))
        if bands:
            return "", None
    return "", None


def _band_called(words: str, *, are_sentinel: bool) -> Band | None:
    bands = [band for band in BANDS if words in band.names]
    if are_sentinel:
        bands += [band for band in BANDS if words in band.sentinel]
    return bands[-1] if bands else None


def _are_sentinel(names: Sequence[str]) -> bool:
    """Whether names are those of Sentinel-2: B8A, or B2, B3, B4 and B8 without Landsat's B5 to B7.

    Landsat's B8 is panchromatic, and its near infrared is B4 or B5.
    """
    words: set[str] = set()
    for name in names:
        words |= {run.replace("b0", "b") for _, run in _runs(name)}
    if "b8a" in words:
        return True
    are_landsat = bool(words & {"b5", "b6", "b7"})
    return words >= {"b2", "b3", "b4", "b8"} and not are_landsat


def _runs(name: str) -> list[tuple[int, str]]:
    """Words that follow each other in a name, joined, with their number: ``(2, "rededge")``."""
    plain = name.casefold().replace("infra-red", "infrared").replace("band ", "b")
    words = re.findall(r"[a-z]+\d*[a-z]?(?![a-z])|\d+", plain)
    return [
        (end - start, "".join(words[start:end]))
        for start in range(len(words))
        for end in range(start + 1, min(len(words), start + _WORDS) + 1)
    ]

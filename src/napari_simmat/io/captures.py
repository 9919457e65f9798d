"""Images whose bands are files: one pattern names the captures of a sensor and their bands.

``{capture}_{band}.tif`` names all captures of a folder; ``IMG_0007_{band}.tif`` names one, which is
read as an image of all its bands. ``{band:1=blue,2=green}`` lists the bands in their order, and
names them; otherwise they have the order of their files, and the names that these hold, or are
called by: ``nir``, or ``band5`` where there is only a number. ``*``, ``?`` and ``**`` stand for any
names, as in other patterns.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from napari_simmat._text import format_list, pluralize

NOT_BANDS = ("labels", "classes", "prompts", "points", "boxes", "shapes", "overlay", "masks")
"""What follows an image's stem in the names of files that belong to it."""
MAX_BANDS = 64
"""More files than this are not proposed as the bands of one capture."""
_FIELD = re.compile(r"\{(?P<field>capture|band)(?::(?P<table>[^{}]*))?\}")
_OPEN = re.compile(rf"{_FIELD.pattern}|\*\*/|\*|\?")
_NOT_LISTED = re.compile(r"[,={}]|^\s|\s$")
_GAP = r"[ _\-.]+"
_SERIES = re.compile(r"[tz]\d+", re.IGNORECASE)

_NANOMETERS = range(380, 2501)
"""What a number in this range means in the name of a band."""

NOT_ONE_BAND = (
    "The pattern {} has {} of {{band}}; write it once, for the part of the names that differs "
    "within a capture, as in {{capture}}_{{band}}.tif."
)
NOT_ONE_CAPTURE = "The pattern {} has {{capture}} twice; write it once."
WRONG_TABLE = (
    "The pattern {} lists the bands {!r}; write them as {{band:red,nir}}, or with the names that "
    "they shall have as {{band:1=blue,2=green}}, each once."
)
EMPTY_TABLE = (
    "The pattern {} lists no bands after its colon; write {{band}}, or list them as in "
    "{{band:red,nir}}."
)
SAME_BANDS = (
    "The files of the pattern {0} have the bands {1} and {2}, which would have one name; name them "
    "as in {{band:{1}=first,{2}=second}}, or rename the files."
)
ODD_BAND = (
    "The files of the pattern {} have the band {!r}, which cannot be listed, for it has a comma, "
    "an equals sign, a brace or a space at its end; rename them, or list the other bands, as in "
    "{{band:red,nir}}."
)
NO_FILE = "No file matches {}; check the pattern and its folder."
SEVERAL = "{} means {} captures, and one is read here; write its folder and name in full."
LACKS = "The capture {} lacks {}; add the missing file, or list the bands that all captures have."

LOOK_LIKE_CAPTURES = (
    'The names look like {}. To read each as one image, give "{}" in place of the folder; name '
    "the bands there for indices such as NDVI, as in {{band:3=red,4=nir}}."
)


MAY_BE_CAPTURES = "The names look like {}: is each capture one image of all its bands?"


class Captures(NamedTuple):
    """What a pattern finds.

    Attributes
    ----------
    root
        The folder up to the first name that the pattern leaves open.
    images
        A path for each capture, which lists its bands, in the order of their names.
    others
        Files that match, with a band that most captures lack.
    """

    root: Path
    images: tuple[Path, ...]
    others: tuple[Path, ...]


def is_capture(path: Path | str) -> bool:
    """Whether a path names the bands of one capture, ``IMG_0007_{band}.tif``, and no file."""
    fields = _fields(path)
    return "band" in fields and "capture" not in fields and not os.path.lexists(path)


def names_captures(path: Path | str) -> bool:
    """Whether a path is a pattern of captures, ``{capture}_{band}.tif``, and no file."""
    return "capture" in _fields(path) and not os.path.lexists(path)


def find_captures(pattern: Path) -> Captures:
    """The captures that a pattern names.

    If it does not list the bands, those count that at least half of the captures have. A capture
    that lacks one of them is found, too: `band_files` refuses it.

    Raises
    ------
    ValueError
        If the pattern has not one ``{band}``, lists bands wrongly, or finds bands that no list can
        name.
    FileNotFoundError
        If no file matches.
    """
    table = _table(pattern)
    root, captures = _search(pattern, table)
    counts = Counter(band for bands in captures.values() for band in bands)
    usual = [band for band, count in counts.items() if 2 * count >= len(captures)]
    if not table and (problem := _problem_of(usual, pattern)):
        raise ValueError(problem)
    known = table or dict.fromkeys(sorted(usual, key=_natural), "")
    images: list[Path] = []
    others: list[Path] = []
    for name in sorted(captures, key=_natural):
        bands = captures[name]
        others += [path for band, path in bands.items() if band not in known]
        if bands.keys() & known.keys():
            images.append(root / name.replace("{band}", _listed(known)))
    return Captures(root, tuple(images), tuple(others))


def band_files(path: Path) -> dict[str, Path]:
    """The files of one capture by the names of their bands, in their order.

    Raises
    ------
    ValueError
        If the path has not one ``{band}``, means several captures, or finds bands that no list can
        name, or the file of a listed band is missing.
    FileNotFoundError
        If no file matches.
    """
    table = _table(path)
    _, captures = _search(path, table)
    if len(captures) > 1:
        raise ValueError(SEVERAL.format(path, len(captures)))
    [bands] = captures.values()
    if not table and (problem := _problem_of(bands, path)):
        raise ValueError(problem)
    missing = [_with_band(path, band) for band in table if band not in bands]
    if missing:
        raise ValueError(LACKS.format(capture_stem(path), format_list(missing)))
    order = list(table) or sorted(bands, key=_natural)
    return {table.get(band) or _as_name(band): bands[band] for band in order}


def names_bands(path: Path) -> bool:
    """Whether the path of a capture says how its bands are called: ``{band:1=blue}``."""
    return any(_table(path).values())


def capture_stem(path: Path) -> str:
    """A capture's name: that of its files without band and ending, else that of its folder."""
    stem = Path(_FIELD.sub("{}", path.name)).stem
    before, _, behind = stem.partition("{}")
    words = [re.sub(rf"^{_GAP}|{_GAP}$", "", part) for part in (before, behind)]
    return "_".join(filter(None, words)) or home_of(path).name or "capture"


def home_of(path: Path) -> Path:
    """The folder of the files that belong to an image: its own; of a capture the last real one."""
    folder = path.parent
    while _fields(folder) and not os.path.lexists(folder):
        folder = folder.parent
    return folder


def propose_pattern(names: Sequence[str]) -> str:
    """A pattern that fits the names of a folder's images, ``{capture}_{band}.tif``; else empty.

    The band is the part of the names that has the same values, two at least, in most captures. Of
    several such parts words go before numbers, and the last one before others. Parts that count
    time points or planes (``t01``, ``z3``) are none.
    """
    endings = Counter(Path(name).suffix for name in names)
    if not endings:
        return ""
    ((ending, _),) = endings.most_common(1)
    stems = [name.removesuffix(ending) for name in names if Path(name).suffix == ending]
    split = [re.split(f"({_GAP})", stem) for stem in stems]
    split = [parts for parts in split if parts[-1].casefold() not in NOT_BANDS]
    proposals = (_proposal(split, place) for place in (-1, -3, -5, 0))
    best = max(filter(None, proposals), default=None)
    return "" if best is None else f"{best[1]}{ending}"


def proposal_text(pattern: str) -> str:
    """What is said of a pattern that was proposed: how many captures it finds, of which bands."""
    return LOOK_LIKE_CAPTURES.format(_described(pattern), pattern)


def found_text(pattern: str) -> str:
    """The same where it can be answered at once."""
    return MAY_BE_CAPTURES.format(_described(pattern))


def _described(pattern: str) -> str:
    found = find_captures(Path(pattern)).images
    bands = [_table(image) for image in found[:1]]
    names = format_list(bands[0]) if bands else ""
    return f"{pluralize(len(found), 'capture')} of the bands {names}"


def propose_in(folder: Path) -> str:
    """`propose_pattern` of the files in a folder, with the folder; empty if there is none."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except OSError:
        return ""
    pattern = propose_pattern(sorted(name for name in names if not name.startswith(".")))
    return str(folder / pattern) if pattern else ""


def _proposal(split: Sequence[list[str]], place: int) -> tuple[int, str] | None:
    """How likely the part at `place` of the names is the band, and the pattern for it.

    `split` are words and what is between them.
    """
    captures: dict[tuple[str, ...], set[str]] = {}
    around: set[tuple[str, str]] = set()
    for parts in split:
        if len(parts) < 2 + abs(place):
            continue
        rest = list(parts)
        rest[place] = ""
        captures.setdefault(tuple(rest), set()).add(parts[place])
        before, behind = ("", parts[1]) if place == 0 else (parts[place - 1], "")
        around.add((before, behind + "".join(parts[place + 1 :] if place < -1 else ())))
    if len(around) != 1:
        return None
    ((bands, count),) = Counter(map(frozenset, captures.values())).most_common(1)
    are_words = all(band.isalpha() for band in bands)
    if (
        not 2 <= len(bands) <= MAX_BANDS
        or 2 * count <= len(captures)
        or all(_SERIES.fullmatch(band) for band in bands)
        or (len(captures) == 1 and not are_words)  # five images, counted
        or _problem_of(bands, "")
    ):
        return None
    ((before, behind),) = around
    has_numbers = any(band.isdecimal() for band in bands)
    likely = 2 if are_words else int(not has_numbers)
    if place == 0:
        return likely, f"{{band}}{behind}{{capture}}"
    return likely, f"{{capture}}{before}{{band}}{behind}"


def _fields(path: Path | str) -> list[str]:
    return [match["field"] for match in _FIELD.finditer(str(path))]


def _table(pattern: Path) -> dict[str, str]:
    """The names of bands by the parts of file names, empty ones as in `_as_name`."""
    fields = _fields(pattern)
    if fields.count("band") != 1:
        raise ValueError(NOT_ONE_BAND.format(pattern, "none" if "band" not in fields else "two"))
    if fields.count("capture") > 1:
        raise ValueError(NOT_ONE_CAPTURE.format(pattern))
    text = next(m["table"] for m in _FIELD.finditer(str(pattern)) if m["field"] == "band")
    if text is None:
        return {}
    if not text.strip():
        raise ValueError(EMPTY_TABLE.format(pattern))
    pairs = [part.partition("=") for part in text.split(",")]
    table = {part.strip(): name.strip() for part, _, name in pairs}
    names = [name or _as_name(part) for part, name in table.items()]
    is_clear = len(table) == len(pairs) == len({name.casefold() for name in names})
    if not is_clear or not all(table):
        raise ValueError(WRONG_TABLE.format(pattern, text))
    return table


def _problem_of(bands: Iterable[str], pattern: Path | str) -> str:
    """Why the bands that a pattern found cannot be listed as in `_listed`; empty if they can."""
    named: dict[str, str] = {}
    for band in sorted(bands, key=_natural):
        if _NOT_LISTED.search(band):
            return ODD_BAND.format(pattern, band)
        first = named.setdefault(_as_name(band).casefold(), band)
        if first != band:
            return SAME_BANDS.format(pattern, first, band)
    return ""


def _listed(table: Mapping[str, str]) -> str:
    """The field ``{band:...}`` that lists bands."""
    parts = [f"{band}={name}" if name else band for band, name in table.items()]
    return f"{{band:{','.join(parts)}}}"


def _search(pattern: Path, table: Mapping[str, str]) -> tuple[Path, dict[str, dict[str, Path]]]:
    """The root, and for each capture the path below it with ``{band}``, and its files by band."""
    root = Path(pattern.anchor)
    parts = list(pattern.parts[len(root.parts) :])
    while len(parts) > 1 and not _OPEN.search(parts[0]):
        root /= parts.pop(0)
    rest = "/".join(parts)
    regex = re.compile(_between(rest, lambda match: _regex_of(match, table), re.escape))
    found: dict[str, dict[str, Path]] = {}
    wildcards = _between(rest, lambda match: "*" if match["field"] else match[0], glob.escape)
    for name in sorted(glob.glob(wildcards, root_dir=root, recursive=True)):
        match = regex.fullmatch(Path(name).as_posix())
        if match is not None and (table or match["band"].casefold() not in NOT_BANDS):
            start, end = match.span("band")
            of_capture = f"{name[:start]}{{band}}{name[end:]}"
            found.setdefault(of_capture, {})[match["band"]] = root / name
    if not found:
        raise FileNotFoundError(NO_FILE.format(pattern))
    return root, found


def _between(
    text: str, open_part: Callable[[re.Match[str]], str], literal: Callable[[str], str]
) -> str:
    """The text with its open parts and the literal ones between them replaced."""
    result, end = "", 0
    for match in _OPEN.finditer(text):
        result += literal(text[end : match.start()]) + open_part(match)
        end = match.end()
    return result + literal(text[end:])


def _regex_of(match: re.Match[str], table: Mapping[str, str]) -> str:
    """The regular expression of an open part; a capture takes as much as it can."""
    if match["field"] == "capture":
        return "(?P<capture>[^/]+)"
    if match["field"] == "band":
        return f"(?P<band>{'|'.join(map(re.escape, table)) or '[^/]+?'})"
    return {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}[match[0]]


def _with_band(path: Path, band: str) -> str:
    """The name of a band's file."""
    return _FIELD.sub(lambda _: band, path.name)


def _natural(text: str) -> list[tuple[int, str]]:
    """Numbers in names by their size: ``2`` before ``10``."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)
    ]


def _as_name(band: str) -> str:
    """A band as the name of a channel: a number alone would be an index, or is a wavelength."""
    if not band.isdecimal():
        return band
    return f"{band} nm" if int(band) in _NANOMETERS else f"band{band}"

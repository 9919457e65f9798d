"""Spectral indices: formulas over the bands of an image, parsed without executing anything."""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, is_or_are
from napari_simmat.engine.channels.matching import match_names, plain_name
from napari_simmat.engine.table_settings import TWICE


class KnownIndex(NamedTuple):
    """An index of the literature.

    Attributes
    ----------
    formula
        Over the usual names of bands, see `engine.channels.bands`.
    source
        Who published it.
    needs_reflectance
        Whether its constants are meant for reflectances from 0 to 1, so that other numbers give
        another index.
    """

    formula: str
    source: str
    needs_reflectance: bool = False


INDICES = {
    "ndvi": KnownIndex("(nir - red) / (nir + red)", "Rouse et al. 1974"),
    "gndvi": KnownIndex("(nir - green) / (nir + green)", "Gitelson et al. 1996"),
    "ndre": KnownIndex("(nir - rededge) / (nir + rededge)", "Barnes et al. 2000"),
    "cire": KnownIndex("nir / rededge - 1", "Gitelson et al. 2003"),
    "savi": KnownIndex("1.5 * (nir - red) / (nir + red + 0.5)", "Huete 1988", True),
    "osavi": KnownIndex("(nir - red) / (nir + red + 0.16)", "Rondeaux et al. 1996", True),
    "msavi": KnownIndex(
        "(2 * nir + 1 - sqrt((2 * nir + 1) ** 2 - 8 * (nir - red))) / 2", "Qi et al. 1994", True
    ),
    "evi": KnownIndex(
        "2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1)", "Huete et al. 2002", True
    ),
    "evi2": KnownIndex("2.5 * (nir - red) / (nir + 2.4 * red + 1)", "Jiang et al. 2008", True),
    "ndwi": KnownIndex("(green - nir) / (green + nir)", "McFeeters 1996"),
    "mndwi": KnownIndex("(green - swir1) / (green + swir1)", "Xu 2006"),
    "ndmi": KnownIndex("(nir - swir1) / (nir + swir1)", "Gao 1996"),
    "nbr": KnownIndex("(nir - swir2) / (nir + swir2)", "Key and Benson 2006"),
    "ngrdi": KnownIndex("(green - red) / (green + red)", "Tucker 1979"),
    "vari": KnownIndex("(green - red) / (green + red - blue)", "Gitelson et al. 2002"),
    "exg": KnownIndex("(2 * green - red - blue) / (red + green + blue)", "Woebbecke et al. 1995"),
}
"""Indices that are known by name."""
MAX_LENGTH, MAX_DEPTH, MAX_EXPONENT = 500, 40, 10
"""Of a formula: characters, operations within each other, and the largest power."""
UNKNOWN_INDEX = "There is no index {!r}; give one of {}, or a formula: name=(nir-red)/(nir+red)."
BAD_NAME = (
    "{!r} cannot be the name of an index; use up to 40 letters, digits and underscores, beginning "
    "with a letter."
)
BAD_FORMULA = (
    "The formula of {} cannot be used: {}. A formula has bands by name, numbers, + - * / **, "
    "parentheses, and sqrt, abs, log, minimum and maximum."
)
MISSING_BAND = (
    "The index {} needs {}, which {} not among the channels of {} ({}). Leave the index out, name "
    "the bands of a capture in its pattern ({{band:3=red,4=nir}}), or write the formula {} with "
    "these names in backticks for its bands."
)
SAME_AS_CHANNEL = (
    "The index {} has the name of a channel of {}; give it another name: name=FORMULA."
)
TAKEN_AS = "{}: {}."
NOT_REFLECTANCE = (
    "{} is defined for reflectances from 0 to 1, but {} holds whole numbers; scale them in a "
    "formula, e.g. with nir/10000."
)
_NAME = re.compile(r"[A-Za-z]\w{0,39}")
_QUOTED = re.compile(r"`([^`]*)`")
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {
    "sqrt": (np.sqrt, 1),
    "abs": (np.abs, 1),
    "log": (np.log, 1),
    "minimum": (np.minimum, 2),
    "maximum": (np.maximum, 2),
}
"""With the number of values that each takes."""
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}


@dataclass(frozen=True)
class SpectralIndex:
    """A formula over bands that has been checked.

    Parameters
    ----------
    name
        Of its columns.
    bands
        Names of the bands, as the formula has them.
    tree
        The parsed formula.
    needs_reflectance
        As `KnownIndex`.
    """

    name: str
    bands: tuple[str, ...]
    tree: ast.expr = field(compare=False, repr=False)
    quoted: Mapping[str, str] = field(compare=False, repr=False)
    """The bands that stand in backticks, by the word that is in their place in the tree."""
    needs_reflectance: bool = False

    def of(self, bands: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """The index of each pixel in float64; NaN where it has no finite value."""
        known = {name: np.asarray(values, np.float64) for name, values in bands.items()}
        with np.errstate(all="ignore"):
            values = np.asarray(_evaluate(self.tree, known, self.quoted), np.float64)
        return np.where(np.isfinite(values), values, np.nan)


def parse_index(text: str) -> SpectralIndex:
    """An index from one of the names in `INDICES`, or from ``name=formula``.

    A band whose name is more than a word stands in backticks. Nothing is executed: the formula is
    read as Python would read it, and each of its parts has to be one that is allowed.

    Raises ValueError for anything else.
    """
    name, is_formula, formula = text.partition("=")
    name = name.strip()
    if is_formula:
        if not _NAME.fullmatch(name):
            raise ValueError(BAD_NAME.format(name))
        return _parse(name, formula.strip(), needs_reflectance=False)
    known = INDICES.get(name.lower())
    if known is None:
        raise ValueError(UNKNOWN_INDEX.format(name, format_list(INDICES)))
    return _parse(name.lower(), known.formula, needs_reflectance=known.needs_reflectance)


def parse_indices(texts: Sequence[str]) -> list[SpectralIndex]:
    """Each of several indices as `parse_index`; ValueError if two have one name."""
    found = [parse_index(text) for text in texts]
    names = [index.name for index in found]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ValueError(TWICE.format(name))
    return found


def _parse(name: str, formula: str, *, needs_reflectance: bool) -> SpectralIndex:
    """Check a formula part by part."""
    if not formula:
        raise _bad(name, "it is empty")
    if len(formula) > MAX_LENGTH:
        raise _bad(name, f"it has {len(formula)} characters, more than {MAX_LENGTH}")
    quoted: dict[str, str] = {}
    start = "quoted"
    while start in formula:  # a word that no band in it has
        start += "_"

    def word(found: re.Match[str]) -> str:
        quoted[f"{start}{len(quoted)}"] = found[1].strip()
        return f" {start}{len(quoted) - 1} "

    plain = _QUOTED.sub(word, formula)
    if "`" in plain or not all(quoted.values()):
        raise _bad(name, "a backtick has no partner, or nothing within")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python would remark on such a program
            tree = ast.parse(plain.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _bad(name, f"{formula!r} is no expression") from None
    bands: dict[str, None] = {}
    _check(tree, name, quoted, bands, 0)
    if not bands:
        raise _bad(name, "it has no band")
    return SpectralIndex(name, tuple(bands), tree, quoted, needs_reflectance)


def _bad(name: str, why: str) -> ValueError:
    return ValueError(BAD_FORMULA.format(name, why))


def _check(
    node: ast.expr, name: str, quoted: Mapping[str, str], bands: dict[str, None], depth: int
) -> None:
    """Refuse a part of a formula that is not allowed; note its bands in their order."""
    if depth > MAX_DEPTH:
        raise _bad(name, f"more than {MAX_DEPTH} operations are within each other")
    parts: list[ast.expr] = []
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            if _number(value) is None:
                raise _bad(name, "it has a number that is too large")
        case ast.Name(id=word):
            bands[quoted.get(word, word)] = None
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=inner):
            parts = [inner]
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            exponent = _exponent(right)
            if exponent is None or abs(exponent) > MAX_EXPONENT:
                raise _bad(name, f"an exponent is a number from -{MAX_EXPONENT} to {MAX_EXPONENT}")
            parts = [left]
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), right=right):
            parts = [left, right]
        case ast.Call(func=ast.Name(id=called), args=args, keywords=[]) if called in _FUNCTIONS:
            if len(args) != _FUNCTIONS[called][1]:
                raise _bad(name, f"{called} takes {_FUNCTIONS[called][1]}, not {len(args)}")
            parts = args
        case _:
            what = ast.unparse(node)[:40] if depth < MAX_DEPTH else ""
            raise _bad(name, f"{what!r} is not allowed")
    for part in parts:
        _check(part, name, quoted, bands, depth + 1)


def _number(value: float) -> float | None:
    """A number of a formula in float64; None if it has no finite value there."""
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _exponent(node: ast.expr) -> float | None:
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, node = -1, node.operand
    if not isinstance(node, ast.Constant) or isinstance(node.value, bool):
        return None
    value = _number(node.value) if isinstance(node.value, (int, float)) else None
    return None if value is None else sign * value


def _evaluate(
    node: ast.expr, bands: Mapping[str, NDArray[np.float64]], quoted: Mapping[str, str]
) -> Any:
    """The value of a part that `_check` has let pass."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return np.float64(value)
        case ast.Name(id=word):
            return bands[quoted.get(word, word)]
        case ast.UnaryOp(op=operator, operand=inner):
            found = _evaluate(inner, bands, quoted)
            return -found if isinstance(operator, ast.USub) else found
        case ast.BinOp(left=left, op=operator, right=right):
            apply = _OPERATORS[type(operator)]
            return apply(_evaluate(left, bands, quoted), _evaluate(right, bands, quoted))
        case ast.Call(func=ast.Name(id=called), args=args):
            return _FUNCTIONS[called][0](*(_evaluate(each, bands, quoted) for each in args))
    raise AssertionError(f"{node} was not checked")


def bands_of(index: SpectralIndex, names: Sequence[str], image: str) -> dict[str, int]:
    """Which channel each band of an index is, of channels called `names`.

    A name that is equal goes first; else names mean bands as `match_names` has it: B8, 842 nm and
    nir1 are nir.

    Raises ValueError if a band is missing, or a channel of the `image` is called like the index.
    """
    plain = [plain_name(name) for name in names]
    if plain_name(index.name) in plain:
        raise ValueError(SAME_AS_CHANNEL.format(index.name, image))
    found = {band: names.index(band) for band in index.bands if band in names}
    others = [band for band in index.bands if band not in found]
    found |= {band: plain.index(plain_name(band)) for band in others if plain_name(band) in plain}
    matched = match_names(index.bands, names)
    found |= {band: matched[band] for band in index.bands if band in matched and band not in found}
    missing = [band for band in index.bands if band not in found]
    if missing:
        listed = format_list(names) or "none"
        lacking = is_or_are(len(missing))
        wanted = format_list(missing)
        formula = f"{index.name}={ast.unparse(index.tree)}"
        raise ValueError(MISSING_BAND.format(index.name, wanted, lacking, image, listed, formula))
    return found


@dataclass(frozen=True)
class PlacedIndex:
    """An index, and in which row of an object's values each of its bands is."""

    index: SpectralIndex
    rows: Mapping[str, int]

    def of(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The index (N,) of pixels whose values (R, N) are given; NaN where it is not finite."""
        return self.index.of({band: values[row] for band, row in self.rows.items()})


def bands_note(index: SpectralIndex, found: Mapping[str, int], names: Sequence[str]) -> str:
    """Which channels were taken for which bands, as a sentence; empty if all have their names."""
    pairs = [(band, names[number]) for band, number in found.items()]
    told = [f"{band} is {name}" for band, name in pairs if plain_name(band) != plain_name(name)]
    return TAKEN_AS.format(index.name, ", ".join(told)) if told else ""

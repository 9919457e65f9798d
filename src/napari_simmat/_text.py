"""Text for messages: plurals, lists, shapes, durations, and what Ctrl+C says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec

BROKEN = (
    "The package {0} is installed, but cannot be imported as needed ({1}). It may be too old, or "
    "damaged, or what it needs is; install it again (pip install --upgrade {0})."
)
CANCELED = 130
"""Exit status after Ctrl+C, as shells have it."""
CANCELED_MESSAGE = "Canceled; nothing half-written was left behind."
NO_SEGMENT_ANYTHING = (
    "The package segment-anything is incomplete or not installed; removing segment-anything-py, "
    "which has the same files, does that. Run pip install --force-reinstall --no-deps "
    "segment-anything."
)


def import_problem(error: ImportError, package: str, missing: str) -> str:
    """Why an optional package cannot be imported: `missing` if it is not installed, or what failed.

    An import that fails within a package is told by its first cause.
    """
    if find_spec(package) is None:
        return missing
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return BROKEN.format(package, " ".join(str(cause).split())[:200] or type(cause).__name__)


def pluralize(number: int, noun: str) -> str:
    """``1 object``, ``2 objects``: a number and a noun with a regular plural."""
    return f"{number:d} {noun}{'' if number == 1 else 's'}"


def is_or_are(number: int) -> str:
    """``is`` for 1, ``are`` for any other number."""
    return "is" if number == 1 else "are"


def format_list(items: Iterable[object] | None) -> str:
    """``DAPI, GFP``: items joined with commas; empty for None."""
    return ", ".join(map(str, items or ()))


def differing_parts(names: Sequence[str]) -> list[str]:
    """What tells names of one series apart: ``1`` and ``2`` of ``IMG_7_1.tif`` and ``IMG_7_2.tif``.

    Words that all names begin or end with are left out, as long as something is left of each.
    """
    words = [re.findall(r"[ _\-.·:]+|[^ _\-.·:]+", name) for name in names]
    if len(names) < 2:
        return list(names)
    for end in (0, -1):
        while all(len(each) > 1 for each in words) and len({each[end] for each in words}) == 1:
            for each in words:
                del each[end]
    return ["".join(each) for each in words]


def names_of_bands(names: Sequence[str]) -> list[str]:
    """`differing_parts` as names of channels: ``band5``, as a number alone is an index."""
    return [f"band{part}" if part.isdecimal() else part for part in differing_parts(names)]


def format_shape(shape: Sequence[object]) -> str:
    """``5 x 512 x 512``, ``()`` for a scalar."""
    return " x ".join(map(str, shape)) or "()"


def format_duration(seconds: float) -> str:
    """``40 s``, ``3 min``, ``2 h 10 min``, ``3 days``: a rounded duration."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes >= 48 * 60:
        return f"{round(minutes / (24 * 60))} days"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"

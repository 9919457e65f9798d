"""Refuse a file: the error, and the sentences that several readers share."""

from __future__ import annotations

import math
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat.io import memory
from napari_simmat.io.files import MAY_NOT_BE_READ, format_size

FAULTS = TypeError, AttributeError, NameError, AssertionError
"""What a fault of a program raises; a damaged file seldom: 47 of 4295 that a mutation of
``tests/test_fuzz.py`` made unreadable."""
FAULT = (
    "{} could not be read: {whose} failed ({fault}). That is a fault of {whose}, unless no other "
    "program reads the file either; report it, or save the file again in the program that wrote it."
)
LACKS_PACKAGE = "{} could not be read, for a package is missing or broken ({}); install it again."
_NOT_AT_FAULT = sys.stdlib_module_names | {"numpy", "dask"}
"""Packages that fail at what others give them."""


class RefusedFileError(ValueError):
    """A file is not read; the message is a complete sentence for the user."""


def unreadable(name: str, error: Exception) -> RefusedFileError:
    """The error for the user that describes what a library raised on a damaged file."""
    if isinstance(error, RefusedFileError):
        return error
    if isinstance(error, MemoryError):
        return RefusedFileError(
            f"{name} needs more memory than is free ({memory.free_memory()}); crop it, or close "
            "other programs."
        )
    if isinstance(error, PermissionError):
        return RefusedFileError(MAY_NOT_BE_READ.format(name))
    return _fault(name, error) or RefusedFileError(
        f"{name} could not be read ({_reason(error)}); it may be damaged or cut short; "
        "copy it again, or save it again in the program that wrote it."
    )


def unreadable_part(where: str, error: Exception) -> RefusedFileError:
    """The error for the user that describes what a lazy array raised when it was read."""
    if isinstance(error, RefusedFileError):
        return error
    part = f"A part of {where}"
    return _fault(part, error) or RefusedFileError(
        f"{part} could not be read ({_reason(error)}); its file may be damaged or gone. Open it "
        "again."
    )


def _fault(name: str, error: Exception) -> RefusedFileError | None:
    """The error for the user if a program is at fault, not the file."""
    if isinstance(error, ImportError):
        return RefusedFileError(LACKS_PACKAGE.format(name, _reason(error)))
    if not isinstance(error, FAULTS):
        return None
    kind = type(error).__name__
    fault = kind if (reason := _reason(error)) == kind else f"{kind}: {reason}"
    return RefusedFileError(FAULT.format(name, whose=_failed_in(error), fault=fault))


def _failed_in(error: Exception) -> str:
    """The package whose code raised an error, or gave others what they fail at."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [str(frame.f_globals.get("__name__", "")) for frame in frames]
    packages = [module.partition(".")[0] for module in modules]
    own = [each for each in packages if each and each not in _NOT_AT_FAULT]
    return own[-1].replace("_", "-") if own else "its reader"


def _reason(error: Exception) -> str:
    """What an error says, in a line; its type if that is nothing."""
    # Libraries name the file with its folder, which may be a temporary one.
    reason = re.sub(
        r"(?<![\w.])(?:[A-Za-z]:)?[/\\][^\s'\"]*[/\\]", "", " ".join(str(error).split())
    )
    if not re.search(r"[A-Za-z]{3}", reason):  # such as the 0 of an IndexError
        return type(error).__name__
    return reason[:200]


@contextmanager
def overflow_refused(name: str, slope: float, intercept: float) -> Iterator[None]:
    """Refuse a file whose scaled values, computed in the block, exceed float32."""
    try:
        if not (math.isfinite(slope) and math.isfinite(intercept)):
            raise FloatingPointError
        with np.errstate(over="raise", invalid="ignore"):
            yield
    except FloatingPointError:
        raise RefusedFileError(
            f"{name} scales its values by {slope:.3g} and adds {intercept:.3g}, and the results "
            "overflow float32; correct its header, or save the image without scaling."
        ) from None


PACKAGES = {"openslide": "openslide-python openslide-bin"}
"""What is installed to import a package, where the names differ."""


def needed_module(name: str, path: Path, formats: str) -> Any:
    """An optional package (without useful types) that reads and writes the file's format.

    Raises RefusedFileError if it is not installed.
    """
    package = name.partition(".")[0]
    try:
        import_module(name)
        return import_module(package)
    except ImportError:
        raise RefusedFileError(
            f"{path.name} is {formats}, which needs the package {package}; install it "
            f"(pip install {PACKAGES.get(package, package)})."
        ) from None


def check_memory(
    nbytes: int, name: str, smaller: str = "crop it, or save it as TIFF in planes that fit"
) -> None:
    """Refuse if `nbytes` are more than three quarters of the free memory.

    `smaller` says how to get an image `name` that needs less.
    """
    if nbytes > memory.available_memory() * 3 / 4:
        raise RefusedFileError(
            f"{name} needs {format_size(nbytes)} of memory unpacked, {memory.free_memory()} are "
            f"free; {smaller}, or close other programs."
        )

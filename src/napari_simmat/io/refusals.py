"""Refuse a file: the error, and the sentences that several readers share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat.io import memory
from napari_simmat.io.files import MAY_NOT_BE_READ, format_size


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
    # Libraries name the file with its folder, which may be a temporary one.
    reason = re.sub(
        r"(?<![\w.])(?:[A-Za-z]:)?[/\\][^\s'\"]*[/\\]", "", " ".join(str(error).split())
    )
    if not re.search(r"[A-Za-z]{3}", reason):  # such as the 0 of an IndexError
        reason = type(error).__name__
    return RefusedFileError(
        f"{name} could not be read ({reason[:200]}); it may be damaged or cut short; "
        "copy it again, or save it again in the program that wrote it."
    )


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

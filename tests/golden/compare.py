"""Compare outputs: of this tree with the golden ones, or of two trees with each other.

``python -m tests.golden.compare OLD NEW`` runs commands and scenes of two working trees of this
repository on this machine, each with its own sources, and compares all bytes (some minutes). The
research has to be installed too.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

ROOT = Path(__file__).resolve().parents[2]
LABELS_IOU = 0.99
NUMBERS = 0.02
"""Relative; near 0 absolute."""
MODULES = {
    "tests.golden.commands": "commands",
    "research.tests.golden.commands": "research",
    "research.tests.golden.scenes": "scenes.json",
}
"""What is run of each tree, and where it writes."""
_HASH = re.compile(r"[0-9a-f]{32,64}")


def digest(array: np.ndarray) -> str:
    """Eight hexadecimal digits of an array's type, shape and bytes."""
    state = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()[:8]


def run(module: str, output: Path, tree: Path | None = None) -> None:
    """Run a module of golden outputs in a process of its own, with one thread for sums.

    Parameters
    ----------
    module, output
        What follows ``python -m``: the module, and where it writes.
    tree
        The working tree whose sources are used, and whose tests if it has these; by default the
        package that is installed, and these tests.
    """
    own = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    place = ROOT
    if tree is not None:
        sources = [str(tree / "src"), str(tree / "research" / "src")]
        path = [*sources, os.environ.get("PYTHONPATH", "")]
        own["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        has_these = (tree / module.replace(".", "/")).with_suffix(".py").exists()
        place = tree if has_these else ROOT
    subprocess.run(
        [sys.executable, "-m", module, str(output.absolute())],
        cwd=place,
        env={**os.environ, **own},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def names_in(folder: Path) -> list[str]:
    """All files of a folder, sorted."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def differences(expected: Path, found: Path, *, exact: bool) -> Iterator[str]:
    """What is not alike in two folders, a line for each.

    Parameters
    ----------
    expected, found
        The folders.
    exact
        Whether bytes are compared. Otherwise each label of a label image has an IoU above
        `LABELS_IOU`, numbers agree within `NUMBERS`, hashes do not matter, and all other text is
        equal.
    """
    names = names_in(expected)
    for name in sorted(set(names) ^ set(names_in(found))):
        yield f"{name} is in one of the folders only"
    for name in names:
        one, other = expected / name, found / name
        if other.exists() and one.read_bytes() != other.read_bytes():
            if exact:
                yield f"{name}: other bytes"
            else:
                yield from (f"{name}: {text}" for text in _unlike(one, other))


def _unlike(one: Path, other: Path) -> Iterator[str]:
    if one.suffix == ".tif":
        yield from _other_labels(tifffile.imread(one), tifffile.imread(other))
    elif one.suffix != ".zip":
        yield from _other_values(_values(one), _values(other), "")


def _other_labels(one: np.ndarray, other: np.ndarray) -> Iterator[str]:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        yield f"{other.dtype} {other.shape}, expected {one.dtype} {one.shape}"
        return
    for label in np.union1d(one, other):
        a, b = one == label, other == label
        if (iou := (a & b).sum() / (a | b).sum()) <= LABELS_IOU:
            yield f"label {label} has an IoU of {iou:.4f} with what was expected"


def _values(path: Path) -> Any:
    """A file as nested lists and tables of numbers and words."""
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".csv":
        return list(csv.reader(text.splitlines()))
    return [re.split(r'[\s,"()\[\]{}:]+', line) for line in text.splitlines()]


def _other_values(one: Any, other: Any, where: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict) and list(one) == list(other):
        for name in one:
            yield from _other_values(one[name], other[name], f"{where}/{name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _other_values(a, b, f"{where}/{index}")
    elif not _alike(one, other):
        yield f"{where}: {other!r}, expected {one!r}"


def _alike(one: Any, other: Any) -> bool:
    if one == other:
        return True
    if isinstance(one, str) and _HASH.fullmatch(one):
        return isinstance(other, str) and _HASH.fullmatch(other) is not None
    try:
        return math.isclose(float(one), float(other), rel_tol=NUMBERS, abs_tol=NUMBERS)
    except (TypeError, ValueError):
        return False


def main(trees: Sequence[str]) -> int:
    """Compare two trees; the status is 1 where they differ."""
    with tempfile.TemporaryDirectory() as folder:
        for name, tree in zip(("old", "new"), map(Path, trees), strict=True):
            place = Path(folder, name)
            place.mkdir()
            for module, output in MODULES.items():
                run(module, place / output, tree=tree.resolve())
        count = len(names_in(Path(folder, "old")))
        lines = list(differences(Path(folder, "old"), Path(folder, "new"), exact=True))
    sys.stdout.write("\n".join(lines or [f"{count} files, all equal."]) + "\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

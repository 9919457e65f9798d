"""The names that users, scripts and files rely on, gathered from the package as it is.

Commands and options come from the command line's own tables, layer names and file names from the
text constants of the sources, so it does not matter which module holds them.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import napari_simmat
from napari_simmat.cli import OWN, app

PACKAGE = Path(str(files(napari_simmat)))
LAYER = re.compile(r"SimMAT (level|[a-z]+)")
FILE = re.compile(
    r"[\w-][\w.-]*\.(tif|tiff|csv|json|jsonl|npy|npz|png|html|zip|pt|safetensors|ome\.zarr|nii\.gz|lock)"
)
MANIFEST = re.compile(r"\b(id|key|display_name|command): (\"[^\"]*\"|[^\s,}]+)")


@cache
def names() -> dict[str, Any]:
    """All of them by kind, but for the keys of the window (`keys`)."""
    words = sorted(set(_constants()))
    return {
        "python": sorted(napari_simmat.__all__),
        "commands": dict(
            pair for word in app if word in OWN for pair in _commands(app[word], f"simmat {word}")
        ),
        "layers": [word for word in words if LAYER.fullmatch(word)],
        "files": [word for word in words if FILE.fullmatch(word)],
        "environment": [word for word in words if re.fullmatch(r"NAPARI_SIMMAT_[A-Z]+", word)],
        "formats": [word for word in words if re.fullmatch(r"napari-simmat [a-z]+", word)],
        "manifest": _manifest(),
    }


def keys() -> dict[str, list[str]]:
    """Action -> its key on our layers, and on a shapes layer. It needs napari."""
    from napari_simmat.widgets.shortcuts import SHORTCUTS

    return {each.action: [each.text(), each.text(shapes=True)] for each in SHORTCUTS}


def _commands(app: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each command with its options: what is said for them, and what they are by default."""
    if app.default_command is not None:
        arguments = app.assemble_argument_collection()
        yield name, {" ".join(each.names): _option(each) for each in arguments if _is_said(each)}
    for word in app:
        if not word.startswith("-"):
            yield from _commands(app[word], f"{name} {word}")


def _is_said(argument: Any) -> bool:
    """Whether it is an option or a value itself, not a group of options."""
    return argument.parse and not dataclasses.is_dataclass(argument.hint)


def _option(argument: Any) -> str:
    choices = [str(each) for each in _choices(argument.hint)]
    default = argument.field_info.default
    default = default.as_posix() if isinstance(default, Path) else default
    default = "" if default is inspect.Parameter.empty else f"= {default!r}"
    return " ".join([*choices, default]).strip()


def _choices(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        yield from hint
    else:
        for each in get_args(hint):
            yield from _choices(each)


def _constants() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _manifest() -> list[str]:
    text = (PACKAGE / "napari.yaml").read_text("utf-8")
    return sorted({f"{kind} {word}" for kind, word in MANIFEST.findall(text)})

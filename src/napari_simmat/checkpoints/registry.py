"""The list of models: built in, downloaded, downloadable, and the user's own.

Reads only headers, no tensors, and needs no torch.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from napari_simmat.checkpoints.catalog import (
    ON_REQUEST,
    PUBLISHED_WEIGHTS,
    published_spec,
    sam_spec,
)
from napari_simmat.checkpoints.checkpoint import file_kind
from napari_simmat.checkpoints.model_file import ModelFile
from napari_simmat.io.files import ASSETS, format_size, user_folder
from napari_simmat.models.spec import ModelSpec

SUFFIXES = (".safetensors", ".pth", ".pt")
NO_REFERENCE = (
    "A model is a name that `simmat models list` shows, or a file, not {}: a result names its "
    "model. Save a learned one; a loaded one is for Predictor."
)
ModelKind = Literal["built in", "downloaded", "downloadable", "own"]

_WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10)
}


@dataclass(frozen=True)
class ModelEntry:
    """One line of the list of models.

    Parameters
    ----------
    path
        Its file; None if it is not downloaded.
    size_bytes
        Of the file or of the download.
    spec
        Channels, license, metrics and so on; None if unreadable. The architecture of the user's
        own SAM weights is a guess until they are loaded.
    problem
        Why it cannot be used, in one sentence; None if it can.
    is_base
        Whether it can be the base of checkpoints.
    changed
        Modification time of its file in ns, so that entries differ after a replacement.
    """

    name: str
    kind: ModelKind
    path: Path | None
    size_bytes: int
    spec: ModelSpec | None = None
    problem: str | None = None
    is_base: bool = False
    changed: int = 0


def list_models() -> list[ModelEntry]:
    """All models by name: built in, then published bases, then the user's own.

    An unreadable file is listed with its problem.
    """
    return [*built_in_models(), *official_models(), *own_models()]


def built_in_models() -> list[ModelEntry]:
    """The models in the package."""
    return [_entry_of(path, "built in") for path in _files(ASSETS)]


def official_models() -> list[ModelEntry]:
    """The published weights of the catalog, downloaded or not."""
    entries = []
    for row in PUBLISHED_WEIGHTS.values():
        path = user_folder("bases") / row.file
        decoder = None if row.decoder is None else path.with_name(row.decoder.file)
        spec = published_spec(row, with_decoder=decoder is not None and decoder.exists())
        entry = ModelEntry(row.name, "downloadable", None, row.size, spec, is_base=True)
        if path.exists():
            found = path.stat()
            entry = replace(
                entry,
                kind="downloaded",
                path=path,
                size_bytes=found.st_size,
                changed=found.st_mtime_ns,
            )
            # Loading checks the hash; hashing gigabytes for a list would take too long.
            if row.size_is_published and abs(found.st_size - row.size) > 0.01 * row.size:
                problem = (
                    f"{row.file} in {path.parent} has {format_size(found.st_size)} instead of "
                    f"{format_size(row.size)}. Run `simmat models fetch {row.name}` again."
                )
                entry = replace(entry, problem=problem)
        entries.append(entry)
    return entries


def own_models() -> list[ModelEntry]:
    """The user's own files, in ``models/`` and ``bases/``."""
    rows = PUBLISHED_WEIGHTS.values()
    published = {row.file for row in rows} | {row.decoder.file for row in rows if row.decoder}
    files = [
        *_files(user_folder("models")),
        *(path for path in _files(user_folder("bases")) if path.name not in published),
    ]
    times = Counter(path.stem.casefold() for path in files)
    entries = []
    for path in sorted(files, key=lambda path: (path.stem.casefold(), path)):
        entry = _entry_of(path, "own")
        problem = name_problem(entry.name)
        if times[path.stem.casefold()] > 1:
            namesakes = (each for each in files if each.stem.casefold() == path.stem.casefold())
            places = (f"{each.parent.name}/{each.name}" for each in namesakes)
            problem = (
                f"Several files are called {path.stem}: {', '.join(places)}. "
                "Rename or remove all but one."
            )
        entries.append(replace(entry, problem=problem) if problem else entry)
    return entries


def model_reference(given: object) -> str:
    """The name or file of a model as text; TypeError for anything else, such as a loaded one."""
    if not isinstance(given, (str, Path)):
        raise TypeError(NO_REFERENCE.format(type(given).__name__))
    return str(given)


def find_model(name_or_path: str | Path) -> ModelEntry:
    """Find a model by its name, by a name without its version, or by a file.

    ``"tiny"`` is the newest built-in ``tiny-N``.

    Raises ValueError if there is none of that name, TypeError if it is no name, OSError if a file
    given by its path is missing or unreadable.
    """
    if isinstance(name_or_path, Path):
        return _file(name_or_path)
    name = model_reference(name_or_path)
    entries = list_models()
    named = [entry for entry in entries if entry.name == name] or _newest(name, entries)
    named = named or [entry for entry in entries if _continues(entry, name)]
    if named:
        return named[0]
    path = Path(name).expanduser()
    if "/" in name or "\\" in name or name.casefold().endswith(SUFFIXES) or path.is_file():
        return _file(path)
    if name in ON_REQUEST:
        raise ValueError(ON_REQUEST[name])
    known = [*_unversioned(entries), *(entry.name for entry in entries)]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise ValueError(
        f"There is no model called {name[:100]!r}.{f' Did you mean {close[0]}?' if close else ''} "
        f"Known are {', '.join(dict.fromkeys(known))}; a file is given by its path."
    )


def _continues(entry: ModelEntry, name: str) -> bool:
    """Whether a model is the foundation of that name with a decoder added."""
    earlier = entry.spec.training.get("continues", {}) if entry.spec else {}
    return entry.kind == "built in" and isinstance(earlier, dict) and name in earlier


def name_problem(name: str) -> str | None:
    """Why a file of the user's own cannot have this name, in one sentence; None if it can."""
    folded = name.casefold()
    taken = {entry.name.casefold() for entry in built_in_models()} | {
        each.casefold() for each in PUBLISHED_WEIGHTS
    }
    if folded in taken | {each.casefold() for each in _unversioned(built_in_models())}:
        return f"{name} is the name of a built-in model; choose another name."
    if not name or not name.isprintable() or set(name) & set('/\\:*?"<>|') or len(name) > 100:
        return (
            f"{name[:100]!r} cannot be a model's name: it must have 1 to 100 characters, none of "
            'them of / \\ : * ? " < > | or a control character. Choose another name.'
        )
    if name[0] in ". " or name[-1] in ". " or folded.split(".")[0] in _WINDOWS_DEVICES:
        return (
            f"{name!r} cannot be a model's name: it must not start or end with a dot or space, nor "
            "be a device's name as Windows has them. Choose another name."
        )
    return None


def _file(path: Path) -> ModelEntry:
    file_kind(path)  # raises if there is none
    return _entry_of(path, "own")


def _entry_of(path: Path, kind: ModelKind) -> ModelEntry:
    size = changed = 0
    try:
        if path.is_file():
            found = path.stat()
            size, changed = found.st_size, found.st_mtime_ns
        file = _cached_file(path, size, changed)
    except (ValueError, OSError) as error:
        return ModelEntry(path.stem, kind, path, size, problem=str(error), changed=changed)
    if file.card is None:
        spec = sam_spec(path.stem, file.guess, "", with_decoder=file.has_decoder)
    else:
        spec = replace(file.card.spec, name=path.stem)
    return ModelEntry(path.stem, kind, path, size, spec, is_base=file.is_base, changed=changed)


@lru_cache(maxsize=512)
def _cached_file(path: Path, _size: int, _changed: int) -> ModelFile:
    """Read a header once per size and modification time: each shown tab lists the models."""
    return ModelFile.read(path)


def _files(folder: Path) -> list[Path]:
    """Model files in a folder by name; hidden files are incomplete."""
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        logging.getLogger(__name__).warning(
            "%s cannot be read (%s), its models are not listed.", folder, error.strerror
        )
        return []
    return [
        path
        for path in paths
        if path.suffix.casefold() in SUFFIXES and not path.name.startswith(".")
    ]


def _newest(name: str, entries: Iterable[ModelEntry]) -> list[ModelEntry]:
    """The built-in ``name-N`` with the highest N, if there is one."""
    versions = [
        (int(entry.name[len(name) + 1 :]), entry)
        for entry in entries
        if entry.kind == "built in" and re.fullmatch(re.escape(name) + r"-\d{1,6}", entry.name)
    ]
    return [max(versions, key=lambda each: each[0])[1]] if versions else []


def _unversioned(entries: Iterable[ModelEntry]) -> list[str]:
    """Names that stand for the newest version: ``tiny`` for ``tiny-1``."""
    matches = (re.fullmatch(r"(.+)-\d{1,6}", e.name) for e in entries if e.kind == "built in")
    return list(dict.fromkeys(match[1] for match in matches if match))

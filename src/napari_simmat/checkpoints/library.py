"""The model library: list, download, import, export and remove models; needs no torch."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from napari_simmat.checkpoints.authors import MODALITIES, convert_authors_file_job
from napari_simmat.checkpoints.checkpoint import file_kind, read_model_card, save_checkpoint
from napari_simmat.checkpoints.loading import BaseMissingError, assemble_job, model_file
from napari_simmat.checkpoints.registry import (
    ModelEntry,
    find_model,
    list_models,
    name_problem,
    own_models,
)
from napari_simmat.io.files import copy_job, user_folder
from napari_simmat.progress import Job, Progress

MISSING_MODALITY = (
    "{} is a file of SimMAT's authors' code, which does not say what its sensor measures. Name it "
    "with --modality: {}."
)


def import_file_job(
    path: str | Path,
    name: str | None = None,
    *,
    modality: str | None = None,
    base: str | None = None,
) -> Job[ModelEntry]:
    """Copy a checkpoint, a base or SAM weights into the user's folder.

    Files of SimMAT's authors' code are converted to checkpoints.

    Parameters
    ----------
    path
        The file; it is read completely before it is copied.
    name
        The model's name; by default the file's stem, or the name of published weights.
    modality
        Sensor of a file of the authors' code, one of `checkpoints.authors.MODALITIES`.
    base
        Name of the SAM weights that such a file was trained on; ``vit_b`` by default.

    Raises
    ------
    ValueError
        If the file cannot be used, or the name is taken or not allowed.
    OSError
        If the file cannot be read or the folder cannot be written.
    """
    path = Path(path).expanduser()
    kind = file_kind(path)
    chosen = path.stem if name is None else name
    if modality is not None or base is not None:
        return (yield from _import_authors_job(path, chosen, modality, base))
    suffix = ".pth" if kind == "torch" else ".safetensors"
    is_base = kind == "torch" or read_model_card(path).is_base
    try:
        whole = yield from assemble_job(path)
    except BaseMissingError as error:  # the base may be imported later
        logging.getLogger(__name__).warning("%s", error)
    else:
        row = whole.published
        if row is not None and name in (None, row.name):
            yield from copy_job(path, user_folder("bases") / row.file)
            return find_model(row.name)
    _check_name_free(chosen)
    target = (user_folder("bases") if is_base else user_folder("models")) / f"{chosen}{suffix}"
    yield from copy_job(path, target)
    return find_model(chosen)


def _import_authors_job(
    path: Path, name: str, modality: str | None, base: str | None
) -> Job[ModelEntry]:
    """Convert a file of the authors' code to a checkpoint of the user."""
    if file_kind(path) != "torch":
        raise ValueError(
            f"{path.name} is a checkpoint that describes itself, so it is imported without a "
            "modality and a base."
        )
    if modality is None:
        raise ValueError(MISSING_MODALITY.format(path.name, ", ".join(MODALITIES)))
    _check_name_free(name)
    spec, tensors = yield from convert_authors_file_job(path, modality, base)
    yield Progress(95, 100, f"Writing {name}")
    save_checkpoint(
        user_folder("models") / f"{name}.safetensors", replace(spec, name=name), tensors
    )
    yield Progress(100, 100, f"{name} is ready")
    return find_model(name)


def remove(name: str) -> None:
    """Delete a downloaded base or an own model.

    Raises ValueError if there is none of that name, or it is built in, OSError if the file cannot
    be deleted.
    """
    namesakes = [entry for entry in list_models() if entry.name == name]
    entry = namesakes[-1] if namesakes else find_model(name)  # the user's own come last
    if sum(each.kind == "own" for each in namesakes) > 1:
        raise ValueError(entry.problem)
    if not namesakes or entry.kind == "built in":  # `find_model` also accepts paths of files
        why = "is built in" if entry.kind == "built in" else "is not among your models"
        raise ValueError(f"{name} {why} and cannot be removed.")
    if entry.path is None:
        raise ValueError(f"{name} is not downloaded, so there is nothing to remove.")
    try:
        entry.path.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            f"{entry.path} could not be deleted ({error.strerror}). Close what uses it, or check "
            "its folder's permissions."
        ) from error


def export_job(
    name: str | Path, path: str | Path, *, bundle: bool = False, overwrite: bool = False
) -> Job[Path]:
    """Write a model to a file that can be shared, and return its path.

    Parameters
    ----------
    name
        The model.
    path
        The new file, or a folder for it.
    bundle
        Include the tensors of the base: a larger file that needs no other.
    overwrite
        Replace an existing file.

    Raises
    ------
    ValueError
        If there is no such model, or the file exists.
    OSError
        If the disk is full or the folder cannot be written.
    """
    entry = find_model(name)
    source = model_file(entry)
    target = Path(path).expanduser()
    if target.is_dir():
        target /= f"{entry.name}{'.safetensors' if bundle else source.suffix}"
    if target.exists() and not overwrite:
        raise ValueError(f"{target} exists already. Choose another name, or allow to replace it.")
    if bundle:
        whole = yield from assemble_job(name)
        save_checkpoint(target, whole.spec, whole.tensors, bundled=True)
        yield Progress(100, 100, f"Wrote {target.name}")
    else:
        yield from copy_job(source, target)
    return target


def _check_name_free(name: str) -> None:
    """Refuse a name that is not allowed or belongs to another model of the user."""
    if problem := name_problem(name):
        raise ValueError(problem)
    if any(each.name.casefold() == name.casefold() for each in own_models()):
        raise ValueError(
            f"There is a model called {name} already. Choose another name, or remove it first "
            f"with `simmat models remove {name}`."
        )

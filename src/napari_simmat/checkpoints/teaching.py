"""Teach a model what it is to look for: a checkpoint with a kind of objects beside its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_simmat.checkpoints.checkpoint import save_checkpoint
from napari_simmat.checkpoints.library import check_name_free
from napari_simmat.checkpoints.loading import (
    assemble_job,
    model_file,
    pixels_fault,
    split_decoder,
    split_pixels,
    with_decoder_names,
)
from napari_simmat.checkpoints.model_file import ModelFile
from napari_simmat.checkpoints.registry import ModelEntry, find_model
from napari_simmat.engine.object_kind import ObjectKind
from napari_simmat.io.files import user_folder
from napari_simmat.progress import Job, Progress, finish

if TYPE_CHECKING:
    from torch import Tensor

IT_LOOKS = "It looks for objects"
DESCRIPTION = "{before} {it} {side:.0f} pixels of its input across{looks}."
OTHER_CHANNELS = (
    "The kind of objects was learned from other channels than the {1} of this model (on {0}), so "
    "{2} was not written. Learn it with a predictor of this model."
)
OTHER_FOUNDATION = (
    "The decoder was tuned on tiny's encoder, which {} has not, so {} was not written. Learn it "
    "with a predictor of this model."
)
LOOKS = " that look like those it was shown"


def save_taught(model: str | Path, kind: ObjectKind, path: str | Path) -> Path:
    """Write a checkpoint that finds objects of a kind by itself.

    Wherever it segments everything (the window, the Batch tab, ``simmat segment --prompts auto``,
    `segment_everything`), it looks for these. Clicks and boxes stay those of `model`.

    Parameters
    ----------
    model
        A name of `list_models`, or a file. The checkpoint refers to its base by name and content.
    kind
        From `learn_kind`, with a predictor of this model.
    path
        The file, replaced if it exists; its stem becomes the model's name.

    Raises
    ------
    ValueError
        If there is no such model, or it reads other channels than those the kind was learned from.
    OSError
        If the disk is full or the folder cannot be written.

    Examples
    --------
    >>> kind = learn_kind(predictor, labels_of_five, ground=strokes)
    >>> save_taught("tiny", kind, "nuclei.safetensors")
    >>> segment_everything(Predictor(load_model("nuclei.safetensors")))
    """
    return finish(save_taught_job(model, kind, path))


def save_taught_job(model: str | Path, kind: ObjectKind, path: str | Path) -> Job[Path]:
    """Write a checkpoint like `save_taught`, step by step."""
    path, source = Path(path), model_file(find_model(model))
    whole = yield from assemble_job(model)
    spec, bundled = whole.spec, False
    tensors: dict[str, Tensor] = {}
    before = f"{spec.name}."
    file = ModelFile.read(source)
    if file.card is None or file.is_base:
        # How a foundation was trained is told by its own card.
        binding = spec.base.binding_license
        spec = replace(spec, training={}, metrics={}, license=binding, author="", date="")
    else:
        tensors, _ = split_pixels(source, file.tensors(), file.card.spec)
        tensors, _ = split_decoder(tensors)  # a kind has its own
        bundled = file.card.holds_all
        before = spec.description.partition(IT_LOOKS)[0].strip()
    looks = LOOKS if kind.looks or kind.decoder else ""
    words = DESCRIPTION.format(before=before, it=IT_LOOKS, side=kind.side, looks=looks).strip()
    spec = replace(spec, name=path.stem, kind=kind.spec, description=words)
    if kind.decoder is not None:
        if not spec.base.embedded:
            raise ValueError(OTHER_FOUNDATION.format(spec.base.name, path.name))
        spec = replace(spec, instance_decoder="here")
        tensors |= with_decoder_names(kind.decoder.stored)
    pixels = None if kind.looks is None else kind.looks.pixels
    if pixels is not None and pixels_fault(pixels, spec):
        raise ValueError(OTHER_CHANNELS.format(spec.base.name, len(spec.channels), path.name))
    yield Progress(95, 100, f"Writing {path.name}")
    save_checkpoint(path, spec, tensors, bundled=bundled, pixels=pixels)
    return path


def keep_taught_job(model: str | Path, kind: ObjectKind, name: str) -> Job[ModelEntry]:
    """Make `model` with a kind of objects one of the user's own, like `save_taught`.

    Raises ValueError also if the name is taken or not allowed.
    """
    check_name_free(name)
    yield from save_taught_job(model, kind, user_folder("models") / f"{name}.safetensors")
    return find_model(name)

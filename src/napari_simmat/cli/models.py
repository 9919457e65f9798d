"""`simmat models`: list, inspect, download, teach, share, import, export and remove models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App
from rich.table import Table
from rich.text import Text

from napari_simmat._text import pluralize
from napari_simmat.batch.options import FLAG, ChannelOptions
from napari_simmat.cli.terminal import (
    DEFAULT_CHANNELS,
    DEFAULT_COMPUTE,
    DEFAULT_OUTPUT,
    MODEL,
    ComputeOptions,
    OutputOptions,
)

if TYPE_CHECKING:
    from napari_simmat.checkpoints.registry import ModelEntry
    from napari_simmat.models.spec import ModelSpec

TOO_LITTLE_GROUND = (
    "{} marks {} of ground beside the objects, too little to learn from. Mark {} at least, more "
    "than {} from any object."
)

models = App(
    name="models",
    help="""List, inspect, download, teach, share, import, export and remove models.

```
simmat models
simmat models info tiny
simmat models fetch vit_b
simmat models import my-checkpoint.safetensors --name thermal-2
```

Your own models are in the user's data folder, or in the folder NAPARI_SIMMAT_HOME.""",
)


@models.command(name="list")
@models.default
def listing(console: OutputOptions = DEFAULT_OUTPUT) -> None:
    """List all models: built in, downloaded, downloadable, and your own."""
    from napari_simmat.checkpoints.registry import list_models
    from napari_simmat.io.files import format_size

    terminal = console.terminal()
    entries = list_models()
    table = Table("model", "", "size", "modality", "reads", box=None, header_style="bold")
    for entry in entries:
        modality = entry.spec.modality if entry.spec else ""
        size = format_size(entry.size_bytes)
        cells = (entry.name, entry.kind, size, modality, _channel_summary(entry))
        table.add_row(*(Text(cell) for cell in cells))
    terminal.say(table)
    for entry in entries:
        if entry.problem:
            terminal.note(entry.problem)
    terminal.say("simmat models info NAME shows a model's card.", style="dim")
    terminal.result({"models": [_entry_values(entry) for entry in entries]})


@models.command(name="info")
def card(name: str, /, console: OutputOptions = DEFAULT_OUTPUT) -> None:
    """Show a model's card: channels, normalization, training, metrics, license.

    ```
    simmat models info tiny
    simmat models info ./shared-by-a-colleague.safetensors --json
    ```

    Parameters
    ----------
    name
        A name from the list, or a file.
    """
    from napari_simmat.checkpoints.catalog import catalog_words
    from napari_simmat.checkpoints.registry import find_model
    from napari_simmat.io.files import format_size

    terminal = console.terminal()
    entry = find_model(name)
    if entry.spec is None:
        raise ValueError(entry.problem or f"{name} has no description.")
    spec, size = entry.spec, entry.spec.input_size
    inputs = {
        "longest": f"longest side becomes {size.size} pixels",
        "stretch": f"both sides become {size.size} pixels",
        "native": f"as it is, longest side from {size.minimum} to {size.size} pixels",
    }
    decoders = {
        "none": "",
        "elsewhere": f"clicks; its decoder comes by simmat models fetch {entry.name}",
        "here": "its decoder, or clicks"
        if spec.finds_instances
        else f"clicks; the decoder of {spec.base.name} does not fit what was trained on it",
    }
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    base = f"{spec.base.name} ({spec.base.architecture})"
    rows = {
        "model": f"{entry.name}, {entry.kind}, {format_size(entry.size_bytes)}",
        "description": spec.description,
        "modality": spec.modality,
        "channels": ", ".join(f"{c.name} [{c.unit}]" if c.unit else c.name for c in spec.channels),
        "normalization": _normalization(spec),
        "input": inputs[size.method],
        "base": base if entry.is_base else f"{base}, SHA-256 {spec.base.sha256}",
        "everything by": decoders[spec.instance_decoder],
        "transfer layer": f"{spec.transfer}, tuned: {spec.strategy}",
        **{f"metric {key}": _figures(value) for key, value in spec.metrics.items()},
        **{f"training {key}": text for key, text in _rows(spec.training)},
        "license": spec.license,
        "author": spec.author,
        "date": spec.date,
        **catalog_words(entry.name if entry.kind != "own" else ""),
        "file": str(entry.path or f"not downloaded; run simmat models fetch {entry.name}"),
    }
    for key, value in rows.items():
        if value:
            table.add_row(Text(key), Text(value))
    terminal.say(table)
    if entry.problem:
        terminal.note(entry.problem)
    terminal.result(_entry_values(entry))


@models.command
def fetch(
    model: str, /, *, name: str | None = None, console: OutputOptions = DEFAULT_OUTPUT
) -> None:
    """Download a published foundation, or a model that somebody shared on the Hugging Face Hub.

    ```
    simmat models fetch vit_b
    simmat models fetch vit_b_lm
    simmat models fetch hf:OWNER/NAME
    ```

    An interrupted download begins anew.

    Without a connection, download the file elsewhere and `simmat models import` it.

    Parameters
    ----------
    model
        A model that `simmat models` lists as downloadable: SAM, MobileSAM, micro-sam, MedSAM; or
        hf:OWNER/NAME, or hf:OWNER/NAME@REVISION.
    name
        Name for a model from the Hub; by default that of its file.
    """
    from napari_simmat.checkpoints import library, sam_weights

    terminal = console.terminal()
    if model.startswith(library.PREFIX):
        entry = terminal.watch(library.fetch_job(model, name))
        model, path = entry.name, entry.path
    else:
        path = terminal.watch(sam_weights.fetch_job(model))
    terminal.say(f"{model} is ready: {path}")
    terminal.result({"name": model, "path": str(path)})


@models.command
def push(
    name: str,
    address: str,
    /,
    *,
    private: Annotated[bool, FLAG] = False,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Share a model on the Hugging Face Hub, with a model card made from its description.

    ```
    hf auth login
    simmat models push my-thermal hf:OWNER/NAME
    ```

    Needs huggingface_hub: pip install huggingface_hub.

    Parameters
    ----------
    name
        A name from the list, or a file.
    address
        The repository, hf:OWNER/NAME; it is created if needed.
    private
        Create the repository so that only its owner sees it.
    """
    from napari_simmat.checkpoints.library import push_job

    terminal = console.terminal()
    commit = terminal.watch(push_job(name, address, private=private))
    terminal.say(f"Shared {name}: {commit}")
    terminal.result({"name": name, "commit": commit})


@models.command(name="import")
def import_(
    file: Path,
    /,
    *,
    name: str | None = None,
    preprocessing: str | None = None,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Copy a checkpoint (.safetensors) or weights with SAM's tensors (.pth) into your models.

    ```
    simmat models import sam_vit_b_01ec64.pth
    simmat models import from-a-colleague.safetensors --name thermal-2
    simmat models import my-finetuned.pth --preprocessing micro-sam
    ```

    Files never execute anything: pickles are read by PyTorch's weights-only loader alone.

    Parameters
    ----------
    file
        The file.
    name
        The model's name; by default the file's name without its suffix.
    preprocessing
        How images were preprocessed for SAM weights that do not tell: sam, micro-sam (each channel
        from its minimum to its maximum) or medsam. A file with micro-sam's decoder tells.
    """
    from napari_simmat.checkpoints.library import import_file_job

    terminal = console.terminal()
    entry = terminal.watch(import_file_job(file, name, preprocessing=preprocessing))
    terminal.say(f"{entry.name} is ready: {entry.path}")
    terminal.result(_entry_values(entry))


@models.command
def teach(
    image: Path,
    /,
    *,
    labels: Path,
    name: str,
    ground: Path | None = None,
    model: Annotated[str, MODEL] = "tiny",
    channels: ChannelOptions = DEFAULT_CHANNELS,
    channel_files: tuple[Path, ...] = (),
    compute: ComputeOptions = DEFAULT_COMPUTE,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Teach a model which objects to find by itself, from a few that are labeled in an image.

    The new model is listed among your own. Wherever it segments everything, it looks for objects of
    that size and, where ground is given, of those looks; clicks and boxes stay those of the model.

    ```
    simmat models teach a.tif --labels five-nuclei.tif --name nuclei
    simmat models teach a.tif --labels five-nuclei.tif --ground strokes.tif --name nuclei
    simmat segment plate --model nuclei --prompts auto --output out
    ```

    Parameters
    ----------
    image
        An image of the kind that is to be segmented.
    labels
        Label image of some of its objects, at least three, each with its number; 0 elsewhere.
    name
        Name of the new model.
    ground
        An image of the same size that is 0 except where there is surely no object, e.g. three
        strokes.
    model
        A name that `simmat models` lists, or a model's file.
    channel_files
        Further files with channels of the image.
    """
    from napari_simmat.batch.teach import LessonFiles, teach_job
    from napari_simmat.checkpoints.library import check_name_free
    from napari_simmat.checkpoints.teaching import keep_taught_job
    from napari_simmat.engine.object_kind import MIN_GROUND
    from napari_simmat.engine.pixel_forest import RING

    terminal = console.terminal()
    check_name_free(name)  # before the work
    lesson = LessonFiles(
        image=image,
        labels=labels,
        ground=ground,
        selection=channels.selection,
        channel_files=channel_files,
    )
    learned = terminal.watch(teach_job(model, lesson, compute))
    entry = terminal.watch(keep_taught_job(model, learned.kind, name))
    if ground is not None and learned.ground < MIN_GROUND:
        marked = pluralize(learned.ground, "pixel")
        terminal.note(TOO_LITTLE_GROUND.format(ground.name, marked, MIN_GROUND, RING))
    terminal.say(f"{entry.name} is ready: {entry.path}")
    if learned.sentence:
        terminal.say(learned.sentence)
    measured = {"before": learned.before, "after": learned.after}
    shown = {key: None if one is None else one._asdict() for key, one in measured.items()}
    terminal.result({**_entry_values(entry), "labeled": learned.labeled, "everything": shown})


@models.command
def export(
    name: str,
    /,
    output: Path = Path(),
    *,
    bundle: Annotated[bool, FLAG] = False,
    overwrite: Annotated[bool, FLAG] = False,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Write a model to a file of its own, to share it.

    ```
    simmat models export thermal
    simmat models export thermal --output thermal-with-base.safetensors --bundle
    ```

    Parameters
    ----------
    name
        A name from the list.
    output
        The new file, or a folder for it; the current folder by default.
    bundle
        Include the weights of its base: a larger file that needs no other.
    overwrite
        Replace the file if it exists.
    """
    from napari_simmat.checkpoints.library import export_job

    terminal = console.terminal()
    path = terminal.watch(export_job(name, output, bundle=bundle, overwrite=overwrite))
    terminal.say(f"Wrote {path}")
    terminal.result({"name": name, "path": str(path)})


@models.command
def remove(name: str, /, console: OutputOptions = DEFAULT_OUTPUT) -> None:
    """Delete a downloaded model or one of your own; built-in ones stay.

    Parameters
    ----------
    name
        A name from the list.
    """
    from napari_simmat.checkpoints.library import remove as delete

    delete(name)
    terminal = console.terminal()
    terminal.say(f"Removed {name}")
    terminal.result({"name": name, "removed": True})


def _channel_summary(entry: ModelEntry) -> str:
    if entry.spec is None:
        return "cannot be read"
    if entry.spec.is_rgb:
        return "RGB, or one channel"
    return ", ".join(entry.spec.channel_names)


def _figures(value: object) -> str:
    """A metric or setting as text; a dict in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_figures(each)}" for key, each in value.items())
    return str(value)


def _rows(training: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings by name; of a mapping of mappings, as the sources are, a row for each of them."""
    for key, value in training.items():
        if isinstance(value, Mapping) and all(isinstance(e, Mapping) for e in value.values()):
            yield from ((f"{key}: {name}", _figures(each)) for name, each in value.items())
        else:
            yield key, _figures(value)


def _normalization(spec: ModelSpec) -> str:
    rule = spec.normalization
    if rule.method == "none":
        return "values as they are"
    together = "all channels together" if rule.joint else "each channel"
    kept = ", 8-bit values as they are" if rule.keep_uint8 else ""
    glare = ", glare clipped" if rule.clip_glare else ""
    return f"percentiles {rule.low:g} to {rule.high:g} of the whole stack, {together}{kept}{glare}"


def _entry_values(entry: ModelEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "path": None if entry.path is None else str(entry.path),
        "size_bytes": entry.size_bytes,
        "is_base": entry.is_base,
        "problem": entry.problem,
        "spec": None if entry.spec is None else asdict(entry.spec),
    }

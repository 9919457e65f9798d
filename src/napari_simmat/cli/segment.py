"""`simmat segment`: image files and prompts in, label images out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from napari_simmat.cli.terminal import COMPUTE, FLAG, SPEECH, Compute, Speech, Terminal

if TYPE_CHECKING:
    from napari_simmat.engine.tasks import Outcome


def segment(
    image: Path,
    /,
    *more: Path,
    model: str,
    output: Path,
    prompts: str,
    channels: str | None = None,
    channel_axis: int | None = None,
    resume: Annotated[bool, FLAG] = False,
    overwrite: Annotated[bool, FLAG] = False,
    compute: Compute = COMPUTE,
    speech: Speech = SPEECH,
) -> int:
    """Segment image files with the clicks, boxes or masks of a prompt file.

    For each image STEM.tif three files are written:

    - STEM_labels.tif, the label image (STEM_labels.nii.gz for NIfTI),
    - STEM_objects.csv, one row of measurements per object,
    - STEM.json, the record of how it was made.

    Clicks on one image; boxes, with a choice of channels; every image with prompts beside it:

    ```
    simmat segment a.tif --model tiny --prompts a.csv --output out
    simmat segment a.tif --model tiny --prompts a.csv --output out --channels 0,2,2
    simmat segment *.tif --model tiny --prompts same-stem --output out --resume
    ```

    A prompt file is napari's CSV of points (with the columns `label`, 1 on the object or 0 not,
    and `object`, an id), napari's CSV of shapes (each a box), a label image (each label a
    mask), or an earlier record STEM.json, which replays it. Where masks overlap, the one with the
    higher score keeps the pixel; of equal scores, the earlier prompt's.

    Parameters
    ----------
    image
        An image: TIFF, PNG, JPEG, BMP, NIfTI or .npy.
    more
        More images.
    model
        A name that `simmat models` lists, or a model's file.
    output
        Folder to write into; made if need be.
    prompts
        The prompt file of the one image, or same-stem: for each image the file beside it called
        STEM.csv, STEM_points.csv, STEM_boxes.csv, STEM_shapes.csv or STEM_prompts.tif.
    channels
        Which channels the model gets, names or numbers from 0 with commas between, e.g. 0,2,DAPI.
        An RGB model may get one repeatedly: 0,1,1.
    channel_axis
        The axis that holds the channels, counted from 0, if the file does not say.
    resume
        Keep outputs that were made from the same image, model, prompts and settings; refuse
        outputs that were not.
    overwrite
        Replace outputs that exist.
    """
    from napari_simmat.batch import plan, running
    from napari_simmat.engine.tasks import SegmentConfig

    if resume and overwrite:
        raise ValueError("--resume keeps what exists, --overwrite replaces it; give one of them.")
    terminal = speech.terminal()
    tasks = plan(
        [image, *more],
        output=output,
        prompts=prompts,
        existing="resume" if resume else "overwrite" if overwrite else "refuse",
    )
    config = SegmentConfig(
        model=model,
        channels=channels_of(channels),
        channel_axis=channel_axis,
        device=compute.device,
        precision=compute.precision,
    )
    outcomes = terminal.watch(running(tasks, config, resume=resume))
    for outcome in outcomes:
        _tell(terminal, outcome)
    terminal.result({"files": [_values(outcome) for outcome in outcomes]})
    return int(any(outcome.status == "failed" for outcome in outcomes))


def channels_of(text: str | None) -> tuple[int | str, ...] | None:
    """``0,2,DAPI`` as numbers and names."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError(
            f"--channels {text!r} has an empty entry; write names or numbers with commas between, "
            "e.g. 0,2,DAPI."
        )
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _tell(terminal: Terminal, outcome: Outcome) -> None:
    name = outcome.task.image.name
    if outcome.status == "failed":
        terminal.complain(outcome.note)
        return
    objects = f"{outcome.objects} object{'' if outcome.objects == 1 else 's'}"
    done = "kept, as it was made the same way" if outcome.status == "kept" else "segmented"
    terminal.say(f"{name}: {objects}, {done} ({outcome.seconds:.1f} s)", style="bold")
    for path in outcome.task.files:
        terminal.say(f"  {path}")
    if outcome.hidden:
        listed = ", ".join(map(str, outcome.hidden))
        terminal.note(f"{name}: no pixel is left to {listed}, empty or wholly under better masks.")
    if outcome.note:
        terminal.note(f"{name}: {outcome.note}")


def _values(outcome: Outcome) -> dict[str, Any]:
    files = outcome.task.files
    values: dict[str, Any] = {
        "image": str(outcome.task.image),
        "prompts": str(outcome.task.prompts),
        "status": outcome.status,
        "seconds": round(outcome.seconds, 3),
    }
    if outcome.status == "failed":
        return {**values, "error": outcome.note}
    return {
        **values,
        "objects": outcome.objects,
        "hidden": list(outcome.hidden),
        "labels_file": str(files.labels),
        "objects_file": str(files.objects),
        "record_file": str(files.record),
        "note": outcome.note,
    }

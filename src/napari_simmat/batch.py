"""Files in, label images out: plan tasks, then run them.

`plan` names every file that will be read and written and refuses what cannot work before anything
is loaded; `running` does the tasks one by one, each whole or not at all.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from napari_simmat.engine.outputs import OutputError, OutputFiles, check_is_no_folder, stem_of
from napari_simmat.engine.segmentation import segmenting
from napari_simmat.engine.tasks import Outcome, SegmentConfig, Task
from napari_simmat.progress import Job

logger = logging.getLogger(__name__)

SAME_STEM = "same-stem"
PROMPT_ENDINGS = (
    ".csv",
    "_points.csv",
    "_boxes.csv",
    "_shapes.csv",
    "_prompts.csv",
    "_prompts.tif",
    "_prompts.tiff",
    "_prompts.png",
    "_prompts.npy",
    "_prompts.nii.gz",
)
"""What follows an image's stem in the name of its prompt file."""


def plan(
    images: Sequence[Path],
    *,
    output: Path,
    prompts: str = SAME_STEM,
    existing: Literal["refuse", "resume", "overwrite"] = "refuse",
) -> list[Task]:
    """Name what will be read and written.

    Parameters
    ----------
    images
        Image files. Label images of earlier runs among them are left out, with a warning.
    output
        Folder of the outputs.
    prompts
        One prompt file, or ``"same-stem"``: for each image the file beside it whose name is the
        image's stem and one of `PROMPT_ENDINGS`.
    existing
        What to do where an output exists.

    Raises
    ------
    ValueError, OSError
        If a file is missing, two images would have one output, or an output exists and must not
        be replaced; one sentence says which.
    """
    _check_folder(output)
    inputs = []
    for image in images:
        _check_is_file(image)
        if _is_earlier_output(image):
            logger.warning("%s is the output of an earlier run and is left out.", image.name)
        else:
            inputs.append(image)
    if not inputs:
        raise ValueError("No image is left to segment. Give at least one that is no output.")
    if prompts != SAME_STEM and len(inputs) > 1:
        raise ValueError(
            f"{len(inputs)} images cannot share the prompt file {prompts}. Use --prompts "
            f"{SAME_STEM} with one prompt file beside each image, or run them one by one."
        )
    tasks = [
        Task(image, _prompt_file(image, prompts), OutputFiles.of(image, output)) for image in inputs
    ]
    _check_outputs_differ(tasks)
    for task in tasks:
        for path in task.files:
            check_is_no_folder(path)
    if existing == "refuse":
        for task in tasks:
            for path in task.files.existing():
                raise ValueError(
                    f"{path} exists already. Use --overwrite to replace it, --resume to keep "
                    "what was made the same way, or another output folder."
                )
    return tasks


def running(
    tasks: Sequence[Task], config: SegmentConfig, *, resume: bool = False
) -> Job[list[Outcome]]:
    """Run tasks with one model; a task that fails does not stop the others.

    Parameters
    ----------
    tasks
        From `plan`.
    config
        How to segment.
    resume
        Keep outputs whose record says that they were made from the same input, model, prompts
        and settings; fail the task if they were made otherwise.
    """
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.zoo import loading

    model = yield from loading(config.model)
    predictor = Predictor(model, device=config.device, precision=config.precision)
    outcomes = []
    for task in tasks:
        start = time.monotonic()
        try:
            outcome = yield from segmenting(task, predictor, config, resume=resume)
        except (ValueError, TypeError, OSError, MemoryError) as error:
            logger.debug("%s failed", task.image, exc_info=True)
            seconds = time.monotonic() - start
            name, words = task.image.name, str(error)
            note = words if name in words else f"{name}: {words}"
            outcome = Outcome(task, "failed", seconds=seconds, note=note)
        outcomes.append(outcome)
    return outcomes


def _check_folder(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file, not a folder. Choose another output folder.")
    nearest = next((folder for folder in (output, *output.parents) if folder.exists()), Path())
    if not os.access(nearest, os.W_OK):
        raise OutputError(
            f"{nearest} cannot be written. Change its permissions or choose another output folder."
        )


def _check_is_file(image: Path) -> None:
    if image.is_dir():
        raise ValueError(
            f"{image} is a folder. Give the images in it, e.g. {image / '*.tif'} (a whole folder "
            "cannot be given yet)."
        )
    if not image.is_file():
        raise FileNotFoundError(f"There is no file {image}; check its name and folder.")


def _is_earlier_output(image: Path) -> bool:
    """Whether a record beside the image says that it was written by an earlier run."""
    from napari_simmat.engine.record import read_record

    stem, end, _ = stem_of(image).rpartition("_labels")
    record = image.with_name(f"{stem}.json")
    if not end or not record.is_file():
        return False
    try:
        outputs = read_record(record).outputs
    except (ValueError, OSError):
        return False
    return any(output.get("file") == image.name for output in outputs.values())


def _prompt_file(image: Path, prompts: str) -> Path:
    if prompts != SAME_STEM:
        path = Path(prompts)
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no prompt file {path}; give a CSV of points or shapes, a label image, "
                f"or {SAME_STEM}."
            )
        return path
    stem = stem_of(image)
    candidates = [image.with_name(stem + ending) for ending in PROMPT_ENDINGS]
    found = [path for path in candidates if path.is_file() and path != image]
    if not found:
        raise FileNotFoundError(
            f"There are no prompts beside {image}; save them as {stem}.csv, {stem}_points.csv, "
            f"{stem}_boxes.csv or {stem}_prompts.tif (labels), or name a file with --prompts."
        )
    if len(found) > 1:
        raise ValueError(
            f"There are several prompt files for {image}: {', '.join(p.name for p in found)}. "
            "Name one with --prompts, or keep only one beside the image."
        )
    return found[0]


def _check_outputs_differ(tasks: Sequence[Task]) -> None:
    """No output may be written twice, nor be an input (names may differ in case alone)."""
    written: dict[str, Path] = {}
    seen: set[str] = set()
    for task in tasks:
        if _same_name(task.image) in seen:
            raise ValueError(f"{task.image} is given twice; give each image once.")
        seen.add(_same_name(task.image))
        for path in task.files:
            first = written.setdefault(_same_name(path), task.image)
            if first != task.image:
                raise ValueError(
                    f"{first} and {task.image} would both be written to {path}. Rename one, or "
                    "give them different output folders."
                )
    for task in tasks:
        for path in (task.image, task.prompts):
            if _same_name(path) in written:
                raise ValueError(
                    f"{path} would be overwritten by an output. Choose another output folder."
                )


def _same_name(path: Path) -> str:
    return str(path.resolve()).casefold()

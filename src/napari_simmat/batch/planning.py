"""Name every file that a run will read and write, and refuse what cannot work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from napari_simmat.batch.inputs import Input, Inputs, same_stem_siblings
from napari_simmat.batch.plans import Existing, Plan, Skipped
from napari_simmat.engine.files import OutputError, check_is_no_folder
from napari_simmat.engine.formats.reading import stem_of
from napari_simmat.engine.jobs.record import outputs_recorded_in
from napari_simmat.engine.jobs.tasks import OutputFiles, Task

AUTO = "auto"
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
    inputs: Inputs | Sequence[Path],
    *,
    output: Path,
    prompts: str = SAME_STEM,
    existing: Existing = "refuse",
    extras: Sequence[str] = (),
) -> Plan:
    """Name what will be read and written.

    Parameters
    ----------
    inputs
        From `find_inputs`, or image files. Outputs of earlier runs among them are left out.
    output
        Folder of the outputs; subfolders are mirrored in it, and ``~`` is the user's.
    prompts
        ``"auto"``: everything is segmented; one prompt file for all; or ``"same-stem"``: for each
        image the file beside it whose name is the image's stem and one of `PROMPT_ENDINGS`.
    existing
        What to do where an output exists.
    extras
        Optional outputs, of `engine.jobs.tasks.EXTRA_ENDINGS`.

    Raises
    ------
    ValueError, OSError
        If two images would have one output, an output exists and must not be replaced, or no image
        is left; one sentence says which.
    """
    if not isinstance(inputs, Inputs):
        inputs = Inputs([Input(image, named=True) for image in inputs])
    output = Path(os.path.expanduser(output))  # of --output=~/results shells leave the ~
    _check_folder(output)
    if prompts not in (AUTO, SAME_STEM) and not Path(prompts).is_file():
        raise FileNotFoundError(
            f"There is no prompt file {prompts}; give a CSV of points or shapes, a label image, "
            f"{SAME_STEM} or {AUTO}."
        )
    tasks: list[Task] = []
    skipped: list[Skipped] = []
    recorded: dict[Path, frozenset[str]] = {}
    taken = _prompts_of_others(inputs.images, prompts)
    for one in inputs.images:
        folder = one.image.parent
        if folder not in recorded:
            recorded[folder] = outputs_recorded_in(folder)
        if one.image.name in recorded[folder]:
            skipped.append(Skipped(one.image, "It is the output of an earlier run."))
        elif not one.named and (owner := taken.get(one.image.absolute())) is not None:
            skipped.append(Skipped(one.image, f"It holds the prompts of {owner}."))
        else:
            _add(one, output, prompts, extras, tasks, skipped)
    _check_some_are_left(tasks, skipped)
    _check_outputs_differ(tasks)
    made = Plan(tuple(tasks), tuple(skipped), output, existing, len(inputs.others))
    made.check_existing()
    return made


def _add(
    one: Input,
    output: Path,
    prompts: str,
    extras: Sequence[str],
    tasks: list[Task],
    skipped: list[Skipped],
) -> None:
    """Append the task of an image, or why there is none."""
    try:
        if not one.image.exists():
            raise FileNotFoundError(f"There is no file {one.image}; check its name and folder.")
        files = OutputFiles.of(one.image, output / one.folder, extras)
        for path in files:
            check_is_no_folder(path)
        prompt_file = _prompt_file(one.image, one.prompts or prompts)
    except OutputError as error:
        skipped.append(Skipped(one.image, str(error), failed=True))
    except (FileNotFoundError, ValueError) as error:
        if one.named:
            raise
        missing = isinstance(error, FileNotFoundError)
        skipped.append(Skipped(one.image, str(error), failed=not missing))
    else:
        name = (one.folder / one.image.name).as_posix()
        tasks.append(Task(one.image, prompt_file, files, one.channels, one.channel_axis, name))


def _check_folder(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file, not a folder. Choose another output folder.")
    nearest = next((folder for folder in (output, *output.parents) if folder.exists()), Path())
    if not os.access(nearest, os.W_OK):
        raise OutputError(
            f"{nearest} cannot be written. Change its permissions or choose another output folder."
        )


def _prompts_of_others(images: Sequence[Input], prompts: str) -> dict[Path, str]:
    """Image files that are the prompts of another image or of all, with its name."""
    taken = {
        path.absolute(): one.image.name
        for one in images
        if (one.prompts or prompts) == SAME_STEM
        for path in same_stem_siblings(one.image, PROMPT_ENDINGS)
    }
    if prompts not in (AUTO, SAME_STEM):
        taken[Path(os.path.abspath(prompts))] = "the other images"
    return taken


def _prompt_file(image: Path, prompts: str) -> Path | None:
    if prompts == AUTO:
        return None
    if prompts != SAME_STEM:
        return Path(prompts)
    stem = stem_of(image)
    found = same_stem_siblings(image, PROMPT_ENDINGS)
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


def _check_some_are_left(tasks: Sequence[Task], skipped: Sequence[Skipped]) -> None:
    if tasks:
        return
    failed = next((one for one in skipped if one.failed), None)
    if failed is not None:
        raise OutputError(failed.why)
    if not skipped:
        raise ValueError("There is no image to segment. Give at least one.")
    raise ValueError(f"No image is left to segment. {skipped[0].image}: {skipped[0].why}")


def _check_outputs_differ(tasks: Sequence[Task]) -> None:
    """No output may be written twice, nor be an input (names may differ in case alone)."""
    written: dict[str, Path] = {}
    seen: set[str] = set()
    for task in tasks:
        if _same_name(task.image) in seen:
            raise ValueError(f"{task.image} is given twice; give each image once.")
        seen.add(_same_name(task.image))
        for path in task.files.possible():
            first = written.setdefault(_same_name(path), task.image)
            if first != task.image:
                raise ValueError(
                    f"{first} and {task.image} would both be written to {path}. Rename one, or "
                    "give them different output folders."
                )
    for task in tasks:
        for read in (task.image, task.prompts):
            if read is not None and _same_name(read) in written:
                raise ValueError(
                    f"{read} would be overwritten by an output. Choose another output folder."
                )


def _same_name(path: Path) -> str:
    return str(path.resolve()).casefold()

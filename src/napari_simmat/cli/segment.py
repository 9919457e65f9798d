"""`simmat segment`: image files and prompts in, label images out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from napari_simmat._text import pluralize
from napari_simmat.cli.terminal import (
    DEFAULT_COMPUTE,
    DEFAULT_OUTPUT,
    FLAG,
    ComputeOptions,
    OutputOptions,
    RemoteControl,
    Terminal,
    print_event,
)
from napari_simmat.engine.automatic_settings import AutomaticSettings
from napari_simmat.engine.propagation_tracks import PropagationSettings

if TYPE_CHECKING:
    from napari_simmat.batch.plan import Plan, TaskOutcome
    from napari_simmat.progress import Progress


@Parameter(name="*", group="Files")
@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Which files count, and which are written beside labels, table and record.

    Parameters
    ----------
    pattern
        Which files of a folder count, e.g. *.tif or plate*/*.png; all images by default.
    outside
        Let a manifest name files outside its folder.
    overlay
        Write STEM_overlay.png as well, a picture of the image with its objects.
    coco
        Write STEM_coco.json as well, the objects in COCO's format.
    rois
        Write STEM_rois.zip as well, the objects as ImageJ's regions of interest.
    resume
        Keep outputs that were made from the same image, model, prompts and settings; refuse
        outputs that were not.
    overwrite
        Replace outputs that exist.
    plan
        Show what would be done, and do nothing.
    labels_in_memory
        GB of memory for a label image. A plane that needs more, with everything in it segmented,
        becomes STEM_labels.ome.zarr, tile by tile.
    """

    pattern: str = ""
    outside: Annotated[bool, FLAG] = False
    overlay: Annotated[bool, FLAG] = False
    coco: Annotated[bool, FLAG] = False
    rois: Annotated[bool, FLAG] = False
    resume: Annotated[bool, FLAG] = False
    overwrite: Annotated[bool, FLAG] = False
    plan: Annotated[bool, FLAG] = False
    labels_in_memory: float = 1.0

    @property
    def extras(self) -> list[str]:
        """Kinds of optional outputs."""
        return [kind for kind in ("overlay", "coco", "rois") if getattr(self, kind)]

    @property
    def existing(self) -> Literal["refuse", "resume", "overwrite"]:
        """What to do where an output exists."""
        if self.resume and self.overwrite:
            raise ValueError(
                "--resume keeps what exists, --overwrite replaces it; give one of them."
            )
        return "resume" if self.resume else "overwrite" if self.overwrite else "refuse"


DEFAULT_FILES = FileOptions()
AUTOMATIC = Parameter(name="auto", group="Segment everything (--prompts auto)")
DEFAULTS = AutomaticSettings()


def segment(
    image: Path,
    /,
    *more: Path,
    model: str,
    output: Path,
    prompts: str,
    channels: str | None = None,
    channel_axis: int | None = None,
    pixel_ratio: float = 1.0,
    propagate: Annotated[bool, FLAG] = False,
    files: FileOptions = DEFAULT_FILES,
    automatic: Annotated[AutomaticSettings, AUTOMATIC] = DEFAULTS,
    scheduler: str | None = None,
    events: Annotated[bool, FLAG] = False,
    compute: ComputeOptions = DEFAULT_COMPUTE,
    speech: OutputOptions = DEFAULT_OUTPUT,
) -> int:
    """Segment image files with the clicks, boxes or masks of a prompt file.

    For each image STEM.tif three files are written:

    - STEM_labels.tif, the label image (.nii.gz for NIfTI, .ome.zarr for very large ones),
    - STEM_objects.csv, one row of measurements per object,
    - STEM.json, the record of how it was made.

    Several images get simmat-summary.csv and simmat-report.html, a page with small pictures.
    A file that cannot be used is reported, and the others are done.

    Clicks on one image; boxes, with a choice of channels; every image of a folder with prompts
    beside it; the images that a table lists:

    ```
    simmat segment a.tif --model tiny --prompts a.csv --output out
    simmat segment a.tif --model tiny --prompts a.csv --output out --channels 0,2,2
    simmat segment data --pattern "*.tif" --model tiny --prompts same-stem --output out --resume
    simmat segment list.csv --model tiny --prompts same-stem --output out --overlay
    ```

    Everything in the images, without prompts:

    ```
    simmat segment a.tif --model tiny --prompts auto --output out
    simmat segment a.tif --model tiny --prompts auto --output out --auto.seeds maxima
    ```

    Objects of a stack, clicked on one plane or on several, on all their planes:

    ```
    simmat segment stack.tif --model tiny --prompts stack.csv --output out --propagate
    ```

    A prompt file is napari's CSV of points (with the columns `label`, 1 on the object or 0 not,
    and `object`, an id), napari's CSV of shapes (each a box), a label image (each label a
    mask), or an earlier record STEM.json, which replays it, with its channels where none are given.
    Where masks overlap, the one with the higher score keeps the pixel; of equal scores, the earlier
    prompt's.

    Parameters
    ----------
    image
        An image (TIFF, PNG, JPEG, BMP, NIfTI, DICOM, OME-Zarr or .npy), a folder, a pattern such
        as "data/**/*.tif", or a manifest: a CSV with the column image and, where wanted, prompts,
        channels and channel_axis.
    more
        More of them.
    model
        A name that `simmat models` lists, or a model's file.
    output
        Folder to write into; made if need be. Subfolders are mirrored in it.
    prompts
        auto to segment everything; a prompt file for all images; or same-stem: for each image the
        file beside it called STEM.csv, STEM_points.csv, STEM_boxes.csv, STEM_shapes.csv or
        STEM_prompts.tif.
    channels
        Which channels the model gets, names or numbers from 0 with commas between, e.g. 0,2,DAPI.
        An RGB model may get one repeatedly: 0,1,1.
    channel_axis
        The axis that holds the channels, counted from 0, if the file does not say.
    pixel_ratio
        Height of a pixel over its width, where the file does not say.
    propagate
        Follow each object of a stack from the planes with prompts through all others, until it
        ends. Negative points alone on a plane say that it is not there. Through depth (Z); through
        time where there is none. Images of one plane are segmented as they are.
    automatic
        How everything is segmented.
    scheduler
        Address of a dask.distributed scheduler, e.g. tcp://10.0.0.1:8786, whose workers do it.
    events
        For programs: a line of JSON on stdout for each step, instead of words; pause, go and stop
        are understood on stdin.
    """
    from napari_simmat.batch.inputs import find_inputs
    from napari_simmat.batch.plan import SegmentConfig, plan
    from napari_simmat.batch.run import run_plan_job

    terminal = speech.terminal()
    planned = plan(
        find_inputs([image, *more], pattern=files.pattern, outside=files.outside),
        output=output,
        prompts=prompts,
        existing=files.existing,
        extras=files.extras,
    )
    if events:
        print_event({"plan": plan_values(planned)})
    else:
        _print_plan(terminal, planned, only=files.plan)
    if files.plan:
        terminal.result(plan_values(planned))
        return 0
    config = SegmentConfig(
        model=model,
        channels=parse_channel_option(channels),
        channel_axis=channel_axis,
        pixel_ratio=pixel_ratio,
        device=compute.device,
        precision=compute.precision,
        automatic=automatic,
        propagation=PropagationSettings() if propagate else None,
        labels_in_memory=files.labels_in_memory,
    )
    job = run_plan_job(planned, config, scheduler=scheduler)
    outcomes = terminal.watch(RemoteControl().steer_job(job, _event_values) if events else job)
    failed = any(one.status == "failed" for one in outcomes) or any(
        one.failed for one in planned.skipped
    )
    if events:
        print_event({"finished": len(outcomes)})
        return int(failed)
    for outcome in outcomes:
        _print_outcome(terminal, outcome)
    if planned.several:
        _print_summary(terminal, planned, outcomes)
    values = [_outcome_values(outcome) for outcome in outcomes]
    terminal.result({"files": values, "skipped": _skipped_values(planned)})
    return int(failed)


def parse_channel_option(text: str | None) -> tuple[int | str, ...] | None:
    """Parse the option --channels."""
    from napari_simmat.batch.inputs import parse_channels

    try:
        return None if text is None else parse_channels(text, ",")
    except ValueError as error:
        raise ValueError(f"--channels {error}") from None


def _print_plan(terminal: Terminal, planned: Plan, only: bool) -> None:
    """How many images there are, and what is left out and why."""
    if planned.several or only:
        images = pluralize(len(planned.tasks), "image")
        terminal.say(f"{images} -> {planned.output}", "bold")
        if planned.others:
            others = pluralize(planned.others, "other file")
            terminal.say(f"{others} in the folders, by name no images")
    if only:
        for task in planned.tasks:
            terminal.say(f"  {task.image} -> {task.files.labels}")
    for one in planned.skipped:
        if one.failed:
            terminal.complain(f"{one.image}: {one.why}")
        else:
            terminal.note(f"{one.image} is left out. {one.why}")


def _print_outcome(terminal: Terminal, outcome: TaskOutcome) -> None:
    name = outcome.task.name
    if outcome.status == "failed":
        terminal.complain(outcome.note)
        return
    objects = pluralize(outcome.objects, "object")
    done = "kept, as it was made the same way" if outcome.status == "kept" else "segmented"
    terminal.say(f"{name}: {objects}, {done} ({outcome.seconds:.1f} s)", style="bold")
    for path in outcome.task.files:
        terminal.say(f"  {path}")
    if outcome.hidden:
        listed = ", ".join(map(str, outcome.hidden))
        terminal.note(f"{name}: no pixel is left to {listed}, empty or wholly under better masks.")
    if outcome.note:
        terminal.note(f"{name}: {outcome.note}")


def _print_summary(terminal: Terminal, planned: Plan, outcomes: list[TaskOutcome]) -> None:
    from napari_simmat.batch.run import SUMMARY_PAGE, SUMMARY_TABLE

    done = sum(outcome.status != "failed" for outcome in outcomes)
    total = len(outcomes) + sum(one.failed for one in planned.skipped)
    terminal.say(f"{done} of {pluralize(total, 'image')} segmented. Summary:", style="bold")
    for name in (SUMMARY_TABLE, SUMMARY_PAGE):
        terminal.say(f"  {planned.output / name}")


def plan_values(planned: Plan) -> dict[str, Any]:
    """A plan for programs."""
    return {
        "output": str(planned.output),
        "files": [
            {
                "image": str(task.image),
                "prompts": None if task.prompts is None else str(task.prompts),
                "labels_file": str(task.files.labels),
            }
            for task in planned.tasks
        ],
        "skipped": _skipped_values(planned),
    }


def _skipped_values(planned: Plan) -> list[dict[str, Any]]:
    return [
        {"image": str(one.image), "failed": one.failed, "why": one.why} for one in planned.skipped
    ]


def _event_values(progress: Progress) -> dict[str, Any]:
    """A step for programs."""
    from napari_simmat.batch.runner import BatchProgress

    values: dict[str, Any] = {
        "done": progress.done,
        "total": progress.total,
        "message": progress.message,
    }
    if isinstance(progress, BatchProgress):
        values |= {"number": progress.number, "state": progress.state}
        if progress.outcome is not None:
            values["file"] = _outcome_values(progress.outcome)
    return values


def _outcome_values(outcome: TaskOutcome) -> dict[str, Any]:
    files = outcome.task.files
    values: dict[str, Any] = {
        "image": str(outcome.task.image),
        "prompts": None if outcome.task.prompts is None else str(outcome.task.prompts),
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
        **{f"{kind}_file": str(path) for kind, path in files.extras.items()},
        "note": outcome.note,
    }

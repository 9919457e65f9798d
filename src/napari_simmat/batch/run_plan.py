"""Carry out a plan, beside other runs in its output folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from napari_simmat._text import format_list
from napari_simmat.batch.cluster import run_on_cluster_job
from napari_simmat.batch.folder_lock import lock_folder_job
from napari_simmat.batch.loaded_image import OpenedImage, check_task, described
from napari_simmat.batch.plan import Plan, SegmentConfig
from napari_simmat.batch.segment_image import TaskOutcome, check_resumed
from napari_simmat.batch.sharing import Share, join_job
from napari_simmat.batch.summary import write_summary
from napari_simmat.batch.tasks import failed_outcome, run_tasks_job
from napari_simmat.checkpoints.loading import model_file
from napari_simmat.checkpoints.registry import find_model, list_models
from napari_simmat.engine.channels.matching import known_channels
from napari_simmat.engine.everything.idle_settings import idle_sentence
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.io.description import ImageDescription
from napari_simmat.io.readers import open_image
from napari_simmat.progress import Job, Progress

FIT = "Of the channels {} these models read theirs by name: {}."
NONE_FITS = (
    "No model here knows the channels {}. Choose three of them for a foundation, e.g. tiny "
    "(--channels), or let a model learn all from five objects (simmat train --few)."
)
REMOVED = "{} was written, but removed before the run ended. Run it again with --resume."


def run_plan_job(
    plan: Plan, config: SegmentConfig, *, scheduler: str | None = None
) -> Job[list[TaskOutcome]]:
    """Carry out a plan, and write a summary of several images into the output folder.

    Parameters
    ----------
    plan
        From `plan`.
    config
        How to segment.
    scheduler
        Address of a `dask.distributed` scheduler whose workers run the tasks; None: this process.

    Returns
    -------
    list of TaskOutcome
        One for each task, in their order.

    Raises
    ------
    ValueError, OSError
        If another run makes an image of this one differently, or the model cannot be used.
    """
    resume = plan.existing == "resume"
    share = yield from join_job(plan, config, alone=scheduler is not None)
    try:
        if scheduler is None:
            outcomes = yield from run_tasks_job(plan.tasks, config, share=share)
        else:
            outcomes = yield from run_on_cluster_job(scheduler, plan.tasks, config, resume=resume)
            for outcome in outcomes:
                share.note(outcome)
        outcomes = [_still_there(each) for each in outcomes]
        if plan.summarized:
            yield Progress(len(outcomes), len(outcomes), "writing the summary")
            yield from _summarize_job(share, plan, outcomes, config)
    finally:
        share.leave()
    return outcomes


def _summarize_job(
    share: Share, plan: Plan, outcomes: list[TaskOutcome], config: SegmentConfig
) -> Job[None]:
    """Write the summary of all runs that went on at once, unless one of them has."""
    lock = yield from lock_folder_job(plan.output)
    try:
        whole, found = share.gathered(plan, outcomes)
        found = [_still_there(each) for each in found]
        with share.told_once(whole, found) as is_new:
            if is_new:
                write_summary(whole, found, config)
    finally:
        lock.release()


def _still_there(outcome: TaskOutcome) -> TaskOutcome:
    """The outcome, failed if its files were removed while the run went on."""
    files = outcome.task.files
    gone = [each for each in (files.labels, files.objects, files.record) if not each.exists()]
    if outcome.status == "failed" or not gone:
        return outcome
    return failed_outcome(outcome.task, OSError(REMOVED.format(gone[0])), outcome.seconds)


def check_plan_job(
    plan: Plan,
    config: SegmentConfig,
    remarks: dict[str, str] | None = None,
    images: dict[str, ImageDescription] | None = None,
) -> Job[dict[str, str]]:
    """What a run of the plan would refuse, by image.

    `remarks` get what it would remark, and `images` what is in each, by name.

    Pixels are read of small images, and of those whose channels are in several files.

    Raises ValueError if there is no such model, or it cannot look for objects as it is to.
    """
    entry = find_model(config.model)
    model_file(entry)  # refuses one that is not downloaded
    spec = entry.spec
    if spec is not None and any(task.prompts is None for task in plan.tasks):
        config.automatic.check_model(spec)
    problems = {}
    for number, task in enumerate(plan.tasks):
        yield Progress(number, len(plan.tasks), f"checking {task.name}")
        try:
            loaded, remark = check_task(task, config, None if spec is None else spec.inputs)
            if plan.existing == "resume" and spec is not None:
                check_resumed(loaded, spec)
            if images is not None:
                images[task.name] = loaded.description
            if remarks is not None and remark:
                remarks[task.name] = remark
        except Exception as error:  # as in a run, readers raise anything
            if images is not None:
                with suppress(ValueError, OSError):
                    selection = task.selection.over(config.selection)
                    images[task.name] = described(task.image, selection, task.part)
            problems[str(task.image)] = failed_outcome(task, error, 0.0).note
    return problems


def idle_options(plan: Plan, config: SegmentConfig) -> str:
    """Which options of looking for objects change nothing with this model, in a sentence.

    Empty for none, and where nothing is looked for.
    """
    if all(task.prompts is not None for task in plan.tasks):
        return ""
    spec = find_model(config.model).spec
    return "" if spec is None else idle_sentence(config.automatic, spec)


def models_that_fit(image: Path, selection: ChannelSelection) -> str:
    """Which models read the channels of an image, in a sentence; empty if they have no names."""
    opened = OpenedImage.of(open_image(image, lazy_above=0), selection)
    names = opened.channel_names
    if names is None:
        return ""
    fitting = [
        entry.name
        for entry in list_models()
        if entry.spec is not None
        and not entry.problem
        and len(known_channels(entry.spec.inputs.names, names)) == len(entry.spec.inputs.names)
    ]
    channels = format_list(names)
    return FIT.format(channels, format_list(fitting)) if fitting else NONE_FITS.format(channels)

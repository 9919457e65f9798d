"""Objects within objects: two runs over the same images, and tables of which lies in which."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from napari_simmat.batch.earlier import result_of
from napari_simmat.batch.folder_lock import is_shared
from napari_simmat.batch.inputs import AUTO
from napari_simmat.batch.measure import MeasuredTask, MeasureTask, measure_tasks_job
from napari_simmat.batch.plan import INSIDE, OutputFiles, Plan, SegmentConfig, SegmentTask
from napari_simmat.batch.run_plan import run_plan_job
from napari_simmat.batch.segment_image import TaskOutcome
from napari_simmat.batch.tasks import BatchProgress
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.io.files import read_table_file
from napari_simmat.io.part import WHOLE, ImagePart
from napari_simmat.io.readers import stem_of
from napari_simmat.progress import Job, Progress, map_progress

CHILDREN_FOLDER = "children"
"""Folder of the second run in that of the first."""
OUTER_TABLE, INNER_TABLE = "simmat-parents.csv", "simmat-children.csv"
NESTED_PROMPTS = (
    "Children are found by segmenting everything in two channels, which takes no prompts; leave "
    "the prompts out, or segment each channel by itself, and measure with parents."
)
NESTED_PART = (
    "Children are found and measured on whole images; leave region, level and the size of a pixel "
    "of slides out, or segment each channel by itself, and measure with parents."
)


class NestedOutcome(NamedTuple):
    """What two runs gave, of the objects and of those within them, and their tables."""

    outer: list[TaskOutcome]
    inner: list[TaskOutcome]
    tables: tuple[Path, ...]
    """Those of `nested_tables`; empty if no image was segmented twice."""

    @property
    def runs(self) -> tuple[list[TaskOutcome], list[TaskOutcome]]:
        """The outcomes of both runs, in the order in which they were made."""
        return self.outer, self.inner


def refuse_nested(prompts: str, part: ImagePart) -> None:
    """Raise ValueError where objects within objects cannot be found."""
    if prompts != AUTO:
        raise ValueError(NESTED_PROMPTS)
    if part != WHOLE:
        raise ValueError(NESTED_PART)


def inner_plan(plan: Plan) -> Plan:
    """The plan of the second run: the same images, into the folder of the children.

    Raises ValueError if an output exists and must not be replaced.
    """
    output = plan.output / CHILDREN_FOLDER
    inner = replace(
        plan, output=output, tasks=tuple(_within(task, plan.output, output) for task in plan.tasks)
    )
    if not is_shared(output):
        inner.check_existing()
    return inner


def both_plans(*plans: Plan) -> Plan:
    """The files of one run, or of both as if they were one, in the order in which they are made."""
    return replace(plans[0], tasks=tuple(task for plan in plans for task in plan.tasks))


def segment_nested_job(
    outer: Plan,
    inner: Plan,
    config: SegmentConfig,
    children: ChannelSelection,
    *,
    scheduler: str | None = None,
) -> Job[NestedOutcome]:
    """Find objects, and those within them, and write which lies in which.

    Its progress numbers the images as `both_plans` does.

    Parameters
    ----------
    outer, inner
        From `plan`, and the `inner_plan` of that.
    config
        How the outer objects are segmented.
    children
        Channels of the inner ones.
    scheduler
        As of `run_plan_job`.
    """
    total = len(outer.tasks) + len(inner.tasks)
    found: list[list[TaskOutcome]] = []
    for plan, how in ((outer, config), (inner, replace(config, selection=children))):
        done = sum(len(outcomes) for outcomes in found)

        def of_both(step: Progress, done: int = done) -> Progress:
            if not isinstance(step, BatchProgress):
                return _uncounted(step)
            share = (done + step.share * len(outer.tasks)) / total
            return replace(
                step, done=done + step.done, total=total, number=done + step.number, share=share
            )

        job = run_plan_job(plan, how, scheduler=scheduler)
        found.append((yield from map_progress(job, of_both)))
    cells, nuclei = found
    measuring = measure_nested_job(outer, cells, nuclei, config.table, config.selection)
    measured = yield from map_progress(measuring, _uncounted)
    return NestedOutcome(cells, nuclei, nested_tables(outer) if measured else ())


def _uncounted(step: Progress) -> Progress:
    """What is done beside the images says nothing of how far the whole is."""
    return Progress(0, 0, step.message)


def _within(task: SegmentTask, output: Path, folder: Path) -> SegmentTask:
    """The task of the second run; the channels that a manifest names are those of the first."""

    def moved(path: Path) -> Path:
        return folder / path.relative_to(output)

    files = OutputFiles(
        moved(task.files.labels),
        moved(task.files.objects),
        moved(task.files.record),
        {kind: moved(path) for kind, path in task.files.extras.items() if kind != INSIDE},
    )
    return replace(task, files=files, selection=replace(task.selection, channels=None))


def nested_tables(plan: Plan) -> tuple[Path, Path]:
    """The tables of the outer and of the inner objects; each shard has its own."""
    part = "" if plan.shard is None else f"-{plan.shard}"
    outer, inner = (
        plan.output / f"{Path(name).stem}{part}.csv" for name in (OUTER_TABLE, INNER_TABLE)
    )
    return outer, inner


def measure_nested_job(
    plan: Plan,
    outer: Sequence[TaskOutcome],
    inner: Sequence[TaskOutcome],
    table: TableSettings,
    selection: ChannelSelection,
) -> Job[list[MeasuredTask]]:
    """Write the tables of `nested_tables`; images that have not both kinds of labels are left out.

    As in a summary, what an earlier run made counts where this one failed, and for other images.

    Parameters
    ----------
    plan
        Of the outer objects.
    outer, inner
        What the two runs gave, e.g. of cells and of nuclei.
    table
        Statistics and indices.
    selection
        What was stated of the images; all of their channels are measured.

    Returns
    -------
    list of MeasuredTask
        Of the outer objects.
    """
    cells, nuclei = (_labels_of(found) for found in (outer, inner))
    names = {one.task.image: one.task.name for one in outer}
    both = [image for image in cells if image in nuclei]
    several = len(outer) > 1
    of_outer = [
        MeasureTask(
            image=one,
            labels=(cells[one],),
            children=nuclei[one],
            of_folder=several,
            name=names[one],
        )
        for one in both
    ]
    of_inner = [
        MeasureTask(
            image=one, labels=(nuclei[one],), parents=cells[one], of_folder=several, name=names[one]
        )
        for one in both
    ]
    measured: list[MeasuredTask] = []
    if both:
        to_outer, to_inner = nested_tables(plan)
        whole = replace(selection, channels=None)
        measured = yield from measure_tasks_job(
            of_outer,
            to_outer,
            table=table,
            selection=whole,
            overwrite=True,
            kept=_kept_rows(to_outer, names.values()) if several else (),
        )
        yield from measure_tasks_job(
            of_inner,
            to_inner,
            table=table,
            selection=whole,
            overwrite=True,
            kept=_kept_rows(to_inner, names.values()) if several else (),
        )
    return measured


def _labels_of(outcomes: Sequence[TaskOutcome]) -> dict[Path, Path]:
    """The labels that lie in the folder, by image."""
    found = {}
    for one in outcomes:
        files = one.task.files
        if one.status != "failed":
            found[one.task.image] = files.labels
        elif left := result_of(one.task.name, files.record):
            found[one.task.image] = left.task.files.labels
    return found


def _kept_rows(table: Path, images: Collection[str]) -> list[dict[str, str]]:
    """The rows of other images in an earlier table, whose outputs are still there."""
    if not table.is_file():
        return []
    columns, rows = read_table_file(table)
    if "image" not in columns:
        return []
    return [
        row
        for row in rows
        if row["image"] not in images
        and (
            table.parent / Path(row["image"]).parent / f"{stem_of(Path(row['image']))}.json"
        ).exists()
    ]

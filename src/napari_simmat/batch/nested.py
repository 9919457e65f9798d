"""Objects within objects: two runs over the same images, and tables of which lies in which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from napari_simmat.batch.measure import MeasuredTask, MeasureTask, measure_tasks_job
from napari_simmat.batch.plan import Plan
from napari_simmat.batch.segment_image import TaskOutcome
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.progress import Job

CHILDREN_FOLDER = "children"
"""Folder of the second run in that of the first."""
OUTER_TABLE, INNER_TABLE = "simmat-parents.csv", "simmat-children.csv"


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
    """Write the tables of `nested_tables`; images of which a run failed are left out.

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
    cells, nuclei = (
        {one.task.image: one.task.files.labels for one in found if one.status != "failed"}
        for found in (outer, inner)
    )
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
            of_outer, to_outer, table=table, selection=whole, overwrite=True
        )
        yield from measure_tasks_job(
            of_inner, to_inner, table=table, selection=whole, overwrite=True
        )
    return measured

"""Carry out a plan with the output folder locked, and write a summary: a CSV and an HTML page."""

from __future__ import annotations

import os
import platform
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from napari_simmat._text import __version__, pluralize
from napari_simmat.batch.plan import Plan, SegmentConfig, TaskOutcome
from napari_simmat.batch.runner import run_on_cluster_job, run_tasks_job
from napari_simmat.io.files import OutputError, atomic_outputs, write_table, write_text
from napari_simmat.progress import Job, Progress

LOCK = ".simmat.lock"
"""The file that a run locks in its output folder."""
SUMMARY_TABLE, SUMMARY_PAGE = "simmat-summary.csv", "simmat-report.html"
COLUMNS = ("image", "state", "objects", "hidden", "labels", "message")
MAX_PICTURES = 2000
"""Thumbnails on the page; with more it would open slowly."""


def run_plan_job(
    plan: Plan, config: SegmentConfig, *, scheduler: str | None = None
) -> Job[list[TaskOutcome]]:
    """Carry out a plan; for several images, also write a summary into the output folder.

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
        If another run writes into the folder, or the model cannot be used.
    """
    resume = plan.existing == "resume"
    with locked(plan.output):
        plan.check_existing()  # another run may have ended since the plan was made
        if scheduler is None:
            outcomes = yield from run_tasks_job(plan.tasks, config, resume=resume)
        else:
            outcomes = yield from run_on_cluster_job(scheduler, plan.tasks, config, resume=resume)
        if plan.several:
            yield Progress(len(outcomes), len(outcomes), "writing the summary")
            write_summary(plan, outcomes, config)
    return outcomes


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other runs; the lock of a killed run does not count.

    The folder is created if needed, and removed again if nothing was written into it.

    Raises OutputError if another run is using it, or the folder cannot be written.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(
            f"Another run is writing into {folder}. Wait until it has ended, or choose another "
            "output folder."
        ) from None
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written ({error.strerror}). Change its permissions or choose "
            "another output folder."
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes an open file only when it is closed
            os.unlink(folder / LOCK)
        lock.release()
        with suppress(OSError):
            for each in made:
                each.rmdir()


@dataclass(frozen=True)
class SummaryRow:
    """One image of a summary."""

    image: str
    state: Literal["done", "failed", "skipped"]
    objects: int | None = None
    hidden: int | None = None
    labels: str = ""
    message: str = ""
    seconds: float | None = None
    note: str = ""
    picture: bytes = b""

    def values(self) -> dict[str, object]:
        """The row of the table."""
        cells = {name: getattr(self, name) for name in COLUMNS}
        return {name: "" if value is None else value for name, value in cells.items()}


def write_summary(plan: Plan, outcomes: Sequence[TaskOutcome], config: SegmentConfig) -> None:
    """Write `SUMMARY_TABLE` and `SUMMARY_PAGE` into the output folder, replacing earlier ones.

    The table depends only on inputs and outputs: it holds no times, and kept outputs look like
    new ones.
    """
    rows = summary_rows(plan, outcomes)
    with atomic_outputs(plan.output / SUMMARY_TABLE, plan.output / SUMMARY_PAGE) as (table, page):
        write_table(table, COLUMNS, [row.values() for row in rows])
        write_text(page, "".join(_page(rows, config)))


def summary_rows(plan: Plan, outcomes: Sequence[TaskOutcome]) -> list[SummaryRow]:
    """A row for each input image, skipped ones last."""
    rows = []
    for outcome in outcomes:
        labels = outcome.task.files.labels
        inside = labels.is_relative_to(plan.output)
        labels = labels.relative_to(plan.output) if inside else Path(labels.name)
        image, seconds = (labels.parent / outcome.task.image.name).as_posix(), outcome.seconds
        if outcome.status == "failed":
            message = _without_folder(outcome.note, plan.output)
            rows.append(SummaryRow(image, "failed", message=message, seconds=seconds))
            continue
        row = SummaryRow(
            image,
            "done",
            outcome.objects,
            len(outcome.hidden),
            labels.as_posix(),
            seconds=seconds,
            note=("Kept from an earlier run. " if outcome.status == "kept" else "") + outcome.note,
            picture=outcome.thumbnail,
        )
        rows.append(row)
    for one in plan.skipped:
        message = _without_folder(one.why, plan.output)
        row = SummaryRow(one.image.name, "failed" if one.failed else "skipped", message=message)
        rows.append(row)
    return rows


def _without_folder(sentence: str, folder: Path) -> str:
    """Remove the output folder from paths in a sentence, so that it does not depend on it."""
    # Only at the start of a path: it may also be the end of another one.
    return re.sub(rf"(?<!\S){re.escape(f'{folder}{os.sep}')}", "", sentence)


_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 70em; color: #222;
  padding: 0 1em; background: #fff; }
h1 { font-size: 1.4em; } table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .4em .7em; border-top: 1px solid #ddd; vertical-align: middle; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td img { display: block; image-rendering: pixelated; }
.failed { color: #a1260d; } .skipped { color: #777; }
"""


def _page(lines: Sequence[SummaryRow], config: SegmentConfig) -> Iterable[str]:
    """The page, with escaped texts and embedded pictures."""
    count = Counter(line.state for line in lines)
    objects = sum(line.objects or 0 for line in lines)
    time = datetime.now().astimezone()
    channels = "all" if config.channels is None else ", ".join(map(str, config.channels))
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        "<title>Segmentation report</title>\n"
        f"<style>{_STYLE}</style></head><body>\n<h1>Segmentation report</h1>\n<p>"
        f"{count['done']} of {pluralize(len(lines), 'image')} segmented, "
        f"{pluralize(objects, 'object')}; "
        f"{count['failed']} failed, {count['skipped']} skipped.</p>\n<p>"
        f"Model {escape(config.model)}, channels {escape(channels)}; napari-simmat "
        f"{escape(__version__)} on {escape(platform.node())}, {time:%Y-%m-%d %H:%M %Z}.</p>\n"
        "<table><thead><tr><th></th><th>image</th><th>state</th>"
        '<th class="number">objects</th><th class="number">seconds</th><th>message</th>'
        "</tr></thead><tbody>\n"
    )
    for number, line in enumerate(lines):
        picture = ""
        if line.picture and number < MAX_PICTURES:
            coded = b64encode(line.picture).decode("ascii")
            picture = f'<img alt="" src="data:image/png;base64,{coded}">'
        hidden = f"{line.hidden} hidden by others. " if line.hidden else ""
        cells = (
            f"<td>{picture}</td>",
            f"<td>{escape(line.image)}</td>",
            f'<td class="{line.state}">{line.state}</td>',
            f'<td class="number">{"" if line.objects is None else line.objects}</td>',
            f'<td class="number">{"" if line.seconds is None else f"{line.seconds:.1f}"}</td>',
            f"<td>{escape(hidden + line.note + line.message)}</td>",
        )
        yield f"<tr>{''.join(cells)}</tr>\n"
    yield "</tbody></table></body></html>\n"

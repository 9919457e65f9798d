"""The summary of a run: a table for programs, a page for people."""

from __future__ import annotations

import os
import platform
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path

from napari_simmat.batch.plans import Plan
from napari_simmat.engine.files import atomic_outputs, write_table, write_text
from napari_simmat.engine.jobs.tasks import Outcome, SegmentConfig
from napari_simmat.words import __version__, counted

TABLE, PAGE = "simmat-summary.csv", "simmat-report.html"
COLUMNS = ("image", "state", "objects", "hidden", "labels", "message")
MOST_PICTURES = 2000
"""A page with more pictures would open slowly."""


@dataclass(frozen=True)
class Line:
    """One image of a summary."""

    image: str
    state: str
    objects: int | None = None
    hidden: int | None = None
    labels: str = ""
    message: str = ""
    seconds: float | None = None
    note: str = ""
    picture: bytes = b""

    def values(self) -> dict[str, object]:
        """Cells of the table: equal runs have equal ones."""
        cells = {name: getattr(self, name) for name in COLUMNS}
        return {name: "" if value is None else value for name, value in cells.items()}


def write_summary(plan: Plan, outcomes: Sequence[Outcome], config: SegmentConfig) -> None:
    """Write `TABLE` and `PAGE` into the output folder, in place of those of an earlier run.

    The table follows from the files that were given and made: it has no times, and a file that was
    kept stands in it like one that was made now.
    """
    lines = lines_of(plan, outcomes)
    with atomic_outputs(plan.output / TABLE, plan.output / PAGE) as (table, page):
        write_table(table, COLUMNS, [line.values() for line in lines])
        write_text(page, "".join(_page(lines, config)))


def lines_of(plan: Plan, outcomes: Sequence[Outcome]) -> list[Line]:
    """Each image that was given, those that were left out last."""
    lines = []
    for outcome in outcomes:
        labels = _below(outcome.task.files.labels, plan.output)
        image = (labels.parent / outcome.task.image.name).as_posix()
        if outcome.status == "failed":
            message = _without_folder(outcome.note, plan.output)
            line = Line(image, "failed", message=message, seconds=outcome.seconds)
        else:
            line = Line(
                image,
                "done",
                outcome.objects,
                len(outcome.hidden),
                labels.as_posix(),
                seconds=outcome.seconds,
                note=("Kept from an earlier run. " if outcome.status == "kept" else "")
                + outcome.note,
                picture=outcome.thumbnail,
            )
        lines.append(line)
    lines += [
        Line(
            one.image.name,
            "failed" if one.failed else "skipped",
            message=_without_folder(one.why, plan.output),
        )
        for one in plan.skipped
    ]
    return lines


def _without_folder(sentence: str, folder: Path) -> str:
    """A sentence that is the same wherever the output folder lies."""
    return re.sub(rf"(?<!\S){re.escape(f'{folder}{os.sep}')}", "", sentence)  # no end of another's


def _below(path: Path, folder: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)


_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 70em; color: #222;
  padding: 0 1em; background: #fff; }
h1 { font-size: 1.4em; } table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .4em .7em; border-top: 1px solid #ddd; vertical-align: middle; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td img { display: block; image-rendering: pixelated; }
.failed { color: #a1260d; } .skipped { color: #777; }
"""


def _page(lines: Sequence[Line], config: SegmentConfig) -> Iterable[str]:
    """The page, every text in it escaped, pictures within."""
    count = {state: sum(line.state == state for line in lines) for state in _STATES}
    objects = sum(line.objects or 0 for line in lines)
    time = datetime.now().astimezone()
    channels = "all" if config.channels is None else ", ".join(map(str, config.channels))
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        "<title>Segmentation report</title>\n"
        f"<style>{_STYLE}</style></head><body>\n<h1>Segmentation report</h1>\n<p>"
        f"{count['done']} of {counted(len(lines), 'image')} segmented, "
        f"{counted(objects, 'object')}; "
        f"{count['failed']} failed, {count['skipped']} skipped.</p>\n<p>"
        f"Model {escape(config.model)}, channels {escape(channels)}; napari-simmat "
        f"{escape(__version__)} on {escape(platform.node())}, {time:%Y-%m-%d %H:%M %Z}.</p>\n"
        "<table><thead><tr><th></th><th>image</th><th>state</th>"
        '<th class="number">objects</th><th class="number">seconds</th><th>message</th>'
        "</tr></thead><tbody>\n"
    )
    for number, line in enumerate(lines):
        picture = ""
        if line.picture and number < MOST_PICTURES:
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


_STATES = ("done", "failed", "skipped")

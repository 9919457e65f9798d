"""What earlier runs left in an output folder: a summary is of all that lies there."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Container, Mapping
from dataclasses import dataclass
from html import unescape
from pathlib import Path

from napari_simmat.batch.plan import OutputFiles, SegmentTask
from napari_simmat.batch.record import read_record
from napari_simmat.io.files import read_table_file

_PICTURE = re.compile(
    r'<tr><td><img alt="" src="data:image/png;base64,([^"]*)"></td><td>([^<]*)</td>'
)


@dataclass(frozen=True)
class EarlierResult:
    """What lies in the folder of an image that this run did not segment.

    Attributes
    ----------
    image
        As the column ``image`` names it.
    task
        Its outputs: labels, table and record are there.
    objects, hidden
        How many there are, and how many others cover.
    """

    image: str
    task: SegmentTask
    objects: int
    hidden: int = 0


def result_of(image: str, record: Path) -> EarlierResult | None:
    """The outputs that a record names; None if one of them, or the record, is not there."""
    try:
        outputs = read_record(record).outputs
        labels, objects = (
            record.with_name(outputs[kind]["file"]) for kind in ("labels", "objects")
        )
        rows = read_table_file(objects)[1]
        if not labels.exists():
            return None
        count = len({row["label"] for row in rows})
    except (OSError, ValueError, KeyError):
        return None
    files = OutputFiles(labels, objects, record)
    return EarlierResult(image, SegmentTask(Path(image), None, files, name=image), count)


def results_in(summary: Path, known: Container[str]) -> list[EarlierResult]:
    """The images of an earlier summary besides the `known` ones, whose outputs are still there."""
    try:
        rows = list(read_table_file(summary)[1])
    except (OSError, ValueError):  # none, or that of another program
        return []
    found = []
    for row in rows:
        image, labels = row.get("image", ""), row.get("labels", "")
        stem, ending, _ = labels.rpartition("_labels.")
        if not (ending and image not in known):
            continue
        if (one := result_of(image, summary.parent / f"{stem}.json")) is not None:
            found.append(one)
    return found


def pictures_on(page: Path) -> Mapping[str, bytes]:
    """The thumbnails of an earlier page, by image."""
    try:
        text = page.read_text(encoding="utf-8")
        return {unescape(image): b64decode(coded) for coded, image in _PICTURE.findall(text)}
    except (OSError, ValueError):
        return {}

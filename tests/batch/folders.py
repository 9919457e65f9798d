"""A task from its files to its outputs, and what two runs are compared by."""

from __future__ import annotations

import json
from pathlib import Path

from napari_simmat.batch.outputs import write_result
from napari_simmat.batch.plan import SegmentConfig, SegmentTask
from napari_simmat.batch.run import LOCK, SUMMARY_PAGE
from napari_simmat.batch.segment_image import TaskOutcome, load_task, segment_loaded_job
from napari_simmat.engine.predictor import Predictor
from napari_simmat.progress import finish


def segment_task(
    task: SegmentTask, predictor: Predictor, config: SegmentConfig, *, resume: bool = False
) -> TaskOutcome:
    result = finish(segment_loaded_job(load_task(task, config), predictor, resume=resume))
    return result if isinstance(result, TaskOutcome) else write_result(result)


def contents(folder: Path) -> dict[str, bytes]:
    """All files by name: records without their run block, without the report and the lock."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in (SUMMARY_PAGE, LOCK):
            continue
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        if name.endswith(".json") and not name.endswith(("_coco.json", "zarr.json")):
            values = json.loads(data)
            del values["run"]
            data = json.dumps(values).encode()
        found[name] = data
    return found

"""A task from its files to its outputs, and what two runs are compared by."""

import json
from pathlib import Path

from napari_simmat.batch.folder_lock import LOCK
from napari_simmat.batch.loaded_image import load_task
from napari_simmat.batch.outputs import write_result
from napari_simmat.batch.plan import SegmentConfig, SegmentTask
from napari_simmat.batch.record import Record, RecordedInput, RecordedSettings, Request, UsedModel
from napari_simmat.batch.segment_image import TaskOutcome, segment_loaded_job
from napari_simmat.batch.summary import SUMMARY_PAGE
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.progress import finish


def segment_task(
    task: SegmentTask, predictor: Predictor, config: SegmentConfig, *, resume: bool = False
) -> TaskOutcome:
    result = finish(segment_loaded_job(load_task(task, config), predictor, resume=resume))
    return result if isinstance(result, TaskOutcome) else write_result(result)


def write_record(path: Path, *prompts: Prompt, **outputs: str) -> Path:
    """A record as a run leaves it; `outputs` are names of files by their kind."""
    image = RecordedInput(file="a.tif", sha256="", shape=(3, 4, 6), axes="ZYX", dtype="uint8")
    request = Request(
        input=image,
        model=UsedModel(name="tiny-1", fingerprint="", base="tiny-1"),
        prompts=tuple(prompt.to_plain() for prompt in prompts),
        settings=RecordedSettings(),
    )
    files = {kind: {"file": name, "sha256": ""} for kind, name in outputs.items()}
    record = Record(request=request, normalization={}, objects=(), outputs=files)
    path.write_text(record.to_json())
    return path


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

"""What two runs are compared by."""

from __future__ import annotations

import json
from pathlib import Path

from napari_simmat.batch.run import LOCK, SUMMARY_PAGE


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

"""The folder of a training run: its log, its lock, and the state from which it is resumed."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from napari_simmat.io.files import atomic_write, disk_errors_explained

logger = logging.getLogger(__name__)

STATE_FILE, BEST_FILE, LOG_FILE, STOP_FILE, LOCK_FILE = (
    "state.pt",
    "best.safetensors",
    "log.csv",
    "stop",
    ".lock",
)
IS_RUNNING = "Another training is running in {}; wait for it, or choose another folder."
IS_DAMAGED = (
    "{} is damaged, so no training can resume from it ({}). Delete it, or choose another folder."
)
LACKS_FILE = (
    "{} holds a training without its best checkpoint, {}; put that back, or choose another folder."
)
HAS_OTHER_DATA = (
    "{} holds a training on other data: images, labels or channels have changed. Choose another "
    "folder, or delete it to start again."
)
HAS_OTHER_SETTING = (
    "{} holds a training with {} {}, not {}. Use its settings, choose another folder, or delete it "
    "to start again."
)
NOT_WRITTEN = (
    "{} could not be written; is the disk full? The training can be resumed from the state saved "
    "before. ({})"
)
LOG_COLUMNS = ("step", "epoch", "learning_rate", "loss", "train_iou", "validation_iou")


class RunFolder:
    """The folder of one training run, locked until it is closed; created if needed.

    Raises
    ------
    ValueError
        If another training is running in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors_explained(path / LOG_FILE):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / LOCK_FILE, blocking=False, thread_local=False)
            try:
                self._lock.acquire()
            except Timeout:
                raise ValueError(IS_RUNNING.format(path)) from None
            except NotImplementedError:  # some clusters' file systems know no locks
                logger.info("%s cannot be locked; start no second training in it.", path)
            (path / STOP_FILE).unlink(missing_ok=True)
            for unfinished in path.glob(".*.part"):  # of a process that was killed while it wrote
                unfinished.unlink()

    def save(self, state: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Write tensors and plain values, completely or not at all; a full disk is reported."""
        with atomic_write(self.path / STATE_FILE) as temporary:
            try:
                torch.save({**state, "settings": json.dumps(settings)}, temporary)
            except RuntimeError as error:  # torch's writer of archives hides the system's error
                reason = str(error).splitlines()[0]
                raise OSError(NOT_WRITTEN.format(self.path / STATE_FILE, reason)) from error

    def log(self, row: Mapping[str, float]) -> None:
        """Add a row to the table; missing columns stay empty."""
        path = self.path / LOG_FILE
        with disk_errors_explained(path):
            new = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, LOG_COLUMNS)
                if new:
                    writer.writeheader()
                writer.writerow(dict(row))

    def resume_from(self, step: int) -> None:
        """Remove rows beyond `step` from the table: they will be written again."""
        path = self.path / LOG_FILE
        if not path.exists():
            return
        lines = path.read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):  # cut when the disk was full
            del lines[-1]
        rows = [row for row in csv.DictReader(lines) if int(row["step"]) <= step]
        with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, LOG_COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()


def settings_in(folder: Path) -> dict[str, Any]:
    """The settings of the training that a folder holds; empty if that cannot be read."""
    try:  # mapped: the tensors, which may be large, are not read
        state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True, mmap=True)
        return dict(json.loads(state["settings"]))
    except Exception:  # `read_state` reports the reason
        return {}


def read_state(
    folder: Path, settings: Mapping[str, Any], needs: str = STATE_FILE
) -> dict[str, Any] | None:
    """The state that `RunFolder.save` wrote last into a folder; None if there is none.

    Without the file called `needs`, no training can resume.

    Raises
    ------
    ValueError
        If the state belongs to a run with other settings or data, is damaged, or was written by an
        earlier version.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        state = dict(torch.load(path, map_location="cpu", weights_only=True))
        before = json.loads(state["settings"])
    except Exception as error:
        raise ValueError(IS_DAMAGED.format(path, type(error).__name__)) from None
    now = json.loads(json.dumps(settings))
    for name in sorted({*before, *now}):
        if before.get(name) == now.get(name):
            continue
        if name == "data":
            raise ValueError(HAS_OTHER_DATA.format(folder))
        values = [json.dumps(each.get(name)) for each in (before, now)]
        short = [text if len(text) <= 80 else text[:77] + "..." for text in values]
        raise ValueError(HAS_OTHER_SETTING.format(folder, name, *short))
    if not (folder / needs).exists():
        raise ValueError(LACKS_FILE.format(folder, needs))
    return state

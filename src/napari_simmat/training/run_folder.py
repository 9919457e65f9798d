"""A run's folder: the state to resume from, the best checkpoint so far, and the log."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout

from napari_simmat.io.files import atomic_write, disk_errors_explained

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


logger = logging.getLogger(__name__)

STATE_FILE, BEST_FILE, LOG_FILE, STOP_FILE, LOCK_FILE = (
    "state.pt",
    "best.safetensors",
    "log.csv",
    "stop",
    ".lock",
)
_OLD = {"config", "losses"}
"""Keys of a state that only earlier versions wrote."""
IS_RUNNING = "Another training is running in {}; wait for it, or choose another folder."
IS_DAMAGED = (
    "{} is damaged, so no training can resume from it ({}). Delete it, or choose another folder."
)
IS_OUTDATED = (
    "{} was written by an earlier version, from which no training can resume. Delete it, or choose "
    "another folder."
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
        self._board: SummaryWriter | None = None
        self._begin = 0
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

    @property
    def best(self) -> Path:
        """Path of the best checkpoint so far."""
        return self.path / BEST_FILE

    @property
    def stop_requested(self) -> bool:
        """Whether there is a file called ``stop``, which ends the training and keeps the best."""
        return (self.path / STOP_FILE).exists()

    def save(self, state: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Write tensors and plain values, completely or not at all; a full disk is reported."""
        with atomic_write(self.path / STATE_FILE) as temporary:
            try:
                torch.save({**state, "settings": json.dumps(settings)}, temporary)
            except RuntimeError as error:  # torch's writer of archives hides the system's error
                reason = str(error).splitlines()[0]
                raise OSError(NOT_WRITTEN.format(self.path / STATE_FILE, reason)) from error

    def log(self, row: Mapping[str, float]) -> None:
        """Add a row to the table and to TensorBoard; missing columns stay empty."""
        path = self.path / LOG_FILE
        with disk_errors_explained(path):
            new = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, LOG_COLUMNS)
                if new:
                    writer.writeheader()
                writer.writerow(dict(row))
        try:
            self._show(row)
        except OSError as error:
            logger.warning("TensorBoard's file could not be written (%s).", error)

    def resume_from(self, step: int) -> None:
        """Remove rows beyond `step` from the table: they will be written again."""
        self._begin = step + 1
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
        """Close TensorBoard's file and release the lock."""
        board, self._board = self._board, None
        try:
            if board is not None:
                board.close()
        except OSError as error:
            logger.warning("TensorBoard's file could not be written (%s).", error)
        finally:
            self._lock.release()

    def _show(self, row: Mapping[str, float]) -> None:
        """Add a row to TensorBoard, if it is installed."""
        if self._board is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            # Hides rows that an interrupted training wrote after its last state.
            self._board = SummaryWriter(
                os.fspath(self.path / "tensorboard"), purge_step=self._begin
            )
        for name, value in row.items():
            if name not in ("step", "epoch"):
                self._board.add_scalar(name, value, int(row["step"]))
        self._board.flush()


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
        before = {} if _OLD & state.keys() else json.loads(state["settings"])
    except Exception as error:
        raise ValueError(IS_DAMAGED.format(path, type(error).__name__)) from None
    if not before:
        raise ValueError(IS_OUTDATED.format(path))
    _check_settings(folder, before, json.loads(json.dumps(settings)))
    if not (folder / needs).exists():
        raise ValueError(LACKS_FILE.format(folder, needs))
    return state


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a run's table, without empty cells."""
    with path.open(newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if name and value}
            for row in csv.DictReader(file)
        ]


def _check_settings(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in sorted({*before, *now}):
        if before.get(name) == now.get(name):
            continue
        if name == "data":
            raise ValueError(HAS_OTHER_DATA.format(folder))
        values = _short(before.get(name)), _short(now.get(name))
        raise ValueError(HAS_OTHER_SETTING.format(folder, name, *values))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."

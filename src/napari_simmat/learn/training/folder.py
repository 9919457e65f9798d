"""A training's folder: what is needed to go on, the best checkpoint so far, and the log."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_simmat.engine.files import writing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

STATE, BEST, LOG, STOP = "state.pt", "best.safetensors", "log.csv", "stop"
COLUMNS = ("step", "epoch", "learning_rate", "loss", "train_iou", "validation_iou")


class RunFolder:
    """The folder of one training.

    Parameters
    ----------
    path
        Made if need be.
    settings
        Plain values that a training has to share with what the folder holds.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self._settings = json.loads(json.dumps(settings))
        self._board: SummaryWriter | None = None
        path.mkdir(parents=True, exist_ok=True)
        (path / STOP).unlink(missing_ok=True)

    @property
    def best(self) -> Path:
        """Where the best checkpoint so far lies."""
        return self.path / BEST

    @property
    def asked_to_stop(self) -> bool:
        """Whether somebody has put a file called ``stop`` here: end, and keep the best."""
        return (self.path / STOP).exists()

    def restore(self) -> dict[str, Any] | None:
        """What `save` wrote last; None if nothing.

        Raises
        ------
        ValueError
            If it is of a training with other settings or data, or damaged.
        """
        path = self.path / STATE
        if not path.exists():
            return None
        try:
            state = torch.load(path, weights_only=True)
            before = json.loads(state["settings"])
        except Exception as error:
            raise ValueError(
                f"{path} is damaged and no training can go on from it ({type(error).__name__}). "
                "Delete it, or choose another folder."
            ) from None
        for name in sorted({*before, *self._settings}):
            if before.get(name) != self._settings.get(name):
                raise ValueError(
                    f"{self.path} holds a training with {name} {_short(before.get(name))}, not "
                    f"{_short(self._settings.get(name))}. Go on with its settings, or choose "
                    "another folder."
                )
        return dict(state)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write tensors and plain values, whole or not at all; a disk that is full says so."""
        with writing(self.path / STATE) as temporary:
            try:
                torch.save({**state, "settings": json.dumps(self._settings)}, temporary)
            except RuntimeError as error:  # torch's writer of archives hides the system's error
                raise OSError(
                    f"{self.path / STATE} could not be written; is the disk full? The training can "
                    f"go on from what was saved before. ({str(error).splitlines()[0]})"
                ) from error

    def log(self, row: Mapping[str, float]) -> None:
        """Add a row to the table and to TensorBoard; columns that are not known stay empty."""
        path = self.path / LOG
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(dict(row))
        board = self._tensorboard()
        if board is not None:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    board.add_scalar(name, value, int(row["step"]))
            board.flush()

    def forget_after(self, step: int) -> None:
        """Take rows beyond `step` out of the table: they will be written anew."""
        path = self.path / LOG
        if not path.exists():
            return
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        with writing(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def close(self) -> None:
        """Give back what is open."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _tensorboard(self) -> SummaryWriter | None:
        """TensorBoard's writer, where it is installed."""
        if self._board is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return None
            self._board = SummaryWriter(os.fspath(self.path / "tensorboard"))
        return self._board


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a training's table; what is empty is left out."""
    with path.open(newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if name and value}
            for row in csv.DictReader(file)
        ]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."

"""What a training says on its way: rows of its log."""

from __future__ import annotations

import math

from napari_simmat.learn.training.folder import RunFolder

Row = dict[str, float]

ROWS = 200
"""Of steps, in all, about."""


class Journal:
    """Rows for the log: every so many steps the mean of what they reached, and each validation.

    Parameters
    ----------
    folder
        Where the log is; None in a process that writes none.
    total
        Steps in all.
    epochs
        Into which they are divided.
    """

    def __init__(self, folder: RunFolder | None, total: int, epochs: int) -> None:
        self._folder, self._total, self._epochs = folder, total, epochs
        self.losses: list[float] = []
        self.ious: list[float] = []

    def trained(self, step: int, rate: float, loss: float, iou: float) -> Row:
        """After a step; empty if no row is due. The IoU is 0..1, that in the row is in percent."""
        self.losses.append(loss)
        self.ious.append(iou)
        if step % max(1, self._total // ROWS):
            return {}
        count = len(self.losses)
        loss, iou = sum(self.losses) / count, sum(self.ious) / count
        self.losses, self.ious = [], []
        return self._row(step, learning_rate=rate, loss=loss, train_iou=100 * iou)

    def validated(self, step: int, iou: float) -> Row:
        """After a validation."""
        return self._row(step, validation_iou=100 * iou)

    def _row(self, step: int, **figures: float) -> Row:
        row: Row = {"step": step, "epoch": round(step * self._epochs / self._total, 3)}
        # What is no number any more, as in a training that diverges, stays empty.
        row |= {n: float(f"{v:.6g}") for n, v in figures.items() if math.isfinite(v)}
        if self._folder is not None:
            self._folder.log(row)
        return row

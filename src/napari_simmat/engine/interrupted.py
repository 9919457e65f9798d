"""Jobs that can be left in the middle and gone on with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from napari_simmat.progress import Job

T = TypeVar("T")


class Interrupted(Generic[T]):
    """Jobs under way, by what they make. Whoever wants that goes on where it was left.

    So a click that pre-empts the encoding of a plane, or is cancelled itself, costs nothing: what
    was computed is not computed again.

    Parameters
    ----------
    most
        So many are kept; the one that was left longest ago is closed.
    """

    def __init__(self, most: int = 3) -> None:
        self._most = most
        self._begun: OrderedDict[str, _Begun[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._begun)

    def done(self, key: str) -> float:
        """How far the job under `key` has come, 0..1; 0 where there is none."""
        begun = self._begun.get(key)
        return 0.0 if begun is None else begun.done

    def going_on(self, key: str, start: Callable[[], Job[T]]) -> Job[T | None]:
        """Go on with the job under `key`, or start it; closing this only leaves it.

        Returns
        -------
        What the job returns; None if somebody else took it to its end meanwhile.
        """
        mine = self._begun.get(key)
        if mine is None:
            mine = self._begun[key] = _Begun(start())
        while self._begun.get(key) is mine:
            self._begun.move_to_end(key)
            while len(self._begun) > self._most:
                _, oldest = self._begun.popitem(last=False)
                oldest.job.close()
            try:
                progress = next(mine.job)
            except StopIteration as end:
                self._begun.pop(key, None)
                result: T = end.value
                return result
            except BaseException:
                self._begun.pop(key, None)
                raise
            mine.done = progress.done / max(progress.total, 1)
            yield progress
        return None

    def clear(self) -> None:
        """Close all."""
        while self._begun:
            _, begun = self._begun.popitem()
            begun.job.close()


@dataclass(eq=False)
class _Begun(Generic[T]):
    """A job, and the share of it that is done."""

    job: Job[T]
    done: float = 0.0

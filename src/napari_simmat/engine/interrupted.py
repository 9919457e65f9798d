"""Jobs that can be left in the middle and gone on with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
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

    def __init__(self, most: int = 2) -> None:
        self._most = most
        self._jobs: OrderedDict[str, Job[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._jobs)

    def going_on(self, key: str, start: Callable[[], Job[T]]) -> Job[T | None]:
        """Go on with the job under `key`, or start it; closing this only leaves it.

        Returns
        -------
        What the job returns; None if somebody else took it to its end meanwhile.
        """
        mine = self._jobs.get(key)
        if mine is None:
            mine = self._jobs[key] = start()
        while self._jobs.get(key) is mine:
            self._jobs.move_to_end(key)
            while len(self._jobs) > self._most:
                _, oldest = self._jobs.popitem(last=False)
                oldest.close()
            try:
                progress = next(mine)
            except StopIteration as end:
                self._jobs.pop(key, None)
                result: T = end.value
                return result
            except BaseException:
                self._jobs.pop(key, None)
                raise
            yield progress
        return None

    def clear(self) -> None:
        """Close all."""
        while self._jobs:
            _, job = self._jobs.popitem()
            job.close()

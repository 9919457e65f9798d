"""How often learning was tried on an image: who tries again and again will be lucky once."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from napari_simmat.io.files import user_folder

NOT_COUNTED = (
    "Learning on this image cannot be counted in %s (%s). A later one counts as if it were the "
    "first, so that more than one useless training of 20 may be offered."
)
_log = logging.getLogger(__name__)


class Try(NamedTuple):
    """A training that objects left out have judged: what it went on from, and all it depends on."""

    line: str
    """Digest of the model that it began with: tries are counted from one that is offered on."""
    lesson: str
    """Digest of that, the objects and the settings: the same lesson again is the same try."""


class Tries:
    """The tries on an image, in a file that outlives its session, and a crash.

    Parameters
    ----------
    path
        The file; None to count in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._known = [] if path is None else _read(path)

    @classmethod
    def of(cls, identity: str) -> Tries:
        """Those on an image or folder, beside the sessions of the user."""
        return cls(user_folder("sessions") / f"{identity}.tries")

    @classmethod
    def of_folder(cls, folder: Path) -> Tries:
        """Those on the images of a folder, whichever they are."""
        return cls.of(xxhash.xxh3_128_hexdigest(bytes(folder.resolve())))

    @classmethod
    def of_planes(cls, planes: Iterable[NDArray[np.generic]]) -> Tries:
        """Those on the planes of an image in memory."""
        state = xxhash.xxh3_128()
        for plane in planes:
            state.update(np.ascontiguousarray(plane).data)
        return cls.of(state.hexdigest())

    def number_of(self, one: Try) -> int:
        """The number of a try, from 1: that which it had, or the next."""
        lessons = [each.lesson for each in self._known if each.line == one.line]
        return 1 + (lessons.index(one.lesson) if one.lesson in lessons else len(lessons))

    def add(self, one: Try) -> None:
        """Count a try that was judged, unless it was before."""
        if one in self._known:
            return
        self._known.append(one)
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write("\n" + json.dumps(one._asdict()))  # a line cut off stays apart
        except OSError as error:
            _log.warning(NOT_COUNTED, self.path, error.strerror or error)


def _read(path: Path) -> list[Try]:
    """The tries in a file, of which a crash may have cut off the last line; none without one."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        _log.warning(NOT_COUNTED, path, error.strerror or error)
        return []
    tries = (_try_of(line) for line in lines)
    return list(dict.fromkeys(one for one in tries if one is not None))


def _try_of(line: str) -> Try | None:
    """A line of a file; None if it was cut off."""
    try:
        return Try(**json.loads(line))
    except (ValueError, TypeError):
        return None
